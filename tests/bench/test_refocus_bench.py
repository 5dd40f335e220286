"""The refocusing benchmark on small cases whose answers are known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_lfm.bench import _refocus_beads, _refocus_real, _refocus_scenes, refocus
from napari_lfm.bench._refocus_beads import depth_of_field, sharp_range, signs, spot
from napari_lfm.bench._refocus_quality import Ledger, layer_pairs, pairs_of, quality, score, summary_of
from napari_lfm.bench._refocus_real import aberration_of, real_bead, real_nuclei
from napari_lfm.bench._refocus_scenes import Model, bead_image, open_model, real_optics, recorded
from napari_lfm.bench._refocus_speed import movie
from napari_lfm.bench._refocus_surfaces import surface_errors, surfaces_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import RefocusDomain, scalers_of
from napari_lfm.methods.refocus.engine import Refocused, Refocuser
from napari_lfm.methods.refocus.physical import deconvolved
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.defocus import DefocusOptics, transfer_table
from napari_lfm.simulation.focal_scenes import TRAINING_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = RefocusDomain(DefocusOptics(), 0.325, 3.0, 0.5)
ROOT = Path(__file__).parents[2]
NETWORK: dict[str, Any] = {"widths": [4, 6], "bands": [4]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "small"
    torch.manual_seed(0)
    net = RefocusNet(**NETWORK)
    card = ModelCard(
        id="small", title="", version="1", method="refocus", architecture="refocus", network=NETWORK,
        microscope=None, n_pixels=None, z_um=[], voxels_per_lenslet=None, scalers=scalers_of(DOMAIN),
        specimens=[], licence="", data="", training={}, scores=[], hours=0.0, trained_on="",
        date="2026-01-01", parameters=1, sha256="", versions={}, notes="",
    )  # fmt: skip
    save_model(out, card, net.state_dict())
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(str(folder))


@pytest.fixture(autouse=True)
def one_microscope(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transfer functions are computed once for all tests."""
    if "aberrations" not in request.node.name:
        for module in (_refocus_scenes, _refocus_beads, _refocus_real):
            monkeypatch.setattr(module, "real_optics", lambda *_: DOMAIN.optics)


@dataclass(frozen=True)
class Knowing:
    """Refocuses by matched filters with the optics it is told: what a perfect judge of sides would do."""

    image: np.ndarray
    optics: DefocusOptics

    def stack(self, z_um: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        table = transfer_table(self.optics, 4.0)
        planes = table.planes("widefield", -np.asarray(z_um), self.image.shape, 0.325)  # type: ignore[arg-type]
        spectrum = np.fft.rfft2(self.image - self.image.mean())
        spots = np.fft.irfft2(planes, self.image.shape)
        made = np.fft.irfft2(spectrum * planes, self.image.shape)
        made /= np.sqrt((spots**2).sum((1, 2), keepdims=True))
        return made, made


class Judge(Model):
    def opened(self, image: np.ndarray, optics: DefocusOptics | None = None) -> Any:
        return Knowing(image, optics or self.domain.optics)


class Deconvolving(Refocuser):
    """Gives what a Wiener filter gives."""

    def plane(self, z_um: float, region: Any = None) -> Refocused:
        made = deconvolved(self, z_um, noise=1e-3)
        return Refocused(made, made, made > np.inf)


class Physical(Model):
    def opened(self, image: np.ndarray, optics: DefocusOptics | None = None) -> Any:
        made = super().opened(image, optics)
        made.__class__ = Deconvolving
        return made


def test_specimens_are_none_that_training_draws(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refocus_scenes, "SIDE_PX", 64)
    assert not set(_refocus_scenes.FAMILIES) & set(TRAINING_FAMILIES)
    sparse, crowded = (_refocus_scenes.phantom_stack(model, "nuclei", k) for k in (0, 1))
    assert sparse.widefield.shape == (13, 64, 64)
    assert 0 < len(sparse.points) < len(crowded.points)
    assert sparse.optics == DOMAIN.optics


def test_pairs_have_both_signs_and_stay_in_the_stack() -> None:
    pairs = pairs_of(41, 20, 0)
    assert all(0 <= p.source < 41 and 0 <= p.target < 41 for p in pairs)
    assert all(abs(p.target - p.source) == round(20 * p.share) for p in pairs)
    signs_of = [(p.share, np.sign(p.target - p.source)) for p in pairs]
    assert len(set(signs_of)) == len(pairs) == 13
    assert pairs != pairs_of(41, 20, 1)


def test_scores_fit_scale_and_offset_but_never_turn_an_image_over() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((40, 40)).astype(np.float32)
    rough = target + 0.1 * rng.standard_normal(target.shape).astype(np.float32)
    plain = score(rough, target, 1.0)
    assert plain["psnr_db"] == pytest.approx(20, abs=1)
    assert score(3 * rough + 7, target, 1.0) == pytest.approx(plain, rel=1e-3)
    turned = score(-rough, target, 1.0)
    assert turned["psnr_db"] == pytest.approx(-10 * np.log10(target.var()), rel=1e-3)


def test_of_several_settings_the_best_counts_for_each_score_by_itself() -> None:
    kept = Ledger()
    for way, psnr, ssim in (
        ("input", 10, 0.1),
        ("wiener:a", 15, 0.2),
        ("wiener:b", 12, 0.4),
        ("network", 16, 0),
    ):
        for share in (0.0, 0.5):
            kept.add(100, "widefield", share, "x, sparse", way, {"psnr_db": psnr, "ssim": ssim, "pearson": 0})
    rows = kept.rows(10.0)
    assert [r["z_um"] for r in rows] == [0, 5]
    assert rows[1]["wiener"] == {"psnr_db": 15, "ssim": 0.4, "pearson": 0}
    (summary,) = summary_of(rows, 2.0)
    assert summary["over_input_db"] == summary["least_over_input_db"] == 6
    assert summary["over_physical_db"] == 1
    assert kept.by_family() == [
        {
            "family": "x",
            "density": "sparse",
            "head": "widefield",
            "over_input_db": 6,
            "over_physical_db": 1,
            "unfitted_over_input_db": 6,
        }
    ]


def test_quality_sees_that_a_deconvolution_beats_the_input(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refocus_scenes, "SIDE_PX", 64)
    wiener = Physical(model.entry, model.network, model.domain)
    found = quality(
        wiener, count=1, families=("vesicles",), electrons=(5000.0,), iterations=(5,), shares=(0.0, 0.5)
    )
    rows = {(r["head"], r["z_um"]): r for r in found["rows"]}
    row = rows["widefield", 1.5]
    assert row["richardson-lucy"]["pearson"] > row["input"]["pearson"]
    assert row["network"]["pearson"] <= row["wiener"]["pearson"] + 0.02  # the same, at no better setting
    assert rows["widefield", 0.0]["input"]["psnr_db"] > row["input"]["psnr_db"] + 3
    assert {s["head"] for s in found["summary"]} == {"widefield", "confocal"}
    # scores without the fit are in the units of the target: an image is its own plane, but for noise
    assert rows["widefield", 0.0]["input"]["unfitted_db"] == pytest.approx(
        rows["widefield", 0.0]["input"]["psnr_db"], abs=1
    )
    assert [r["z_um"] for r in found["layers"]["rows"]] == [r["z_um"] for r in found["rows"]]


def test_a_thin_layer_is_sharp_in_the_middle_of_its_stack_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refocus_scenes, "SIDE_PX", 64)
    made = _refocus_scenes.phantom_stack(model, "filaments", 0, layer=True)
    light = made.truth.sum((1, 2))
    assert float(light[4:9].sum()) > 0.99 * float(light.sum())
    pairs = layer_pairs(13, 6, (0.0, 0.5, 1.0))
    assert {p.target for p in pairs} == {6} and sorted(p.source for p in pairs) == [0, 3, 6, 9, 12]


def test_a_spot_has_its_width_and_place() -> None:
    y, x = np.indices((96, 96))
    bump = np.exp(-((y - 40.3) ** 2 + (x - 51.7) ** 2) / (2 * 2.0**2))
    width, top, found = spot(bump, np.array([40, 52]))
    assert width == pytest.approx(2.0 * 2.355, rel=0.02)
    assert 0.8 < top < 1
    assert found
    assert not spot(bump, np.array([34, 52]))[2]


def test_the_sharp_range_ends_at_the_first_gap() -> None:
    widths = {-3: 1, -2: 9, -1: 1.4, 0: 1, 1: 1.5, 2: 1.2, 3: 1.6}
    rows = [{"z_um": z, "way": {"fwhm_um": w, "found": 1.0}} for z, w in widths.items()]
    assert sharp_range(rows, "way", 1.0) == (-1, 2)
    rows[3]["way"]["found"] = 0.5
    assert sharp_range(rows, "way", 1.0) == (0, 0)


def test_the_side_is_told_by_aberration_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refocus_beads, "SIGN_SIDE_PX", 96)
    judge = Judge(model.entry, model.network, model.domain)
    found = signs(judge, variants=1, ideal_tries=1, shares=(0.5, 1.0))
    assert found["aberrated_told"] == 1
    assert found["ideal_told"] == pytest.approx(0.5, abs=0.26)
    assert found["spherical_rms_waves"]["ideal"] == pytest.approx(0, abs=1e-3)


def test_beads_blur_with_distance_and_a_wiener_filter_sharpens_them(model: Model) -> None:
    wiener = Physical(model.entry, model.network, model.domain)
    found = depth_of_field(wiener, variants=1, distances=(-1.0, 0.0, 1.0))
    for row in found["rows"]:
        if row["z_um"]:
            assert row["input"]["fwhm_um"] > 1.2 * found["in_focus_um"]["widefield"]
            assert row["widefield"]["fwhm_um"] < row["input"]["fwhm_um"]
    assert found["depth_of_field_um"] == pytest.approx(0.6 / 0.64, abs=1e-3)
    # the aberrated bead is blurred faster on one side
    assert found["range_um"]["input"] == [-3, 0]
    assert found["fold"]["input"] == pytest.approx(3 / found["depth_of_field_um"], abs=0.01)


def test_aberrations_are_those_of_the_training(model: Model) -> None:
    usual = _refocus_scenes.trained_ranges(model)
    told = {"depth_um": [3, 4], "coverslip_error_um": [0, 0], "sample_index": [1.36, 1.37]}
    card = model.entry.card.model_copy(
        update={"training": {"wish": {"depth_um": 5}, "task": {"source": told}}}
    )
    other = Model(replace(model.entry, card=card), model.network, model.domain)
    for k in range(8):
        a, b = real_optics(model, k), real_optics(other, k)
        assert usual["depth_um"][0] <= a.depth_um <= usual["depth_um"][1]
        assert 3 <= b.depth_um <= 4
        assert 1.36 <= b.sample_index <= 1.37
        assert a.spherical_rms_waves > 0
        assert a.na == b.na == model.domain.optics.na


def test_surfaces_beside_uniform_planes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refocus_scenes, "SIDE_PX", 96)
    heights = dict(surfaces_of((320, 320), 0.325, 10.0))
    assert np.ptp(heights["tilted 1.5 degrees"]) == pytest.approx(
        319 * 0.325 * np.tan(np.deg2rad(1.5)), rel=1e-3
    )
    assert np.ptp(heights["tilted 10 um across"]) == pytest.approx(10, rel=0.01)
    assert heights["dome"][160, 160] == pytest.approx(5, abs=0.05)
    found = surface_errors(model, families=("nuclei",))
    assert 0 < found["largest_difference"] < 0.05
    assert {r["head"] for r in found["rows"]} == {"widefield", "confocal"}
    made = Refocuser.surface

    def shifted(self: Refocuser, height: np.ndarray, region: Any = None) -> Refocused:
        return made(self, height if height.size == 1 else height + 1.0, region)

    monkeypatch.setattr(Refocuser, "surface", shifted)
    wrong = surface_errors(model, families=("nuclei",))
    assert wrong["largest_difference"] > 2 * found["largest_difference"]


def test_the_measured_bead_tells_its_direction(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refocus_real, "DEPTHS_UM", (0.0, 20.0))
    monkeypatch.setattr(_refocus_real, "OFFSETS", (0, 3))
    monkeypatch.setattr(_refocus_real, "SHIFTS_UM", (-0.15, 0.0))
    optics = replace(DOMAIN.optics, na=0.85, wavelength_um=0.52, depth_um=20.0)
    table = transfer_table(optics, 7 * 0.3 + 1.5)
    z = (np.arange(15) - 7) * 0.3
    transfer = table.planes("widefield", z, (128, 128), 0.13)
    planes = np.fft.fftshift(np.fft.irfft2(transfer, (128, 128)), (1, 2)).clip(0)
    filed = (250 + 3e4 * planes / planes.max()).astype(np.uint16)
    path = tmp_path / "bead.tif"
    tifffile.imwrite(path, filed)
    found = real_bead(model, path)
    assert found is not None
    turned = aberration_of(filed[::-1].astype(np.float32), (7, 64, 64))
    for told, right, other in (
        (found["aberration"], "as filed", "turned round"),
        (turned, "turned round", "as filed"),
    ):
        best = told["best_of"]
        assert best[right]["correlation"] > best[other]["correlation"] + 0.01
        assert best[right]["on_axis"] > best[other]["on_axis"]
        assert best[right]["depth_um"] == 20.0
    focused = next(r for r in found["rows"] if r["z_um"] == 0)
    assert focused["input"]["pearson"] == 1
    assert focused["input"]["fwhm_um"] == found["in_focus_um"]
    assert found["notes"]
    assert real_bead(model, tmp_path / "absent.tif") is None


def test_nuclei_are_imaged_and_scored(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refocus_real, "ITERATIONS", ())
    rng = np.random.default_rng(0)
    path = tmp_path / "nuclei.tif"
    tifffile.imwrite(path, (1000 * rng.random((24, 8, 8)).repeat(10, 1).repeat(10, 2)).astype(np.uint16))
    found = real_nuclei(model, turns=1, path=path)
    assert found is not None
    like = {r["z_um"]: r["input"]["pearson"] for r in found["rows"] if r["head"] == "widefield"}
    assert like[0.0] > 0.9 > like[3.0]
    assert real_nuclei(model, path=tmp_path / "absent.tif") is None


def test_a_movie_is_timed_and_stopped(model: Model) -> None:
    found = movie(model, frames=3, side=48)
    assert found["frames"] == 3
    assert found["cancel_s"] < found["seconds"]
    assert found["estimated_gib"] > 0


def test_parts_are_kept_until_the_weights_change(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "refocus.json"
    saved.write_text(json.dumps({"beads": 1}), "utf-8")
    words = [str(folder), "--part", "networks", "--save", str(saved)]
    refocus.main(words)
    found = json.loads(saved.read_text("utf-8"))
    assert found["beads"] == 1
    assert found["networks"]["paper_5_levels"] == 19_404_956
    assert found["networks"]["paper_6_levels"] == 77_802_908
    found["model"]["sha256"] = "other"
    saved.write_text(json.dumps(found), "utf-8")
    refocus.main(words)
    assert "beads" not in json.loads(saved.read_text("utf-8"))


def test_bench_knows_it_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_lfm.cli.bench import benchmarks

    assert benchmarks()["refocus"] == "napari_lfm.bench.refocus"
    monkeypatch.setattr(_refocus_scenes, "list_models", lambda _: [])
    with pytest.raises(RequestError, match="no model"):
        open_model()


def test_the_page_and_its_pictures_are_those_of_the_kept_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import refocus_page

    figures = refocus_page.read()
    page = refocus_page.PAGE.read_text("utf-8")
    assert refocus_page.filled(page, figures) == page, "run tools/refocus_page.py"
    for name, found in figures.items():
        for kind, draw in refocus_page.plots_of(found):
            drawn = (ROOT / f"docs/images/{name}-{kind}.svg").read_text("utf-8")
            assert drawn == draw(found), "run tools/refocus_page.py"


def test_recorded_images_have_the_stated_electrons() -> None:
    light = np.ones((64, 64), np.float32)
    image = recorded(light, 400.0, np.random.default_rng(0))
    assert image.mean() == pytest.approx(500, abs=2)
    assert image.std() == pytest.approx(20, rel=0.1)
    bead = bead_image(Model(None, None, DOMAIN), DOMAIN.optics, 0.0, 64, np.array([[32.0, 20.0]]))  # type: ignore[arg-type]
    assert np.unravel_index(bead.argmax(), bead.shape) == (32, 20)
    assert bead.sum() == pytest.approx(1, rel=0.02)
