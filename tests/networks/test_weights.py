"""Weights on the disk: exact, checked, never executed, and safe against a full disk."""

from __future__ import annotations

import errno
import hashlib
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.networks.card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_card
from napari_lfm.networks.weights import load_weights, save_model, weights_problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., ModelCard]


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shared = torch.randn(4, 4, generator=generator)
    return {
        "w": torch.randn(5, 3, 3, generator=generator),
        "bias": torch.randn(5, generator=generator),
        "count": torch.tensor(2**40),
        "large": torch.full((2, 2), 1e6),
        "tied": shared,
        "tied_too": shared.T,
    }


def test_full_precision_is_exact(tmp_path: Path, make_card: Make) -> None:
    before = state()
    card = save_model(tmp_path, make_card(), before, half=False)
    after = load_weights(tmp_path, card)
    assert list(after) == sorted(before) or set(after) == set(before)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name


def test_half_precision_keeps_what_it_must(tmp_path: Path, make_card: Make) -> None:
    before = state()
    card = save_model(tmp_path / "half", make_card(), before)
    after = load_weights(tmp_path / "half", card)
    assert after["w"].dtype == torch.float32
    assert torch.equal(after["w"], before["w"].half().float())
    assert not torch.equal(after["w"], before["w"])
    for name in ("bias", "count", "large"):  # small, whole, or beyond the range of float16
        assert torch.equal(after[name], before[name]), name
    save_model(tmp_path / "full", make_card(), before, half=False)
    sizes = [(tmp_path / f / WEIGHTS_FILE).stat().st_size for f in ("half", "full")]
    assert sizes[0] < sizes[1]


def test_the_card_holds_the_fingerprint(tmp_path: Path, make_card: Make) -> None:
    card = save_model(tmp_path / "new" / "model", make_card(), state())
    content = (tmp_path / "new" / "model" / WEIGHTS_FILE).read_bytes()
    assert card.sha256 == hashlib.sha256(content).hexdigest()
    assert read_card(tmp_path / "new" / "model") == card


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_replace_nothing(tmp_path: Path, make_card: Make, value: float) -> None:
    card = save_model(tmp_path, make_card(), state())
    bad = {**state(), "bias": torch.tensor([1.0, value])}
    with pytest.raises(LfmError, match="weights 'bias' are not finite"):
        save_model(tmp_path, make_card(), bad)
    assert read_card(tmp_path) == card
    load_weights(tmp_path, card)


def test_a_full_disk_keeps_the_old_model(
    tmp_path: Path, make_card: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = save_model(tmp_path, make_card(), state())
    for failing in (1, 2):  # at the card, at the weights
        calls = [0]

        def full(handle: int, failing: int = failing, calls: list[int] = calls) -> None:
            calls[0] += 1
            if calls[0] == failing:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(LfmError, match="disk is full"):
                save_model(tmp_path, make_card(version="2.0"), {"w": torch.ones(2, 2)})
        assert read_card(tmp_path) == card
        assert torch.equal(load_weights(tmp_path, card)["bias"], state()["bias"])
        assert sorted(p.name for p in tmp_path.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_other_files_in_the_folder_stay(tmp_path: Path, make_card: Make) -> None:
    (tmp_path / "log.csv").write_text("step")
    save_model(tmp_path, make_card(), state())
    assert (tmp_path / "log.csv").read_text() == "step"


class Evil:
    """What runs code when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Evil, "ran", True))


def damaged(kind: str, good: bytes) -> bytes:
    if kind == "pickle":
        return pickle.dumps(Evil())
    if kind == "header":
        return (8).to_bytes(8, "little") + b"{broken}" + good
    return {
        "half": good[: len(good) // 2],
        "one byte short": good[:-1],
        "empty": b"",
        "three bytes": good[:3],
        "longer": good + b"\0",
        "huge head": (2**60).to_bytes(8, "little") + good,
        "text": b"this is no model at all, but some text",
        "zip": b"PK\x03\x04" + good,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("half", "incomplete"),
        ("one byte short", "incomplete: [0-9]+ of [0-9]+ bytes"),
        ("empty", "incomplete"),
        ("three bytes", "incomplete"),
        ("longer", "not a safetensors file"),
        ("huge head", "not a safetensors file"),
        ("header", "not a safetensors file"),
        ("text", "not a safetensors file"),
        ("pickle", "is a pickle, not safetensors"),
        ("zip", "is a pickle, not safetensors"),
    ],
)
def test_damaged_and_foreign_files_are_explained(
    tmp_path: Path, make_card: Make, kind: str, says: str
) -> None:
    card = save_model(tmp_path, make_card(), state())
    path = tmp_path / WEIGHTS_FILE
    content = damaged(kind, path.read_bytes())
    path.write_bytes(content)
    # also where the card vouches for it
    for known in (card, card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})):
        with pytest.raises(RequestError, match=says) as caught:
            load_weights(tmp_path, known)
        assert "\n" not in str(caught.value)
    assert Evil.ran is False


def test_another_file_than_the_cards_is_refused(tmp_path: Path, make_card: Make) -> None:
    card = save_model(tmp_path, make_card(), state())
    path = tmp_path / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights_problem(path) == ""
    with pytest.raises(RequestError, match="not the file of its card"):
        load_weights(tmp_path, card)
    with pytest.raises(RequestError, match="does not hold the sha256"):
        load_weights(tmp_path, card.model_copy(update={"sha256": ""}))


def test_values_that_are_not_finite_are_refused_at_loading(tmp_path: Path, make_card: Make) -> None:
    from safetensors.torch import save

    content = save({"w": torch.tensor([[float("nan")]])})
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    card = make_card(sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(RequestError, match=r"'w' .* not all finite"):
        load_weights(tmp_path, card)


def test_missing_weights_and_a_pickle_in_their_place(tmp_path: Path, make_card: Make) -> None:
    assert weights_problem(tmp_path / WEIGHTS_FILE).endswith("is missing.")
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RequestError, match=r"'weights\.pt' beside it is a pickle, which is never opened"):
        load_weights(tmp_path, make_card())
    assert Evil.ran is False
