"""A user's own focal stacks, to train refocusing on: read, checked, in the order of rising focus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

LEAST_PLANES = 5
SAME_SIZE = 0.03
"""Part by which sizes may differ that are to be the same."""


@dataclass(frozen=True)
class NamedStack:
    """A focal stack as it was recorded.

    Attributes
    ----------
    name : str
    widefield : DataArray, dims ``z y x``
        Steps along z are of the focus drive.
    confocal : DataArray or None
        Of the same places: same shape.
    """

    name: str
    widefield: xr.DataArray
    confocal: xr.DataArray | None = None


@dataclass(frozen=True)
class StackSize:
    """Planes and pixels of a stack, and their distances; 0 where nobody says."""

    shape: tuple[int, int, int]
    step_um: float
    pixel_um: float


def size_of_file(path: str | Path) -> StackSize:
    """Return the size of a stack's file without its pixels.

    Raises
    ------
    RequestError
        If it is no readable stack of grey planes, or its pixels are no squares.
    """
    path = Path(path).expanduser()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _size_of_file(path, stamp)


@lru_cache(maxsize=64)
def _size_of_file(path: Path, _: int) -> StackSize:
    from napari_lfm.io.read import read_image

    return size_of(path.name, read_image(path, None))


def size_of(name: str, image: xr.DataArray) -> StackSize:
    """Return the size of a stack; raises as `size_of_file`."""
    image = _plain(name, image)
    spacing = {d: abs(v) for d, v in spacing_of(image).items()}
    y, x = spacing.get("y", 0.0), spacing.get("x", 0.0)
    if min(y, x) > 0 and abs(y / x - 1) > SAME_SIZE:
        raise RequestError(
            f"The pixels of '{name}' are {y:.4g} x {x:.4g} um: no squares.", "Resample the stack first."
        )
    rows, columns = image.sizes["y"], image.sizes["x"]
    return StackSize((image.sizes["z"], rows, columns), spacing.get("z", 0.0), x or y)


def sizes_of_files(files: Sequence[str], pixel_um: Any, step_um: Any) -> tuple[Any, Any]:
    """Return pixel and plane distance: what is given, else what the first file says.

    Raises
    ------
    RequestError
        If nobody says, or a file cannot be read.
    """
    found = size_of_file(files[0])
    name = Path(files[0]).name
    pixel, step = pixel_um or found.pixel_um, step_um or found.step_um
    lacks = [w for w, v in (("pixel_um", pixel), ("step_um", step)) if not v]
    if lacks:
        what = {"pixel_um": "its pixels are", "step_um": "far its planes are apart"}
        said = " nor how ".join(f"{'large ' if k == 'pixel_um' else ''}{what[k]}" for k in lacks)
        raise RequestError(
            f"'{name}' does not say how {said}.",
            "Give the voxel size Z,Y,X in um, Z along the focus drive: --voxel-um 0.5,0.325,0.325.",
        )
    return pixel, step


def read_stack(path: str | Path, confocal: str | Path | None = None) -> NamedStack:
    """Read a focal stack, and the confocal one of the same place.

    Raises
    ------
    RequestError
        If one of them is no readable stack.
    """
    from napari_lfm.io.read import read_image

    path = Path(path).expanduser()
    other = None if confocal is None else read_image(Path(confocal).expanduser(), None).load()
    return NamedStack(path.name, read_image(path, None).load(), other)


def checked_stack(
    stack: NamedStack, pixel_um: float, step_um: float, reverse: bool = False, least_px: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the planes (z, y, x), focus rising with the index, and the confocal ones.

    Parameters
    ----------
    stack : NamedStack
    pixel_um, step_um : float
        Of the training.
    reverse : bool
        The planes come in falling order.
    least_px : int
        Rows, and a third of the columns, that there must be.

    Raises
    ------
    RequestError
        If it is no stack of enough planes, is too small, holds values that are no numbers, or its sizes are
        not those of the training.
    """
    wide = _values(stack.name, stack.widefield, pixel_um, step_um, least_px)
    other = None
    if stack.confocal is not None:
        other = _values(f"{stack.name} (confocal)", stack.confocal, pixel_um, step_um, least_px)
    if reverse:
        wide = wide[::-1]
        other = None if other is None else other[::-1]
    return wide, other


def checked_size(name: str, size: StackSize, pixel_um: float, step_um: float, least_px: int = 1) -> None:
    """Refuse a stack that is too small, or of other sizes than the training's.

    Raises
    ------
    RequestError
    """
    planes, rows, columns = size.shape
    if planes < LEAST_PLANES:
        raise RequestError(
            f"'{name}' has {planes} plane{'s' if planes > 1 else ''}.",
            f"A focal stack to train on has {LEAST_PLANES} or more, on both sides of what is in focus.",
        )
    if rows < least_px or columns < 3 * least_px:
        raise RequestError(
            f"'{name}' has planes of {rows} x {columns} pixels: too few to train on.",
            f"Give {least_px} x {3 * least_px} pixels or more.",
        )
    for what, own, wanted in (("planes", size.step_um, step_um), ("pixels", size.pixel_um, pixel_um)):
        if own > 0 and abs(own / wanted - 1) > SAME_SIZE:
            far = "apart" if what == "planes" else "wide"
            raise RequestError(
                f"The {what} of '{name}' are {own:.4g} um {far}, and the training is for {wanted:.4g} um.",
                "Give the sizes that the file says, or mend them in it; stacks that are trained on together "
                "have the same.",
            )


def _values(name: str, image: xr.DataArray, pixel_um: float, step_um: float, least_px: int) -> np.ndarray:
    image = _plain(name, image)
    checked_size(name, size_of(name, image), pixel_um, step_um, least_px)
    # a mirrored layer is turned round: its coordinates rise then
    falling = [d for d, v in spacing_of(image).items() if v < 0]
    if falling:
        image = image.isel({d: slice(None, None, -1) for d in falling})
    values = np.asarray(image.values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RequestError(f"'{name}' holds values that are no numbers.", "Replace or crop them.")
    return values


def _plain(name: str, image: xr.DataArray) -> xr.DataArray:
    """Return a stack with the axes z, y, x and no others."""
    if "affine_um" in image.attrs:
        raise RequestError(f"'{name}' is turned in the viewer.", "Take the rotation off.")
    image = image.squeeze([d for d in image.dims if str(d) not in "zyx" and image.sizes[d] == 1], drop=True)
    dims = [str(d) for d in image.dims]
    if sorted(dims) != ["x", "y", "z"]:
        what = "a single image" if sorted(dims) == ["x", "y"] else f"an image with the axes {' '.join(dims)}"
        raise RequestError(
            f"'{name}' is {what}, not a focal stack.",
            "Give one stack of planes (z, y, x): one channel, one frame. If its frames are planes, save it "
            "with them named so (in Fiji: Image > Properties).",
        )
    return image.transpose("z", "y", "x")
