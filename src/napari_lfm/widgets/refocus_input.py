"""What of a layer is refocused: its current plane or frame, as plain data and in words. No Qt, no napari."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import origin_of, spacing_of
from napari_lfm.core.problems import Problem
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.resolve_stack import stack_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from napari_lfm.widgets.state import LayerInfo

Region = tuple[int, int, int, int]
FIRST_PX = 512
"""So many rows and columns of what is seen are refocused before everything else."""
_GRID_PX = 64
_SQUARE = 0.02
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class FlatInput:
    """The plane of a layer that is looked at.

    Attributes
    ----------
    name : str
        Of the layer.
    image : xarray.DataArray
        The whole layer, dims out of ``t c z y x``.
    at : mapping of str to int
        Index along every axis but y and x.
    pixel_um : float
        0 while it is not known.
    """

    name: str
    image: xr.DataArray
    at: Mapping[str, int]
    pixel_um: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.image.sizes["y"]), int(self.image.sizes["x"])

    @property
    def frames(self) -> int:
        """Frames of a movie, 1 of anything else."""
        return int(self.image.sizes.get("t", 1))

    @property
    def planes(self) -> int:
        """Planes of a stack, 1 of anything else."""
        return int(self.image.sizes.get("z", 1))

    @property
    def z_um(self) -> float:
        """Where the plane lies in its stack; 0 without one."""
        if "z" not in self.image.dims:
            return 0.0
        return origin_of(self.image).get("z", 0.0) + self.at["z"] * spacing_of(self.image).get("z", 0.0)

    def plane(self) -> np.ndarray:
        """Return the plane (y, x) in memory."""
        return np.asarray(self.image.isel(dict(self.at)).transpose("y", "x").data)

    def chosen(self) -> xr.DataArray:
        """Return what a run works on: this plane, or the movie that it is a frame of."""
        fixed = {d: k for d, k in self.at.items() if d != "t"}
        return self.image.isel(fixed, drop=True)


def flat_input(info: LayerInfo, at: Sequence[int]) -> FlatInput | Problem:
    """Return the plane of a layer that is looked at, or why it cannot be refocused.

    Parameters
    ----------
    info : LayerInfo
    at : sequence of int
        Index along every axis of the layer, as it is shown.
    """
    if info.rgb:
        return Problem(
            f"'{info.name}' is a colour picture.",
            "Split its channels (right click on the layer), and choose the one of your dye.",
        )
    image = stack_of(info)
    if isinstance(image, Problem):
        return image
    if "affine_um" in image.attrs:
        return Problem(
            f"'{info.name}' is turned or sheared in the viewer.",
            "Take the rotation off, or export what you see and open that.",
        )
    step = spacing_of(image)
    if min(image.sizes["y"], image.sizes["x"]) < 2:
        return Problem(
            f"'{info.name}' has {image.sizes['y']} {_TIMES} {image.sizes['x']} pixels.",
            "Choose an image of several rows and columns.",
        )
    dy, dx = abs(step.get("y", 0.0)), abs(step.get("x", 0.0))
    if dy and dx and abs(dy / dx - 1) > _SQUARE:
        return Problem(
            f"The pixels of '{info.name}' are not square: {dy:.3g} {_TIMES} {dx:.3g} {MICROMETRES}.",
            "Resample it to square pixels first.",
        )
    return FlatInput(info.name, image, _indices(info, image, at), (dy + dx) / 2 if dy and dx else 0.0)


def _indices(info: LayerInfo, image: xr.DataArray, at: Sequence[int]) -> dict[str, int]:
    """Return the index along every axis but y and x; the layer's axes may be in another order."""
    labels = [str(a).lower() for a in info.axis_labels]
    names: list[Any] = labels if {"y", "x"} <= set(labels) else list(image.dims)
    names = [""] * (len(at) - len(names)) + names[-len(at) :]
    known = dict(zip(names, at, strict=True))
    leads = [str(d) for d in image.dims if d not in ("y", "x")]
    return {d: int(np.clip(known.get(d, 0), 0, image.sizes[d] - 1)) for d in leads}


def visible_region(corners: Any, shape: tuple[int, int]) -> Region:
    """Return what of an image is refocused first: the middle of what the canvas shows, on a coarse grid.

    Parameters
    ----------
    corners : array_like, shape (2, 2)
        First and last row and column that are seen.
    shape : tuple of int
    """
    corners = np.asarray(corners, float)
    out = []
    for axis in range(2):
        size = shape[axis]
        low, high = sorted((float(corners[0, axis]), float(corners[1, axis])))
        low, high = max(0.0, low), min(float(size), high + 1)
        if size <= FIRST_PX:
            out.append((0, size))
            continue
        if high - low < 1:
            low, high = 0.0, float(size)
        middle, length = (low + high) / 2, min(high - low, FIRST_PX)
        # the same part again and again while one drags: what is known of it is kept
        first = int(_GRID_PX * np.floor((middle - length / 2) / _GRID_PX))
        last = min(int(_GRID_PX * np.ceil((middle + length / 2) / _GRID_PX)), first + FIRST_PX)
        out.append((max(0, min(first, size - 1)), min(size, last)))
    (y0, y1), (x0, x1) = out
    return y0, x0, y1, x1


def other_parts(first: Region, shape: tuple[int, int], tile: int = FIRST_PX) -> list[Region]:
    """Return the tiles of an image that are not in a region, the nearest first."""
    tops, lefts = (range(0, n, tile) for n in shape)
    parts = [(y, x, min(y + tile, shape[0]), min(x + tile, shape[1])) for y in tops for x in lefts]
    y0, x0, y1, x1 = first
    parts = [p for p in parts if not (p[0] >= y0 and p[1] >= x0 and p[2] <= y1 and p[3] <= x1)]
    middle = np.array([(y0 + y1) / 2, (x0 + x1) / 2])
    return sorted(
        parts, key=lambda p: float(np.hypot(*(np.array([(p[0] + p[2]) / 2, (p[1] + p[3]) / 2]) - middle)))
    )


# ------------------------------------------------------------------------------- words
def signed(value: float, digits: int = 1) -> str:
    """Return a distance with its sign.

    Examples
    --------
    >>> signed(2.25, 2), signed(0.0)
    ('+2.25', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def input_html(found: FlatInput) -> str:
    """Return in words what is refocused."""
    rows, columns = found.shape
    parts = [f"{rows} {_TIMES} {columns} pixels"]
    if found.frames > 1:
        parts.append(f"frame {found.at['t'] + 1} of {found.frames}")
    if found.planes > 1:
        parts.append(f"plane {found.at['z'] + 1} of {found.planes}")
    if found.image.sizes.get("c", 1) > 1:
        parts.append(f"channel {found.at['c'] + 1} of {found.image.sizes['c']}")
    if found.pixel_um:
        parts.append(f"pixels of {found.pixel_um:.4g} {MICROMETRES}")
    return f"<b>Image:</b> {html.escape(found.name)}, {', '.join(parts)}"


def model_html(id: str, range_um: float, pixel_um: float, notes: Sequence[str]) -> str:
    """Return in words which model does it, how far it reaches, and what it does to the image."""
    lines = [
        f"<b>Model:</b> {html.escape(id)}, trained for \N{PLUS-MINUS SIGN}{range_um:g} {MICROMETRES} "
        f"at pixels of {pixel_um:.4g} {MICROMETRES}"
    ]
    return "<br>".join([*lines, *(html.escape(note) for note in notes)])


def heights_html(heights: np.ndarray, range_um: float) -> str:
    """Return the heights of a surface in words, and how much of it no training saw."""
    from napari_lfm.widgets.texts import coloured

    low, high = float(heights.min()), float(heights.max())
    text = f"<b>Heights:</b> from {signed(low)} to {signed(high)} {MICROMETRES} from the image's plane."
    share = float((np.abs(heights) > range_um * (1 + 1e-6)).mean())
    if share:
        told = "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"
        text += "<br>" + coloured(
            f"\N{WARNING SIGN} {told} of it is beyond the trained \N{PLUS-MINUS SIGN}{range_um:g} "
            f"{MICROMETRES}: do not trust it there (marked in the layer 'beyond the trained range').",
            "warning",
        )
    return text


def beyond_html(z_um: float, range_um: float) -> str:
    """Return a warning where a plane is beyond the trained range, else nothing."""
    from napari_lfm.widgets.texts import coloured

    if abs(z_um) <= range_um * (1 + 1e-6):
        return ""
    return coloured(
        f"\N{WARNING SIGN} {signed(z_um)} {MICROMETRES} is beyond the trained "
        f"\N{PLUS-MINUS SIGN}{range_um:g} {MICROMETRES}: do not trust this plane.",
        "warning",
    )


def share_words(share: float) -> str:
    """Return in one sentence how far the refocused stack explains the image.

    Parameters
    ----------
    share : float
        What it leaves unexplained, over the image.
    """
    text = f"The refocused stack, blurred again, leaves {100 * share:.0f} % of the image unexplained"
    if share < 0.15:
        return f"{text}: it agrees with what was recorded, about as well as noise allows."
    if share < 0.35:
        return f"{text}: trust it where the layer 'doubt' is dark, and look twice where it is bright."
    return f"{text}: do not trust it; objective, pixel size or specimen differ from what the model knows."


def drift_values(text: str, frames: int) -> list[float]:
    """Return one distance per frame from what was typed; nothing at all means no drift.

    Parameters
    ----------
    text : str
        Numbers with commas, semicolons, blanks or line ends between them; or one for the drift per frame.
    frames : int

    Raises
    ------
    RequestError
        If a word is no number, or there are not as many as frames.
    """
    import math

    from napari_lfm.core.problems import RequestError

    words = text.replace(";", " ").replace(",", " ").split()
    try:
        values = [float(w) for w in words]
    except ValueError as error:
        raise RequestError(
            f"The drift holds something that is no number ({str(error).rpartition(':')[2].strip()}).",
            f"Give one number per frame, in {MICROMETRES}, with a decimal point.",
        ) from None
    if not all(map(math.isfinite, values)):
        raise RequestError("The drift holds values that are no numbers.", "Give one number per frame.")
    if not values:
        return [0.0] * frames
    if len(values) == 1:
        return [values[0] * k for k in range(frames)]
    if len(values) != frames:
        raise RequestError(
            f"There are {len(values)} drift values for {frames} frames.",
            "Give one per frame, one alone (drift from frame to frame), or none.",
        )
    return values
