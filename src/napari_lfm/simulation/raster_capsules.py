"""Coverage of many tapered capsules at once, on the CPU or a GPU.

Capsules at least a voxel thick are drawn by distance, in batches of equal boxes. Thinner ones are poured
into the voxels as small boxes of volume along their axis: that costs per length, not per box, and keeps
the light of a dendrite that is a tenth of a voxel thick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lfm.simulation.shapes import Tube

Array = npt.NDArray[np.float64]
_BATCH = 1 << 18  # voxels per batch: a few arrays of this size stay in the cache
_GOLDEN = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class Capsules:
    """Arrays over capsules: ends (k, 3), outer and inner radii (k,); an inner radius of -1 means solid."""

    a: Array
    b: Array
    ra: Array
    rb: Array
    inner_a: Array
    inner_b: Array
    level: Array

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, pick: Any) -> Capsules:
        return Capsules(*(getattr(self, f.name)[pick] for f in fields(self)))

    @classmethod
    def of(cls, tubes: Sequence[tuple[Tube, float]], capped_below: float = 0.0) -> Capsules:
        """Return the stretches of tubes with their levels; lengthen free ends thinner than `capped_below`.

        Poured capsules have flat ends: two thirds of a radius more hold the volume of the hemisphere.
        """
        counts = [len(t.radii_um) for t, _ in tubes]
        points = np.concatenate([np.asarray(t.points_um, float).reshape(-1, 3) for t, _ in tubes])
        radii = np.concatenate([np.asarray(t.radii_um, float) for t, _ in tubes])
        ends = np.cumsum(counts)
        first = np.ones(len(points), bool)
        first[ends - 1] = False
        k = np.flatnonzero(first)
        tube = np.repeat(np.arange(len(tubes)), np.asarray(counts) - 1)
        a, b, ra, rb = points[k], points[k + 1], radii[k], radii[k + 1]
        if capped_below > 0:
            away = (b - a) / np.maximum(np.linalg.norm(b - a, axis=1, keepdims=True), 1e-9)
            poured = np.minimum(ra, rb) < capped_below
            starts, stops = np.isin(k, ends - counts) & poured, np.isin(k + 1, ends - 1) & poured
            a = a - np.where(starts, 2 / 3 * ra, 0)[:, None] * away
            b = b + np.where(stops, 2 / 3 * rb, 0)[:, None] * away
        wall = np.array([np.inf if t.wall_um is None else t.wall_um for t, _ in tubes])[tube]
        inner = [np.where(np.isfinite(wall), np.maximum(r - wall, 0), -1.0) for r in (ra, rb)]
        return cls(a, b, ra, rb, inner[0], inner[1], np.array([level for _, level in tubes])[tube])

    def split(self, longest: Array) -> Capsules:
        """Return the capsules cut into pieces not longer than `longest`, (k,)."""
        length = np.linalg.norm(self.b - self.a, axis=1)
        n = np.maximum(np.ceil(length / longest), 1).astype(int)
        if (n == 1).all():
            return self
        who = np.repeat(np.arange(len(n)), n)
        part = np.arange(len(who)) - np.repeat(np.cumsum(n) - n, n)
        t0, t1 = part / n[who], (part + 1) / n[who]
        whole = self[who]
        way, taper, inner = whole.b - whole.a, whole.rb - whole.ra, whole.inner_b - whole.inner_a
        return Capsules(
            whole.a + t0[:, None] * way,
            whole.a + t1[:, None] * way,
            whole.ra + t0 * taper,
            whole.ra + t1 * taper,
            whole.inner_a + t0 * inner,
            whole.inner_a + t1 * inner,
            whole.level,
        )


def is_thick(capsules: Capsules, voxel_um: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Return which capsules are thick enough to be drawn by distance."""
    return np.asarray(np.minimum(capsules.ra, capsules.rb) >= thin_limit_um(voxel_um))


def thin_limit_um(voxel_um: Sequence[float]) -> float:
    """Return the radius below which capsules are poured."""
    return min(max(voxel_um), 3 * min(voxel_um))


def draw(
    out: torch.Tensor, lumen: torch.Tensor | None, capsules: Capsules, origin_um: Array, voxel_um: Array
) -> None:
    """Raise `out` (z, y, x) to the level of thick capsules, and `lumen` to that of their insides."""
    capsules = capsules.split(2.5 * np.maximum(capsules.ra, capsules.rb))
    reach = np.maximum(capsules.ra, capsules.rb)[:, None] + max(voxel_um) / 2
    low = (np.minimum(capsules.a, capsules.b) - reach - origin_um) / voxel_um
    high = (np.maximum(capsules.a, capsules.b) + reach - origin_um) / voxel_um
    seen = ((high > 0) & (low < np.asarray(out.shape) - 1)).all(1)
    capsules, low, high = capsules[seen], low[seen], high[seen]
    for pick, start, size in box_batches(low, high, tuple(out.shape)):
        _draw_batch(out, lumen, capsules[pick], start, size, origin_um, voxel_um)


def box_batches(
    low: Array, high: Array, shape: tuple[int, ...]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[int, int, int]]]:
    """Sort boxes (in voxels) into batches of one size: yield which, their first voxels (k, 3), the size.

    The boxes are shifted into the grid, so nothing has to be cut off later.
    """
    first = np.floor(np.clip(low, 0, None)).astype(np.int64)
    last = np.ceil(np.minimum(high, np.asarray(shape) - 1)).astype(np.int64)
    need = np.maximum(last - first + 1, 1)
    step = np.where(need <= 8, 2, np.where(need <= 16, 4, 8))
    need = np.minimum(-(-need // step) * step, shape)
    first = np.clip(first, 0, np.asarray(shape) - need)
    code = (need[:, 0] * 100_000 + need[:, 1]) * 100_000 + need[:, 2]
    order = np.argsort(code, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if not len(group):
            continue
        z, y, x = (int(n) for n in need[group[0]])
        per = max(_BATCH // (z * y * x), 1)
        for k in range(0, len(group), per):
            some = group[k : k + per]
            yield some, first[some], (z, y, x)


def box_axes(
    start: npt.NDArray[np.int64], size: tuple[int, int, int], centre: Array, origin_um: Array, voxel_um: Array
) -> list[Array]:
    """Return voxel positions relative to `centre` along each axis of every box: (k, n) each."""
    return [
        origin_um[d] + voxel_um[d] * (start[:, d, None] + np.arange(size[d])) - centre[:, d, None]
        for d in range(3)
    ]


def flat_indices(start: npt.NDArray[np.int64], size: tuple[int, int, int], out: torch.Tensor) -> torch.Tensor:
    """Return the indices of the voxels of every box into the flattened volume."""
    _, ny, nx = out.shape
    base = torch.as_tensor((start[:, 0] * ny + start[:, 1]) * nx + start[:, 2], device=out.device)
    z, y, x = (torch.arange(n, device=out.device) for n in size)
    offsets = (z[:, None, None] * ny + y[None, :, None]) * nx + x
    return (base[:, None] + offsets.reshape(-1)).reshape(-1)


def _draw_batch(
    out: torch.Tensor,
    lumen: torch.Tensor | None,
    c: Capsules,
    start: npt.NDArray[np.int64],
    size: tuple[int, int, int],
    origin_um: Array,
    voxel_um: Array,
) -> None:
    way = c.b - c.a
    axes = box_axes(start, size, c.a, origin_um, voxel_um)
    h2 = voxel_um**2

    def form(weights: Sequence[float] | Array, along: bool) -> torch.Tensor:
        # sum over the axes of w p^2, or of w p d: each term depends on one axis only
        parts = [
            torch.as_tensor(w * (p * way[:, d, None] if along else p * p), dtype=out.dtype, device=out.device)
            for d, (p, w) in enumerate(zip(axes, weights, strict=True))
        ]
        return (parts[0][:, :, None] + parts[1][:, None, :])[..., None] + parts[2][:, None, None, :]

    def column(values: Array) -> torch.Tensor:
        return torch.as_tensor(values, dtype=out.dtype, device=out.device)[:, None, None, None]

    dd = np.maximum((way**2).sum(1), 1e-12)
    dot = form((1, 1, 1), True)
    t = (dot / column(dd)).clamp_(0, 1)
    square = form((1, 1, 1), False).addcmul_(t, t * column(dd) - 2 * dot).clamp_(min=1e-8)
    if np.ptp(voxel_um) < 1e-6 * voxel_um[0]:
        width2 = torch.full((1, 1, 1, 1), float(h2[0]), dtype=out.dtype, device=out.device)
    else:
        width2 = form(h2, False).addcmul_(t, t * column((way**2 * h2).sum(1)) - 2 * form(h2, True))
        width2 = width2.div_(square).clamp_(min=float(h2.min()))
    distance, width = square.sqrt_(), width2.sqrt()
    target = flat_indices(start, size, out) if out.is_cuda else None
    shares = [(out, c.ra, c.rb)]
    if lumen is not None:
        shares.append((lumen, np.maximum(c.inner_a, 0), np.maximum(c.inner_b, 0)))
    for volume, r0, r1 in shares:
        radius = t * column(r1 - r0) + column(r0)
        share = ramp(distance, radius, width, width2).mul_(column(c.level))
        if volume is lumen:
            share *= column((c.inner_a >= 0).astype(float))
        _raise(volume, share, start, size, target)


def ramp(
    distance: torch.Tensor, radius: torch.Tensor, width: torch.Tensor, width2: torch.Tensor
) -> torch.Tensor:
    """Return the share inside a cylinder, linear across an edge that keeps the area ``pi radius^2``."""
    square = radius * radius
    edge = (square - width2 / 12).clamp_(min=0).sqrt_()
    thin = 3 * square < width2
    if bool(thin.any()):
        edge = torch.where(thin, (3 * width * square) ** (1 / 3) - width / 2, edge)
    return (edge.sub_(distance)).div_(width).add_(0.5).clamp_(0, 1)


def _raise(
    volume: torch.Tensor,
    share: torch.Tensor,
    start: npt.NDArray[np.int64],
    size: tuple[int, int, int],
    target: torch.Tensor | None,
) -> None:
    if target is not None:
        volume.view(-1).scatter_reduce_(0, target, share.reshape(-1), "amax")
        return
    # slices are three times faster than a scatter on the CPU
    whole, parts = volume.numpy(), share.numpy()
    for (z, y, x), part in zip(start.tolist(), parts, strict=True):
        box = whole[z : z + size[0], y : y + size[1], x : x + size[2]]
        np.maximum(box, part, out=box)


def pour(out: torch.Tensor, capsules: Capsules, origin_um: Array, voxel_um: Array) -> None:
    """Add thin capsules to `out` as little boxes of volume along their axes, each weighted by its level."""
    fine = min(voxel_um)
    middle = (capsules.a + capsules.b) / 2
    reach = np.linalg.norm(capsules.b - capsules.a, axis=1)[:, None] / 2 + capsules.ra[:, None]
    last = origin_um + voxel_um * np.asarray(out.shape)
    seen = ((middle + reach > origin_um - voxel_um) & (middle - reach < last)).all(1)
    capsules = capsules[seen].split(np.maximum(8 * fine, 1e-9))
    if not len(capsules):
        return
    radius = np.maximum(capsules.ra, capsules.rb)
    length = np.linalg.norm(capsules.b - capsules.a, axis=1)
    steps = np.maximum(np.ceil(length / (0.5 * fine)), 1).astype(np.int64)
    # discs of points across: enough that each stands for half a voxel, or a quarter of the radius
    discs = np.clip(np.round(np.pi * (radius / np.maximum(0.5 * fine, radius / 4)) ** 2), 1, 64)
    points = steps * discs.astype(np.int64)
    for some in np.split(np.arange(len(points)), np.flatnonzero(np.diff(np.cumsum(points) // _BATCH)) + 1):
        _pour_batch(out, capsules[some], length[some], steps[some], discs[some], origin_um, voxel_um)


def _pour_batch(
    out: torch.Tensor,
    c: Capsules,
    length: Array,
    steps: npt.NDArray[np.int64],
    discs: Array,
    origin_um: Array,
    voxel_um: Array,
) -> None:
    def tensor(values: Array) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=out.device)

    way = (c.b - c.a) / np.maximum(length, 1e-9)[:, None]
    # two directions across each capsule
    helper = np.where(np.abs(way[:, :1]) < 0.7, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    side = np.cross(way, helper)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    other = np.cross(way, side)
    count = torch.as_tensor(steps * discs.astype(np.int64), device=out.device)
    who = torch.repeat_interleave(torch.arange(len(length), device=out.device), count)
    # the number of the point within its capsule; the points of one disc follow one another
    number = torch.arange(len(who), device=out.device) - (count.cumsum(0) - count)[who]
    per_disc = tensor(discs)
    n = per_disc[who]
    disc = torch.div(number, n.long(), rounding_mode="floor")
    spot = (number - disc * n.long()).float()
    t = (disc.float() + 0.5) / tensor(steps.astype(float))[who]
    outer = tensor(c.ra)[who] + t * tensor(c.rb - c.ra)[who]
    inner = (tensor(c.inner_a)[who] + t * tensor(c.inner_b - c.inner_a)[who]).clamp_(min=0)
    ring = outer * outer - inner * inner
    # a sunflower fills a disc, or a ring, evenly; each disc is turned against the one before
    rho = torch.where(n > 1, (inner * inner + ring * (spot + 0.5) / n).sqrt(), torch.zeros_like(n))
    angle = _GOLDEN * (spot + 0.38 * disc.float())
    u, v = rho * torch.cos(angle), rho * torch.sin(angle)
    piece = tensor(length / steps)[who]
    light = tensor(c.level * np.pi * length / steps / np.prod(voxel_um))[who] * ring / n
    grain = (math.pi * ring / n).sqrt()
    _deposit(out, [tensor(p)[who] for p in _columns(c, way, side, other, length, origin_um, voxel_um)], (
        t, u, v, piece, grain, light), voxel_um)  # fmt: skip


def _columns(
    c: Capsules, way: Array, side: Array, other: Array, length: Array, origin_um: Array, voxel_um: Array
) -> list[Array]:
    """Return per axis, in voxels from the lower face of the grid: start, and steps along t, u, v."""
    out = []
    for d in range(3):
        start = (c.a[:, d] - origin_um[d]) / voxel_um[d] + 0.5
        out += [start, way[:, d] * length / voxel_um[d], side[:, d] / voxel_um[d], other[:, d] / voxel_um[d]]
    return [*out, *(np.abs(way[:, d]) for d in range(3))]


def _deposit(
    out: torch.Tensor, columns: list[torch.Tensor], at: tuple[torch.Tensor, ...], voxel_um: Array
) -> None:
    """Share each little box of light among the two voxels per axis that it touches."""
    t, u, v, piece, grain, light = at
    index, share = [], []
    for d in range(3):
        start, along, across, beside = columns[4 * d : 4 * d + 4]
        size = (torch.maximum(grain, columns[12 + d] * piece) / float(voxel_um[d])).clamp_(1e-3, 1)
        low = start + t * along + u * across + v * beside - size / 2
        first = low.floor()
        here = ((first + 1 - low) / size).clamp_(max=1)
        index.append(first.long())
        share.append((here, 1 - here))
    flat = out.view(-1)
    nz, ny, nx = out.shape
    inside = [[((i + k) >= 0) & ((i + k) < n) for k in (0, 1)] for i, n in zip(index, out.shape, strict=True)]
    weights = [[s[k] * m[k] for k in (0, 1)] for s, m in zip(share, inside, strict=True)]
    places = [[(i + k).clamp_(0, n - 1) for k in (0, 1)] for i, n in zip(index, (nz, ny, nx), strict=True)]
    for kz in (0, 1):
        for ky in (0, 1):
            plane = light * weights[0][kz] * weights[1][ky]
            row = (places[0][kz] * ny + places[1][ky]) * nx
            for kx in (0, 1):
                flat.index_add_(0, row + places[2][kx], (plane * weights[2][kx]).to(out.dtype))
