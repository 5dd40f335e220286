"""A small light-field microscope, and a second, slow way to do what the projector does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.optics.psf import CellOptics, LightfieldPsf

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.geometry import Geometry


@pytest.fixture(scope="session")
def make_optics() -> Callable[..., CellOptics]:
    """20x/0.45 in air with 100 um lenslets of 5 pixels; anything can be changed."""

    def make(lattice: str = "square", aperture: str = "square", n: int = 5, **changes: object) -> CellOptics:
        cell = (2 * int(np.sqrt(3) * n / 2) + 1, n) if lattice == "hexagonal" else (n, n)
        given: dict[str, object] = {
            "magnification": 20.0,
            "na": 0.45,
            "sample_index": 1.0,
            "wavelength_um": 0.55,
            "pitch_um": 100.0,
            "focal_length_um": 2200.0,
            "distance_um": 2200.0,
            "lattice": lattice,
            "aperture": aperture,
            "cell_px": cell,
        }
        return CellOptics(**{**given, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def brute_force() -> Callable[[Geometry, np.ndarray], np.ndarray]:
    """Project by adding every voxel's sensor image at its place: no FFT, no frequencies, no folding."""

    def project(g: Geometry, volume: np.ndarray) -> np.ndarray:
        """Volume channels in natural order (C, Ty, Tx) -> lenslet image (rows * Ny, columns * Nx)."""
        (ny, nx), (my, mx), (ty, tx) = g.optics.cell_px, g.margin, g.volume_cells
        hy, hx = g.half_width
        canvas = np.zeros(((ty + 2 * hy) * ny, (tx + 2 * hx) * nx))
        first = 0
        for plane in g.planes:
            psf = LightfieldPsf(g.optics, plane.voxels, max_half_width=g.half_width)
            images = next(psf.planes([plane.z_um]))
            for c in range(plane.channels):
                kind, move = psf.from_representative[c]
                image = move.on_image(images[kind]).astype(float)
                dy, dx = hy - image.shape[0] // ny // 2, hx - image.shape[1] // nx // 2
                for t in range(ty):
                    for s in range(tx):
                        y, x = (t + dy) * ny, (s + dx) * nx
                        canvas[y : y + image.shape[0], x : x + image.shape[1]] += (
                            volume[first + c, t, s] * image
                        )
            first += plane.channels
        top, left = (my + hy) * ny, (mx + hx) * nx
        return canvas[top : top + g.cells[0] * ny, left : left + g.cells[1] * nx]

    return project
