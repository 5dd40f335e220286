"""One image, ready to be refocused: a confocal stack made once, then one plane or surface after the other.

The network runs once for a part of the image. A confocal plane is then read off, and a wide-field one is
rendered with the known optics, which takes milliseconds: a slider is live. Of a large image only the part
that is asked for is worked on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus import PLANES
from napari_lfm.networks.refocus_explain import ROUNDS, explaining
from napari_lfm.networks.refocus_physics import RefocusPhysics, mirrored
from napari_lfm.networks.refocus_render import blurs, plane_z_um, rendered, stack_spectrum, unexplained
from napari_lfm.networks.stack_scale import StackLevels, stack_levels
from napari_lfm.training.config import uses_bfloat16

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from napari_lfm.methods.refocus.card import RefocusDomain
    from napari_lfm.training.config import Precision

Region = tuple[int, int, int, int]
BEYOND = 1.25
"""Up to how far beyond the trained range planes are rendered, over the range; further ones as at this."""
_CONTEXT_PX = 96
_TILE_PX = 1024
_LEVELS_PER_RANGE = 20
_KEPT_PX = 4_500_000
"""Pixels of the parts that are kept ready."""


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


@dataclass
class _Part:
    """A part of the image, with its surroundings, that the network has seen."""

    physics: RefocusPhysics
    roots: torch.Tensor
    inner: tuple[slice, slice]
    spectrum: torch.Tensor | None = None
    rest: torch.Tensor | None = None

    @property
    def pixels(self) -> int:
        return self.physics.size[0] * self.physics.size[1]


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
    precision : {"auto", "float32", "bfloat16"}
        Of the network's numbers; auto: bfloat16 where the hardware multiplies it.
    rounds : int
        Steps that make the network's stack explain the image better; see `explaining`.

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
        precision: Precision = "auto",
        rounds: int = ROUNDS,
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
        self.precision, self.rounds = precision, rounds
        self.bfloat16 = uses_bfloat16(precision, self.device)
        self.levels = levels or stack_levels(image, domain.low_percentile, domain.high_percentile)
        self.shape = (int(image.shape[0]), int(image.shape[1]))
        self.scaled = torch.from_numpy(self.levels.scaled(image)).to(self.device)
        self.planes = int(getattr(network, "planes", PLANES))  # the published network has none
        self._physics: RefocusPhysics | None = None
        self._parts: dict[Region, _Part] = {}

    @property
    def limit_um(self) -> float:
        """Largest distance that is rendered as it is."""
        return BEYOND * self.domain.range_um

    @property
    def physics(self) -> RefocusPhysics:
        """What defocus does to the whole image."""
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
                made = self._made(height_um, part)
                out[:, part[0] - y0 : part[2] - y0, part[1] - x0 : part[3] - x0] = made
        out *= np.float32(self.levels.span)
        heights = np.broadcast_to(height_um, self.shape)[y0:y1, x0:x1]
        return Refocused(out[0], out[1], np.abs(heights) > self.domain.range_um * (1 + 1e-6))

    def confocal(self, z_um: float, region: Region | None = None) -> np.ndarray:
        """Return the confocal plane alone at a distance, (y, x): without rendering the wide-field one."""
        y0, x0, y1, x1 = region or (0, 0, *self.shape)
        out = np.empty((y1 - y0, x1 - x0), np.float32)
        at = torch.full((1, 1), min(max(z_um, -self.limit_um), self.limit_um), device=self.device)
        for top in range(y0, y1, _TILE_PX):
            for left in range(x0, x1, _TILE_PX):
                part = (top, left, min(top + _TILE_PX, y1), min(left + _TILE_PX, x1))
                made = self._confocal(self._part(part), at).cpu().numpy()
                out[part[0] - y0 : part[2] - y0, part[1] - x0 : part[3] - x0] = made
        out *= np.float32(self.levels.span)
        return out

    def forget(self) -> None:
        """Let go of the memory of parts."""
        self._parts.clear()

    @torch.no_grad()
    def _made(self, height_um: np.ndarray, region: Region) -> np.ndarray:
        """Return both heads on a part, light over the image's scale, (2, y, x)."""
        part = self._part(region)
        y0, x0, y1, x1 = region
        heights = np.clip(height_um, -self.limit_um, self.limit_um).astype(np.float32)
        uniform = heights.size == 1
        if not uniform:
            heights = np.ascontiguousarray(heights[y0:y1, x0:x1])
        at = torch.from_numpy(heights).to(self.device)
        confocal = self._confocal(part, at)
        if uniform:
            wide = self._widefield(part, [float(heights.flat[0])])[0]
        else:
            wide = self._between_levels(part, heights, at)
        return np.asarray(torch.stack([wide.clamp(min=0), confocal]).cpu().numpy())

    def _confocal(self, part: _Part, heights: torch.Tensor) -> torch.Tensor:
        """Return the confocal head on heights (y, x) or (1, 1): between planes in square roots."""
        step = 2 * self.domain.range_um / (self.planes - 1)
        roots = part.roots[(slice(None), *part.inner)]
        place = (heights / step + self.planes // 2).clamp(0, self.planes - 1)
        low = place.floor().clamp(max=self.planes - 2).long()
        share = place - low
        if heights.numel() == 1:
            k = int(low)
            root = torch.lerp(roots[k].float(), roots[k + 1].float(), float(share))
        else:
            below, above = (torch.gather(roots, 0, (low + n)[None])[0].float() for n in (0, 1))
            root = below * (1 - share) + above * share
        return root.clamp(min=0) ** 2

    def _widefield(self, part: _Part, z_um: Sequence[float]) -> torch.Tensor:
        """Return rendered wide-field planes (n, y, x)."""
        if part.spectrum is None or part.rest is None:
            light = part.roots.float().clamp(min=0) ** 2
            part.spectrum = stack_spectrum(part.physics, light)
            part.rest = unexplained(part.physics, part.spectrum, blurs(part.physics, self.planes, [0.0]))
        made = [
            rendered(part.physics, part.spectrum, part.rest, blurs(part.physics, self.planes, [z]))[0]
            for z in z_um
        ]
        return torch.stack(made)[(slice(None), *part.inner)]

    def _between_levels(self, part: _Part, heights: np.ndarray, at: torch.Tensor) -> torch.Tensor:
        """Return the wide-field head on heights (y, x): rendered on levels, blended pixel by pixel."""
        step = self.domain.range_um / _LEVELS_PER_RANGE
        out = torch.zeros(heights.shape, device=self.device)
        for level in range(int(np.floor(heights.min() / step)), int(np.ceil(heights.max() / step)) + 1):
            share = (1 - (at / step - level).abs()).clamp(min=0)
            if bool((share > 0).any()):
                out += self._widefield(part, [level * step])[0] * share
        return out

    def _part(self, region: Region) -> _Part:
        """Return a part, with its surroundings, as the network sees it."""
        if region in self._parts:
            return self._parts[region]
        y0, x0, y1, x1 = region
        top, left = max(0, y0 - _CONTEXT_PX), max(0, x0 - _CONTEXT_PX)
        image = self.scaled[
            top : min(self.shape[0], y1 + _CONTEXT_PX), left : min(self.shape[1], x1 + _CONTEXT_PX)
        ]
        size = image.shape
        multiple = int(self.network.multiple)  # type: ignore[arg-type]
        index = [mirrored(n, -(-n // multiple) * multiple, 0).to(self.device) for n in size]
        image = image[index[0]][:, index[1]]
        physics = RefocusPhysics(self.domain.optics, self.pixel_um, self.domain.range_um, image)
        condition = physics.conditions(self.planes)
        with torch.no_grad():
            sweep = physics.sweep(self.planes) if self.network.sweep else None
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                roots = self.network(image, condition, sweep)[0]
            light = explaining(physics, roots.float().clamp(min=0) ** 2, self.rounds)
            roots = light.sqrt()
        inner = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        # half the memory; square roots up to some tens lose nothing that is seen
        made = _Part(physics, roots.half() if self.device.type == "cpu" else roots, inner)
        while self._parts and sum(p.pixels for p in self._parts.values()) + made.pixels > _KEPT_PX:
            self._parts.pop(next(iter(self._parts)))
        self._parts[region] = made
        return made

    def stack(self, z_um: Sequence[float], region: Region | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return wide-field and confocal stacks (z, y, x)."""
        planes = [self.plane(float(z), region) for z in z_um]
        return np.stack([p.widefield for p in planes]), np.stack([p.confocal for p in planes])

    def consistency_z_um(self) -> np.ndarray:
        """Return the planes that `expected` needs: all of the network's."""
        return plane_z_um(self.planes, self.domain.range_um)

    @torch.no_grad()
    def expected(self, confocal: np.ndarray, z_um: np.ndarray) -> np.ndarray:
        """Return the image that a confocal stack of the whole image would have given.

        Parameters
        ----------
        confocal : ndarray, shape (z, y, x)
            Grey values above the dark level, of evenly spaced planes over the range.
        z_um : ndarray, shape (z,)
            From minus to plus the same distance.

        Returns
        -------
        ndarray, shape (y, x), float32
            Grey values above the dark level.
        """
        physics = RefocusPhysics(self.domain.optics, self.pixel_um, float(z_um[-1]), self.scaled)
        light = torch.from_numpy(np.ascontiguousarray(confocal, np.float32)).to(self.device)
        own = blurs(physics, len(z_um), [0.0])
        seen = torch.fft.irfft2((stack_spectrum(physics, light) * own.planes[0]).sum(0), physics.padded)
        return np.asarray(physics.inner(seen).cpu().numpy(), np.float32)
