"""Real neurons at two positions of the stage, recorded by others (views from published figures)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.lightfield.slopes import slope_at_depth, slope_per_um
from napari_lfm.methods.localization.finders import CistaFinder
from napari_lfm.methods.localization.joint import JointLocalizer
from napari_lfm.methods.localization.points import Localizer, PointOptions
from napari_lfm.methods.localization.templates import make_templates
from napari_lfm.networks.catalogue import find_model
from napari_lfm.networks.registry import open_network
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

MIDDLE = 11


def end_of(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_the_central_neuron_moves_as_the_stage_does(shared_data: Path) -> None:
    path = shared_data / "neurons-digitised" / "views_0um_24um.npz"
    if not path.is_file():
        pytest.skip("the digitised neurons are not here")
    microscope = load_microscope("imperial-25x1.0w")
    entry = find_model("cista-imperial-25x1.0w", "localize")
    finder = CistaFinder(open_network(entry), np.asarray(sorted(entry.card.z_um)))  # type: ignore[arg-type]
    slope = slope_at_depth(1.0, microscope, 5, 19)
    # over views -5..5, of which the recording consists, the slope is not the paraxial one
    assert slope_per_um(microscope, 5, 19) == pytest.approx(0.0218, abs=2e-4)
    options = PointOptions(purify="none", rows=3, seed_threshold=0.2, confidence=0.1)
    localizer = Localizer(finder, slope, 5.0, options)
    steps = make_templates(microscope, 19, (finder.z_um[0], finder.z_um[-1]), 11.5)
    joint = JointLocalizer(localizer, end_of(steps))
    depths, fitted = [], []
    with np.load(path) as kept:
        stage, fields = kept["stage_depth_um"], kept["foreground"].astype(np.float32)
    for field in fields:
        views = np.zeros((19, 19, *field.shape[2:]), np.float32)
        views[4:15, 4:15] = field  # the outer views were not published: dark
        found = localizer.at(views, localizer.seeds(views))
        near = np.hypot(found.t - MIDDLE, found.s - MIDDLE) < 2
        assert near.any()
        depths.append(float(found.z_um[np.flatnonzero(near)[0]]))
        together = joint.find(views)
        near = np.hypot(together.t - MIDDLE, together.s - MIDDLE) < 2
        fitted.append(float(together.z_um[np.flatnonzero(near)[0]]))
    assert depths[1] - depths[0] == pytest.approx(float(stage[1] - stage[0]), abs=4)
    assert fitted[1] - fitted[0] == pytest.approx(float(stage[1] - stage[0]), abs=4)
    # the slopes that were read off the published epipolar images: about 0 and -0.51 lenslets per view
    assert slope * depths[0] == pytest.approx(0.03, abs=0.08)
    assert slope * depths[1] == pytest.approx(-0.51, abs=0.08)
