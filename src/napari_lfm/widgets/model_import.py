"""Bringing a model in: a folder, a ZIP file, or a checkpoint whose file does not tell everything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from qtpy.QtWidgets import QDialog, QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.methods.base import Parameters
from napari_lfm.networks.catalogue import list_models
from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, ModelForm
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.networks.catalogue import ModelEntry


_PUBLISHED_DEPTHS = 64
_PUBLISHED_REACH_UM = 28.35


@dataclass(frozen=True)
class Asked:
    """What a checkpoint leaves open.

    Attributes
    ----------
    path : Path
    variant : str
        Why the variant must be told, empty where the file tells it.
    depths : int
        Planes of its volumes.
    """

    path: Path
    variant: str
    depths: int


@dataclass(frozen=True)
class Taken:
    """A model whose id another one has."""

    path: Path
    answers: dict[str, Any] | None
    id: str


class Answers(Parameters):
    """What the user says of a checkpoint."""

    down: Literal["choose", "maxpool", "stride"] = "choose"
    """maxpool (with LeakyReLU): trained with the authors' code of 11 October 2020 or later; stride (with
    ReLU): before."""
    z_first_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Depth of the first plane, + towards the objective."""
    z_last_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Depth of the last plane."""
    input_max: float = Field(default=255.0, gt=0, le=1e6)
    """Largest pixel of the training set, which its light fields were divided by: LFData.max()."""


def bring(
    path: Path, answers: dict[str, Any] | None = None, id: str | None = None
) -> ModelEntry | Asked | Taken:
    """Import a model, or say what has to be asked first (worker thread).

    Parameters
    ----------
    path : Path
        A model folder, a ZIP file of one, a checkpoint of the authors' LFMNet, a SavedModel folder of the
        authors of virtual refocusing, or a CSBDeep model: its folder, or the Keras file in it.
    answers : dict, optional
        For a checkpoint: arguments of `import_checkpoint`.
    id : str, optional
        Another id than its own.

    Raises
    ------
    RequestError, LfmError
        What is wrong with the files.
    """
    path = path.expanduser()
    try:
        if path.is_file():
            from napari_lfm.networks.lfmnet_checkpoint import import_checkpoint, is_checkpoint

            if is_checkpoint(path):
                return _asked(path) if answers is None else import_checkpoint(path, id, **answers)
        from napari_lfm.networks.refocus_published import import_published, is_published

        if is_published(path):
            return import_published(path, id)
        from napari_lfm.networks.isotropic_published import import_care, is_care

        if is_care(path):
            return import_care(path, id)
        from napari_lfm.networks.registry import import_model

        return import_model(path, id)
    except RequestError as error:
        taken = re.match(r"There is a model '(.+)' already", error.message)
        if taken is None or id is not None:
            raise
        return Taken(path, answers, taken[1])


def _asked(path: Path) -> Asked:
    from napari_lfm.networks.lfmnet_checkpoint import read_checkpoint

    variant = ""
    try:
        found = read_checkpoint(path)
    except RequestError as error:
        found = read_checkpoint(path, "maxpool")  # fails again unless the variant was all that it lacked
        variant = error.message
    return Asked(path, variant, int(found.network["n_depths"]))


def free_id(taken: str) -> str:
    """Return the id with the first number behind it that no model has yet."""
    known = {name.lower() for e in list_models() for name in (e.card.id, e.folder.name)}
    return next(f"{taken}-{k}" for k in range(2, 10_000) if f"{taken}-{k}".lower() not in known)


class CheckpointDialog(QDialog):
    """Asks what no checkpoint tells: variant, microscope, depths, brightness."""

    answered = Signal(object, object)

    def __init__(self, asked: Asked, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.asked = asked
        self.setWindowTitle(f"Import {asked.path.name}")
        self.resize(520, 420)
        layout = QVBoxLayout(self)
        layout.addWidget(
            WrappedLabel(
                "The file holds the weights of an LFMNet, but not what it was trained for. Please say:"
            )
        )
        self.question = WrappedLabel(asked.variant)
        layout.addWidget(self.question)
        self.microscope_combo = CalmComboBox()
        for name in (*user_microscope_names(), *preset_names(lightfield_only=True)):
            self.microscope_combo.addItem(name, name)
        self.microscope_combo.setToolTip("The microscope whose light fields it was trained with")
        self.microscope_combo.setCurrentIndex(max(0, self.microscope_combo.findData("bern-40x0.9")))
        self.microscope_combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.form = ModelForm(
            Answers,
            skip=() if asked.variant else ("down",),
            labels={"down": "network variant", "input_max": "light fields divided by"},
            none_texts={"z_first_um": "(enter)", "z_last_um": "(enter)"},
        )
        self.form.add_row("microscope", self.microscope_combo)
        layout.addWidget(self.form)
        if asked.depths == _PUBLISHED_DEPTHS:
            self.form.set_values({"z_first_um": -_PUBLISHED_REACH_UM, "z_last_um": _PUBLISHED_REACH_UM})
            text = f"64 planes: the depths shown are those of the paper, 0.9 {MICROMETRES} apart."
        else:
            text = f"It has {asked.depths} planes; give the depths of the first and the last."
        layout.addWidget(WrappedLabel(text))
        self.problems = WrappedLabel()
        layout.addWidget(self.problems)
        layout.addStretch(1)
        self.import_button = button("Import", "Make a model of it in your folder", self._answer)
        layout.addLayout(
            row(QWidget(), button("Cancel", "Import nothing", self.reject), self.import_button, stretch=0)
        )

    def _answer(self) -> None:
        values = self.form.values()
        down = values.get("down")
        if down == "choose":
            self.problems.show_problems([Problem("The network variant is not chosen.", "Choose one.")])
            return
        z_um = (values["z_first_um"], values["z_last_um"])[: self.asked.depths]
        if None in z_um:
            self.problems.show_problems([Problem("The depths are missing.", "Enter the first and the last.")])
            return
        try:
            microscope = load_microscope(str(self.microscope_combo.currentData()))
        except LfmError as error:
            self.problems.show_problems([error.problem()])
            return
        answers = {
            "down": down,
            "microscope": microscope,
            "z_um": z_um,
            "input_max": values["input_max"],
        }
        self.answered.emit(self.asked.path, answers)
        self.accept()
