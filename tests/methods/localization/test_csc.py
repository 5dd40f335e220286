"""Convolutional sparse coding: the problem that it solves, and depths of lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.methods.localization.csc import EpipolarCsc

VIEWS, LENSLETS, DEPTHS, PLACES = 7, 13, 6, 2
SLOPES = np.linspace(-0.6, 0.6, DEPTHS)


def line(slope: float, at: float) -> np.ndarray:
    view = np.arange(VIEWS) - VIEWS // 2
    return np.exp(-((np.arange(LENSLETS) - at - slope * view[:, None]) ** 2))


@pytest.fixture(scope="module")
def atoms() -> np.ndarray:
    middle = LENSLETS // 2
    offsets = (np.arange(PLACES) + 0.5) / PLACES - 0.5
    return np.stack([[line(k, middle + o) for o in offsets] for k in SLOPES]).astype(np.float32)


def test_it_minimises_equation_one(atoms: np.ndarray) -> None:
    """Against the same problem as one dense matrix, by its optimality conditions."""
    csc = EpipolarCsc(atoms, sparsity=0.05, iterations=3000)
    image = torch.from_numpy(line(SLOPES[1], 5.3) + 0.6 * line(SLOPES[4], 8.0)).float()[None]
    codes = csc.codes(image)[0]
    flat = (
        atoms.reshape(-1, VIEWS, LENSLETS)
        / np.linalg.norm(atoms.reshape(len(SLOPES) * PLACES, -1), axis=1)[:, None, None]
    )
    columns = []
    for atom in flat:
        for place in range(LENSLETS):
            shifted = np.zeros((VIEWS, 3 * LENSLETS))
            start = LENSLETS + place - LENSLETS // 2
            shifted[:, start : start + LENSLETS] = atom
            columns.append(shifted.ravel())
    dense = np.stack(columns, 1)  # light beyond the image's edges is seen as dark there
    x = np.zeros((VIEWS, 3 * LENSLETS))
    x[:, LENSLETS : 2 * LENSLETS] = image[0]
    z = codes.reshape(-1).double().numpy()
    correlation = dense.T @ x.ravel()
    shrink = 0.05 * correlation.max()
    gradient = dense.T @ (dense @ z) - correlation + shrink
    assert gradient.min() > -2e-2 * shrink  # no code would want to grow,
    assert np.abs(gradient[z > 1e-3]).max() < 2e-2 * shrink  # and those that are there stand still
    assert (z > 1e-3).sum() < 0.2 * len(z)


def test_depths_of_two_lines_are_told(atoms: np.ndarray) -> None:
    csc = EpipolarCsc(atoms)
    image = torch.from_numpy(line(SLOPES[0], 6.0) + 0.7 * line(SLOPES[5], 9.0)).float()[None]
    curve = csc.curves(image)[0]
    assert sorted(curve.argsort()[-2:].tolist()) == [0, 5]
    assert curve.max() == pytest.approx(1)
    near = csc.curves(image, near=1)[0]
    assert near.argmax() == 0
    assert near[5] < 0.5 * curve[5]  # the other one lies elsewhere


def test_many_images_are_independent_and_dark_ones_stay_dark(atoms: np.ndarray) -> None:
    csc = EpipolarCsc(atoms)
    images = torch.stack(
        [torch.from_numpy(line(k, 6.0)).float() for k in SLOPES] + [torch.zeros(VIEWS, LENSLETS)]
    )
    curves = csc.curves(images)
    assert curves[:-1].argmax(1).tolist() == list(range(DEPTHS))
    assert not curves[-1].any()
    np.testing.assert_allclose(csc.curves(images[2:3])[0], curves[2], atol=1e-4)
    np.testing.assert_allclose(csc.curves(50 * images[2:3])[0], curves[2], atol=1e-4)


def test_it_can_be_stopped(atoms: np.ndarray) -> None:
    csc = EpipolarCsc(atoms, iterations=7)
    assert len(list(csc.steps(torch.rand(2, VIEWS, LENSLETS)))) == 7
