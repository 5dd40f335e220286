"""Put a trained model into the package: licence, scores on unseen specimens, notes.

    python scripts/ship_model.py MODEL_FOLDER --figures docs/results/lfmnet-quality.json

The figures are those of ``python -m napari_lfm.bench.lfmnet_quality MODEL_FOLDER --save ...``; they must be
of the very weights that are shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from napari_lfm.core.metrics import SCORES
from napari_lfm.networks.card import ModelCard, read_card
from napari_lfm.networks.catalogue import bundled_model_dir
from napari_lfm.networks.weights import load_weights, save_model

LICENCE = "BSD-3-Clause"
SETS = {
    "seeds": "unseen specimens of the trained families",
    "families": "families never trained on (grown and traced neurons, textured nuclei)",
}


def scores_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an entry of the card for each group of specimens."""
    out = []
    for group, name in SETS.items():
        if group not in found["groups"]:
            continue
        every = found["groups"][group]["all"]
        noise = [e for e in found["groups"][group] if e != "all"]
        out.append(
            {
                "set": f"simulated, {name}, {', '.join(noise)} electrons, optics off: bench lfmnet-quality",
                "volumes": every["volumes"],
                **{n: every["network"][n] for n in SCORES},
                "rl_best_psnr_db": every["rl_best"]["psnr_db"],
                "rl_15_psnr_db": every["rl_15"]["psnr_db"],
                "margin_over_best_rl_db": every["margin_db"]["mean"],
            }
        )
    return out


def _scores(card: ModelCard, figures: Path | None) -> list[dict[str, Any]]:
    """Return the scores that go into the card: a localiser's training has measured its own already."""
    if card.method == "localize":
        own = [s for s in card.scores if not str(s.get("set", "")).startswith("bench")]
        return own if figures is None else [*own, *_beside(figures)]
    if card.method == "wfcon":
        own = [s for s in card.scores if not str(s.get("set", "")).startswith("bench")]
        return own if figures is None else [*own, *_stacks(figures, card)]
    if figures is None:
        sys.exit("Give the figures of bench lfmnet-quality with --figures.")
    found = json.loads(figures.read_text(encoding="utf-8"))["models"].get(card.id)
    if found is None or found["sha256"] != card.sha256:
        sys.exit(f"{figures} has no figures of these weights of '{card.id}'.")
    validation = [s for s in card.scores if str(s.get("set", "")).startswith("validation")]
    return [*validation, *scores_of(found)]


def _beside(figures: Path) -> list[dict[str, Any]]:
    """Return a localiser's errors beside the model-based algorithms', from ``bench localize --json``."""
    out: dict[str, dict[str, Any]] = {}
    for row in json.loads(figures.read_text(encoding="utf-8"))["rows"]:
        light = f"{row['electrons']:g} electrons, haze {row['haze']:g}"
        name = f"bench localize: {row['specimens']}, {light}, optics off"
        errors = [row[f"rmse_{axis}_um"] for axis in "zyx"]
        score = {"rmse_zyx_um": errors, "f1": row["f1"], "inside_sigma": row["inside_sigma"]}
        out.setdefault(name, {"set": name})[row["algorithm"]] = score
    return list(out.values())


def _stacks(figures: Path, card: ModelCard) -> list[dict[str, Any]]:
    """Return a stack network's errors beside Richardson-Lucy's, from ``bench wfcon-quality``."""
    found = json.loads(figures.read_text(encoding="utf-8"))
    if found["model"].get("sha256") != card.sha256:
        sys.exit(f"{figures} has no figures of these weights of '{card.id}'.")
    out = []
    for row in found["rows"]:
        score: dict[str, Any] = {"set": f"bench wfcon-quality: {row['group']}, haze {row['level']}"}
        score |= {way: {k: round(v, 4) for k, v in s.items()} for way, s in row["ways"].items()}
        out.append(score)
    return out


def main() -> None:
    """Read the model and its figures, write both into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder with card.json and weights.safetensors")
    parser.add_argument("--figures", type=Path, help="JSON of bench lfmnet-quality, or of bench localize")
    parser.add_argument("--recipe", default="", help="file of the recipe, as the card names it")
    parser.add_argument("--notes", default="", help="what a user should know")
    given = parser.parse_args()
    card = read_card(given.model)
    changes = {
        "licence": LICENCE,
        "scores": _scores(card, given.figures),
        "notes": given.notes or card.notes,
        "recipe": given.recipe or card.recipe,
    }
    written = save_model(
        bundled_model_dir() / card.id, card.model_copy(update=changes), load_weights(given.model, card)
    )
    if written.sha256 != card.sha256:
        sys.exit("The weights changed while they were copied.")
    print(f"{card.id} {written.sha256}")


if __name__ == "__main__":
    main()
