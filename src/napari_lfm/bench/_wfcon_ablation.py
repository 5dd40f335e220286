"""What every part of WFCON-Net is worth: networks trained alike but for one thing.

``python -m napari_lfm.bench._wfcon_ablation FOLDER --save FILE`` trains and scores; finished trainings in the
folder are only scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._tissue_scenes import make_stacks, normalised
from napari_lfm.bench.wfcon_quality import network
from napari_lfm.core.stack_scores import stack_scores
from napari_lfm.io.atomic import replacing_file
from napari_lfm.methods.train_wfcon import make_wfcon_wish, run_wfcon_training
from napari_lfm.networks.card import CARD_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLAIN = {"compressed": 0.0}
GENTLE = {**PLAIN, "learning_rate": 1e-4}
LOSSES: dict[str, dict[str, Any]] = {
    "L1": {"adversarial": False, "tuning": GENTLE},
    "L1 + GAN": {"tuning": {**GENTLE, "vgg": 0.0}},
    "L1 + GAN + VGG (as published)": {"tuning": GENTLE},
    "L1 + roots (as shipped)": {"adversarial": False, "tuning": {"learning_rate": 1e-4}},
}
"""Trained on from the bundled weights: what a discriminator teaches shows late."""
NETWORKS: dict[str, dict[str, Any]] = {
    "3-D": {"adversarial": False, "tuning": PLAIN},
    "3-D without bands": {"adversarial": False, "tuning": {**PLAIN, "bands": []}},
    "2-D, five planes as channels": {"adversarial": False, "tuning": {**PLAIN, "flat": True, "planes": 5}},
    "2-D, single plane": {"adversarial": False, "tuning": {**PLAIN, "flat": True}},
}
"""Trained from random weights with L1 alone."""
BUNDLED = "wfcon-tissue-60x1.4"
SETS = (("seeds", "middle"), ("phantoms", "middle"))


def train_all(
    folder: Path, steps: tuple[int, int], vgg_file: str, say: Callable[[str], None], shared: dict[str, Any]
) -> dict[str, Path]:
    """Train every variant that the folder does not hold yet: losses so many steps, networks so many."""
    out = {}
    start = {"start_from": BUNDLED}
    wanted = [(n, {**c, **start}, steps[0]) for n, c in LOSSES.items()]
    wanted += [(n, c, steps[1]) for n, c in NETWORKS.items()]
    for number, (name, changes, count) in enumerate(wanted):
        model = folder / f"variant-{number}"
        if not (model / CARD_FILE).is_file():
            wish = make_wfcon_wish(
                {
                    "minutes": None,
                    "steps": count,
                    "seed": 5,
                    "device": "cpu",
                    "vgg_file": vgg_file,
                    "id": model.name,
                    **changes,
                    "tuning": {"validate_every_steps": count, **shared, **changes.get("tuning", {})},
                }
            )
            say(f"training {name}")
            for _ in run_wfcon_training(wish, folder / f"training-{number}", model_folder=model):
                pass
        out[name] = model
    return out


def score_all(models: dict[str, Path], count: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a row for every variant and set."""
    rows = []
    stacks = {s: make_stacks(*s, count) for s in SETS}
    for name, model in models.items():
        card = json.loads((model / CARD_FILE).read_text(encoding="utf-8"))
        row: dict[str, Any] = {
            "variant": name,
            "parameters": card["parameters"],
            "steps": card["training"]["steps_in_all"],
            "losses": card["training"]["losses"],
        }
        for (group, level), made in stacks.items():
            scores = [stack_scores(normalised(network(s.widefield, str(model))), s.truth) for s in made]
            row[group] = {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}
            say(f"{name}: {group}, {level}: RMSE {row[group]['rmse']:.4f}")
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, score everything, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench._wfcon_ablation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, nargs=2, default=(150, 300), help="of losses, of networks")
    parser.add_argument("--vgg", default="", help="weights of VGG16")
    parser.add_argument("--count", type=int, default=2, help="stacks in each set")
    parser.add_argument("--pool", type=int, default=16, help="specimens in memory")
    parser.add_argument("--save", type=Path, required=True)
    given = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    models = train_all(given.folder, tuple(given.steps), given.vgg, say, {"pool": given.pool})
    rows = score_all(models, given.count, say)
    with replacing_file(given.save) as file:
        file.write((json.dumps({"steps": list(given.steps), "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
