"""Several algorithms on one light field: what each found, in words, and how their points look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.metrics import pair_points
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.widgets.localize import LocalizeController

TOLERANCE_UM = 5.0
NAMES = {"cista": "CISTA-net", "csc": "sparse coding", "phase-space": "phase space"}
SYMBOLS = {"cista": "disc", "csc": "square", "phase-space": "triangle_up"}
"""So that points of different algorithms can be told apart where they lie on one another."""


def comparison_html(points: Mapping[str, np.ndarray]) -> str:
    """Say how the points (n, 3) um of algorithms agree with those of the first.

    Parameters
    ----------
    points : mapping of str to ndarray, shape (n, 3)
        By the algorithm's name.
    """
    names = list(points)
    if not names:
        return ""
    first = names[0]
    lines = [f"<b>{NAMES[first]}</b>: {len(points[first])} neurons"]
    for name in names[1:]:
        ours, theirs = points[name], points[first]
        a, b = pair_points(ours, theirs, TOLERANCE_UM)
        text = f"<b>{NAMES[name]}</b>: {len(ours)} neurons, {len(a)} of them as {NAMES[first]}"
        if len(a):
            z = float(np.sqrt(((ours[a, 0] - theirs[b, 0]) ** 2).mean()))
            across = float(np.sqrt(((ours[a, 1:] - theirs[b, 1:]) ** 2).sum(1).mean()))
            text += f" (apart by {z:.1f} {MICROMETRES} in depth, {across:.1f} across)"
        lines.append(text)
    return "<br>".join(lines)


class Comparison:
    """All algorithms one after the other, each into a layer of its own.

    Parameters
    ----------
    control : LocalizeController
    """

    def __init__(self, control: LocalizeController) -> None:
        self.control = control
        self._left: list[str] = []
        self._found: dict[str, np.ndarray] = {}
        self._inputs: Any = None

    @property
    def is_going(self) -> bool:
        """Whether algorithms are left."""
        return bool(self._left)

    def begin(self) -> None:
        """Start with the first algorithm that can run."""
        control = self.control
        if control.is_running or isinstance(control.request(), list):
            return
        self._found = {}
        self._left = [name for name in NAMES if name != "cista" or control.models.offers]
        self._inputs = control.circumstances()[0]
        self._run()

    def go_on(self) -> None:
        """Keep what the present algorithm has found; run the next, or say how they agree."""
        table = self.control.points.table()
        self._found[self._left.pop(0)] = table[["z_um", "y_um", "x_um"]].to_numpy(float)
        if self._left and self.control.circumstances()[0] != self._inputs:
            self.give_up()
            text = "The light field is another one now: the comparison has ended."
            self.control.view.text.show_text(coloured(text, "warning"))
        elif self._left:
            self._run()
        else:
            self.control.view.text.show_text(comparison_html(self._found))

    def give_up(self) -> None:
        """Run no further algorithm."""
        self._left = []

    def _run(self) -> None:
        self.control.choose_algorithm(self._left[0])
        self.control.detect()
        if not self.control.is_running:
            self.give_up()
