"""The engine in one call: arrays, labelled images, paths; what an image carries counts."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import xarray as xr
from pydantic import Field

from napari_lfm import api
from napari_lfm.core.events import Event, Progress, Result
from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.io.write import write_image
from napari_lfm.lightfield.files import save_lattice
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.methods.base import InputKind, Parameters, Request
from napari_lfm.optics.presets import load_microscope, save_microscope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LATTICE = Lattice(
    origin_px=(7, 7), row_step_px=(15, 0), column_step_px=(0, 15), rows=5, columns=5, image_shape=(75, 75)
)


class EchoParameters(Parameters):
    """Parameters of the echo."""

    gain: float = Field(default=1.0, gt=0)
    """Factor."""
    ends: bool = True
    """Whether a result comes at all."""


class Echo:
    """Give back what came in."""

    id: ClassVar[str] = "echo"
    title: ClassVar[str] = "Echo"
    summary: ClassVar[str] = "Gives back what came in."
    input_kind: ClassVar[InputKind] = "lightfield"
    Parameters: ClassVar[type[EchoParameters]] = EchoParameters
    requests: ClassVar[list[Request]] = []
    closed: ClassVar[list[bool]] = []

    def check(self, request: Request) -> list[Problem]:
        self.requests.append(request)
        return [Problem("The device is odd.", "Take another.")] if request.device == "mps" else []

    def estimate(self, request: Request) -> Estimate:
        return Estimate((1,), ("y",), 1, 1.0)

    def run(self, request: Request) -> Iterator[Event]:
        parameters = request.parameters
        assert isinstance(parameters, EchoParameters)
        try:
            yield Progress(1, 1, "Echoing")
            if parameters.ends:
                yield Result(
                    {"image": request.inputs["image"] * parameters.gain}, "image", {"method": "echo"}
                )
        finally:
            self.closed.append(True)


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> type[Echo]:
    module = types.ModuleType("napari_lfm_echo")
    module.Echo = Echo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kinds = {"echo": "lightfield", "echo-stack": "stack", "echo-image": "image"}
    for name, kind in kinds.items():
        made = type(name, (Echo,), {"id": name, "input_kind": kind})
        setattr(module, name.replace("-", "_"), made)
    table = {name: f"{module.__name__}:{name.replace('-', '_')}" for name in kinds}
    monkeypatch.setattr("napari_lfm.methods.base._registry", lambda: table)
    Echo.requests.clear()
    Echo.closed.clear()
    return Echo


def test_arrays_become_labelled_by_the_methods_kind() -> None:
    optics = load_microscope("mbl-60x1.2w")
    frame = np.ones((6, 7))
    for array, dims in ((frame, "yx"), (frame[None], "tyx"), (np.ones((3, 3, 4, 4)), "vuts")):
        result = api.run("echo", array, microscope=optics, gain=2)
        image = result.outputs["image"]
        assert isinstance(image, xr.DataArray)
        assert image.dims == tuple(dims)
        assert float(image.max()) == 2
    assert spacing_of(Echo.requests[0].inputs["image"])["x"] == pytest.approx(optics.object_pixel_um)
    api.run("echo-stack", np.ones((2, 3, 4)), voxel_um=(2, 0.5, 0.25))
    assert spacing_of(Echo.requests[-1].inputs["image"]) == {"z": 2, "y": 0.5, "x": 0.25}
    assert Echo.requests[-1].inputs["image"].dims == ("z", "y", "x")
    with pytest.raises(RequestError, match="5 axes"):
        api.run("echo", np.ones((1, 1, 1, 1, 1)))


def test_files_names_and_dicts_are_all_accepted(tmp_path: Path) -> None:
    raw = write_image(tmp_path / "raw.tif", labelled(np.ones((75, 75), np.uint16), "yx", {}))
    grid = save_lattice(tmp_path / "grid.json", LATTICE)
    optics = load_microscope("mbl-60x1.2w")
    for microscope in ("mbl-60x1.2w", optics, optics.model_dump()):
        for lattice in (grid, str(grid), LATTICE, LATTICE.to_json()):
            api.run("echo", raw, white=raw, microscope=microscope, lattice=lattice)
            request = Echo.requests[-1]
            assert request.microscope == optics
            assert request.lattice == LATTICE
            assert set(request.inputs) == {"image", "white"}
            assert request.sources == {"image": str(raw), "white": str(raw)}


def test_what_the_image_carries_is_used_unless_something_else_is_given() -> None:
    own, other = load_microscope("mbl-60x1.2w"), load_microscope("bern-40x0.9")
    attrs = {"microscope": own.model_dump(mode="json"), "lattice": LATTICE.to_json()}
    image = labelled(np.ones((75, 75)), "yx", {"y": 0.1, "x": 0.1}, attrs=attrs)
    api.run("echo", image)
    assert Echo.requests[-1].microscope == own
    assert Echo.requests[-1].lattice == LATTICE
    api.run("echo", image, microscope=other)
    assert Echo.requests[-1].microscope == other


def test_the_request_is_complete() -> None:
    image = labelled(np.ones((9, 9)), "yx", {})
    request, problems = api.build_request(
        "echo",
        image,
        layout="raw",
        device="cpu",
        memory_gib=2,
        region_px=(1, 2, 3, 4),
        sources={"image": "elsewhere.tif"},
        parameters={"gain": "2.5"},
    )
    assert problems == []
    assert (request.layout, request.device, request.memory_gib) == ("raw", "cpu", 2)
    assert request.region_px == (1, 2, 3, 4)
    assert request.sources == {"image": "elsewhere.tif"}
    assert request.parameters.gain == 2.5  # type: ignore[attr-defined]


def test_a_region_is_cut_to_the_frame_or_refused() -> None:
    def built(region: tuple[int, int, int, int], layout: str = "auto") -> tuple[Request, list[Problem]]:
        return api.build_request("echo", np.ones((9, 12)), region_px=region, layout=layout)

    request, problems = built((-2, 3, 5, 40))
    assert request.region_px == (0, 3, 5, 12)
    assert [p.severity for p in problems] == ["info"]
    assert "0,3,5,12 is used" in problems[0].message
    for region, reason in (((5, 3, 2, 6), "wrong way round"), ((9, 0, 20, 5), "outside the frame of 9 x 12")):
        _, problems = built(region)
        assert [p.severity for p in problems] == ["error"]
        assert reason in problems[0].message
    _, problems = built((0, 0, 3, 3), "lenslet:3")
    assert "rectified already" in problems[0].message


def test_events_are_passed_on_and_the_run_is_closed() -> None:
    seen: list[Event] = []
    api.run("echo", np.ones((3, 3)), on_event=seen.append)
    assert [type(e) for e in seen] == [Progress, Result]

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    Echo.closed.clear()
    with pytest.raises(KeyboardInterrupt):
        api.run("echo", np.ones((3, 3)), on_event=stop)
    assert Echo.closed == [True]


def test_what_is_wrong_is_raised_before_the_run() -> None:
    with pytest.raises(RequestError, match="odd"):
        api.run("echo", np.ones((3, 3)), device="mps")
    with pytest.raises(RequestError, match="Did you mean 'gain'"):
        api.run("echo", np.ones((3, 3)), gian=2)
    with pytest.raises(RequestError, match="Did you mean"):
        api.run("echoo", np.ones((3, 3)))
    with pytest.raises(RequestError, match="no grid file"):
        api.run("echo", np.ones((3, 3)), lattice="nowhere.json")
    assert Echo.closed == []
    with pytest.raises(RuntimeError, match="without a result"):
        api.run("echo", np.ones((3, 3)), ends=False)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_microscope_is_no_grid(tmp_path: Path, suffix: str) -> None:
    path = save_microscope(load_microscope("mbl-60x1.2w"), tmp_path / f"optics{suffix}")
    with pytest.raises(RequestError, match=r"is a microscope, not a grid.*--microscope"):
        api.as_lattice(path)
