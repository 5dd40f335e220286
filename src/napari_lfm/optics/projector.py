"""The lenslet projector: voxels to pixels as one small matrix per lenslet frequency.

Gather the voxels under lenslet (t, s) into a vector x[t, s] and its pixels into y[t, s]. The optics
repeat from lenslet to lenslet, so ``y[t, s] = sum H[dt, ds] x[t - dt, s - ds]``: a matrix-valued
convolution on the lenslet grid, diagonal under a 2-D FFT over (t, s). The matrices are folded by the
cell's symmetries (`napari_lfm.optics.fold`), which makes them real and about eight times fewer.

Channel layout: voxels are (frames, channels, Ty, Tx), pixels (frames, Ny * Nx, rows, columns), both in
the paired order of `napari_lfm.optics.channels`; `forward` and `adjoint` take plain images.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.optics import cache
from napari_lfm.optics.channels import ChannelTables, inverse, mix, wrap
from napari_lfm.optics.fold import FrequencyFold, act_on_frequency, fold_frequencies, half_plane_index
from napari_lfm.optics.geometry import Geometry, Plane, Storage
from napari_lfm.optics.psf import LightfieldPsf
from napari_lfm.optics.symmetry import HALF_TURN

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Geometry", "LensletProjector", "Plane", "Storage"]

FRAMES_AT_ONCE = 8


class LensletProjector:
    """Forward and adjoint of the light-field microscope, differentiable.

    Make one with `LensletProjector.build`, or step by step with `build_steps`.
    """

    def __init__(
        self,
        geometry: Geometry,
        device: torch.device | str = "cpu",
        storage: Storage = "float32",
        streamed: bool = False,
    ) -> None:
        self.geometry = geometry
        self.device = torch.device(device)
        self.storage: Storage = storage
        self.streamed = streamed
        self.fold: FrequencyFold = fold_frequencies(geometry.group, geometry.period)
        self.real = HALF_TURN in geometry.group
        self.matrix: torch.Tensor | None = None
        self.blocks: list[torch.Tensor] = []
        self._psf_planes: list[np.ndarray] = []
        voxels = [p.voxels for p in geometry.planes]
        self.pixel_tables = ChannelTables(self.fold, [geometry.optics.cell_px], self.real, self.device)
        self.voxel_tables = ChannelTables(self.fold, voxels, self.real, self.device)

    # -- building ---------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        geometry: Geometry,
        device: torch.device | str = "cpu",
        storage: Storage = "float32",
        streamed: bool = False,
        use_cache: bool = True,
    ) -> LensletProjector:
        """Compute (or load from the disk cache) the operator at once."""
        projector = cls(geometry, device, storage, streamed)
        for _ in projector.build_steps(use_cache):
            pass
        return projector

    def build_steps(self, use_cache: bool = True) -> Iterator[tuple[int, int]]:
        """Build plane by plane, yielding (planes done, planes in all) so that it can be cancelled."""
        g = self.geometry
        total = len(g.planes)
        key = f"operator-{g.key()}"
        if use_cache and self.real and not self.streamed:
            found = cached_operator(g)
            if found is not None:
                self.matrix = torch.from_numpy(np.array(found)).to(self.device, self._dtype)
                yield total, total
                return
        matrix = None
        if not self.streamed:
            shape = (len(self.fold.fundamental), g.pixel_channels, g.voxel_channels)
            matrix = torch.empty(shape, dtype=self._dtype, device=self.device)
        start = 0
        for index, images in enumerate(self._images(use_cache)):
            plane = g.planes[index]
            if matrix is None:
                self._psf_planes.append(images)
            else:
                place = torch.from_numpy(self.voxel_tables.place[start : start + plane.channels])
                matrix[..., place.to(self.device)] = self._block(plane, images).to(self._dtype)
            start += plane.channels
            yield index + 1, total
        if matrix is not None:
            self.matrix = matrix
            if use_cache and self.real and self.storage == "float32":
                cache.store(key, self.matrix.cpu().numpy())

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.storage) if self.real else torch.complex64
        return dtype

    def _images(self, use_cache: bool) -> Iterator[np.ndarray]:
        """Yield the point spread function's representative images, plane by plane, through the cache."""
        g = self.geometry
        found = [self._cached_images(p) if use_cache else None for p in g.planes]
        todo: dict[tuple[int, int], Iterator[np.ndarray]] = {}
        for voxels in {p.voxels for p, f in zip(g.planes, found, strict=True) if f is None}:
            depths = [
                p.z_um for p, f in zip(g.planes, found, strict=True) if f is None and p.voxels == voxels
            ]
            todo[voxels] = self._psf(voxels).planes(depths)
        for plane, images in zip(g.planes, found, strict=True):
            if images is None:
                fresh = next(todo[plane.voxels])
                if use_cache:
                    cache.store(self._psf_key(plane), fresh)
                yield fresh
            else:
                yield np.array(images)

    def _cached_images(self, plane: Plane) -> np.ndarray | None:
        psf, found = self._psf(plane.voxels), cache.load(self._psf_key(plane))
        size = zip(psf.half_width(plane.z_um), self.geometry.optics.cell_px, strict=True)
        wanted = (len(psf.representatives), *((2 * h + 1) * n for h, n in size))
        return found if found is not None and found.shape == wanted else None

    def _psf(self, voxels: tuple[int, int]) -> LightfieldPsf:
        return LightfieldPsf(self.geometry.optics, voxels, max_half_width=self.geometry.half_width)

    def _psf_key(self, plane: Plane) -> str:
        width = self._psf(plane.voxels).half_width(plane.z_um)
        text = json.dumps([self.geometry.optics.key(), round(plane.z_um, 6), plane.voxels, width])
        return f"psf-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def _block(self, plane: Plane, images: np.ndarray) -> torch.Tensor:
        """Return one plane's matrices, (F, pixels, channels); real and in the parity basis if folded."""
        g = self.geometry
        (py, px), (ny, nx) = g.period, g.optics.cell_px
        full = LightfieldPsf(g.optics, plane.voxels)
        psf = LightfieldPsf(g.optics, plane.voxels)
        psf.group = tuple(op for op in psf.group if op in g.group)
        if len(psf.group) != len(full.group):
            images = _expand(images, full, psf)
        hy, hx = (n // (2 * m) for n, m in zip(images.shape[1:], (ny, nx), strict=True))
        cells = torch.from_numpy(images).reshape(len(images), 2 * hy + 1, ny, 2 * hx + 1, nx)
        cells = cells.permute(0, 2, 4, 1, 3).reshape(len(images), ny * nx, 2 * hy + 1, 2 * hx + 1)
        grid = wrap(cells.to(self.device), (py, px), (hy, hx))
        spectra = torch.fft.rfft2(grid).flatten(-2)  # (representatives, pixels, half-plane)
        columns = []
        for k, op in psf.from_representative:
            back = inverse(op)
            f = act_on_frequency(back, self.fold.fundamental, (py, px))
            flat, conj = half_plane_index(f, (py, px))
            values = spectra[k][:, torch.from_numpy(flat).to(self.device)]
            mask = torch.from_numpy(conj).to(self.device)
            values = torch.where(mask, values.conj(), values)
            order = torch.from_numpy(back.on_index((ny, nx))).to(self.device)
            columns.append(values[order])  # row v holds what the representative has at inverse(v)
        block = torch.stack(columns, -1).permute(1, 0, 2)  # (F, pixels, channels)
        if not self.real:
            return block
        both = mix(mix(block, 1), 2)
        e, o = (ny * nx + 1) // 2, (plane.channels + 1) // 2
        out = both.real.clone()
        out[:, :e, o:] = both.imag[:, :e, o:]
        out[:, e:, :o] = -both.imag[:, e:, :o]
        return out

    # -- applying ---------------------------------------------------------------------------

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Predict pixels.

        Parameters
        ----------
        x : tensor, shape (frames, voxel channels, Ty, Tx)

        Returns
        -------
        tensor, shape (frames, pixel channels, rows, columns)
        """
        return self._apply(x, self.voxel_tables, self.pixel_tables, self.geometry.margin, adjoint=False)

    def backproject(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `project`; shapes the other way round."""
        return self._apply(y, self.pixel_tables, self.voxel_tables, self.geometry.margin, adjoint=True)

    def _apply(
        self,
        data: torch.Tensor,
        source: ChannelTables,
        target: ChannelTables,
        margin: tuple[int, int],
        adjoint: bool,
    ) -> torch.Tensor:
        g = self.geometry
        period, (ty, tx) = g.period, (g.volume_cells if adjoint else g.cells)
        # the sensor sits `margin` cells inside the volume: shift by rolling the output's window
        out = data.new_empty(len(data), target.channels, ty, tx)
        for start in range(0, len(data), FRAMES_AT_ONCE):
            frames = data[start : start + FRAMES_AT_ONCE]
            columns = data.new_empty(source.f_count, len(frames), source.n_cosets, 2, source.channels)
            for b, frame in enumerate(frames):
                placed = torch.nn.functional.pad(frame, (margin[1], 0, margin[0], 0)) if adjoint else frame
                spectrum = torch.fft.rfft2(source.to_parity(placed), s=period)
                source.gather(spectrum.reshape(source.channels, -1), columns[:, b])
            product = self._multiply(columns.reshape(source.f_count, -1, source.channels), adjoint)
            product = product.reshape(source.f_count, len(frames), source.n_cosets, 2, target.channels)
            for b in range(len(frames)):
                values = target.scatter(product, b, len(frames)).reshape(target.channels, period[0], -1)
                # one axis after the other: rows that are cut off need no second transform
                first = torch.fft.ifft(values, dim=-2)
                lines = first[:, :ty] if adjoint else first[:, margin[0] : margin[0] + ty]
                image = torch.fft.irfft(lines, n=period[1], dim=-1)
                image = image[..., :tx] if adjoint else image[..., margin[1] : margin[1] + tx]
                out[start + b] = target.from_parity(image)
        return out

    def _multiply(self, columns: torch.Tensor, adjoint: bool) -> torch.Tensor:
        """Rows of channels times every frequency's matrix, (F, n, C) -> (F, n, C')."""
        if not self.real:
            pairs = columns.reshape(len(columns), -1, 2, columns.shape[-1])
            rows = torch.complex(pairs[:, :, 0], pairs[:, :, 1])
            done = self._rows_times_matrix(rows, adjoint)
            return torch.stack([done.real, done.imag], 2)
        return self._rows_times_matrix(columns, adjoint)

    def _rows_times_matrix(self, rows: torch.Tensor, adjoint: bool) -> torch.Tensor:
        if self.matrix is None:
            return self._streamed_rows(rows, adjoint)
        matrix = self.matrix
        if matrix.dtype == rows.dtype:
            return torch.bmm(rows, _turn(matrix, adjoint))
        if matrix.device.type == "cpu":
            # CPUs multiply half matrices slowly: widen a few at a time, while they are in the cache
            step = max(1, (1 << 20) // matrix[0].numel())
            return torch.cat(
                [
                    torch.bmm(rows[k : k + step], _turn(matrix[k : k + step].to(rows.dtype), adjoint))
                    for k in range(0, len(matrix), step)
                ]
            )
        # sums over a large bright frame leave the range of half numbers
        size = rows.abs().amax().clamp(min=1e-30)
        return torch.bmm((rows / size).to(matrix.dtype), _turn(matrix, adjoint)).to(rows.dtype) * size

    def _streamed_rows(self, rows: torch.Tensor, adjoint: bool) -> torch.Tensor:
        """Rebuild each plane's matrices when they are needed; slow, but one plane's memory is enough."""
        out: torch.Tensor | None = None
        start = 0
        for plane, images in zip(self.geometry.planes, self._psf_planes, strict=True):
            place = torch.from_numpy(self.voxel_tables.place[start : start + plane.channels]).to(self.device)
            block = self._block(plane, images).to(rows.dtype)
            if adjoint:
                if out is None:
                    out = rows.new_empty(*rows.shape[:2], self.geometry.voxel_channels)
                out[..., place] = torch.bmm(rows, _turn(block, True))
            else:
                part = torch.bmm(rows[..., place], _turn(block, False))
                out = part if out is None else out.add_(part)
            start += plane.channels
        assert out is not None
        return out

    # -- images -----------------------------------------------------------------------------

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Predict lenslet images from volumes; differentiable.

        Parameters
        ----------
        volume : tensor, shape (frames, planes, Ty * sy, Tx * sx)
            All planes sampled alike, on the enlarged field.

        Returns
        -------
        tensor, shape (frames, rows * Ny, columns * Nx)
        """
        pixels: torch.Tensor = _Product.apply(self.volume_to_channels(volume), self, False)  # type: ignore[no-untyped-call]
        return self.channels_to_image(pixels)

    def adjoint(self, image: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `forward`, differentiable too; shapes the other way round."""
        voxels: torch.Tensor = _Product.apply(self.image_to_channels(image), self, True)  # type: ignore[no-untyped-call]
        return self.channels_to_volume(voxels)

    def image_to_channels(self, image: torch.Tensor) -> torch.Tensor:
        """(frames, rows * Ny, columns * Nx) -> (frames, Ny * Nx, rows, columns), stored order."""
        (ny, nx), b = self.geometry.optics.cell_px, image.shape[0]
        rows, columns = image.shape[1] // ny, image.shape[2] // nx
        cells = image.reshape(b, rows, ny, columns, nx).permute(0, 2, 4, 1, 3)
        return cells.reshape(b, ny * nx, rows, columns)[:, self._order(self.pixel_tables)]

    def channels_to_image(self, channels: torch.Tensor) -> torch.Tensor:
        """Invert `image_to_channels`."""
        (ny, nx), (b, _, rows, columns) = self.geometry.optics.cell_px, channels.shape
        natural = channels[:, self._order(self.pixel_tables, back=True)].reshape(b, ny, nx, rows, columns)
        return natural.permute(0, 3, 1, 4, 2).reshape(b, rows * ny, columns * nx)

    def volume_to_channels(self, volume: torch.Tensor) -> torch.Tensor:
        """(frames, planes, Ty * sy, Tx * sx) -> (frames, channels, Ty, Tx), stored order.

        All planes must be sampled alike.
        """
        (sy, sx), (b, nz) = self.geometry.planes[0].voxels, volume.shape[:2]
        ty, tx = volume.shape[2] // sy, volume.shape[3] // sx
        cells = volume.reshape(b, nz, ty, sy, tx, sx).permute(0, 1, 3, 5, 2, 4)
        return cells.reshape(b, nz * sy * sx, ty, tx)[:, self._order(self.voxel_tables)]

    def channels_to_volume(self, channels: torch.Tensor, planes: slice = slice(None)) -> torch.Tensor:
        """Return a run of equally sampled planes (default all), (frames, planes, Ty * sy, Tx * sx)."""
        every = self.geometry.planes
        chosen = range(len(every))[planes]
        start = sum(p.channels for p in every[: chosen[0]])
        sy, sx = every[chosen[0]].voxels
        order = self._order(self.voxel_tables, back=True)[start : start + len(chosen) * sy * sx]
        part = channels[:, order]
        b, _, ty, tx = part.shape
        cells = part.reshape(b, len(chosen), sy, sx, ty, tx).permute(0, 1, 4, 2, 5, 3)
        return cells.reshape(b, len(chosen), ty * sy, tx * sx)

    def stored_channels(self, planes: int) -> torch.Tensor:
        """Return the stored channels of the first `planes` planes, in natural order."""
        count = sum(p.channels for p in self.geometry.planes[:planes])
        return self._order(self.voxel_tables, back=True)[:count]

    def _order(self, tables: ChannelTables, back: bool = False) -> torch.Tensor:
        return tables.to_natural if back else tables.to_stored


def cached_operator(geometry: Geometry) -> np.ndarray | None:
    """Return the folded matrices that the disk cache holds for a geometry, None where it has none."""
    found = cache.load(f"operator-{geometry.key()}")
    shape = (geometry.frequencies, geometry.pixel_channels, geometry.voxel_channels)
    return found if found is not None and found.shape == shape else None


class _Product(torch.autograd.Function):
    """Projection or back-projection; each is the other's gradient, so that all orders exist."""

    @staticmethod
    def forward(ctx: Any, data: torch.Tensor, projector: LensletProjector, adjoint: bool) -> torch.Tensor:
        ctx.projector, ctx.adjoint = projector, adjoint
        return projector.backproject(data) if adjoint else projector.project(data)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        back: torch.Tensor = _Product.apply(grads[0], ctx.projector, not ctx.adjoint)  # type: ignore[no-untyped-call]
        return back, None, None


def _turn(matrix: torch.Tensor, adjoint: bool) -> torch.Tensor:
    # row vectors times the transpose: on CPUs several times faster than matrix times a few columns
    return matrix.conj() if adjoint else matrix.mT


def _expand(images: np.ndarray, full: LightfieldPsf, wanted: LightfieldPsf) -> np.ndarray:
    """Make the images that a smaller symmetry group needs from those of the full group."""
    return np.stack(
        [full.from_representative[i][1].on_image(images[full.from_representative[i][0]])
         for i in wanted.representatives]
    )  # fmt: skip
