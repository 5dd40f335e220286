"""What a user wants trained: the microscope, the depths, the specimen, the time; and recipes of it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_lfm.core.devices import DeviceName
from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.optics.microscope import Microscope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LARGEST_RECIPE_BYTES = 1 << 20
Wish = TypeVar("Wish", bound=BaseModel)


class TrainTuning(BaseModel):
    """Settings that are chosen by the microscope, the size and the minutes unless they are given."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cells: int | None = Field(default=None, ge=3, le=64)
    """Lenslets across a simulated frame."""
    optics: int | None = Field(default=None, ge=1, le=4)
    """How many slightly wrong microscopes to simulate beside the user's own pupil."""
    z_substeps: int | None = Field(default=None, ge=1, le=8)
    """Planes of the simulated specimen for each plane of the volume."""
    pool: int | None = Field(default=None, ge=1, le=100_000)
    """Specimens at the start."""
    most: int | None = Field(default=None, ge=1, le=1_000_000)
    """Specimens at the end."""
    fresh_every: int | None = Field(default=None, ge=1, le=10_000)
    """Steps after which there is one specimen more."""
    storage: Literal["float32", "float16"] | None = None
    """How the optics are stored."""
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Frames per step; of the published network: patches."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Largest learning rate."""
    warmup_share: float | None = Field(default=None, ge=0, le=0.5)
    """Share of the training in which the learning rate rises."""
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    """Decay of the running average of the weights, per step."""
    weight_decay: float | None = Field(default=None, ge=0, le=1)
    """Weight decay."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Numbers that the network computes with."""
    validate_every_s: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds between validations."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations; where given, the seconds are not used."""
    checkpoint_every_s: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds between checkpoints."""
    patience: int | None = Field(default=None, ge=0, le=100_000)
    """Stop after so many validations without a better score; 0: never."""
    prefetch: int | None = Field(default=None, ge=0, le=16)
    """Batches made ahead."""


class TrainWish(BaseModel):
    """What to train, for which microscope, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    microscope: Microscope
    """The optics; nothing else is needed to simulate what the network learns from."""
    z_min_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Lowest plane, micrometres from the native object plane; empty: as the deconvolution suggests."""
    z_max_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Highest plane."""
    z_step_um: float | None = Field(default=None, gt=0, le=500)
    """Distance between planes."""
    voxels_per_lenslet: int = Field(default=3, ge=1, le=15)
    """Voxels across one lenslet; the published network always makes one for each pixel."""
    n_pixels: int | None = Field(default=None, ge=3, le=65)
    """Pixels per lenslet, N, of the rectified light field; empty: the microscope's."""
    specimen: str = "any"
    """What is looked at: any, beads, vesicles, vessels, filaments, neurons, nuclei."""
    size: str = "small"
    """Network: small and medium suit a CPU, large wants a GPU, paper is the published one."""
    minutes: float | None = Field(default=20.0, gt=0, le=100_000)
    """Minutes of training in all, those before a Continue included; preparation comes on top. None: the
    steps decide."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone (no minutes) they make a training exactly repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    pupil: tuple[float, ...] = Field(default=(), max_length=64)
    """Radial pupil intensity fitted to a white frame, axis to edge; empty: not known."""
    id: str = ""
    """Id of the model; empty: lfmnet- and the microscope's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model; empty: made from the rest."""
    compare: bool = True
    """Also deconvolve the validation frames (Richardson-Lucy), to compare with."""
    tuning: TrainTuning = TrainTuning()
    """Finer settings, for recipes."""

    @field_validator("specimen")
    @classmethod
    def _known_specimen(cls, value: str) -> str:
        from napari_lfm.training.lfmnet_plan import SPECIMENS

        return _known("specimen", value, SPECIMENS)

    @field_validator("size")
    @classmethod
    def _known_size(cls, value: str) -> str:
        from napari_lfm.training.lfmnet_plan import SIZES

        return _known("size", value, SIZES)

    @field_validator("id")
    @classmethod
    def _fine_id(cls, value: str) -> str:
        from napari_lfm.networks.card import is_valid_id

        if value and not is_valid_id(value):
            raise ValueError(
                f"'{value}' cannot be the id of a model: use letters, digits, and . _ + - between them"
            )
        return value

    @field_validator("pupil")
    @classmethod
    def _real_pupil(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) < 2 or min(value) < 0 or not 0 < max(value) < float("inf")):
            raise ValueError("the pupil needs two or more intensities, none below 0 and not all 0")
        return value

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("give the length of the training: minutes, steps or both")
        return self

    def depths_um(self) -> list[float]:
        """Return the depths of the planes, those left out as the deconvolution suggests them.

        Raises
        ------
        RequestError
            If the range is empty or holds too many planes.
        """
        from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield
        from napari_lfm.training.lfmnet_plan import z_of_card

        usual = DeconvolveLightfield().suggest(self.microscope)
        low, high, step = (
            float(usual[name] if value is None else value)
            for name, value in (
                ("z_min_um", self.z_min_um),
                ("z_max_um", self.z_max_um),
                ("z_step_um", self.z_step_um),
            )
        )
        return z_of_card(low, high, step)


def make_wish(values: Mapping[str, Any]) -> TrainWish:
    """Return a checked wish; the microscope may be a name, a file, a dict or itself.

    Raises
    ------
    RequestError
        If an entry is unknown, out of bounds or missing, in words.
    """
    return checked_wish(values, TrainWish, TrainTuning)


def checked_wish(values: Mapping[str, Any], wish: type[Wish], tuning: type[BaseModel]) -> Wish:
    """Return a wish of a kind from its entries; errors are those of `make_wish`."""
    from napari_lfm.optics.presets import load_microscope

    given = dict(values)
    if isinstance(given.get("microscope"), str | Path):
        given["microscope"] = load_microscope(given["microscope"])
    if given.get("microscope") is None:
        raise RequestError("There is no microscope to train for.", "Choose yours.")
    refuse_unknown(given, wish, "setting")
    if isinstance(given.get("tuning"), dict):
        refuse_unknown(given["tuning"], tuning, "setting of 'tuning'")
    try:
        return wish.model_validate(given)
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Return the entries of a recipe file (YAML): those of `TrainWish`, the microscope by name or in full.

    Raises
    ------
    RequestError
        If the file is not there, too large, or holds no recipe.
    """
    import yaml

    path = Path(path).expanduser()
    try:
        if path.stat().st_size > LARGEST_RECIPE_BYTES:
            raise RequestError(f"{path} is too large for a recipe.", "Choose another file.")
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise RequestError(
            f"The recipe {path} cannot be read ({error.strerror}).", "Check the path."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"The recipe {path} is not YAML ({reason}).", "Mend it.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RequestError(
            f"{path} is no recipe.",
            "A recipe holds lines such as 'microscope: mbl-60x1.2w' and 'minutes: 45'.",
        )
    microscope = values.get("microscope")
    if isinstance(microscope, str) and (path.parent / microscope).is_file():
        values["microscope"] = path.parent / microscope
    return values


def _known(what: str, value: str, names: Iterable[str]) -> str:
    names = list(names)
    if value.lower() in names:
        return value.lower()
    near = difflib.get_close_matches(value.lower(), names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(names)}"
    raise ValueError(f"there is no {what} '{value}'; {hint}")


def refuse_unknown(given: Mapping[str, Any], model: type[BaseModel], what: str) -> None:
    """Refuse entries that a model does not have; the message suggests the nearest."""
    known = list(model.model_fields)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(known)}."
            raise RequestError(f"There is no {what} '{name}'.", hint)
