"""The real giant vesicle, from its three files to a spherical shell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

from napari_lfm.bench._sphere_fit import fit_sphere, measure_shell
from napari_lfm.core.events import Preview, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.io.read import read_lightfield
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope


def frames(guv: Path, microscope: Microscope) -> dict[str, xr.DataArray]:
    names = {
        "image": "Lightfield_GUVExperim1.tif",
        "white": "Radiometry_GUVExperim1.tif",
        "dark": "DarkFrame_GUVExperim1.tif",
    }
    return {k: read_lightfield(guv / name, microscope) for k, name in names.items()}


@pytest.mark.slow
def test_the_vesicle_is_a_closed_spherical_shell(guv: Path) -> None:
    microscope = load_microscope("mbl-60x1.2w")
    inputs = frames(guv, microscope)
    method = get_method("deconvolve-lightfield")
    parameters = make_parameters(method, {"iterations": 15})
    request = Request("deconvolve-lightfield", inputs, parameters, microscope=microscope, device="cpu")
    assert [p for p in method.check(request) if p.severity == "error"] == []
    events = list(method.run(request))
    result = events[-1]
    assert isinstance(result, Result)
    assert sum(isinstance(e, Preview) for e in events) == 15

    lattice = result.provenance["lattice"]
    assert lattice["pitch_px"] == pytest.approx([15.40, 15.40], abs=0.03)
    assert lattice["residual_px"] < 0.2
    assert lattice["lenslets"] == [28, 28]
    assert result.provenance["figures"]["relative_residual"] < 0.17

    volume = result.outputs["volume"]
    assert isinstance(volume, xr.DataArray)
    assert volume.shape == (15, 84, 84)
    shell = measure_shell(volume)
    assert shell.sphere.radius_um == pytest.approx(13.4, abs=0.3)
    assert shell.sphere.misfit < 0.025
    assert shell.ellipsoid.misfit <= shell.sphere.misfit
    assert 0.85 < shell.ellipsoid.axial_scale < 1.2
    assert shell.continuity > 0.9


@pytest.mark.slow
def test_the_network_in_the_package_sees_the_same_shell(guv: Path) -> None:
    """No microscope and no model are named: the pitch tells the model, and its card the optics."""
    microscope = load_microscope("mbl-60x1.2w")
    inputs = frames(guv, microscope)
    found = {}
    for id, given in (("deconvolve-lightfield", {"iterations": 15}), ("lfmnet", {"residual": True})):
        method = get_method(id)
        request = Request(id, inputs, make_parameters(method, given), device="cpu")
        if id == "lfmnet":
            request, notes = method.complete(request)
            assert request.model == "lfmnet-mbl-60x1.2w"
            assert any("is taken to be 'mbl-60x1.2w'" in n.message for n in notes)
        else:
            request = replace(request, microscope=microscope)
        assert [p for p in method.check(request) if p.severity in ("error", "warning")] == []
        found[id] = list(method.run(request))[-1]
    network, deconvolved = found["lfmnet"], found["deconvolve-lightfield"]
    residuals = [r.provenance["figures"]["relative_residual"] for r in (network, deconvolved)]
    assert residuals[0] < 1.5 * residuals[1]
    volume = network.outputs["volume"]
    assert volume.shape == (15, 84, 84)
    shell = measure_shell(volume)
    assert shell.sphere.radius_um == pytest.approx(13.4, abs=0.3)
    assert shell.sphere.misfit < 0.04
    assert shell.continuity > 0.9
    # the wall is thin and the inside empty, which Richardson-Lucy leaves hazy
    middle, hazy = (r.outputs["volume"].sel(z=0, method="nearest").values for r in (network, deconvolved))
    assert float(np.median(middle) / middle.max()) < float(np.median(hazy) / hazy.max())


def test_a_drawn_shell_is_measured_right() -> None:
    z, y, x = np.meshgrid(np.arange(-7, 8.0), np.arange(60) * 0.5, np.arange(60) * 0.5, indexing="ij")
    rng = np.random.default_rng(0)

    def shell(stretch: float) -> xr.DataArray:
        r = np.sqrt((z / stretch - 0.2) ** 2 + (y - 15.3) ** 2 + (x - 14.1) ** 2)
        values = np.exp(-(((r - 9.0) / 0.8) ** 2)) + 0.05 * rng.random(r.shape)
        return labelled(values, "zyx", {"z": 1.0, "y": 0.5, "x": 0.5}, {"z": -7.0})

    round_one = measure_shell(shell(1.0))
    assert round_one.sphere.radius_um == pytest.approx(9.0, abs=0.1)
    assert round_one.sphere.centre_um == pytest.approx((0.2, 15.3, 14.1), abs=0.15)
    assert round_one.sphere.misfit < 0.02
    assert round_one.ellipsoid.axial_scale == pytest.approx(1, abs=0.05)
    assert round_one.continuity == 1
    long = measure_shell(shell(1.2))
    assert long.ellipsoid.axial_scale == pytest.approx(1.2, abs=0.05)
    assert long.ellipsoid.misfit < long.sphere.misfit

    torn = shell(1.0)
    torn.values[:, :, 40:][:, 25:36] = 0.02  # a gap at the right
    assert measure_shell(torn).continuity < 0.95


def test_stray_points_do_not_move_the_sphere() -> None:
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(400, 3))
    points = 5 * direction / np.linalg.norm(direction, axis=1, keepdims=True) + (1, 2, 3)
    points[:10] += rng.normal(scale=4, size=(10, 3))
    sphere = fit_sphere(points)
    assert sphere.radius_um == pytest.approx(5, abs=0.05)
    assert sphere.centre_um == pytest.approx((1, 2, 3), abs=0.05)
