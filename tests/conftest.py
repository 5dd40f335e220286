"""Fixtures every room may use: real data, seeds, a private home, quiet threads."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before anything imports Qt, numpy or torch: one binding, and one thread for each test process. The processes
# of xdist inherit what the first one sets here: threads of their own would fight one another for the cores.
os.environ.setdefault("QT_API", "pyqt6")
os.environ.setdefault("PYTEST_QT_API", "pyqt6")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# napari would otherwise read and write the developer's own settings
os.environ.setdefault("NAPARI_CONFIG", "")

LONG_ROOMS = ("methods", "widgets", "bench")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: no process is left with one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name not in LONG_ROOMS))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what the imports left out of the garbage collection that follows every window."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real recordings are not here (../shared/data beside the checkout)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def guv(shared_data: Path) -> Path:
    """Folder of the giant-vesicle light field with its white and dark frames."""
    folder = shared_data / "napari-lf" / "GUVExperim1"
    if not folder.is_dir():
        pytest.skip("the giant-vesicle recording is not here (../shared/data/napari-lf)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches made by session-wide fixtures out of the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_LFM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def lfm_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder where this test's user files (microscopes, caches, models) go."""
    home = tmp_path / "napari-lfm-home"
    monkeypatch.setenv("NAPARI_LFM_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Make numpy's and torch's global generators start alike in every test."""
    import sys

    import numpy as np

    np.random.seed(20191109)
    if "torch" in sys.modules:  # importing it costs seconds; a test without it needs no seed
        import torch

        torch.manual_seed(20191109)
