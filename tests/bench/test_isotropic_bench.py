"""The benchmark of isotropic restoration on small cases whose answers are known."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.bench import _isotropic_blur, _isotropic_course, isotropic
from napari_lfm.bench._isotropic_blur import blur_estimates, summary_of
from napari_lfm.bench._isotropic_cells import adjusted_rand, agreement, overlaps, watershed_of
from napari_lfm.bench._isotropic_course import course
from napari_lfm.bench._isotropic_csbdeep import CsbDeep
from napari_lfm.bench._isotropic_quality import batches_of, best_richardson_lucy, quality
from napari_lfm.bench._isotropic_real import one_stack, real_stacks
from napari_lfm.bench._isotropic_scenes import (
    OFFSET,
    READ_NOISE,
    SPECIMENS,
    Case,
    drawn,
    labels_of,
    real_nuclei,
    recorded,
    scene_of,
    simulated,
)
from napari_lfm.bench._isotropic_speed import restore_once, training_speed
from napari_lfm.bench._isotropic_ways import cubic, linear, new_task, patches_of, scores, wish_of
from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.focal_scenes import TRAINING_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
SHAPE = (33, 48, 48)
CSBDEEP = """
import sys, types
import numpy as np

class Model:
    def __init__(self, config, name, basedir): self.keras_model = self
    def count_params(self): return 7
    def prepare_for_training(self): pass
    def train_on_batch(self, given, wanted): pass
    def predict(self, img, axes, factor, normalizer):
        assert axes == "ZYX" and factor == 1 and normalizer is None
        return img * self.factor
    def train(self, given, wanted, validation_data):
        self.factor = float((given * wanted).sum() / (given**2).sum())
        print("Epoch 1", flush=True)
        return types.SimpleNamespace(history={"val_loss": [len(given), len(validation_data[0])]})

def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(content)

class Config:
    def __init__(self, **values):
        assert values["train_epochs"] * values["train_steps_per_epoch"] > 0

nothing = lambda *_: None
threading = types.SimpleNamespace(
    set_intra_op_parallelism_threads=nothing, set_inter_op_parallelism_threads=nothing)
utils = types.SimpleNamespace(set_random_seed=nothing)
config, keras = types.SimpleNamespace(threading=threading), types.SimpleNamespace(utils=utils)
module("tensorflow", config=config, keras=keras)
module("csbdeep")
module("csbdeep.models", Config=Config, IsotropicCARE=Model)
"""
"""What stands for CSBDeep: it fits one factor to the patches."""


@pytest.fixture(scope="module")
def case() -> Case:
    return recorded("nuclei", simulated("nuclei", 3, SHAPE), 4)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an interpreter in which CSBDeep is a stand-in."""
    folder = tmp_path_factory.mktemp("csbdeep")
    (folder / "sitecustomize.py").write_text(CSBDEEP)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_stack_is_every_kth_plane_of_the_blurred_truth(case: Case) -> None:
    assert case.truth.shape == SHAPE
    assert case.stack.shape == (9, 48, 48)
    assert case.voxel_um == pytest.approx((0.8, 0.2, 0.2))
    still = recorded("nuclei", simulated("nuclei", 3, SHAPE), 4, electrons=1e4, sigma_px=0.01)
    error = still.stack - still.truth[::4]
    # photon noise and read noise, no more
    expected = np.sqrt((still.truth[::4] - OFFSET).clip(min=0).mean() + READ_NOISE**2)
    assert float(np.sqrt((error**2).mean())) == pytest.approx(float(expected), rel=0.05)


def test_starter_never_saw_the_specimens() -> None:
    families = {family for family, _ in SPECIMENS.values()}
    assert not families & set(TRAINING_FAMILIES)


def test_labels_are_where_the_light_is() -> None:
    scene = scene_of("nuclei", 3, SHAPE)
    labels, volume = labels_of(scene, SHAPE), drawn(scene, SHAPE)
    assert 1 < len(np.unique(labels))
    assert volume[labels > 0].mean() > 5 * volume[labels == 0].mean()
    assert volume[labels == 0].max() < volume.max()


def test_interpolation_leaves_planes_as_they_are(case: Case) -> None:
    for way in (linear, cubic):
        made = way(case)
        assert made.shape == case.truth.shape
        assert np.allclose(made[::4], case.stack, atol=1e-3)


def test_richardson_lucy_sharpens_what_has_little_noise() -> None:
    clean = recorded("nuclei", simulated("nuclei", 3, SHAPE), 4, electrons=1e4)
    iterations, made = best_richardson_lucy(clean)
    assert iterations > 2
    found, plain = (scores(v, clean, full=False)["psnr_db"] for v in (made, cubic(clean)))
    assert found is not None and plain is not None
    assert found > plain + 1


def test_quality_has_every_way(case: Case, peer: str) -> None:
    found = quality(csbdeep=peer, steps=8, patch_px=32, chosen=iter([case]))
    rows = {row["way"]: row for row in found["rows"]}
    assert list(rows) == [
        "linear", "cubic", "richardson-lucy", "network", "starter", "started", "csbdeep"
    ]  # fmt: skip
    for row in rows.values():
        assert row["psnr_db"] > 10 and 0 < row["ssim"] < 1
        assert row["resolution_x_um"] is not None
    # the stand-in only changes the factor, which PSNR fits: it is interpolation for all who score
    assert rows["csbdeep"]["psnr_db"] == pytest.approx(rows["linear"]["psnr_db"], abs=0.2)
    assert (found["steps"], found["batch"]) == (8, 16)


def test_csbdeep_gets_the_patches_that_ours_draws(case: Case, peer: str) -> None:
    wish = wish_of(steps=3, patch_px=32)
    task = new_task(patches_of(case, wish), wish)
    batches = batches_of(task, 0, 3)
    again = task.batch(1)
    assert np.array_equal(batches[1][0], again["given"][:, 0].numpy())
    held = [np.concatenate(part) for part in zip(*batches_of(task, 9, 2), strict=True)]
    with CsbDeep(peer) as csbdeep:
        found = csbdeep.trained(batches, held)
        given, wanted = (np.concatenate(part) for part in zip(*batches, strict=True))
        made = csbdeep.restored(linear(case))
    assert found["validation"] == [len(given), len(held[0])]
    factor = float((given * wanted).sum() / (given**2).sum())
    assert np.allclose(made, factor * linear(case), rtol=1e-3)


def test_csbdeep_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be started"):
        CsbDeep(tmp_path / "nothing")
    with CsbDeep(sys.executable) as bare, pytest.raises(RequestError, match="tensorflow"):
        bare.ask("steps", count=1, batch=1, side=8)


def test_speed_takes_turns(case: Case, peer: str) -> None:
    found = training_speed(csbdeep=peer, case=case, rounds=1, steps=1, patch_px=32)
    assert min(found[k] for k in ("ours", "ours_float32", "csbdeep")) > 0
    assert 0 < found["drawing_share"] < 1


def test_large_stack_says_its_size() -> None:
    found = restore_once(5, 48, 4)
    assert found["shape"] == [17, 48, 48]
    assert found["result_gib"] == pytest.approx(17 * 48 * 48 * 6 / 2**30)
    assert 0 < found["longest_s"] <= found["seconds"]
    assert found["peak_gib"] > 0


def test_course_counts_shares_of_the_last_gain(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_isotropic_course, "usual_model", lambda _: None)
    found = course(minutes=[0.005], final=0.01, case=case)
    assert [row["minutes"] for row in found["rows"]] == [0.005, 0.01]
    assert found["rows"][1]["gain_share"] == pytest.approx(1.0)
    assert all(row["steps"] > 0 for row in found["rows"])
    assert found["starter"] is None


def test_blur_rows_say_what_was_imposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_isotropic_blur, "real_nuclei", lambda: None)
    found = blur_estimates(seeds=(5,), specimens=("filaments",), shape=(49, 64, 64), factors=(4,))
    assert sorted({round(row["imposed_um"], 6) for row in found["rows"]}) == [0.4, 0.64]
    assert found["summary"]["filaments"]["stacks"] == 4


def test_summary_of_estimates() -> None:
    def row(found: float | None) -> dict[str, Any]:
        return {"imposed_um": 1.0, "found_um": found, "uncertainty_um": 0.05}

    found = summary_of([row(1.05), row(1.3), row(None), row(0.95)])
    assert (found["stacks"], found["told"]) == (4, 3)
    assert found["close"] == pytest.approx(2 / 3)
    assert found["median_ratio"] == 1.05
    assert found["worst_ratio"] == 1.3
    assert summary_of([row(None)])["close"] is None


def test_watershed_finds_two_touching_balls() -> None:
    z, y, x = np.mgrid[:40, :40, :60]
    inside = [((z - 20) ** 2 + (y - 20) ** 2 + (x - at) ** 2) < 11**2 for at in (20, 40)]
    given = np.where(inside[0], 1, np.where(inside[1], 2, 0))
    found = watershed_of((given > 0).astype(np.float32))
    assert found.max() == 2
    agreed = agreement(found, given)
    assert agreed["rand"] > 0.85 and agreed["iou"] > 0.85 and agreed["found"] == 1
    # one label for both: half of each is right
    merged = agreement((given > 0).astype(np.int32), given)
    assert merged["rand"] < 0.1 and merged["iou"] == pytest.approx(0.5, abs=0.05)


def test_rand_index_is_scikit_learns() -> None:
    """Its value for these labels, by hand: 4 pairs together in both, expected 2.4."""
    found, given = np.array([1, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 3, 3])
    # pairs together: found 6, given 3, both 2; by chance 6 * 3 / 15
    assert adjusted_rand(overlaps(found, given)) == pytest.approx((2 - 1.2) / (4.5 - 1.2))
    assert adjusted_rand(overlaps(given, given)) == pytest.approx(1)


def test_real_stack_is_restored_and_explained(case: Case, tmp_path: Path) -> None:
    found = one_stack("made up", case.stack, case.voxel_um, steps=4, pictures=tmp_path)
    assert found["new_planes"] == 33
    assert 0 <= found["consistency_share"] < 1
    assert found["noise_share"] > 0
    assert (tmp_path / "isotropic-made-up.png").stat().st_size > 100
    assert real_stacks(folder=tmp_path) == {"Golgi": None, "nuclear envelope": None}


def test_real_nuclei_are_as_sharp_in_all_directions() -> None:
    volume = real_nuclei()
    if volume is None:
        pytest.skip("the recording lies beside the checkout, and is not here")
    assert volume.shape == (66, 256, 256)
    assert np.percentile(volume, 99.9) == pytest.approx(1, rel=1e-3)
    assert real_nuclei(Path("absent.tif")) is None


def test_run_keeps_other_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isotropic, "_part", lambda part, *_: {"is": part})
    path = tmp_path / "kept.json"
    path.write_text(json.dumps({"speed": 1}))
    isotropic.main(["--part", "blur", "--save", str(path)])
    kept = json.loads(path.read_text())
    assert (kept["speed"], kept["blur"]) == (1, {"is": "blur"})
    assert kept["machine"]["cores"] >= 1


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("isotropic_page", ROOT / "tools/isotropic_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "tools"))


def test_page_shows_the_kept_figures(page: Any) -> None:
    kept = ROOT / "docs/results/isotropic.json"
    found = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    text = (ROOT / "docs/results/isotropic.md").read_text("utf-8")
    assert page.filled(text, found) == text, "run tools/isotropic_page.py"
    if "course" in found:
        assert page.PLOT.read_text("utf-8") == page.course_plot(found)
    for name in page.BLOCKS:
        assert f"<!-- {name} -->" in text


def test_page_says_whether_goals_are_met(page: Any) -> None:
    def row(way: str, psnr: float) -> dict[str, Any]:
        return {"specimen": "nuclei", "factor": 4, "way": way, "psnr_db": psnr}

    rows = [row("cubic", 30.0), row("network", 34.0), row("csbdeep", 33.5)]
    said = page.verdict(rows)
    assert "+4.00 dB over cubic" in said and "reached" in said and "+0.50 dB over CSBDeep" in said
    assert "missed" in page.verdict([row("cubic", 32.0), row("network", 34.0)])
