"""Where to compute, and with how much memory."""

from __future__ import annotations

import pytest
import torch

from napari_lfm.core.devices import DEVICE_NAMES, available_bytes, memory_budget, pick_device
from napari_lfm.core.problems import RequestError


def test_auto_prefers_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, best in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert pick_device("auto").type == best
        assert pick_device("cpu").type == "cpu"


def test_absent_and_unknown_devices_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(RequestError, match=f"no usable '{name}'"):
            pick_device(name)
    with pytest.raises(RequestError, match="Unknown device 'tpu'"):
        pick_device("tpu")
    assert DEVICE_NAMES == ("auto", "cpu", "cuda", "mps")


def test_the_budget_is_what_was_asked_for() -> None:
    assert memory_budget("cpu", 1.5) == int(1.5 * 2**30)
    free = available_bytes("cpu")
    assert free > 2**26
    assert memory_budget("cpu") < 1.2 * free
    for wrong in (0, -1, float("nan")):
        with pytest.raises(RequestError, match="above 0 GiB"):
            memory_budget("cpu", wrong)
