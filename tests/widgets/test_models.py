"""Trained models as they are offered: order, words, questions, and what is asked before an import."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.networks.card import ModelCard, write_card
from napari_lfm.networks.catalogue import ModelEntry, list_models
from napari_lfm.widgets.model_choice import (
    card_html,
    depths_text,
    fit_html,
    offers,
    optics_text,
    parameters_of,
    pixels_per_lenslet,
    question,
    summary_html,
)
from napari_lfm.widgets.model_import import Asked, CheckpointDialog, Taken, bring, free_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope

    MakeEntry = Callable[..., ModelEntry]


@pytest.fixture
def make_entry(tmp_path: Path, microscope: Microscope) -> MakeEntry:
    """An entry of the list with a card for the vesicle's optics; no weights."""

    def make(id: str = "net", source: Any = "user", problem: str = "", **changes: Any) -> ModelEntry:
        values: dict[str, Any] = {
            "id": id,
            "title": "A <small> network",
            "version": "1",
            "method": "lfmnet",
            "architecture": "lfmnet-modern",
            "network": {},
            "microscope": microscope.model_dump(mode="json"),
            "n_pixels": 15,
            "z_um": [2.0, 0.0, -2.0],
            "voxels_per_lenslet": 5,
            "scalers": {},
            "specimens": ["beads", "vessels"],
            "licence": "MIT",
            "data": "simulated",
            "training": {},
            "scores": [{"set": "seeds", "psnr_db": 31.0}, {"set": "families", "psnr_db": 29.0}],
            "hours": 0.5,
            "trained_on": "two cores",
            "date": "2026-11-22",
            "parameters": 1_100_000,
            "sha256": "",
            "versions": {"torch": "2"},
            "notes": "",
        }
        return ModelEntry(ModelCard(**{**values, **changes}), tmp_path / source / id, source, problem)

    return make


def changed(microscope: Microscope, **objective: float) -> dict[str, Any]:
    record = microscope.model_dump(mode="json")
    record["objective"] |= objective
    return record


def test_best_fit_first_each_with_a_word(make_entry: MakeEntry, microscope: Microscope) -> None:
    entries = [
        make_entry("broken", problem="It is incomplete."),
        make_entry("far", "remote", problem="fetch it"),
        make_entry("other-na", microscope=changed(microscope, na=0.6)),
        make_entry("unknown-optics", microscope=None),
        make_entry("thirteen", n_pixels=13),
        make_entry("bundled", "bundled", scores=[{"psnr_db": 60.0}]),
        make_entry("weak", scores=[{"psnr_db": 20.0}]),
        make_entry("good"),
    ]
    found = offers(entries, microscope, 15)
    assert [o.title for o in found] == [
        "good (fits)",
        "weak (fits)",
        "bundled (fits)",
        "thirteen (needs resampling)",
        "unknown-optics (fit not known)",
        "other-na (does not fit)",
        "far (not fetched yet)",
        "broken (cannot be used)",
    ]
    assert "NA 1.2" in " ".join(found[5].reasons)
    assert "incomplete" in fit_html(found[-1])
    # nothing to hold the cards against: no word, and nothing is claimed
    assert offers([make_entry("a")], None)[0].title == "a"
    assert fit_html(offers([make_entry("a")], None)[0]) == ""


def test_the_same_id_twice_is_told_apart_by_its_folder(make_entry: MakeEntry, microscope: Microscope) -> None:
    own, bundled = make_entry("net"), make_entry("Net", "bundled")
    found = offers([own, bundled], microscope)
    assert [o.key for o in found] == ["net", str(bundled.folder)]


def test_only_resampling_is_asked_for(make_entry: MakeEntry, microscope: Microscope) -> None:
    (fits,) = offers([make_entry()], microscope, 15)
    assert question(fits, 15) == ""
    (other,) = offers([make_entry(n_pixels=13)], microscope, 15)
    assert question(other, 15) == "Resample to the model's N = 13"
    record = microscope.model_dump()
    record["lenslets"] |= {"pitch_um": 107.0, "focal_length_um": 2675.0}  # wider, of the same f-number
    wider = type(microscope).model_validate(record)
    (moved,) = offers([make_entry(z_um=[-7.0, 0.0, 7.0])], wider, 15)
    assert moved.verdict == "resample"
    assert question(moved, 15) == f"Put its planes at {moved.z_scale:.3f} times their depth"


def test_depths_and_sampling_for_the_form(make_entry: MakeEntry, microscope: Microscope) -> None:
    (even,) = offers([make_entry()], microscope)
    assert parameters_of(even) == {
        "z_min_um": -2.0,
        "z_max_um": 2.0,
        "z_step_um": 2.0,
        "voxels_per_lenslet": 5,
    }
    (uneven,) = offers([make_entry(z_um=[0.0, 1.0, 5.0])], microscope)
    assert parameters_of(uneven)["z_step_um"] is None
    (one,) = offers([make_entry(z_um=[3.0])], microscope)
    assert (parameters_of(one)["z_min_um"], parameters_of(one)["z_step_um"]) == (3.0, None)


def test_card_in_words(make_entry: MakeEntry) -> None:
    entry = make_entry("net", "bundled")
    assert optics_text(entry.card).startswith("60\N{MULTIPLICATION SIGN}/1.2, lenslets 100")
    assert depths_text(entry.card).startswith("-2 to 2")
    summary = summary_html(entry)
    for words in ("beads, vessels", "30.0 dB", "1.1 million", "MIT", "came with napari-lfm"):
        assert words in summary
    whole = card_html(entry)
    assert "A &lt;small&gt; network" in whole  # what a card says is text, never markup
    for words in ("families", "31", "torch 2", "0.5 h on two cores", str(entry.folder)):
        assert words in whole


def test_pixels_per_lenslet(microscope: Microscope) -> None:
    lattice = Lattice(
        origin_px=(5, 5),
        row_step_px=(11, 0),
        column_step_px=(0, 11.2),
        rows=4,
        columns=5,
        image_shape=(50, 60),
    )
    assert pixels_per_lenslet(None, None) is None
    assert pixels_per_lenslet(microscope, None) == 15
    assert pixels_per_lenslet(microscope, lattice) == 11
    assert pixels_per_lenslet(microscope, lattice, "lenslet:33") == 33


# ------------------------------------------------------------------------------ import
@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path, make_entry: MakeEntry) -> Path:
    """A folder with a card and weights, not imported yet."""
    import torch

    from napari_lfm.networks.weights import save_model

    folder = tmp_path / "handed-on"
    save_model(folder, make_entry("handed").card, {"a": torch.ones(3)})
    return folder


def test_taken_id_is_asked_for(home: Path, model: Path) -> None:
    first = bring(model)
    assert isinstance(first, ModelEntry)
    assert first.folder == home / "handed"
    again = bring(model)
    assert again == Taken(model, None, "handed")
    assert free_id("handed") == "handed-2"
    second = bring(model, id=free_id("handed"))
    assert isinstance(second, ModelEntry)
    assert {e.card.id for e in list_models() if e.source == "user"} == {"handed", "handed-2"}


def test_bad_import_leaves_nothing(home: Path, model: Path, tmp_path: Path) -> None:
    write_card(model, ModelCard.model_validate_json((model / "card.json").read_text()))
    (model / "weights.safetensors").write_bytes((model / "weights.safetensors").read_bytes()[:20])
    with pytest.raises(RequestError, match="incomplete"):
        bring(model)
    shutil.make_archive(str(tmp_path / "cut"), "zip", model)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(RequestError):
        bring(cut)
    with pytest.raises(RequestError, match="no model"):
        bring(tmp_path / "nothing-here")
    assert not home.exists() or not list(home.iterdir())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What the authors' training saves, of their shallow network with 4 depths."""
    import torch

    from napari_lfm.networks.lfmnet import LFMNet

    state = LFMNet(n_depths=4, fov=3).state_dict()
    kernel = state.pop("lensletConvolution.0.weight")
    for i in range(3):
        name = f"lensletConvolution.0.conv_layers.{i}.weight"
        state[name] = kernel[:, None, 3 * i : 3 * i + 3].clone()
    path = tmp_path / "model_7"
    torch.save({"epoch": 7, "model_state_dict": state}, path)
    return path


def test_checkpoint_asks_what_it_does_not_tell(
    qtbot: Any, home: Path, checkpoint: Path, microscope: Microscope
) -> None:
    asked = bring(checkpoint)
    assert isinstance(asked, Asked)
    assert asked.depths == 4
    assert "max pooling" in asked.variant
    dialog = CheckpointDialog(asked)
    qtbot.addWidget(dialog)
    got: list[Any] = []
    dialog.answered.connect(lambda path, answers: got.append((path, answers)))
    dialog.import_button.click()
    assert "variant is not chosen" in dialog.problems.text()
    dialog.form.set_values({"down": "stride"})
    dialog.import_button.click()
    assert "depths are missing" in dialog.problems.text()
    dialog.form.set_values({"z_first_um": -3.0, "z_last_um": 3.0, "input_max": 200.0})
    dialog.microscope_combo.setCurrentIndex(dialog.microscope_combo.findData("mbl-60x1.2w"))
    dialog.import_button.click()
    ((path, answers),) = got
    entry = bring(path, answers)
    assert isinstance(entry, ModelEntry)
    assert entry.card.z_um == [-3.0, -1.0, 1.0, 3.0]
    assert entry.card.network["down"] == "stride"
    assert entry.card.scalers == {"input_max": 200.0}
    assert entry.card.optics is not None
    assert entry.card.optics.name == "mbl-60x1.2w"
    assert isinstance(bring(path, answers), Taken)


def test_pickle_of_something_else_is_refused_at_once(home: Path, tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "model_9"
    path.write_bytes(pickle.dumps({"model_state_dict": shutil.rmtree}))
    with pytest.raises(RequestError, match="nothing in it was run"):
        bring(path)
