"""Last value wins, region first, cancel: the thread behind the slider, with an engine that waits."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.widgets import refocus_live
from napari_lfm.widgets.crew import Crew
from napari_lfm.widgets.refocus_input import (
    beyond_html,
    drift_values,
    flat_input,
    heights_html,
    other_parts,
    share_words,
    visible_region,
)
from napari_lfm.widgets.refocus_live import Failed, LiveDesk, Opened, Painted, Source, Wish, scaled_region
from napari_lfm.widgets.refocus_mesh import mesh
from napari_lfm.widgets.state import LayerInfo


class Engine:
    """Notes what it is asked for; `gate` holds it up."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.asked: list[tuple[float, Any]] = []
        self.gate = threading.Semaphore(10**6)

    def plane(self, z_um: float, part: Any) -> Any:
        self.asked.append((z_um, part))
        self.gate.acquire()
        return SimpleNamespace(z_um=z_um)

    def surface(self, heights: np.ndarray, part: Any) -> Any:
        return self.plane(float(heights.mean()), part)


class Desk:
    def __init__(self, shape: tuple[int, int] = (1200, 1200)) -> None:
        self.crew, self.events = Crew(), list[Any]()
        self.engine = Engine(shape)
        self.opened = 0
        self.news = threading.Event()
        self.desk = LiveDesk(self.crew, self.heard)
        self.source = Source("image", self.open)

    def heard(self, event: Any) -> None:
        self.events.append(event)
        self.news.set()

    def open(self) -> Any:
        self.opened += 1
        return SimpleNamespace(refocuser=self.engine, factor=1.0, pixel_um=0.5)

    def ask(self, z: float, **more: Any) -> None:
        self.desk.ask(Wish(more.pop("source", self.source), z, region=(512, 512, 768, 768), **more))

    def wait(self, done: Any, timeout: float = 10.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, "it took too long"
            self.news.wait(0.01)
            self.news.clear()

    def painted(self) -> list[Painted]:
        return [e for e in self.events if isinstance(e, Painted)]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(refocus_live, "QUIET_S", 0.05)
    one = Desk()
    yield one
    one.engine.gate.release(1000)
    assert one.crew.close(10.0)


def test_what_is_seen_comes_first_then_the_rest(desk: Desk) -> None:
    desk.ask(1.0)
    desk.wait(lambda: desk.painted() and desk.painted()[-1].last)
    assert isinstance(desk.events[0], Opened)
    painted = desk.painted()
    assert painted[0].first
    assert painted[0].part == (512, 512, 768, 768)
    assert [p.last for p in painted] == [False] * (len(painted) - 1) + [True]
    seen = np.zeros((1200, 1200), int)
    for p in painted:
        seen[p.part[0] : p.part[2], p.part[1] : p.part[3]] += 1
    assert seen.min() == 1


def test_the_last_value_wins_and_nothing_piles_up(desk: Desk) -> None:
    desk.ask(0.0)
    desk.wait(lambda: desk.painted() and desk.painted()[-1].last)
    desk.engine.gate = threading.Semaphore(0)
    desk.engine.asked.clear()
    desk.ask(1.0)
    desk.wait(lambda: len(desk.engine.asked) == 1)  # it computes
    for z in np.linspace(1.1, 5.0, 40):
        desk.ask(float(z))
    desk.engine.gate.release(1000)
    desk.wait(lambda: desk.painted()[-1].wish.z_um == 5.0 and desk.painted()[-1].last)
    assert {z for z, _ in desk.engine.asked} == {1.0, 5.0}
    # of the value that was passed over only what was begun is computed
    assert len([z for z, _ in desk.engine.asked if z == 1.0]) == 1
    assert desk.opened == 1


def test_the_rest_waits_for_the_slider_to_rest(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refocus_live, "QUIET_S", 30.0)
    for z in (1.0, 2.0, 3.0):
        before = len(desk.painted())
        desk.ask(z)
        desk.wait(lambda n=before: len(desk.painted()) > n)
    assert [p.wish.z_um for p in desk.painted()] == [1.0, 2.0, 3.0]
    assert all(p.first for p in desk.painted())


def test_another_image_is_opened_once_and_errors_are_told(desk: Desk) -> None:
    def broken() -> Any:
        raise RequestError("This is no image.", "Choose another one.")

    desk.ask(1.0, source=Source("broken", broken))
    desk.wait(lambda: desk.events and isinstance(desk.events[-1], Failed))
    assert desk.events[-1].problem.message == "This is no image."
    desk.ask(2.0)
    desk.wait(lambda: bool(desk.painted()))
    assert desk.opened == 1


def test_heights_are_made_once_for_a_surface(desk: Desk) -> None:
    made: list[Any] = []

    def surface(shape: tuple[int, int], pixel_um: float) -> np.ndarray:
        made.append((shape, pixel_um))
        return np.full(shape, 2.5, np.float32)

    for _ in range(2):
        desk.ask(0.0, surface=surface, surface_key="one")
        desk.wait(lambda: desk.painted() and desk.painted()[-1].last and not desk.desk.busy)
    assert made == [((1200, 1200), 0.5)]
    assert desk.painted()[-1].picture.z_um == 2.5


def test_a_longer_job_lets_the_slider_go_first(desk: Desk) -> None:
    desk.ask(0.0)
    desk.wait(lambda: desk.painted() and desk.painted()[-1].last)
    closed: list[bool] = []

    def job() -> Any:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    events = desk.desk.in_turn(job())
    assert next(events) == 0
    before = len(desk.painted())
    desk.ask(3.0)
    while len(desk.painted()) == before:
        next(events)
    assert desk.painted()[before].wish.z_um == 3.0
    events.close()
    assert closed == [True]


def test_closing_ends_the_thread() -> None:
    one = Desk()
    one.engine.gate = threading.Semaphore(0)
    one.ask(1.0)
    one.wait(lambda: len(one.engine.asked) == 1)
    threading.Timer(0.1, lambda: one.engine.gate.release(1000)).start()
    assert one.crew.close(10.0)
    assert not one.painted()
    one.ask(2.0)
    assert not one.desk.busy


# ------------------------------------------------------------------------------ plain data
def test_the_visible_part_is_cut_to_the_middle() -> None:
    assert visible_region([[0, 0], [300, 300]], (400, 300)) == (0, 0, 400, 300)
    y0, x0, y1, x1 = visible_region([[1000, 1000], [2999, 1200]], (4000, 4000))
    assert y1 - y0 == 512
    assert abs((y0 + y1) / 2 - 2000) <= 64
    assert x0 <= 1000
    assert x1 >= 1200 - 64
    # nothing seen, or nothing known: everything counts
    assert visible_region([[0, 0], [0, 0]], (100, 100)) == (0, 0, 100, 100)
    assert not other_parts((0, 0, 400, 300), (400, 300))


def test_regions_follow_resampling() -> None:
    assert scaled_region(None, 1.0, (10, 20)) == (0, 0, 10, 20)
    assert scaled_region((2, 4, 6, 8), 1.0, (10, 20)) == (2, 4, 6, 8)
    y0, x0, y1, x1 = scaled_region((2, 4, 6, 8), 1.5, (15, 30))
    assert (y0, x0) == (3, 6)
    assert y1 >= 9
    assert x1 >= 12


def info(data: np.ndarray, labels: tuple[str, ...], **more: Any) -> LayerInfo:
    scale = more.pop("scale", (1.0,) * (data.ndim - 2) + (0.3, 0.3))
    units = tuple("s" if a == "t" else "um" for a in labels)
    return LayerInfo("one", data, labels, placement={"scale": scale, "units": units}, **more)


def test_the_plane_that_is_looked_at() -> None:
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = flat_input(info(data, ("t", "z", "y", "x"), scale=(1.0, 2.0, 0.3, 0.3)), (1, 2, 0, 0))
    assert not isinstance(found, Problem)
    assert found.at == {"t": 1, "z": 2}
    assert found.z_um == 4.0
    np.testing.assert_array_equal(found.plane(), data[1, 2])
    assert found.chosen().dims == ("t", "y", "x")
    for bad, word in (
        (info(np.zeros((4, 4, 3)), ("y", "x"), rgb=True), "colour"),
        (info(np.zeros((1, 4)), ("y", "x")), "several rows"),
        (info(np.zeros((9, 9)), ("y", "x"), scale=(0.3, 0.5)), "square"),
    ):
        problem = flat_input(bad, (0,) * bad.data.ndim)
        assert isinstance(problem, Problem)
        assert word in f"{problem.message} {problem.remedy}"


def test_drift_is_read_from_text() -> None:
    assert drift_values("", 3) == [0, 0, 0]
    assert drift_values("0.5", 3) == [0, 0.5, 1.0]
    assert drift_values("1; 2,\n3", 3) == [1, 2, 3]
    for text, word in (("1 2", "2 drift values for 3"), ("a b c", "no number"), ("nan 1 2", "no numbers")):
        with pytest.raises(RequestError, match=word):
            drift_values(text, 3)


def test_words() -> None:
    heights = np.linspace(-4, 4, 101, dtype=np.float32)[None].repeat(3, 0)
    text = heights_html(heights, 2.0)
    assert "from \N{MINUS SIGN}4.0 to +4.0" in text
    assert "50 % of it" in text
    assert "beyond" not in heights_html(heights, 4.0)
    assert beyond_html(2.0, 2.0) == ""
    assert "+2.1" in beyond_html(2.1, 2.0)
    assert "8 %" in share_words(0.08)
    assert "do not trust" in share_words(0.9)


def test_the_mesh_lies_in_the_world() -> None:
    heights = np.add.outer(np.arange(400.0), np.zeros(300))
    vertices, faces, values = mesh(heights, heights, (2.0, 3.0), (10.0, 20.0), 5.0, 1000.0)
    assert len(vertices) == 256 * 256
    np.testing.assert_allclose(vertices[0], [5.0, 10.0, 20.0])
    np.testing.assert_allclose(vertices[-1], [5.0 + 399e3, 10 + 2 * 399, 20 + 3 * 299])
    np.testing.assert_allclose((vertices[:, 0] - 5) / 1000, values)
    assert faces.max() == len(vertices) - 1
