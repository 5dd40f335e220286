"""The page of the *Train* panel for isotropic restoration, as seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.widgets.isotropic_blur_view import BLUR_TIP, BlurBox
from napari_lfm.widgets.isotropic_texts import axial_pictures, slices_text
from napari_lfm.widgets.parts import WrappedLabel, section
from napari_lfm.widgets.stack_view import StackBox
from napari_lfm.widgets.train_isotropic_input import IsotropicSettings
from napari_lfm.widgets.train_stacks_view import StacksPage

if TYPE_CHECKING:
    from napari_lfm.widgets.train_course import Course

_OWN = (
    "The network learns from the planes of one stack, and is for that stack and others like it. To train and "
    "restore in one go, open <i>Restore isotropic</i>."
)
_LABELS = {"probabilistic": "network states its error", "profile": "slices made coarse"}


class IsotropicTrainView(StacksPage):
    """Stack, blur, start, time."""

    wide_slices = True

    def _build(self) -> None:
        box, layout = section("Stack")
        self.stack = StackBox(apart=True)
        layout.addWidget(WrappedLabel(_OWN))
        layout.addWidget(self.stack)
        self._column.addWidget(box)
        box, layout = section("Blur along z", BLUR_TIP)
        self.blur = BlurBox(self.stack)
        self.blur.changed.connect(self.changed)
        layout.addWidget(self.blur)
        self._column.addWidget(box)
        self.start_combo = self._combo(
            "'One that fits' is the bundled model, which knows many kinds of structures; without it, and for "
            "'nothing', weights are random."
        )
        self._build_network("Network", IsotropicSettings, _LABELS, ("start from", self.start_combo))

    def show_slices(self, course: Course, pixel_um: float) -> None:
        """Show the slice along z of the last validation, before and after."""
        pictures = axial_pictures(course.pictures)
        self.slices.show_pictures(pictures, pixel_um)
        self.slices_text.show_text(slices_text(course) if pictures else "")
