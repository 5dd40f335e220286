"""The speed benchmark of LFMNet, at sizes that take no time; and its counting."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import torch

from napari_lfm.bench import lfmnet
from napari_lfm.bench._conv4d_loop import looped_conv4d, looped_image
from napari_lfm.bench._network_speed import arithmetic, has_modern, measure
from napari_lfm.networks.conv4d import Conv4d
from napari_lfm.networks.lfmnet import LFMNet


def small(name: str) -> lfmnet.Case:
    return replace(lfmnet.CASES[name], lenslets=4, n_pixels=5, depths=3, voxels=3, repeats=1, model="")


def test_the_loop_is_the_same_convolution() -> None:
    layer, x = Conv4d(2, 3, (3, 5, 2, 3)), torch.rand(2, 2, 4, 6, 3, 5)
    with torch.no_grad():
        assert torch.allclose(looped_conv4d(layer, x), layer(x), atol=1e-5)
        assert torch.allclose(looped_image(layer, x), layer.to_image(x), atol=1e-5)


def test_run_gives_every_section() -> None:
    said: list[str] = []
    found = lfmnet.run(said.append, {"paper_1287": small("paper_1287")}, frame=(5, 3, 4), repeats=1)
    rows = [row for row in found["conv4d"] if row["device"] == "cpu"]
    assert [row["precision"] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["loop_seconds"] / row["one_convolution_seconds"], abs=0.01)
        assert row["largest_difference"] < 1e-5
    first = found["paper_1287"][0]
    assert (first["device"], first["precision"], first["weights"]) == ("cpu", "float32", "random")
    assert first["tflop_per_s"] == pytest.approx(first["tflop"] / first["seconds"], rel=1e-3)
    assert 0.05 < first["peak_gib"] < 4
    assert len(said) >= 3


def test_a_case_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(small("paper_1287"), precision="no such type")
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nAttributeError: no such type\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    row = lfmnet.run(cases={"broken": broken}, frame=(3, 1, 1), repeats=1)["broken"][0]
    assert "no such type" in row["failed"][0]


@pytest.mark.skipif(not has_modern(), reason="the modern profile is not there")
def test_the_modern_network_is_timed_too() -> None:
    row = measure(small("modern_guv"))
    assert row["weights"] == "random"
    assert row["seconds"] > 0 and row["tflop"] >= 0


def test_the_arithmetic_is_counted() -> None:
    with torch.device("meta"):
        paper = LFMNet(n_pixels=33)
    counted = arithmetic(paper.eval(), 1287)
    first = 2 * 1287**2 * 64 * 3 * 3 * 9 * 9
    # 3 x 3 convolutions by the size of their output; the ones after a transposed one have 641 and 1281
    expected = first + 2 * 1287**2 * 64 * 64 + 2 * 9 * 1287**2 * (2 * 64 * 64 + 64 * 128 + 2 * 128 * 128)
    expected += 2 * 9 * 643**2 * 3 * 128 * 128
    expected += 2 * 9 * (321**2 * 128 * 256 + 641**2 * (256 * 64 + 64 * 64))
    expected += 2 * 9 * (641**2 * 64 * 128 + 1281**2 * (128 * 64 + 64 * 64))
    assert counted == pytest.approx(expected, rel=1e-6)
    assert counted == pytest.approx(2.63e12, rel=0.01)
