"""``bench wfcon-quality``: WFCON-Net beside Richardson-Lucy on simulated stacks that it never saw.

Every way gets the same recording (uint16, with noise) and goes through the public methods. The truth is
scaled so that its percentiles 0.5 and 99.9 become 0 and 1, then clipped. The network's output is scored as
it is: it was trained to be on that scale. What has no scale of its own is scaled by its own percentiles.
*Fitted* is the better of percentiles and of a least-squares fit of scale and offset to the truth, for the
network and for Richardson-Lucy, which also has its best iteration, picked with the truth at hand; and it
gets the optics and the aberration of the simulation.

``python -m napari_lfm.bench.wfcon_quality --help`` has options.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._tissue_scenes import (
    ABERRATION_UM,
    ELECTRONS,
    LEVELS,
    TissueStack,
    hardness,
    make_stacks,
    normalised,
)
from napari_lfm.core.events import Preview, Result
from napari_lfm.core.metrics import fit_scale
from napari_lfm.core.stack_scores import stack_scores
from napari_lfm.io.atomic import replacing_file
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.train_wfcon import tissue_microscope
from napari_lfm.networks.stack_scale import stack_levels
from napari_lfm.simulation.thick_tissue import ThickTissue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

SETS = (
    ("phantoms", "low"),
    ("phantoms", "middle"),
    ("phantoms", "high"),
    ("phantoms", "beyond"),
    ("seeds", "middle"),
    ("nuclei", "middle"),
    ("nuclei", "beyond"),
)
ITERATIONS = 20
"""Of accelerated Richardson-Lucy; they do what about 50 plain ones do."""
REACHES_UM = (8.0,)
"""How far its model follows the light above and below a point: farther than by default, and better so."""
SKIPS = (2, 4)


def run(
    progress: Callable[[str], None] | None = None,
    model: str | None = None,
    count: int = 2,
    sets: Sequence[tuple[str, str]] = SETS,
    iterations: int = ITERATIONS,
) -> dict[str, Any]:
    """Score a model.

    Parameters
    ----------
    progress : callable, optional
    model : str, optional
        Id or folder; default the bundled one.
    count : int
        Stacks in each set.
    sets : sequence of (group, level)
    iterations : int
        Of Richardson-Lucy; 0 leaves it out.

    Returns
    -------
    dict
        ``rows``: group, level, ``ways`` with mean RMSE and SSIM of each; ``hardness`` of the levels.
    """
    say = progress or (lambda _: None)
    maker = ThickTissue()
    rows = []
    for group, level in sets:
        every: dict[str, list[dict[str, float]]] = {}
        for k, stack in enumerate(make_stacks(group, level, count, maker)):
            for way, score in score_stack(stack, model, iterations).items():
                every.setdefault(way, []).append(score)
            shown = ", ".join(f"{w} {v[-1]['rmse']:.4f}" for w, v in every.items())
            say(f"{group}, {level}, {k + 1} of {count}: {shown}")
        ways = {w: {n: float(np.mean([s[n] for s in v])) for n in v[0]} for w, v in every.items()}
        rows.append({"group": group, "level": level, "stacks": count, "ways": ways})
    return {
        "rows": rows,
        "electrons": ELECTRONS,
        "mean_free_path_um": LEVELS,
        "hardness": {level: hardness(level) for level in dict.fromkeys(lv for _, lv in sets)},
        "model": _model_of(model),
    }


def score_stack(stack: TissueStack, model: str | None, iterations: int) -> dict[str, dict[str, float]]:
    """Return the scores of every way on one recording."""
    truth = stack.truth
    recorded = stack.widefield
    out = {
        "constant": stack_scores(np.full_like(truth, np.clip(truth, 0, 1).mean()), truth),
        "input": stack_scores(normalised(recorded.values), truth),
        "input, fitted": fitted(recorded.values, truth),
    }
    made = network(recorded, model)
    out["network"] = stack_scores(made / stack_levels(recorded.values).span, truth)
    out["network, fitted"] = fitted(made, truth)
    if iterations:
        out["richardson-lucy, fitted"] = best_richardson_lucy(stack, truth, iterations)
    for every in SKIPS:
        kept = recorded.isel(z=slice(None, None, every))
        found = network(kept, model, planes="model") / stack_levels(kept.values).span
        out[f"network, every {every}. plane"] = stack_scores(found, truth[: len(found)])
    return out


def fitted(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the better scores of two scalings: by percentiles, and by least squares with the truth."""
    a, b = fit_scale(found, truth, offset=True)
    both = [
        stack_scores(shown, truth) for shown in (normalised(found), a * np.asarray(found, np.float32) + b)
    ]
    return {
        "rmse": min(s["rmse"] for s in both),
        "ssim": max(s["ssim"] for s in both),
        "psnr_db": max(s["psnr_db"] for s in both),
    }


def network(image: xr.DataArray, model: str | None, planes: str = "input") -> np.ndarray:
    """Return what the method makes of a recording."""
    method = get_method("wfcon")
    request = Request("wfcon", {"image": image}, make_parameters(method, {"planes": planes}), model=model)
    last = deque(method.run(request), maxlen=1)[0]
    assert isinstance(last, Result)
    return np.asarray(last.outputs[last.primary].values)


def best_richardson_lucy(stack: TissueStack, truth: np.ndarray, iterations: int) -> dict[str, float]:
    """Return the best scores that any iteration has, each by itself, and which one it was."""
    method = get_method("deconvolve-widefield")
    best = {"rmse": np.inf, "ssim": -np.inf, "psnr_db": -np.inf, "iteration": 0.0}
    for reach in REACHES_UM:
        wishes = {
            "iterations": iterations,
            "accelerate": True,
            "depth_um": ABERRATION_UM,
            "psf_reach_um": reach,
        }
        request = Request(
            "deconvolve-widefield",
            {"image": stack.widefield},
            make_parameters(method, wishes),
            microscope=tissue_microscope(),
        )
        for event in method.run(request):
            if not isinstance(event, Preview):
                continue
            score = fitted(np.asarray(event.image.values), truth)
            if score["rmse"] < best["rmse"]:
                best |= {
                    "rmse": score["rmse"],
                    "psnr_db": score["psnr_db"],
                    "iteration": float(event.progress.values["iteration"]),
                }
            best["ssim"] = max(best["ssim"], score["ssim"])
    return best


def tables(figures: dict[str, Any]) -> str:
    """Return the rows as Markdown."""
    names = list(figures["rows"][0]["ways"])
    lines = ["| specimens | haze | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for row in figures["rows"]:
        cells = [f"{row['ways'][n]['rmse']:.4f} / {row['ways'][n]['ssim']:.3f}" for n in names]
        lines.append(f"| {row['group']} | {row['level']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _model_of(model: str | None) -> dict[str, str]:
    from napari_lfm.networks.registry import find_model, list_models

    entry = (
        find_model(model, "wfcon")
        if model
        else next((e for e in list_models("wfcon") if e.source == "bundled"), None)
    )
    return {} if entry is None else {"id": entry.card.id, "sha256": entry.card.sha256}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with options; the figures go to the standard output as JSON, or into a file."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench.wfcon_quality")
    parser.add_argument("model", nargs="?", help="id or folder; none: the bundled one")
    parser.add_argument("--count", type=int, default=2, help="stacks in each set")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of Richardson-Lucy; 0: none")
    parser.add_argument("--save", type=Path, help="JSON file to write")
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON")
    given = parser.parse_args(arguments)
    found = run(lambda text: _say(str(text)), given.model, given.count, iterations=given.iterations)
    text = json.dumps(found, indent=1) + "\n"
    if given.save is not None:
        with replacing_file(given.save) as file:
            file.write(text.encode())
    sys.stdout.write(tables(found) + "\n" if given.table else text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
