"""Model cards: what a set of weights was trained for, on what, how well it does, and its fingerprint.

A model folder holds `CARD_FILE` and `WEIGHTS_FILE`. Reading a card needs no torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.io.atomic import replacing_file
from napari_lfm.optics.microscope import Microscope

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_VERSION = 1
LARGEST_CARD_BYTES = 4 << 20

_ID = r"^[A-Za-z0-9]([A-Za-z0-9._+-]{0,78}[A-Za-z0-9_+-])?$"
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin")


class ModelCard(BaseModel):
    """Everything about a trained model but its numbers. Lengths are micrometres."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=_ID)
    """Name in lists and on the command line; also the name of its folder."""
    title: str
    """One line for people."""
    version: str
    """Version of the model."""
    method: str
    """Method that runs it, e.g. ``lfmnet``."""
    architecture: str
    """Network, by name: ``lfmnet-paper``, ``lfmnet-modern``, ..."""
    network: dict[str, Any]
    """Constructor arguments of the network."""
    microscope: dict[str, Any] | None
    """The optics it was trained for, as `Microscope` dumps itself; None where nobody wrote them down."""
    n_pixels: int | None = Field(ge=1, le=201)
    """Pixels per lenslet, N."""
    z_um: list[FiniteFloat]
    """Every trained depth."""
    voxels_per_lenslet: int | None = Field(ge=1, le=201)
    """Voxels across one lenslet."""
    scalers: dict[str, FiniteFloat]
    """Numbers that scale input and output, e.g. ``input_percentile`` and ``output_scale``."""
    specimens: list[str]
    """What it has seen: ``vessels``, ``beads``, ..."""
    licence: str
    """Licence of the weights."""
    data: str
    """What it was trained on."""
    training: dict[str, Any]
    """Configuration, seeds, steps: all that is needed to repeat it."""
    scores: list[dict[str, Any]]
    """Measured scores, each with its test set; ``psnr_db`` among them where it applies."""
    hours: FiniteFloat = Field(ge=0)
    """Hours of training."""
    trained_on: str
    """The machine."""
    date: str
    """Day it was finished, ISO."""
    parameters: int = Field(ge=0)
    """Number of trained parameters."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    """Of the weights file; filled in when it is written."""
    url: str = ""
    """Where the weights can be fetched."""
    recipe: str = ""
    """File or command that repeats the training."""
    versions: dict[str, str]
    """Versions of the software."""
    notes: str
    """What a user should know."""
    card_version: int = Field(default=CARD_VERSION, ge=1)
    """Version of this form."""

    @model_validator(mode="after")
    def _real_microscope(self) -> Self:
        if self.microscope is not None:
            try:
                Microscope.model_validate(self.microscope)
            except ValidationError as error:
                raise ValueError(f"the card's microscope is not one: {explain_validation(error)}") from None
        return self

    @property
    def optics(self) -> Microscope | None:
        """The microscope that it was trained for."""
        return None if self.microscope is None else Microscope.model_validate(self.microscope)

    @property
    def score_db(self) -> float | None:
        """Mean PSNR over its scores, None where none is given."""
        found = [s.get("psnr_db") for s in self.scores]
        values = [float(v) for v in found if isinstance(v, int | float) and not isinstance(v, bool)]
        return sum(values) / len(values) if values else None

    @property
    def gain_db(self) -> float | None:
        """How far it was ahead of Richardson-Lucy when it was validated, None where nobody compared."""
        for score in self.scores:
            own, other = score.get("psnr_db"), score.get("baseline_psnr_db")
            if isinstance(own, int | float) and isinstance(other, int | float):
                return float(own) - float(other)
        return None


def parse_card(text: str | bytes, where: str) -> ModelCard:
    """Return the card in a JSON text.

    Parameters
    ----------
    text : str or bytes
    where : str
        What to call it in messages.

    Raises
    ------
    RequestError
        If it is no JSON, no card, or of a newer form; each wrong entry is named.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError(f"{where} is not readable JSON.", "Get the model again.") from None
    if not isinstance(values, dict) or not {"id", "architecture"} <= set(values):
        raise RequestError(f"{where} is not a model card of napari-lfm.", "Choose a model folder.")
    version = values.get("card_version", CARD_VERSION)
    if isinstance(version, int) and version > CARD_VERSION:
        raise RequestError(
            f"{where} has form {version}, and this version of napari-lfm reads up to {CARD_VERSION}.",
            "Update napari-lfm.",
        )
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        raise RequestError(
            f"{where} is wrong: {explain_validation(error)}", "Mend it, or get the model again."
        ) from None


def read_card(folder: str | Path) -> ModelCard:
    """Return the card of a model folder.

    Raises
    ------
    RequestError
        If there is no folder, no card in it, or the card cannot be used.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    if not folder.is_dir():
        raise RequestError(f"There is no model folder {folder}.", "Check the path.")
    if not path.is_file():
        raise RequestError(*_no_card(folder))
    try:
        if path.stat().st_size > LARGEST_CARD_BYTES:
            raise RequestError(f"{path} is too large for a model card.", "Choose a model folder.")
        text = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}).", "Check its permissions.") from None
    return parse_card(text, str(path))


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card of a model folder in one step."""
    with replacing_file(folder / CARD_FILE) as file:
        file.write(card_bytes(card))


def card_bytes(card: ModelCard) -> bytes:
    """Return a card as its file has it."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def is_valid_id(text: str) -> bool:
    """Return whether a text may be the id of a model."""
    return re.fullmatch(_ID, text) is not None


def is_pickle_name(name: str) -> bool:
    """Return whether a file name looks like a pickled checkpoint, which is never opened here."""
    return name.lower().endswith(_PICKLES)


def _no_card(folder: Path) -> tuple[str, str]:
    try:
        names = sorted(p.name for p in folder.iterdir())
    except OSError:
        names = []
    pickles = [n for n in names if is_pickle_name(n)]
    if pickles:
        return (
            f"{folder} has no {CARD_FILE}, but a pickle '{pickles[0]}', which might run code.",
            f"Choose a folder with {CARD_FILE} and {WEIGHTS_FILE}.",
        )
    return f"{folder} is no model: it has no {CARD_FILE}.", f"A model folder holds it beside {WEIGHTS_FILE}."
