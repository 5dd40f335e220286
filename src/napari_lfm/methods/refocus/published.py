"""One image, ready to be refocused by the published network: its own scale, its own frames.

The authors' plug-in takes the median off the image, divides by the 99th percentile of what is above a
triangle threshold, pads with zeros to 1024 x 1024 pixels, and gives the network the distance over 10 um.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skimage.filters import threshold_triangle

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.engine import Refocused, Refocuser, Region
from napari_lfm.networks.stack_scale import StackLevels

if TYPE_CHECKING:
    from torch import nn

    from napari_lfm.methods.refocus.card import RefocusDomain
    from napari_lfm.training.config import Precision

FRAME_PX = 1024
_PERCENTILE = 99.0
_OVERLAP_PX = 128
"""Of neighbouring frames: half of it is thrown away on either side."""


def published_levels(image: np.ndarray) -> StackLevels:
    """Return the grey values that become 0 and 1: the median, and that plus the foreground's brightness.

    Parameters
    ----------
    image : ndarray, shape (y, x)

    Raises
    ------
    RequestError
        If the image has no foreground: it is all of one brightness.
    """
    values = np.asarray(image, np.float32)
    if not values.max() > values.min():
        raise RequestError("The image is all of one brightness.", "Leave it out, or check the file.")
    threshold: Any = threshold_triangle
    bright = values[values > float(threshold(values))]
    low = float(np.median(values))
    top = float(np.percentile(bright, _PERCENTILE)) if bright.size else float(values.max())
    if not top > 0:
        raise RequestError("The brightest pixels of the image are not above 0.", "Check the file.")
    return StackLevels(low, low + top)


class PublishedRefocuser(Refocuser):
    """An image that the published network refocuses; it gives no confocal plane.

    Parameters
    ----------
    network : RefocusPaperNet
    domain : RefocusDomain
    image : ndarray, shape (y, x)
    pixel_um : float
    levels : StackLevels, optional
        Grey values that become 0 and 1; default: `published_levels`.
    precision, rounds
        Not heeded: the weights are run as their authors ran them.
    frame_px : int
        Rows and columns that the network sees at a time.
    """

    def __init__(
        self,
        network: nn.Module,
        domain: RefocusDomain,
        image: np.ndarray,
        pixel_um: float,
        levels: StackLevels | None = None,
        precision: Precision = "float32",
        rounds: int = 0,
        frame_px: int = FRAME_PX,
    ) -> None:
        if image.ndim == 2 and min(image.shape) >= 2 and np.isfinite(image).all():
            levels = levels or published_levels(image)
        super().__init__(network, domain, image, pixel_um, levels, precision, rounds)
        self._frame = frame_px
        self._kept: dict[tuple[int, int, float], np.ndarray] = {}

    def surface(self, height_um: np.ndarray, region: Region | None = None) -> Refocused:
        """Return the image on a surface; `confocal` is `widefield` again."""
        y0, x0, y1, x1 = region or (0, 0, *self.shape)
        clipped = np.clip(height_um, -self.limit_um, self.limit_um).astype(np.float32)
        out = np.empty((y1 - y0, x1 - x0), np.float32)
        for top, rows in _frames(self.shape[0], self._frame):
            for left, columns in _frames(self.shape[1], self._frame):
                a, b = max(rows.start, y0), min(rows.stop, y1)
                c, d = max(columns.start, x0), min(columns.stop, x1)
                if a < b and c < d:
                    frame = self._refocused(clipped, top, left)
                    out[a - y0 : b - y0, c - x0 : d - x0] = frame[a - top : b - top, c - left : d - left]
        out *= np.float32(self.levels.span)
        np.maximum(out, 0, out=out)
        heights = np.broadcast_to(height_um, self.shape)[y0:y1, x0:x1]
        return Refocused(out, out, np.abs(heights) > self.domain.range_um * (1 + 1e-6))

    def confocal(self, z_um: float, region: Region | None = None) -> np.ndarray:
        """Return what `plane` gives: there is no other."""
        return self.plane(z_um, region).confocal

    def forget(self) -> None:
        """Let go of the frames that were made last."""
        self._kept.clear()

    def expected(self, confocal: np.ndarray, z_um: np.ndarray) -> np.ndarray:
        """Refuse: there is no confocal stack to blur.

        Raises
        ------
        RequestError
        """
        raise RequestError(
            "The published network gives no confocal stack: what it says cannot be held against the image.",
            "Use one of the models of this package for that.",
        )

    @torch.no_grad()
    def _refocused(self, heights: np.ndarray, top: int, left: int) -> np.ndarray:
        """Return a frame (y, x) over the image's scale; of uniform distances the last ones are kept."""
        uniform = heights.size == 1
        key = (top, left, float(heights.flat[0]))
        if uniform and key in self._kept:
            return self._kept[key]
        side = self._frame
        image = torch.zeros(1, 1, side, side, device=self.device)
        part = self.scaled[top : top + side, left : left + side]
        image[0, 0, : part.shape[0], : part.shape[1]] = part
        if uniform:
            z_um = torch.full_like(image, float(heights.flat[0]))
        else:
            z_um = torch.zeros_like(image)
            own = torch.from_numpy(np.ascontiguousarray(heights[top : top + side, left : left + side]))
            z_um[0, 0, : own.shape[0], : own.shape[1]] = own.to(self.device)
        made = np.asarray(self.network(image, z_um)[0, 0].float().cpu().numpy())
        if uniform:  # a region first, then the rest: the same frame
            if any(k[2] != key[2] for k in self._kept) or len(self._kept) > 16:
                self._kept.clear()
            self._kept[key] = made
        return made


def _frames(size: int, frame: int) -> list[tuple[int, slice]]:
    """Return the first pixel of every frame along an axis, and the pixels that are taken from it."""
    if size <= frame:
        return [(0, slice(0, size))]
    overlap = min(_OVERLAP_PX, frame // 4)
    count = int(np.ceil((size - overlap) / (frame - overlap)))
    firsts = [round(k * (size - frame) / (count - 1)) for k in range(count)]
    cuts = [0, *((a + frame + b) // 2 for a, b in pairwise(firsts)), size]
    return [(f, slice(a, b)) for f, (a, b) in zip(firsts, pairwise(cuts), strict=True)]
