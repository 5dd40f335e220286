"""Richardson-Lucy that starts from a network's volume, and how well a volume explains the measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import ndimage

from napari_lfm.core.events import Event, Preview, Result
from napari_lfm.core.resample import resample_onto
from napari_lfm.methods.base import Request, get_method, make_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.methods.conftest import Nets  # only for reading

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

    Make = Callable[..., Request]

METHOD, RL = get_method("lfmnet"), get_method("deconvolve-lightfield")


class Oracle(torch.nn.Module):
    """Knows the truth, blurred, and gives it at an arbitrary brightness with a little below zero."""

    n_pixels, voxels_per_lenslet = 9, 3

    def __init__(self, truth: np.ndarray) -> None:
        super().__init__()
        blurred = ndimage.gaussian_filter(truth.astype(np.float32), (0.6, 1.2, 1.2))
        self.answer = torch.from_numpy(blurred / blurred.max() - 0.01)

    def volume_of(self, image: torch.Tensor) -> torch.Tensor:
        return self.answer[None].expand(len(image), -1, -1, -1)


@pytest.fixture
def make(
    nets: Nets, tiny: Microscope, recording: Recording, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """A request whose model answers with the blurred truth."""
    nets.put(nets.mean(9, 9, 3))
    probe = nets_volume = None
    for event in METHOD.run(_request(tiny, recording)):
        if isinstance(event, Result):
            probe = nets_volume = event.outputs["volume"]
    assert isinstance(probe, xr.DataArray)
    assert isinstance(nets_volume, xr.DataArray)
    truth, on = resample_onto(recording["truth"], probe)
    whole = np.zeros(probe.shape, np.float32)
    at = tuple(
        slice(round(float(first)), round(float(first)) + n)
        for first, n in zip(
            [(float(on[d][0]) - float(probe[d][0])) / float(probe[d][1] - probe[d][0]) for d in probe.dims],
            on.shape,
            strict=True,
        )
    )
    whole[at] = truth.values
    oracle = Oracle(whole)
    monkeypatch.setattr("napari_lfm.networks.registry.open_network", lambda entry, device: oracle)
    return lambda fields=None, **parameters: _request(tiny, recording, fields, **parameters)


def _request(
    tiny: Microscope, recording: Recording, fields: dict[str, Any] | None = None, **parameters: Any
) -> Request:
    given: dict[str, Any] = {
        "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
        "microscope": tiny,
        "lattice": recording["lattice"],
        "model": "tiny-net",
        "device": "cpu",
        **(fields or {}),
    }
    return Request("lfmnet", parameters=make_parameters(METHOD, parameters), **given)


def result_of(events: list[Event]) -> Result:
    last = events[-1]
    assert isinstance(last, Result)
    return last


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_a_refined_volume_explains_more_than_richardson_lucy_of_equal_iterations(
    make: Make, make_request: Make, iterations: int
) -> None:
    refined = result_of(list(METHOD.run(make(refine_iterations=iterations)))).provenance["figures"]
    plain = result_of(list(RL.run(make_request(iterations=iterations, guard_planes=True))))
    assert refined["refined_residual"] <= plain.provenance["figures"]["relative_residual"]
    assert refined["refined_residual"] < refined["start_residual"]
    assert refined["expected_noise"] == pytest.approx(plain.provenance["figures"]["expected_noise"], rel=1e-3)


def test_refining_yields_a_preview_for_every_iteration_and_grows_zeros(make: Make) -> None:
    network = result_of(list(METHOD.run(make())))
    before = network.outputs["volume"]
    events = list(METHOD.run(make(refine_iterations=4)))
    previews = [e for e in events if isinstance(e, Preview)]
    assert [p.progress.message for p in previews] == ["Network", *(f"Refining {k}" for k in range(1, 5))]
    residuals = [p.progress.values["residual"] for p in previews[1:]]
    assert residuals == sorted(residuals, reverse=True)
    after = result_of(events).outputs["volume"]
    assert isinstance(before, xr.DataArray)
    assert isinstance(after, xr.DataArray)
    np.testing.assert_array_equal(after, previews[-1].image)
    assert after.shape == before.shape
    for dim in ("z", "y", "x"):
        np.testing.assert_allclose(after.coords[dim], before.coords[dim])
    assert float(before.min()) == 0
    assert float(after.where(before == 0).max()) > 0, "what the network missed can come back"
    assert np.corrcoef(before.values.ravel(), after.values.ravel())[0, 1] > 0.5


def test_the_residual_is_reported_where_it_is_asked_for(make: Make) -> None:
    quiet = result_of(list(METHOD.run(make()))).provenance["figures"]
    assert "relative_residual" not in quiet
    events = list(METHOD.run(make(residual=True)))
    told = result_of(events).provenance["figures"]
    assert 0 < told["relative_residual"] < 1
    assert "explains the light field" in told["message"]
    assert any("explains the light field" in getattr(e, "message", "") for e in events)


def test_a_movie_is_refined_frame_by_frame(make: Make, recording: Recording) -> None:
    from napari_lfm.core.labelled import labelled, spacing_of

    raw, dark = recording["raw"], recording["dark"]
    frames = np.stack([raw.values, (raw.values - 100.0) * 0.5 + 100])
    step = spacing_of(raw)["y"]
    movie = labelled(frames.astype(np.uint16), "tyx", {"t": 1.0, "y": step, "x": step})
    inputs = {"white": recording["white"], "dark": dark}
    whole = result_of(list(METHOD.run(make({"inputs": {"image": movie, **inputs}}, refine_iterations=2))))
    volumes = whole.outputs["volume"]
    assert isinstance(volumes, xr.DataArray)
    alone = result_of(
        list(METHOD.run(make({"inputs": {"image": movie[1], **inputs}}, refine_iterations=2)))
    ).outputs["volume"]
    assert isinstance(alone, xr.DataArray)
    np.testing.assert_allclose(volumes[1], alone, rtol=1e-3, atol=1e-3 * float(alone.max()))


def test_stopping_during_refinement_keeps_what_is_there(make: Make) -> None:
    run = METHOD.run(make(refine_iterations=50))
    seen = []
    for event in run:
        if isinstance(event, Preview):
            seen.append(event)
            if len(seen) == 3:
                run.close()  # type: ignore[attr-defined]
    assert len(seen) == 3
    assert seen[-1].progress.total == 50
    assert seen[-1].progress.step == 2
    assert seen[-1].image.dims == ("z", "y", "x")


def test_fine_volumes_are_refined_at_a_sampling_that_can_be_done(
    nets: Nets, tiny: Microscope, recording: Recording
) -> None:
    nets.put(nets.mean(9, 9, 9))
    request = _request(tiny, recording, refine_iterations=1)
    notes = [p.message for p in METHOD.check(request)]
    assert any("the volume has 7" in note for note in notes)
    assert METHOD.estimate(request).output_shape == (9, 11 * 7, 13 * 7)


def test_a_finer_volume_projects_back_as_the_coarse_one(recording: Recording, make_request: Make) -> None:
    """A residual belongs to the volume, not to its sampling."""
    from napari_lfm.core.labelled import labelled, origin_of, spacing_of
    from napari_lfm.methods.reproject import reproject

    request = make_request(iterations=3)
    coarse = result_of(list(RL.run(request))).outputs["volume"]
    assert isinstance(coarse, xr.DataArray)
    step, first = spacing_of(coarse), origin_of(coarse)
    third = {d: s / 3 if d != "z" else s for d, s in step.items()}
    start = {d: first[d] - (step[d] / 3 if d != "z" else 0) for d in first}
    fine = labelled(np.kron(coarse.values, np.ones((1, 3, 3))), "zyx", third, start)
    residuals = [reproject(v, request).relative_residual for v in (coarse, fine)]
    assert residuals[1] == pytest.approx(residuals[0], rel=0.03)
