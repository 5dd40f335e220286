"""Methods that work on stacks in the *Reconstruct* panel: input, sizes, world of the results."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import tifffile
from pydantic import Field

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem
from napari_lfm.io.provenance import make_provenance
from napari_lfm.methods.base import Parameters, Request
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.catalogue import ModelEntry
from napari_lfm.networks.stack_fit import check_stack_card, voxel_of
from napari_lfm.optics.presets import load_microscope
from napari_lfm.widgets import models, reconstruct
from napari_lfm.widgets.reconstruct import ReconstructWidget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_lfm.networks.fit import Fit


class StackParameters(Parameters):
    iterations: int = Field(default=3, ge=1, le=1000)
    """How many iterations."""
    psf_model: str = "auto"
    """A method with this can be given a point spread function, too."""


class FakeStack:
    """Adds 1 to a stack in every iteration; `gate` makes each step wait for the test."""

    id: ClassVar[str] = "fake-stack"
    title: ClassVar[str] = "Fake deconvolution of stacks"
    summary: ClassVar[str] = "For tests."
    input_kind: ClassVar[str] = "stack"
    takes_region: ClassVar[bool] = True
    Parameters: ClassVar[type[Parameters]] = StackParameters

    def __init__(self) -> None:
        self.gate: threading.Semaphore | None = None
        self.requests: list[Request] = []

    def check(self, request: Request) -> list[Problem]:
        return []

    def estimate(self, request: Request) -> Estimate:
        image = self._part(request)
        return Estimate(image.shape, tuple(map(str, image.dims)), 1_000_000, 1.0)

    @staticmethod
    def _part(request: Request) -> Any:
        image = request.inputs["image"]
        if request.region_px is not None:
            y0, x0, y1, x1 = request.region_px
            image = image.isel(y=slice(y0, y1), x=slice(x0, x1))
        return image.astype(np.float32)

    def run(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        p: Any = request.parameters
        start = request.continue_from or 0
        image = self._part(request)
        for i in range(start + 1, start + p.iterations + 1):
            if self.gate is not None:
                self.gate.acquire(timeout=20)
            done = Progress(i - start, p.iterations, f"Iteration {i}", 0.1)
            yield Preview("deconvolved", image + i, done, state=i)
        record = make_provenance(
            method=self.id,
            parameters=p,
            inputs=request.inputs,
            sources=request.sources,
            input_kind="stack",
            region_px=request.region_px,
        )
        yield Result({"deconvolved": image + i}, "deconvolved", record, state=i)


@pytest.fixture
def method() -> FakeStack:
    return FakeStack()


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(qtbot: Any, viewer: Any, method: FakeStack, fake_method: Any, monkeypatch: Any) -> Any:
    """The panel with a method for light fields, and one for stacks that is chosen."""
    monkeypatch.setattr(reconstruct, "load_methods", lambda: {"fake-stack": method, "fake": fake_method})
    widget = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Reconstruct")
    qtbot.waitUntil(lambda: widget.controller.method is not None, timeout=20_000)
    return widget


def stack(shape: tuple[int, ...] = (6, 20, 30)) -> np.ndarray:
    return np.random.default_rng(0).poisson(50, shape).astype(np.uint16)


def placed(viewer: Any, name: str = "nuclei", **extra: Any) -> Any:
    arguments: dict[str, Any] = {
        "scale": (0.5, 0.1, 0.1),
        "translate": (-1.0, 2.0, 3.0),
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
        **extra,
    }
    return viewer.add_image(stack(), name=name, **arguments)


def ready(qtbot: Any, c: Any) -> None:
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)


def end(qtbot: Any, c: Any, act: Any) -> Any:
    with qtbot.waitSignal(c.runner.finished, timeout=20_000) as caught:
        act()
    return caught.args[0]


def test_without_a_stack_the_panel_asks_for_one(qtbot: Any, widget: Any) -> None:
    view = widget.view
    assert not view.stack.isHidden()
    qtbot.waitUntil(lambda: "No stack is chosen" in view.problems.text(), timeout=20_000)
    view.method_chosen.emit("fake")
    assert view.stack.isHidden()
    qtbot.waitUntil(lambda: "No light field is chosen" in view.problems.text(), timeout=20_000)


def test_result_lies_in_the_world_of_its_stack(qtbot: Any, widget: Any, viewer: Any, method: Any) -> None:
    c = widget.controller
    layer = placed(viewer)
    ready(qtbot, c)  # the active layer is taken by itself
    assert "6 planes of 20 \N{MULTIPLICATION SIGN} 30 pixels, 0.5" in widget.view.stack.words.text()
    assert "nuclei" in widget.view.understood.text()
    assert "light field" not in widget.view.understood.text().lower()
    assert end(qtbot, c, widget.view.run_row.run_button.click).status == "finished"
    found = viewer.layers["deconvolved (nuclei)"]
    np.testing.assert_allclose(found.scale, layer.scale)
    np.testing.assert_allclose(found.translate, layer.translate)
    assert found.units == layer.units
    assert found.axis_labels == ("z", "y", "x")
    np.testing.assert_allclose(found.data, layer.data + 3.0)
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=20_000)
    # there is no light field to compare a stack with
    assert widget.view.check_button.isHidden()
    assert not widget.view.compare_stacks_button.isHidden()
    # the stack is still the input, though the result is the active layer now
    assert c.state().stack == "nuclei"


@pytest.mark.parametrize(
    ("shape", "labels", "scale", "units"),
    [
        ((3, 4, 8, 9), ("c", "z", "y", "x"), (1, 0.5, 0.1, 0.1), ("pixel", "um", "um", "um")),
        ((4, 3, 8, 9), ("z", "c", "y", "x"), (500, 1, 100, 100), ("nm", "pixel", "nm", "nm")),
        ((2, 4, 8, 9), ("t", "z", "y", "x"), (30, 0.5, 0.1, 0.1), ("s", "um", "um", "um")),
        ((4, 8, 9), ("z", "y", "x"), (0.5, 0.1, 0.1), ("pixel",) * 3),
    ],
)
def test_axes_and_units_stay(
    qtbot: Any, widget: Any, viewer: Any, method: Any, shape: Any, labels: Any, scale: Any, units: Any
) -> None:
    c = widget.controller
    layer = viewer.add_image(stack(shape), name="s", scale=scale, axis_labels=labels, units=units)
    ready(qtbot, c)
    viewer.dims.set_current_step(0, 1)
    end(qtbot, c, c.run)
    image = method.requests[0].inputs["image"]
    assert image.coords["z"].values[1] == pytest.approx(0.5)
    assert image.coords["y"].values[1] == pytest.approx(0.1)
    found = viewer.layers["deconvolved (s)"]
    np.testing.assert_allclose(found.scale, layer.scale)
    assert found.units == layer.units
    assert found.axis_labels == labels
    np.testing.assert_allclose(found.data, layer.data + 3.0)
    assert viewer.dims.current_step[0] == 1  # nobody is taken to another channel or frame


def test_unknown_sizes_are_asked_for(qtbot: Any, widget: Any, viewer: Any, method: Any) -> None:
    c, box = widget.controller, widget.view.stack
    layer = viewer.add_image(stack(), name="plain")
    qtbot.waitUntil(lambda: "how large its voxels are" in widget.view.problems.text(), timeout=20_000)
    assert not box.sizes.isHidden()
    assert "not known" in box.words.text()
    c.session.set_microscope(load_microscope("wf-60x1.4o"))
    # the camera's pixel is known then; the distance of the planes is not
    pixel = load_microscope("wf-60x1.4o").object_pixel_um
    assert box.size_boxes["x"].value() == pytest.approx(pixel, abs=1e-4)
    assert not c.ready
    box.size_boxes["z"].setValue(0.4)
    ready(qtbot, c)
    np.testing.assert_allclose(layer.scale, (0.4, pixel, pixel), rtol=1e-3)
    assert {str(u) for u in layer.units} == {"micrometer"}
    end(qtbot, c, c.run)
    assert method.requests[0].inputs["image"].attrs["read"]["voxel_um"][0] == 0.4
    np.testing.assert_allclose(viewer.layers["deconvolved (plain)"].scale, layer.scale)
    # a script has to say the size of the file, too
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=20_000)
    from napari_lfm.io.provenance import as_command, as_python

    assert "--voxel-um 0.4," in as_command(c.results.result.provenance)
    assert "voxel_um=[0.4," in as_python(c.results.result.provenance)


def test_sizes_of_a_file_reach_a_layer_that_another_reader_opened(
    qtbot: Any, widget: Any, viewer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(
        path, stack(), imagej=True, resolution=(5, 5), metadata={"spacing": 0.7, "unit": "um", "axes": "ZYX"}
    )
    viewer.open(str(path), plugin="napari")
    layer = viewer.layers["cells"]
    ready(qtbot, widget.controller)
    np.testing.assert_allclose(layer.scale, (0.7, 0.2, 0.2), rtol=1e-5)
    assert layer.axis_labels == ("z", "y", "x")


def test_dropped_file_and_psf(qtbot: Any, widget: Any, viewer: Any, tmp_path: Path, method: Any) -> None:
    c = widget.controller
    path, bead = tmp_path / "cells.tif", tmp_path / "bead.tif"
    tifffile.imwrite(
        path,
        stack(),
        imagej=True,
        resolution=(10, 10),
        metadata={"spacing": 0.5, "unit": "um", "axes": "ZYX"},
    )
    tifffile.imwrite(bead, stack((5, 7, 7)))
    widget.view.stack.drop_zone.files_chosen.emit([path])
    ready(qtbot, c)
    assert c.state().stack == "cells"
    assert widget.view.stack.psf_combo.currentText() == "model from the objective"
    c.stack.open_psf(bead)
    qtbot.waitUntil(lambda: c.stack.psf is not None, timeout=20_000)
    ready(qtbot, c)
    assert "5 planes of 7" in widget.view.stack.psf_words.text()
    assert not viewer.layers["bead"].visible
    end(qtbot, c, c.run)
    request = method.requests[0]
    assert set(request.inputs) == {"image", "psf"}
    assert request.sources["image"] == str(path)
    viewer.layers.remove("bead")
    assert c.state().psf == ""
    widget.view.stack.drop_zone.files_chosen.emit([tmp_path / "nothing.tif"])
    qtbot.waitUntil(lambda: "nothing.tif" in widget.view.stack.words.text(), timeout=20_000)


def test_part_of_the_field(qtbot: Any, widget: Any, viewer: Any, method: Any) -> None:
    c = widget.controller
    placed(viewer)
    c.region.draw(3.0)
    widget.view.drawn_button.setChecked(True)
    c.region.layer.add_rectangles(np.array([[2.5, 3.2], [3.4, 4.6]]))
    qtbot.waitUntil(lambda: c.region.region_um is not None, timeout=20_000)
    ready(qtbot, c)
    end(qtbot, c, c.run)
    assert method.requests[0].region_px == (5, 2, 15, 17)
    np.testing.assert_allclose(viewer.layers["deconvolved (nuclei)"].translate, (-1.0, 2.5, 3.2))


def test_stop_and_continue(qtbot: Any, widget: Any, viewer: Any, method: Any) -> None:
    c = widget.controller
    layer = placed(viewer)
    widget.view.form.set_values({"iterations": 100})
    ready(qtbot, c)
    method.gate = threading.Semaphore(2)
    c.run()
    qtbot.waitUntil(lambda: "deconvolved (nuclei)" in viewer.layers, timeout=20_000)

    def act() -> None:
        c.stop()
        method.gate.release()

    outcome = end(qtbot, c, act)
    assert outcome.status == "stopped"
    done = outcome.steps
    np.testing.assert_allclose(viewer.layers["deconvolved (nuclei)"].data, layer.data + float(done))
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=20_000)
    assert c.results.result.provenance["input_kind"] == "stack"
    method.gate = None
    widget.view.form.set_values({"iterations": 2})
    ready(qtbot, c)
    end(qtbot, c, c.go_on)
    np.testing.assert_allclose(viewer.layers["deconvolved (nuclei)"].data, layer.data + done + 2.0)


def test_a_stack_is_no_light_field_whatever_its_name(widget: Any, viewer: Any) -> None:
    c = widget.controller
    c.session.set_microscope(load_microscope("mbl-60x1.2w"))
    layer = placed(viewer, name="sample")
    np.testing.assert_allclose(layer.scale, (0.5, 0.1, 0.1))
    assert c.session.input("lightfield") is None
    plain = viewer.add_image(stack(), name="lf raw")  # nobody says that it is a stack
    c.stack.choose(plain)
    assert c.session.input("lightfield") is None


def test_wide_field_microscopes_are_offered(widget: Any) -> None:
    combo = widget.view.stack.microscope.combo
    names = [combo.itemData(i) for i in range(combo.count())]
    assert "wf-60x1.4o" in names
    assert names.index("wf-60x1.4o") < names.index("mbl-60x1.2w")
    widget.view.stack.microscope.chosen.emit("wf-60x1.4o")
    assert widget.controller.session.microscope.name == "wf-60x1.4o"


# --------------------------------------------------------------------------------- models
PIXEL_UM = load_microscope("wf-60x1.4o").object_pixel_um


def entry(id: str, microscope: Any, tmp_path: Path) -> ModelEntry:
    card = ModelCard(
        id=id,
        title="A test",
        version="1",
        method="fake-net",
        architecture="net",
        network={},
        microscope=None if microscope is None else microscope.model_dump(mode="json"),
        n_pixels=None,
        z_um=[],
        voxels_per_lenslet=None,
        scalers={"voxel_z_um": 0.5, "voxel_y_um": PIXEL_UM, "voxel_x_um": PIXEL_UM},
        specimens=["cells"],
        licence="MIT",
        data="nothing",
        training={},
        scores=[],
        hours=0.0,
        trained_on="nothing",
        date="2026-01-01",
        parameters=1,
        sha256="",
        versions={},
        notes="",
    )
    return ModelEntry(card, tmp_path, "user")


class FakeNet(FakeStack):
    id: ClassVar[str] = "fake-net"
    title: ClassVar[str] = "Fakenet for stacks"
    needs_model: ClassVar[bool] = True

    def fit_card(self, card: ModelCard, microscope: Any, voxel_um: Any) -> Fit:
        return check_stack_card(card, voxel_um or voxel_of(card), microscope)


def test_networks_for_stacks_need_no_microscope(
    qtbot: Any, widget: Any, viewer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    c, net = widget.controller, FakeNet()
    wide = load_microscope("wf-60x1.4o")
    other = load_microscope("wf-20x0.8")
    entries = [entry("far", other, tmp_path), entry("near", wide, tmp_path), entry("mute", None, tmp_path)]
    monkeypatch.setattr(models, "list_models", lambda method: entries if method == "fake-net" else [])
    c.methods["fake-net"] = net
    placed(viewer, scale=(0.5, PIXEL_UM, PIXEL_UM))
    widget.view.method_chosen.emit("fake-net")
    ready(qtbot, c)
    assert c.session.microscope is None
    assert {o.verdict for o in c.models.offers} == {"unchecked"}
    assert c.state().model is not None
    assert "could not be compared" in widget.view.models.fit_text.text()
    # the objective of a light-field microscope counts, its lenslets do not
    lenslets = load_microscope("mbl-60x1.2w").lenslets
    c.session.set_microscope(wide.model_copy(update={"lenslets": lenslets, "name": "both"}))
    assert c.models.chosen.key == "near"
    assert c.models.chosen.verdict == "matches"
    assert {o.key: o.verdict for o in c.models.offers}["far"] == "refused"
    ready(qtbot, c)
    # other pixels: the network wants them resampled, which the user agrees to
    viewer.layers["nuclei"].scale = (0.5, 2 * PIXEL_UM, 2 * PIXEL_UM)
    assert c.models.chosen.verdict == "resample"
    qtbot.waitUntil(lambda: "different recordings" in widget.view.problems.text(), timeout=20_000)
    widget.view.models.confirm_box.setChecked(True)
    ready(qtbot, c)
    end(qtbot, c, c.run)
    assert net.requests[0].model == "near"
    assert "Fakenet deconvolved (nuclei)" in viewer.layers


# ------------------------------------------------------------------------------- real methods
def test_real_methods_for_stacks(qtbot: Any, viewer: Any, monkeypatch: Any, tmp_path: Path) -> None:
    from napari_lfm.io.provenance import as_command, as_python
    from napari_lfm.methods.base import get_method
    from napari_lfm.networks import catalogue

    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "nowhere")
    monkeypatch.setattr(catalogue, "remote_cards", list)
    known: dict[str, Any] = {name: get_method(name) for name in ("deconvolve-widefield", "wfcon")}
    monkeypatch.setattr(reconstruct, "load_methods", lambda: known)
    widget = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Reconstruct")
    c: Any = widget.controller
    view: Any = widget.view
    qtbot.waitUntil(lambda: c.method is not None, timeout=20_000)
    points = np.zeros((8, 24, 24))
    points[4, 12, 12] = points[3, 6, 17] = 900.0
    from scipy.ndimage import gaussian_filter

    layer = viewer.add_image(
        gaussian_filter(points, (1, 1.5, 1.5)) + 100.0,
        name="points",
        scale=(0.6, 0.3, 0.3),
        translate=(0.0, 5.0, 6.0),
        units=("um",) * 3,
        axis_labels=("z", "y", "x"),
    )
    # without optics the method itself says what is missing
    qtbot.waitUntil(lambda: "optics are not known" in view.problems.text(), timeout=20_000)
    assert view.region_box.isHidden()  # it takes stacks whole
    assert not view.stack.psf_row.isHidden()
    c.session.set_microscope(load_microscope("wf-20x0.8"))
    view.form.set_values({"iterations": 4})
    ready(qtbot, c)
    assert "8 \N{MULTIPLICATION SIGN} 24" in view.estimate.text()
    assert end(qtbot, c, c.run).status == "finished"
    found = viewer.layers["deconvolved (points)"]
    np.testing.assert_allclose(found.translate, layer.translate)
    sharpened = found.data.max() / found.data.mean()
    assert tuple(np.unravel_index(found.data.argmax(), found.data.shape)) in ((4, 12, 12), (3, 6, 17))
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=20_000)
    assert "run deconvolve-widefield INPUT.tif" in as_command(c.results.result.provenance)
    script = as_python(c.results.result.provenance)
    compile(script, "script", "exec")
    assert "kind='stack'" in script
    ready(qtbot, c)
    end(qtbot, c, c.go_on)
    assert found.data.max() / found.data.mean() > sharpened
    # the network has the same stack, no point spread function, and no model here
    view.method_chosen.emit("wfcon")
    assert c.state().stack == "points"
    assert view.stack.psf_row.isHidden()
    assert "There is no trained model" in view.models.fit_text.text()
    qtbot.waitUntil(lambda: "model" in view.problems.text(), timeout=20_000)
    assert not view.run_row.run_button.isEnabled()
