"""The lenslet lattice on the sensor: where every lenslet centre is, in raw pixels."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict


def distortion_terms(points: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Return the terms of the distortion polynomial at raw positions (..., 2), shape (..., 7).

    ``yy, xy, xx, yyy, yyx, yxx, xxx`` with y and x from the middle of the frame in units of half its
    longer side; constant and linear terms are the lattice itself.
    """
    h, w = image_shape
    scale = max(h, w) / 2
    y, x = (points[..., 0] - (h - 1) / 2) / scale, (points[..., 1] - (w - 1) / 2) / scale
    return np.stack([y * y, x * y, x * x, y**3, y * y * x, y * x * x, x**3], -1)


class Lattice(BaseModel):
    """A calibrated lenslet lattice, frozen, JSON-ready.

    Lenslet ``(i, j)`` (row i, column j, from 0) has its centre at raw pixel
    ``origin_px + i * row_step_px + j * column_step_px`` (+ for hexagonal lattices, odd rows are
    shifted by half a ``column_step_px``), plus the distortion polynomial. All vectors are (y, x) in
    raw camera pixels; (0, 0) is the centre of the first pixel.

    For a hexagonal lattice ``row_step_px`` is perpendicular to ``column_step_px`` and sqrt(3)/2 as long.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["square", "hexagonal"] = "square"
    origin_px: tuple[float, float]
    row_step_px: tuple[float, float]
    column_step_px: tuple[float, float]
    rows: int
    columns: int
    image_shape: tuple[int, int]
    """Raw frame (height, width) that it was found on."""
    distortion: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Polynomial coefficients (y, x) in px over normalised position (see `distortion_px`); None: none."""
    residual_px: float = 0.0
    """rms distance between found and fitted centres."""
    confidence: float = 1.0
    """0 (do not trust) to 1."""
    source: Literal["white", "raw", "manual", "nominal"] = "white"
    warnings: tuple[str, ...] = ()
    """Plain sentences on why not to trust it fully."""

    @property
    def pitch_px(self) -> tuple[float, float]:
        """Lenslet pitch (y, x) in raw pixels; for hexagonal lattices both are the neighbour distance."""
        py, px = math.hypot(*self.row_step_px), math.hypot(*self.column_step_px)
        return (py * 2 / math.sqrt(3), px) if self.kind == "hexagonal" else (py, px)

    @property
    def rotation_deg(self) -> float:
        """Rotation of the column direction against the x axis, + from x towards y."""
        return math.degrees(math.atan2(self.column_step_px[0], self.column_step_px[1]))

    def centres_px(self) -> np.ndarray:
        """Return all lenslet centres, shape (rows, columns, 2), (y, x) in raw pixels."""
        i, j = np.mgrid[0 : self.rows, 0 : self.columns].astype(float)
        if self.kind == "hexagonal":
            j = j + 0.5 * (np.arange(self.rows)[:, None] % 2)
        out: np.ndarray = (
            np.asarray(self.origin_px)
            + i[..., None] * np.asarray(self.row_step_px)
            + j[..., None] * np.asarray(self.column_step_px)
        )
        out += self.distortion_px(out)
        return out

    def distortion_px(self, points: np.ndarray) -> np.ndarray:
        """Return the smooth displacement (y, x) in px at raw positions, shape (..., 2)."""
        if self.distortion is None:
            return np.zeros_like(points)
        terms = distortion_terms(points, self.image_shape)
        return np.stack([terms @ np.asarray(c) for c in self.distortion], -1)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict, with the reported figures beside the stored ones."""
        return {
            **self.model_dump(mode="json"),
            "pitch_px": list(self.pitch_px),
            "rotation_deg": self.rotation_deg,
            "lenslets": [self.rows, self.columns],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Lattice:
        """Read back what `to_json` wrote; unknown derived figures are ignored."""
        return cls.model_validate({k: v for k, v in record.items() if k in cls.model_fields})
