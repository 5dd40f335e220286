"""Scores of refocused planes against |z|: input, deconvolution with the known defocus, network.

Scoring, the same for all: a result is fitted to the target plane by one scale, not negative, and one offset
(least squares), since no deconvolution knows either. Input and network, whose light has a scale, are scored
without the fit too (``unfitted_db``). *network alone* is without the steps that make its stack explain the
image. PSNR and structural similarity take the target's
percentile 99.95 as their range; Pearson needs neither. An outermost rim is not scored. Target planes that
are dark (percentile 99.95 below a tenth of the stack's) are left out.

The deconvolutions know the aberration of the very microscope; the network does not. Each is scored with and
without the blur of the focus put back, at every setting, and at every |z| the setting counts that is best on
average there, for each score by itself.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.bench._refocus_scenes import (
    DARK_COUNTS,
    FAMILIES,
    LAYER,
    PEAK,
    SEED,
    density_of,
    numpy_of,
    phantom_stack,
    recorded,
)
from napari_lfm.core.metrics import fit_scale, pearson
from napari_lfm.methods.refocus.physical import deconvolved
from napari_lfm.optics.defocus import transfer_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_lfm.bench._refocus_scenes import Model
    from napari_lfm.methods.refocus.engine import Refocuser
    from napari_lfm.simulation.focal_stacks import FocalStack

SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""|z| over the range."""
ELECTRONS = (1000.0, 100.0)
WIENER_NOISE = (1e-4, 1e-3, 1e-2, 1e-1)
ITERATIONS = (3, 10, 30)
RIM_PX = 32
DARK_SHARE = 0.1
HEADS = ("widefield", "confocal")
SCORES = ("psnr_db", "ssim", "pearson", "unfitted_db")
FAR_SHARE = 0.2
"""From this |z| on, over the range, gains are summed up: 2 um of 10."""

Scores = dict[str, float]
Ways = dict[str, list[Scores]]


@dataclass(frozen=True)
class Pair:
    """An input plane and a target plane.

    Attributes
    ----------
    source, target : int
    share : float
        |z| over the range.
    """

    source: int
    target: int
    share: float


def pairs_of(planes: int, half: int, turn: int, shares: Sequence[float] = SHARES) -> list[Pair]:
    """Return pairs with both signs of z, their inputs spread over the stack.

    Parameters
    ----------
    planes : int
    half : int
        Planes in the model's range.
    turn : int
        Other numbers give other inputs.
    shares : sequence of float
    """
    rng = np.random.default_rng([SEED, 3, turn])
    found = []
    for share in shares:
        away = round(share * half)
        for sign in (1, -1) if away else (1,):
            low, high = max(0, -sign * away), min(planes, planes - sign * away)
            if high > low:
                source = int(rng.integers(low, high))
                found.append(Pair(source, source + sign * away, share))
    return found


def layer_pairs(planes: int, half: int, shares: Sequence[float] = SHARES) -> list[Pair]:
    """Return pairs with both signs of z whose target is the middle plane, where a thin layer lies."""
    middle, aways = planes // 2, [(share, round(share * half)) for share in shares]
    return [
        Pair(middle - sign * away, middle, share)
        for share, away in aways
        for sign in ((1, -1) if away else (1,))
        if 0 <= middle - sign * away < planes
    ]


def quality(
    model: Model,
    say: Callable[[str], None] = lambda _: None,
    count: int = 2,
    families: Sequence[str] = FAMILIES,
    electrons: Sequence[float] = ELECTRONS,
    iterations: Sequence[int] = ITERATIONS,
    shares: Sequence[float] = SHARES,
) -> dict[str, Any]:
    """Score a model on specimens of families that it was not trained on.

    Parameters
    ----------
    model : Model
    say : callable, optional
    count : int
        Specimens of each family.
    families : sequence of str
    electrons : sequence of float
        At the 99.9th percentile of the inputs.
    iterations : sequence of int
        Of Richardson-Lucy; none leaves it out.
    shares : sequence of float
        |z| over the range.

    Returns
    -------
    dict
        ``rows``: electrons, head, z_um, pairs, and by way ``psnr_db``, ``ssim``, ``pearson`` and
        ``unfitted_db``; ``summary``: see `summary_of`; ``by_family``; ``layers``: the same of thin layers,
        one of each family; ``families``, ``specimens``.
    """
    half = round(model.domain.range_um / model.domain.step_um)
    thick, thin = Ledger(), Ledger()
    for k, (family, number) in enumerate((f, n) for n in range(count) for f in families):
        say(f"{family}, {number + 1} of {count}")
        stack = phantom_stack(model, family, number)
        pairs = pairs_of(len(stack.widefield), half, k, shares)
        for level in electrons:
            kind = f"{family}, {density_of(number)}"
            score_pairs(model, stack, pairs, level, thick, iterations, [SEED, 9, k, round(level)], kind)
    for k, family in enumerate(families):
        say(f"{family}, {LAYER}")
        stack = phantom_stack(model, family, 0, layer=True)
        pairs = layer_pairs(len(stack.widefield), half, shares)
        for level in electrons:
            kind = f"{family}, {LAYER}"
            score_pairs(model, stack, pairs, level, thin, iterations, [SEED, 11, k, round(level)], kind)
    return {
        "families": list(families),
        "specimens": count * len(families),
        "settings": {"wiener_noise": list(WIENER_NOISE), "iterations": list(iterations)},
        **_told(thick, model.domain.range_um),
        "layers": _told(thin, model.domain.range_um),
    }


def _told(kept: Ledger, range_um: float) -> dict[str, Any]:
    rows = kept.rows(range_um)
    return {"rows": rows, "by_family": kept.by_family(), "summary": summary_of(rows, FAR_SHARE * range_um)}


class Ledger:
    """Scores of every pair, way and setting."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], list[Scores]] = defaultdict(list)

    def add(self, electrons: float, head: str, share: float, family: str, way: str, score: Scores) -> None:
        """Keep one score; a way is a name, or a name and a setting after a colon."""
        self._found[electrons, head, share, family, way].append(score)

    def rows(self, range_um: float) -> list[dict[str, Any]]:
        """Return means over pairs; of several settings the best, for each score by itself."""
        groups: dict[tuple[float, str, float], dict[str, list[Scores]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for (electrons, head, share, _, way), scores in self._found.items():
            groups[electrons, head, share][way] += scores
        out = []
        for (electrons, head, share), ways in groups.items():
            row = {"electrons": electrons, "head": head, "z_um": round(share * range_um, 4)}
            row["pairs"] = len(next(iter(ways.values())))
            out.append(row | _best(ways))
        return sorted(out, key=lambda r: (-r["electrons"], r["head"] != "widefield", r["z_um"]))

    def by_family(self) -> list[dict[str, Any]]:
        """Return mean gains in PSNR from `FAR_SHARE` on by family and density, at the least noise."""
        groups: dict[tuple[str, str], dict[float, dict[str, list[Scores]]]] = defaultdict(dict)
        for (electrons, head, share, family, way), scores in self._found.items():
            if share >= FAR_SHARE - 1e-9 and electrons == max(k[0] for k in self._found):
                groups[family, head].setdefault(share, defaultdict(list))[way] += scores
        out = []
        for (family, head), by_share in groups.items():
            gains = [_gains(_best(ways)) for ways in by_share.values()]
            mean = {n: round(float(np.mean([g[n] for g in gains])), 3) for n in gains[0]}
            name, _, density = family.partition(", ")
            out.append({"family": name, "density": density, "head": head, **mean})
        return sorted(out, key=lambda r: (r["head"] != "widefield", r["density"] != "sparse", r["family"]))


def _best(ways: dict[str, list[Scores]]) -> dict[str, Scores]:
    out: dict[str, Scores] = {}
    for way, scores in ways.items():
        name = way.partition(":")[0]
        mean = {n: float(np.mean([s[n] for s in scores])) for n in SCORES if n in scores[0]}
        old = out.get(name)
        out[name] = mean if old is None else {n: max(old[n], mean[n]) for n in mean}
    return {name: {n: round(v, 4) for n, v in scores.items()} for name, scores in out.items()}


def _gains(row: dict[str, Any]) -> dict[str, float]:
    physical = [row[n]["psnr_db"] for n in ("wiener", "richardson-lucy") if n in row]
    own, given = row["network"]["psnr_db"], row["input"]["psnr_db"]
    unfitted = row["network"].get("unfitted_db", own) - row["input"].get("unfitted_db", given)
    return {
        "over_input_db": own - given,
        "over_physical_db": own - max(physical, default=given),
        "unfitted_over_input_db": unfitted,
    }


def summary_of(rows: Sequence[dict[str, Any]], from_um: float) -> list[dict[str, Any]]:
    """Return, by electrons and head, mean gains in PSNR of the network for |z| from `from_um` on.

    ``over_input_db`` and ``least_over_input_db`` (the lowest of the rows), ``over_physical_db``: over the
    better of Wiener and Richardson-Lucy, each at its best setting, row by row;
    ``unfitted_over_input_db``: over the input, neither with a fit.
    """
    out = []
    for electrons, head in dict.fromkeys((r["electrons"], r["head"]) for r in rows):
        chosen = [
            _gains(r)
            for r in rows
            if (r["electrons"], r["head"]) == (electrons, head) and r["z_um"] >= from_um - 1e-6
        ]
        if not chosen:
            continue
        over = [g["over_input_db"] for g in chosen]
        out.append(
            {
                "electrons": electrons,
                "head": head,
                "over_input_db": round(float(np.mean(over)), 3),
                "least_over_input_db": round(float(min(over)), 3),
                **{
                    name: round(float(np.mean([g[name] for g in chosen])), 3)
                    for name in ("over_physical_db", "unfitted_over_input_db")
                },
            }
        )
    return out


def score_pairs(
    model: Model,
    stack: FocalStack,
    pairs: Sequence[Pair],
    electrons: float,
    kept: Ledger,
    iterations: Sequence[int],
    seed: Sequence[int],
    family: str = "",
    part: tuple[slice, slice] | None = None,
) -> None:
    """Score every way on pairs of a stack; `part` (default: all but a rim) is what is scored."""
    wide, confocal = numpy_of(stack.widefield), numpy_of(stack.confocal)
    rim = min(RIM_PX, wide.shape[1] // 8)
    part = part or (slice(rim, -rim), slice(rim, -rim))
    brightest = {"widefield": np.percentile(wide, 99.95), "confocal": np.percentile(confocal, 99.95)}
    for k, pair in enumerate(pairs):
        image = recorded(wide[pair.source], electrons, np.random.default_rng([*seed, k]))
        z_um = (pair.target - pair.source) * model.domain.step_um
        targets = {"widefield": wide[pair.target][part], "confocal": confocal[pair.target][part]}
        spans = {h: float(np.percentile(t, 99.95)) for h, t in targets.items()}
        lit = [h for h in HEADS if spans[h] > DARK_SHARE * brightest[h]]
        made, other = model.opened(image).plane(z_um), model.opened(image)
        other.rounds = 0
        alone = other.plane(z_um)
        unit = float(np.percentile(wide[pair.source], PEAK)) / electrons  # light of a photo-electron
        for head in lit:
            own = {
                "input": image - DARK_COUNTS,
                "network": getattr(made, head),
                "network alone": getattr(alone, head),
            }
            for way, plane in own.items():
                found = score(plane[part], targets[head], spans[head])
                found["unfitted_db"] = decibels(unit * plane[part], targets[head], spans[head])
                kept.add(electrons, head, pair.share, family, way, found)
        truly = model.opened(image, stack.optics)
        for way, plane in physical_ways(truly, z_um, iterations):
            for head in lit:
                kept.add(
                    electrons, head, pair.share, family, way, score(plane[part], targets[head], spans[head])
                )


def physical_ways(
    refocuser: Refocuser, z_um: float, iterations: Sequence[int] = ITERATIONS
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield deconvolved planes at every setting, without and with the blur of the focus put back."""
    settings: list[tuple[str, dict[str, Any]]] = [
        (f"wiener:{noise:g}", {"kind": "wiener", "noise": noise}) for noise in WIENER_NOISE
    ]
    settings += [(f"richardson-lucy:{n}", {"kind": "richardson-lucy", "iterations": n}) for n in iterations]
    for name, options in settings:
        plane = deconvolved(refocuser, z_um, **options)
        yield name, plane
        yield f"{name}, blurred", in_focus_blur(plane, refocuser)


def in_focus_blur(plane: np.ndarray, refocuser: Refocuser) -> np.ndarray:
    """Return a plane of point sources as the microscope would show it in focus."""
    domain, size = refocuser.domain, (plane.shape[0], plane.shape[1])
    transfer = transfer_table(domain.optics, domain.range_um).planes(
        "widefield", 0.0, size, refocuser.pixel_um
    )
    spectrum = torch.fft.rfft2(torch.from_numpy(plane)) * torch.from_numpy(transfer[0])
    return numpy_of(torch.fft.irfft2(spectrum, size))


def fitted(found: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a result with the scale, not negative, and the offset that suit the target best."""
    scale, offset = fit_scale(found, target, offset=True)
    if scale < 0:
        scale, offset = 0.0, float(target.mean())
    return np.asarray(scale * found + offset, np.float32)


def score(found: np.ndarray, target: np.ndarray, span: float) -> Scores:
    """Return ``psnr_db``, ``ssim`` and ``pearson`` after the fit, `span` being the range."""
    from skimage.metrics import structural_similarity

    shown = fitted(found, target)
    similar = structural_similarity(target, shown, data_range=span)  # type: ignore[no-untyped-call]
    return {
        "psnr_db": decibels(shown, target, span),
        "ssim": float(similar),
        "pearson": pearson(found, target),
    }


def decibels(found: np.ndarray, target: np.ndarray, span: float) -> float:
    """Return the PSNR, `span` being the range, at most 120."""
    error = float(np.mean((found - target) ** 2, dtype=np.float64))
    return float(20 * np.log10(span) - 10 * np.log10(max(error, 1e-12 * span**2)))
