"""From rows to figures: means, worst cases, margins, and the tables of the documentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.metrics import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = dict[str, Any]
FIXED = (5, 15)
REFINED = (3, 5)
ALL = "all"


def summarise(rows: list[Row]) -> dict[str, Any]:
    """Return the figures of every group and noise level, and the table by volume.

    Parameters
    ----------
    rows : list of dict
        ``group, kind, specimen, electrons`` and what `richardson_lucy` and `network` return.

    Returns
    -------
    dict
        ``groups``: by group, then by photo-electrons (or ``all``): for each way its mean and worst scores;
        ``margin_db``, ``margin_common_db`` and ``margin_any_db``: network minus Richardson-Lucy at its best
        count for each volume, at the best count for the noise level, and with or without anti-aliasing,
        whichever is better at its best count: mean, standard error and worst; ``residual``: re-projections
        at equal iteration counts. ``volumes``: one row each.
    """
    counts = {e: common_count([r for r in rows if r["electrons"] == e]) for e in _levels(rows)}
    groups: dict[str, Any] = {}
    for group in dict.fromkeys(r["group"] for r in rows):
        own = [r for r in rows if r["group"] == group]
        groups[group] = {
            f"{e:g}": _figures([r for r in own if r["electrons"] == e], counts) for e in _levels(own)
        }
        groups[group][ALL] = _figures(own, counts)
    return {
        "best_iterations": {f"{e:g}": n for e, n in counts.items()},
        "groups": groups,
        "volumes": [_volume(r, counts[r["electrons"]]) for r in rows],
    }


def common_count(rows: list[Row]) -> int:
    """Return the iteration count whose mean PSNR over these volumes is the highest."""
    curves = [[s["psnr_db"] for s in r["iterations"]] for r in rows]
    return int(np.argmax(np.mean(curves, 0))) + 1


def best_count(row: Row, of: str = "iterations") -> int:
    """Return the iteration count of the highest PSNR of one volume."""
    return int(np.argmax([s["psnr_db"] for s in row[of]])) + 1


def _levels(rows: list[Row]) -> list[float]:
    return sorted({r["electrons"] for r in rows})


def ways(row: Row, common: int) -> dict[str, Row]:
    """Return the scores of every way to make the volume."""
    out = {
        "network": row["network"],
        "rl_best": row["iterations"][best_count(row) - 1],
        "rl_common": row["iterations"][common - 1],
    }
    out["rl_plain"] = row["plain"][best_count(row, "plain") - 1]
    out["rl_any"] = max(out["rl_best"], out["rl_plain"], key=lambda s: s["psnr_db"])
    out |= {f"rl_{n}": row["iterations"][n - 1] for n in FIXED if n <= len(row["iterations"])}
    out |= {f"refined_{n}": row["refined"][n - 1] for n in REFINED if n <= len(row["refined"])}
    return {**out, "constant": row["constant"]}


def _figures(rows: list[Row], counts: dict[float, int]) -> dict[str, Any]:
    scored = [ways(r, counts[r["electrons"]]) for r in rows]
    out: dict[str, Any] = {"volumes": len(rows), "specimens": len({r["specimen"] for r in rows})}
    for way in scored[0]:
        names = [n for n in scored[0][way] if n in SCORES or n.startswith("psnr_db_")]
        values = {n: [s[way][n] for s in scored if n in s[way]] for n in names}
        worst = {n: max(v) if n == "nrmse" else min(v) for n, v in values.items() if n in SCORES}
        out[way] = {**{n: _short(np.mean(v)) for n, v in values.items()}, "worst": worst}
    specimens = [r["specimen"] for r in rows]
    for name, other in (
        ("margin_db", "rl_best"),
        ("margin_common_db", "rl_common"),
        ("margin_any_db", "rl_any"),
    ):
        margins = [s["network"]["psnr_db"] - s[other]["psnr_db"] for s in scored]
        out[name] = _margin(margins, specimens)
    for part in ("near", "away"):
        key = f"psnr_db_{part}"
        both = [(k, s) for k, s in zip(specimens, scored, strict=True) if key in s["network"]]
        if both:
            out[f"margin_{part}_db"] = _margin(
                [s["network"][key] - s["rl_best"][key] for _, s in both], [k for k, _ in both]
            )
    out["residual"] = _residuals(rows)
    return out


def _margin(values: Iterable[float], specimens: list[Any]) -> dict[str, float]:
    """Return mean, standard error over specimens, and the worst; noise levels of one specimen are not new."""
    values = list(values)
    means = [
        float(np.mean([v for v, s in zip(values, specimens, strict=True) if s == one]))
        for one in dict.fromkeys(specimens)
    ]
    error = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    out = {"mean": _short(np.mean(values)), "worst": _short(min(values))}
    return out if math.isnan(error) else {**out, "standard_error": _short(error)}


def _residuals(rows: list[Row]) -> dict[str, Any]:
    """Return mean relative residuals after equal iterations, and the worst ratio refined to unrefined."""
    out: dict[str, Any] = {}
    if all(r["refined_residuals"] for r in rows):
        out["network"] = _short(np.mean([r["refined_residuals"][0] for r in rows]))
    for n in REFINED:
        pairs = [
            (r["refined_residuals"][n], r["residuals"][n - 1])
            for r in rows
            if n < len(r["refined_residuals"]) and n <= len(r["residuals"])
        ]
        if pairs:
            out[str(n)] = {
                "refined": _short(np.mean([a for a, _ in pairs])),
                "rl": _short(np.mean([b for _, b in pairs])),
                "worst_ratio": _short(max(a / b for a, b in pairs)),
                "refined_not_above_rl": sum(a <= b for a, b in pairs),
            }
    if all(len(r["residuals"]) >= 15 for r in rows):
        out["rl_15"] = _short(np.mean([r["residuals"][14] for r in rows]))
    return out


def _volume(row: Row, common: int) -> Row:
    scored = ways(row, common)
    out = {k: row[k] for k in ("group", "kind", "specimen", "electrons")}
    out |= {"rl_best_iterations": best_count(row), "rl_common_iterations": common}
    out["psnr_db"] = {way: s["psnr_db"] for way, s in scored.items()}
    out["ssim"] = {way: s["ssim"] for way, s in scored.items()}
    out["rl_psnr_db"] = [s["psnr_db"] for s in row["iterations"]]
    out["residuals"] = {"rl": row["residuals"][:5], "refined": row["refined_residuals"]}
    return out


WORDS = {
    "network": "network",
    "rl_best": "Richardson-Lucy, best count for each volume",
    "rl_common": "Richardson-Lucy, best count for the noise level",
    "rl_plain": "the same for each volume, without anti-aliasing",
    "rl_5": "Richardson-Lucy, 5 iterations",
    "rl_15": "Richardson-Lucy, 15 iterations",
    "refined_3": "network and 3 iterations",
    "refined_5": "network and 5 iterations",
    "constant": "a constant image",
}
GROUP_WORDS = {"seeds": "Unseen specimens of the trained families", "families": "Families never trained on"}


def tables(figures: dict[str, Any]) -> str:
    """Return the figures of one model as Markdown."""
    lines: list[str] = []
    for group, levels in figures["groups"].items():
        noise = list(levels)
        lines += [f"**{GROUP_WORDS[group]}** ({levels[ALL]['volumes']} volumes), PSNR in dB:", ""]
        heads = [f"{e} e⁻" if e != ALL else "all" for e in noise]
        lines += [
            f"| | {' | '.join(heads)} | worst | SSIM | NRMSE | Pearson |",
            "|---" * (len(noise) + 5) + "|",
        ]
        for way, words in WORDS.items():
            if way not in levels[ALL]:
                continue
            mean = [f"{levels[e][way]['psnr_db']:.2f}" for e in noise]
            every = levels[ALL][way]
            rest = [f"{every['worst']['psnr_db']:.2f}", *(f"{every[n]:.3f}" for n in SCORES[1:])]
            lines.append(f"| {words} | {' | '.join([*mean, *rest])} |")
        for key, words in (
            ("margin_db", "network over the best Richardson-Lucy"),
            ("margin_any_db", "the same, with or without anti-aliasing"),
            ("margin_near_db", "the first, near z = 0"),
            ("margin_away_db", "the first, away from it"),
        ):
            if key in levels[ALL]:
                cells = [_with_error(levels[e].get(key)) for e in noise]
                worst = f"{levels[ALL][key]['worst']:+.2f}"
                lines.append(f"| {words} | {' | '.join(cells)} | {worst} | | | |")
        lines += [
            "",
            "| relative residual | refined | Richardson-Lucy | refined is not above |",
            "|---|---|---|---|",
        ]
        for n in REFINED:
            found = levels[ALL]["residual"].get(str(n))
            if found:
                share = f"{found['refined_not_above_rl']} of {levels[ALL]['volumes']}"
                lines.append(f"| {n} iterations | {found['refined']:.4f} | {found['rl']:.4f} | {share} |")
        lines.append("")
    return "\n".join(lines)


def _with_error(margin: dict[str, float] | None) -> str:
    if margin is None:
        return ""
    error = f" ± {margin['standard_error']:.2f}" if "standard_error" in margin else ""
    return f"{margin['mean']:+.2f}{error}"


def _short(value: float | np.floating[Any]) -> float:
    return float(f"{value:.5g}")
