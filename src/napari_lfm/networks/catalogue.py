"""The list of models: the user's own, those bundled with the package, and those that can be fetched."""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import CARD_FILE, WEIGHTS_FILE, ModelCard, parse_card, read_card
from napari_lfm.networks.weights import weights_problem

Source = Literal["bundled", "user", "remote"]

ARCHITECTURES: dict[str, str] = {
    "lfmnet-paper": "napari_lfm.networks.lfmnet:LFMNet",
    "lfmnet-modern": "napari_lfm.networks.lenslet_net:LensletNet",
    "cista": "napari_lfm.networks.cista:CistaNet",
    "refocus": "napari_lfm.networks.refocus:RefocusNet",
    "refocus-paper": "napari_lfm.networks.refocus_paper:RefocusPaperNet",
    "wfcon": "napari_lfm.networks.wfcon:WfconNet",
    "isotropic": "napari_lfm.networks.isotropic:IsotropicNet",
    "isotropic-csbdeep": "napari_lfm.networks.isotropic_paper:CareNet",
    "isotropic-isonet1": "napari_lfm.networks.isotropic_paper:IsoNet1",
    "isotropic-isonet2": "napari_lfm.networks.isotropic_paper:IsoNet2",
}
"""Name in a card -> module and class of the network."""

_HERE = Path(__file__).parent


LEAST_GAIN_DB = 1.0
"""A model that is ahead of Richardson-Lucy by less goes after those that are ahead by more."""


@dataclass(frozen=True)
class ModelEntry:
    """One model in the list.

    Attributes
    ----------
    card : ModelCard
        Of a folder that cannot be read: a card with the folder's name and nothing else.
    folder : Path
    source : {"bundled", "user", "remote"}
    problem : str
        Why it cannot be used, empty where it can.
    """

    card: ModelCard
    folder: Path
    source: Source
    problem: str = ""

    @property
    def preference(self) -> tuple[bool, bool, float, str]:
        """What of several models that fit alike is largest for the one to take.

        A user's own goes before a bundled one, unless it was hardly trained: it has to be ahead of
        Richardson-Lucy by `LEAST_GAIN_DB` where both were compared.
        """
        gain, score = self.card.gain_db, self.card.score_db
        learned = gain is None or gain >= LEAST_GAIN_DB
        return learned, self.source == "user", -math.inf if score is None else score, self.card.date


def bundled_model_dir() -> Path:
    """Return the folder of the models that come with the package."""
    return _HERE / "weights"


def user_model_dir() -> Path:
    """Return the folder of the user's models: ``$NAPARI_LFM_MODELS``, or in ``$NAPARI_LFM_HOME`` if set."""
    own = os.environ.get("NAPARI_LFM_MODELS")
    if own:
        return Path(own).expanduser()
    home = os.environ.get("NAPARI_LFM_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return Path(user_data_path("napari-lfm", appauthor=False)) / "models"


def list_models(method: str | None = None) -> list[ModelEntry]:
    """Return the models: the user's, the bundled ones, then those that can be fetched, each by id.

    Broken folders are listed with their `problem`, whatever the method where the card cannot be read.
    """
    found = [*_entries(user_model_dir(), "user"), *_entries(bundled_model_dir(), "bundled")]
    here = {e.card.id.lower() for e in found}
    for card in remote_cards():
        if card.id.lower() not in here:
            fetch = f"It is not on this machine yet; 'napari-lfm models --fetch {card.id}' brings it."
            found.append(ModelEntry(card, user_model_dir() / card.id, "remote", fetch))
    return [e for e in found if method is None or e.card.method in (method, "")]


def remote_cards() -> list[ModelCard]:
    """Return the cards of models that can be fetched (`url` and `sha256` are those of the weights)."""
    path = _HERE / "remote.json"
    entries = json.loads(path.read_text("utf-8"))
    return [parse_card(json.dumps(entry), f"{path}[{k}]") for k, entry in enumerate(entries)]


def read_model(folder: str | Path, source: Source = "user") -> ModelEntry:
    """Return the entry of one model folder, with its `problem` where it is broken."""
    folder = Path(folder)
    try:
        card = read_card(folder)
    except RequestError as error:
        return ModelEntry(_blank_card(folder.name), folder, source, str(error))
    problem = weights_problem(folder / WEIGHTS_FILE)
    if not problem and card.architecture not in ARCHITECTURES:
        problem = str(unknown_architecture(card))
    return ModelEntry(card, folder, source, problem)


def _entries(folder: Path, source: Source) -> list[ModelEntry]:
    try:
        folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    except OSError:
        return []
    return [read_model(p, source) for p in folders]


def find_model(id_or_folder: str | Path, method: str | None = None) -> ModelEntry:
    """Return a model by its id (upper and lower case are one), or by its folder.

    Parameters
    ----------
    id_or_folder : str or Path
        A text with a folder separator in it, or a Path, is a folder; so is one that exists where no id fits.
    method : str, optional
        The method that is to run it.

    Raises
    ------
    RequestError
        If there is none (the nearest id is suggested), or it is for another method. A broken folder is
        returned, with its `problem`.
    """
    text = str(id_or_folder)
    is_path = isinstance(id_or_folder, Path) or Path(text).name != text
    entries = [] if is_path else list_models()
    same = [e for e in entries if text.lower() in (e.card.id.lower(), e.folder.name.lower())]
    if same:
        # the id itself goes before a folder that is named so
        return _for_method(min(same, key=lambda e: e.card.id.lower() != text.lower()), method)
    folder = Path(text).expanduser()
    if folder.name in (CARD_FILE, WEIGHTS_FILE):
        folder = folder.parent
    if folder.is_dir():
        return _for_method(_known(read_model(folder)), method)
    if is_path:
        raise RequestError(f"There is no model folder {folder}.", "Check the path.")
    ids = [e.card.id for e in entries if method is None or e.card.method == method]
    near = difflib.get_close_matches(text.lower(), [i.lower() for i in ids], n=1, cutoff=0.5)
    hint = next((f"Did you mean '{i}'?" for i in ids if [i.lower()] == near), "")
    if not hint:
        hint = f"Use one of {', '.join(ids)}, or a model folder." if ids else "Give a model folder."
    raise RequestError(f"There is no model '{text}'.", hint)


def _known(entry: ModelEntry) -> ModelEntry:
    """Return the entry with the source that its place tells."""
    inside = entry.folder.resolve().parent == bundled_model_dir().resolve()
    return ModelEntry(entry.card, entry.folder, "bundled", entry.problem) if inside else entry


def _for_method(entry: ModelEntry, method: str | None) -> ModelEntry:
    if method is None or entry.card.method in (method, ""):
        return entry
    raise RequestError(
        f"The model '{entry.card.id}' is for the method '{entry.card.method}', not for '{method}'.",
        f"Run '{entry.card.method}' with it, or choose another model.",
    )


def locate_model(id: str) -> Path:
    """Return the folder of an installed model.

    Raises
    ------
    RequestError
        If there is no such model, or it was not fetched yet.
    """
    entry = find_model(id)
    if entry.source == "remote":
        raise RequestError(f"The model '{entry.card.id}' is not here.", entry.problem)
    return entry.folder


def unknown_architecture(card: ModelCard) -> RequestError:
    """Return what to say about a card whose network this version does not have."""
    return RequestError(
        f"The model '{card.id}' is a network '{card.architecture}', which this version does not know.",
        f"Update napari-lfm; it knows {', '.join(ARCHITECTURES)}.",
    )


def _blank_card(name: str) -> ModelCard:
    # the name of a folder may be no id, and it must be shown all the same
    return ModelCard.model_construct(
        id=name, title="", version="", method="", architecture="", network={}, microscope=None, n_pixels=None,
        z_um=[], voxels_per_lenslet=None, scalers={}, specimens=[], licence="", data="", training={},
        scores=[], hours=0.0, trained_on="", date="", parameters=0, sha256="", versions={}, notes="",
    )  # fmt: skip
