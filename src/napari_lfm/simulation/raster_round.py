"""Coverage of balls (many at once), ellipsoids and haze, on the CPU or a GPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_lfm.simulation.raster_capsules import box_axes, box_batches, flat_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.simulation.shapes import Ball
    from napari_lfm.simulation.soft_shapes import Ellipsoid, Haze, Waves

Array = npt.NDArray[np.float64]


def add_balls(out: torch.Tensor, balls: Sequence[Ball], origin_um: Array, voxel_um: Array) -> None:
    """Add small balls and shells: chords exact along z, midpoint rule across."""
    centre = np.array([b.centre_um for b in balls], float).reshape(-1, 3)
    radius, inner = np.array([b.radius_um for b in balls]), np.array([b.inner_um for b in balls])
    level = np.array([b.brightness for b in balls])
    reach = radius[:, None] + voxel_um / 2
    low, high = (centre - reach - origin_um) / voxel_um, (centre + reach - origin_um) / voxel_um
    seen = ((high > 0) & (low < np.asarray(out.shape) - 1)).all(1)
    pick = np.flatnonzero(seen)
    for some, start, size in box_batches(low[pick], high[pick], tuple(out.shape)):
        k = pick[some]
        share = _ball_shares(box_axes(start, size, centre[k], origin_um, voxel_um), radius[k], inner[k],
                             voxel_um, out)  # fmt: skip
        light = share * torch.as_tensor(level[k], dtype=out.dtype, device=out.device)[:, None, None, None]
        out.view(-1).index_add_(0, flat_indices(start, size, out), light.reshape(-1))


def _ball_shares(
    axes: list[Array], radius: Array, inner: Array, voxel_um: Array, like: torch.Tensor
) -> torch.Tensor:
    z, y, x = (torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in axes)
    wall = float((radius - inner).min())
    counts = [int(np.clip(math.ceil(4 * h / wall), 4, 10)) for h in voxel_um[1:]]
    low = (z - voxel_um[0] / 2)[:, :, None, None]
    shells = [(1.0, radius)] + ([(-1.0, inner)] if inner.any() else [])
    out = torch.zeros((len(radius), z.shape[1], y.shape[1], x.shape[1]), dtype=like.dtype, device=like.device)
    for dy in (np.arange(counts[0]) + 0.5) / counts[0] - 0.5:
        for dx in (np.arange(counts[1]) + 0.5) / counts[1] - 0.5:
            rho2 = ((y + dy * voxel_um[1]) ** 2)[:, :, None] + ((x + dx * voxel_um[2]) ** 2)[:, None, :]
            for sign, r in shells:
                r2 = torch.as_tensor(r**2, dtype=like.dtype, device=like.device)[:, None, None]
                half = (r2 - rho2).clamp_(min=0).sqrt_()[:, None]
                top = torch.minimum(low + voxel_um[0], half)
                out += sign * (top - torch.maximum(low, -half)).clamp_(min=0)
    return out.div_(counts[0] * counts[1] * voxel_um[0]).clamp_(0, 1)


def ellipsoid_light(
    shape: Ellipsoid, axes: Sequence[Array], voxel_um: Array, like: torch.Tensor
) -> torch.Tensor:
    """Return the ellipsoid's concentration over its brightness on a box, (z, y, x)."""
    counts = shape.refinement(list(voxel_um))
    fine = [
        (axis[:, None] + ((np.arange(n) + 0.5) / n - 0.5) * h).ravel() - c
        for axis, n, h, c in zip(axes, counts, voxel_um, shape.centre_um, strict=True)
    ]
    out = _ellipsoid_share(shape, fine, voxel_um / counts, like)
    if max(counts) > 1:
        out = torch.nn.functional.avg_pool3d(out[None, None], counts)[0, 0]
    if shape.texture is not None:
        out *= waves(shape.texture, axes, voxel_um, like).mul_(shape.contrast).add_(1).clamp_(min=0)
    return out


def _ellipsoid_share(shape: Ellipsoid, axes: list[Array], sub: Array, like: torch.Tensor) -> torch.Tensor:
    unit = shape.unit_map()

    def linear(row: Array) -> torch.Tensor:
        z, y, x = (
            torch.as_tensor(w * a, dtype=like.dtype, device=like.device)
            for w, a in zip(row, axes, strict=True)
        )
        return (z[:, None] + y[None, :])[:, :, None] + x

    q = [linear(row) for row in unit]
    rho2 = (q[0] * q[0]).addcmul_(q[1], q[1]).addcmul_(q[2], q[2]).clamp_(min=1e-12)
    # rho times the gradient of rho, per axis; the ramp's width is a voxel's spread along it
    both = unit.T @ unit
    slopes = [linear(row) for row in both]
    width2 = sum((s * s) * float(h) ** 2 for s, h in zip(slopes, sub, strict=True)) / rho2
    rho, width = rho2.sqrt(), width2.clamp_(min=1e-12).sqrt()
    edge = torch.ones((1, 1, 1), dtype=like.dtype, device=like.device)
    if shape.bumps is not None:
        edge = torch.zeros_like(rho)
        for k, phase, weight in zip(
            shape.bumps.vectors, shape.bumps.phases, shape.bumps.weights, strict=True
        ):
            angle = (q[0] * k[0]).add_(q[1], alpha=k[1]).add_(q[2], alpha=k[2]).div_(rho).add_(phase)
            edge.add_(torch.cos(angle), alpha=weight * shape.bumpiness)
        edge = edge.add_(1).clamp_(0.3, 2)
    out = _fill(rho, edge, width)
    if shape.wall_um is not None:
        steep = sum(s * s for s in slopes).div_(rho2).sqrt_()  # type: ignore[union-attr]
        out -= _fill(rho, edge - shape.wall_um * steep, width)
    elif shape.core_share > 0:
        out += (shape.core_level - 1) * _fill(rho, edge * shape.core_share, width)
    return out


def _fill(rho: torch.Tensor, edge: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    moved = edge - width * width / (12 * torch.maximum(edge.expand_as(width), width))
    return moved.sub_(rho).div_(width).add_(0.5).clamp_(0, 1)


def haze_light(shape: Haze, axes: Sequence[Array], voxel_um: Array, like: torch.Tensor) -> torch.Tensor:
    """Return the haze's concentration over its brightness on a box, (z, y, x)."""
    out = waves(shape.field, axes, voxel_um, like).mul_(shape.contrast).add_(1).clamp_(min=0)
    for d, share in enumerate(shape.shares(axes, list(voxel_um))):
        if (share < 1).any():
            size = [-1 if k == d else 1 for k in range(3)]
            out *= torch.as_tensor(share, dtype=like.dtype, device=like.device).reshape(size)
    return out


def waves(field: Waves, axes: Sequence[Array], voxel_um: Array, like: torch.Tensor) -> torch.Tensor:
    """Return a sum of waves averaged over each voxel: one matrix product for the whole box."""
    left, right = (
        torch.as_tensor(f, dtype=like.dtype, device=like.device) for f in field.factors(axes, list(voxel_um))
    )
    return (left @ right).reshape([len(a) for a in axes])
