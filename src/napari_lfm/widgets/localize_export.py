"""Points and traces of the *Localize* panel as CSV files, with their record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import RequestError
from napari_lfm.io.points import sidecar, write_points, write_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from napari_lfm.widgets.localize_traces import MovieTraces


def export_points(
    path: Path, points: pd.DataFrame, provenance: dict[str, Any] | None, traces: MovieTraces | None
) -> str:
    """Write the points that are shown, and the traces of those that have one; returns what was written.

    Raises
    ------
    RequestError, LfmError
        If there are none, or the files cannot be written.
    """
    if not len(points):
        raise RequestError("There are no points to export.", "Find some first.")
    path = path if path.suffix else path.with_suffix(".csv")
    table = points.drop(columns="depth_um")
    table["neuron"] = range(1, len(table) + 1)
    write_points(path, table, provenance)
    text = f"{len(table)} points are in {path}."
    beside = path.with_name(f"{path.stem}-traces{path.suffix}")
    for old in (beside, sidecar(beside)):
        old.unlink(missing_ok=True)  # those of other points
    if traces is None:
        return text
    places = points[["z_um", "y_um", "x_um"]].to_numpy(float)
    read = [k for k in traces.numbers_of(places) if k is not None]
    if read:
        write_table(beside, traces.table(places), provenance)
        text += f" {len(read)} traces are in {beside.name} beside it."
    if len(read) < len(table):
        text += f" {len(table) - len(read)} points have no trace yet: press 'Read traces'."
    return text
