"""Importing, deleting and fetching models: nothing is executed, misplaced or half done."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.networks import catalogue, store
from napari_lfm.networks.card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_card
from napari_lfm.networks.registry import (
    delete_model,
    fetch_model,
    find_model,
    import_model,
    list_models,
    locate_model,
    open_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., ModelCard]
    Homes = tuple[Path, Path]


@pytest.fixture
def given(tmp_path: Path, make_model: Make) -> Path:
    """A model folder somewhere, with something else in it."""
    folder = tmp_path / "given" / "a model"
    make_model(folder)
    (folder / "log.csv").write_text("step")
    return folder


def zipped(path: Path, members: dict[str, bytes | Path]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["folder", "card", "weights", "zip", "zip of a folder"])
def test_a_model_is_imported(homes: Homes, given: Path, tmp_path: Path, kind: str) -> None:
    members = {n: given / n for n in (CARD_FILE, WEIGHTS_FILE, "log.csv")}
    source = {
        "folder": lambda: given,
        "card": lambda: given / CARD_FILE,
        "weights": lambda: given / WEIGHTS_FILE,
        "zip": lambda: zipped(tmp_path / "m.zip", dict(members)),
        "zip of a folder": lambda: zipped(tmp_path / "m.zip", {f"top/{n}": p for n, p in members.items()}),
    }[kind]()
    entry = import_model(source)
    user, _ = homes
    assert (entry.card.id, entry.source, entry.folder) == ("tiny-mbl", "user", user / "tiny-mbl")
    # two files and no more, nothing temporary
    assert files_of(user) == ["tiny-mbl", f"tiny-mbl/{CARD_FILE}", f"tiny-mbl/{WEIGHTS_FILE}"]
    assert (user / "tiny-mbl" / WEIGHTS_FILE).read_bytes() == (given / WEIGHTS_FILE).read_bytes()
    open_network(find_model("tiny-mbl"), "cpu")


def test_an_id_that_exists_needs_another(homes: Homes, given: Path, make_model: Make) -> None:
    user, bundled = homes
    make_model(bundled / "shipped", id="shipped")
    import_model(given)
    with pytest.raises(RequestError, match=r"a model 'tiny-mbl' already\. Give another id"):
        import_model(given)
    for taken in ("TINY-mbl", "shipped"):
        with pytest.raises(RequestError, match="already"):
            import_model(given, id=taken)
    entry = import_model(given, id="second")
    assert read_card(user / "second").id == entry.card.id == "second"
    assert read_card(given).id == "tiny-mbl"
    for bad in ("../up", "a/b", "..", "a\n"):
        with pytest.raises(RequestError, match="cannot be the id"):
            import_model(given, id=bad)
    assert sorted(p.name for p in user.iterdir()) == ["second", "tiny-mbl"]


def test_names_in_a_zip_file_lead_nowhere(homes: Homes, given: Path, tmp_path: Path) -> None:
    card, weights = given / CARD_FILE, given / WEIGHTS_FILE
    path = zipped(
        tmp_path / "m.zip",
        {
            CARD_FILE: card,
            WEIGHTS_FILE: weights,
            "../../evil.txt": b"x",
            "/tmp/napari-lfm-evil.txt": b"x",
            "..\\evil.txt": b"x",
        },
    )
    before = set(files_of(tmp_path))
    import_model(path)
    new = set(files_of(tmp_path)) - before
    assert {n for n in new if not n.startswith("user")} == set()
    assert not Path("/tmp/napari-lfm-evil.txt").exists()
    with pytest.raises(RequestError, match="already"):
        import_model(zipped(tmp_path / "n.zip", {"../" + CARD_FILE: card, "../" + WEIGHTS_FILE: weights}))


def test_a_card_cannot_name_a_place(homes: Homes, given: Path) -> None:
    values = json.loads((given / CARD_FILE).read_text())
    (given / CARD_FILE).write_text(json.dumps({**values, "id": "../../evil"}))
    with pytest.raises(RequestError, match="id = "):
        import_model(given)


def test_zip_files_that_are_no_model(homes: Homes, given: Path, tmp_path: Path) -> None:
    card, weights = given / CARD_FILE, given / WEIGHTS_FILE
    cases: list[tuple[dict[str, bytes | Path], str]] = [
        ({"a.txt": b"x"}, r"holds no model: there is no card\.json"),
        ({CARD_FILE: card}, "no weights.safetensors beside its card"),
        ({"a/card.json": card, "b/card.json": card}, "holds 2 models"),
        ({"archive/data.pkl": b"\x80\x02"}, "a pickled checkpoint, which might run code"),
        ({CARD_FILE: b"{", WEIGHTS_FILE: weights}, r"card\.json in .*m\.zip is not readable JSON"),
        ({CARD_FILE: card, WEIGHTS_FILE: b"\x80\x02x"}, r"weights\.safetensors in .*m\.zip is a pickle"),
        (
            {CARD_FILE: card, WEIGHTS_FILE: weights.read_bytes()[:-3]},
            r"weights\.safetensors in .*m\.zip is incomplete",
        ),
    ]
    for members, says in cases:
        with pytest.raises(RequestError, match=says):
            import_model(zipped(tmp_path / "m.zip", members))
    assert list_models() == []


def test_a_zip_file_may_not_unpack_to_too_much(
    homes: Homes, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "m.zip", {CARD_FILE: b" " * (5 << 20), WEIGHTS_FILE: given / WEIGHTS_FILE})
    with pytest.raises(RequestError, match=r"'card\.json' in .* unpacks to more than 4 MiB"):
        import_model(path)
    monkeypatch.setattr(store, "LARGEST_WEIGHTS_BYTES", 100)
    path = zipped(tmp_path / "n.zip", {n: given / n for n in (CARD_FILE, WEIGHTS_FILE)})
    with pytest.raises(RequestError, match="unpacks to more than"):
        import_model(path)
    # a member that claims less than it holds
    data = path.read_bytes()
    size = (given / WEIGHTS_FILE).stat().st_size.to_bytes(4, "little")
    assert size in data
    path.write_bytes(data.replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(RequestError):
        import_model(path)
    assert list_models() == []


def test_a_damaged_zip_file(homes: Homes, given: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.zip", {n: given / n for n in (CARD_FILE, WEIGHTS_FILE)})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(RequestError, match="cannot be unpacked"):
        import_model(path)
    path.write_bytes(data[:200])
    with pytest.raises(RequestError, match="no model"):
        import_model(path)


class Evil:
    """What runs code when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Evil, "ran", True))


def test_pickles_are_never_opened(homes: Homes, tmp_path: Path) -> None:
    plain, real = tmp_path / "model_130", tmp_path / "model.pth"
    plain.write_bytes(pickle.dumps(Evil()))
    torch.save({"a": Evil()}, real)
    with pytest.raises(RequestError, match="is no model"):
        import_model(plain)
    with pytest.raises(RequestError, match="pickled checkpoint, which might run code"):
        import_model(real)
    plain.rename(plain.with_suffix(".pkl"))
    with pytest.raises(RequestError, match="might run code and is not opened"):
        import_model(plain.with_suffix(".pkl"))
    with pytest.raises(RequestError, match="There is no model"):
        import_model(tmp_path / "nowhere")
    assert Evil.ran is False


def test_a_model_of_a_newer_version_is_not_imported(homes: Homes, given: Path) -> None:
    values = json.loads((given / CARD_FILE).read_text())
    (given / CARD_FILE).write_text(json.dumps({**values, "architecture": "deep-9"}))
    with pytest.raises(RequestError, match="'deep-9', which this version does not know"):
        import_model(given)


def test_a_full_disk_leaves_nothing(homes: Homes, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(LfmError, match="disk is full"):
            import_model(given)
    assert list(homes[0].iterdir()) == []
    import_model(given)


def test_only_ones_own_models_can_be_deleted(homes: Homes, given: Path, make_model: Make) -> None:
    user, bundled = homes
    make_model(bundled / "shipped", id="shipped")
    import_model(given)
    (user / "broken one").mkdir()
    with pytest.raises(RequestError, match="'shipped' came with napari-lfm and cannot be deleted"):
        delete_model("shipped")
    with pytest.raises(RequestError, match="Did you mean 'tiny-mbl'"):
        delete_model("tiny-mbi")
    delete_model("tiny-mbl")
    delete_model("broken one")
    assert list(user.iterdir()) == []
    assert [e.card.id for e in list_models()] == ["shipped"]


def test_deleting_a_link_keeps_what_it_points_to(homes: Homes, given: Path) -> None:
    user, _ = homes
    user.mkdir()
    (user / "linked").symlink_to(given, target_is_directory=True)
    delete_model("tiny-mbl")
    assert (given / WEIGHTS_FILE).is_file()
    assert list_models() == []


def test_a_model_that_cannot_be_deleted_is_explained(
    homes: Homes, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_model(given)

    def busy(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(LfmError, match=r"could not be deleted \(Permission denied\)"):
        delete_model("tiny-mbl")
    assert [e.card.id for e in list_models()] == ["tiny-mbl"]


@pytest.fixture
def remote(homes: Homes, given: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """A model that can be fetched."""
    card = read_card(given).model_copy(update={"id": "far", "url": "https://example.org/weights"})
    monkeypatch.setattr(catalogue, "remote_cards", lambda: [card])
    return card


def sending(path: Path) -> Callable[..., None]:
    return lambda url, output, pooch: shutil.copy(path, output)


def test_a_model_is_fetched_once(homes: Homes, given: Path, remote: ModelCard) -> None:
    entry = find_model("far")
    assert (entry.source, "--fetch far" in entry.problem) == ("remote", True)
    with pytest.raises(RequestError, match="is not here"):
        locate_model("far")
    with pytest.raises(RequestError, match="not on this machine yet"):
        open_network(entry)
    with pytest.raises(RequestError, match="cannot be deleted"):
        delete_model("far")
    assert fetch_model("far", sending(given / WEIGHTS_FILE)).source == "user"
    assert [(e.card.id, e.source) for e in list_models()] == [("far", "user")]
    assert read_card(homes[0] / "far") == remote
    open_network(find_model("far"))
    with pytest.raises(RequestError, match="here already"):
        fetch_model("far", sending(given / WEIGHTS_FILE))


def test_another_file_than_the_one_wanted_is_not_kept(homes: Homes, given: Path, remote: ModelCard) -> None:
    with pytest.raises(LfmError, match="is not the model 'far': its sha256 is another one"):
        fetch_model("far", sending(given / CARD_FILE))
    assert not homes[0].exists() or list(homes[0].iterdir()) == []


def test_no_connection_is_said(homes: Homes, remote: ModelCard) -> None:
    def down(url: str, output: object, pooch: object) -> None:
        raise ConnectionError("no route to host")

    with pytest.raises(
        LfmError, match=r"could not be fetched .* \(no route to host\)\. Check the connection"
    ):
        fetch_model("far", down)
