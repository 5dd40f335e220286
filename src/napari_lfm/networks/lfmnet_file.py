"""The files that the authors' LFMNet code saves, read without running anything in them.

Their training saves a pickled dict, ``model_<epoch>``, with `epoch`, `args` (an argparse.Namespace),
`model_state_dict`, `optimizer_state_dict`, `loss` and `dataset_path`. A pickle can run code; torch's
restricted reader does not: it makes tensors, plain containers and that Namespace, and refuses the rest.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.conv4d import join_slabs
from napari_lfm.networks.lfmnet import LFMNet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_lfm.networks.lfmnet_blocks import Act, Down

LARGEST_CHECKPOINT_BYTES = 4 << 30

# The authors' shallow network before and after 11 October 2020; names and shapes are the same.
_VARIANTS: tuple[tuple[Down, Act], ...] = (("stride", "relu"), ("maxpool", "leaky"))
_CHANGED = "2020-10-11"
_FIRST = "lensletConvolution.0.conv_layers.{}.weight"
_JOINED = "lensletConvolution.0.weight"
_AGAIN = "Get the file again."
# how torch began its files up to version 1.5: a pickled magic number
_OLD_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes
    ----------
    network : dict
        Constructor arguments of `LFMNet`.
    state_dict : dict of str to Tensor
        For `LFMNet.load_state_dict`, float32.
    facts : dict
        JSON-ready: ``epoch``, ``loss``, ``dataset_path``, ``args``, ``notes``; None where the file is silent.
    """

    network: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    facts: dict[str, Any]


def is_checkpoint(path: str | Path) -> bool:
    """Return whether a file looks like something that torch saved; a model folder or its ZIP does not."""
    path = Path(path).expanduser()
    if not path.is_file():
        return False
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
        with path.open("rb") as file:
            start = file.read(4)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False
    return start[:1] == b"\x80" or start == b"PK\x03\x04" or re.match(r"model_\d+$", path.name) is not None


def read_checkpoint(path: str | Path, down: Down | None = None, act: Act | None = None) -> Checkpoint:
    """Return the network, the weights and the facts of an authors' checkpoint.

    Parameters
    ----------
    path : str or Path
        ``model_<epoch>``, as the authors' training writes it, or a bare state dict.
    down, act : str, optional
        Variant of a shallow network, which no file tells: "maxpool" and "leaky", or before 11 October 2020
        "stride" and "relu". One of them is enough.

    Raises
    ------
    RequestError
        If it is no such checkpoint, is damaged, holds other objects than numbers (nothing in it is run),
        does not fit LFMNet, or could be either variant.
    """
    path = Path(path).expanduser()
    content = _load(path)
    state, facts = _parts(path, content)
    network = _network(path, state)
    notes = _contradictions(network, facts["args"])
    network.update(_variant(path, network["shallow"], down, act))
    state = _fitted(path, _joined(path, state, network), network)
    facts["notes"] = notes
    return Checkpoint(network, state, facts)


def _load(path: Path) -> object:
    if path.is_dir():
        raise RequestError(f"{path} is a folder.", "Give one of its files model_<epoch>.")
    try:
        size = path.stat().st_size
        if size > LARGEST_CHECKPOINT_BYTES:
            raise RequestError(f"{path} is too large for a checkpoint of LFMNet.", "Choose another file.")
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from None
    if size == 0:
        raise RequestError(f"{path} is empty.", _AGAIN)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise RequestError(
                f"{path} holds other things than numbers ('{found[1]}'), as a program would;"
                " it was not opened, and nothing in it was run.",
                "Give a checkpoint as LFMNet's training writes it (model_<epoch>).",
            ) from None
        raise _unreadable(path) from None
    except Exception:  # whatever bytes do to a reader of pickles
        raise _unreadable(path) from None
    return loaded


def _unreadable(path: Path) -> RequestError:
    with path.open("rb") as file:
        start = file.read(len(_OLD_TORCH))
    if start[:2] == b"PK" or (start[:2] == b"\x80\x02" and _OLD_TORCH.startswith(start)):
        return RequestError(f"{path} is incomplete or damaged.", _AGAIN)
    if start[:1] == b"\x80":
        return RequestError(
            f"{path} is a pickle of something else; it was not opened, and nothing in it was run.",
            "Give a checkpoint as LFMNet's training writes it (model_<epoch>).",
        )
    return RequestError(
        f"{path} is no checkpoint of PyTorch.", "Give a file as LFMNet's training writes it (model_<epoch>)."
    )


def _parts(path: Path, content: object) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    other = RequestError(
        f"{path} holds no weights of LFMNet.", "Give a file as LFMNet's training writes it (model_<epoch>)."
    )
    if not isinstance(content, dict):
        raise other
    weights = content.get("model_state_dict", content)
    if not isinstance(weights, dict) or not weights:
        raise other
    state: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise other
        # put there by torch's wrapper for several GPUs
        state[name.removeprefix("module.")] = value.float() if value.is_floating_point() else value
    if not any(name.startswith("lensletConvolution.") for name in state):
        raise RequestError(
            f"{path} holds the weights of another network: it has no 'lensletConvolution'.",
            "Only LFMNet's own can be imported here.",
        )
    wrapped = weights is not content
    args = content.get("args") if wrapped else None
    return state, {
        "epoch": _plain(content.get("epoch")) if wrapped else None,
        "loss": _plain(content.get("loss")) if wrapped else None,
        "dataset_path": _plain(content.get("dataset_path")) if wrapped else None,
        "args": {k: _plain(v) for k, v in vars(args).items()} if isinstance(args, argparse.Namespace) else {},
    }


def _network(path: Path, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return what the shapes tell about the network."""
    first = state.get(_FIRST.format(0))
    if first is None or first.ndim != 5:
        raise RequestError(
            f"{path} has no 4-D convolution of LFMNet ('{_FIRST.format(0)}', five dimensions).",
            "It comes from another version of the network, which is not known here.",
        )
    shallow = not any(name.startswith("Unet.down3.") for name in state)
    up = state.get(f"Unet.{'up3' if shallow else 'up1'}.up.weight")
    return {
        "n_depths": first.shape[0],
        "fov": first.shape[3],
        "shallow": shallow,
        # without a skip the transposed convolution makes all the channels itself
        "skip": up is not None and up.ndim == 4 and up.shape[0] == up.shape[1],
        "bias": "lensletConvolution.0.bias" in state,
    }


def _contradictions(network: Mapping[str, Any], args: Mapping[str, Any]) -> list[str]:
    """Say where the settings saved beside the weights are not those of the weights."""
    names = {"fovInput": "fov", "useShallowUnet": "shallow", "useSkipCon": "skip", "useBias": "bias"}
    return [
        f"The file's setting {theirs} = {args[theirs]} is not that of its weights, {network[ours]}."
        for theirs, ours in names.items()
        if theirs in args and args[theirs] != network[ours]
    ]


def _variant(path: Path, shallow: bool, down: Down | None, act: Act | None) -> dict[str, str]:
    if down not in (None, "maxpool", "stride") or act not in (None, "leaky", "relu"):
        raise RequestError(
            f"There is no variant {down} and {act}.", "down is maxpool or stride, act is leaky or relu."
        )
    if not shallow:  # has always been the same
        return {"down": down or "stride", "act": act or "relu"}
    if down is None and act is None:
        raise RequestError(
            f"Nothing in {path} tells which of two variants its network is, and the wrong one gives wrong"
            f" volumes without a sign: max pooling and LeakyReLU, or, trained with the authors' code from"
            f" before {_CHANGED}, stride 2 and ReLU.{_dated(path)}",
            "Say down = maxpool or down = stride.",
        )
    for their_down, their_act in _VARIANTS:
        if down == their_down or (down is None and act == their_act):
            return {"down": their_down, "act": act or their_act}
    raise AssertionError("both were checked")


def _dated(path: Path) -> str:
    """Say what the name of the folder tells: the authors' training dates it, e.g. 2020_03_26__14:31:55."""
    found = re.search(r"(20\d\d)_(\d\d)_(\d\d)__", path.resolve().parent.name)
    if not found:
        return ""
    day = "-".join(found.groups())
    guess = "stride" if day < _CHANGED else "maxpool"
    return f" Its folder's name is dated {day}, which speaks for {guess}."


def _joined(
    path: Path, state: Mapping[str, torch.Tensor], network: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the weights with the 4-D convolution's slabs made into the one kernel that `LFMNet` has."""
    names = [_FIRST.format(i) for i in range(3)]
    wanted = (network["n_depths"], 1, 3, network["fov"], network["fov"])
    for name in names:
        if name not in state:
            raise RequestError(f"{path} lacks the weights '{name}' of LFMNet.", _AGAIN)
        if state[name].shape != wanted:
            raise RequestError(
                f"The weights '{name}' in {path} are {_size(state[name].shape)}, but LFMNet with {wanted[0]}"
                f" depths and a field of {wanted[-1]} lenslets has {_size(wanted)} there.",
                "The file is of another network, or was changed.",
            )
    out = {name: value for name, value in state.items() if name not in names}
    out[_JOINED] = join_slabs([state[name] for name in names])
    return out


def _fitted(path: Path, state: dict[str, torch.Tensor], network: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights, checked one by one against the network they should be of."""
    try:
        with torch.device("meta"):
            wanted = LFMNet(**network).state_dict()
    except (ValueError, RuntimeError) as error:
        raise RequestError(f"{path} is no LFMNet ({error}).", "Choose another file.") from None
    kind = f"LFMNet ({'shallow' if network['shallow'] else 'full'}, {network['n_depths']} depths)"
    for name, tensor in wanted.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):  # counts for training only
                state[name] = torch.zeros((), dtype=torch.int64)
                continue
            raise RequestError(f"{path} lacks the weights '{name}' of {kind}.", _AGAIN)
        found = state[name]
        if found.shape != tensor.shape:
            raise RequestError(
                f"The weights '{name}' in {path} are {_size(found.shape)}, but {kind} has"
                f" {_size(tensor.shape)} there.",
                "The file is of another network, or was changed.",
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise RequestError(
                f"The weights '{name}' in {path} are not all finite numbers: that training failed.",
                "Take the checkpoint of an earlier epoch.",
            )
    unknown = sorted(set(state) - set(wanted))
    if unknown:
        raise RequestError(
            f"{path} holds weights that {kind} does not have, '{unknown[0]}' among them.",
            "It comes from another version of the network, which is not known here.",
        )
    return {name: state[name] for name in wanted}


def _plain(value: object) -> Any:
    """Return a value as JSON has it; what it has not, in words."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, float | int):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value)[:200]


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
