"""Model cards: what is in them, and what is said about wrong ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import (
    CARD_FILE,
    LARGEST_CARD_BYTES,
    ModelCard,
    is_valid_id,
    read_card,
    write_card,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write(folder: Path, values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def test_a_card_comes_back_as_it_was(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    card = make_card(notes="µm, naïve", scores=[{"psnr_db": 31.5, "set": "a"}])
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert "µm" in (tmp_path / CARD_FILE).read_text("utf-8")
    assert [p.name for p in tmp_path.iterdir()] == [CARD_FILE]


def test_what_follows_from_a_card(make_card: Callable[..., ModelCard]) -> None:
    card = make_card()
    assert card.score_db == 32.0
    assert card.optics is not None
    assert card.optics.objective.na == 1.2
    assert make_card(microscope=None).optics is None
    assert make_card(scores=[{"set": "a"}, {"psnr_db": True}]).score_db is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "there is no entry 'colour'"),
        ({"n_pixels": 0}, "n_pixels = 0 must be greater"),
        ({"sha256": "abc"}, "sha256"),
        ({"id": "../evil"}, "id"),
        ({"scalers": {"a": "x"}}, "is not a number"),
        ({"microscope": {"name": "m"}}, "the card's microscope is not one: 'objective' is missing"),
        ({"card_version": 9}, "has form 9, and this version of napari-lfm reads up to 1. Update napari-lfm"),
    ],
)
def test_wrong_entries_are_named(
    tmp_path: Path, make_card: Callable[..., ModelCard], changes: dict[str, Any], says: str
) -> None:
    folder = write(tmp_path / "m", {**make_card().model_dump(mode="json"), **changes})
    with pytest.raises(RequestError, match=says):
        read_card(folder)


def test_a_missing_entry_is_named(tmp_path: Path, make_card: Callable[..., ModelCard]) -> None:
    values = make_card().model_dump(mode="json")
    del values["licence"]
    with pytest.raises(RequestError, match="'licence' is missing"):
        read_card(write(tmp_path / "m", values))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ("[]", "not a model card"),
        ('{"name": "something else"}', "not a model card"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_card(write(tmp_path / "m", text))


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model folder"):
        read_card(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"it has no card\.json"):
        read_card(tmp_path)
    (tmp_path / "model_130.pth").write_bytes(b"\x80\x02")
    with pytest.raises(RequestError, match=r"a pickle 'model_130\.pth', which might run code"):
        read_card(tmp_path)
    (tmp_path / CARD_FILE).write_bytes(b" " * (LARGEST_CARD_BYTES + 1))
    with pytest.raises(RequestError, match="too large"):
        read_card(tmp_path)


def test_values_that_json_has_not_are_refused(make_card: Callable[..., ModelCard]) -> None:
    with pytest.raises(ValidationError):
        make_card(z_um=[float("nan")])


@pytest.mark.parametrize("name", ["", "a.", "..", "a/b", "a\\b", "a\n", "C:", "x" * 81])
def test_ids_are_safe_names(name: str) -> None:
    assert is_valid_id("lfmnet-mbl-60x1.2w")
    assert is_valid_id("a")
    assert not is_valid_id(name)
