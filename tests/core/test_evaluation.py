"""All measures in one call, and what is shown of them."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.charts import Chart, Line, power_ticks, round_ticks, to_csv, to_svg
from napari_lfm.core.evaluation import evaluate
from napari_lfm.core.evaluation_show import as_text, charts_of, write_charts
from napari_lfm.core.labelled import labelled
from napari_lfm.core.one_image import one_image
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr

    Make = Callable[..., np.ndarray]

VOXEL = {"z": 0.4, "y": 0.2, "x": 0.2}


@pytest.fixture
def stack(band_limited: Make) -> xr.DataArray:
    image = band_limited((20, 48, 48), tuple(VOXEL.values()), (2.0, 0.8, 0.8))
    image += np.random.default_rng(1).normal(0, 0.1 * image.std(), image.shape)
    return labelled(image.astype(np.float32), "zyx", VOXEL, {"z": 5.0, "y": -3.0, "x": 1.0}, name="stack")


def test_alone(stack: xr.DataArray, tmp_path: Path) -> None:
    shares: list[float] = []
    found = evaluate(stack, profile_um=((8.2, 0.0, 2.0), (8.2, 0.0, 6.0)), on_step=shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert found.scores is None
    assert list(found.curves()) == ["fsc_single", "decorrelation", "noise_floor"]
    assert [c.key for c in charts_of(found)] == ["fsc-single", "spectra", "decorrelation", "profile"]
    assert found.profile is not None
    np.testing.assert_allclose(found.profile.values[0], stack.values[8, 15, 5], rtol=1e-3, atol=1e-3)
    assert found.profile.distance_um[-1] == pytest.approx(4.0)
    text = as_text(found)
    assert "Decorrelation" in text and "FWHM" in text
    files = write_charts(found, tmp_path / "new" / "folder")
    assert len(files) == 9
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(p.name for p in files)


def test_with_a_truth_on_another_grid(stack: xr.DataArray) -> None:
    part = stack[:, 4:, :-6]
    found = evaluate(part, stack, aligned=True)
    assert found.scores is not None
    assert found.scores["pearson"] == pytest.approx(1.0)
    assert found.scores["coverage"] == pytest.approx(part.size / stack.size)
    assert found.shift_um == pytest.approx({"z": 0, "y": 0, "x": 0}, abs=1e-9)
    assert list(found.curves())[:2] == ["fsc_truth", "fsc_pair"]
    assert all(c.at_nyquist for c in found.curves()["fsc_truth"])
    assert "two voxels" in as_text(found)


def test_a_plane_has_no_z(stack: xr.DataArray) -> None:
    found = evaluate(stack[10:11])
    assert list(found.voxel_um) == ["y", "x"]
    assert "ring" in charts_of(found)[0].title


def test_bad_requests_get_a_sentence(stack: xr.DataArray) -> None:
    with pytest.raises(RequestError, match="no truth to align"):
        evaluate(stack, aligned=True)
    with pytest.raises(RequestError, match="axes t, z, y, x"):
        evaluate(stack.expand_dims(t=2))
    with pytest.raises(RequestError, match="no size along z"):
        evaluate(labelled(stack.values, "zyx", {"y": 1.0, "x": 1.0}))
    with pytest.raises(RequestError, match="3 numbers"):
        evaluate(stack, resolution=False, profile_um=((0, 0), (1, 1)))
    turned = stack.copy()
    turned.attrs["affine_um"] = np.array([[1, 0, 0, 0], [0, 1, 0.2, 0], [0, -0.2, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(RequestError, match="turned"):
        one_image(turned, "The image")


def test_charts_are_well_formed() -> None:
    x = np.linspace(0, 3, 7)
    lines = (
        Line("a <b> & c", x, np.r_[1.0, np.nan, 1e-3, 1e-4, 0, 1e-2, 1], "#ff0000", mark=1.0),
        Line("second", x[:3], x[:3] + 1, "#00ff00", dashed=True),
    )
    for log in (False, True):
        chart = Chart("k", "Title", "x", "y", lines, ((0.01, "floor"),), log_y=log)
        for width in (220, 900):
            picture = ElementTree.fromstring(to_svg(chart, width))
            texts = [e.text for e in picture.iter("{http://www.w3.org/2000/svg}text")]
            assert {"Title", "a <b> & c", "second", "floor"} <= set(texts)
    table = list(csv.reader(io.StringIO(to_csv(chart))))
    assert table[0] == ["a <b> & c: x", "a <b> & c: y", "second: x", "second: y"]
    assert len(table) == 8
    assert table[-1] == ["3", "1", "", ""]


def test_ticks() -> None:
    assert round_ticks(0.1, 0.9, 5) == [0.2, 0.4, 0.6, 0.8]
    assert round_ticks(1.0, 1.0, 5) == [1.0]
    assert power_ticks(1e-7, 1.0, 4) == [1e-6, 1e-4, 1e-2, 1.0]
