"""The layer of neurons: what was found, what lies above the threshold, what was corrected by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_lfm.io.point_layers import points_layer_data_from
from napari_lfm.widgets.session import bare, layer_record, update_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari import Viewer
    from napari.layers import Points

    from napari_lfm.methods.lightfield_data import LightfieldData

SAME_UM = 4.0
"""A click this near to a point that is there already means that one."""
MOVED_UM = 0.01
_COLORMAP = "cool"
_ALL_DEPTHS_UM = 4000.0
_PLACE = ("z_um", "y_um", "x_um")
FEATURES = ("confidence", "sigma_z_um", "snr", "at_edge", "algorithm", "source", "depth_um")
"""Columns that every point has; ``source`` is detected, clicked, moved or added."""


_Kept = tuple[pd.DataFrame, list[tuple[float, float, float]], list[dict[str, Any]]]
"""Of a layer: all detections, what was deleted, the record of corrections."""


class PointsOfNeurons:
    """Keeps the points layer and the table of all detections in step.

    Detections come and go with the threshold; what a user clicked, moved or added stays. What was deleted by
    hand is remembered, so that moving the threshold does not bring it back.

    Parameters
    ----------
    viewer : Viewer
    selected : callable
        Called with the place (z, y, x) in um of the point that is selected, None for none.
    changed : callable
        Called when the user has changed points by hand.
    """

    def __init__(
        self,
        viewer: Viewer,
        selected: Callable[[tuple[float, float, float] | None], None],
        changed: Callable[[], None],
    ) -> None:
        self.viewer: Viewer = bare(viewer)
        self._selected, self._changed = selected, changed
        self.layer: Points | None = None
        self.found = _empty()
        self._gone: list[tuple[float, float, float]] = []
        self._ours = False
        self.symbol = "disc"
        self._name, self._provenance = "neurons", dict[str, Any]()
        self._kept: dict[
            str, tuple[pd.DataFrame, list[tuple[float, float, float]], list[dict[str, Any]]]
        ] = {}
        self._shown = np.zeros((0, 3))
        self.edits: list[dict[str, Any]] = []

    @property
    def is_there(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer is not None and any(bare(one) is self.layer for one in self.viewer.layers)

    def table(self) -> pd.DataFrame:
        """Return what the layer shows: place and features, in its order."""
        if not self.is_there:
            return _empty()
        assert self.layer is not None
        place = pd.DataFrame(np.asarray(self.layer.data, float), columns=list(_PLACE))
        return pd.concat([place, self.layer.features.reset_index(drop=True)], axis=1)

    def begin(self, name: str, provenance: dict[str, Any] | None = None) -> None:
        """Start anew: another light field, or another algorithm, which has a layer of its own.

        Points made by hand stay where they are.
        """
        if name != self._name:
            self._kept[self._name] = self.found, self._gone, self.edits
            self._connect(None)
            same = [bare(one) for one in self.viewer.layers if one.name == name]
            ours = [one for one in same if layer_record(one).get("role") == "points"]
            self._connect(ours[-1] if ours else None)
            known = self._kept.get(name) if ours else None
            self.found, self._gone, self.edits = known or (_empty(), [], [])
            if known is None and ours:
                now = self.table()
                self.found = now[now["source"] == "detected"].reset_index(drop=True)
        self._name = name
        if not self.is_there:
            self.layer = None
        if provenance is not None:  # a new run: what was deleted may be found again
            self._provenance, self._gone = provenance, []
            if self.layer is not None:
                update_record(self.layer, provenance=provenance)
                self._note()

    def _connect(self, layer: Points | None) -> None:
        """Follow another layer, and no longer the one before."""
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
            self.layer.events.highlight.disconnect(self._on_highlight)
        self.layer = layer
        self._shown = np.zeros((0, 3)) if layer is None else np.array(layer.data, float)
        if layer is not None:
            layer.events.data.connect(self._on_data)
            layer.events.highlight.connect(self._on_highlight)

    def show(self, found: pd.DataFrame, threshold: float) -> None:
        """Show new detections above the threshold, and what was made by hand."""
        self.found = found
        self.filter(threshold)

    def filter(self, threshold: float) -> int:
        """Show the detections above a threshold; returns how many points are shown."""
        keep = self.found["confidence"].to_numpy(float) >= threshold
        keep &= ~self._near(self.found, self._gone)
        now = self.table()
        by_hand = now[now["source"] != "detected"] if len(now) else now
        if len(by_hand):
            keep &= ~self._near(self.found, [tuple(p) for p in by_hand[list(_PLACE)].to_numpy(float)])
        shown = self.found[keep]
        parts = [part for part in (by_hand, shown) if len(part)]
        self._put(pd.concat(parts, ignore_index=True) if parts else _empty())
        return len(by_hand) + len(shown)

    def add(self, points: pd.DataFrame) -> int:
        """Add clicked neurons; one that is there already is selected instead. Returns how many are new."""
        now = self.table()
        known = [tuple(p) for p in now[list(_PLACE)].to_numpy(float)] if len(now) else []
        new = points[~self._near(points, known)]
        self._gone = [g for g in self._gone if not self._near(points, [g]).any()]
        if len(new):
            self._put(pd.concat([p for p in (now, new) if len(p)], ignore_index=True))
            self.edits += [_edit("clicked", p) for p in new[list(_PLACE)].to_numpy(float)]
            self._note()
        first = points[list(_PLACE)].to_numpy(float)[0]
        self.select(tuple(first))
        return len(new)

    def select(self, place: tuple[float, ...]) -> None:
        """Select the point nearest to a place."""
        if self.is_there and self.layer is not None and len(self.layer.data):
            nearest = int(np.linalg.norm(np.asarray(self.layer.data) - np.asarray(place), axis=1).argmin())
            self.layer.selected_data = {nearest}
            self._tell()

    # -- the layer --------------------------------------------------------------------------

    def _put(self, table: pd.DataFrame) -> None:
        self._ours = True
        try:
            if not self.is_there:
                if not len(table):
                    return
                self._connect(self._make(table))
            else:
                assert self.layer is not None
                # the selection may name points that are about to go
                self.layer.selected_data = set()
                self.layer.data = table[list(_PLACE)].to_numpy(float)
                self.layer.features = table[list(FEATURES)].reset_index(drop=True)
                self._colour(self.layer)
            assert self.layer is not None
            self._shown = np.array(self.layer.data, float)
        finally:
            self._ours = False

    def _make(self, table: pd.DataFrame) -> Points:
        columns = ["confidence", *[f for f in FEATURES if f != "confidence"]]
        data, arguments, _ = points_layer_data_from(
            table[[*_PLACE, *columns]],
            self._name,
            symbol=self.symbol,
            border_width=0.2,
            projection_mode="all",
        )
        arguments["size"] = 9.0
        layer: Points = bare(self.viewer.add_points(data, **arguments))
        update_record(layer, provenance=self._provenance)
        self._show_all_depths()
        self._colour(layer)
        return layer

    def _show_all_depths(self) -> None:
        """Let points of every depth be seen on the light field, which has none."""
        dims = self.viewer.dims
        if dims.ndim == len(_PLACE):
            dims.thickness = (_ALL_DEPTHS_UM, *dims.thickness[1:])

    @staticmethod
    def _colour(layer: Points) -> None:
        if len(layer.data):
            # rings: the neuron stays visible in them
            layer.face_color = "transparent"
            layer.border_colormap = _COLORMAP
            layer.border_color = "depth_um"

    def _on_data(self, event: Any) -> None:
        """Take note of what the user did to the points, with napari's own tools."""
        action = str(getattr(event, "action", ""))
        if self._ours or self.layer is None or not action.endswith(("added", "removed", "changed")):
            return
        self._ours = True
        try:
            now = np.asarray(self.layer.data, float)
            if action.endswith("removed"):
                gone = [tuple(p) for p in self._shown if not (len(now) and _is_in(p, now))]
                self._gone += gone
                self.edits += [_edit("deleted", p) for p in gone]
            else:
                self._note_places(now, "added" if action.endswith("added") else "moved")
            self._shown = now.copy()
            self._note()
        finally:
            self._ours = False
        self._changed()
        self._tell()

    def _note_places(self, now: np.ndarray, kind: str) -> None:
        assert self.layer is not None
        features = self.layer.features.copy().reset_index(drop=True)
        for k, place in enumerate(now):
            if len(self._shown) and _is_in(place, self._shown):
                continue
            features.loc[k, "source"] = kind
            features.loc[k, "depth_um"] = place[0]
            if kind == "added":
                features.loc[k, ["confidence", "sigma_z_um", "snr"]] = np.nan
                features.loc[k, "algorithm"] = "by hand"
                features.loc[k, "at_edge"] = False
            else:
                self._gone.append(tuple(self._shown[k]))  # the detection is not to come back beside it
            self.edits.append(_edit(kind, place))
        self.layer.features = features
        self._colour(self.layer)

    def _note(self) -> None:
        """Keep the corrections in the record that travels with every export."""
        if self.layer is None:
            return
        if not self.edits:
            return
        provenance = dict(layer_record(self.layer).get("provenance") or self._provenance)
        update_record(self.layer, provenance={**provenance, "corrections": list(self.edits)})

    def _on_highlight(self, event: object = None) -> None:
        if not self._ours:
            self._tell()

    def _tell(self) -> None:
        self._selected(self.selected())

    def show_central_view(self, data: LightfieldData, name: str) -> None:
        """Add the central view of a light field as a layer."""
        from napari_lfm.io.layers import layer_data_from
        from napari_lfm.lightfield.views import subaperture_view

        values, arguments, _ = layer_data_from(
            subaperture_view(data.rectified, data.microscope),
            name=f"{name} central view",
            role="quicklook",
            colormap="gray",
        )
        self.viewer.add_image(values, **arguments)

    def selected_places(self) -> list[tuple[float, float, float]]:
        """Return the places of all selected points, in the layer's order."""
        if not self.is_there or self.layer is None:
            return []
        chosen = sorted(k for k in self.layer.selected_data if k < len(self.layer.data))
        return [(float(z), float(y), float(x)) for z, y, x in np.asarray(self.layer.data, float)[chosen]]

    def selected(self) -> tuple[float, float, float] | None:
        """Return the place of the one selected point."""
        chosen = self.selected_places()
        return chosen[0] if len(chosen) == 1 else None

    @staticmethod
    def _near(table: pd.DataFrame, places: Sequence[tuple[float, ...]]) -> np.ndarray:
        if not len(table) or not places:
            return np.zeros(len(table), bool)
        own = table[list(_PLACE)].to_numpy(float)
        away = np.linalg.norm(own[:, None] - np.asarray(places, float), axis=2)
        return np.asarray((away < SAME_UM).any(1))


def as_features(points: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return points of the method as the layer keeps them."""
    out = points.copy()
    out["source"], out["depth_um"] = source, out["z_um"]
    return out[[*_PLACE, *FEATURES]].reset_index(drop=True)


def _empty() -> pd.DataFrame:
    kinds = {"algorithm": object, "source": object, "at_edge": bool}
    columns = {name: pd.Series(dtype=kinds.get(name, float)) for name in (*_PLACE, *FEATURES)}
    return pd.DataFrame(columns)


def _is_in(place: np.ndarray, many: np.ndarray) -> bool:
    return bool((np.linalg.norm(many - place, axis=1) < MOVED_UM).any())


def _edit(what: str, place: Any) -> dict[str, Any]:
    return {"what": what, "zyx_um": [round(float(v), 3) for v in place]}
