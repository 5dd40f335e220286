"""Depth-dependent anti-aliasing of light-field volumes: no lenslet blocks near the native plane.

References
----------
Stefanoiu et al., Opt. Express 27, 31644 (2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from napari_lfm.optics.projector import LensletProjector
    from napari_lfm.optics.psf import CellOptics


def put_fine(projector: LensletProjector, x: torch.Tensor, volume: torch.Tensor, n_fine: int) -> torch.Tensor:
    """Return channels `x` with the fine planes replaced by `volume`."""
    (sy, sx), (b, nz) = projector.geometry.planes[0].voxels, volume.shape[:2]
    ty, tx = volume.shape[2] // sy, volume.shape[3] // sx
    cells = volume.reshape(b, nz, ty, sy, tx, sx).permute(0, 1, 3, 5, 2, 4).reshape(b, -1, ty, tx)
    out = x.clone()
    out[:, projector.stored_channels(n_fine)] = cells
    return out


def sampling_gap_um(optics: CellOptics, z_um: float) -> float:
    """Return the largest gap between ray centres at a depth, in object-space micrometres.

    The pixels behind a lenslet see depth z along rays that cross the native plane at the lenslet's
    centre, at angle theta(pixel): they sample it at ``z tan(theta)``, repeated with the lenslet pitch.
    At z = 0 all coincide and the gap is the pitch (lenslet blocks); away from it they interleave.
    """
    n = optics.cell_px[1]
    pixel_um = optics.cell_um[1] / n
    offsets = (np.arange(n) - (n - 1) / 2) * pixel_um
    aperture = offsets / optics.distance_um * optics.magnification
    aperture = aperture[np.abs(aperture) <= optics.na]
    if len(aperture) == 0:
        aperture = np.zeros(1)
    shift = z_um * aperture / np.sqrt(optics.sample_index**2 - aperture**2)
    pitch = optics.pitch_um / optics.magnification
    places = np.sort(np.mod(shift, pitch))
    return float(np.max(np.diff(np.append(places, places[0] + pitch))))


class Smoother:
    """Depth-dependent low-pass: a raised cosine whose first zero is the sampling gap's frequency.

    Parameters
    ----------
    projector : LensletProjector
    n_fine : int
        The first `n_fine` planes are smoothed, each by its own kernel; guard planes are left alone.
    """

    def __init__(self, projector: LensletProjector, n_fine: int) -> None:
        g = projector.geometry
        self.projector, self.n_fine = projector, n_fine
        sy, sx = g.planes[0].voxels
        cell = [c / g.optics.magnification for c in g.optics.cell_um]
        gaps = [sampling_gap_um(g.optics, p.z_um) for p in g.planes[:n_fine]]
        self.kernels = []
        for size, s in zip(cell, (sy, sx), strict=True):
            voxel = size / s
            reach = max(0, math.ceil(max(gaps) / voxel) - 1)
            taps = np.arange(-reach, reach + 1) * voxel
            rows = [
                np.where(
                    np.abs(taps) < max(gap, voxel), 0.5 + 0.5 * np.cos(np.pi * taps / max(gap, voxel)), 0
                )
                for gap in gaps
            ]
            self.kernels.append(torch.from_numpy(np.stack([r / r.sum() for r in rows]).astype(np.float32)))
        self.active = any(float(k.max(1).values.min()) < 1 for k in self.kernels)
        # only the planes near the native one need it: the others keep their values untouched
        self.planes = [i for i in range(n_fine) if any(float(k[i].max()) < 1 for k in self.kernels)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Smooth volumes given as channels, shape (frames, voxel channels, Ty, Tx)."""
        if not self.active:
            return x
        volume = self.projector.channels_to_volume(x, slice(0, self.n_fine))
        part = volume[:, self.planes]
        for dim, kernel in zip((2, 3), self.kernels, strict=True):
            weights = kernel[self.planes].to(x)
            reach = weights.shape[1] // 2
            pad = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
            shape = (-1, 1, weights.shape[1], 1) if dim == 2 else (-1, 1, 1, weights.shape[1])
            part = torch.nn.functional.conv2d(
                torch.nn.functional.pad(part, pad, mode="replicate"),
                weights.reshape(shape),
                groups=len(self.planes),
            )
        out = volume.clone()
        out[:, self.planes] = part
        return put_fine(self.projector, x, out, self.n_fine)
