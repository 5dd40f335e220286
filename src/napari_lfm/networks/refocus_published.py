"""Importing the authors' virtual-refocusing models: a SavedModel folder becomes a model with a card."""

from __future__ import annotations

import datetime
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import napari_lfm
from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import CARD_FILE, ModelCard, is_valid_id
from napari_lfm.networks.refocus_import import load_published
from napari_lfm.networks.registry import ModelEntry, import_model
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.microscope import Camera, Microscope, Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

LICENCE = "non-commercial, never passed on (the authors' terms)"
_RANGE_UM, _OIL_RANGE_UM = 10.0, 2.7
"""Of the published models: 20x/0.8, and those with oil."""
_STEP_UM = 0.5
_EXCITATION = 0.93
"""Wavelength of excitation over that of emission, about."""


def is_published(path: str | Path) -> bool:
    """Return whether a folder looks like a SavedModel, and not like a model of ours."""
    path = Path(path).expanduser()
    return path.is_dir() and not (path / CARD_FILE).exists() and (path / "saved_model.pb").is_file()


def import_published(
    folder: str | Path,
    id: str | None = None,
    microscope: Microscope | None = None,
    z_um: Sequence[float] | None = None,
) -> ModelEntry:
    """Make a model in the user's folder out of an authors' SavedModel folder.

    Parameters
    ----------
    folder : str or Path
        With ``saved_model.pb`` and ``variables``.
    id : str, optional
        Default: ``refocus-`` and the folder's name.
    microscope : Microscope, optional
        What it was trained for; default: the paper's 20x/0.8 with pixels of 0.325 um.
    z_um : sequence of float, optional
        Lowest and highest distance it was trained for; default: 10 um to both sides, 2.7 um with oil.

    Raises
    ------
    RequestError
        As `load_published`; if the id is taken.
    """
    folder = Path(folder).expanduser()
    network = load_published(folder)
    notes = [
        "The authors' weights: their terms allow non-commercial use only, and no passing on.",
        "It sees the image less its median over the bright foreground (99th percentile above a triangle "
        "threshold), in frames of 1024 x 1024 pixels, and gives the wide-field plane only.",
    ]
    if microscope is None:
        microscope = Microscope(
            name="wf-20x0.8",
            objective=Objective(magnification=20, na=0.8),
            camera=Camera(pixel_um=6.5),
            wavelength_um=0.6,
        )
        notes.append("The folder does not say for which microscope; the paper's 20x/0.8 is assumed.")
    oil = microscope.objective.immersion_index > 1.4
    range_um = _OIL_RANGE_UM if oil else _RANGE_UM
    if z_um is not None:
        range_um = max((abs(float(z)) for z in z_um), default=0.0)
    if not range_um > 0:
        raise RequestError("A range of 0 um is none.", "Give the lowest and the highest distance, in um.")
    pixel_um = microscope.object_pixel_um
    card = ModelCard(
        id=id or _id_for(folder),
        title=f"Virtual refocusing as published, imported from {folder.name}",
        version="1",
        method="refocus",
        architecture="refocus-paper",
        network={"levels": network.levels},
        microscope=microscope.model_dump(mode="json"),
        n_pixels=None,
        z_um=[],
        voxels_per_lenslet=None,
        scalers={
            "low_percentile": 50.0,
            "high_percentile": 99.0,
            "pixel_um": pixel_um,
            "range_um": range_um,
            "z_step_um": _STEP_UM if not oil else _STEP_UM * _OIL_RANGE_UM / _RANGE_UM,
            "confocal": 0.0,
            "na": microscope.objective.na,
            "wavelength_um": microscope.wavelength_um,
            "immersion_index": microscope.objective.immersion_index,
            "sample_index": microscope.sample_index,
            "excitation_um": round(_EXCITATION * microscope.wavelength_um, 4),
            "depth_um": 0.0,
            "coverslip_error_um": 0.0,
            "pinhole_airy": 1.0,
        },
        specimens=[],
        licence=LICENCE,
        data="not told by the folder",
        training={"imported_from": folder.name},
        scores=[],
        hours=0.0,
        trained_on="not told by the folder",
        date=datetime.date.fromtimestamp(folder.stat().st_mtime).isoformat(),
        parameters=sum(p.numel() for p in network.parameters()),
        sha256="",
        versions={"napari-lfm": napari_lfm.__version__, "torch": str(torch.__version__)},
        notes=" ".join(notes),
    )
    with tempfile.TemporaryDirectory(prefix="napari-lfm-") as place:
        save_model(place, card, network.state_dict(), half=False)
        return import_model(place)


def _id_for(folder: Path) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", folder.name).strip("-.").lower()[:60]
    new = f"refocus-{words}" if words else "refocus-published"
    return new if is_valid_id(new) else "refocus-published"
