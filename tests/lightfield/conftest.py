"""Lenslet frames drawn with known centres: an independent, geometric model of a light-field camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Frame:
    """Describes a frame; `white` and `raw` draw it, `centre` knows the truth."""

    shape: tuple[int, int] = (300, 340)
    pitch: float = 15.4
    rotation_deg: float = 0.0
    offset: tuple[float, float] = (3.3, -2.1)
    kind: str = "square"
    bend_px: tuple[float, ...] = (0.0,) * 4  # yy and xxx terms of y, xx and yyy terms of x, at the edge
    fill: float = 0.47
    seed: int = 0
    photons: float = 2000.0
    dust: float = 0.0
    corner: float = 0.0

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column step (y, x)."""
        a = np.radians(self.rotation_deg)
        column = self.pitch * np.array([np.sin(a), np.cos(a)])
        row = self.pitch * np.array([np.cos(a), -np.sin(a)])
        return (row * np.sqrt(3) / 2 if self.kind == "hexagonal" else row), column

    def bend(self, points: np.ndarray) -> np.ndarray:
        """Smooth displacement at undistorted positions."""
        h, w = self.shape
        scale = max(h, w) / 2
        y, x = (points[..., 0] - (h - 1) / 2) / scale, (points[..., 1] - (w - 1) / 2) / scale
        b = self.bend_px
        return np.stack([b[0] * y * y + b[1] * x**3, b[2] * x * x + b[3] * y**3], -1)

    def centres(self) -> np.ndarray:
        """All true centres (n, 2) in and around the frame."""
        row, column = self.steps()
        reach = int(1.6 * max(self.shape) / self.pitch) + 4
        i, j = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
        if self.kind == "hexagonal":
            j = j + 0.5 * (i % 2)
        middle = (np.array(self.shape) - 1) / 2 + self.offset
        points = (middle + i[..., None] * row + j[..., None] * column).reshape(-1, 2)
        points = points + self.bend(points)
        margin = 2 * self.pitch
        keep = ((points > -margin) & (points < np.array(self.shape) + margin)).all(axis=1)
        return points[keep]

    def geometry(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centres, all pixels, each pixel's nearest centre, and its offset from that."""
        centres = self.centres()
        pixels = np.moveaxis(np.mgrid[0 : self.shape[0], 0 : self.shape[1]], 0, -1).reshape(-1, 2)
        _, nearest = cKDTree(centres).query(pixels)
        return centres, pixels, nearest, pixels - centres[nearest]

    def _discs(self, away: np.ndarray) -> np.ndarray:
        radius = np.hypot(*away.T)
        edge = max(0.5, 0.05 * self.pitch)
        rim = 1 / (1 + np.exp((radius - self.fill * self.pitch) / edge))
        return rim * (1 - 0.4 * (radius / (0.5 * self.pitch)) ** 2).clip(0.1)

    def _camera(self, light: np.ndarray, nearest: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(self.seed + 1)
        lens = np.ones(nearest.max() + 1)
        lens *= random.normal(1, 0.03, len(lens))
        lens[random.random(len(lens)) < self.dust] *= 0.15
        middle = (np.array(self.shape) - 1) / 2
        away = ((pixels - middle) ** 2).sum(axis=1) / (middle**2).sum()
        light = light * lens[nearest] * (1 - self.corner * away)
        counts = random.poisson(self.photons * light) / 2 + 100 + random.normal(0, 2, light.shape)
        return np.clip(counts, 0, 65535).astype(np.uint16).reshape(self.shape)

    def white(self) -> np.ndarray:
        """An evenly lit frame."""
        _, pixels, nearest, away = self.geometry()
        return self._camera(self._discs(away), nearest, pixels)

    def raw(self, haze: float = 0.1, blobs: int = 60) -> np.ndarray:
        """A specimen of blobs at many depths, each seen by every lenslet under its own slope."""
        centres, pixels, nearest, away = self.geometry()
        random = np.random.default_rng(self.seed)
        light = np.full(len(pixels), haze)
        for _ in range(blobs):
            place = random.uniform(0, self.shape)
            slope, width = random.uniform(-6, 6), random.uniform(0.6, 2.5) * self.pitch
            seen = centres[nearest] + slope * away - place
            light += random.uniform(0.2, 1.0) * np.exp(-(seen**2).sum(axis=1) / (2 * width**2))
        return self._camera(light * self._discs(away), nearest, pixels)

    def error(self, found: np.ndarray) -> np.ndarray:
        """Distance of every found centre (..., 2) from the nearest true one."""
        return np.asarray(cKDTree(self.centres()).query(found)[0])


@pytest.fixture
def frame_of() -> type[Frame]:
    """Make a `Frame`."""
    return Frame
