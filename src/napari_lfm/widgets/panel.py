"""What both dock widgets have in common: a shared session, workers, and an orderly end."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakMethod

from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.widgets.background import Background
from napari_lfm.widgets.crew import Crew
from napari_lfm.widgets.session import Session, bare, session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from psygnal import SignalInstance


class Panel(QWidget):
    """A dock widget whose workers end when it goes, also in the middle of a run."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(viewer)
        self.crew = Crew()
        self.background = Background(self.crew, self)
        # the lambda holds the crew only: holding the panel would keep it alive for ever
        self.destroyed.connect(lambda _=None, crew=self.crew: crew.close())
        self.setLayout(QVBoxLayout())
        # the panel scrolls by itself: it takes the whole height of the dock
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    @property
    def viewer(self) -> Viewer:
        """The viewer that the panel belongs to."""
        return self.session.viewer

    def listen(self, signal: SignalInstance, callback: Callable[[], None]) -> None:
        """Connect a method to a signal of the session until the panel goes.

        Qt deletes the panel's widgets before Python forgets the controllers: without this, a layer
        removed in between would reach buttons that do not exist any more.
        """
        signal.connect(callback)
        weak = WeakMethod(callback)

        def forget() -> None:
            known = weak()
            if known is not None:
                signal.disconnect(known, missing_ok=True)

        self.crew.at_close(forget)

    def fill(self, view: QWidget) -> None:
        """Put the view into the panel."""
        layout = self.layout()
        assert layout is not None
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(view)


def show_panel(viewer: Viewer, title: str, make: type[Panel]) -> Panel:
    """Raise the panel with this title, or add it beside (behind a tab of) the others."""
    for widget in bare(viewer).window.dock_widgets.values():
        if isinstance(bare(widget), make):
            dock = bare(widget).parentWidget()
            if dock is not None:
                dock.show()
                dock.raise_()
            return bare(widget)  # type: ignore[no-any-return]
    panel = make(viewer)
    bare(viewer).window.add_dock_widget(panel, name=title, area="right", tabify=True)
    return panel
