"""How long one network takes for one light field, measured in a process of its own."""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from napari_lfm.optics.psf import CellOptics
    from napari_lfm.optics.start import StartSettings

# Dense 16-bit matrix arithmetic by the makers' data sheets, FLOP/s.
_PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes
    ----------
    profile : str
        ``paper`` or ``modern``.
    microscope : str
        Preset; its model ``model`` is used where it is installed, random weights otherwise.
    lenslets, n_pixels, depths, voxels : int
        Across the frame; pixels and voxels per lenslet (modern).
    z_step_um : float
        Distance of the planes (modern).
    """

    profile: str
    microscope: str
    model: str
    lenslets: int
    n_pixels: int
    depths: int
    voxels: int
    z_step_um: float
    repeats: int = 3
    precision: str = "float32"
    device: str = "cpu"


def measure(case: Case) -> dict[str, Any]:
    """Run one case in this process; random light, since values do not change the time.

    What a network starts from (`napari_lfm.optics.start`) is made before and applied every time.

    Returns
    -------
    dict
        ``weights``, ``seconds`` (median), ``seconds_minimum``, ``peak_gib`` of the process (or of the GPU's
        memory), ``tflop`` of one pass, ``tflop_per_s``; on a known GPU ``of_peak``.
    """
    import torch

    from napari_lfm.optics.start import make_start

    network, weights, start = _network(case)
    size = case.lenslets * case.n_pixels
    image = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0))
    flop = arithmetic(network, size)
    device = torch.device(case.device)
    begin = None
    if start is not None:
        cells = (case.lenslets, case.lenslets)
        begin = make_start(*start, cells, device)
        for _ in begin.build_steps():
            pass
    network, image = network.to(device), image.to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
    dtype = getattr(torch, case.precision)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        given = (lambda: (image,)) if begin is None else (lambda: (image, begin(image)))
        times = timed(lambda: network.volume_of(*given()), case.repeats, device)
    seconds = statistics.median(times)
    out: dict[str, Any] = {
        "weights": weights,
        "seconds": seconds,
        "seconds_minimum": min(times),
        "peak_gib": _short(_peak_bytes(device) / 2**30),
        "tflop": _short(flop / 1e12),
        "tflop_per_s": _short(flop / seconds / 1e12),
    }
    if device.type == "cuda":
        out["gpu"] = torch.cuda.get_device_name(device)
        peak = next((v for name, v in _PEAKS.items() if name in out["gpu"]), None)
        if peak is not None and dtype != torch.float32:
            out["of_peak"] = _short(flop / seconds / peak)
    return out


def arithmetic(network: nn.Module, size: int) -> float:
    """Return the floating-point operations of one pass over a frame of `size` x `size` pixels, by counting.

    A multiplication and an addition are two; the convolutions are counted, which are nearly all.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_lfm.networks.lenslet_net import shapes_only

    shadow: Any = copy.deepcopy(network).to("meta")  # shapes only
    n = shadow.n_pixels
    given = shapes_only(shadow, n, (size // n, size // n))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow.volume_of(*given)
    return float(counter.get_total_flops())


def timed(action: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Return the seconds of each repetition, after one to warm up."""
    once(action, device)
    return [once(action, device) for _ in range(repeats)]


def once(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one repetition."""
    import torch

    begun = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def has_modern() -> bool:
    """Return whether the modern profile is there."""
    return find_spec("napari_lfm.networks.lenslet_net") is not None


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _network(case: Case) -> tuple[Any, str, tuple[CellOptics, StartSettings] | None]:
    """Return a network, whose weights it has, and what it starts from."""
    import torch

    from napari_lfm.methods.lfmnet_plan import start_of
    from napari_lfm.networks.lfmnet import LFMNet
    from napari_lfm.networks.registry import list_models, open_network

    torch.manual_seed(0)
    if case.profile == "paper":
        return LFMNet(case.depths, n_pixels=case.n_pixels).eval(), "random", None
    for entry in list_models("lfmnet"):
        if entry.card.id == case.model and not entry.problem and entry.source != "remote":
            network: Any = open_network(entry)
            return network, entry.card.id, start_of(entry.card, network)
    from napari_lfm.networks.lenslet_net import LensletNet
    from napari_lfm.optics.presets import load_microscope
    from napari_lfm.optics.psf import CellOptics
    from napari_lfm.simulation.phantoms import FAMILIES
    from napari_lfm.training.lfmnet_plan import LfmnetPlan
    from napari_lfm.training.lightfield_pairs import PairSettings

    plan = LfmnetPlan(
        load_microscope(case.microscope),
        tuple(case.z_step_um * (k - (case.depths - 1) / 2) for k in range(case.depths)),
        "medium",
        "any",
        case.voxels,
        case.n_pixels,
        0,
        PairSettings(tuple(FAMILIES)),
    )
    assert plan.start is not None
    optics = CellOptics.of(plan.microscope, plan.n_pixels)
    return LensletNet(**plan.network).eval(), "random", (optics, plan.start)


def _peak_bytes(device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
