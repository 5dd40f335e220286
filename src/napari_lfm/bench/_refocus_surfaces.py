"""Tilted and curved surfaces, which no training saw, beside uniform planes at the same depths.

The truth on a surface is taken from the noise-free stack, between planes by cubic interpolation. What uniform
planes give is put together pixel by pixel from planes half a training step apart, linearly. Both are in the
network's own grey values: nothing is fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import map_coordinates

from napari_lfm.bench._refocus_scenes import SEED, numpy_of, phantom_stack, recorded
from napari_lfm.methods.refocus.surfaces import through_points, tilted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_lfm.bench._refocus_scenes import Model
    from napari_lfm.methods.refocus.engine import Refocuser

ELECTRONS = 1000.0
TILT_DEG = 1.5
ACROSS_SHARE = 1.0
"""Height of the steep tilt from border to border, over the range: 10 um with the model for 20x."""
FAMILIES = ("nuclei", "vesicles", "filaments")
BINS = (0.0, 0.1, 0.2, 0.35, 0.5)
"""Of |height| over the range."""
RIM_PX = 16


def surfaces_of(shape: tuple[int, int], pixel_um: float, range_um: float) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and heights (y, x), um."""
    rows, columns = ((n - 1) * pixel_um for n in shape)
    steep = float(np.rad2deg(np.arctan(ACROSS_SHARE * range_um / (shape[1] * pixel_um))))
    yield f"tilted {TILT_DEG:g} degrees", tilted(shape, pixel_um, 0.0, TILT_DEG, 0.0)
    yield f"tilted {ACROSS_SHARE * range_um:g} um across", tilted(shape, pixel_um, 0.0, steep, 0.0)
    top = 0.5 * range_um
    corners = [(-top, y, x) for y in (0.0, rows) for x in (0.0, columns)]
    yield "dome", through_points([*corners, (top, rows / 2, columns / 2)], shape, pixel_um)
    sides = [(top, rows / 2, x) for x in (0.0, columns)] + [(-top, y, columns / 2) for y in (0.0, rows)]
    yield "saddle", through_points([*sides, (0.0, rows / 2, columns / 2)], shape, pixel_um)


def surface_errors(
    model: Model,
    say: Callable[[str], None] = lambda _: None,
    families: Sequence[str] = FAMILIES,
    electrons: float = ELECTRONS,
) -> dict[str, Any]:
    """Return errors on surfaces and of uniform planes at the same depths.

    Returns
    -------
    dict
        ``rows``: surface, head, and in bins of |height| (``from_um``, ``to_um``) the root mean square errors
        ``surface``, ``planes``, ``input`` and the ``difference`` of the first two, over the percentile 99.95
        of the truth on the surface; ``worst_ratio``: largest ``surface`` over ``planes``; ``ratio``: of all
        pixels together; ``largest_difference``.
    """
    range_um, step = model.domain.range_um, model.domain.step_um
    sums: dict[tuple[str, str, int], np.ndarray] = {}
    for family in families:
        stack = phantom_stack(model, family, 0)
        middle = len(stack.widefield) // 2
        planes = {"widefield": numpy_of(stack.widefield), "confocal": numpy_of(stack.confocal)}
        rng = np.random.default_rng([SEED, 17, len(family)])
        image = recorded(planes["widefield"][middle], electrons, rng)
        per = electrons / float(np.percentile(planes["widefield"][middle], 99.9))
        refocuser = model.opened(image)
        uniform: dict[int, dict[str, np.ndarray]] = {}
        shape = (image.shape[0], image.shape[1])
        for name, height in surfaces_of(shape, model.domain.pixel_um, range_um):
            say(f"{family}, {name}")
            found = refocuser.surface(height)
            for head, light in planes.items():
                truth = _on_surface(light, height / step + middle) * per
                composed = _composed(refocuser, height, step / 2, head, uniform)
                values = {
                    "surface": getattr(found, head),
                    "planes": composed,
                    "input": image - refocuser.levels.low,
                }
                span = float(np.percentile(truth, 99.95))
                inner = (slice(RIM_PX, -RIM_PX),) * 2
                bins = np.digitize(np.abs(height[inner]), np.array(BINS[1:-1]) * range_um)
                errors = [((v - truth) / span)[inner] ** 2 for v in values.values()]
                errors.append(((values["surface"] - values["planes"]) / span)[inner] ** 2)
                for b in range(len(BINS) - 1):
                    where = bins == b
                    total = np.array([where.sum(), *(e[where].sum() for e in errors)])
                    sums[name, head, b] = sums.get((name, head, b), 0) + total
    rows = []
    for name, head in dict.fromkeys((n, h) for n, h, _ in sums):
        for b in range(len(BINS) - 1):
            count, *squares = sums[name, head, b]
            if count < 100:
                continue
            roots = [round(float(np.sqrt(s / count)), 5) for s in squares]
            row: dict[str, Any] = {"surface_name": name, "head": head}
            row |= {"from_um": round(BINS[b] * range_um, 4), "to_um": round(BINS[b + 1] * range_um, 4)}
            rows.append(row | dict(zip(("surface", "planes", "input", "difference"), roots, strict=True)))
    total = np.sum(list(sums.values()), axis=0)
    return {
        "rows": rows,
        "families": list(families),
        "ratio": round(float(np.sqrt(total[1] / total[2])), 4),
        "worst_ratio": round(max(r["surface"] / max(r["planes"], 1e-9) for r in rows), 4),
        "largest_difference": max(r["difference"] for r in rows),
    }


def _on_surface(stack: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return a stack's values at planes `at` (y, x), planes counted from 0."""
    rows, columns = np.indices(at.shape)
    return np.asarray(map_coordinates(stack, [at, rows, columns], order=3, mode="nearest"), np.float32)


def _composed(
    refocuser: Refocuser, height: np.ndarray, step: float, head: str, made: dict[int, dict[str, np.ndarray]]
) -> np.ndarray:
    """Return what uniform planes give on a surface; planes are kept in `made`."""
    at = height / step
    out = np.zeros(height.shape, np.float32)
    for level in range(int(np.floor(at.min())), int(np.ceil(at.max())) + 1):
        if level not in made:
            plane = refocuser.plane(level * step)
            made[level] = {"widefield": plane.widefield, "confocal": plane.confocal}
        out += np.clip(1 - np.abs(at - level), 0, None).astype(np.float32) * made[level][head]
    return out
