"""One image, ready to be refocused: encoded once, then one plane or surface after the other.

All that depends on the image alone is done when it is taken in. A plane then costs three inverse Fourier
transforms and the decoder, and of a part of the image only that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus import conditions
from napari_lfm.networks.refocus_physics import RefocusPhysics, mirrored, reblur_planes
from napari_lfm.networks.stack_scale import StackLevels, stack_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from napari_lfm.methods.refocus.card import RefocusDomain

Region = tuple[int, int, int, int]
BEYOND = 1.25
"""Up to how far beyond the trained range planes are computed, over the range; further ones as at this."""
_CONTEXT_PX = 96
_TILE_PX = 1024
_LEVELS_PER_RANGE = 20


@dataclass(frozen=True)
class Refocused:
    """A plane or surface in grey values above the dark level.

    Attributes
    ----------
    widefield, confocal : ndarray, float32, shape (y, x)
    beyond : ndarray of bool, shape (y, x)
        Where the distance is outside the trained range.
    """

    widefield: np.ndarray
    confocal: np.ndarray
    beyond: np.ndarray


class Refocuser:
    """An image that can be refocused.

    Parameters
    ----------
    network : RefocusNet
        On its device, in eval mode.
    domain : RefocusDomain
    image : ndarray, shape (y, x)
        Any grey values; at least 2 x 2 pixels with some contrast.
    pixel_um : float
    levels : StackLevels, optional
        Grey values that become 0 and 1; default: the image's percentiles. Movies keep the first frame's.

    Raises
    ------
    RequestError
        If there is nothing to refocus: no image, no contrast, values that are no numbers.
    """

    def __init__(
        self,
        network: nn.Module,
        domain: RefocusDomain,
        image: np.ndarray,
        pixel_um: float,
        levels: StackLevels | None = None,
    ) -> None:
        if image.ndim != 2 or min(image.shape) < 2:
            raise RequestError(
                f"An image of {' x '.join(map(str, image.shape))} pixels cannot be refocused.",
                "Give one plane (y, x) of several pixels.",
            )
        if not np.isfinite(image).all():
            raise RequestError("The image holds values that are no numbers.", "Replace or crop them.")
        self.network, self.domain, self.pixel_um = network, domain, float(pixel_um)
        self.device = next(network.parameters()).device
        self.levels = levels or stack_levels(image, domain.low_percentile, domain.high_percentile)
        self.shape = (int(image.shape[0]), int(image.shape[1]))
        self.scaled = torch.from_numpy(self.levels.scaled(image)).to(self.device)
        self._physics: RefocusPhysics | None = None
        self._encoded: dict[Region, tuple[list[torch.Tensor], tuple[int, int]]] = {}

    @property
    def limit_um(self) -> float:
        """Largest distance that is computed as it is."""
        return BEYOND * self.domain.range_um

    @property
    def physics(self) -> RefocusPhysics:
        """What defocus does to this image."""
        if self._physics is None:
            self._physics = RefocusPhysics(self.domain.optics, self.pixel_um, self.limit_um, self.scaled)
        return self._physics

    def plane(self, z_um: float, region: Region | None = None) -> Refocused:
        """Return the plane at a distance from the image's.

        Parameters
        ----------
        z_um : float
            Of the focus drive, + in the direction of rising planes.
        region : tuple of int, optional
            (y0, x0, y1, x1): only there.
        """
        return self.surface(np.full((1, 1), z_um, np.float32), region)

    def surface(self, height_um: np.ndarray, region: Region | None = None) -> Refocused:
        """Return the image on a surface.

        Parameters
        ----------
        height_um : ndarray, shape (y, x) or (1, 1)
            Distance from the image's plane, pixel by pixel of the whole image.
        region : tuple of int, optional
        """
        y0, x0, y1, x1 = region or (0, 0, *self.shape)
        out = np.empty((2, y1 - y0, x1 - x0), np.float32)
        for top in range(y0, y1, _TILE_PX):
            for left in range(x0, x1, _TILE_PX):
                part = (top, left, min(top + _TILE_PX, y1), min(left + _TILE_PX, x1))
                made = self._decoded(height_um, part)
                out[:, part[0] - y0 : part[2] - y0, part[1] - x0 : part[3] - x0] = made
        out *= np.float32(self.levels.span)
        heights = np.broadcast_to(height_um, self.shape)[y0:y1, x0:x1]
        return Refocused(out[0], out[1], np.abs(heights) > self.domain.range_um * (1 + 1e-6))

    def forget(self) -> None:
        """Let go of the memory of encoded parts."""
        self._encoded.clear()

    @torch.no_grad()
    def _decoded(self, height_um: np.ndarray, part: Region) -> np.ndarray:
        """Return both heads on a part, light over the image's scale."""
        encoded, (rows, columns) = self._parts(part)
        y0, x0, y1, x1 = part
        uniform = height_um.size == 1
        top, left = max(0, y0 - _CONTEXT_PX), max(0, x0 - _CONTEXT_PX)
        around = (
            slice(top, min(self.shape[0], y1 + _CONTEXT_PX)),
            slice(left, min(self.shape[1], x1 + _CONTEXT_PX)),
        )
        clipped = np.clip(height_um, -self.limit_um, self.limit_um).astype(np.float32)
        if not uniform:
            clipped = np.ascontiguousarray(clipped[around])
        guesses = self._guesses(clipped, around)
        index = [
            mirrored(n, m, 0).to(self.device) for n, m in zip(guesses.shape[1:], (rows, columns), strict=True)
        ]
        guesses = guesses[:, index[0]][:, :, index[1]]
        heights = torch.from_numpy(clipped).to(self.device)
        if not uniform:
            heights = heights[index[0]][:, index[1]]
            heights = torch.nn.functional.avg_pool2d(heights[None], 2)[0]
        roots = self.network.decode(encoded, self._condition(heights), guesses[None])  # type: ignore[operator]
        light = roots[0].float().clamp(min=0) ** 2
        light = light[:, y0 - top : y1 - top, x0 - left : x1 - left]
        return np.asarray(light.cpu().numpy())

    def _condition(self, heights: torch.Tensor) -> torch.Tensor:
        o = self.domain.optics
        return conditions(
            heights[None, None],
            self.domain.range_um,
            float(o.edge_waves(1.0)),
            float(o.blur_radius_um(1.0)) / self.pixel_um,
            self.pixel_um * 4 * o.na / o.wavelength_um,
        )

    def _parts(self, part: Region) -> tuple[list[torch.Tensor], tuple[int, int]]:
        """Return a part, with its surroundings, encoded; and the pixels that it was padded to."""
        if part not in self._encoded:
            y0, x0, y1, x1 = part
            rows = slice(max(0, y0 - _CONTEXT_PX), min(self.shape[0], y1 + _CONTEXT_PX))
            columns = slice(max(0, x0 - _CONTEXT_PX), min(self.shape[1], x1 + _CONTEXT_PX))
            image = self.scaled[rows, columns]
            multiple = int(self.network.multiple)  # type: ignore[arg-type]
            size = tuple(-(-n // multiple) * multiple for n in image.shape)
            index = [mirrored(n, m, 0).to(self.device) for n, m in zip(image.shape, size, strict=True)]
            image = image[index[0]][:, index[1]]
            with torch.no_grad():
                encoded = self.network.encode(image[None, None])  # type: ignore[operator]
            if len(self._encoded) >= 4 and self.shape[0] * self.shape[1] > 4 * _TILE_PX**2:
                self._encoded.clear()  # of large images not every tile is kept
            self._encoded[part] = encoded, (size[0], size[1])
        return self._encoded[part]

    def _guesses(self, heights: np.ndarray, around: tuple[slice, slice]) -> torch.Tensor:
        """Return the guesses (3, y, x) on a part: between levels of distance, pixel by pixel."""
        if heights.size == 1:
            return self.physics.channels([float(heights.flat[0])])[0][:, around[0], around[1]]
        step = self.domain.range_um / _LEVELS_PER_RANGE
        at = torch.from_numpy(heights / step).to(self.device)
        out: torch.Tensor | None = None
        for level in range(int(np.floor(heights.min() / step)), int(np.ceil(heights.max() / step)) + 1):
            share = (1 - (at - level).abs()).clamp(min=0)
            if not bool((share > 0).any()):
                continue
            made = self.physics.channels([level * step])[0][:, around[0], around[1]] * share
            out = made if out is None else out.add_(made)
        assert out is not None
        return out

    def stack(self, z_um: Sequence[float], region: Region | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return wide-field and confocal stacks (z, y, x)."""
        planes = [self.plane(float(z), region) for z in z_um]
        return np.stack([p.widefield for p in planes]), np.stack([p.confocal for p in planes])

    def consistency_z_um(self) -> np.ndarray:
        """Return the planes that `expected` needs: over the whole range, a tenth of it apart."""
        return np.linspace(-self.domain.range_um, self.domain.range_um, 21)

    def expected(self, confocal: np.ndarray, z_um: np.ndarray) -> np.ndarray:
        """Return the image that a confocal stack of the whole image would have given.

        Parameters
        ----------
        confocal : ndarray, shape (z, y, x)
            Grey values above the dark level, of evenly spaced planes over the range.
        z_um : ndarray, shape (z,)

        Returns
        -------
        ndarray, shape (y, x), float32
            Grey values above the dark level.
        """
        physics, optics = self.physics, self.domain.optics
        rows, columns = (
            mirrored(n, m, physics.margin) for n, m in zip(self.shape, physics.padded, strict=True)
        )
        total: torch.Tensor | None = None
        weight = float(z_um[1] - z_um[0]) / optics.depth_of_field_um
        for z, plane in zip(z_um, confocal, strict=True):
            line = reblur_planes(optics, self.domain.range_um, [float(z)], physics.padded, self.pixel_um)[0]
            wide = torch.from_numpy(np.ascontiguousarray(plane)).to(self.device)
            wide = wide[rows.to(self.device)][:, columns.to(self.device)]
            part = torch.fft.rfft2(wide) * line.to(self.device)
            total = part if total is None else total.add_(part)
        assert total is not None
        seen = torch.fft.irfft2(total * weight, physics.padded)
        m = physics.margin
        return np.asarray(seen[m : m + self.shape[0], m : m + self.shape[1]].cpu().numpy(), np.float32)
