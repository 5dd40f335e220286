"""Networks that start from their card's optics, inverted or iterated: whole, in tiles, turned, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.events import Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.optics.inverse import InverseSettings, LinearInverse
from napari_lfm.optics.iterated import IteratedStart, IterationSettings
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.start import start_cost, start_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

METHOD = get_method("lfmnet")
START = {"start_voxels": 3, "start_noise": (1.0, 0.1)}
ITERATED = {"start_voxels": 3, "start_iterations": (2, 5)}
BOTH = pytest.mark.parametrize("start", [START, ITERATED], ids=["inverse", "iterated"])
Z_UM = tuple(float(z) for z in range(-24, 25, 6))
Make = Any


@pytest.fixture
def make(recording: Recording, tiny: Microscope) -> Callable[..., Request]:
    def request(fields: dict[str, Any] | None = None, **parameters: Any) -> Request:
        given = {
            "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
            "microscope": tiny,
            "lattice": recording["lattice"],
            "device": "cpu",
            **(fields or {}),
        }
        return Request("lfmnet", parameters=make_parameters(METHOD, parameters), **given)

    return request


def lenslets(rows: int, columns: int) -> xr.DataArray:
    rng = np.random.default_rng(rows * 100 + columns)
    image = rng.random((rows * 9, columns * 9), np.float32) ** 4 * 1000
    return labelled(image, "yx", {"y": 0.55, "x": 0.55})


def result_of(request: Request) -> Result:
    last = list(METHOD.run(request))[-1]
    assert isinstance(last, Result)
    return last


def test_the_network_is_given_the_inverse_of_the_whole_frame(make: Make, tiny: Microscope, nets: Any) -> None:
    nets.put(nets.start(9, 9, 3))
    image = lenslets(11, 13)
    request = make({"inputs": {"image": image}, "layout": "lenslet:9", "lattice": None})
    events = list(METHOD.run(request))
    assert "Computing the optics that the model starts from" in {
        e.message for e in events if isinstance(e, Progress)
    }
    volume = events[-1].outputs["volume"].values
    settings = InverseSettings(Z_UM, 3, (1.0, 0.1))
    inverse = LinearInverse.build(CellOptics.of(tiny, 9), settings, (11, 13), use_cache=False)
    scale = float(np.percentile(image, 99.9))
    expected = inverse(torch.from_numpy(image.values / scale)[None])[0, 9:].clamp(min=0) / 0.5
    # output_scale of the card is 2
    np.testing.assert_allclose(volume, 2 * scale * expected, atol=1e-3 * float(volume.max()))


def test_the_network_is_given_the_iterations_of_the_whole_frame(
    make: Make, tiny: Microscope, nets: Any
) -> None:
    nets.put(nets.start(9, 9, 3, start_iterations=(2, 5)))
    image = lenslets(11, 13)
    events = list(METHOD.run(make({"inputs": {"image": image}, "layout": "lenslet:9", "lattice": None})))
    stages = [e.message for e in events if isinstance(e, Progress)]
    assert "Iterations that the network starts from: 5" in stages  # one by one, so that it can be stopped
    start = IteratedStart(CellOptics.of(tiny, 9), IterationSettings(Z_UM, 3, (2, 5)), (11, 13))
    for _ in start.build_steps(use_cache=False):
        pass
    scale = float(np.percentile(image, 99.9))
    expected = start(torch.from_numpy(image.values / scale)[None])[0, 9:] / 0.5
    volume = events[-1].outputs["volume"].values
    np.testing.assert_allclose(volume, 2 * scale * expected, atol=1e-3 * float(volume.max()))


@pytest.mark.parametrize("iterations", [None, (3, 12)], ids=["inverse", "iterated"])
def test_beads_are_where_they_are(make: Make, nets: Any, iterations: Any) -> None:
    """The planes of the start are those of the card, in its order, + z towards the objective."""
    nets.put(nets.start(9, 9, 3, start_iterations=iterations))
    volume = result_of(make()).outputs["volume"]
    rows, columns = volume.sizes["y"] // 2, volume.sizes["x"] // 2
    # of the three beads one lies in the upper half of the field, and one in its left half
    for part, z in ((volume[:, : rows - 3], -18.0), (volume[..., : columns - 3], 18.0)):
        brightest = int(part.values.max((1, 2)).argmax())
        assert abs(float(volume.z[brightest]) - z) <= 6


@BOTH
@pytest.mark.parametrize("tile", [20, 24])
def test_tiles_give_what_the_whole_image_gives(make: Make, nets: Any, tile: int, start: Any) -> None:
    nets.put(nets.random(9, 9, 5, **start))  # the start is coarser than the volume
    fields = {"inputs": {"image": lenslets(30, 26)}, "layout": "lenslet:9", "lattice": None}
    whole = result_of(make(fields)).outputs["volume"]
    tiled = result_of(make(fields, tile_lenslets=tile)).outputs["volume"]
    span = float(whole.max() - whole.min())
    assert span > 0
    np.testing.assert_allclose(tiled, whole, atol=1e-4 * span)  # borders too


def test_turned_frames_have_a_turned_start(make: Make, nets: Any) -> None:
    nets.put(nets.start(9, 9, 3))
    fields = {"inputs": {"image": lenslets(12, 9)}, "layout": "lenslet:9", "lattice": None}
    outputs = result_of(make(fields, confidence="flips")).outputs
    bright = outputs["volume"].values > 0.1 * float(outputs["volume"].max())
    assert float(outputs["confidence"].values[bright].min()) > 0.99


@BOTH
def test_a_movie_builds_the_optics_once(make: Make, nets: Any, start: Any) -> None:
    nets.put(nets.random(9, 9, 3, **start))
    frames = [lenslets(8, 8), 2 * lenslets(8, 9).values[:, : 8 * 9]]
    movie = labelled(np.stack([np.asarray(f) for f in frames]), "tyx", {"y": 0.55, "x": 0.55})
    fields = {"layout": "lenslet:9", "lattice": None}
    events = list(METHOD.run(make({"inputs": {"image": movie}, **fields})))
    stages = [e.message for e in events if isinstance(e, Progress)]
    assert stages.count("Opening the model 'tiny-net'") <= 2
    first = [k for k, s in enumerate(stages) if s.startswith("Computing the optics that")]
    assert first == list(range(first[0], first[0] + len(first)))
    alone = result_of(make({"inputs": {"image": movie[1]}, **fields})).outputs["volume"]
    np.testing.assert_allclose(events[-1].outputs["volume"][1], alone, rtol=1e-4, atol=1e-3)


@BOTH
def test_its_memory_is_planned(make: Make, tiny: Microscope, nets: Any, start: Any) -> None:
    fields = {"inputs": {"image": lenslets(30, 30)}, "layout": "lenslet:9", "lattice": None}
    peaks = []
    for more in ({}, start):
        nets.put(nets.random(9, 9, 3, **more))
        peaks.append(METHOD.estimate(make(fields)).peak_bytes)
    settings = start_settings(Z_UM, start)
    assert settings is not None
    cost = start_cost(CellOptics.of(tiny, 9), settings, (30, 30))
    held = cost.held_bytes
    assert peaks[1] >= peaks[0] + held
    assert peaks[1] > cost.building_bytes
    problems = METHOD.check(make({**fields, "memory_gib": (peaks[1] - held) / 2**30 / 2}))
    assert any("starts from take" in p.message and "smaller region" in (p.remedy or "") for p in problems)


def test_a_start_without_optics_is_refused_in_a_sentence(make: Make, nets: Any) -> None:
    nets.put(nets.random(9, 9, 3, **START), of=None)
    problems = METHOD.check(make({"model": "tiny-net"}))
    assert any("starts from the optics" in p.message and p.severity == "error" for p in problems)
