"""Pairs and folders of a training of WFCON-Net that are not as they should be."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.train_jobs import RECORD, training_folder
from napari_lfm.methods.train_wfcon import make_wfcon_wish, run_wfcon_training, wfcon_folder
from napari_lfm.methods.wfcon_gather import Gathered, gather
from napari_lfm.methods.wfcon_pairs import NamedPair, ReadyPair, make_ready
from napari_lfm.methods.wfcon_survey import head_of, survey_layers

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

VOXEL = {"z": 0.5, "y": 0.108, "x": 0.108}


def stack(seed: int = 0, shape: tuple[int, int, int] = (12, 48, 48), **voxel: float) -> xr.DataArray:
    spots = np.random.default_rng(seed).random(shape) > 0.99
    values = (gaussian_filter(1e4 * spots, 1) + 50).astype(np.uint16)
    return labelled(values, "zyx", {**VOXEL, **voxel}, {"z": 2.0, "y": 1.0})


def ready(pair: NamedPair) -> ReadyPair:
    made = list(make_ready(pair, register=False))[-1]
    assert isinstance(made, ReadyPair)
    return made


def test_mirrored_layers_lie_where_they_are_seen() -> None:
    image = stack()
    mirrored = image.isel(z=slice(None, None, -1), x=slice(None, None, -1))
    mirrored.attrs.pop("spacing")
    assert head_of(mirrored) == head_of(image)
    for pair in (NamedPair("a", image, mirrored), NamedPair("b", mirrored, image)):
        assert len(survey_layers([pair]).usable) == 1
        made = ready(pair)
        assert np.array_equal(made.widefield, made.confocal)
        assert made.widefield.shape == image.shape
    # finer or coarser and mirrored at once
    fine = labelled(np.repeat(image.values, 2, 0), "zyx", {**VOXEL, "z": 0.25}, {"z": 1.875, "y": 1.0})
    made = ready(NamedPair("c", image, fine.isel(z=slice(None, None, -1))))
    assert np.corrcoef(made.widefield.ravel(), made.confocal.ravel())[0, 1] > 0.95


def test_voxels_are_those_of_the_first_pair_that_can_be_used() -> None:
    dark = stack(z=2.0) * 0
    dark[0, 0, 0] = 900
    given = [NamedPair("dark", stack(z=2.0), dark), NamedPair("good", stack(), stack())]
    wish = make_wfcon_wish({"layers": ["dark", "good"], "register_pairs": False})
    found = list(gather(wish, given))[-1]
    assert isinstance(found, Gathered)
    assert found.voxel_um == pytest.approx((0.5, 0.108, 0.108))
    assert found.pairs[0].given.shape == (12, 48, 48)


def test_stacks_too_small_for_the_discriminator_are_left_out() -> None:
    small = NamedPair("a", stack(shape=(12, 14, 48)), stack(shape=(12, 14, 48)))
    [seen] = survey_layers([small]).pairs
    assert "fewer than 20 x 20 pixels" in str(seen.problem)
    with pytest.raises(RequestError, match="fewer than 20 x 20 pixels"):
        ready(small)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tuning": {"patch": [0, 32, 32]}}, r"patch = .*16 x 16 pixels"),
        ({"tuning": {"patch": [4, 8, 8]}}, "16 x 16 pixels"),
        ({"voxel_um": [0, 0.1, 0.1]}, "above 0"),
        ({"voxel_um": [0.5, -0.1, 0.1]}, "above 0"),
    ],
)
def test_sizes_that_make_no_training_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        make_wfcon_wish(values)


def test_what_cannot_begin_is_refused_before_pairs_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / RECORD).write_text("{}")
    given = [NamedPair("a", stack(), stack())]
    wish = make_wfcon_wish({"layers": ["a"]})
    for places, says in (
        ((tmp_path / "old", None), "training in .*old already"),
        ((tmp_path / "file", None), "a file and no folder"),
        ((None, tmp_path / "file"), "a file and no folder"),
    ):
        events = run_wfcon_training(wish, places[0], model_folder=places[1], layers=given)
        with pytest.raises(RequestError, match=says):
            next(events)


def test_the_latest_training_of_the_same_pairs_is_gone_on_with(tmp_path: Path) -> None:
    wish = make_wfcon_wish({"pairs": str(tmp_path / "mouse")})
    assert wfcon_folder(wish, None) == training_folder("wfcon-mouse")
    for k, name in enumerate(("wfcon-mouse", "wfcon-mouse-2", "wfcon-mouse-embryo")):
        training_folder(name).mkdir(parents=True)
        record = training_folder(name) / RECORD
        record.write_text(json.dumps({"wish": {}, "model_folder": ""}))
        os.utime(record, (1e9 + k, 1e9 + k))
    assert wfcon_folder(wish, None).name == "wfcon-mouse-2"
    assert wfcon_folder(make_wfcon_wish({"id": "mine"}), None).name == "mine"


def test_pairs_on_other_voxels_keep_their_place_and_their_shift() -> None:
    from napari_lfm.methods.wfcon_pairs import ReadyPair, with_voxels

    z, y, x = np.meshgrid(np.arange(9) * 0.5, np.arange(21) * 0.1, np.arange(25) * 0.1, indexing="ij")
    ramp = (z + 10 * y + 100 * x).astype(np.float32)
    pair = ReadyPair("p", ramp, 2 * ramp, (0.5, 0.1, 0.1), "p: as it is", (1.0, 0.0, -0.5))
    coarse = with_voxels(pair, (1.0, 0.1, 0.1))
    assert coarse.shift_um == pair.shift_um
    assert coarse.voxel_um == (1.0, 0.1, 0.1)
    assert coarse.widefield.shape == (5, 21, 25)
    # a ramp is interpolated exactly where planes are averaged over both neighbours
    assert np.allclose(coarse.widefield[1:-1], ramp[2:-1:2], atol=1e-3)
    fine = with_voxels(pair, (0.5, 0.05, 0.05))
    assert fine.widefield.shape == (9, 41, 49)
    assert np.allclose(fine.confocal[:, ::2, ::2], 2 * ramp, atol=1e-3)
    assert with_voxels(pair, (0.5, 0.1, 0.1)) is pair
