"""Keeping a result: save it as a file, copy the script or the command that repeats it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.io.provenance import as_command, as_python
from napari_lfm.io.write import write_result
from napari_lfm.optics.presets import preset_names, user_microscope_names
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_lfm.core.events import Result
    from napari_lfm.core.problems import Problem
    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.parts import WrappedLabel

_SAVE_FILTER = "OME-TIFF (*.tif);;OME-Zarr (*.ome.zarr)"


class ResultExport:
    """The buttons that keep a result.

    Parameters
    ----------
    panel : Panel
    save, python, command : QPushButton
    text : WrappedLabel
        Where it says what became of it.
    """

    def __init__(
        self, panel: Panel, save: QPushButton, python: QPushButton, command: QPushButton, text: WrappedLabel
    ) -> None:
        self.panel, self.button, self.text = panel, save, text
        self.result: Result | None = None
        self.name = ""
        """Of the input, for the file's name."""
        save.clicked.connect(lambda: self.ask_save())
        python.clicked.connect(lambda: self.copy_python())
        command.clicked.connect(lambda: self.copy_command())

    @property
    def stem(self) -> str:
        """Name of the file without its suffix, as it is proposed."""
        what = "volume" if self.result is None else self.result.primary
        return f"{self.name or 'image'}-{what}".replace("/", "-")

    def ask_save(self) -> None:
        """Ask for a file, then save."""
        name, chosen = QFileDialog.getSaveFileName(
            self.panel, "Save result", f"{self.stem}.tif", _SAVE_FILTER
        )
        if not name:
            return
        path = Path(name)
        if "zarr" in chosen and not name.lower().endswith(".zarr"):
            path = path.with_name(path.name + ".ome.zarr")
        elif not path.suffix:
            path = path.with_suffix(".tif")
        self.save(path)

    def save_by_itself(self) -> None:
        """Save into the folder of the settings, where the user has given one."""
        folder = load_settings().autosave_folder
        if folder:
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
            self.save(Path(folder).expanduser() / f"{self.stem}-{stamp}.tif")

    def save(self, path: Path) -> None:
        """Write the result in a worker; a failure is told, and nothing is lost."""
        result = self.result
        if result is None:
            return
        self.text.show_text("Saving...")
        self.button.setEnabled(False)
        self.panel.background.submit("save", lambda: write_result(path, result), self._saved, self.tell)

    def _saved(self, paths: list[Path]) -> None:
        self.button.setEnabled(True)
        names = "<br>".join(str(path) for path in paths)
        self.text.show_text(f"{coloured('Saved', 'good')} {names}")

    def tell(self, problem: Problem) -> None:
        """Show what went wrong."""
        self.button.setEnabled(True)
        self.text.show_problems([problem])

    def copy_python(self) -> None:
        """Put a script that repeats the run on the clipboard."""
        if self.result is not None:
            self._copy(as_python(self.result.provenance), "Python script")

    def copy_command(self) -> None:
        """Put a command line that repeats the run on the clipboard."""
        if self.result is not None:
            known = (*preset_names(), *user_microscope_names())
            self._copy(as_command(self.result.provenance, presets=known), "command line")

    def _copy(self, text: str, what: str) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        self.text.show_text(f"The {what} is on the clipboard.")
