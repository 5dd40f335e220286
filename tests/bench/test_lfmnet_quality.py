"""The comparison of networks with Richardson-Lucy, on a microscope and a network that take no time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.bench import _quality_scenes as scenes
from napari_lfm.bench import lfmnet_quality
from napari_lfm.bench._quality_rows import Judge
from napari_lfm.bench._quality_scenes import Field, Setup, draw_specimens, training_families
from napari_lfm.bench._quality_summary import common_count, summarise, tables
from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.lenslet_net import LensletNet
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective

if TYPE_CHECKING:
    from pathlib import Path

TINY = Microscope(
    name="tiny",
    objective=Objective(magnification=20, na=0.45),
    lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
    camera=Camera(pixel_um=11),
    wavelength_um=0.55,
    sample_index=1.0,
)
Z_UM = (-12.0, 0.0, 12.0)
SETUP = Setup(
    specimens=2,
    lenslets=9,
    electrons=(100.0, 4000.0),
    voxels=5,
    z_substeps=1,
    beyond=0.34,
    iterations=4,
    refine=3,
)


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    torch.manual_seed(0)
    sizes = {"n_pixels": 9, "depths": 3, "voxels_per_lenslet": 3, "slopes": [-0.1, 0.1]}
    sizes |= {"width": 4, "lenslet_width": 6, "blocks": 0, "angular": 1}
    net = LensletNet(**sizes)  # type: ignore[arg-type]
    torch.nn.init.normal_(net.leave.weight, std=0.3)
    card = ModelCard(
        id="tiny-net",
        title="A test",
        version="1.0",
        method="lfmnet",
        architecture="lfmnet-modern",
        network=sizes,
        microscope=TINY.model_dump(mode="json"),
        n_pixels=9,
        z_um=list(Z_UM),
        voxels_per_lenslet=3,
        scalers={"input_percentile": 99.9, "output_scale": 1.0},
        specimens=["beads"],
        licence="MIT",
        data="nothing",
        training={"plan": {"settings": {"families": ["beads", "bars"]}}},
        scores=[],
        hours=0.0,
        trained_on="nothing",
        date="2026-01-01",
        parameters=1,
        sha256="",
        versions={},
        notes="",
    )
    return save_model(tmp_path / "tiny-net", card, net.state_dict(), half=False)


def test_a_model_is_scored_and_the_work_is_kept(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    model, kept = str(tmp_path / "tiny-net"), tmp_path / "kept"
    found = lfmnet_quality.run(said.append, [model], SETUP, kept)["models"]["tiny-net"]
    assert found["families_trained"] == ["beads", "bars"]
    assert len(found["volumes"]) == 2 * 2 * 2
    kinds = {v["kind"] for v in found["volumes"] if v["group"] == "families"}
    assert kinds and kinds.isdisjoint({"beads", "bars"})
    for levels in found["groups"].values():
        assert set(levels) == {"100", "4000", "all"}
        every = levels["all"]
        assert every["volumes"] == 4 and every["specimens"] == 2
        # the best count of every volume is at least as good as one count for all, and as any fixed one
        assert every["rl_best"]["psnr_db"] >= every["rl_common"]["psnr_db"] - 1e-3
        difference = every["network"]["psnr_db"] - every["rl_best"]["psnr_db"]
        assert every["margin_db"]["mean"] == pytest.approx(difference, abs=2e-3)
        assert every["margin_db"]["worst"] <= every["margin_db"]["mean"]
        assert every["residual"]["3"]["refined"] > 0
        assert {"rl_common", "refined_3", "constant"} <= set(every)
    lines = (kept / "tiny-net.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 24  # Richardson-Lucy's rows, with anti-aliasing and without, and the network's
    assert any("8 of 8" in text for text in said)

    # a run that was cut off within a line goes on where it was, without a single new reconstruction
    (kept / "tiny-net.jsonl").write_text("\n".join([*lines, lines[0][:30]]), "utf-8")
    monkeypatch.setattr(lfmnet_quality, "richardson_lucy", None)
    monkeypatch.setattr(lfmnet_quality, "network", None)
    monkeypatch.setattr(scenes, "simulate_lightfields", None)
    again = lfmnet_quality.run(None, [model], SETUP, kept)["models"]["tiny-net"]
    assert again == found

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tiny-net -->\nold\n<!-- end -->\nafter\n", "utf-8")
    lfmnet_quality.fill_page(page, {"models": {"tiny-net": found}})
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "old" not in text
    assert f"{found['groups']['seeds']['all']['network']['psnr_db']:.2f}" in text
    with pytest.raises(RequestError, match="no place for 'other'"):
        lfmnet_quality.fill_page(page, {"models": {"other": found}})


def test_the_truth_lies_on_the_voxels_of_the_reconstruction() -> None:
    """A ball is where the recording's own truth, and the rectified light, say that it is."""
    from napari_lfm.lightfield.grid import cell_grid
    from napari_lfm.simulation.scene import Scene
    from napari_lfm.simulation.shapes import Ball

    field = Field(TINY, (0.0,), SETUP)
    scene = Scene((Ball((0.0, 11.0, -7.0), 4.0),))
    truth = field.truth(scene, 5)[0]
    assert truth.shape == (45, 45)
    grid = cell_grid(field.lattice, 9)
    assert grid.cells == (9, 9)
    index = np.mgrid[:45, :45].reshape(2, -1)
    voxel = (index * truth.ravel()).sum(1) / truth.sum()
    rectified = (voxel + 0.5) * 9 / 5 - 0.5  # voxels to rectified pixels, both along the lattice
    raw = grid.affine_px @ [*rectified, 1.0]
    middle = (np.array(field.lattice.image_shape) - 1) / 2
    np.testing.assert_allclose((raw[:2] - middle) * TINY.object_pixel_um, [11, -7], atol=0.1)


def test_the_margin_of_the_field_is_not_scored() -> None:
    field = Field(TINY, Z_UM, SETUP)
    rng = np.random.default_rng(0)
    truth = rng.random((3, 27, 27))
    judge = Judge(field, lambda _: truth)
    result = truth.copy()
    result[:, :6] = 100
    scores = judge.score(result)
    assert scores["psnr_db"] > 200
    assert scores["psnr_db_near"] > 200
    assert judge.score(rng.random((3, 27, 27)))["psnr_db"] < 20
    assert judge.constant()["pearson"] == 0


def test_specimens_are_the_same_every_time_and_fill_the_field(card: ModelCard) -> None:
    field = Field(TINY, Z_UM, SETUP)
    first, second = (draw_specimens(field, ("beads",)) for _ in range(2))
    assert [s.kind for s in first] == [s.kind for s in second]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(field.truth(a.scene, 3), field.truth(b.scene, 3))
        assert field.truth(a.scene, 3)[:, 6:-6, 6:-6].max() > 0
    low, high, step = field.simulated_z_um
    assert (low, high, step) == (-24.0, 24.0, 12.0)
    assert training_families(card) == ("beads", "bars")
    nameless = card.model_copy(update={"training": {}, "specimens": ["dust"]})
    with pytest.raises(RequestError, match="does not say what it was trained on"):
        training_families(nameless)


def test_figures_are_those_of_the_rows() -> None:
    def row(specimen: int, electrons: float, curve: list[float], net: float) -> dict[str, Any]:
        def scores(psnr: float) -> dict[str, float]:
            return {"psnr_db": psnr, "ssim": 0.5, "nrmse": 1 / psnr, "pearson": 0.5}

        return {
            "group": "seeds",
            "kind": "beads",
            "specimen": specimen,
            "electrons": electrons,
            "iterations": [scores(v) for v in curve],
            "plain": [scores(v + (specimen == 1)) for v in curve],
            "residuals": [0.3] * len(curve),
            "constant": scores(10),
            "network": scores(net),
            "refined": [scores(net + 1)] * 3,
            "refined_residuals": [0.5, 0.4, 0.3, 0.2 + 0.2 * specimen],
        }

    rows = [row(0, 100.0, [20, 24, 22], 26.0), row(1, 100.0, [20, 21, 25], 27.0)]
    rows += [row(0, 600.0, [20, 30, 22], 31.0), row(1, 600.0, [20, 24, 22], 29.0)]
    assert common_count(rows[:2]) == 3
    found = summarise(rows)
    assert found["best_iterations"] == {"100": 3, "600": 2}
    low = found["groups"]["seeds"]["100"]
    assert low["rl_best"]["psnr_db"] == 24.5 and low["rl_common"]["psnr_db"] == 23.5
    assert low["margin_db"]["mean"] == 2 and low["margin_db"]["worst"] == 2
    every = found["groups"]["seeds"]["all"]
    # two specimens with margins of 2, 1 and 2, 5: their means count
    assert every["margin_db"] == {"mean": 2.5, "worst": 1.0, "standard_error": 1.0}
    assert every["margin_any_db"] == {"mean": 2.0, "worst": 1.0, "standard_error": 0.5}
    assert every["network"]["worst"]["psnr_db"] == 26 and every["network"]["worst"]["nrmse"] > 1 / 27
    assert every["residual"]["3"]["refined_not_above_rl"] == 2
    assert every["residual"]["3"]["worst_ratio"] == pytest.approx(0.4 / 0.3, rel=1e-4)
    text = tables(found)
    assert "| network | 26.50 | 30.00 | 28.25 | 26.00 |" in text and "+2.50 ± 1.00" in text
    json.dumps(found, allow_nan=False)


def test_recordings_look_like_a_cameras() -> None:
    field = Field(TINY, (0.0,), SETUP)
    rec = scenes.Recordings(
        np.full((1, 40, 40), 1.0), np.zeros((40, 40)), np.ones((40, 40)), np.zeros((40, 40))
    )
    for level, peak in enumerate((100.0, 4000.0)):
        frame = rec.inputs(field.microscope, 0, peak, level)["image"].values
        light = (frame - TINY.camera.offset_counts) * TINY.camera.gain_e_per_count
        assert light.mean() == pytest.approx(peak, rel=0.02)
        assert light.std() == pytest.approx(np.sqrt(peak), rel=0.1)
