"""What the *Compare stacks* panel computes, off the GUI thread. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.agreement import Agreement, local_disagreement
from napari_lfm.core.labelled import origin_of, spacing_of
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.core.resample import resample_onto
from napari_lfm.core.sharpness import Sharpness, sharpness_by_depth
from napari_lfm.widgets.resolve_stack import required_stack, unknown_sizes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    import xarray as xr

    from napari_lfm.widgets.state import LayerInfo


class Cancelled(LfmError):
    """The user has stopped it."""


@dataclass(frozen=True)
class Series:
    """Sharpness against depth of one stack, to plot.

    Attributes
    ----------
    name : str
    depth_um : ndarray, shape (planes,)
        Below the first plane; plane numbers where the distance of the planes is not known.
    sharpness : Sharpness
    """

    name: str
    depth_um: np.ndarray
    sharpness: Sharpness


@dataclass(frozen=True)
class ErrorMap:
    """Where two stacks disagree, as a labelled image, and how far they agree."""

    first: str
    second: str
    image: xr.DataArray
    agreement: Agreement


def listener(stop: threading.Event, tell: Callable[[float], None], part: int = 0, of: int = 1) -> Any:
    """Return what a computation calls with the share that is done; it ends the computation on `stop`."""

    def on_plane(share: float) -> None:
        if stop.is_set():
            raise Cancelled("Stopped.")
        tell((part + share) / of)

    return on_plane


def one_stack(info: LayerInfo, steps: Mapping[str, int]) -> xr.DataArray:
    """Return a layer as a single stack (z, y, x): of movies and channels the one that is looked at.

    Parameters
    ----------
    info : LayerInfo
    steps : mapping of str to int
        Index along ``t`` and ``c``; cut to what the layer has.

    Raises
    ------
    RequestError
        If it is no stack.
    """
    image = required_stack(info)
    at = {d: min(steps.get(d, 0), image.sizes[d] - 1) for d in ("t", "c") if d in image.dims}
    image = image.isel(at, drop=True)
    if "z" not in image.dims:
        raise RequestError(f"'{info.name}' is a single plane.", "Choose a stack of planes.")
    return image.transpose("z", "y", "x") if "affine_um" not in image.attrs else image


def sharpness_series(
    stacks: Sequence[tuple[str, xr.DataArray]], stop: threading.Event, tell: Callable[[float], None]
) -> list[Series]:
    """Return sharpness against depth of several stacks."""
    found = []
    for number, (name, image) in enumerate(stacks):
        on_plane = listener(stop, tell, number, len(stacks))
        try:
            sharpness = sharpness_by_depth(image.data, on_plane=on_plane)
        except RequestError as error:
            raise RequestError(f"'{name}': {error.message}", error.remedy) from None
        planes = np.arange(image.sizes["z"], dtype=float)
        found.append(Series(name, planes * spacing_of(image).get("z", 1.0), sharpness))
    return found


def error_map(
    first: tuple[str, xr.DataArray],
    second: tuple[str, xr.DataArray],
    stop: threading.Event,
    tell: Callable[[float], None],
) -> ErrorMap:
    """Return where two stacks disagree, on the part of the second's grid that both cover."""
    (name, image), (other, reference) = first, second
    on_plane = listener(stop, tell)
    on_plane(0.0)
    if not same_grid(image, reference):
        if not (unknown_sizes(image) or unknown_sizes(reference)):
            image, reference = resample_onto(image, reference)
        elif image.shape != reference.shape:
            raise RequestError(
                f"'{name}' and '{other}' have different shapes and no sizes to place them by.",
                "Give both their voxel size.",
            )
    agreement = local_disagreement(image.data, reference.data, on_plane=on_plane)
    labelled = reference.copy(data=agreement.error)
    labelled.attrs = {k: v for k, v in reference.attrs.items() if k in ("spacing", "affine_um")}
    labelled.name = "disagreement"
    return ErrorMap(name, other, labelled, agreement)


def same_grid(one: xr.DataArray, other: xr.DataArray) -> bool:
    """Return whether two stacks have their voxels in the same places."""
    if one.shape != other.shape or "affine_um" in one.attrs or "affine_um" in other.attrs:
        return False
    near: Any = (spacing_of(one), spacing_of(other)), (origin_of(one), origin_of(other))
    return all(a.keys() == b.keys() and np.allclose(list(a.values()), list(b.values())) for a, b in near)


def sharpness_words(series: Sequence[Series]) -> str:
    """Return what the plot shows: how much of the first third's sharpness is left in the last third.

    Examples
    --------
    >>> falling = Sharpness(np.array([0.4, 0.3, 0.2]), np.array([0.1, 0.1, 0.1]), (0.0, 1.0))
    >>> sharpness_words([Series("a", np.arange(3.0), falling)])
    'In the deepest third of the planes, 50 % of the sharpness of the first third is left in a.'
    """
    parts = []
    for one in series:
        third = len(one.depth_um) // 3
        if third:
            first, last = one.sharpness.signal[:third].mean(), one.sharpness.signal[-third:].mean()
            parts.append(
                f"{100 * last / first:.0f} % of the sharpness of the first third is left in {one.name}"
            )
    if not parts:
        return ""
    tail = [p.replace(" of the sharpness of the first third is left", "") for p in parts[1:]]
    return f"In the deepest third of the planes, {'; '.join([parts[0], *tail])}."
