from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.optics import presets
from napari_lfm.optics.presets import (
    delete_user_microscope,
    load_microscope,
    physical_sanity,
    preset_names,
    save_microscope,
    save_user_microscope,
    user_microscope_dir,
    user_microscope_names,
)

# as published: magnification, NA, pitch um, focal length um, N, sample index, wavelength um
PUBLISHED = {
    "mbl-60x1.2w": (60, 1.2, 100, 2500, 15, 1.35, 0.593),
    "imperial-25x1.0w": (25, 1.0, 125, 1250, 19, 1.33, 0.52),
    "bern-40x0.9": (40, 0.9, 112, 2500, 33, 1.33, 0.63),
    "prevedel-40x0.95": (40, 0.95, 150, 3000, 15, 1.33, 0.52),
    "vcd-40x0.8w": (40, 0.8, 150, 3500, 11, 1.33, 0.58),
    "stanford-20x0.5w": (20, 0.5, 125, 2433, 27, 1.33, 0.52),
    "wagner-22x0.5w": (22.2, 0.5, 125, 3125, 19, 1.33, 0.52),
    "waveblocks-20x0.45": (20, 0.45, 112, 2500, 17, 1.33, 0.63),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_lightfield_presets_have_the_published_figures(name: str) -> None:
    m = load_microscope(name)
    assert m.lenslets is not None
    found = (
        m.objective.magnification,
        m.objective.na,
        m.lenslets.pitch_um,
        m.lenslets.focal_length_um,
        m.n_pixels,
        m.sample_index,
        m.wavelength_um,
    )
    assert found == PUBLISHED[name]


def test_preset_names() -> None:
    assert set(preset_names(lightfield_only=True)) == set(PUBLISHED)
    assert set(preset_names()) - set(PUBLISHED) == {"wf-60x1.4o", "wf-20x0.8", "wf-40x1.3o"}
    assert preset_names()[: len(PUBLISHED)] == preset_names(lightfield_only=True)


def test_effective_pixels() -> None:
    assert load_microscope("stanford-20x0.5w").camera.effective_pixel_um == pytest.approx(4.55, abs=1e-4)
    assert load_microscope("wagner-22x0.5w").nominal_pitch_px == pytest.approx(19.0, abs=1e-3)
    assert load_microscope("wf-60x1.4o").object_pixel_um == pytest.approx(0.1083, abs=1e-4)


@pytest.mark.parametrize("name", preset_names())
def test_presets_say_where_they_come_from_and_make_sense(name: str) -> None:
    m = load_microscope(name)
    assert len(m.notes) > 60
    serious = [p.field for p in physical_sanity(m) if p.severity != "info"]
    # Imperial's f/10 lenslets under f/12.5 light are as published
    assert serious == (["lenslets.focal_length_um"] if name == "imperial-25x1.0w" else [])


def test_names_ignore_case_and_suggest() -> None:
    assert load_microscope("MBL-60x1.2W").name == "mbl-60x1.2w"
    with pytest.raises(RequestError, match=r"no microscope 'mbl-60x'\. Did you mean 'mbl-60x1.2w'\?"):
        load_microscope("mbl-60x")
    with pytest.raises(RequestError, match="Use one of"):
        load_microscope("zzz")


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_files_read_back_equal(tmp_path: Path, suffix: str) -> None:
    m = load_microscope("mbl-60x1.2w").model_copy(update={"name": "µ-scope", "notes": "a: 'b'\nc"})
    path = save_microscope(m, tmp_path / f"m{suffix}")
    assert load_microscope(path) == m
    assert load_microscope(str(path)) == m
    assert [p.name for p in path.parent.glob("*m*")] == [path.name]  # nothing temporary stays


def test_relative_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    m = load_microscope("wf-20x0.8")
    save_microscope(m, "mine.yaml")
    assert load_microscope("mine.yaml") == m


def broken(**changes: object) -> dict[str, object]:
    record = load_microscope("mbl-60x1.2w").model_dump(mode="json", exclude_none=True)
    return {**record, **changes}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1,\nb: 2", r"not valid YAML or JSON near line \d"),
        ("- 1\n- 2", "does not describe a microscope"),
        ("", "does not describe a microscope"),
        (json.dumps(broken(wavelength_um=593)), "wavelength_um = 593.*less than 2.* micrometres"),
        (json.dumps(broken(wavelenght_um=0.5)), "no entry 'wavelenght_um'.*Did you mean 'wavelength_um'"),
        (json.dumps(broken(camera={"pixel": 6.5})), "'camera.pixel_um' is missing.*Did you mean 'pixel_um'"),
        (json.dumps(broken(lenslets={"pitch": 1})), "Did you mean 'pitch_um'"),
        (json.dumps(broken(objective={"magnification": 60, "na": 1.2})), "check the immersion medium"),
        (json.dumps({"name": "x"}), "'objective' is missing"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=f"(?s){says}") as caught:
        load_microscope(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_files_are_explained(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RequestError, match="not a text file"):
        load_microscope(tmp_path / "binary.yaml")
    with pytest.raises(RequestError, match=r"no file .*Did you mean .*binary\.yaml"):
        load_microscope(tmp_path / "binari.yaml")
    with pytest.raises(RequestError, match="no file"):
        load_microscope("no/such/place.json")
    with pytest.raises(RequestError, match="cannot be read"):
        load_microscope(tmp_path)
    (tmp_path / "big.yaml").write_text("#" * (presets.LARGEST_FILE_BYTES + 1))
    with pytest.raises(RequestError, match="too big"):
        load_microscope(tmp_path / "big.yaml")


def test_saving_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\.yaml or \.json"):
        save_microscope(load_microscope("wf-20x0.8"), tmp_path / "m.txt")
    with pytest.raises(RequestError, match="does not exist"):
        save_microscope(load_microscope("wf-20x0.8"), tmp_path / "no folder" / "m.yaml")


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_microscope(load_microscope("wf-20x0.8"), tmp_path / "m.yaml")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LfmError, match="disk is full"):
        save_microscope(load_microscope("wf-60x1.4o"), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["m.yaml"]


def test_the_users_own_microscopes(lfm_home: Path) -> None:
    assert user_microscope_dir() == lfm_home / "microscopes"
    assert user_microscope_names() == ()
    mine = load_microscope("mbl-60x1.2w").model_copy(update={"name": "My 60x (left bench)"})
    save_user_microscope(mine)
    assert user_microscope_names() == ("My 60x (left bench)",)
    assert load_microscope("my 60X (LEFT bench)") == mine
    with pytest.raises(RequestError, match="already have"):
        save_user_microscope(mine)
    changed = mine.model_copy(update={"wavelength_um": 0.52})
    save_user_microscope(changed, overwrite=True)
    assert load_microscope(mine.name) == changed
    assert len(list(user_microscope_dir().iterdir())) == 1
    with pytest.raises(RequestError, match="Did you mean 'My 60x"):
        load_microscope("my 60x (left)")
    delete_user_microscope(mine.name)
    assert user_microscope_names() == ()


def test_names_that_differ_only_in_odd_characters_do_not_collide() -> None:
    base = load_microscope("wf-20x0.8")
    for name in ("a b", "a&b", "***"):
        save_user_microscope(base.model_copy(update={"name": name}))
    assert set(user_microscope_names()) == {"a b", "a&b", "***"}


def test_presets_are_protected() -> None:
    with pytest.raises(RequestError, match="name of a preset"):
        save_user_microscope(load_microscope("wf-20x0.8"), overwrite=True)
    with pytest.raises(RequestError, match="Presets cannot be deleted"):
        delete_user_microscope("wf-20x0.8")
    with pytest.raises(RequestError, match="looks like a file name"):
        save_user_microscope(load_microscope("wf-20x0.8").model_copy(update={"name": "m.yaml"}))


def test_a_broken_file_of_the_users_hides_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    save_user_microscope(load_microscope("wf-20x0.8").model_copy(update={"name": "good"}))
    (user_microscope_dir() / "bad.yaml").write_text("name: 3")
    assert user_microscope_names() == ("good",)
    assert "bad.yaml" in caplog.text


def test_preset_files_are_named_after_their_microscope() -> None:
    folder = Path(presets.__file__).parent / "microscopes"
    for path in folder.glob("*.yaml"):
        assert yaml.safe_load(path.read_text("utf-8"))["name"] == path.stem


def test_a_grid_is_no_microscope(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({"origin_px": [1, 2], "row_step_px": [9, 0], "column_step_px": [0, 9]}))
    with pytest.raises(RequestError, match=r"grid\.json is a lenslet grid.*--grid"):
        load_microscope(path)
