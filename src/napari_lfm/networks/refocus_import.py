"""The authors' virtual-refocusing models (SavedModel folders) as weights of `RefocusPaperNet`.

Their licence is non-commercial and forbids passing them on: whoever has a copy may use it here, and it is
never part of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus_paper import LEVELS, RefocusPaperNet
from napari_lfm.networks.tensor_bundle import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

_ROOT = "Generator/"


def load_published(folder: str | Path) -> RefocusPaperNet:
    """Return the network of a SavedModel folder.

    Parameters
    ----------
    folder : path
        With ``saved_model.pb`` and ``variables``.

    Raises
    ------
    RequestError
        If there is no checkpoint, it is damaged, or it is another network.
    """
    found = read_bundle(folder)
    levels = len({n.split("/")[1] for n in found if n.startswith(f"{_ROOT}down")})
    if levels not in LEVELS:
        raise RequestError(
            f"{folder} is no generator of virtual refocusing: it has {levels} down blocks.",
            "Choose the folder of a published model; such have five or six.",
        )
    network = RefocusPaperNet(levels)
    names = published_names(levels)
    state = network.state_dict()
    used: set[str] = set()
    for own, (name, transposed) in names.items():
        if name not in found:
            raise RequestError(f"{folder} lacks '{name}'.", "Get the model again.")
        value = _arranged(found[name], transposed)
        if value.shape != tuple(state[own].shape):
            raise RequestError(
                f"'{name}' in {folder} has shape {found[name].shape}, which does not fit.",
                "Choose the folder of a published model.",
            )
        state[own] = torch.from_numpy(value)
        used.add(name)
    # optimisers leave moments behind; other weights would be another network
    strange = [n for n in found if n.startswith(_ROOT) and n not in used and "Adam" not in n]
    if strange:
        raise RequestError(
            f"{folder} also holds '{strange[0]}', which this network does not have.",
            "Choose the folder of a published model.",
        )
    network.load_state_dict(state)
    return network.eval()


def published_names(levels: int) -> dict[str, tuple[str, bool]]:
    """Return, for every weight of the network, its published name and whether it is a kernel."""
    out: dict[str, tuple[str, bool]] = {}

    def add(own: str, theirs: str, bias: str = "biases") -> None:
        out[f"{own}.weight"] = (f"{_ROOT}{theirs}/filters", True)
        out[f"{own}.bias"] = (f"{_ROOT}{theirs}/{bias}", False)

    for level in range(levels):
        for k in range(2):
            add(f"down.{level}.{k}", f"down{level}/conv{k + 1}")
    for level in range(levels - 1):
        for k in range(3):
            add(f"up.{level}.{k}", f"up{level}/conv{k}")
    add("last", "last_layer", "biases_1")
    return out


def _arranged(value: np.ndarray, kernel: bool) -> np.ndarray:
    """Return a kernel (height, width, in, out) as (out, in, height, width).

    Transposed kernels come as (height, width, out, in), and torch wants them as (in, out, height, width).
    """
    value = np.asarray(value, np.float32)
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1)) if kernel else value.copy()
