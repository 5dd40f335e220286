"""Checkpoints of the authors' LFMNet code, made into models with a card."""

from __future__ import annotations

import datetime
import math
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import napari_lfm
from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import ModelCard, is_valid_id
from napari_lfm.networks.lfmnet import LFMNet
from napari_lfm.networks.lfmnet_file import Checkpoint, is_checkpoint, read_checkpoint
from napari_lfm.networks.registry import ModelEntry, import_model
from napari_lfm.networks.weights import save_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.networks.lfmnet_blocks import Act, Down
    from napari_lfm.optics.microscope import Microscope

__all__ = ["Checkpoint", "import_checkpoint", "is_checkpoint", "read_checkpoint"]

# the authors' data set
_PUBLISHED_MICROSCOPE = "bern-40x0.9"
_PUBLISHED_DEPTHS = 64
_PUBLISHED_STEP_UM = 0.9


def import_checkpoint(
    path: str | Path,
    id: str | None = None,
    microscope: Microscope | None = None,
    down: Down | None = None,
    act: Act | None = None,
    input_max: float | None = None,
    z_um: Sequence[float] | None = None,
) -> ModelEntry:
    """Make a model in the user's folder out of an authors' checkpoint.

    Parameters
    ----------
    path : str or Path
    id : str, optional
        Default: ``lfmnet-`` and the file's name.
    microscope : Microscope, optional
        What it was trained for; default for 64 depths: that of the paper.
    down, act : str, optional
        As for `read_checkpoint`.
    input_max : float, optional
        What the light fields were divided by: the largest pixel of the training set, which the file does
        not hold. Default 255, that of full 8 bits.
    z_um : sequence of float, optional
        Every depth, or the first and the last; default for 64 depths: steps of 0.9 um around 0.

    Raises
    ------
    RequestError
        As `read_checkpoint`; if optics or depths are neither given nor the paper's; if the id is taken.
    """
    path = Path(path).expanduser()
    network, state, facts = read_checkpoint(path, down, act)
    notes = list(facts["notes"])
    depths = network["n_depths"]
    microscope, told = _optics(path, depths, microscope)
    notes += told
    planes, told = _depths(path, depths, z_um)
    notes += told
    if input_max is None:
        input_max = 255.0
        notes.append(
            "Light fields are divided by 255, assuming full 8 bits; the file does not hold its maximum."
        )
    if not (math.isfinite(input_max) and input_max > 0):
        raise RequestError(f"The light fields cannot be divided by {input_max:g}.", "Give, say, 255.")
    new = id or _id_for(path)
    card = ModelCard(
        id=new,
        title=f"LFMNet, imported from {path.name}",
        version="1",
        method="lfmnet",
        architecture="lfmnet-paper",
        network={**network, "n_pixels": microscope.n_pixels},
        microscope=microscope.model_dump(mode="json"),
        n_pixels=microscope.n_pixels,
        z_um=planes,
        voxels_per_lenslet=microscope.n_pixels,
        scalers={"input_max": input_max},
        specimens=[],
        licence="that of the checkpoint's authors",
        data=str(facts["dataset_path"] or "not told by the checkpoint"),
        training={k: facts[k] for k in ("epoch", "loss", "args")},
        scores=[],
        hours=0.0,
        trained_on="not told by the checkpoint",
        date=datetime.date.fromtimestamp(path.stat().st_mtime).isoformat(),
        parameters=sum(p.numel() for p in LFMNet(**network).parameters()),
        sha256="",
        versions={"napari-lfm": napari_lfm.__version__, "torch": str(torch.__version__)},
        notes=" ".join(notes),
    )
    with tempfile.TemporaryDirectory(prefix="napari-lfm-") as folder:
        save_model(folder, card, state, half=False)
        return import_model(folder)


def _optics(path: Path, depths: int, microscope: Microscope | None) -> tuple[Microscope, list[str]]:
    from napari_lfm.optics.presets import load_microscope

    if microscope is None:
        if depths != _PUBLISHED_DEPTHS:
            raise RequestError(
                f"{path} does not tell which microscope it was trained for, and its {depths} depths are not"
                " the 64 of the paper's.",
                "Name the microscope.",
            )
        assumed = f"The paper's microscope ({_PUBLISHED_MICROSCOPE}) is assumed."
        return load_microscope(_PUBLISHED_MICROSCOPE), [assumed]
    if microscope.lenslets is None or microscope.n_pixels is None:
        raise RequestError(
            f"The microscope '{microscope.name}' has no lenslets.",
            "Name the one that recorded the light fields.",
        )
    return microscope, []


def _depths(path: Path, depths: int, z_um: Sequence[float] | None) -> tuple[list[float], list[str]]:
    if z_um is None:
        if depths != _PUBLISHED_DEPTHS:
            raise RequestError(
                f"{path} does not tell at which depths its {depths} planes are.",
                "Give the first and the last, in um.",
            )
        planes = [round(_PUBLISHED_STEP_UM * (k - (depths - 1) / 2), 6) for k in range(depths)]
        return planes, ["Depths: the paper's 0.9 um steps; where 0 is and which way z runs are assumed."]
    values = [float(z) for z in z_um]
    if len(values) == 2 and depths > 2:
        first, last = values
        values = [first + (last - first) * k / (depths - 1) for k in range(depths)]
    if len(values) != depths or not all(math.isfinite(z) for z in values):
        raise RequestError(
            f"{len(values)} depths do not fit the {depths} planes of {path}.",
            "Give the first and the last, in um.",
        )
    return values, []


def _id_for(path: Path) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-").lower()[:60]
    new = f"lfmnet-{words}" if words else "lfmnet-imported"
    return new if is_valid_id(new) else "lfmnet-imported"
