"""Fitting a run into the memory, and saying what it will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.methods import plan as plans
from napari_lfm.methods.base import Request, get_method
from napari_lfm.methods.deconvolve_lightfield import DeconvolveParameters
from napari_lfm.methods.plan import check_plan, make_plan, planes_of
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.simulation.recording import Recording

    Make = Callable[..., Request]

METHOD = get_method("deconvolve-lightfield")
GIB = 2**30


def big(memory_gib: float | None, **parameters: object) -> Request:
    """The GUV problem, twice as fine: an operator of 100 MiB and more."""
    microscope = load_microscope("mbl-60x1.2w")
    step = microscope.object_pixel_um
    image = labelled(np.indices((436, 436), np.uint16)[1], "yx", {"y": step, "x": step})
    chosen = DeconvolveParameters(voxels_per_lenslet=5, **parameters)  # type: ignore[arg-type]
    return Request(
        METHOD.id, {"image": image}, chosen, microscope=microscope, memory_gib=memory_gib, device="cpu"
    )


def test_less_memory_takes_another_path() -> None:
    free = make_plan(big(64))
    assert free.path == "folded"
    assert free.peak_bytes < 64 * GIB
    seen = [free.path]
    for budget in np.linspace(free.peak_bytes * 0.999, free.peak_bytes * 0.3, 40) / GIB:
        try:
            plan = make_plan(big(float(budget)))
        except RequestError as error:
            assert "GiB" in str(error)
            seen.append("refused")
            continue
        assert plan.peak_bytes <= budget * GIB
        seen.append(plan.path)
    assert seen[-1] == "refused"
    assert {"folded", "half", "streamed"} & set(seen) >= {"folded", "half"}
    assert seen.count("refused") == len(seen) - seen.index("refused"), "once too small, always too small"


def test_a_budget_too_small_for_one_plane_says_what_is_needed() -> None:
    problems = check_plan(big(0.3))
    assert [p.severity for p in problems] == ["error"]
    text = str(problems[0])
    assert "needs at least" in text
    assert "0.3 GiB" in text
    assert "smaller region" in text
    assert problems[0].field == "memory_gib"
    with pytest.raises(RequestError, match="needs at least"):
        next(METHOD.run(big(0.3)))
    with pytest.raises(RequestError, match="above 0 GiB"):
        make_plan(big(0))


def test_precision_can_be_asked_for() -> None:
    assert make_plan(big(64, precision="float16")).path == "half"
    half, full = make_plan(big(64, precision="float16")), make_plan(big(64, precision="float32"))
    assert half.geometry.matrix_bytes("float16") * 2 == full.geometry.matrix_bytes()


def test_guard_planes_lie_outside_the_volume() -> None:
    parameters = DeconvolveParameters(z_min_um=-6, z_max_um=8, z_step_um=2)
    planes, n_fine = planes_of(parameters)
    fine, guards = planes[:n_fine], planes[n_fine:]
    assert [p.z_um for p in fine] == [-6, -4, -2, 0, 2, 4, 6, 8]
    assert len(guards) == 2 * plans.GUARD_COUNT
    assert all(p.z_um < -6 or p.z_um > 8 for p in guards)
    assert all(p.voxels == (1, 1) for p in guards)
    assert len(planes_of(parameters.model_copy(update={"guard_planes": False}))[0]) == n_fine
    single = DeconvolveParameters(z_min_um=3, z_max_um=3)
    assert [p.z_um for p in planes_of(single)[0][:1]] == [3]


def test_steps_that_do_not_divide_the_range() -> None:
    assert list(DeconvolveParameters(z_min_um=0, z_max_um=1, z_step_um=0.3).z_um) == pytest.approx(
        [0, 0.3, 0.6, 0.9]
    )
    assert DeconvolveParameters(z_min_um=-0.3, z_max_um=0.3, z_step_um=0.1).planes == 7


def test_depths_out_of_reach_are_told(make_request: Make) -> None:
    request = make_request(z_min_um=-400, z_max_um=400, z_step_um=50)
    warnings = [p for p in METHOD.check(request) if p.severity == "warning"]
    assert any("resolves little beyond" in p.message for p in warnings)
    assert not [p for p in METHOD.check(make_request()) if p.severity == "warning"]


@pytest.mark.parametrize(
    ("z_max_um", "z_step_um", "note"),
    [
        (24.0, 6.0, None),
        (24.0, 48 / 7, None),
        (24.05, 6.0, None),
        (24.0, 7.0, "do not reach 24 um: 7 planes, -24 to 18 um"),
        (-23.99, 6.0, "do not reach -23.99 um: the only plane is -24 um"),
        (-24.0, 6.0, None),
    ],
)
def test_planes_that_do_not_reach_the_end_are_told(
    make_request: Make, z_max_um: float, z_step_um: float, note: str | None
) -> None:
    found = METHOD.check(make_request(z_max_um=z_max_um, z_step_um=z_step_um))
    texts = [p.message for p in found if "do not reach" in p.message]
    assert [p.severity for p in found if p.message in texts] == ["info"] * len(texts)
    assert (note is None) == (not texts)
    assert note is None or note in texts[0]


def test_a_tiny_budget_is_told_in_mib() -> None:
    assert "the memory budget is 1.02 MiB" in str(check_plan(big(0.001))[0])


def test_more_frames_take_more_memory_and_time(make_request: Make, recording: Recording) -> None:
    raw = recording["raw"]
    movie = labelled(np.stack([raw.values] * 6), "tyx", {"t": 1.0, "y": 0.55, "x": 0.55})
    one, six = (METHOD.estimate(make_request({"inputs": {"image": i}})) for i in (raw, movie))
    assert six.output_shape == (6, *one.output_shape)
    assert six.peak_bytes > one.peak_bytes
    assert six.seconds > one.seconds > 0
    assert "frames at once" in six.notes[0]
    longer = METHOD.estimate(make_request(iterations=300))
    assert longer.seconds > one.seconds


def test_streamed_runs_give_the_same_volume(make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(iterations=2)
    plain = list(METHOD.run(request))[-1]
    monkeypatch.setattr(plans, "_paths", lambda _: [("float32", True)])
    events = list(METHOD.run(request))
    streamed = events[-1]
    assert isinstance(plain, Result)
    assert isinstance(streamed, Result)
    assert any(isinstance(e, Progress) and "plane by plane" in e.message for e in events)
    assert any("plane by plane" in p.message for p in METHOD.check(request))
    a, b = plain.outputs["volume"].values, streamed.outputs["volume"].values  # type: ignore[union-attr]
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.max()))


def test_running_out_of_memory_halves_the_batch_and_then_tells(
    make_request: Make, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = recording["raw"]
    movie = labelled(np.stack([raw.values] * 4), "tyx", {"t": 1.0, "y": 0.55, "x": 0.55})
    request = make_request({"inputs": {"image": movie}}, iterations=1)
    real = plans.RichardsonLucy.step

    def small_memory(self: plans.RichardsonLucy, state: object) -> object:
        if len(self.measurement.data) > largest:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return real(self, state)  # type: ignore[arg-type]

    monkeypatch.setattr(plans.RichardsonLucy, "step", small_memory)
    largest = 2
    events = list(METHOD.run(request))
    assert any(isinstance(e, Progress) and "2 frames at once" in e.message for e in events)
    assert len(events[-1].outputs["volume"]) == 4  # type: ignore[union-attr]
    assert sum(isinstance(e, Preview) for e in events) == 2
    largest = 0
    with pytest.raises(RequestError, match="memory is not enough"):
        list(METHOD.run(request))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(plans.RichardsonLucy, "step", broken)
    with pytest.raises(RuntimeError, match="something else"):
        list(METHOD.run(make_request()))
