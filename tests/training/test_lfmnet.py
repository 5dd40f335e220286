"""LFMNet as a task: its plan, its loss, the published network's patches, and the model that comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import read_card
from napari_lfm.networks.catalogue import read_model
from napari_lfm.networks.registry import open_network
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.training import lfmnet, lfmnet_plan
from napari_lfm.training.config import TrainConfig
from napari_lfm.training.lfmnet import LfmnetTask
from napari_lfm.training.lfmnet_card import finish_model
from napari_lfm.training.lfmnet_paper import PaperTask
from napari_lfm.training.lfmnet_plan import LfmnetPlan, plan_of_record, z_of_card
from napari_lfm.training.lightfield_pairs import NEAR_OPTICS, PairSettings
from napari_lfm.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path

N, S, CELLS = 5, 3, 6


@pytest.fixture(scope="module")
def tiny() -> Microscope:
    """20x/0.45 in air with lenslets of 5 pixels, 5 um in the object."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=20),
        wavelength_um=0.55,
        sample_index=1.0,
    )


@pytest.fixture
def plan(tiny: Microscope, monkeypatch: pytest.MonkeyPatch) -> LfmnetPlan:
    """Three planes, beads, one microscope, two validation frames."""
    monkeypatch.setattr(lfmnet, "VALIDATION_SCENES", 2)
    settings = PairSettings(
        families=("beads",), cells=CELLS, z_substeps=1, errors=NEAR_OPTICS[:1], pool=3, most=6
    )
    return LfmnetPlan(tiny, (-12.0, 0.0, 12.0), "small", "beads", S, N, 1, settings)


def prepared(task: LfmnetTask) -> LfmnetTask:
    for _ in task.prepare():
        pass
    return task


def test_a_plan_comes_back_from_its_record(plan: LfmnetPlan) -> None:
    assert plan_of_record(plan.record()) == plan
    other = replace(plan, settings=replace(plan.settings, errors=NEAR_OPTICS, storage="float16"))
    assert plan_of_record(other.record()) == other
    for damage in ({"z_um": "deep"}, {"settings": {}}, {"microscope": {"name": "x"}}):
        with pytest.raises(RequestError, match="not one of this version"):
            plan_of_record({**plan.record(), **damage})


def test_depths_of_a_card() -> None:
    assert z_of_card(-7, 7, 1) == [float(z) for z in range(-7, 8)]
    assert len(z_of_card(-28.35, 28.35, 0.9)) == 64
    with pytest.raises(RequestError, match="is empty"):
        z_of_card(1, -1, 1)
    with pytest.raises(RequestError, match="more than a network of 256"):
        z_of_card(0, 300, 1)


def test_the_network_sees_the_planes_that_it_makes(plan: LfmnetPlan) -> None:
    slopes = plan.slopes
    assert slopes[0] == pytest.approx(-slopes[-1]) and slopes[0] > 0  # + z is seen by +u at smaller s
    many = replace(plan, z_um=tuple(np.linspace(-20, 20, 80).tolist()))
    assert len(many.slopes) == 32
    assert many.network["depths"] == 80


class Gives(torch.nn.Module):
    """A network that gives one volume whatever it is shown."""

    def __init__(self, volume: torch.Tensor) -> None:
        super().__init__()
        self.volume = volume

    def forward(self, image: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return self.volume


def test_a_perfect_volume_costs_nothing_and_an_empty_one_about_one(plan: LfmnetPlan) -> None:
    task = prepared(LfmnetTask(plan, 2))
    batch = task.batch(3)
    target = batch["volume"]

    def loss_of(volume: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        task.modules = {"network": Gives(volume)}
        return task.loss("train", {**batch, "volume": truth})

    perfect, empty = loss_of(target, target), loss_of(torch.zeros_like(target), target)
    assert float(perfect["loss"]) == pytest.approx(0, abs=1e-6)
    assert 0.2 < float(empty["signal"]) <= 1.001
    # what the volume leaves unexplained is light from above and below it, haze and noise
    assert 0.1 < float(empty["reprojection"]) <= 1.1
    # dim and bright specimens count alike, as long as they are not dark
    bright = loss_of(torch.zeros_like(target), 3 * target)
    assert float(bright["signal"]) == pytest.approx(float(empty["signal"]), rel=0.3)


def test_the_network_is_given_a_linear_inverse_of_its_frames(plan: LfmnetPlan) -> None:
    task = prepared(LfmnetTask(plan, 2))
    assert plan.start is not None
    batch, across = task.batch(1), CELLS * plan.start.voxels
    assert batch["start"].shape == (2, 2 * len(plan.z_um), across, across)
    network: Any = task.modules["network"]
    assert bool((network.start_scale > 0).all())
    assert network.start_scale[0] != network.start_scale[1]
    bright = task.start_of(batch["image"])[:, : len(plan.z_um)] / network.start_scale[0]
    assert 0.1 < float(bright.flatten(1).amax(1).min()) < 20


def test_many_pixels_start_from_iterations_that_are_made_once(
    plan: LfmnetPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfmnet_plan, "LARGE_N", N - 1)
    monkeypatch.setattr(lfmnet_plan, "LARGE_START_ITERATIONS", (2, 6))
    task = prepared(LfmnetTask(plan, 2))
    made: list[int] = []
    real = task.pairs.recording
    monkeypatch.setattr(task.pairs, "recording", lambda index: made.append(index) or real(index))
    batches = [task.batch(step) for step in range(12)]
    assert sorted(made) == sorted(set(made))  # each was recorded and iterated once
    network: Any = task.modules["network"]
    assert network.start_iterations == (2, 6)
    assert batches[0]["start"].shape == (2, network.start_channels, 2 * CELLS, 2 * CELLS)
    # turned and flipped together: iterating the turned frame gives the turned iterations
    for batch in batches[:4]:
        anew = task.start_of(batch["image"])
        assert float((anew - batch["start"]).abs().max()) < 0.02 * float(anew.max())
    # other tasks of the same plan draw the same; that is what an exact resume rests on
    again = prepared(LfmnetTask(plan, 2)).batch(7)
    assert all(torch.equal(again[name], batches[7][name]) for name in again)
    # the first answer is nearly the last volume of the start, as bright as the specimen
    batch = batches[3]
    with torch.no_grad():
        first = network(batch["image"], batch["start"])
    last = torch.nn.functional.interpolate(batch["start"][:, 3:], first.shape[-2:], mode="bilinear")
    expected = last * (2 / S) ** 2 / task.output_scale
    assert float((first - expected).norm() / expected.norm()) < 0.3


def test_a_better_volume_scores_better(plan: LfmnetPlan) -> None:
    task = prepared(
        LfmnetTask(plan, 2, baseline=lambda image: np.ones((3, CELLS * S, CELLS * S), np.float32))
    )
    assert len(task.validation_pairs) == 2

    class Knows(torch.nn.Module):
        def __init__(self, noise: float) -> None:
            super().__init__()
            self.weight, self.noise = torch.nn.Parameter(torch.ones(1)), noise

        def volume_of(self, image: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
            return next(k for k in [p.volume for p in task.validation_pairs if p.image is image]) * 1.0 + (
                self.noise * torch.rand(1, 3, CELLS * S, CELLS * S)
            )

    with torch.no_grad():
        good, bad = (task.validate({"network": Knows(noise)}) for noise in (0.01, 0.5))
    assert good.score > bad.score > 0
    assert good.values["baseline_psnr_db"] == task.baseline_psnr_db
    assert good.values["baseline_psnr_db"] < good.score
    assert set(good.images) == {"truth", "network", "richardson-lucy"}


def test_the_published_network_is_fed_patches_of_three_lenslets(plan: LfmnetPlan) -> None:
    paper = replace(plan, size="paper")
    assert (paper.architecture, paper.truth_voxels, paper.network["fov"]) == ("lfmnet-paper", N, 5)
    assert replace(paper, settings=replace(paper.settings, cells=20)).network["fov"] == 9
    task = prepared(PaperTask(paper, 5))
    batch = task.batch(2)
    assert batch["light_field"].shape == (5, 1, N, N, 7, 7)
    assert batch["volume"].shape == (5, 3, 3 * N, 3 * N)
    assert 0 <= float(batch["volume"].min()) < float(batch["volume"].max()) <= 1
    again = task.batch(2)
    assert torch.equal(batch["light_field"], again["light_field"])
    losses = task.loss("train", batch)
    losses["loss"].backward()
    assert all(p.grad is not None for p in task.modules["network"].parameters())
    # the middle of a patch is what the volume shows: with all of the frame as one patch it is the frame
    pairs = task.pairs.batch(2, 2)
    middle = batch["light_field"][0, 0].permute(2, 0, 3, 1)[2:5, :, 2:5].reshape(3 * N, 3 * N)
    places = [
        (y, x)
        for y in range(CELLS - 2)
        for x in range(CELLS - 2)
        if torch.equal(pairs.image[0, y * N : (y + 3) * N, x * N : (x + 3) * N], middle)
    ]
    assert len(places) == 1
    y, x = (v * N for v in places[0])
    wanted = (pairs.volume[0, :, y : y + 3 * N, x : x + 3 * N] / task.output_scale).clamp(0, 1)
    assert torch.equal(batch["volume"][0], wanted)


@pytest.mark.parametrize("size", ["small", "paper"])
def test_a_finished_run_becomes_a_model(plan: LfmnetPlan, tmp_path: Path, size: str) -> None:
    plan = replace(plan, size=size)
    task = prepared((PaperTask if size == "paper" else LfmnetTask)(plan, 2))
    config = TrainConfig(steps=3, device="cpu", precision="float32", prefetch=0, batch_size=2)
    for _ in train(task, config, tmp_path / "run"):
        pass
    extras: dict[str, Any] = {"licence": "BSD-3-Clause", "scores": [{"set": "mine", "psnr_db": 1.0}]}
    card = finish_model(
        tmp_path / "run", plan, task.output_scale, tmp_path / "my-model", {"rl5_psnr_db": 20.0}, **extras
    )
    assert read_card(tmp_path / "my-model") == card
    assert (card.id, card.architecture, card.n_pixels) == ("my-model", plan.architecture, N)
    assert card.voxels_per_lenslet == (N if size == "paper" else S)
    assert card.z_um == list(plan.z_um)
    assert card.scalers == {"input_percentile": 99.9, "output_scale": task.output_scale}
    assert card.licence == "BSD-3-Clause"
    assert "no recording was used" in card.data
    assert card.scores[0]["rl5_psnr_db"] == 20.0
    assert card.scores[1] == {"set": "mine", "psnr_db": 1.0}
    assert card.training["steps"] == 3
    assert card.training["config"]["learning_rate"] == config.learning_rate
    assert plan_of_record(card.training["plan"]) == plan
    assert card.parameters == sum(p.numel() for p in task.modules["network"].parameters())
    network: Any = open_network(read_model(tmp_path / "my-model"))
    given = [torch.rand(1, 4 * N, 6 * N)]
    if plan.start is not None:
        trained: Any = task.modules["network"]
        assert torch.allclose(network.start_scale, trained.start_scale, rtol=1e-3)
        v = plan.start.voxels
        given.append(torch.rand(1, network.start_channels, 4 * v, 6 * v))
    with torch.no_grad():
        out = network.volume_of(*given)
    voxels = card.voxels_per_lenslet
    assert out.shape == (1, 3, 4 * voxels, 6 * voxels)


def test_a_run_without_weights_is_no_model(plan: LfmnetPlan, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no weights"):
        finish_model(tmp_path, plan, 1.0, tmp_path / "model")
    assert not (tmp_path / "model").exists()
