"""What goes with refocusing: opening an image, extended focus, deconvolution beside it, what to doubt."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import RefocusDomain, scalers_of
from napari_lfm.methods.refocus.focus import ExtendedFocus, extended_focus
from napari_lfm.methods.refocus.opening import open_refocuser, resampled, resampled_shape
from napari_lfm.methods.refocus.physical import deconvolved, deconvolved_surface
from napari_lfm.methods.refocus.residual import Consistency, consistency, judged
from napari_lfm.methods.refocus.tiles import parts_of
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.networks.refocus_fit import check_refocus_card
from napari_lfm.networks.registry import ModelEntry
from napari_lfm.optics.defocus import DefocusOptics, transfer_table
from napari_lfm.optics.microscope import Camera, Microscope, Objective

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.methods.refocus.engine import Refocuser

OPTICS = DefocusOptics()
DOMAIN = RefocusDomain(OPTICS, 0.325, 4.0, 0.5)


def card(**changes: Any) -> ModelCard:
    made = ModelCard(
        id="small", title="", version="1", method="refocus", architecture="refocus",
        network={"widths": [4, 6], "bands": [4], "planes": 5, "sweep": True}, microscope=None, n_pixels=None,
        z_um=[],
        voxels_per_lenslet=None, scalers=scalers_of(DOMAIN), specimens=[], licence="", data="", training={},
        scores=[], hours=0.0, trained_on="", date="2026-01-01", parameters=1, sha256="", versions={},
        notes="",
    )  # fmt: skip
    return made.model_copy(update=changes)


@pytest.fixture(scope="module")
def net() -> RefocusNet:
    torch.manual_seed(0)
    return RefocusNet(widths=(4, 6), bands=(4,), planes=5).eval()


def opened(net: RefocusNet, image: np.ndarray, tmp_path: Path, pixel_um: float = 0.325, **more: Any) -> Any:
    return open_refocuser(image, pixel_um, ModelEntry(card(), tmp_path, "user"), network=net, **more)


def spots(shape: tuple[int, int] = (96, 96), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.zeros(shape)
    out[rng.integers(10, shape[0] - 10, 25), rng.integers(10, shape[1] - 10, 25)] = rng.uniform(0.5, 1, 25)
    return gaussian_filter(out, 1.0)


def microscope(na: float = 0.8, index: float = 1.0, wavelength_um: float = 0.6) -> Microscope:
    return Microscope(
        name="own",
        objective=Objective(magnification=20, na=na, immersion_index=index),
        camera=Camera(pixel_um=6.5),
        wavelength_um=wavelength_um,
    )


# -- opening ----------------------------------------------------------------------------------


def test_pixels_near_the_models_are_taken_as_they_are(net: RefocusNet, tmp_path: Path) -> None:
    made = opened(net, spots(), tmp_path, 0.35)
    assert (made.pixel_um, made.factor, made.notes) == (0.35, 1.0, ())
    assert made.refocuser.pixel_um == 0.35


@pytest.mark.parametrize(("pixel_um", "shape"), [(0.65, (191, 191)), (0.1625, (48, 48))])
def test_other_pixels_are_resampled_and_it_is_said(
    net: RefocusNet, tmp_path: Path, pixel_um: float, shape: tuple[int, int]
) -> None:
    made = opened(net, spots(), tmp_path, pixel_um)
    assert made.pixel_um == 0.325
    assert made.factor == pytest.approx(pixel_um / 0.325)
    assert made.refocuser.shape == shape
    assert "resampled from pixels of" in made.notes[0]


def test_resampling_leaves_everything_where_it_is() -> None:
    y, x = np.mgrid[:50, :70] * 0.2
    smooth = np.sin(y) + np.cos(0.7 * x)
    for factor in (2.0, 0.5, 1.37):
        made = resampled(smooth, factor)
        assert made.shape == resampled_shape(smooth.shape, factor)
        v, u = np.mgrid[: made.shape[0], : made.shape[1]] * 0.2 / factor
        error = np.abs(made - np.sin(v) - np.cos(0.7 * u))[3:-3, 3:-3]
        assert error.max() < 0.02
    checks = np.indices((64, 64)).sum(0) % 2.0
    assert np.abs(resampled(checks, 0.5)[3:-3, 3:-3] - 0.5).max() < 0.05  # averaged, not picked


@pytest.mark.parametrize(
    ("image", "pixel_um", "says"),
    [
        (np.zeros((20, 20, 3)), 0.325, "colour image"),
        (np.zeros((4, 20, 20)), 0.325, "4 x 20 x 20 pixels cannot be refocused"),
        (np.ones((1, 1)), 0.325, "1 x 1 pixels"),
        (np.full((20, 20), 7.0), 0.325, "constant"),
        (np.where(np.eye(20) > 0, np.nan, 1.0), 0.325, "20 of 400 pixels are NaN"),
        (np.zeros((20, 20), complex), 0.325, "no grey values"),
        (np.eye(20), 0.0, "A pixel of 0 um"),
        (np.eye(20), 3.0, "does not fit.*0.325 um, and these are 3 um"),
        (np.eye(20), 0.01, "does not fit"),
    ],
)
def test_bad_images_are_refused(
    net: RefocusNet, tmp_path: Path, image: np.ndarray, pixel_um: float, says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        opened(net, image, tmp_path, pixel_um)


def test_the_optics_are_the_users_where_they_are_given(net: RefocusNet, tmp_path: Path) -> None:
    made = opened(net, spots(), tmp_path, microscope=microscope(0.75, wavelength_um=0.52))
    optics = made.refocuser.domain.optics
    assert (optics.na, optics.wavelength_um, optics.depth_um) == (0.75, 0.52, OPTICS.depth_um)


@pytest.mark.parametrize(
    ("own", "verdict", "says"),
    [
        (microscope(), "matches", ""),
        (microscope(0.65), "resample", "aperture of 0.8"),
        (microscope(0.4), "refused", "aperture of 0.8"),
        (microscope(0.8, 1.33), "refused", "immersion"),
        (microscope(wavelength_um=0.9), "refused", "light of"),
    ],
)
def test_whether_the_optics_fit(own: Microscope, verdict: str, says: str) -> None:
    fit = check_refocus_card(card(), 0.325, own)
    assert fit.verdict == verdict
    assert says in " ".join(fit.reasons)


# -- extended focus ---------------------------------------------------------------------------


@dataclass
class Known:
    """Stands for a refocuser whose planes are known: every place is in focus at its height."""

    height: np.ndarray
    texture: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.height.shape[0], self.height.shape[1]

    def plane(self, z_um: float, region: tuple[int, int, int, int]) -> Any:
        y0, x0, y1, x1 = region
        share = np.exp(-(((z_um - self.height) / 1.5) ** 2))
        made = (self.texture * share).astype(np.float32)[y0:y1, x0:x1]
        return SimpleNamespace(confocal=made, widefield=made + np.float32(0.5))


@pytest.mark.parametrize("head", ["confocal", "widefield"])
def test_extended_focus_finds_heights_between_planes(head: Any) -> None:
    y, x = np.mgrid[:64, :80]
    height = 0.04 * x - 0.02 * y
    texture = 1 + gaussian_filter(np.random.default_rng(0).random((64, 80)), 1.0)
    events = list(extended_focus(cast("Refocuser", Known(height, texture)), np.arange(-4.0, 4.5, 1.0), head))
    made = events[-1]
    assert isinstance(made, ExtendedFocus) and len(events) == 10
    assert np.abs(made.height_um - height)[6:-6, 6:-6].max() < 0.25  # of steps of 1
    assert np.abs(made.height_um - height)[6:-6, 6:-6].mean() < 0.08
    assert made.certainty[6:-6, 6:-6].min() > 0.4
    if head == "confocal":
        assert (made.image / texture).min() > 0.85


def test_nothing_is_certain_in_the_dark() -> None:
    texture = np.zeros((64, 64))
    texture[20:44, 20:44] = 1.0
    known = Known(np.full((64, 64), 1.0), texture)
    made = list(extended_focus(cast("Refocuser", known), np.arange(-3.0, 3.5, 0.5)))[-1]
    assert isinstance(made, ExtendedFocus)
    assert made.certainty[:10].max() == 0
    assert made.certainty[28:36, 28:36].min() > 0.5
    assert made.height_um == pytest.approx(np.ones((64, 64)), abs=0.1)  # the dark takes its neighbours'


@pytest.mark.parametrize(("shape", "halo"), [((64, 300), 32), ((1500, 2100), 0), ((2100, 1025), 32)])
def test_parts_cover_an_image_once(shape: tuple[int, int], halo: int) -> None:
    seen, rows = np.zeros(shape, int), np.arange(shape[0])
    for (y0, x0, y1, x1), at, within in parts_of(shape, halo):
        assert y1 - y0 <= 1024 and x1 - x0 <= 1024
        seen[at] += 1
        assert np.array_equal(rows[y0:y1][within[0]], rows[at[0]])
    assert (seen == 1).all()


def test_parts_make_the_whole(net: RefocusNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refocuser = opened(net, 100 + 900 * spots((90, 150)), tmp_path).refocuser
    z_um = [-2.0, 0.0, 2.0]
    whole, checked = list(extended_focus(refocuser, z_um))[-1], list(consistency(refocuser))[-1]
    monkeypatch.setattr("napari_lfm.methods.refocus.tiles.PART_PX", 110)
    # what lies around a part is seen too: a part differs from the whole by the blur's mirrored border only
    parts, again = list(extended_focus(refocuser, z_um))[-1], list(consistency(refocuser))[-1]
    assert isinstance(whole, ExtendedFocus) and isinstance(parts, ExtendedFocus)
    assert isinstance(checked, Consistency) and isinstance(again, Consistency)
    for one, other in ((whole.image, parts.image), (checked.expected, again.expected)):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99
    assert again.guessed.shape == checked.guessed.shape


@pytest.mark.parametrize("z_um", [[0.0], [0.0, 1.0, 3.0], [1.0, 0.0]])
def test_extended_focus_needs_even_planes(z_um: list[float]) -> None:
    known = Known(np.zeros((9, 9)), np.ones((9, 9)))
    with pytest.raises(RequestError, match="two planes or more"):
        list(extended_focus(cast("Refocuser", known), z_um))


# -- deconvolution ----------------------------------------------------------------------------


def blurred(objects: np.ndarray, z_um: float) -> np.ndarray:
    """Return what is seen of objects that lie z away from the focus."""
    transfer = transfer_table(OPTICS, 5.0).planes("widefield", -z_um, objects.shape, 0.325)[0]
    return np.fft.irfft2(np.fft.rfft2(objects) * transfer, objects.shape)


@pytest.mark.parametrize("kind", ["wiener", "richardson-lucy"])
def test_deconvolution_takes_the_known_blur_back(net: RefocusNet, tmp_path: Path, kind: Any) -> None:
    objects = spots()
    image = np.random.default_rng(1).poisson(4000 * blurred(objects, 3.0) + 20) + 100.0
    refocuser = opened(net, image, tmp_path).refocuser

    def alike(made: np.ndarray) -> float:
        return float(np.corrcoef(made.ravel(), objects.ravel())[0, 1])

    right = alike(deconvolved(refocuser, 3.0, kind))
    assert right > alike(image) + 0.15
    assert right > alike(deconvolved(refocuser, -3.0, kind)) + 0.05  # the aberration tells the sides apart


def test_deconvolution_of_a_surface_is_that_of_its_planes(net: RefocusNet, tmp_path: Path) -> None:
    refocuser = opened(net, 100 + 900 * spots(), tmp_path).refocuser
    heights = np.full(refocuser.shape, 2.0, np.float32)
    heights[:, 50:] = -1.0
    made = deconvolved_surface(refocuser, heights)
    assert np.allclose(made[:, :50], deconvolved(refocuser, 2.0)[:, :50], atol=1e-3 * made.max())
    assert np.allclose(made[:, 50:], deconvolved(refocuser, -1.0)[:, 50:], atol=1e-3 * made.max())


def test_impossible_deconvolutions_are_refused(net: RefocusNet, tmp_path: Path) -> None:
    refocuser = opened(net, spots(), tmp_path).refocuser
    with pytest.raises(RequestError, match="no deconvolution 'blind'"):
        deconvolved(refocuser, 0.0, cast("Any", "blind"))
    with pytest.raises(RequestError, match="one iteration"):
        deconvolved(refocuser, 0.0, "richardson-lucy", 0)


# -- what to doubt ----------------------------------------------------------------------------


def test_noise_is_not_doubted_and_inventions_are() -> None:
    rng = np.random.default_rng(0)
    light = 20 + 2000 * gaussian_filter(spots((128, 128)), 1.0)
    image = rng.poisson(light).astype(np.float32)
    fine = judged(image, light)
    assert np.median(fine.doubt) < 0.15
    invented = light.copy()
    invented[:64] += 300 * spots((64, 128), seed=5)
    doubted = judged(image, invented)
    there = gaussian_filter(np.abs(invented - light), 4) > 3
    assert doubted.doubt[there].mean() > 0.5
    assert doubted.doubt[80:].mean() < 0.25
    assert doubted.share > fine.share + 0.02
    assert judged(image, np.zeros_like(light)).share == pytest.approx(1, abs=0.01)


def test_consistency_goes_over_the_whole_range(net: RefocusNet, tmp_path: Path) -> None:
    refocuser = opened(net, 100 + 900 * spots((40, 48)), tmp_path).refocuser
    *steps, made = consistency(refocuser)
    assert all(isinstance(s, Progress) for s in steps) and len(steps) == 16
    assert isinstance(made, Consistency)
    assert made.doubt.shape == made.residual.shape == made.expected.shape == (40, 48)
    for map_ in (made.doubt, made.guessed):
        assert 0 <= map_.min() and map_.max() <= 1
    assert made.guessed.max() > 0  # a network of random weights has a sense of direction


def test_what_changes_when_the_image_is_turned_is_guessed() -> None:
    image = np.random.default_rng(0).poisson(100 * np.ones((60, 60))).astype(np.float32)
    light = np.full((60, 60), 400.0)
    changed = np.zeros((60, 60))
    changed[:, 30:] = 100.0
    made = judged(image, image, changed, light)
    assert made.guessed[:, :20].max() < 0.01
    assert made.guessed[:, 40:] == pytest.approx(np.full((60, 20), 0.5), abs=0.01)
