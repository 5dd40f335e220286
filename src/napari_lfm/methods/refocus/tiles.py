"""Parts of a large image, for work on many planes: the network sees a part once, then all planes are made.

Plane by plane over the whole of a large image, the network would see every part again for every plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_lfm.methods.refocus.engine import Region

PART_PX = 1024
"""As large as the engine's own."""

Slices = tuple[slice, slice]


def parts_of(shape: tuple[int, int], halo: int = 0) -> list[tuple[Region, Slices, Slices]]:
    """Return the parts of an image.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    halo : int
        Pixels of its neighbours that a part has around it, where there are any.

    Returns
    -------
    list of tuple
        The part with its halo, as (y0, x0, y1, x1); where the part itself lies in the image; and where it
        lies in the part with halo.
    """
    core = PART_PX - 2 * halo
    out: list[tuple[Region, Slices, Slices]] = []
    for top, rows in _lines(shape[0], core, halo):
        for left, columns in _lines(shape[1], core, halo):
            region = (top.start, left.start, top.stop, left.stop)
            within = (
                slice(rows.start - top.start, rows.stop - top.start),
                slice(columns.start - left.start, columns.stop - left.start),
            )
            out.append((region, (rows, columns), within))
    return out


def _lines(size: int, core: int, halo: int) -> list[tuple[slice, slice]]:
    """Return parts of an axis, with halo and without; a single one where it fits."""
    if size <= PART_PX:
        return [(slice(0, size), slice(0, size))]
    return [
        (slice(max(0, a - halo), min(size, a + core + halo)), slice(a, min(size, a + core)))
        for a in range(0, size, core)
    ]
