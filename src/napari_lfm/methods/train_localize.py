"""CISTA-net for a microscope, from its optics alone: simulated neurons, their epipolar images, a network.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a
model. At the end the network finds the neurons of other fields: its scores, and the size of its sigmas.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_lfm.core.devices import DeviceName
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.io.atomic import replacing_file
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.methods.localization.finders import CistaFinder
from napari_lfm.methods.localization.points import Localizer
from napari_lfm.methods.localization.setup import epipolar_half
from napari_lfm.methods.localization.trial import Trial, fit_sigma, try_out
from napari_lfm.methods.train_jobs import RECORD, free_id, id_for, training_folder, writable
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.networks.card import CARD_FILE, ModelCard, is_valid_id
from napari_lfm.networks.catalogue import read_model, user_model_dir
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.microscope import Microscope
from napari_lfm.simulation.neuron_fields import NeuronFields, NeuronSettings
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, read_state
from napari_lfm.training.cista import CistaPlan, CistaTask
from napari_lfm.training.config import make_config
from napari_lfm.training.epipolar_pairs import EpipolarPairs, EpipolarSettings
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.loop import train
from napari_lfm.training.outcome import read_result

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from napari_lfm.training.config import TrainConfig

DATA = "cell bodies simulated from the optics alone; no recording was used"
SIGMA_FIELDS = SCORE_FIELDS = 60
LEVELS = ((100.0, 2.0), (500.0, 1.0), (3000.0, 0.3))
"""Photo-electrons at the 99.9th percentile, and haze as a share of the sources: low, middle, high."""
_MAY_CHANGE = frozenset({"minutes", "steps", "device", "title", "id"})


class LocalizeTuning(BaseModel):
    """Settings of recipes; empty ones are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pool: int = Field(default=40, ge=1, le=100_000)
    """Fields at the start."""
    most: int = Field(default=3000, ge=1, le=1_000_000)
    """Fields at the end."""
    fresh_every: int = Field(default=4, ge=1, le=10_000)
    """Steps after which there is one field more."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Epipolar images per step."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Largest learning rate."""
    kernels: tuple[int, ...] = (9, 13, 17)
    """Lenslets across the kernels of every layer."""
    profile: str = "modern"
    """Of the network: modern, or paper."""
    cells: int = Field(default=23, ge=7, le=64)
    """Lenslets across a field."""
    neurons_most: int = Field(default=12, ge=1, le=200)
    """Most neurons in a field."""
    voxels: int = Field(default=3, ge=1, le=9)
    """Voxels across a lenslet of the simulation."""
    validate_every_s: float | None = Field(default=120.0, gt=0, le=1e6)
    """Seconds between validations."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations."""
    checkpoint_every_s: float = Field(default=300.0, gt=0, le=1e6)
    """Seconds between checkpoints."""


class LocalizeWish(BaseModel):
    """What to train, for which microscope, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    microscope: Microscope
    """The optics."""
    n_pixels: int | None = Field(default=None, ge=3, le=65)
    """Pixels per lenslet, N; empty: the microscope's."""
    z_min_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Lowest depth; empty: what the optics resolve well."""
    z_max_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Highest depth."""
    z_step_um: float = Field(default=1.0, gt=0, le=100)
    """Distance of the depth bins."""
    diameter_min_um: float = Field(default=8.0, gt=0.1, le=200)
    """Smallest cell body."""
    diameter_max_um: float = Field(default=15.0, gt=0.1, le=200)
    """Largest cell body."""
    minutes: float | None = Field(default=45.0, gt=0, le=100_000)
    """Minutes of training in all."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone they make a training repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    id: str = ""
    """Id of the model; empty: cista- and the microscope's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model."""
    tuning: LocalizeTuning = LocalizeTuning()
    """Finer settings."""

    @field_validator("id")
    @classmethod
    def _fine_id(cls, value: str) -> str:
        if value and not is_valid_id(value):
            raise ValueError(f"'{value}' cannot be the id of a model: use letters, digits, and . _ + -")
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("give the length of the training: minutes, steps or both")
        if self.diameter_max_um < self.diameter_min_um:
            raise ValueError("the largest cell body is smaller than the smallest")
        lenslets = self.microscope.lenslets
        if lenslets is None or lenslets.lattice != "square":
            raise ValueError(f"the microscope '{self.microscope.name}' has no square lenslet array")
        bins = self.bins_um()
        if not 3 <= len(bins) <= 400:
            raise ValueError(f"{len(bins)} depth bins are none to train: give a range of 3 to 400 steps")
        return self

    def bins_um(self) -> list[float]:
        """Return the depth bins."""
        reach = max(1.0, round(0.5 * self.microscope.depth_range_um))
        low = -reach if self.z_min_um is None else self.z_min_um
        high = reach if self.z_max_um is None else self.z_max_um
        count = int(np.floor((high - low) / self.z_step_um + 1e-6)) + 1
        return [round(low + k * self.z_step_um, 6) for k in range(max(0, count))]


@dataclass(frozen=True)
class _Job:
    wish: LocalizeWish
    folder: Path
    model_folder: Path


def make_localize_wish(values: Mapping[str, Any]) -> LocalizeWish:
    """Return a checked wish; the microscope may be a name, a file, a dict or itself.

    Raises
    ------
    RequestError
        If an entry is unknown, out of bounds or missing, in words.
    """
    from napari_lfm.methods.train_wish import refuse_unknown
    from napari_lfm.optics.presets import load_microscope

    given = dict(values)
    if isinstance(given.get("microscope"), str | Path):
        given["microscope"] = load_microscope(given["microscope"])
    if given.get("microscope") is None:
        raise RequestError("There is no microscope to train for.", "Choose yours.")
    refuse_unknown(given, LocalizeWish, "setting")
    if isinstance(given.get("tuning"), dict):
        refuse_unknown(given["tuning"], LocalizeTuning, "setting of 'tuning'")
    try:
        return LocalizeWish.model_validate(given)
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def task_of(wish: LocalizeWish) -> CistaTask:
    """Return the training task of a wish."""
    t, bins = wish.tuning, wish.bins_um()
    n = wish.n_pixels or wish.microscope.n_pixels
    if n is None:
        raise RequestError("The pixels per lenslet are not known.", "Give n_pixels.")
    settings = NeuronSettings(
        z_um=(bins[0], bins[-1]),
        z_beyond_um=round((bins[-1] - bins[0]) / 9, 3),
        z_step_um=round(wish.diameter_min_um * 3 / 16, 3),
        voxels=t.voxels,
        cells=t.cells,
        neurons=(1, t.neurons_most),
        diameter_um=(wish.diameter_min_um, wish.diameter_max_um),
    )
    half = epipolar_half(wish.microscope, n, np.asarray(bins))
    images = EpipolarSettings(
        tuple(bins),
        label_um=1.5 * wish.z_step_um,
        half=half,
        furthest_row=max(1, (n - 1) // 2 - 1),
        pool=t.pool,
        most=t.most,
        fresh_every=t.fresh_every,
    )
    fields = NeuronFields(wish.microscope, n, settings, wish.seed)
    return CistaTask(
        EpipolarPairs(fields, images, wish.seed), CistaPlan(t.kernels, t.profile, t.batch_size), wish.seed
    )


def config_of(wish: LocalizeWish) -> TrainConfig:
    """Return the loop's settings."""
    t = wish.tuning
    return make_config(
        minutes=wish.minutes,
        steps=wish.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        schedule="one-cycle",
        warmup_share=0.05,
        ema_decay=0.999,
        weight_decay=1e-4,
        validate_every_s=None if t.validate_every_steps else t.validate_every_s,
        validate_every_steps=t.validate_every_steps,
        checkpoint_every_s=t.checkpoint_every_s,
        prefetch=0,
        seed=wish.seed,
        device=wish.device,
        precision="float32",
    )


def run_localize_training(
    wish: LocalizeWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    Parameters
    ----------
    wish : LocalizeWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Of the training; default in the user's folder, by the model's id.
    resume : bool
    model_folder : path, optional
        Default among the user's models.
    recipe : str
        For the card.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, or the training in the folder is another one.
    """
    job = _resumed(wish, folder) if resume else _new(wish, folder, model_folder)
    task = task_of(wish)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    events = cast(
        "Generator[Progress | Validated | TrainResult]",
        train(task, config_of(wish), job.folder, resume=resume),
    )
    result: TrainResult | None = None
    try:
        for event in events:
            if isinstance(event, TrainResult):
                result = event
            else:
                yield event
    except (GeneratorExit, KeyboardInterrupt):
        events.close()
        for _ in _install(job, task, recipe):
            pass
        raise
    yield from _install(job, task, recipe)
    entry = read_model(job.model_folder) if (job.model_folder / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, job.folder)


def recorded_localize_wish(folder: Path) -> dict[str, Any]:
    """Return what an earlier training was asked for.

    Raises
    ------
    RequestError
        If there is none in the folder.
    """
    return dict(_record(folder)["wish"])


def localize_folder(wish: LocalizeWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant."""
    if folder is not None:
        return Path(folder).expanduser()
    return training_folder(wish.id or id_for("cista", wish.microscope.name))


def _record(place: Path) -> dict[str, Any]:
    try:
        record = json.loads((place / RECORD).read_text("utf-8"))
        return {"wish": dict(record["wish"]), "model_folder": str(record["model_folder"])}
    except OSError:
        raise RequestError(
            f"There is no training to go on with in {place}.", "Start one, or give the folder of one."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{place / RECORD} is damaged.", "Train into another folder.") from None


def _new(wish: LocalizeWish, folder: str | Path | None, model_folder: str | Path | None) -> _Job:
    model = None if model_folder is None else Path(model_folder).expanduser()
    id = wish.id or (model.name if model is not None else free_id(id_for("cista", wish.microscope.name)))
    place = training_folder(id) if folder is None else Path(folder).expanduser()
    if (place / RECORD).is_file() or (place / LAST).is_file():
        raise RequestError(
            f"There is a training in {place} already.", "Resume it, or give another id or folder."
        )
    model = model or user_model_dir() / id
    if (model / CARD_FILE).is_file():
        raise RequestError(f"There is a model in {model} already.", "Give another folder or id.")
    writable(place)
    writable(model.absolute().parent)
    record = {"wish": wish.model_dump(mode="json"), "model_folder": str(model.absolute())}
    with replacing_file(place / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    return _Job(wish, place, model)


def _resumed(wish: LocalizeWish, folder: str | Path | None) -> _Job:
    place = localize_folder(wish, folder)
    record = _record(place)
    now = wish.model_dump(mode="json")
    different = [k for k in now if k not in _MAY_CHANGE and record["wish"].get(k) != now[k]]
    if different:
        raise RequestError(
            f"The training in {place} is another one: {', '.join(different)} differ.",
            "Go on with the same settings, or train into another folder.",
        )
    return _Job(wish, place, Path(record["model_folder"]))


def _install(job: _Job, task: CistaTask, recipe: str) -> Iterator[Progress]:
    """Write the model of the best weights, with scores of other fields and sigmas that fit."""
    if not (job.folder / BEST).is_file():
        return
    weights = load_module_weights(job.folder / BEST, "network")
    network: Any = task.modules["network"]
    network.load_state_dict(weights)
    network.eval().to("cpu")
    wish, fields = job.wish, task.pairs.fields
    bins = np.asarray(wish.bins_um())
    slope = slope_at_depth(1.0, wish.microscope, None, fields.n_pixels)
    localizer = Localizer(CistaFinder(network, bins), slope, fields.lenslet_um)
    total = SIGMA_FIELDS + SCORE_FIELDS
    trials: list[Trial] = []
    done = 0
    for seed, count in ((1, SIGMA_FIELDS), (2, SCORE_FIELDS)):
        source = fields.other(wish.seed + 104_729 * seed)
        found = []
        for k in range(count):
            electrons, haze = LEVELS[k % len(LEVELS)]
            found.append(
                source.recorded(source.clean(k), np.random.default_rng([wish.seed, seed, k]), electrons, haze)
            )
            done += 1
            yield Progress(done, total, "Finding the neurons of other fields")
        trials.append(try_out(localizer.find, found, fields.lenslet_um, (bins[0], bins[-1])))
        if seed == 1:
            sigma = fit_sigma(trials[0])
            localizer = Localizer(localizer.finder, slope, fields.lenslet_um, localizer.options, sigma)
    scalers = {"sigma_floor_um": sigma.floor_um, "sigma_share": sigma.share, "sigma_fade": sigma.fade}
    card = _card(job, task, trials[1], {k: round(v, 5) for k, v in scalers.items()}, recipe)
    save_model(job.model_folder, card, weights)


def _card(job: _Job, task: CistaTask, trial: Trial, scalers: dict[str, float], recipe: str) -> ModelCard:
    best = read_state(job.folder / BEST)
    last = read_state(job.folder / LAST) if (job.folder / LAST).is_file() else best
    result = read_result(job.folder) if (job.folder / LAST).is_file() else None
    wish, bins, machine = job.wish, job.wish.bins_um(), best["machine"]
    z, y, x = trial.rmse_um
    za, ya, xa = trial.rmse_alone_um
    score = {
        "set": f"{SCORE_FIELDS} simulated fields of other seeds, "
        + ", ".join(f"{e:g} electrons with haze {h:g}" for e, h in LEVELS),
        "rmse_um": [round(v, 3) for v in (z, y, x)],
        "rmse_alone_um": [round(v, 3) for v in (za, ya, xa)],
        "precision": round(trial.precision, 3),
        "recall": round(trial.recall, 3),
        "inside_sigma": round(trial.inside_sigma, 3),
        "neurons": trial.truth,
    }
    values = {
        "id": job.model_folder.name,
        "title": wish.title
        or f"CISTA-net for {wish.microscope.name}: {bins[0]:g} to {bins[-1]:g} um, cell bodies of "
        f"{wish.diameter_min_um:g} to {wish.diameter_max_um:g} um",
        "version": "1.0",
        "method": "localize",
        "architecture": "cista",
        "network": task.arguments,
        "microscope": wish.microscope.model_dump(mode="json"),
        "n_pixels": task.pairs.fields.n_pixels,
        "z_um": bins,
        "voxels_per_lenslet": None,
        "scalers": scalers,
        "specimens": ["neurons"],
        "licence": "user's own",
        "data": DATA,
        "training": {
            "wish": wish.model_dump(mode="json"),
            "config": best["config"],
            "task": best["task"],
            "steps": best["step"],
            "steps_in_all": last["step"],
            "ended": "" if result is None else result.reason,
            "machine": machine,
        },
        "scores": [score],
        "hours": round(float(best["seconds"]) / 3600, 4),
        "trained_on": f"{machine['device']}, {machine['threads']} threads, {machine['system']}",
        "date": date.today().isoformat(),
        "parameters": sum(p.numel() for p in task.modules["network"].parameters()),
        "sha256": "",
        "recipe": recipe,
        "versions": dict(best["versions"]),
        "notes": "",
    }
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        raise RequestError(f"The card of the model cannot be written: {explain_validation(error)}") from None
