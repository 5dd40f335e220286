"""Simulated recordings: geometry, flux, world coordinates, and the errors that keep them honest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.simulation.lightfield import (
    SLIGHTLY_OFF,
    Exposure,
    simulate_lightfield,
    simulate_lightfields,
)
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.sensor import covering_grid, nominal_lattice, to_camera
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

CLEAN = Exposure(noise=False, background=0, falloff=0, hot_pixels=0)


def light_of(frame: np.ndarray) -> np.ndarray:
    return np.asarray(frame, float) - 100.0


def centroid(frame: np.ndarray) -> np.ndarray:
    light = light_of(frame)
    grid = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.asarray((grid * light).sum((1, 2)) / light.sum())


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
@pytest.mark.parametrize("rotation", [0.0, 1.5, -7.0])
def test_nominal_lattice_is_centred_and_inside(kind: str, rotation: float) -> None:
    lattice = nominal_lattice((8, 12), (15.4, 15.4), rotation, (1.5, -2.0), kind)
    centres = lattice.centres_px()
    middle = (np.array(lattice.image_shape) - 1) / 2 + (1.5, -2.0)
    np.testing.assert_allclose(centres.mean((0, 1)), middle, atol=1e-9)
    assert lattice.rotation_deg == pytest.approx(rotation)
    assert lattice.pitch_px == pytest.approx((15.4, 15.4))
    assert centres.min() > 5
    assert (centres.max((0, 1)) < np.array(lattice.image_shape) - 5).all()


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
@pytest.mark.parametrize("rotation", [0.0, 3.0])
def test_moving_light_to_the_camera_keeps_flux_and_place(kind: str, rotation: float) -> None:
    lattice = nominal_lattice((9, 9), (15.37, 15.37), rotation, (0.3, -0.7), kind)
    grid = covering_grid(lattice, 25)
    rng = np.random.default_rng(0)
    image = np.zeros(grid.shape)
    middle = np.array(grid.shape) // 2
    block = np.s_[middle[0] - 30 : middle[0] + 30, middle[1] - 20 : middle[1] + 41]
    image[block] = rng.random((60, 61))
    frame = to_camera(image, grid)
    assert frame.shape == lattice.image_shape
    assert frame.sum() == pytest.approx(image.sum(), rel=1e-3)
    weights = image / image.sum()
    expected = (grid.raw_positions() * weights[..., None]).sum((0, 1))
    np.testing.assert_allclose(centroid(frame + 100), expected, atol=0.02)
    # a uniform lenslet image is a uniform frame, right to the borders
    flat = to_camera(np.full(grid.shape, grid.area_px), grid)
    np.testing.assert_allclose(flat, 1, atol=1e-9)


def test_a_bead_is_where_the_world_says(tiny: Microscope) -> None:
    scene = Scene((Ball((0.0, 6.0, -9.0), 1.0),), points_um=((0.0, 6.0, -9.0),))
    out = simulate_lightfield(
        scene, tiny, z_um=(0, 0, 2), lenslets=(9, 11), pitch_px=9.2, exposure=CLEAN, z_substeps=1
    )
    point = out["points"].iloc[0]
    # at the native plane all light falls on the lenslet that the point is imaged on
    where = centroid(out["raw"].values) * tiny.object_pixel_um
    lenslet = 9.2 * tiny.object_pixel_um
    np.testing.assert_allclose(where, [point.y_um, point.x_um], atol=lenslet / 2)
    truth = out["truth"]
    light = truth.sum("z")
    for axis, value in (("y", point.y_um), ("x", point.x_um)):
        assert float((light * light[axis]).sum() / light.sum()) == pytest.approx(value, abs=0.2)
    assert isinstance(out["lattice"], Lattice)
    assert out["lattice"].pitch_px == pytest.approx((9.2, 9.2))
    assert spacing_of(out["raw"]) == pytest.approx(dict.fromkeys("yx", tiny.object_pixel_um))


def test_positive_z_lights_the_minus_u_side_of_lenslets_at_plus_s(tiny: Microscope) -> None:
    out = simulate_lightfield(
        Scene((Ball((24.0, 0.0, 0.0), 1.0),)),
        tiny,
        z_um=(24, 24, 2),
        lenslets=(11, 11),
        pitch_px=9.0,
        exposure=CLEAN,
        z_substeps=1,
    )
    lattice, light = out["lattice"], light_of(out["raw"].values)
    y, x = lattice.centres_px()[5, 7]
    half = 4
    cell = light[round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1]
    offset = (cell * (np.arange(-half, half + 1) - (x - round(x)))).sum() / cell.sum()
    assert cell.sum() > 0.01 * light.sum()
    assert offset < -0.5


def test_rotation_turns_the_lattice_and_not_the_subject(tiny: Microscope) -> None:
    scene = Scene((Ball((0.0, 0.0, 14.0), 3.0),))
    frames = {}
    for angle in (0.0, 4.0):
        out = simulate_lightfield(
            scene,
            tiny,
            z_um=(0, 0, 2),
            lenslets=(9, 11),
            rotation_deg=angle,
            exposure=CLEAN,
            z_substeps=1,
            voxels_per_lenslet=5,
        )
        middle = (np.array(out["raw"].shape) - 1) / 2
        frames[angle] = (centroid(out["raw"].values) - middle) * tiny.object_pixel_um
        truth = out["truth"].sum("z")
        centre = middle * tiny.object_pixel_um
        assert float((truth * truth.x).sum() / truth.sum()) - centre[1] == pytest.approx(14, abs=0.1)
    np.testing.assert_allclose(frames[0.0], frames[4.0], atol=1.5)
    np.testing.assert_allclose(frames[0.0], [0, 14], atol=1.5)


def test_the_errors_change_the_frame_and_the_seed_the_noise(tiny: Microscope) -> None:
    scene = Scene((Ball((3.0, 0.0, 0.0), 6.0, 5.0),))

    def frame(**more: object) -> np.ndarray:
        keywords = {"z_um": (-4, 10, 7), "lenslets": (9, 9), "z_substeps": 1, "voxels_per_lenslet": 5}
        out = simulate_lightfield(scene, tiny, **keywords, **more)  # type: ignore[arg-type]
        return np.asarray(out["raw"].values, float)

    nominal, off = frame(exposure=CLEAN), frame(exposure=CLEAN, error=SLIGHTLY_OFF)
    change = np.linalg.norm(nominal - off) / np.linalg.norm(light_of(nominal))
    assert 0.01 < change < 0.3
    assert np.array_equal(frame(seed=1), frame(seed=1))
    assert not np.array_equal(frame(seed=1), frame(seed=2))


def test_frames_look_like_a_cameras(tiny: Microscope) -> None:
    scene = Scene((Ball((0.0, 0.0, 0.0), 8.0),))
    out = simulate_lightfield(
        scene,
        tiny,
        z_um=(-6, 6, 6),
        lenslets=(9, 9),
        pitch_px=9.1,
        z_substeps=1,
        voxels_per_lenslet=5,
        exposure=Exposure(peak_electrons=2000, background=0.1, white_electrons=9000, hot_pixels=2e-3),
    )
    raw, white, dark = (out[k].values for k in ("raw", "white", "dark"))
    assert raw.dtype == white.dtype == dark.dtype == np.uint16
    assert np.median(dark) == pytest.approx(100, abs=1)
    assert np.percentile(white, 99) == pytest.approx(100 + 9000 / 0.5, rel=0.1)
    hot = dark > 1000
    assert 1 <= hot.sum() < 40
    assert (raw[hot] > 1000).all()  # hot pixels are the camera's: they are in every frame
    assert out["raw"].attrs["microscope"]["name"] == "tiny"
    assert out["truth"].dims == ("z", "y", "x")


def test_a_volume_is_as_good_a_subject_as_a_scene(tiny: Microscope) -> None:
    from napari_lfm.simulation.scene import Grid, render

    scene = Scene((Ball((2.0, 4.0, -3.0), 5.0),))
    volume = render(scene, Grid.centred((25, 91, 91), (1, 0.5, 0.5)))
    volume = labelled(volume.values, "zyx", {"z": 1, "y": 0.5, "x": 0.5}, {"z": -12.0})
    frames = [
        simulate_lightfield(
            subject,
            tiny,
            z_um=(-6, 6, 4),
            lenslets=(9, 9),
            rotation_deg=2.0,
            exposure=CLEAN,
            voxels_per_lenslet=5,
        )
        for subject in (scene, volume)
    ]
    a, b = (light_of(f["raw"].values) for f in frames)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(frames[0]["truth"].sum(), frames[1]["truth"].sum(), rtol=0.05)


def test_several_at_once_are_those_one_by_one(tiny: Microscope) -> None:
    scenes = [Scene((Ball((0.0, y, -3.0), 5.0),)) for y in (4.0, -9.0)]
    keywords = {"z_um": (-6, 6, 6), "lenslets": (7, 7), "z_substeps": 1, "voxels_per_lenslet": 5}
    both = simulate_lightfields(scenes, tiny, seed=3, **keywords)  # type: ignore[arg-type]
    for k, scene in enumerate(scenes):
        alone = simulate_lightfield(scene, tiny, seed=3 + k, **keywords)  # type: ignore[arg-type]
        np.testing.assert_allclose(both[k]["expected"], alone["expected"], rtol=1e-6, atol=1e-6)
        assert np.array_equal(both[k]["raw"], alone["raw"])
        assert np.array_equal(both[k]["truth"], alone["truth"])


def test_bad_requests_are_explained(tiny: Microscope) -> None:
    scene = Scene((Ball((0.0, 0.0, 0.0), 5.0),))
    with pytest.raises(RequestError, match="no lenslet array"):
        simulate_lightfield(scene, tiny.model_copy(update={"lenslets": None}), z_um=(0, 1, 1))
    with pytest.raises(RequestError, match="depth range"):
        simulate_lightfield(scene, tiny, z_um=(2, 1, 1))
    with pytest.raises(RequestError, match="Nothing of the subject"):
        simulate_lightfield(scene, tiny, z_um=(50, 52, 2), lenslets=(5, 5))
    volume = labelled(-np.ones((2, 5, 5)), "zyx", dict.fromkeys("zyx", 1.0))
    with pytest.raises(RequestError, match="negative or non-finite"):
        simulate_lightfield(volume, tiny, z_um=(0, 1, 1), lenslets=(5, 5))
    with pytest.raises(RequestError, match="cannot be simulated"):
        simulate_lightfield(scene, tiny, z_um=(0, 1, 1), lenslets=(0, 5))
