"""From a wish to a plan of the training, its settings, and what it will take: memory, minutes, steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_lfm.core.devices import pick_device
from napari_lfm.core.problems import RequestError
from napari_lfm.core.words import duration
from napari_lfm.methods.plan import RUNTIME_BYTES
from napari_lfm.methods.train_baseline import MANY, baseline_geometry
from napari_lfm.networks.lenslet_net import LensletNet, shapes_only
from napari_lfm.networks.registry import ARCHITECTURES
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.start import start_cost
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.training.config import TrainConfig, make_config, uses_bfloat16
from napari_lfm.training.lfmnet_paper import PATCH_LENSLETS, PATCHES_PER_FRAME
from napari_lfm.training.lfmnet_plan import LARGE_N, PAPER_FOV, SIZES, SPECIMENS, LfmnetPlan
from napari_lfm.training.lightfield_pairs import NEAR_OPTICS, LightfieldPairs, PairSettings

if TYPE_CHECKING:
    from torch import nn

    from napari_lfm.methods.train_wish import TrainWish
    from napari_lfm.optics.projector import Geometry

SHORT_MINUTES = 40.0
"""Shorter trainings simulate fewer optics: building each takes time, and learning to bear them all does."""
MANY_PLANES = 40
LARGE_OPERATOR_BYTES = 1 << 30
POOL_BYTES = 3 << 30
FEW_THREADS = 4
_FLOPS = {"cuda": 4e13, "mps": 2e12}
_FLOPS_PER_THREAD = {True: 1e11, False: 4e10}
"""Operations per second while training, with and without bfloat16; measured on two server cores."""
_BACKWARD = 3.0
"""A step takes so many times the operations of the forward pass."""
_KEPT = 4.0
"""Memory of a step over that of all layers' outputs: activations, gradients, what autograd keeps."""
_SCATTERED = 1.2
"""What a long training takes over the sum of its parts (measured: 2.7 GiB where 2.3 are counted)."""


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take, before it starts.

    Attributes
    ----------
    parameters : int
        Trained numbers of the network.
    steps : int
        Steps that the minutes will hold, or those asked for.
    peak_bytes : int
        Main memory; on a GPU the network's share is there.
    seconds_to_first_step : float
        For the optics, the first specimens and the comparison.
    model_bytes : int
        Size of the model on the disk.
    seconds : float
        From the start to the end.
    sentences : tuple of str
        The same in words.
    """

    parameters: int
    steps: int
    peak_bytes: int
    seconds_to_first_step: float
    model_bytes: int
    seconds: float
    sentences: tuple[str, ...]


def make_plan(wish: TrainWish) -> LfmnetPlan:
    """Choose what the wish leaves open: frames, specimens, optics, by the microscope and the minutes.

    Raises
    ------
    RequestError
        If the depths are empty or the microscope has no square lenslet array.
    """
    z, n = wish.depths_um(), wish.n_pixels or wish.microscope.n_pixels
    if wish.microscope.lenslets is None or n is None:
        raise RequestError(
            f"The microscope '{wish.microscope.name}' has no lenslet array.",
            "Choose a light-field microscope.",
        )
    tuning, paper = wish.tuning, wish.size == "paper"
    short = wish.minutes is not None and wish.minutes < SHORT_MINUTES
    large = n > LARGE_N or len(z) > MANY_PLANES
    # a patch of three lenslets and what the network sees around it: more is simulated for nothing
    cells = tuning.cells or (PATCH_LENSLETS + PAPER_FOV if paper else 20 if n <= LARGE_N else 16)
    s = _divisor(n) if paper else wish.voxels_per_lenslet
    settings = PairSettings(
        families=SPECIMENS[wish.specimen],
        cells=cells,
        z_substeps=tuning.z_substeps or (1 if len(z) > MANY_PLANES else 2),
        errors=_optics(wish, short or large),
        pool=tuning.pool or (24 if short or large else 48),
        fresh_every=tuning.fresh_every or 4,
    )
    plan = LfmnetPlan(wish.microscope, tuple(z), wish.size, wish.specimen, s, n, wish.seed, settings)
    storage = tuning.storage
    if storage is None:
        whole = sum(g.matrix_bytes() for g in _geometries(plan))
        storage = "float16" if whole > LARGE_OPERATOR_BYTES else "float32"
    most = tuning.most or max(settings.pool, min(2000, POOL_BYTES // _scene_bytes(plan)))
    return replace(plan, settings=replace(settings, storage=storage, most=most))


def make_settings(wish: TrainWish) -> TrainConfig:
    """Return the settings of the training loop."""
    t, size = wish.tuning, SIZES[wish.size]
    every = 60.0 if wish.minutes is None else min(120.0, max(5.0, 60 * wish.minutes / 20))
    paper, device = wish.size == "paper", pick_device(wish.device).type
    chosen: dict[str, Any] = {
        "steps": wish.steps,
        "minutes": wish.minutes,
        "batch_size": size.batch_size,
        "learning_rate": size.learning_rate,
        "schedule": "constant" if paper else "one-cycle",
        "warmup_share": 0.05,
        "ema_decay": 0.998,
        "weight_decay": 0.0 if paper else 1e-3,
        "validate_every_s": every,
        "checkpoint_every_s": 300.0,
        # two cores are busy with the network already: a thread beside them only makes them wait
        "prefetch": 0 if device == "cpu" and torch.get_num_threads() <= FEW_THREADS else 3,
        "seed": wish.seed,
        "device": device,
    }
    names = set(TrainConfig.model_fields) & set(type(t).model_fields)
    given = {name: getattr(t, name) for name in names}
    return make_config(**chosen | {name: value for name, value in given.items() if value is not None})


def estimate(wish: TrainWish) -> TrainingEstimate:
    """Return what a training takes; raises as `make_plan`."""
    plan, config = make_plan(wish), make_settings(wish)
    device = pick_device(wish.device)
    threads = torch.get_num_threads()
    parameters, flop, outputs = _costs(plan, config.batch_size)
    bfloat16 = uses_bfloat16(config.precision, device)
    rate = _FLOPS.get(device.type, _FLOPS_PER_THREAD[bfloat16] * threads)
    build, product, operators = _optics_costs(plan, compare=wish.compare)
    build, product = build / max(1, threads / 2), product / max(1, threads / 2)
    # one product re-projects, and one for each frame of the batch gives the network its start
    products = 0 if wish.size == "paper" else 2 + config.batch_size
    step = flop * _BACKWARD / rate + products * product + 0.01
    steps = wish.steps or math.inf
    if wish.minutes is not None:
        steps = min(steps, 60 * wish.minutes / step)
    count = max(1, int(steps))
    scenes = min(plan.settings.most, plan.settings.pool + count // plan.settings.fresh_every)
    first = build + (plan.settings.pool + 12) * (product + 0.12)
    first += 8 * MANY * 2 * product if wish.compare else 0
    weights = parameters * 4 * 6  # weights, gradients, two moments, average, a copy to save
    peak = RUNTIME_BYTES + operators + scenes * _scene_bytes(plan) + weights
    peak += int(outputs * _KEPT * (2 if bfloat16 else 4))
    peak = int(peak * _SCATTERED)
    seconds = first + count * step
    minutes = "" if wish.minutes is None else f" in {duration(60 * wish.minutes)}"
    sentences = [
        f"A network of {_count(parameters)} numbers for {len(plan.z_um)} planes and "
        f"{plan.truth_voxels} voxels per lenslet, {plan.n_pixels} pixels per lenslet.",
        f"The first step comes after about {duration(first)}; then about {_count(count)} steps{minutes}"
        f"{'' if wish.minutes is not None else f', {duration(count * step)}'}.",
        f"It takes about {peak / 2**30:.1f} GiB of memory, the model {parameters * 2 / 2**20:.1f} MiB.",
    ]
    if wish.size == "paper":
        # 362 pairs, every position, 1000 rounds (the authors' defaults)
        published = 362 * 39 * 39 * 1000 / config.batch_size * step
        sentences.append(
            f"The published network learns slowly: about {duration(step)} for {config.batch_size} patches "
            f"here; the training that was published would take {duration_of_years(published)}."
        )
    return TrainingEstimate(parameters, count, peak, first, parameters * 2, seconds, tuple(sentences))


def duration_of_years(seconds: float) -> str:
    """Return a long time in words."""
    days = seconds / 86400
    return duration(seconds) if days < 2 else f"{days:.0f} days" if days < 730 else f"{days / 365:.0f} years"


def _optics(wish: TrainWish, short: bool) -> tuple[OpticsError, ...]:
    own = (OpticsError(pupil=_normalised(wish.pupil)),) if wish.pupil else ()
    near = NEAR_OPTICS[: wish.tuning.optics or (1 if short else len(NEAR_OPTICS))]
    return own + tuple(error.possible(wish.microscope) for error in near)


def _normalised(pupil: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(v / max(pupil), 4) for v in pupil)


def _divisor(n: int) -> int:
    """Return how many voxels per lenslet to simulate for a network that makes one for each pixel."""
    return next((s for s in (5, 3, 7, 9, 11) if n % s == 0), 5)


def _scene_bytes(plan: LfmnetPlan) -> int:
    c = plan.settings.cells
    return 2 * c * c * (plan.n_pixels**2 + len(plan.z_um) * plan.truth_voxels**2)


def _geometries(plan: LfmnetPlan) -> list[Geometry]:
    pairs = LightfieldPairs(
        plan.microscope, plan.n_pixels, plan.z_um, plan.voxels_per_lenslet, plan.settings, plan.seed
    )
    return pairs.geometries()


def _optics_costs(plan: LfmnetPlan, compare: bool) -> tuple[float, float, int]:
    """Return seconds to build all operators and for a product of the first (two cores), and their bytes."""
    geometries = _geometries(plan)
    every = [*geometries, baseline_geometry(plan)] if compare else [*geometries]
    seconds, held, work = 0.0, 0, 0
    if plan.start is not None:
        optics, cells = CellOptics.of(plan.microscope, plan.n_pixels), (plan.settings.cells,) * 2
        start = start_cost(optics, plan.start, cells, use_cache=False)
        seconds += start.building_seconds
        held, work = start.held_bytes, max(0, start.building_bytes - start.held_bytes)
    for g in every:
        seconds += g.build_seconds()
        held += g.matrix_bytes(plan.settings.storage)
        work = max(work, g.plane_bytes(), g.vector_bytes())
    product = geometries[0].product_seconds() + (0.0 if plan.start is None else start.frame_seconds)
    return seconds, product, held + work


@lru_cache(maxsize=16)
def _cost_of(architecture: str, arguments: str, shape: tuple[int, ...], batch: int) -> tuple[int, int, int]:
    import json
    from importlib import import_module

    module, _, name = ARCHITECTURES[architecture].partition(":")
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = getattr(import_module(module), name)(**json.loads(arguments)).to("meta")
    outputs = 0

    def count(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, torch.Tensor) else 0

    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    if isinstance(network, LensletNet):
        n = network.n_pixels
        given = shapes_only(network, n, (shape[0] // n, shape[1] // n), batch)
    else:
        given = [torch.zeros(batch, *shape, device="meta")]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*given)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops(), outputs


def _costs(plan: LfmnetPlan, batch: int) -> tuple[int, int, int]:
    """Return parameters, operations of one forward pass, and numbers in all layers' outputs."""
    import json

    n, c = plan.n_pixels, plan.settings.cells
    arguments = json.dumps(plan.network)
    if plan.size == "paper":
        across = PATCH_LENSLETS + plan.network["fov"] - 1
        found = _cost_of(plan.architecture, arguments, (1, n, n, across, across), batch)
        frames = -(-batch // PATCHES_PER_FRAME)
        return found[0], found[1], found[2] + frames * c * c * n * n * len(plan.z_um)
    return _cost_of(plan.architecture, arguments, (c * n, c * n), batch)


def _count(value: int) -> str:
    """Return a large number as people say it."""
    for scale, unit in ((10**6, " million"), (10**3, " thousand")):
        if value >= 10 * scale or (value >= scale and unit == " million"):
            return f"{value / scale:.3g}{unit}"
    return str(value)
