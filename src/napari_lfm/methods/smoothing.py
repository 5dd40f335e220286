"""Depth-dependent anti-aliasing of light-field volumes: no lenslet blocks near the native plane.

References
----------
Stefanoiu et al., Opt. Express 27, 31644 (2019): depth-dependent filter against aliasing.
Snyder & Miller, IEEE Trans. Nucl. Sci. 32, 3864 (1985): the method of sieves.
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
    """Return the lateral distance that lenslets cannot sample at a depth, in object-space micrometres.

    At the native plane each lenslet gives one sample, so the distance is the lenslet pitch p. Within
    ``n p^2 / (2 lambda)`` (Broxton et al. 2013, section 3: where a point starts to be seen through
    several lenslets) it is taken to fall linearly to nothing.
    """
    pitch = optics.pitch_um / optics.magnification
    reach = optics.sample_index * pitch**2 / (2 * optics.wavelength_um)
    return pitch * max(0.0, 1 - abs(z_um) / reach)


class Smoother:
    """Depth-dependent low-pass: a raised cosine whose first zero is the sampling gap's frequency.

    It is used as a sieve: the volume is the smoothed version of what is iterated on, and its adjoint
    (the same symmetric kernel, with nothing beyond the edge) acts on the back-projection. Smoothing
    the estimate after every iteration instead, as estimate-maximise-smooth does, adds up: after 15
    iterations the plane z = 0 was a blur and its neighbours showed the blocks.

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
                torch.nn.functional.pad(part, pad),
                weights.reshape(shape),
                groups=len(self.planes),
            )
        out = volume.clone()
        out[:, self.planes] = part
        return put_fine(self.projector, x, out, self.n_fine)
