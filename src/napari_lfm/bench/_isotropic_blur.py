"""The blur along z as estimated from stacks, against the imposed one.

No stack here was looked at while the estimate was tuned: its constants come from other specimens and seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._isotropic_scenes import (
    REAL_NUCLEI_UM,
    SPECIMENS,
    Case,
    real_nuclei,
    recorded,
    simulated,
)
from napari_lfm.optics.axial_estimate import estimate_axial_blur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Say = Callable[[str], None]

SEEDS = (901, 902)
SHAPE = (97, 192, 192)
FACTORS = (2, 4, 6)
SHARES = (0.5, 0.8)
"""Imposed widths, in distances of planes."""
ELECTRONS = (100.0, 1000.0)
CLOSE = 0.1


def blur_estimates(
    say: Say = lambda _: None,
    seeds: Sequence[int] = SEEDS,
    specimens: Sequence[str] = tuple(SPECIMENS),
    shape: tuple[int, int, int] = SHAPE,
    factors: Sequence[int] = FACTORS,
) -> dict[str, Any]:
    """Return the estimate for every stack.

    Returns
    -------
    dict
        ``rows``: ``specimen, factor, electrons, imposed_um``, ``found_um`` (None where the estimate says that
        the stack does not tell), ``uncertainty_um``, ``doubtful`` (a note came with the figure);
        ``summary``: by specimen, by distance of the planes, of all, and of those without a note: ``stacks``,
        ``told``, ``close`` (share of those told that are within 10 %), ``median_ratio``, ``worst_ratio``,
        ``covered`` (share within two standard deviations).
    """
    rows = []
    for name, case, electrons in _stacks(say, seeds, specimens, shape, factors):
        found = estimate_axial_blur(case.stack, case.voxel_um)
        rows.append(
            {
                "specimen": name,
                "factor": case.factor,
                "electrons": electrons,
                "imposed_um": case.sigma_px * case.pixel_um,
                "found_um": found.sigma_um if found.is_known else None,
                "uncertainty_um": found.uncertainty_um if found.is_known else None,
                "doubtful": found.is_known and bool(found.note),
            }
        )
    groups = {name: [r for r in rows if r["specimen"] == name] for name in (*specimens, "real nuclei")}
    groups |= {f"planes {f} pixels apart": [r for r in rows if r["factor"] == f] for f in factors}
    groups |= {"all": rows, "all without a note": [r for r in rows if not r["doubtful"]]}
    return {"rows": rows, "summary": {name: summary_of(group) for name, group in groups.items() if group}}


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return how near the estimates of these rows are."""
    told = [r for r in rows if r["found_um"] is not None]
    out: dict[str, float | None] = {"stacks": len(rows), "told": len(told)}
    if not told:
        return {**out, "close": None, "median_ratio": None, "worst_ratio": None, "covered": None}
    imposed, found, spread = (
        np.array([r[k] for r in told]) for k in ("imposed_um", "found_um", "uncertainty_um")
    )
    ratio = found / imposed
    return {
        **out,
        "close": float((np.abs(ratio - 1) <= CLOSE).mean()),
        "median_ratio": float(np.median(ratio)),
        "worst_ratio": float(ratio[np.abs(np.log(ratio)).argmax()]),
        "covered": float((np.abs(found - imposed) <= 2 * spread).mean()),
    }


def _stacks(
    say: Say,
    seeds: Sequence[int],
    specimens: Sequence[str],
    shape: tuple[int, int, int],
    factors: Sequence[int],
) -> Iterator[tuple[str, Case, float]]:
    for name in specimens:
        for seed in seeds:
            say(f"blur along z: {name}, seed {seed}")
            volume = simulated(name, seed, shape)
            yield from _recordings(name, volume, factors, seed)
    real = real_nuclei()
    if real is not None:
        say("blur along z: real nuclei")
        yield from _recordings("real nuclei", real, factors, 0, pixel_um=REAL_NUCLEI_UM[1])


def _recordings(
    name: str, volume: np.ndarray, factors: Sequence[int], seed: int, **how: Any
) -> Iterator[tuple[str, Case, float]]:
    for factor in factors:
        for share in SHARES:
            for electrons in ELECTRONS:
                case = recorded(
                    name, volume, factor, seed=seed, electrons=electrons, sigma_px=share * factor, **how
                )
                yield name, case, electrons
