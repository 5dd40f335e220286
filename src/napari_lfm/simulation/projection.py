"""One finely sampled plane through the light-field microscope, for simulation.

The reconstruction's projector stores a matrix per lenslet frequency and is used hundreds of times; a
simulated plane is used once, with many more voxels per lenslet. So here the sensor images are
convolved directly, pixel by pixel over the cells, and nothing is stored. It is a second
implementation of the projection, which also serves to check the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.fft

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import torch

    from napari_lfm.optics.psf import CellOptics, LightfieldPsf


def margin_cells(optics: CellOptics, z_um: float) -> tuple[int, int]:
    """Return how many cells (y, x) beyond the frame a source at `z_um` still throws light into it."""
    return optics.half_width(z_um)


def project_plane(
    plane: npt.NDArray[np.floating],
    z_um: float,
    optics: CellOptics,
    voxels: tuple[int, int],
    *,
    nodes: int | None = None,
    device: str = "cpu",
) -> npt.NDArray[np.float64]:
    """Return the lenslet image of one plane of voxels, or of several specimens' planes at one depth.

    Parameters
    ----------
    plane : array, shape (..., (rows + 2 my) * sy, (columns + 2 mx) * sx)
        Light per voxel; (my, mx) from `margin_cells`. Several at once share the point spread function,
        which takes most of the time.
    z_um : float
        Depth.
    optics : CellOptics
    voxels : tuple of int
        Voxels (sy, sx) per cell.
    nodes : int, optional
        Quadrature nodes per axis inside a voxel. By default 2 where the light spreads over less than two
        lenslets, and there the image changes fastest with the position; further out 1 is enough
        for voxels of a ninth of a lenslet.
    device : str
        Torch device.

    Returns
    -------
    array, shape (..., rows * Ny, columns * Nx)
        Light per lenslet pixel.
    """
    import torch

    from napari_lfm.optics.channels import inverse
    from napari_lfm.optics.psf import LightfieldPsf

    margin = margin_cells(optics, z_um)
    size = plane.shape[-2:]
    cells = [n // s - 2 * m for n, s, m in zip(size, voxels, margin, strict=True)]
    if min(cells) < 1 or any(n % s for n, s in zip(size, voxels, strict=True)):
        raise RequestError(f"A plane of {size} voxels does not hold whole cells and their margin.")
    if nodes is None:
        nodes = 2 if max(margin) - 2 <= 2 else 1  # two of the margin's cells are a guard
    psf = LightfieldPsf(optics, voxels, nodes=nodes)
    images = torch.from_numpy(next(psf.planes([z_um]))).to(device)

    py, px = (scipy.fft.next_fast_len(n // s, real=True) for n, s in zip(size, voxels, strict=True))
    period = (max(py, px),) * 2 if any(op.transpose for op in psf.group) else (py, px)
    kernels = [_spectrum(image, optics.cell_px, period) for image in images]
    places = [divmod(rep, voxels[1]) for rep in psf.representatives]

    # All voxels that one symmetry operation carries from the computed images are projected in one go.
    owner = np.array([operation_index(psf, i) for i in range(psf.n_voxels)]).reshape(voxels)
    owners = np.tile(owner, [n // s for n, s in zip(size, voxels, strict=True)])
    flat = plane.reshape(-1, *size)
    out = np.zeros((len(flat), *(c * n for c, n in zip(cells, optics.cell_px, strict=True))))
    for one, into in zip(flat, out, strict=True):
        for k, op in enumerate(psf.group):
            light = inverse(op).on_image(np.where(owners == k, one, 0).astype(np.float32))
            if not light.any():
                continue
            total = torch.zeros_like(kernels[0])
            for (a, b), kernel in zip(places, kernels, strict=True):
                lit = torch.from_numpy(np.ascontiguousarray(light[a :: voxels[0], b :: voxels[1]])).to(device)
                total.addcmul_(kernel, torch.fft.rfft2(lit, s=period))
            my, mx = margin[::-1] if op.transpose else margin
            rows, columns = cells[::-1] if op.transpose else cells
            seen = torch.fft.irfft2(total, s=period)[..., my : my + rows, mx : mx + columns]
            image = seen.permute(2, 0, 3, 1).reshape(rows * seen.shape[0], columns * seen.shape[1])
            into += op.on_image(image.cpu().numpy())
    np.maximum(out, 0, out=out)  # FFT rounding leaves tiny negatives
    return out.reshape(*plane.shape[:-2], *out.shape[1:])


def operation_index(psf: LightfieldPsf, voxel: int) -> int:
    """Return which of the cell's symmetry operations carries a computed image to this voxel's."""
    return psf.group.index(psf.from_representative[voxel][1])


def _spectrum(image: torch.Tensor, cell_px: tuple[int, int], period: tuple[int, int]) -> torch.Tensor:
    """Return the spectra over cells of a sensor image, one for each of a cell's pixels.

    Shape (Ny, Nx, period y, period x // 2 + 1); the image's central cell is the origin.
    """
    import torch

    ny, nx = cell_px
    height, width = image.shape[0] // ny, image.shape[1] // nx
    # the frame and its margins are never smaller than the image
    grid = image.new_zeros((ny, nx, *period))
    grid[..., :height, :width] = image.reshape(height, ny, width, nx).permute(1, 3, 0, 2)
    out: torch.Tensor = torch.fft.rfft2(torch.roll(grid, (-(height // 2), -(width // 2)), (2, 3)))
    return out
