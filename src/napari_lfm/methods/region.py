"""The part of a raw frame that a run works on: refused where it makes no sense, cut to the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.core.problems import Problem

if TYPE_CHECKING:
    from napari_lfm.methods.base import Request

Region = tuple[int, int, int, int]


def region_in_frame(region_px: Region, shape: tuple[int, int]) -> tuple[Region, list[Problem]]:
    """Return a region cut to its frame, and what is to say about it.

    Parameters
    ----------
    region_px : tuple of int
        ``(y0, x0, y1, x1)`` in raw pixels, end excluded.
    shape : tuple of int
        Raw frame (height, width).

    Returns
    -------
    region : tuple of int
        Inside the frame; as it was given where it is refused.
    problems : list of Problem
        An error for a region that is empty, reversed or outside the frame; an ``info`` for one that was cut.
    """
    y0, x0, y1, x1 = region_px
    height, width = shape
    frame = f"the frame of {height} x {width} pixels"
    if y1 <= y0 or x1 <= x0:
        return region_px, [
            Problem(
                f"The region {_text(region_px)} is empty or its corners are the wrong way round.",
                "Give y0,x0,y1,x1 with y1 above y0 and x1 above x0.",
                field="region",
            )
        ]
    cut = max(0, y0), max(0, x0), min(height, y1), min(width, x1)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return region_px, [
            Problem(
                f"The region {_text(region_px)} lies outside {frame}.",
                "Give y0,x0,y1,x1 inside it, or leave the region out.",
                field="region",
            )
        ]
    if cut == region_px:
        return cut, []
    note = f"The region {_text(region_px)} reaches beyond {frame}; {_text(cut)} is used."
    return cut, [Problem(note, severity="info", field="region")]


def region_of(request: Request) -> tuple[Region | None, list[Problem]]:
    """Return the region that a request works on, cut to its frame, and what is to say about it."""
    if request.region_px is None:
        return None, []
    image = request.inputs["image"]
    if tuple(map(str, image.dims[-2:])) != ("y", "x") or request.layout.startswith("lenslet:"):
        return None, [
            Problem(
                "A region is part of a raw camera frame, but this light field is rectified already.",
                "Leave the region out, or give the raw frame.",
                field="region",
            )
        ]
    return region_in_frame(request.region_px, (int(image.sizes["y"]), int(image.sizes["x"])))


def _text(region: Region) -> str:
    return ",".join(map(str, region))
