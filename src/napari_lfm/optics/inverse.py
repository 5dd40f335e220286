"""A linear inverse of the lenslet projector: the volume that explains a light field with the least light.

Per lenslet frequency the optics are one matrix A from voxels to pixels (`napari_lfm.optics.projector`).
The regularised least-squares volume (Tikhonov 1963; the Wiener filter for white specimens and white noise)

    x = (A^H A + a m D^-1)^-1 A^H y,    m = mean of the diagonal of A D A^H,

is one small matrix as well, made once from the optics. It takes one product, where a Richardson-Lucy
iteration takes two, and knows nothing of noise that grows with light or of volumes that are not
negative: a start for a network, not a result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.optics import cache
from napari_lfm.optics.guards import guard_thickness, guarded_planes, widest
from napari_lfm.optics.projector import Geometry, LensletProjector, Storage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_lfm.optics.psf import CellOptics

LARGE_BYTES = 256 << 20
"""Matrices that are larger than this are kept in half precision."""
VERSION = 1
"""Raise it when the inverse changes: networks want the one that they were trained with."""
_MATRICES_AT_ONCE = 32


@dataclass(frozen=True)
class InverseSettings:
    """What decides a linear inverse, apart from the optics and the size of the frame.

    Attributes
    ----------
    z_um : tuple of float
        Depths of the volume's planes.
    voxels : int
        Voxels across a lenslet.
    noise : tuple of float
        The regularisations a: the variance of the noise over that of the mean pixel. One volume for each.
    """

    z_um: tuple[float, ...]
    voxels: int
    noise: tuple[float, ...]

    @property
    def volumes(self) -> int:
        """Volumes that are made of one frame."""
        return len(self.noise)


def inverse_geometry(optics: CellOptics, settings: InverseSettings, cells: tuple[int, int]) -> Geometry:
    """Return the sizes of the projector that is inverted: the volume's planes, then the guard planes.

    The frame is surrounded by one half width of the point spread function on every side.
    """
    z, s = settings.z_um, settings.voxels
    half = widest(optics, z)
    wide = (cells[0] + half[0], cells[1] + half[1])
    return Geometry.plan(optics, guarded_planes(z, s), wide, margin=(0, 0), max_half_width=half)


def inverse_bytes(
    optics: CellOptics, settings: InverseSettings, cells: tuple[int, int], storage: Storage | None = None
) -> tuple[int, int]:
    """Return the memory that building the inverse takes at most, and what is held and used afterwards."""
    g = inverse_geometry(optics, settings, cells)
    kept = matrices_bytes(g, settings, storage or inverse_storage(g, settings))
    volumes = settings.volumes * len(settings.z_um) * settings.voxels**2
    one = 4 * (3 * g.voxel_channels**2 + g.pixel_channels * (3 * g.voxel_channels + volumes))
    # while it is applied: pixels and voxels in the plane of lenslets and of their frequencies, and tables
    py, px = g.period
    held = kept + (g.pixel_channels + volumes) * py * px * 4 * 8
    return g.matrix_bytes() + max(g.plane_bytes(), kept + _MATRICES_AT_ONCE * one), held


def inverse_seconds(
    optics: CellOptics, settings: InverseSettings, cells: tuple[int, int], use_cache: bool = True
) -> float:
    """Return how long two processor cores take to build the inverse; next to nothing where it is cached."""
    g = inverse_geometry(optics, settings, cells)
    if use_cache and cache.load(_key_of(g, settings, inverse_storage(g, settings))) is not None:
        return 0.3
    matrix = g.frequencies * g.pixel_channels * g.voxel_channels
    return g.build_seconds() + 4 * matrix * g.voxel_channels * len(settings.noise) / 5e10


def inverse_storage(geometry: Geometry, settings: InverseSettings) -> Storage:
    """Return how the matrices are best kept: in half precision where they are large."""
    return "float16" if matrices_bytes(geometry, settings, "float32") > LARGE_BYTES else "float32"


def matrices_bytes(geometry: Geometry, settings: InverseSettings, storage: Storage) -> int:
    """Return the size of the matrices of all volumes."""
    item = 4 if storage == "float32" else 2
    voxels = settings.volumes * len(settings.z_um) * settings.voxels**2
    return item * geometry.frequencies * geometry.pixel_channels * voxels


class LinearInverse:
    """Volumes from light fields in one linear step.

    Make one with `LinearInverse.build`, or step by step with `build_steps`.

    Parameters
    ----------
    optics : CellOptics
        Symmetric: without a pupil that is off its axis.
    settings : InverseSettings
    cells : tuple of int
        Lenslets (rows, columns) of the frames.
    device : torch.device or str
    storage : str, optional
        How the matrices are kept; default `inverse_storage`.
    """

    def __init__(
        self,
        optics: CellOptics,
        settings: InverseSettings,
        cells: tuple[int, int],
        device: torch.device | str = "cpu",
        storage: Storage | None = None,
    ) -> None:
        self.settings, self.cells = settings, cells
        self._full = LensletProjector(inverse_geometry(optics, settings, cells), device)
        if not self._full.real:
            raise ValueError("the optics have no half-turn symmetry")
        g = self._full.geometry
        # one operator gives the volumes of all regularisations, as if they were further planes
        planes = g.planes[: len(settings.z_um)] * len(settings.noise)
        kept = storage or inverse_storage(g, settings)
        self._shell = LensletProjector(replace(g, planes=planes), device, kept)

    @classmethod
    def build(
        cls,
        optics: CellOptics,
        settings: InverseSettings,
        cells: tuple[int, int],
        device: torch.device | str = "cpu",
        storage: Storage | None = None,
        use_cache: bool = True,
    ) -> LinearInverse:
        """Compute (or load from the disk cache) the matrices at once."""
        out = cls(optics, settings, cells, device, storage)
        for _ in out.build_steps(use_cache):
            pass
        return out

    @property
    def ready(self) -> bool:
        """Whether it has been built."""
        return self._shell.matrix is not None

    def build_steps(self, use_cache: bool = True) -> Iterator[tuple[int, int]]:
        """Build, yielding (steps done, steps in all) so that it can be cancelled."""
        g, shell = self._full.geometry, self._shell
        dtype: torch.dtype = getattr(torch, shell.storage)
        shape = (g.frequencies, g.pixel_channels, shell.geometry.voxel_channels)
        blocks = -(-g.frequencies // _MATRICES_AT_ONCE)
        total = len(g.planes) + blocks
        found = cache.load(self._key()) if use_cache else None
        if found is not None and found.shape == shape:
            shell.matrix = torch.from_numpy(np.array(found)).to(shell.device, dtype)
            yield total, total
            return
        for done, _ in self._full.build_steps(use_cache=False):
            yield done, total
        matrix = torch.empty(shape, dtype=dtype, device=shell.device)
        for number, (start, block) in enumerate(self._inverted(), 1):
            matrix[start : start + len(block)] = block.to(dtype)
            if number < blocks:
                yield len(g.planes) + number, total
        self._full.matrix = None
        shell.matrix = matrix
        if use_cache and dtype != torch.bfloat16:  # numpy has no such numbers
            cache.store(self._key(), matrix.cpu().numpy())
        yield total, total

    def _inverted(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (first frequency, matrices pixels x voxels of all volumes), some frequencies at a time."""
        full, shell = self._full, self._shell
        assert full.matrix is not None
        g, s = full.geometry, self.settings
        # the projector keeps the scale of its parity basis in the matrices: undo it, for the inverse's sake
        pixel = _parity_scale(full.pixel_tables.channels, full.pixel_tables.pairs)
        voxel = _parity_scale(full.voxel_tables.channels, full.voxel_tables.pairs)
        spread = torch.empty(g.voxel_channels)
        start = 0
        thick = guard_thickness(s.z_um, s.voxels)
        for index, plane in enumerate(g.planes):
            place = full.voxel_tables.place[start : start + plane.channels]
            spread[torch.from_numpy(place)] = 1.0 if index < len(s.z_um) else thick
            start += plane.channels
        pixel, voxel, spread = (v.to(full.device) for v in (pixel, voxel, spread))
        weight = torch.from_numpy(_orbit_sizes(full)).to(full.device)
        scale = pixel[:, None] * voxel
        squares = scale.square() * spread
        each = torch.stack([(one.square() * squares).sum() for one in full.matrix])  # no second copy of all
        power = (each * weight).sum() / (weight.sum() * len(pixel))
        fine = sum(p.channels for p in g.planes[: len(s.z_um)])
        theirs = torch.from_numpy(full.voxel_tables.place[:fine]).to(full.device)
        ours = torch.from_numpy(shell.voxel_tables.place).to(full.device).reshape(len(s.noise), fine)
        for first in range(0, len(full.matrix), _MATRICES_AT_ONCE):
            a = full.matrix[first : first + _MATRICES_AT_ONCE] * scale
            gram = a.mT @ a
            out = a.new_empty(len(a), len(pixel), shell.geometry.voxel_channels)
            for noise, place in zip(s.noise, ours, strict=True):
                normal = gram + torch.diag(noise * power / spread)
                solved = torch.cholesky_solve(a.mT, torch.linalg.cholesky(normal)).mT / scale
                out[..., place] = solved[..., theirs]
            yield first, out

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the volumes of lenslet images.

        Parameters
        ----------
        image : tensor, shape (frames, rows * N, columns * N)
            Beyond the frame the light goes on like that at its edge.

        Returns
        -------
        tensor, shape (frames, volumes * planes, rows * s, columns * s)
            Light per voxel in the units of `image`; negative values are kept. Always computed in float32,
            and without gradients.

        Raises
        ------
        ValueError
            If the frames have other lenslets than the inverse was built for.
        """
        if not self.ready:
            raise RuntimeError("the inverse has not been built")
        ny, nx = self._shell.geometry.optics.cell_px
        if tuple(image.shape[1:]) != (self.cells[0] * ny, self.cells[1] * nx):
            raise ValueError(f"frames of shape {tuple(image.shape[1:])} do not hold {self.cells} lenslets")
        with torch.no_grad(), torch.autocast(self._shell.device.type, enabled=False):
            return self._volumes(image)

    def steps(self, image: torch.Tensor) -> Generator[tuple[int, int], None, torch.Tensor]:
        """Return the same, as what takes its time does (`napari_lfm.optics.iterated`): in one step."""
        volumes = self(image)
        yield 1, 1
        return volumes

    def _volumes(self, image: torch.Tensor) -> torch.Tensor:
        shell, s = self._shell, self.settings.voxels
        (rows, columns), (hy, hx) = self.cells, shell.geometry.half_width
        py, px = shell.geometry.period
        pixels = shell.image_to_channels(image.to(shell.device, torch.float32))
        # all of the transform's period is filled: a dark surrounding would be a sharp edge
        around = (hx, px - columns - hx, hy, py - rows - hy)
        voxels = shell.backproject(functional.pad(pixels, around, mode="replicate"))
        volume = shell.channels_to_volume(voxels)
        return volume[..., hy * s : (hy + rows) * s, hx * s : (hx + columns) * s]

    def _key(self) -> str:
        return _key_of(self._full.geometry, self.settings, self._shell.storage)


def _key_of(geometry: Geometry, settings: InverseSettings, storage: Storage) -> str:
    text = f"{geometry.key()} {settings} {storage} {VERSION}"
    return f"inverse-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _parity_scale(channels: int, pairs: int) -> torch.Tensor:
    """Return what sums and differences of pairs are over their orthonormal form; 1 where there is no pair."""
    out = torch.full((channels,), 2**0.5)
    out[pairs : channels - pairs] = 1
    return out


def _orbit_sizes(projector: LensletProjector) -> np.ndarray:
    """Return how many frequencies every matrix serves; the mean over them is that over all pixels."""
    fold, (py, px) = projector.fold, projector.geometry.period
    width = px // 2 + 1
    twice = np.full((py, width), 2.0)  # for the half of the plane that is not stored
    twice[:, 0] = 1
    if px % 2 == 0:
        twice[:, -1] = 1
    matrices = fold.slot // len(fold.cosets)
    return np.bincount(matrices, twice.ravel(), len(fold.fundamental)).astype(np.float32)
