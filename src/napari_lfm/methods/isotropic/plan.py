"""What a stack is understood to be, and whether it can be restored."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.widefield.frames import DIMS, StackInfo, check_stack_pixels, stack_info

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.isotropic.parameters import Profile

LEAST_FACTOR = 1.2
"""Below it little is to be gained, which is said."""
LEAST_PLANES = 3
FEW_PLANES = 8
"""Fewer planes are restored, with a warning: most of them are near an end."""
LEAST_SIDE_PX = 16
SQUARE = 0.03
"""Part by which rows and columns may differ and still be taken for squares."""
_WHERE = "(--voxel-um Z,Y,X on the command line, the layer's scale in napari)"


class _Asked(Protocol):
    """What of a run's parameters, or of a training's wish, decides the planes."""

    @property
    def factor(self) -> float: ...

    @property
    def profile(self) -> Profile: ...


@dataclass(frozen=True)
class Understood:
    """A stack with its planes to be.

    Attributes
    ----------
    info : StackInfo
        Of the recording; its voxels are those that the file or the layer states.
    factor : float
        Distance of the planes, lateral pixels.
    pixel_um : float
        Lateral pixel.
    fine_planes : int
        Planes of the result.
    step_px : float
        Their distance, lateral pixels.
    """

    info: StackInfo
    factor: float
    pixel_um: float
    fine_planes: int
    step_px: float

    @property
    def planes(self) -> int:
        """Planes of the recording."""
        return self.info.shape[0]

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Voxels (z, y, x) of the recording as the factor has them."""
        return self.factor * self.pixel_um, self.pixel_um, self.pixel_um

    @property
    def fine_z_um(self) -> float:
        """Distance of the new planes, which reach from the first recorded one to the last."""
        return self.info.voxel_um[0] * self.step_px / self.factor

    @property
    def fine_shape(self) -> tuple[int, int, int]:
        """Shape of a restored frame, (z, y, x)."""
        return self.fine_planes, *self.info.shape[1:]

    @property
    def is_nearly_isotropic(self) -> bool:
        """Whether there is little to gain."""
        return self.factor < LEAST_FACTOR

    @property
    def sentence(self) -> str:
        """The same in words."""
        each = [
            f"{n} {what}s"
            for what, n in (("frame", self.info.frames), ("channel", self.info.channels))
            if n > 1
        ]
        more = f", in each of {' and '.join(each)}" if each else ""
        return (
            f"z is {self.factor:.3g} times coarser than x and y: {self.planes} planes become "
            f"{self.fine_planes}{more}."
        )


def understood(image: xr.DataArray, asked: _Asked, resampling: Profile | None = None) -> Understood:
    """Return what a stack is understood to be.

    Parameters
    ----------
    image : DataArray, dims out of ``t c z y x``
        With voxel sizes.
    asked : IsotropicParameters or IsotropicWish
        Its `factor` counts more than the voxel sizes, its `profile` decides where new planes lie.
    resampling : {"modern", "csbdeep"}, optional
        Of the model that is used, instead of the profile.

    Raises
    ------
    RequestError
        If it is no stack of at least 3 planes, sizes are missing, pixels are no squares, or its planes are
        nearer together than its pixels.
    """
    from napari_lfm.methods.isotropic.restore import new_planes
    from napari_lfm.training.isotropic_resampling import check_factor

    if image.sizes.get("z", 1) < 2:
        raise RequestError(
            "This is one plane; isotropic restoration needs a stack of them.",
            "Give a z-stack. If its frames are planes, say so (--axes ZYX on the command line).",
        )
    info = stack_info(image)
    z_um, y_um, x_um = info.voxel_um
    if abs(y_um / x_um - 1) > SQUARE:
        raise RequestError(
            f"The pixels are {y_um:.4g} x {x_um:.4g} um: no squares.",
            f"Give the right voxel size {_WHERE}, or resample the stack to square pixels.",
        )
    planes = info.shape[0]
    if planes < LEAST_PLANES or min(info.shape[1:]) < LEAST_SIDE_PX:
        raise RequestError(
            f"A stack of {' x '.join(map(str, info.shape))} voxels is too small.",
            f"Give {LEAST_PLANES} planes of {LEAST_SIDE_PX} x {LEAST_SIDE_PX} pixels or more.",
        )
    pixel_um = math.sqrt(y_um * x_um)
    factor = asked.factor or z_um / pixel_um
    if factor < 1 - SQUARE:
        raise RequestError(
            f"The planes are {factor:.3g} pixels apart: z is finer than x and y, and nothing is to be "
            "restored.",
            f"Check the voxel size {_WHERE}, or give the factor.",
        )
    factor = check_factor(max(1.0, factor))
    fine, step_px = new_planes(planes, factor, resampling or asked.profile)
    return Understood(info, factor, pixel_um, fine, step_px)


def factor_problem(found: Understood) -> Problem | None:
    """Return what is to be said, or asked, where z is hardly coarser than x and y."""
    if not found.is_nearly_isotropic:
        return None
    return Problem(
        f"z is hardly coarser than x and y ({found.factor:.3g} times): there is little to gain.",
        "Check the voxel size; if it is right, only what is blurred along z is sharpened.",
        "warning",
        "factor",
    )


def stack_problems(image: xr.DataArray) -> list[Problem]:
    """Return what is wrong with the planes and pixels of a stack, apart from its sizes."""
    out = [_mended(p) for p in check_stack_pixels(image)]
    if any(p.severity == "error" for p in out):
        return out
    planes = int(image.sizes.get("z", 1))
    if planes < FEW_PLANES:
        out.append(
            Problem(
                f"{planes} planes are few: most of what is seen lies near an end of the stack.",
                "Trust the middle; record more planes next time.",
                "warning",
                "image",
            )
        )
    empty = empty_planes(image)
    if empty:
        what = "1 plane is" if empty == 1 else f"{empty} planes are"
        out.append(Problem(f"{what} empty, which does no harm.", severity="info", field="image"))
    return out


def empty_planes(image: xr.DataArray) -> int:
    """Return how many planes of the (first) frame hold one value only."""
    frame = image.isel({d: 0 for d in ("t",) if d in image.dims})
    others = [d for d in frame.dims if d != "z"]
    # a look at some pixels first: most planes show at once that there is something
    some = frame.isel({d: slice(None, None, max(1, frame.sizes[d] // 32)) for d in ("y", "x")})
    values = np.asarray(some.transpose("z", *others).data).reshape(frame.sizes["z"], -1)
    suspect = np.flatnonzero(values.max(1) == values.min(1))
    count = 0
    for k in suspect:
        plane = np.asarray(frame.isel(z=int(k)).data)
        count += int(plane.max() == plane.min())
    return count


def _mended(problem: Problem) -> Problem:
    """Return what is done about pixels that a deconvolution treats otherwise."""
    if "taken as not observed" in problem.remedy:
        return replace(problem, remedy="They are taken to be as bright as the stack's median.")
    if "are negative" in problem.message:
        return replace(problem, remedy="They are taken as they are.", severity="warning")
    return problem


def finite(stack: np.ndarray) -> np.ndarray:
    """Return a stack (channels, z, y, x) in which what is no number is its channel's median."""
    if stack.dtype.kind != "f" or np.isfinite(stack).all():
        return stack
    out = stack.copy()
    for channel in out:
        good = np.isfinite(channel)
        channel[~good] = np.median(channel[good]) if good.any() else 0
    return out


def frame_of(image: xr.DataArray, t: int, channel: int | None = None) -> np.ndarray:
    """Return one frame as (channels, z, y, x), in its own type, every value a number.

    Parameters
    ----------
    image : DataArray, dims out of ``t c z y x``
    t : int
    channel : int, optional
        Default: all of them.
    """
    chosen = image.isel(t=t) if "t" in image.dims else image
    if "c" not in chosen.dims:
        chosen = chosen.expand_dims("c")
    elif channel is not None:
        chosen = chosen.isel(c=[channel])
    return finite(np.asarray(chosen.transpose("c", "z", "y", "x").data))


def labelled_like(
    values: np.ndarray, image: xr.DataArray, found: Understood, name: str, fine: bool
) -> xr.DataArray:
    """Return values (t, c, z, y, x) as an image that lies where the recording does.

    Parameters
    ----------
    values : ndarray
        The first frames and channels.
    image : DataArray
        The recording.
    found : Understood
    name : str
    fine : bool
        Whether the planes are the new ones, else the recorded ones. Their number does not tell: a factor near
        1 may leave it as it is.
    """
    import xarray as xr

    dims = [d for d in DIMS if d in image.dims]
    sizes = dict(zip(DIMS, values.shape, strict=True))
    coords: dict[str, Any] = {d: image.coords[d][: sizes[d]] for d in dims if d in image.coords}
    kept = {k: image.attrs[k] for k in ("spacing", "affine_um") if k in image.attrs}
    if fine:
        ratio = found.step_px / found.factor
        step = -found.fine_z_um if found.info.falling[0] else found.fine_z_um
        first = float(image.coords["z"].values[0]) if "z" in image.coords else 0.0
        coords["z"] = ("z", first + step * np.arange(sizes["z"]), {"units": "um"})
        kept["spacing"] = {**kept.get("spacing", {}), "z": step}
        if "affine_um" in kept:
            matrix = np.array(kept["affine_um"], float)
            matrix[:, list(image.dims).index("z")] *= ratio
            kept["affine_um"] = matrix
    squeezed = values.reshape([sizes[d] for d in dims])
    return xr.DataArray(squeezed, dims=dims, coords=coords, name=name, attrs=kept).transpose(*image.dims)
