"""Labelled images know where they are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.labelled import affine_of, labelled, origin_of, spacing_of


def test_coordinates_carry_units_and_sizes() -> None:
    image = labelled(np.zeros((2, 3, 4, 5)), "tzyx", {"t": 0.1, "z": 2.0, "y": 0.5, "x": 0.25}, {"z": -2.0})
    assert image.dims == ("t", "z", "y", "x")
    assert image.coords["z"].values.tolist() == [-2, 0, 2]
    assert {d: image.coords[d].attrs["units"] for d in "tzyx"} == {"t": "s", "z": "um", "y": "um", "x": "um"}
    assert spacing_of(image) == pytest.approx({"t": 0.1, "z": 2, "y": 0.5, "x": 0.25})
    assert origin_of(image) == {"t": 0, "z": -2, "y": 0, "x": 0}


def test_a_single_plane_keeps_its_spacing() -> None:
    image = labelled(np.zeros((1, 4)), "zx", {"z": 3.0, "x": 1.0}, {"z": 7.0})
    assert spacing_of(image) == {"z": 3, "x": 1}
    assert spacing_of(image.isel(x=slice(2, 3)))["x"] == 1
    assert origin_of(image.isel(x=slice(2, 3)))["x"] == 2


def test_dims_without_a_size_have_no_coordinates() -> None:
    image = labelled(np.zeros((4, 4)), "yx", {})
    assert spacing_of(image) == origin_of(image) == {}
    np.testing.assert_array_equal(affine_of(image), np.eye(3))


def test_the_affine_matrix_says_the_same_as_the_coordinates() -> None:
    image = labelled(np.zeros((3, 4)), "yx", {"y": 0.5, "x": 0.2}, {"y": 1.0, "x": -1.0})
    world = affine_of(image) @ [2, 3, 1]
    assert world[:2] == pytest.approx([float(image.y[2]), float(image.x[3])])
    turned = labelled(
        np.zeros((3, 4)), "yx", {"y": 1, "x": 1}, attrs={"affine_um": [[0, 1, 5], [1, 0, 6], [0, 0, 1]]}
    )
    assert (affine_of(turned) @ [2, 3, 1]).tolist() == [8, 8, 1]


def test_a_wrong_number_of_dims_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        labelled(np.zeros((2, 2)), "zyx", {})
