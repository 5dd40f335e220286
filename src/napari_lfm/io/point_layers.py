"""Between tables of points and napari Points layers, as plain data: nothing here imports napari."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_lfm.core.problems import RequestError
from napari_lfm.io.layers import METADATA_KEY, total_matrix
from napari_lfm.io.points import COLUMNS
from napari_lfm.io.units import length_in_um

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACE = COLUMNS[:3]


def points_layer_data_from(
    points: pd.DataFrame, name: str = "points", role: str = "points", **extra: Any
) -> tuple[np.ndarray[Any, Any], dict[str, Any], str]:
    """Return the napari layer data of a table of points: micrometres, other columns as features.

    Parameters
    ----------
    points : pandas.DataFrame
        Columns ``z_um, y_um, x_um``, usually ``confidence``, and any others.
    name, role : str
        Layer name, and what panels take it for.
    **extra
        Further layer arguments.

    Returns
    -------
    tuple
        ``(data, arguments, "points")`` with data of shape (n, 3).
    """
    data = points[list(_PLACE)].to_numpy(float)
    extent = float(np.ptp(data[:, 1:], axis=0).max()) if len(data) else 0.0
    kept = {str(k): v for k, v in points.attrs.items()}
    arguments: dict[str, Any] = {
        "name": name,
        "axis_labels": ("z", "y", "x"),
        "units": ("um", "um", "um"),
        "features": points.drop(columns=list(_PLACE)).reset_index(drop=True),
        "metadata": {METADATA_KEY: {**kept, "role": role}},
        "size": float(np.clip(extent / 50, 0.5, 20.0)),
        "face_color": "transparent",
        "border_color": "orange",
        **extra,
    }
    return data, arguments, "points"


def points_from_layer_info(
    data: Any,
    scale: Sequence[float] | None = None,
    translate: Sequence[float] | None = None,
    affine: Any = None,
    units: Sequence[Any] | None = None,
    axis_labels: Sequence[str] | None = None,
    features: Any = None,
    metadata: Mapping[str, Any] | None = None,
    rotate: Any = None,
    shear: Any = None,
) -> pd.DataFrame:
    """Return a points layer as a table in micrometres.

    Points in a plane get ``z_um`` 0; points without a confidence feature get NaN (not known).
    Axes before z, y, x (time, channel) become columns ``t`` and ``c``, in the layer's own units.

    Raises
    ------
    RequestError
        If the layer has no y and x.
    """
    data = np.asarray(data, float)
    if data.ndim != 2 or data.shape[1] < 2:
        raise RequestError("The points layer has fewer than two axes.", "Choose points on an image.")
    n = data.shape[1]
    labels = tuple(str(a).lower() for a in axis_labels or ())
    if len(labels) != n or not {"y", "x"} <= set(labels) or len(set(labels)) < n:
        if n > 4:
            raise RequestError(f"The points layer has {n} axes without names.", "Label them t, c, z, y, x.")
        labels = ("t", "z", "y", "x")[-n:]
    matrix = total_matrix(n, scale, translate, affine, rotate, shear)
    world = data @ matrix[:-1, :-1].T + matrix[:-1, -1]
    factors = [length_in_um(str(u)) or 1.0 for u in units] if units is not None else [1.0] * n
    columns = {f"{d}_um": world[:, labels.index(d)] * factors[labels.index(d)] for d in "zyx" if d in labels}
    columns.setdefault("z_um", np.zeros(len(data)))
    others = pd.DataFrame(features) if features is not None else pd.DataFrame(index=range(len(data)))
    others = others.reset_index(drop=True).drop(columns=[c for c in _PLACE if c in others.columns])
    table = pd.DataFrame({name: columns[name] for name in _PLACE})
    table["confidence"] = others.pop("confidence") if "confidence" in others.columns else np.nan
    for i, label in enumerate(labels):
        if label not in ("z", "y", "x") and label not in others.columns:
            table[label] = world[:, i]
    table = pd.concat([table, others], axis=1)
    provenance = (metadata or {}).get(METADATA_KEY, {}).get("provenance")
    if provenance:
        table.attrs["provenance"] = provenance
    return table
