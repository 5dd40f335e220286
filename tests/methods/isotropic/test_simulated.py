"""The model that every stack starts from: its training, and its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.train_isotropic import make_isotropic_wish, run_isotropic_training
from napari_lfm.methods.train_isotropic_check import check_isotropic, estimate_isotropic
from napari_lfm.methods.train_isotropic_wish import config_of, simulated_plan_of
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_wish import load_recipe
from napari_lfm.networks.isotropic_fit import factor_of
from napari_lfm.training.isotropic_simulated import SimulatedPlan

RECIPE = Path(__file__).parents[3] / "recipes" / "isotropic-starter.yaml"


def test_the_recipe_is_the_training_of_the_shipped_model() -> None:
    wish = make_isotropic_wish(load_recipe(RECIPE))
    assert wish.simulated and not wish.starts and wish.id == "isotropic-starter"
    assert simulated_plan_of(wish) == SimulatedPlan()
    config = config_of(wish)
    assert (config.minutes, config.batch_size, config.learning_rate) == (26, 16, 1e-3)
    assert check_isotropic(wish) == []
    assert "simulated slices" in estimate_isotropic(wish).sentences[0]


def test_a_model_for_any_distance_of_planes(tmp_path: Path) -> None:
    wish = make_isotropic_wish(
        {
            "simulated": True,
            "minutes": None,
            "steps": 2,
            "start_from": "none",
            "device": "cpu",
            "tuning": {"widths": [8, 8], "patch_px": 32, "batch_size": 2, "pool": 2},
        }
    )
    events = list(run_isotropic_training(wish, tmp_path / "run", model_folder=tmp_path / "model"))
    last = events[-1]
    assert isinstance(last, TrainedModel) and last.entry is not None
    card = last.entry.card
    assert factor_of(card) == 0 and "packed nuclei" in card.specimens
    assert "no recording was used" in card.data


def test_simulated_slices_take_no_stack() -> None:
    with pytest.raises(RequestError, match="take no stack"):
        make_isotropic_wish({"simulated": True, "stacks": "mine.tif"})
