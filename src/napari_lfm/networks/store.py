"""Bringing models into the user's folder (from a folder, a ZIP file, the network) and deleting them.

Only the card and the weights are ever taken, under fixed names: nothing in a ZIP file decides where
something is written.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.atomic import replacing_folder
from napari_lfm.networks.card import (
    CARD_FILE,
    LARGEST_CARD_BYTES,
    WEIGHTS_FILE,
    ModelCard,
    is_pickle_name,
    is_valid_id,
    parse_card,
    read_card,
)
from napari_lfm.networks.catalogue import (
    ARCHITECTURES,
    ModelEntry,
    find_model,
    list_models,
    unknown_architecture,
    user_model_dir,
)
from napari_lfm.networks.weights import LARGEST_WEIGHTS_BYTES, read_checked, write_model

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20


def import_model(folder_or_zip: str | Path, id: str | None = None) -> ModelEntry:
    """Copy a model into the user's folder.

    Parameters
    ----------
    folder_or_zip : str or Path
        A model folder, a ZIP file of one, or one of its two files.
    id : str, optional
        Another id than the card's.

    Raises
    ------
    RequestError
        If it is no model, is damaged, is for a newer version, or the id is taken.
    LfmError
        If it cannot be written; nothing is left behind.
    """
    source = Path(folder_or_zip).expanduser()
    if source.name in (CARD_FILE, WEIGHTS_FILE) and source.is_file():
        source = source.parent
    if source.is_dir():
        card = read_card(source)
        return _take(card, read_checked(source / WEIGHTS_FILE, card.sha256), id)
    if not source.is_file():
        raise RequestError(f"There is no model {source}.", "Give a model folder, or a ZIP file of one.")
    if zipfile.is_zipfile(source):
        return _take(*_from_zip(source), id)
    if is_pickle_name(source.name):
        raise RequestError(
            f"{source} is a pickled checkpoint; it might run code and is not opened.",
            f"Give a model folder ({CARD_FILE} and {WEIGHTS_FILE}), or a ZIP file of one.",
        )
    raise RequestError(f"{source} is no model.", "Give a model folder, or a ZIP file of one.")


def delete_model(id: str) -> None:
    """Delete one of the user's models, also a broken one.

    Raises
    ------
    RequestError
        If there is none, or it came with the package, or is not on this machine.
    LfmError
        If the files cannot be removed.
    """
    entries = [e for e in list_models() if e.source == "user"]
    own = [e for e in entries if e.folder.name == id] or [
        e for e in entries if e.card.id.lower() == id.lower()
    ]
    if not own:
        entry = find_model(id)
        why = "came with napari-lfm" if entry.source == "bundled" else "is not in your folder of models"
        raise RequestError(
            f"The model '{entry.card.id}' {why} and cannot be deleted.", "Only your own models can."
        )
    folder = own[0].folder
    try:
        if folder.is_symlink():
            folder.unlink()
            return
        # out of the list at once, even where removing the files takes long or fails half-way
        aside = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.deleted")
        folder.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise LfmError(
            f"The model '{own[0].card.id}' could not be deleted ({error.strerror}).",
            f"Close the program that uses it, or remove {folder} by hand.",
        ) from None


def fetch_model(id: str, downloader: Callable[..., Any] | None = None) -> ModelEntry:
    """Fetch a model's weights from its address into the user's folder; their sha256 is checked.

    Parameters
    ----------
    id : str
    downloader : callable, optional
        As pooch takes it, ``(url, file, pooch)``; default by the protocol of the address.

    Raises
    ------
    RequestError
        If there is no such model to fetch.
    LfmError
        If the address does not answer, or sends another file.
    """
    entry = find_model(id)
    card = entry.card
    if entry.source != "remote":
        raise RequestError(f"The model '{card.id}' is here already.", f"It is in {entry.folder}.")
    import pooch

    with tempfile.TemporaryDirectory(prefix="napari-lfm-") as folder:
        try:
            found = pooch.retrieve(
                card.url, f"sha256:{card.sha256}", WEIGHTS_FILE, folder, downloader=downloader
            )
        except ValueError as error:
            if "hash" not in str(error):
                raise LfmError(f"The model '{card.id}' cannot be fetched ({error}).") from None
            raise LfmError(
                f"What {card.url} sent is not the model '{card.id}': its sha256 is another one.",
                "Try again later; nothing was kept.",
            ) from None
        except (OSError, ImportError) as error:  # requests' errors are OSErrors
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise LfmError(
                f"The model '{card.id}' could not be fetched from {card.url} ({reason}).",
                "Check the connection and try again.",
            ) from None
        return _take(card, read_checked(Path(found), card.sha256), None)


def _take(card: ModelCard, weights: bytes, id: str | None) -> ModelEntry:
    """Put a model into the user's folder under `id`."""
    if card.architecture not in ARCHITECTURES:
        raise unknown_architecture(card)
    new = id or card.id
    if not is_valid_id(new):
        raise RequestError(
            f"'{new}' cannot be the id of a model.", "Use letters, digits, and . _ + - between them."
        )
    taken = [e for e in list_models() if new.lower() in (e.card.id.lower(), e.folder.name.lower())]
    if any(e.source != "remote" or e.card.sha256 != card.sha256 for e in taken):
        raise RequestError(f"There is a model '{new}' already.", "Give another id.")
    home = user_model_dir()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LfmError(
            f"The folder of models {home} cannot be made ({error.strerror}).",
            "Set NAPARI_LFM_MODELS to a folder that you may write to.",
        ) from None
    card = card.model_copy(update={"id": new})
    with replacing_folder(home / new, len(weights)) as part:
        write_model(part, card, weights)
    return ModelEntry(card, home / new, "user")


def _from_zip(path: Path) -> tuple[ModelCard, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {n.replace("\\", "/"): n for n in archive.namelist()}
            cards = [n for n in names if n.rpartition("/")[2] == CARD_FILE and n.count("/") <= 1]
            if len(cards) != 1:
                raise RequestError(*_not_one_card(path, list(names), len(cards)))
            beside = cards[0].removesuffix(CARD_FILE) + WEIGHTS_FILE
            if beside not in names:
                raise RequestError(f"{path} has no {WEIGHTS_FILE} beside its card.", "Get the model again.")
            text = _member(archive, names[cards[0]], LARGEST_CARD_BYTES)
            card = parse_card(text, f"{CARD_FILE} in {path}")
            content = _member(archive, names[beside], LARGEST_WEIGHTS_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RequestError(f"{path} cannot be unpacked ({reason}).", "Get the model again.") from None
    with tempfile.TemporaryDirectory(prefix="napari-lfm-") as folder:
        trial = Path(folder) / WEIGHTS_FILE
        trial.write_bytes(content)
        try:
            return card, read_checked(trial, card.sha256)
        except RequestError as error:
            # the name that the user knows
            raise RequestError(
                error.message.replace(str(trial), f"{WEIGHTS_FILE} in {path}"), error.remedy
            ) from None


def _member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """Return one member; neither what it claims nor what it unpacks to may be larger than allowed."""
    too_large = RequestError(
        f"'{name}' in {archive.filename} unpacks to more than {largest >> 20} MiB.", "This is no model."
    )
    if archive.getinfo(name).file_size > largest:
        raise too_large
    out = bytearray()
    with archive.open(name) as member:
        while chunk := member.read(_CHUNK):
            out += chunk
            if len(out) > largest:
                raise too_large
    return bytes(out)


def _not_one_card(path: Path, names: list[str], count: int) -> tuple[str, str]:
    if count > 1:
        return f"{path} holds {count} models.", "Unpack it and import them one by one."
    if any(is_pickle_name(n) for n in names):
        return (
            f"{path} is a pickled checkpoint, which might run code and is not opened.",
            f"Give a model folder ({CARD_FILE} and {WEIGHTS_FILE}), or a ZIP file of one.",
        )
    return (
        f"{path} holds no model: there is no {CARD_FILE} in it.",
        "Give a model folder, or a ZIP file of one.",
    )
