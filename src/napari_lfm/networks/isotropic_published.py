"""Importing CSBDeep's models: a folder with a Keras file becomes a model with a card."""

from __future__ import annotations

import datetime
import hashlib
import re
import tempfile
from pathlib import Path

import torch

import napari_lfm
from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import CARD_FILE, ModelCard, is_valid_id
from napari_lfm.networks.isotropic_fit import HIGH_PERCENTILE, LOW_PERCENTILE
from napari_lfm.networks.isotropic_import import CONFIG_FILE, CareModel, load_care
from napari_lfm.networks.registry import ModelEntry, import_model, list_models
from napari_lfm.networks.weights import save_model

_SAVED_MODEL = "saved_model.pb"


def is_care(path: str | Path) -> bool:
    """Return whether a path looks like a CSBDeep model, or a Keras file, and not like a model of ours."""
    path = Path(path).expanduser()
    if path.is_file():
        return path.suffix == ".h5"
    return (
        path.is_dir()
        and (path / CONFIG_FILE).is_file()
        and not (path / CARD_FILE).exists()
        and not (path / _SAVED_MODEL).exists()
    )


def open_care(path: str | Path) -> CareModel:
    """Return the network of a CSBDeep model that can restore slices.

    Raises
    ------
    RequestError
        As `load_care`; if it gives another number of channels than it takes.
    """
    model = load_care(path)
    given, made = model.network.channels, model.network.channels_out
    if given != made:
        raise RequestError(
            f"The model in {path} makes {made} channel{'s' if made > 1 else ''} of {given}: it restores no "
            "stack.",
            "Choose a CSBDeep model of isotropic restoration.",
        )
    return model


def import_care(path: str | Path, id: str | None = None, factor: float = 0.0) -> ModelEntry:
    """Make a model in the user's folder out of a CSBDeep model.

    Parameters
    ----------
    path : str or Path
        Its folder, with ``config.json`` and ``weights_best.h5``, or the Keras file in it.
    id : str, optional
        Default: ``isotropic-`` and the folder's name.
    factor : float
        Distance of planes, in lateral pixels, that it was trained for; 0: not known, the files do not tell.

    Raises
    ------
    RequestError
        As `open_care`; if the id is taken.
    """
    path = Path(path).expanduser()
    model = open_care(path)
    network = model.network
    folder = model.weights_file.parent
    arguments = {k: v for k, v in model.arguments.items() if k != "channels_out"}
    card = ModelCard(
        id=id or _id_for(folder),
        title=f"CSBDeep model imported from {folder.absolute().name}",
        version="1",
        method="isotropic",
        architecture="isotropic-csbdeep",
        network=arguments,
        microscope=None,
        n_pixels=None,
        z_um=[],
        voxels_per_lenslet=None,
        scalers={
            "low_percentile": LOW_PERCENTILE,
            "high_percentile": HIGH_PERCENTILE,
            "factor": factor,
            "csbdeep": 1.0,
        },
        specimens=[],
        licence="that of the model's authors",
        data="not told by the files",
        training={
            "imported_from": folder.absolute().name,
            "weights_sha256": _sha256(model.weights_file),
            "config": {k: v for k, v in model.config.items() if isinstance(v, str | int)},
        },
        scores=[],
        hours=0.0,
        trained_on="not told by the files",
        date=datetime.date.fromtimestamp(model.weights_file.stat().st_mtime).isoformat(),
        parameters=sum(p.numel() for p in network.parameters()),
        sha256="",
        versions={"napari-lfm": napari_lfm.__version__, "torch": str(torch.__version__)},
        notes="Run as CSBDeep runs it: percentiles 2 and 99.8 become 0 and 1, slices are interpolated as its "
        "zoom does. The files do not tell the distance of planes that it was trained for.",
    )
    with tempfile.TemporaryDirectory(prefix="napari-lfm-") as place:
        save_model(place, card, network.state_dict(), half=False)
        return import_model(place)


def imported_care(path: str | Path) -> ModelEntry | None:
    """Return the user's model that was made of a CSBDeep model before, None where there is none.

    Raises
    ------
    RequestError
        As `open_care`.
    """
    sha256 = _sha256(open_care(Path(path).expanduser()).weights_file)
    same = [
        e
        for e in list_models("isotropic")
        if e.source == "user" and not e.problem and e.card.training.get("weights_sha256") == sha256
    ]
    return same[0] if same else None


def care_entry(path: str | Path) -> ModelEntry:
    """Return the user's model that a CSBDeep model was imported as, importing it where it was not.

    Raises
    ------
    RequestError
        As `import_care`.
    """
    known = imported_care(path)
    if known is not None:
        return known
    path = Path(path).expanduser()
    usual = _id_for(path.parent if path.is_file() else path)
    taken = {name.lower() for e in list_models() for name in (e.card.id, e.folder.name)}
    numbered = [usual, *(f"{usual}-{k}" for k in range(2, 10_000))]
    return import_care(path, next(name for name in numbered if name.lower() not in taken))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _id_for(folder: Path) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", folder.absolute().name).strip("-.").lower()[:60]
    new = f"isotropic-{words}" if words else "isotropic-csbdeep"
    return new if is_valid_id(new) else "isotropic-csbdeep"
