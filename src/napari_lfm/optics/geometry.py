"""Sizes of a lenslet projector, and what it will cost, before anything is computed."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.fft

from napari_lfm.optics.psf import CellOptics, LightfieldPsf
from napari_lfm.optics.symmetry import HALF_TURN, IDENTITY, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

Storage = Literal["float32", "float16", "bfloat16"]
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Plane:
    """One depth of the volume: its z and its voxels (sy, sx) per cell."""

    z_um: float
    voxels: tuple[int, int]

    @property
    def channels(self) -> int:
        """Voxels of this plane under one cell."""
        return self.voxels[0] * self.voxels[1]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a projector, and what it will cost, before anything is computed.

    Parameters
    ----------
    optics : CellOptics
    planes : tuple of Plane
    cells : tuple of int
        Observed cells (rows, columns).
    margin : tuple of int
        Unobserved cells on each side that may hold light all the same.
    half_width : tuple of int
        Largest half width (y, x) of the point spread function, in cells.
    """

    optics: CellOptics
    planes: tuple[Plane, ...]
    cells: tuple[int, int]
    margin: tuple[int, int]
    half_width: tuple[int, int]
    symmetric: bool = True

    @classmethod
    def plan(
        cls,
        optics: CellOptics,
        planes: Sequence[Plane],
        cells: tuple[int, int],
        margin: tuple[int, int] | None = None,
        max_half_width: tuple[int, int] | None = None,
        symmetric: bool = True,
    ) -> Geometry:
        """Choose half width and margin: the margin is the half width unless given."""
        widths = np.array([optics.half_width(p.z_um) for p in planes])
        half = tuple(int(v) for v in widths.max(0))
        if max_half_width is not None:
            half = (min(half[0], max_half_width[0]), min(half[1], max_half_width[1]))
        margin = half if margin is None else margin  # type: ignore[assignment]
        return cls(optics, tuple(planes), cells, margin, half, symmetric)  # type: ignore[arg-type]

    @property
    def volume_cells(self) -> tuple[int, int]:
        """Cells (Ty, Tx) of the enlarged volume."""
        return self.cells[0] + 2 * self.margin[0], self.cells[1] + 2 * self.margin[1]

    @property
    def group(self) -> tuple[Operation, ...]:
        """Symmetries shared by the optics, the planes and the FFT grid."""
        if not self.symmetric:
            return (IDENTITY,)
        square = all(p.voxels[0] == p.voxels[1] for p in self.planes) and self._square_period_pays
        return tuple(g for g in self.optics.group if square or not g.transpose)

    @property
    def _needed(self) -> tuple[int, int]:
        # a source at the far margin must not wrap round into the observed cells, and all must have room
        return tuple(  # type: ignore[return-value]
            n + m + max(m, h) for n, m, h in zip(self.cells, self.margin, self.half_width, strict=True)
        )

    @property
    def _square_period_pays(self) -> bool:
        y, x = self._needed
        return max(y, x) ** 2 <= 2 * y * x

    @property
    def period(self) -> tuple[int, int]:
        """FFT size (y, x) in cells."""
        y, x = (scipy.fft.next_fast_len(n, real=True) for n in self._needed)
        return (max(y, x), max(y, x)) if any(g.transpose for g in self.group) else (y, x)

    @property
    def voxel_channels(self) -> int:
        """Voxels under one cell, all planes."""
        return sum(p.channels for p in self.planes)

    @property
    def pixel_channels(self) -> int:
        """Pixels of one cell."""
        return self.optics.cell_px[0] * self.optics.cell_px[1]

    @property
    def frequencies(self) -> int:
        """Matrices that must be stored."""
        py, px = self.period
        if HALF_TURN not in self.group:
            return py * (px // 2 + 1)
        if any(g.transpose for g in self.group):
            half = py // 2 + 1
            return half * (half + 1) // 2
        return (py // 2 + 1) * (px // 2 + 1)

    def matrix_bytes(self, storage: Storage = "float32") -> int:
        """Size of the stored operator."""
        item = _BYTES[storage] if HALF_TURN in self.group else 8
        return self.frequencies * self.pixel_channels * self.voxel_channels * item

    def plane_bytes(self) -> int:
        """Working memory that building or streaming one plane takes at most."""
        py, px = self.period
        spectrum = py * (px // 2 + 1) * self.pixel_channels * 8
        reps = max(
            len(LightfieldPsf(self.optics, v).representatives) for v in {p.voxels for p in self.planes}
        )
        block = self.frequencies * self.pixel_channels * max(p.channels for p in self.planes) * 8
        os = self.optics.oversampling
        field = math.prod(
            (2 * h + 3) * n * os for h, n in zip(self.half_width, self.optics.cell_px, strict=True)
        )
        # measured on 33 x 33 pixels and 64 planes: three copies of the spectra, five of the matrices
        return max(3 * spectrum * reps + 5 * block, 8 * field * 14)

    def vector_bytes(self, frames: int = 1) -> int:
        """Working memory of one forward or adjoint product for `frames` frames."""
        py, px = self.period
        channels = self.voxel_channels + self.pixel_channels
        return frames * channels * py * px * 4 * 8

    def psf_seconds(self) -> float:
        """Return how long two processor cores take for the point spread functions (rates measured)."""
        sizes = zip(self.half_width, self.optics.cell_px, strict=True)
        field = math.prod((2 * h + 3) * n * self.optics.oversampling for h, n in sizes)
        return len(self.planes) * 2.4 * field * 6e-8

    def matrix_seconds(self) -> float:
        """Return how long they take to make the operator's matrices of them."""
        py, px = self.period
        matrix = self.frequencies * self.pixel_channels * self.voxel_channels
        return matrix * 3e-9 + len(self.planes) * self.pixel_channels * py * px * 18e-9

    def build_seconds(self) -> float:
        """Return how long both take, without a cache."""
        return self.psf_seconds() + self.matrix_seconds()

    def product_seconds(self) -> float:
        """Return how long they take to project one volume, or one frame back."""
        py, px = self.period
        matrix = self.frequencies * self.pixel_channels * self.voxel_channels
        return matrix * 6e-10 + (self.pixel_channels + self.voxel_channels) * py * px * 1.2e-8

    def key(self) -> str:
        """Return a hash of everything the operator depends on."""
        planes = [[round(p.z_um, 6), *p.voxels] for p in self.planes]
        text = json.dumps(
            [self.optics.key(), planes, self.period, self.half_width, len(self.group)], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:24]
