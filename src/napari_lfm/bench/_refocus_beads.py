"""Isolated beads: over which distances they become sharp again, and whether the side is told correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._peaks import gaussian_of
from napari_lfm.bench._refocus_scenes import (
    SEED,
    bead_image,
    confocal_beads,
    ideal_optics,
    real_optics,
    recorded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.bench._refocus_scenes import Model
    from napari_lfm.optics.defocus import DefocusOptics

SIDE_PX, SIGN_SIDE_PX = 256, 192
ELECTRONS = 1000.0
"""At the 99.9th percentile of the expected image, whatever the distance."""
WIDER = 1.5
"""Largest width over that in focus that counts as sharp."""
VARIANTS = 3
DISTANCES = tuple(round(0.1 * k, 1) for k in range(-10, 11))
"""Over the range."""
SIGN_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SIGN_VARIANTS, IDEAL_TRIES = 5, 2
_REACH_PX = 6
_NEAR_PX = 2


def depth_of_field(
    model: Model, variants: int = VARIANTS, distances: Sequence[float] = DISTANCES
) -> dict[str, Any]:
    """Return widths of beads that were refocused to their plane, by distance, and the range that is sharp.

    A row is sharp where the median width is within 1.5 times that of the same beads recorded in focus, and
    at least half of it, and nine of ten beads are brightest within two pixels of their place.

    Returns
    -------
    dict
        ``rows``: z_um, and for ``input``, ``widefield`` and ``confocal`` the median ``fwhm_um``, ``found``
        (share of beads at their place) and ``brightness`` (peak over that in focus); ``in_focus_um`` by head;
        ``range_um`` (the sharp rows around 0, from the first to the last), ``depth_of_field_um`` and ``fold``
        by head.
    """
    pixel, range_um = model.domain.pixel_um, model.domain.range_um
    optics = [real_optics(model, 100 + k) for k in range(variants)]
    focused = [_in_focus(model, o) for o in optics]
    reference = {h: float(np.median([f[h][0] for f in focused])) for h in ("widefield", "confocal")}
    rows = []
    for k, share in enumerate(distances):
        z = share * range_um
        found: dict[str, list[tuple[float, float, bool]]] = {"input": [], "widefield": [], "confocal": []}
        for v, own in enumerate(optics):
            places = places_of(SIDE_PX, [v, k])
            light = bead_image(model, own, z, SIDE_PX, places)
            image = recorded(light, ELECTRONS, np.random.default_rng([SEED, 11, v, k]))
            made = model.opened(image).plane(z)
            per = ELECTRONS / float(np.percentile(light, 99.9))
            for name, plane, head in (
                ("input", image - np.median(image), "widefield"),
                ("widefield", made.widefield, "widefield"),
                ("confocal", made.confocal, "confocal"),
            ):
                top = focused[v][head][1] * per
                found[name] += [
                    (w * pixel, b / top, ok) for w, b, ok in (spot(plane, place) for place in places)
                ]
        row: dict[str, Any] = {"z_um": round(z, 4)}
        for name, spots in found.items():
            widths, brightness, at_place = (np.asarray(v, float) for v in zip(*spots, strict=True))
            row[name] = {
                "fwhm_um": round(float(np.median(widths)), 4),
                "found": round(float(at_place.mean()), 3),
                "brightness": round(float(np.median(brightness)), 4),
            }
        rows.append(row)
    out: dict[str, Any] = {
        "rows": rows,
        "in_focus_um": {h: round(v * pixel, 4) for h, v in reference.items()},
        "depth_of_field_um": round(model.domain.optics.depth_of_field_um, 4),
        "beads_per_row": 4 * variants,
        "spherical_rms_waves": [round(o.spherical_rms_waves, 4) for o in optics],
        "range_um": {},
        "fold": {},
    }
    for name, head in (("input", "widefield"), ("widefield", "widefield"), ("confocal", "confocal")):
        low, high = sharp_range(rows, name, reference[head] * pixel)
        out["range_um"][name] = [low, high]
        out["fold"][name] = round((high - low) / out["depth_of_field_um"], 2)
    return out


def sharp_range(rows: Sequence[dict[str, Any]], name: str, in_focus_um: float) -> tuple[float, float]:
    """Return first and last distance, without a gap from 0 on, at which beads are sharp; (0, 0): none."""

    def sharp(row: dict[str, Any]) -> bool:
        width = row[name]["fwhm_um"] / in_focus_um
        return bool(0.5 <= width <= WIDER and row[name]["found"] >= 0.9)

    ordered = sorted(rows, key=lambda r: float(r["z_um"]))
    middle = min(range(len(ordered)), key=lambda k: abs(float(ordered[k]["z_um"])))
    if not sharp(ordered[middle]):
        return 0.0, 0.0
    low = high = middle
    while low > 0 and sharp(ordered[low - 1]):
        low -= 1
    while high < len(ordered) - 1 and sharp(ordered[high + 1]):
        high += 1
    return float(ordered[low]["z_um"]), float(ordered[high]["z_um"])


def signs(
    model: Model,
    say: Callable[[str], None] = lambda _: None,
    variants: int = SIGN_VARIANTS,
    ideal_tries: int = IDEAL_TRIES,
    shares: Sequence[float] = SIGN_SHARES,
) -> dict[str, Any]:
    """Return how often the side on which beads lie is told correctly.

    Four beads lie in one plane. A stack over the whole range is made of one image; the side of a bead is that
    of the plane in which it is brightest in the confocal head (3 x 3 pixels), and 0 is wrong on both sides.

    Returns
    -------
    dict
        ``aberrated`` and ``ideal``: rows of |z| in um, ``told`` (share), ``tries``, ``towards_plus`` (share
        with the brightest plane above 0); ``spherical_rms_waves`` of the microscopes.
    """
    aberrated = [real_optics(model, 200 + k) for k in range(variants)]
    ideal = [ideal_optics(model.domain)] * ideal_tries
    say("the side of beads, aberrated")
    out: dict[str, Any] = {"aberrated": _sides(model, aberrated, shares, 0)}
    say("the side of beads, without aberration")
    out["ideal"] = _sides(model, ideal, shares, 1)
    out["spherical_rms_waves"] = {
        "aberrated": [round(o.spherical_rms_waves, 4) for o in aberrated],
        "ideal": round(ideal[0].spherical_rms_waves, 4) if ideal else 0.0,
    }
    for name in ("aberrated", "ideal"):
        tries = sum(r["tries"] for r in out[name])
        out[f"{name}_told"] = round(sum(r["told"] * r["tries"] for r in out[name]) / max(tries, 1), 4)
    return out


def _sides(
    model: Model, optics: Sequence[DefocusOptics], shares: Sequence[float], turn: int
) -> list[dict[str, Any]]:
    range_um = model.domain.range_um
    levels = np.unique([0.0, *shares, *(-s for s in shares)]) * range_um
    rows = []
    for k, share in enumerate(shares):
        right, plus, tries = 0, 0, 0
        for v, own in enumerate(optics):
            for side in (1, -1):
                places = places_of(SIGN_SIDE_PX, [31 + turn, v, k, side + 1])
                light = bead_image(model, own, side * share * range_um, SIGN_SIDE_PX, places)
                rng = np.random.default_rng([SEED, 13, turn, v, k, side + 1])
                stack = model.opened(recorded(light, ELECTRONS, rng)).stack(levels.tolist())[1]
                for y, x in np.round(places).astype(int):
                    bright = stack[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))
                    found = levels[int(bright.argmax())]
                    right += bool(found * side > 0)
                    plus += bool(found > 0)
                    tries += 1
        if tries:
            row = {"z_um": round(share * range_um, 4), "told": round(right / tries, 4)}
            rows.append(row | {"towards_plus": round(plus / tries, 4), "tries": tries})
    return rows


def places_of(side: int, seed: Sequence[int]) -> np.ndarray:
    """Return four places (y, x), as far apart as they can be, each off the pixels by chance."""
    rng = np.random.default_rng([SEED, *seed])
    grid = np.array([(y, x) for y in (0.25, 0.75) for x in (0.25, 0.75)]) * side
    return np.asarray(grid + rng.uniform(-2, 2, grid.shape))


def spot(plane: np.ndarray, place: np.ndarray) -> tuple[float, float, bool]:
    """Return width (pixels), brightness, and whether the brightest pixel around is at the place.

    The width is the mean of Gaussian fits along y and x through the brightest pixel near the place, over
    three lines each; a spot wider than what is looked at has a width of that.
    """
    reach = min(plane.shape) // 8
    y, x = np.round(place).astype(int)
    part = plane[y - reach : y + reach + 1, x - reach : x + reach + 1]
    top = np.array(np.unravel_index(int(part.argmax()), part.shape))
    at_place = bool(np.abs(top + np.array([y - reach, x - reach]) - place).max() <= _NEAR_PX)
    row, column = (int(np.clip(t, 1, 2 * reach - 1)) for t in top)
    lines = part[row - 1 : row + 2].sum(0), part[:, column - 1 : column + 2].sum(1)
    widths = []
    for line, middle in zip(lines, (column, row), strict=True):
        near = line[max(0, middle - _REACH_PX) : middle + _REACH_PX + 1]
        width = gaussian_of(near)[1] if near.max() > 0 else float(len(near))
        widths.append(min(width, float(len(near))))
    return float(np.mean(widths)), float(part[row - 1 : row + 2, column - 1 : column + 2].mean()), at_place


def _in_focus(model: Model, optics: DefocusOptics) -> dict[str, tuple[float, float]]:
    """Return width (pixels) and brightness of beads in focus, without noise, by head: medians over places."""
    out = {}
    for head in ("widefield", "confocal"):
        spots = []
        for k in range(3):
            places = places_of(SIDE_PX, [7, k])
            if head == "widefield":
                plane = bead_image(model, optics, 0.0, SIDE_PX, places)
            else:
                plane = confocal_beads(model, optics, SIDE_PX, places)
            spots += [spot(plane, place)[:2] for place in places]
        width, brightness = np.median(spots, axis=0)
        out[head] = float(width), float(brightness)
    return out
