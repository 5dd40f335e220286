"""Events that every running method yields; closing the generator cancels the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import xarray as xr


@dataclass(frozen=True)
class Progress:
    """A step was taken.

    Attributes
    ----------
    step, total : int
        Steps done and steps planned in this stage (``total`` 0: unknown).
    message : str
        Name of the stage in plain words, e.g. ``"Computing the point spread function"``.
    seconds_left : float or None
        Estimated time to the end of the run.
    values : mapping
        Figures worth plotting, e.g. ``{"residual": 0.17}``.
    """

    step: int
    total: int
    message: str
    seconds_left: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """An intermediate image good enough to look at, and to keep when the user stops.

    Attributes
    ----------
    name : str
        The output that this will become.
    image : xarray.DataArray
        Labelled (dims out of ``t c z y x``, micrometre coordinates).
    progress : Progress
        The step it belongs to.
    state : Any
        As `Result.state`: a run that was stopped here can go on from it.
    provenance : dict
        As `Result.provenance`, for the steps done so far.
    """

    name: str
    image: xr.DataArray
    progress: Progress
    state: Any = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes
    ----------
    outputs : mapping of str to xarray.DataArray or pandas.DataFrame
        Labelled images, or points with columns ``z_um, y_um, x_um, confidence`` first.
    primary : str
        Key of the output that matters most.
    provenance : dict
        JSON-ready record of how it was made (`napari_lfm.io.provenance`).
    state : Any
        Opaque, in-memory only: hand it back in ``Request.continue_from`` to go on.
    """

    outputs: Mapping[str, xr.DataArray | pd.DataFrame]
    primary: str
    provenance: dict[str, Any]
    state: Any = None


Event = Progress | Preview | Result
