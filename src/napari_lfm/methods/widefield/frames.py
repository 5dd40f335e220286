"""Frames of a stack, one at a time: their axes, background, noise, and what is wrong with their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import uniform_filter

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.noise import Noise, some_planes
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.io.check import check_pixels

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

DIMS = ("t", "c", "z", "y", "x")
QUICK_PIXELS = 2**23
"""So many pixels are looked at before a run: about 50 ms."""


@dataclass(frozen=True)
class StackInfo:
    """Sizes of an image.

    Attributes
    ----------
    shape : tuple of int
        (z, y, x) of one frame; z is 1 for a flat image.
    frames, channels : int
    voxel_um : tuple of float
        (z, y, x).
    flat : bool
        Whether there is no z axis, or one plane only.
    falling : tuple of bool
        Whether the coordinates fall along (z, y, x), as in a layer that is mirrored.
    """

    shape: tuple[int, int, int]
    frames: int
    channels: int
    voxel_um: tuple[float, float, float]
    flat: bool
    falling: tuple[bool, bool, bool] = (False, False, False)


def stack_info(image: xr.DataArray) -> StackInfo:
    """Return the sizes of an image.

    Raises
    ------
    RequestError
        If its axes are no stack's, or a voxel size is missing or makes no sense.
    """
    odd = [str(d) for d in image.dims if d not in DIMS]
    if odd or "y" not in image.dims or "x" not in image.dims:
        raise RequestError(
            f"The image has the axes {' '.join(map(str, image.dims))}; a stack has y and x, and may have z, "
            "c and t.",
            "Choose a stack, or name its axes.",
        )
    sizes, spacing = image.sizes, spacing_of(image)
    flat = sizes.get("z", 1) == 1
    missing = [d for d in "zyx" if sizes.get(d, 1) > 1 and d not in spacing]
    if missing:
        what = "the distance of its planes" if missing == ["z"] else f"its size along {', '.join(missing)}"
        raise RequestError(
            f"The image does not say how large its voxels are: {what} is missing.",
            "Give the voxel size (--voxel-um Z,Y,X on the command line, the layer's scale in napari), um.",
        )
    across = [abs(spacing.get(d, spacing.get("x", spacing.get("y", 0.0)))) for d in "yx"]
    voxel = (abs(spacing.get("z", 1.0)) or 1.0, *across)
    if not all(np.isfinite(v) and v > 0 for v in voxel):
        raise RequestError(
            f"A voxel of {' x '.join(f'{v:g}' for v in voxel)} um is none.", "Give sizes above 0."
        )
    shape = (int(sizes.get("z", 1)), int(sizes["y"]), int(sizes["x"]))
    frames, channels = int(sizes.get("t", 1)), int(sizes.get("c", 1))
    z, y, x = (spacing.get(d, 1.0) < 0 for d in "zyx")
    return StackInfo(shape, frames, channels, voxel, flat, (z, y, x))  # type: ignore[arg-type]


def place_of(at: tuple[int, int], info: StackInfo) -> str:
    """Return where in a movie or among the channels a run is, in words: ``, frame 1 of 3``, or nothing."""
    words = [
        f"{name} {k + 1} of {n}"
        for name, k, n in (("frame", at[0], info.frames), ("channel", at[1], info.channels))
        if n > 1
    ]
    return ", " + ", ".join(words) if words else ""


def frame_of(image: xr.DataArray, t: int, c: int) -> np.ndarray[Any, Any]:
    """Return one frame as (z, y, x), in its own type."""
    chosen = image.isel({d: k for d, k in (("t", t), ("c", c)) if d in image.dims})
    order = [d for d in ("z", "y", "x") if d in chosen.dims]
    data = np.asarray(chosen.transpose(*order).data)
    return data if data.ndim == 3 else data[None]


def check_stack_pixels(image: xr.DataArray) -> list[Problem]:
    """Return what is wrong with the pixels; of large images some evenly spaced planes are looked at."""
    part = image
    for dim in ("t", "z"):
        if dim in part.dims and part.size > QUICK_PIXELS:
            count = max(1, int(part.sizes[dim] * QUICK_PIXELS / part.size))
            every = -(-part.sizes[dim] // count)
            part = part.isel({dim: slice(None, None, every)})
    found = check_pixels(part)
    if part is not image and any(p.severity == "error" for p in found):
        found = check_pixels(image)  # a few empty planes are no empty stack
    out = []
    for problem in found:
        if "are NaN or infinite" in problem.message:
            problem = Problem(
                problem.message, "They are taken as not observed.", severity="warning", field="image"
            )
        elif "are negative" in problem.message and problem.severity == "error":
            problem = Problem(
                problem.message,
                "Richardson-Lucy counts light: give the frames without a background taken off.",
                field="image",
            )
        out.append(problem)
    return out


def estimate_background(frame: np.ndarray[Any, Any]) -> float:
    """Return the level of the darkest hundredth of a frame, grey values.

    Pixels are first averaged over 5 x 5, so that it is the level and not the noise around it.
    """
    planes = some_planes(frame)
    smooth = uniform_filter(planes, (0, min(5, planes.shape[1]), min(5, planes.shape[2])), mode="nearest")
    return max(float(np.percentile(smooth, 1)), 0.0)


def camera_noise(microscope: Microscope, background: float) -> Noise:
    """Return the noise that a microscope's camera is said to have.

    A background below the camera's offset shows that the offset was taken off before, or is another one.
    """
    camera = microscope.camera
    slope = 1 / camera.gain_e_per_count
    read = camera.read_noise_e * slope
    offset = camera.offset_counts if background >= camera.offset_counts - 3 * read else 0.0
    # a level of nothing at all would let one electron weigh without bounds
    shift = max(read**2 / slope - offset, 0.1 * slope - background)
    source = f"the camera of '{microscope.name}'"
    return Noise(slope, read**2 - slope * offset, max(read**2, 0.1 * slope**2), True, source, shift)
