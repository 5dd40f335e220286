"""``napari-lfm doctor``: finds problems, survives broken libraries, times itself."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.cli import doctor
from napari_lfm.cli.doctor import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Shell

FIGURES = {
    "device": "cpu",
    "build_seconds": 1.0,
    "forward_ms": 3.0,
    "adjoint_ms": 3.0,
    "adjoint_error": 1e-7,
    "operator_gb_per_s": 5.0,
    "copy_gb_per_s": 10.0,
}


def test_a_healthy_machine(shell: Shell) -> None:
    done = shell("doctor", "--json")
    assert done.status == 0, done.out
    report = done.json
    assert report["healthy"] is True
    names = {f["name"] for f in report["findings"]}
    assert {"versions", "CPU", "CUDA", "memory", "disk", "cache folder", "self-check"} <= names
    figures = report["self_check"]
    assert figures["adjoint_error"] < 1e-5
    assert figures["forward_ms"] > 0
    assert figures["copy_gb_per_s"] > 0.01
    assert report["machine"]["cores"] >= 1
    assert f"napari-lfm {metadata.version('napari-lfm')}" in report["findings"][0]["detail"]


def test_a_broken_library_is_a_finding(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_everything() -> Iterator[Finding]:
        yield Finding("first", "ok", "fine")
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "CHECKS", (check_everything,))
    monkeypatch.setattr(doctor, "self_check", lambda: FIGURES)
    done = shell("doctor", "--json")
    assert done.status == 1
    assert done.json["healthy"] is False
    assert "libGL" in done.json["findings"][1]["detail"]
    assert "FAIL" in shell("doctor").out


def test_a_wrong_self_check_fails(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "self_check", lambda: {**FIGURES, "adjoint_error": 0.1})
    done = shell("doctor")
    assert done.status == 1
    assert "disagree" in done.out
    assert doctor.judge({**FIGURES, "forward_ms": 900.0}).status == "note"
    assert doctor.judge(FIGURES).status == "ok"


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path / "file" / "home"))
    found = list(doctor.check_folders())
    assert [f.status for f in found] == ["note"] * 3
    assert all("NAPARI_LFM_HOME" in f.remedy for f in found)


def test_low_memory_and_few_threads_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("napari_lfm.core.devices.available_bytes", lambda _: 2**30)
    found = {f.name: f for f in doctor.check_memory()}
    assert found["memory"].status == "note"
    assert "--memory-gib" in found["memory"].remedy
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr("napari_lfm.cli._machine.usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cpu = next(f for f in doctor.check_devices() if f.name == "CPU")
    assert (cpu.status, "OMP_NUM_THREADS" in cpu.remedy) == ("note", True)


def test_cuda_that_is_built_in_but_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    cuda = next(f for f in doctor.check_devices() if f.name == "CUDA")
    assert (cuda.status, "driver" in cuda.remedy) == ("note", True)


@pytest.mark.parametrize("absent", ["napari", "PyQt6"])
def test_missing_napari_or_qt(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    real = doctor.util.find_spec
    hidden = {"napari": {"napari"}, "PyQt6": {"PyQt6", "PySide6", "PyQt5", "PySide2"}}[absent]

    def find(name: str, *more: Any) -> Any:
        return None if name in hidden else real(name, *more)

    monkeypatch.setattr(doctor.util, "find_spec", find)
    found = {f.name: f for f in doctor.check_window()}
    if absent == "napari":
        assert (found["napari"].status, "napari-lfm[all]" in found["napari"].remedy) == ("note", True)
    else:
        assert (found["Qt"].status, "napari[pyqt6]" in found["Qt"].remedy) == ("problem", True)


def test_windows_is_told_about_torch_and_qt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    found = {f.name: f for f in doctor.check_window()}
    assert "import torch" in found["Windows"].remedy


def test_no_display_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delitem(os.environ, name, raising=False)
    assert "screen" in {f.name for f in doctor.check_window()}
