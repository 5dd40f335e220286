"""Registration of a wide-field with a confocal stack of one sample, for training on such pairs.

Two estimates of the shift are made independently (`napari_lfm.training.shift_estimates`): the published one
by the point spread function between both stacks, and high-pass cross-correlation. Only where they agree is a
pair accepted without a person's look. Large stacks are matched coarsely as a whole, and then finely in a box
of at most 32 x 256 x 256 voxels that holds much texture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.training.registration_grid import checked_pair, overview, places, sample, whole_box
from napari_lfm.training.registration_result import Estimate, Registration

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

__all__ = ["Estimate", "Registration", "apply_registration", "register_pair", "registered"]

BOX = (32, 256, 256)
"""Planes, rows and columns that are matched finely, at most."""


def register_pair(
    moving: xr.DataArray,
    fixed: xr.DataArray,
    *,
    tolerance_voxels: float = 0.5,
    find_rotation: bool = False,
    max_rotation_deg: float = 5.0,
    max_magnification: float = 0.05,
    iterations: int = 60,
    box: tuple[int, int, int] = BOX,
    device: str = "cpu",
) -> Iterator[Progress | Registration]:
    """Find how a wide-field stack lies against a confocal one of the same sample.

    The stacks' own coordinates are where the search starts. Closing the generator cancels within one step.

    Parameters
    ----------
    moving, fixed : xarray.DataArray
        Wide-field and confocal stack: dims ``z y x`` (others of one entry are dropped), voxel sizes in um.
        They may differ in shape, type and voxel size: the moving one is resampled to the fixed one's grid.
    tolerance_voxels : float
        The estimates agree where they differ by at most this on every axis.
    find_rotation : bool
        Look for a rotation about z and a magnification too.
    max_rotation_deg, max_magnification : float
        How far to look, both ways.
    iterations : int
        Of the point spread function's solver.
    box : tuple of int
        Planes, rows and columns that are matched finely, at most.
    device : str

    Yields
    ------
    Progress, and at last a Registration

    Raises
    ------
    RequestError
        If the stacks cannot be registered: other axes, too few planes, NaN, constant, no common volume, or
        shifted by more than half of it.
    """
    still, target, notes = checked_pair(moving, fixed)
    steps = 2 * iterations + 20  # as `search` counts them: the solver may run twice
    yield Progress(0, steps, "Looking at the stacks")
    small = []
    for stack in (still, target):
        for event in overview(stack):
            if isinstance(event, tuple):
                yield Progress(0, steps, f"Looking at plane {event[0]} of {event[1]}")
            else:
                small.append(event)
    import torch

    from napari_lfm.training.registration_search import search

    with torch.inference_mode():
        yield from search(
            still, target, small, notes, tolerance_voxels, find_rotation,
            (max_rotation_deg, max_magnification), iterations, box, device,
        )  # fmt: skip


def registered(moving: xr.DataArray, fixed: xr.DataArray, **options: Any) -> Registration:
    """Return the registration of a pair at once; arguments as for `register_pair`."""
    for event in register_pair(moving, fixed, **options):
        if isinstance(event, Registration):
            return event
    raise AssertionError("register_pair ends with a registration")


def apply_registration(
    image: xr.DataArray,
    registration: Registration,
    like: xr.DataArray,
    *,
    crop: bool = False,
    order: Literal[1, 3] = 3,
) -> xr.DataArray:
    """Return a moving stack on the grid of the fixed one.

    Parameters
    ----------
    image : xarray.DataArray
        The moving stack, or another channel of it.
    registration : Registration
    like : xarray.DataArray
        The fixed stack: its grid is taken, not its values.
    crop : bool
        Return only the box that `image` covers: ``like.sel(z=out.z, y=out.y, x=out.x)`` belongs to it.
        Otherwise what it does not cover is 0.
    order : {1, 3}
        Linear or cubic interpolation; shifts by whole voxels are exact with either.

    Returns
    -------
    xarray.DataArray
        float32, dims ``z y x``, coordinates of `like`.

    Raises
    ------
    RequestError
        As `register_pair`; or if nothing is covered.
    """
    still, target, _ = checked_pair(image, like)
    values, planes, area = sample(still, places(target, registration.shift_um), registration.turn, order)
    if not planes.any() or not area.any():
        raise RequestError(
            "After the shift the stacks do not overlap.", "Register them again, or move the layer by hand."
        )
    cut = tuple(slice(0, n) for n in target.shape)
    if crop:
        rows, columns = whole_box(area)
        inside = np.flatnonzero(planes)
        cut = (slice(int(inside[0]), int(inside[-1]) + 1), rows, columns)
        values = values[cut]
    origin = [o + v * c.start for o, v, c in zip(target.origin, target.voxel, cut, strict=True)]
    out = labelled(
        values,
        "zyx",
        dict(zip("zyx", target.voxel, strict=True)),
        dict(zip("zyx", origin, strict=True)),
        name=None if image.name is None else str(image.name),
    )
    # the very numbers, so that `like` can be asked by them
    return out.assign_coords(
        {d: like.coords[d][c] for d, c in zip("zyx", cut, strict=True) if d in like.coords}
    )
