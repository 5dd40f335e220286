"""Restoring with a model: outputs where the recording lies, movies, channels, records, stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import get_method, make_parameters
from napari_lfm.methods.isotropic import job, restore
from napari_lfm.training.isotropic_resampling import interpolate_planes

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.methods.base import Request

METHOD = get_method("isotropic")


def result_of(request: Request) -> Result:
    last = list(METHOD.run(request))[-1]
    assert isinstance(last, Result)
    return last


def interpolated(values: np.ndarray, factor: float) -> np.ndarray:
    import torch

    last = torch.from_numpy(np.moveaxis(values.astype(np.float32), -3, -1))
    return np.moveaxis(interpolate_planes(last, factor).numpy(), -1, -3)


def test_the_result_lies_where_the_recording_does(
    make: Any, ask: Callable[..., Request], starter: Any
) -> None:
    image = make.image(make.values())
    request = ask(image)
    result = result_of(request)
    out = result.outputs
    assert result.primary == "isotropic"
    assert set(out) == {"isotropic", "disagreement", "residual"}
    made: Any = out["isotropic"]
    assert (made.dims, made.shape, made.dtype) == (("z", "y", "x"), (44, 40, 48), np.float32)
    assert float(made.z[0]) == 5.0
    assert spacing_of(made)["z"] == pytest.approx(0.1)
    assert float(made.z[-1]) <= float(image.z[-1])
    assert made.z.attrs["units"] == "um"
    assert out["residual"].shape == image.shape
    assert np.array_equal(out["residual"].z, image.z)
    figures = result.provenance["figures"]
    assert figures["factor"] == pytest.approx(4.8)
    assert 0 < figures["consistency_share"][0][0] < 1
    assert figures["blur_source"] in ("estimate", "assumed")
    assert result.provenance["model"]["id"] == "isotropic-starter"
    # grey values of the recording, and passes that do not quite agree
    assert abs(float(made.mean()) / float(image.mean()) - 1) < 0.1
    assert 0 < float(out["disagreement"].mean()) < 0.1 * float(np.ptp(image.values))


def test_a_model_that_changes_nothing_interpolates(
    make: Any, ask: Callable[..., Request], bundled: Any
) -> None:
    """Exact: levels, both passes, their mean and the way back to grey values cancel."""
    make.put_model(bundled, "nothing")
    values = make.values()
    result = result_of(ask(make.image(values), mean="arithmetic", blur_um=1e-6))
    wanted = interpolated(values, 4.8)
    assert np.allclose(result.outputs["isotropic"], wanted, rtol=1e-4, atol=0.05)
    assert float(np.abs(result.outputs["disagreement"]).max()) == 0
    # planes that lie between the new ones are interpolated once more: whole ones explain all
    whole = result_of(ask(make.image(values, factor=4.0), mean="arithmetic", blur_um=1e-6))
    assert float(np.abs(whole.outputs["residual"]).max()) < 0.1
    assert whole.provenance["figures"]["consistency_share"] == [[0.0]]


def test_a_channel_is_restored_as_if_it_were_alone(
    make: Any, ask: Callable[..., Request], starter: Any
) -> None:
    first, second = make.values(), 3 * make.values(seed=1)
    both = result_of(ask(make.image(np.stack([first, second]), "czyx"), blur_um=0.25))
    alone = result_of(ask(make.image(second), blur_um=0.25))
    assert both.outputs["isotropic"].dims == ("c", "z", "y", "x")
    for name in ("isotropic", "disagreement", "residual"):
        assert np.allclose(both.outputs[name][1], alone.outputs[name], rtol=1e-4, atol=0.1)
    assert len(both.provenance["figures"]["consistency_share"][0]) == 2


def test_movies_are_restored_frame_by_frame(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    frames = np.stack([make.values(seed=k) for k in range(3)])
    events = list(METHOD.run(ask(make.image(frames, "tzyx"), blur_um=0.25)))
    result = events[-1]
    assert isinstance(result, Result)
    assert result.outputs["isotropic"].sizes == {"t": 3, "z": 44, "y": 40, "x": 48}
    shown = [e for e in events if isinstance(e, Preview)]
    assert [e.image.sizes["t"] for e in shown] == [1, 2, 3]
    assert shown[0].provenance["model"]["id"] == "isotropic-starter"
    middle = result_of(ask(make.image(frames[1]), blur_um=0.25))
    assert np.allclose(result.outputs["isotropic"][1], middle.outputs["isotropic"], atol=0.1)
    said = {e.message for e in events if isinstance(e, Progress)}
    assert "Restoring slices XZ, frame 3 of 3" in said


def test_mirrored_layers_and_odd_axis_orders(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    image = make.image(make.values())
    flipped = image.assign_coords(z=image.z[::-1])
    made: Any = result_of(ask(flipped, blur_um=0.25, consistency=False)).outputs["isotropic"]
    assert float(made.z[0]) == pytest.approx(float(image.z[-1]))
    assert spacing_of(made)["z"] == pytest.approx(-0.1)
    turned: xr.DataArray = image.transpose("y", "z", "x")
    other: Any = result_of(ask(turned, blur_um=0.25, consistency=False)).outputs["isotropic"]
    assert other.dims == ("y", "z", "x")
    assert np.allclose(other.transpose("z", "y", "x"), made)


def test_as_many_new_planes_as_recorded_ones_lie_nearer_together(
    make: Any, ask: Callable[..., Request], starter: Any
) -> None:
    image = make.image(make.values(planes=5, factor=1.1), factor=1.1)
    out = result_of(ask(image, blur_um=0.1)).outputs
    assert out["isotropic"].shape == out["residual"].shape == image.shape
    assert spacing_of(out["isotropic"])["z"] == pytest.approx(0.1)  # type: ignore[arg-type]
    assert spacing_of(out["residual"])["z"] == pytest.approx(0.11)  # type: ignore[arg-type]


def test_what_is_no_number_and_what_is_dark(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    values = np.stack([make.values().astype(np.float32), np.full((10, 40, 48), 7, np.float32)])
    values[0, 2, 5:8, 5:8] = np.nan
    values[1, 0, 0, 0] = np.nan
    result = result_of(ask(make.image(values, "czyx"), blur_um=0.25))
    made = result.outputs["isotropic"]
    assert np.isfinite(made).all()
    assert np.allclose(made[1], 7, atol=1e-3)


def test_published_resampling_comes_with_the_model(
    make: Any, ask: Callable[..., Request], bundled: Any
) -> None:
    make.put_model(bundled, "care", scalers={"csbdeep": 1.0})
    result = result_of(ask(make.image(make.values()), blur_um=0.25))
    made: Any = result.outputs["isotropic"]
    assert made.sizes["z"] == 48  # ten times 4.8
    assert float(made.z[-1]) == pytest.approx(5 + 9 * 0.48)
    assert result.provenance["figures"]["resampling"] == "csbdeep"


def test_a_model_that_states_widths_gives_them(make: Any, ask: Callable[..., Request], bundled: Any) -> None:
    make.put_model(bundled, "unsure", network={"widths": [4, 6], "channels": 1, "probabilistic": True})
    image = make.image(make.values())
    result = result_of(ask(image, blur_um=0.25, uncertainty=False))
    assert set(result.outputs) == {"isotropic", "stated-error", "residual"}
    stated = result.outputs["stated-error"]
    low, high = np.percentile(image, (2, 99.8))
    # what the network begins with: softplus(-3) + 0.001
    assert float(stated.mean()) == pytest.approx((np.log1p(np.exp(-3)) + 1e-3) * (high - low), rel=0.01)


def test_outputs_that_are_not_wanted_are_not_made(ask: Callable[..., Request], starter: Any) -> None:
    result = result_of(ask(uncertainty=False, consistency=False))
    assert set(result.outputs) == {"isotropic"}
    assert "blur_um" not in result.provenance["figures"]


def test_the_record_repeats_the_run(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    image = make.image(make.values())
    first = result_of(ask(image, mean="arithmetic"))
    record = first.provenance
    again = result_of(ask(image, model=record["model"]["id"], **record["parameters"]))
    assert np.array_equal(first.outputs["isotropic"], again.outputs["isotropic"])
    assert make_parameters(METHOD, record["parameters"])


def test_a_given_point_spread_function_is_used(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    z, y, x = np.meshgrid(*(np.arange(-8, 9) for _ in range(3)), indexing="ij")
    bead = make.image(1e4 * np.exp(-(z**2 / 32 + (y**2 + x**2) / 8)), factor=1.0)
    request, _ = METHOD.complete(ask(psf=bead))  # type: ignore[attr-defined]
    assert request.parameters.blur == "measured"
    assert request.model == "isotropic-starter"
    figures = result_of(request).provenance["figures"]
    assert figures["blur_source"] == "measured"
    assert figures["blur_um"] == pytest.approx(0.1 * np.sqrt(16 - 4), rel=0.15)
    # unless something else is said
    told, _ = METHOD.complete(ask(psf=bead, blur_um=0.2))  # type: ignore[attr-defined]
    assert told.parameters.blur == "estimate"


def test_stopping_between_slices(ask: Callable[..., Request], starter: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(restore, "CHUNK_PIXELS", 2000)
    events: Any = METHOD.run(ask(blur_um=0.25))
    seen = 0
    for event in events:
        seen += isinstance(event, Progress) and event.message.startswith("Restoring")
        if seen == 2:
            break
    events.close()
    with pytest.raises(StopIteration):
        next(events)


def test_memory_that_runs_out(ask: Callable[..., Request], starter: Any, monkeypatch: Any) -> None:
    real, sizes = restore.restore_stack, []

    def short(*args: Any, **named: Any) -> Any:
        sizes.append(named["chunk_pixels"])
        if len(sizes) < 3:
            raise MemoryError
        yield from real(*args, **named)

    monkeypatch.setattr(restore, "restore_stack", short)
    result = result_of(ask(blur_um=0.25))
    assert sizes == [2**21, 2**19, 2**17]
    assert len(result.provenance["figures"]["notes"]) == 2

    def never(*_: Any, **__: Any) -> Any:
        raise MemoryError
        yield

    monkeypatch.setattr(restore, "restore_stack", never)
    with pytest.raises(RequestError, match="memory is not enough"):
        result_of(ask(blur_um=0.25))
    monkeypatch.setattr(job, "is_out_of_memory", lambda _: False)
    with pytest.raises(MemoryError):  # other failures are no lack of memory
        result_of(ask(blur_um=0.25))
