"""Choosing the pairs that WFCON-Net is trained on: the controller of the box."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_lfm.widgets.session import bare, layer_info
from napari_lfm.widgets.stack_input import place_as_its_file
from napari_lfm.widgets.train_stacks import layer_mark, named_stacks
from napari_lfm.widgets.train_wfcon_input import PairsInput, Source, pairs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image

    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.train_wfcon_view import PairsBox

_CONFOCAL = ("confocal", "target", "truth", "laser", "lsm")


class PairsControl:
    """Knows the folder, and the pairs of layers; switching between sources forgets neither.

    Parameters
    ----------
    panel : Panel
    view : PairsBox
    changed : callable
        Called when something else is chosen.
    """

    def __init__(self, panel: Panel, view: PairsBox, changed: Callable[[], None]) -> None:
        self.session, self.view, self._changed = panel.session, view, changed
        self.source: Source = "folder"
        self.folder = ""
        self.pairs: list[tuple[Image, Image]] = []
        view.source_chosen.connect(self.choose_source)
        view.zone.files_chosen.connect(self.open)
        view.add_clicked.connect(self.add)
        view.remove_clicked.connect(self.remove)
        panel.listen(self.session.layers_changed, self.refresh)
        self.refresh()

    def choose_source(self, source: str) -> None:
        """Take pairs from a folder, from layers, or simulate them."""
        self.source = cast("Source", source)
        self.view.show_source(source)
        self._changed()

    def open(self, paths: Sequence[Path]) -> None:
        """Take the folder that was dropped or chosen."""
        self.folder = str(pairs_root(Path(paths[0])))
        self.view.folder_label.show_text(f"<i>{html.escape(self.folder)}</i>")
        self._changed()

    def add(self) -> None:
        """Add the two layers that are chosen as a pair."""
        layers = named_stacks(self.session)
        wide = layers.get(self.view.wide_combo.currentText())
        confocal = layers.get(self.view.confocal_combo.currentText())
        if wide is None or confocal is None or wide is confocal:
            return
        if not any(w is wide and c is confocal for w, c in self.pairs):
            for layer in (wide, confocal):
                place_as_its_file(layer)
            self.pairs.append((wide, confocal))
        self.refresh()
        self._changed()

    def remove(self, index: int) -> None:
        """Take a pair out of the list."""
        if 0 <= index < len(self.pairs):
            del self.pairs[index]
            self.refresh()
            self._changed()

    def refresh(self) -> None:
        """Forget layers that are gone, and list those that are there."""
        here = [bare(layer) for layer in self.session.images()]
        kept = [(w, c) for w, c in self.pairs if w in here and c in here]
        lost = len(kept) < len(self.pairs)
        self.pairs = kept
        names = list(named_stacks(self.session))
        wide, confocal = self._suggestion(names)
        self.view.show_layers(names, wide, confocal)
        self.view.show_pairs([(w.name, c.name) for w, c in self.pairs])
        if lost:
            self._changed()

    def input(self) -> PairsInput:
        """Return what is chosen, as plain data."""
        infos = tuple((layer_info(w), layer_info(c)) for w, c in self.pairs)
        return PairsInput(
            source=self.source,
            folder=self.folder,
            layers=infos if self.source == "layers" else (),
            voxel_um=self.view.voxel_um if self.source != "tissue" else None,
            register=self.view.register_box.isChecked(),
        )

    def circumstances(self) -> tuple[Any, ...]:
        """Return all about the choice that a plan depends on, to compare."""
        pairs = self.pairs if self.source == "layers" else []
        layers = tuple(layer_mark(layer) for pair in pairs for layer in pair)
        return self.source, self.folder, layers, self.view.voxel_um, self.view.register_box.isChecked()

    def _suggestion(self, names: Sequence[str]) -> tuple[str, str]:
        """Return the layers that are most likely the next pair: what is chosen, else by their names."""
        now = self.view.wide_combo.currentText(), self.view.confocal_combo.currentText()
        used = {layer.name for pair in self.pairs for layer in pair}
        if now[0] in names and now[1] in names and now[0] != now[1] and not {*now} & used:
            return now
        free = [n for n in names if n not in used]
        confocal = [n for n in free if any(word in n.lower() for word in _CONFOCAL)]
        wide = [n for n in free if n not in confocal]
        if not confocal and len(wide) > 1:
            wide, confocal = wide[:1], wide[1:]
        return wide[0] if wide else "", confocal[0] if confocal else ""
