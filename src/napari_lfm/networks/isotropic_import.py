"""CSBDeep's Keras models (a folder with ``config.json`` and ``weights_best.h5``) as weights of `CareNet`.

Only h5py is needed, and only here. Models of CARE and of IsotropicCARE have the same layers; those of other
kinds (three-dimensional, projections) are told apart by their sizes and refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.isotropic_paper import CareNet

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("weights_best.h5", "weights_last.h5", "weights_now.h5")
_REMEDY = "Choose the folder of a two-dimensional CSBDeep model: config.json and weights_best.h5."
_MOST_DEPTH, _MOST_WIDTH, _MOST_KERNEL, _MOST_CHANNELS = 6, 1024, 31, 64
_HEADS = ("mean", "scale")


@dataclass(frozen=True)
class CareModel:
    """A network with imported weights.

    Attributes
    ----------
    network : CareNet
        In eval mode.
    arguments : dict
        Of `CareNet`, ready for a card.
    config : dict
        CSBDeep's settings, as the file has them.
    weights_file : Path
    """

    network: CareNet
    arguments: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    weights_file: Path = Path()


def load_care(path: str | Path) -> CareModel:
    """Return the network of a CSBDeep model.

    Parameters
    ----------
    path : path
        The model's folder, or a weights file in it.

    Raises
    ------
    RequestError
        If files are missing or damaged, h5py is not installed, or it is another kind of network.
    """
    path = Path(path).expanduser()
    folder = path.parent if path.suffix == ".h5" else path
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}.", _REMEDY)
    config = _config(folder / CONFIG_FILE)
    arguments = _arguments(folder, config)
    names = [str(config.get("train_checkpoint", "")), *WEIGHT_FILES]
    candidates = [path] if path.suffix == ".h5" else [folder / Path(n).name for n in names if n]
    weights = next((p for p in candidates if p.is_file()), None)
    if weights is None:
        raise RequestError(f"{folder} holds no {WEIGHT_FILES[0]}.", _REMEDY)
    network = CareNet(**arguments)
    network.load_state_dict(_fitted(weights, network, _layers(weights)))
    return CareModel(network.eval(), arguments, config, weights)


def _config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{path.parent} holds no {CONFIG_FILE}.", _REMEDY) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}.", "Get the model again.") from None
    if not isinstance(values, dict) or not {"n_dim", "n_channel_in", "n_channel_out"} <= set(values):
        raise RequestError(f"{path} does not describe a CSBDeep model.", _REMEDY)
    return values


def _arguments(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    if config["n_dim"] != 2:
        raise RequestError(
            f"The model in {folder} is {config['n_dim']}-dimensional; isotropic restoration takes"
            " two-dimensional ones.",
            _REMEDY,
        )
    if "unet_n_depth" not in config:
        raise RequestError(f"The model in {folder} is not CSBDeep's U-Net.", _REMEDY)
    last = config.get("unet_last_activation", "linear")
    if last != "linear":
        raise RequestError(f"The model in {folder} ends with '{last}', not linearly as CARE models do.")
    sizes: dict[str, int] = {}
    for own, theirs, usual, most in (
        ("channels", "n_channel_in", 1, _MOST_CHANNELS),
        ("channels_out", "n_channel_out", 1, _MOST_CHANNELS),
        ("depth", "unet_n_depth", 2, _MOST_DEPTH),
        ("base", "unet_n_first", 32, _MOST_WIDTH),
        ("kernel", "unet_kern_size", 5, _MOST_KERNEL),
    ):
        value = config.get(theirs, usual)
        if isinstance(value, list) and len(set(value)) == 1:  # one size per axis
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise RequestError(f"{folder / CONFIG_FILE} says {theirs} = {value!r}, which no model has.")
        sizes[own] = value
    residual = config.get("unet_residual")
    if residual is None:
        residual = sizes["channels"] == sizes["channels_out"]
    return {**sizes, "residual": bool(residual), "probabilistic": bool(config.get("probabilistic", False))}


def _layers(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return layer -> {"kernel": ..., "bias": ...} of a Keras file; layers without weights are left out."""
    try:
        import h5py
    except ImportError:
        raise RequestError("Importing Keras weights needs h5py.", "Install it: pip install h5py") from None
    found: dict[str, dict[str, np.ndarray]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        # Keras writes layer/layer/kernel, and up to version 2 with ':0' at the end
        parts = name.removeprefix("model_weights/").split("/")
        kind = parts[-1].split(":")[0]
        if "optimizer_weights" in parts or kind not in ("kernel", "bias"):
            return
        found.setdefault(parts[0], {})[kind] = np.asarray(item[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{path} is no readable Keras file ({reason}).", "Get the model again.") from None
    if not found:
        raise RequestError(f"{path} holds no weights.", _REMEDY)
    return found


def _fitted(
    path: Path, network: CareNet, layers: dict[str, dict[str, np.ndarray]]
) -> dict[str, torch.Tensor]:
    """Return the network's state out of a file's layers."""
    own = {name for name, _ in network.named_children()}
    inner = own - set(_HEADS)
    missing = sorted(inner - set(layers))
    if missing:
        raise RequestError(f"{path} is another model: it lacks the layer '{missing[0]}'.", _REMEDY)
    # the last layers have the names that Keras counts up: the mean was made before the scale
    last = sorted(set(layers) - inner, key=_counted)
    heads = [name for name in _HEADS if name in own]
    if len(last) != len(heads):
        strange = f"it has {len(last)} further layers ({', '.join(last) or 'none'}), not {len(heads)}"
        raise RequestError(f"{path} is another model: {strange}.", _REMEDY)
    theirs = {name: name for name in inner} | dict(zip(heads, last, strict=True))
    state: dict[str, torch.Tensor] = {}
    for name, layer in theirs.items():
        for kind, part in (("kernel", "weight"), ("bias", "bias")):
            wanted = tuple(network.get_submodule(name).get_parameter(part).shape)
            value = layers[layer].get(kind)
            if value is None:
                raise RequestError(f"{path} is another model: layer '{layer}' has no {kind}.", _REMEDY)
            if kind == "kernel" and value.ndim == 4:  # (height, width, in, out)
                value = value.transpose(3, 2, 0, 1)
            if value.shape != wanted:
                raise RequestError(
                    f"{path} is another model: the {kind} of layer '{layer}' has sizes"
                    f" {layers[layer][kind].shape}, which do not fit {CONFIG_FILE}.",
                    _REMEDY,
                )
            if value.dtype.kind != "f" or not np.isfinite(value).all():
                raise RequestError(f"{path} is damaged: layer '{layer}' holds what is no number.")
            state[f"{name}.{part}"] = torch.from_numpy(np.array(value, np.float32))
    return state


def _counted(name: str) -> tuple[int, str]:
    """Order ``conv2d``, ``conv2d_1``, ``conv2d_10`` as they were made."""
    number = name.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0), name
