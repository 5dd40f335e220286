"""What a stack is understood to be, which blur it has, and what is said before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import get_method
from napari_lfm.methods.isotropic.blur import choose_blur
from napari_lfm.methods.isotropic.parameters import IsotropicParameters
from napari_lfm.methods.isotropic.plan import frame_of, understood
from napari_lfm.optics.axial_blur import gaussian_kernel
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.methods.base import Request

METHOD = get_method("isotropic")


def problems(request: Request) -> list[tuple[str, str, str]]:
    return [(p.severity, p.field, str(p)) for p in METHOD.check(request)]


# ------------------------------------------------------------------------ planes
@pytest.mark.parametrize(
    ("factor", "planes", "fine"),
    [(4.8, 38, 178), (4.0, 10, 37), (1.0, 5, 5), (1.1035, 25, 27), (10.2, 6, 52)],
)
def test_any_real_factor_is_understood(make: Any, factor: float, planes: int, fine: int) -> None:
    found = understood(make.image(np.zeros((planes, 16, 20)), factor=factor), IsotropicParameters())
    assert (found.factor, found.fine_planes) == (pytest.approx(factor), fine)
    assert found.fine_z_um == pytest.approx(0.1)
    assert f"{planes} planes become {fine}" in found.sentence
    assert found.is_nearly_isotropic == (factor < 1.2)


def test_frames_and_channels_are_told(make: Any) -> None:
    found = understood(make.image(np.zeros((3, 2, 38, 16, 16)), "tczyx"), IsotropicParameters())
    said = "z is 4.8 times coarser than x and y: 38 planes become 178, in each of 3 frames and 2 channels."
    assert found.sentence == said


def test_a_factor_by_hand_and_the_published_planes(make: Any) -> None:
    image = make.image(np.zeros((9, 16, 16)))
    found = understood(image, IsotropicParameters(factor=4, profile="csbdeep"))
    assert (found.factor, found.fine_planes) == (4.0, 36)
    # the first and the last planes stay where they are
    assert found.fine_z_um * 35 == pytest.approx(8 * 0.48)
    assert found.voxel_um == pytest.approx((0.4, 0.1, 0.1))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (labelled(np.zeros((16, 16)), "yx", {"y": 1, "x": 1}), "one plane"),
        (labelled(np.zeros((1, 16, 16)), "zyx", {"z": 2, "y": 1, "x": 1}), "one plane"),
        (labelled(np.zeros((9, 16, 16)), "zyx", {"y": 1, "x": 1}), "distance of its planes is missing"),
        (labelled(np.zeros((9, 16, 16)), "zyx", {"z": 2, "y": 1, "x": 1.1}), "no squares"),
        (labelled(np.zeros((2, 16, 16)), "zyx", {"z": 2, "y": 1, "x": 1}), "too small"),
        (labelled(np.zeros((9, 16, 8)), "zyx", {"z": 2, "y": 1, "x": 1}), "too small"),
        (labelled(np.zeros((9, 16, 16)), "zyx", {"z": 0.5, "y": 1, "x": 1}), "finer than x and y"),
        (labelled(np.zeros((9, 16, 16)), "zyx", {"z": 100, "y": 1, "x": 1}), "cannot be restored"),
        (labelled(np.zeros((9, 16, 16)), "vyx", {"y": 1, "x": 1}), "one plane"),
    ],
)
def test_what_is_no_stack_is_refused_in_words(ask: Callable[..., Request], image: Any, says: str) -> None:
    found = METHOD.check(ask(image))
    assert [p.severity for p in found] == ["error"]
    assert says in found[0].message
    assert found[0].remedy
    with pytest.raises(RequestError, match=says):
        next(iter(METHOD.run(ask(image))))


# ------------------------------------------------------------------- what is said before
@pytest.mark.parametrize("train", [0, 1])
def test_hardly_coarser_is_said_and_no_error(
    make: Any, ask: Callable[..., Request], starter: Any, train: int
) -> None:
    said = problems(ask(make.image(make.values(factor=1.1), factor=1.1), train_minutes=train))
    assert [(s, f) for s, f, _ in said] == [("warning", "factor")]
    assert "hardly coarser than x and y (1.1 times)" in said[0][2]


def test_odd_pixels_are_said(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    values = make.values().astype(np.float32)
    assert problems(ask(make.image(values))) == []
    values[0, 3, 3] = np.nan
    [(severity, _, text)] = problems(ask(make.image(values)))
    assert (severity, "bright as the stack's median" in text) == ("warning", True)
    full = make.values()
    full[2:4, :8] = 4095
    [(severity, _, text)] = problems(ask(make.image(full)))
    assert severity == "warning"
    assert "are saturated (at 4095)" in text and "%" in text
    empty = make.values()
    empty[[0, 7]] = 100
    assert problems(ask(make.image(empty))) == [("info", "image", "2 planes are empty, which does no harm.")]
    assert problems(ask(make.image(make.values()[:4])))[0][0] == "warning"
    [(severity, _, text)] = problems(ask(make.image(0 * full)))
    assert (severity, "All pixels are zero" in text) == ("error", True)


def test_no_model_says_how_to_get_one(ask: Callable[..., Request]) -> None:
    [(severity, field, text)] = problems(ask())
    assert (severity, field) == ("error", "train_minutes")
    assert "set train_minutes" in text
    assert problems(ask(train_minutes=1)) == []


def test_models_that_do_not_suit_are_said(
    make: Any, ask: Callable[..., Request], starter: Any, bundled: Any
) -> None:
    make.put_model(bundled, "far", scalers={"factor": 8.0})
    make.put_model(bundled, "near", scalers={"factor": 4.7})
    make.put_model(bundled, "two", network={"widths": [4, 6], "channels": 2})
    make.put_model(bundled, "wide", method="wfcon")
    assert problems(ask(model="near")) == []
    [(severity, field, text)] = problems(ask(model="far"))
    assert (severity, field) == ("warning", "model")
    assert "planes 8 pixels apart, and these are 4.8 apart" in text
    assert problems(ask(model="two"))[0][0] == "error"
    pair = make.image(np.stack([make.values(), make.values(seed=1)]), "czyx")
    assert problems(ask(pair, model="two")) == []
    assert "for the method 'wfcon'" in problems(ask(model="wide"))[0][2]
    assert "There is no model 'nought'" in problems(ask(model="nought"))[0][2]
    # the bundled one that was made for planes like these goes before one for any
    completed, _ = METHOD.complete(ask())  # type: ignore[attr-defined]
    assert completed.model == "near"
    assert METHOD.fit_card(starter, None, (0.5, 0.1, 0.1)).verdict == "matches"  # type: ignore[attr-defined]


def test_too_little_memory_is_told_before(ask: Callable[..., Request], starter: Any) -> None:
    [(severity, field, text)] = problems(ask(memory_gib=0.5))
    assert (severity, field) == ("error", "memory_gib")
    assert "the memory budget is 0.5 GiB" in text
    estimate = METHOD.estimate(ask())
    assert (estimate.output_shape, estimate.output_dims) == ((44, 40, 48), ("z", "y", "x"))
    assert estimate.seconds > 0
    assert METHOD.estimate(ask(train_minutes=3)).seconds > 180


def test_stated_widths_take_memory(make: Any, ask: Callable[..., Request], bundled: Any) -> None:
    network = {"widths": [4, 6], "channels": 1}
    make.put_model(bundled, "sure", network=network)
    make.put_model(bundled, "unsure", network={**network, "probabilistic": True})
    sure, unsure = (METHOD.estimate(ask(model=m)).peak_bytes for m in ("sure", "unsure"))
    assert unsure - sure == (4 + 2) * 44 * 40 * 48  # as an output, and in half precision before


# --------------------------------------------------------------------------- the blur
def test_the_blur_by_hand_or_the_microscopes(make: Any) -> None:
    image = make.image(make.values())
    found = understood(image, IsotropicParameters())
    by_hand = choose_blur(frame_of(image, 0), found, IsotropicParameters(blur_um=0.3))
    assert np.allclose(by_hand.kernel, gaussian_kernel(3.0))
    assert by_hand.sentence == "Blur along z beyond x and y: sigma 0.3 um, as given."
    wishes = IsotropicParameters(blur="microscope")
    microscope = load_microscope("mbl-60x1.2w")
    own = choose_blur(frame_of(image, 0), found, wishes, microscope)
    assert own.source == "microscope"
    assert 0.1 < own.sigma_um < 0.6
    both = choose_blur(
        frame_of(image, 0), found, wishes.model_copy(update={"psf_rule": "csbdeep"}), microscope
    )
    assert both.kernel.shape[0] > 1 == own.kernel.shape[0]
    assert both.sigma_um < own.sigma_um


def test_the_blur_of_a_bead(make: Any) -> None:
    """Width and voxels other than the stack's; what is left is the difference of the variances."""
    image = make.image(make.values())
    found = understood(image, IsotropicParameters())
    z, y, x = np.meshgrid(*(np.arange(-12, 13) for _ in range(3)), indexing="ij")
    sigma_um, voxel = (0.5, 0.2, 0.2), (0.2, 0.08, 0.08)
    square = sum((v * h / s) ** 2 for v, h, s in zip((z, y, x), voxel, sigma_um, strict=True))
    bead = labelled(1000 * np.exp(-square / 2) + 20, "zyx", dict(zip("zyx", voxel, strict=True)))
    wish = IsotropicParameters(blur="measured")
    measured = choose_blur(frame_of(image, 0), found, wish, psf=bead)
    assert measured.source == "measured"
    assert measured.sigma_um == pytest.approx(np.sqrt(0.5**2 - 0.2**2), rel=0.1)
    plane = choose_blur(frame_of(image, 0), found, wish.model_copy(update={"psf_rule": "csbdeep"}), psf=bead)
    assert plane.sigma_um == pytest.approx(0.5, rel=0.1)


def test_the_blur_of_the_stack_itself(make: Any) -> None:
    image = make.image(make.values(planes=24, side=64))
    found = understood(image, IsotropicParameters())
    own = choose_blur(frame_of(image, 0), found, IsotropicParameters())
    assert own.source == "estimate"
    assert own.sigma_um == pytest.approx(0.25, rel=0.25)
    both = choose_blur(
        np.stack([make.values(24, 64), make.values(24, 64, seed=2)]), found, IsotropicParameters()
    )
    assert both.sigma_um == pytest.approx(0.25, rel=0.25)
    noise = np.random.default_rng(0).poisson(100.0, (1, 12, 40, 40))
    unknown = choose_blur(noise, found, IsotropicParameters())
    assert unknown.source == "assumed"
    assert unknown.sigma_um == pytest.approx(0.85 * 0.1 * np.sqrt(4.8**2 - 1), rel=0.01)
    assert "cannot be told from the stack" in unknown.note


def test_a_bead_that_is_not_used_is_told(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    bead = make.image(np.ones((9, 9, 9)), factor=1.0)
    assert problems(ask(psf=bead, blur="measured")) == []
    for wishes, says in (
        ({}, "Set blur to measured"),
        ({"blur_um": 0.2}, "Leave blur_um out"),
        ({"blur": "measured", "blur_um": 0.2}, "Leave blur_um out"),
    ):
        [(severity, field, text)] = problems(ask(psf=bead, **wishes))
        assert (severity, field, says in text) == ("info", "psf", True)


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"blur": "microscope"}, "microscope"),
        ({"blur": "measured"}, "psf"),
        ({"psf_rule": "csbdeep"}, "psf_rule"),
        ({"psf_rule": "csbdeep", "blur_um": 0.2}, "blur_um"),
    ],
)
def test_a_blur_that_cannot_be_found(
    ask: Callable[..., Request], starter: Any, wishes: dict[str, Any], field: str
) -> None:
    for more in ({}, {"train_minutes": 1}):
        assert [(s, f) for s, f, _ in problems(ask(**wishes, **more))] == [("error", field)]
    # nothing needs it
    assert problems(ask(**wishes, consistency=False)) == []
