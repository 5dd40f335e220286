"""How well simulated pairs are registered: known shifts, three levels of haze and noise.

`registration_rows` is a part of ``bench wfcon``; ``python -m napari_lfm.bench._registration --help`` runs it
alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._registration_pairs import CASES, CLEAR, HAZY, WORST, PairMaker
from napari_lfm.io.atomic import replacing_file
from napari_lfm.training.registration import registered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.bench._registration_pairs import Case, Setup, Tissue

LEVELS = (CLEAR, HAZY, WORST)


def registration_rows(
    progress: Callable[[str], None] | None = None,
    setup: Setup | None = None,
    cases: Sequence[Case] = CASES,
    levels: Sequence[Tissue] = LEVELS,
) -> list[dict[str, Any]]:
    """Return a row for each pair and a summary for each level, JSON-ready.

    Returns
    -------
    list of dict
        Rows of one pair: ``level, kind, true_shift_voxels``, for ``psf``, ``correlation`` and ``combined``
        the ``*_error_voxels`` (z, y, x), ``*_confidence``, ``accepted``, ``reason``, ``seconds``. Then, with
        ``summary`` true: of how many ``pairs`` each is right on every axis to half a voxel (``*_right``; an
        estimate rounded to whole voxels is then exact where the shift is whole), the largest error of the
        combined one, how many were ``refused`` and how many ``wrongly_accepted``.
    """
    say = progress or (lambda _: None)
    maker = PairMaker(setup)
    rows: list[dict[str, Any]] = []
    for level in levels:
        found = [_row(maker, case, level, say) for case in cases]
        rows += [*found, summary_of(found)]
    return rows


def _row(maker: PairMaker, case: Case, level: Tissue, say: Callable[[str], None]) -> dict[str, Any]:
    moving, fixed = maker.pair(case, level)
    begin = time.perf_counter()
    result = registered(moving, fixed)
    seconds = time.perf_counter() - begin
    # the shift that mends it is the opposite of what was done
    truth = -np.asarray(case.shift)
    row: dict[str, Any] = {
        "level": level.name,
        "kind": case.kind,
        "true_shift_voxels": list(case.shift),
        "accepted": result.accepted,
        "reason": result.reason,
        "seconds": round(seconds, 2),
    }
    shifts = {e.method: e.shift_voxels for e in result.estimates} | {"combined": result.shift_voxels}
    for name, shift in shifts.items():
        row[f"{name}_error_voxels"] = [round(float(e), 3) for e in np.asarray(shift) - truth]
    row |= {f"{e.method}_confidence": round(e.confidence, 3) for e in result.estimates}
    say(f"{level.name}: {case.kind}, off by {row['combined_error_voxels']} voxels")
    return row


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one level."""
    out: dict[str, Any] = {"summary": True, "level": rows[0]["level"], "pairs": len(rows)}
    for name in ("psf", "correlation", "combined"):
        errors = [max(abs(e) for e in row[f"{name}_error_voxels"]) for row in rows]
        out[f"{name}_right"] = sum(e < 0.5 for e in errors)
        out[f"{name}_largest_error_voxels"] = max(errors)
    out["refused"] = sum(not row["accepted"] for row in rows)
    wrong = [max(abs(e) for e in row["combined_error_voxels"]) >= 0.5 for row in rows]
    out["wrongly_accepted"] = sum(w and row["accepted"] for w, row in zip(wrong, rows, strict=True))
    return out


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the summaries as a Markdown table."""
    out = [
        "| level | by the point spread function | by correlation | combined | largest error, combined | not "
        "accepted | accepted but wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row.get("summary"):
            continue
        right = [f"{row[f'{name}_right']} of {row['pairs']}" for name in ("psf", "correlation", "combined")]
        out.append(
            f"| {row['level']} | {' | '.join(right)} | {row['combined_largest_error_voxels']:.2f} | "
            f"{row['refused']} | {row['wrongly_accepted']} |"
        )
    return "\n".join(out) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; the rows go to the standard output as JSON, or into a file."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench._registration")
    parser.add_argument("--save", type=Path, help="JSON file to write")
    path = parser.parse_args(arguments).save
    rows = registration_rows(lambda text: _say(text))
    text = json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    with replacing_file(path) as file:
        file.write(text.encode())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
