"""Choosing, importing, showing and deleting trained models: the controller of the model box."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox

from napari_lfm.core.problems import Problem
from napari_lfm.networks.catalogue import ModelEntry, list_models
from napari_lfm.networks.store import delete_model, fetch_model
from napari_lfm.widgets.model_choice import (
    Offer,
    card_html,
    fit_html,
    offers,
    parameters_of,
    pixels_per_lenslet,
    question,
    summary_html,
)
from napari_lfm.widgets.model_import import Asked, CheckpointDialog, Taken, bring, free_id
from napari_lfm.widgets.models_view import CardDialog, ModelBox
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.fit import Fit
    from napari_lfm.widgets.panel import Panel

_NO_MODEL = (
    "There is no trained model for this method on this machine. Import one, or train one for your microscope."
)


class Models:
    """Knows which trained model is chosen for a method, and whether it may run.

    Parameters
    ----------
    panel : Panel
    view : ModelBox
    changed : callable
        Called when another model is chosen, or the user has agreed to something.
    voxel_um : callable, optional
        Returns the voxel size of the chosen stack, for methods that work on stacks; None while not known.
    """

    asks: ClassVar[bool] = True
    """Whether the user has to agree to a model that was trained for something slightly different."""
    optics_count: ClassVar[bool] = True
    """Whether a model is for certain optics."""
    nothing: ClassVar[tuple[str, str]] = ("", "")
    """Line of the list for no model, and its key, where a run can do without one."""

    def __init__(
        self,
        panel: Panel,
        view: ModelBox,
        changed: Callable[[], None],
        voxel_um: Callable[[], tuple[float, ...] | None] | None = None,
    ) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self._changed, self._voxel_um = changed, voxel_um
        self._runner: Any = None
        self.method = ""
        self._entries: list[ModelEntry] = []
        self.offers: list[Offer] = []
        self._wanted = ""  # what the user chose by hand; else the best one is taken
        self.dialog: Any = None
        view.model_chosen.connect(self.choose)
        view.confirmed.connect(lambda _: self._changed())
        view.combo.opening.connect(self.reload)
        view.more_button.clicked.connect(self.show_card)
        view.locate_button.clicked.connect(self.locate)
        view.delete_button.clicked.connect(self.ask_delete)
        view.fetch_button.clicked.connect(self.fetch)
        view.folder_action.triggered.connect(self._ask_folder)
        view.file_action.triggered.connect(self._ask_file)
        panel.listen(self.session.models_changed, self.reload)
        panel.listen(self.session.microscope_changed, self.refresh)
        panel.listen(self.session.lattice_changed, self.refresh)
        panel.listen(self.session.inputs_changed, self.refresh)
        view.setVisible(False)

    # ------------------------------------------------------------------- which
    def use(self, method: str, runner: Any = None) -> None:
        """Offer the models of a method; an empty id hides the box. `runner` is the method itself."""
        self.method, self._wanted, self.offers = method, "", []
        self._runner = runner
        self.view.setVisible(bool(method))
        self.view.text.show_text("")
        self.reload()

    def reload(self) -> None:
        """Read the list of models anew."""
        if self.method:
            self._entries = list_models(self.method)
            self.refresh()

    def refresh(self) -> None:
        """Hold every model against the microscope again; the best one is chosen unless the user chose."""
        if not self.method:
            return
        before = self.chosen
        microscope, count = self.session.microscope, self.optics_count
        self.offers = offers(self._entries, microscope, self._n_pixels(), self._fit(), count)
        known = {o.key for o in self.offers} | {self.nothing[1]}
        if self._wanted and self._wanted not in known:
            self._wanted = ""
        self._show()
        after = self.chosen
        if before != after:
            self._changed()

    def choose(self, key: str) -> None:
        """Take a model, as the user wishes."""
        self._wanted = key
        self.view.text.show_text("")
        self._show()
        self._changed()

    @property
    def chosen(self) -> Offer | None:
        """The model that is to run."""
        for offer in self.offers:
            if offer.key == self._wanted:
                return offer
        return self.offers[0] if self.offers else None

    @property
    def key(self) -> str | None:
        """What a request calls the model; None while the recording is to tell which one it is."""
        offer = self.chosen
        if offer is None or (offer.verdict == "unknown" and not self._wanted):
            return None
        return offer.key

    @property
    def agreed(self) -> bool:
        """Whether the user has agreed to what the model asks for."""
        return not self._question() or self.view.confirm_box.isChecked()

    def _question(self) -> str:
        offer = self.chosen
        return "" if offer is None or not self.asks else question(offer, self._n_pixels())

    def doubt(self) -> Problem | None:
        """Return what the user has to decide before a run."""
        if not self.method or self.agreed:
            return None
        return Problem(
            "The model was trained for slightly different recordings.",
            "Tick the box below the model to use it all the same.",
            field="model",
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """Depths and sampling of the chosen model, for the form."""
        offer = self.chosen
        return {} if offer is None else parameters_of(offer)

    def _fit(self) -> Callable[[ModelCard], Fit] | None:
        """Return what holds a card against the recording, None for that of light fields."""
        if getattr(self._runner, "input_kind", "lightfield") == "lightfield":
            return None
        microscope = self.session.microscope
        voxel_um = self._voxel_um() if self._voxel_um is not None else None
        # the method knows what its networks can bear
        return lambda card: self._runner.fit_card(card, microscope, voxel_um)

    def _n_pixels(self) -> int | None:
        if self._fit() is not None:
            return None
        s = self.session
        layer = s.input("lightfield")
        lattice = s.lattice
        if lattice is not None and layer is not None:
            shape = tuple(layer.data[0].shape if layer.multiscale else layer.data.shape)[-2:]
            lattice = lattice if tuple(lattice.image_shape) == shape else None
        return pixels_per_lenslet(s.microscope, lattice, s.layout)

    # -------------------------------------------------------------------- show
    def _show(self) -> None:
        view, offer = self.view, self.chosen
        titles = [(o.title, o.key, " ".join((o.card.title, *o.reasons)).strip()) for o in self.offers]
        text, none = self.nothing
        if text:
            titles.append((text, none, ""))
        view.show_models(titles, none if offer is None else offer.key)
        if offer is None:
            view.show_fit("" if text else coloured(_NO_MODEL, "warning"), "")
            view.summary.show_text("")
            view.show_buttons(known=False, here=False, own=False, remote=False)
            return
        what = "your microscope" if self.optics_count else "your stack"
        view.show_fit(fit_html(offer, what), self._question())
        view.summary.show_text(summary_html(offer.entry))
        remote = offer.entry.source == "remote"
        view.show_buttons(known=True, here=not remote, own=offer.entry.source == "user", remote=remote)

    def show_card(self) -> None:
        """Show the whole card in a window of its own."""
        offer = self.chosen
        if offer is not None:
            CardDialog(offer.card.id, card_html(offer.entry), self.view).show()

    def locate(self) -> None:
        """Open the folder of the model, and name it."""
        offer = self.chosen
        if offer is None:
            return
        folder = str(offer.entry.folder)
        self.view.text.show_text(folder)
        QDesktopServices.openUrl(QUrl.fromLocalFile(folder))

    # ------------------------------------------------------------------ delete
    def ask_delete(self) -> None:
        """Ask before a model of the user's is deleted."""
        offer = self.chosen
        if offer is None or offer.entry.source != "user":
            return
        box = QMessageBox(
            QMessageBox.Icon.Question,
            "Delete model",
            f"Delete the model '{offer.card.id}' from this machine? This cannot be undone.",
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.Cancel,
            self.view,
        )
        entry = offer.entry
        box.accepted.connect(lambda: self.delete(entry))
        self._open(box)

    def delete(self, entry: ModelEntry) -> None:
        """Delete a model, off the GUI thread."""
        self.panel.background.submit(
            "models",
            lambda: delete_model(entry.folder.name),
            lambda _: self._done(f"Deleted {entry.card.id}."),
            self._failed,
        )

    def fetch(self) -> None:
        """Bring a remote model to this machine."""
        offer = self.chosen
        if offer is None or offer.entry.source != "remote":
            return
        id = offer.card.id
        self.view.text.show_text(f"Fetching {id}...")
        self.panel.background.submit("models", lambda: fetch_model(id), self._brought, self._failed)

    # ------------------------------------------------------------------ import
    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self.view, "Import a model folder")
        if name:
            self.import_from(Path(name))

    def _ask_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self.view,
            "Import a ZIP file, an LFMNet checkpoint or CSBDeep's weights",
            "",
            "All files (*)",
        )
        if name:
            self.import_from(Path(name))

    def import_from(self, path: Path, answers: dict[str, Any] | None = None, id: str | None = None) -> None:
        """Import a folder, a ZIP file or a checkpoint, off the GUI thread."""
        self.view.text.show_text("Importing...")
        self.view.import_button.setEnabled(False)
        self.panel.background.submit("models", lambda: bring(path, answers, id), self._brought, self._failed)

    def _brought(self, found: ModelEntry | Asked | Taken) -> None:
        self.view.import_button.setEnabled(True)
        self.view.text.show_text("")
        if isinstance(found, Asked):
            dialog = CheckpointDialog(found, self.view)
            dialog.answered.connect(self.import_from)
            self._open(dialog)
        elif isinstance(found, Taken):
            self._ask_id(found)
        else:
            self._wanted = found.card.id
            self._done(f"Imported {found.card.id}.")
            if found.card.method != self.method:
                self._failed(
                    Problem(
                        f"'{found.card.id}' is a model for the method '{found.card.method}'.",
                        "It is in the list of that method.",
                        "info",
                    )
                )

    def _ask_id(self, taken: Taken) -> None:
        dialog = QInputDialog(self.view)
        dialog.setWindowTitle("Import a model")
        dialog.setLabelText(f"There is a model '{taken.id}' already. Give the new one another id:")
        dialog.setTextValue(free_id(taken.id))
        dialog.textValueSelected.connect(lambda id: self.import_from(taken.path, taken.answers, id))
        self._open(dialog)

    def _open(self, dialog: Any) -> None:
        self.dialog = dialog
        dialog.open()

    def _done(self, words: str) -> None:
        self.view.text.show_text(coloured(words, "good"))
        self.session.models_changed.emit()

    def _failed(self, problem: Problem) -> None:
        self.view.import_button.setEnabled(True)
        self.view.text.show_problems([problem])
