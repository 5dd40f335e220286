"""Checkpoints: one safetensors file each, its state as JSON in the header, replaced atomically.

One file, because two cannot be replaced at once. Never a pickle: nothing in a checkpoint can be executed.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.training.config import MAY_CHANGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

LAST, BEST = "last.safetensors", "best.safetensors"
FORMAT = "napari-lfm training 1"
_KEY = "state"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file appears, or replaces the old one, only when it is whole.

    Tensors are written one after the other, so that no second copy of the model is in memory.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to Tensor
        Of any device and layout.
    state : mapping
        JSON-ready.

    Raises
    ------
    LfmError
        If the disk is full or the place is not writable; the old file is unchanged.
    """
    # wide types first: each tensor then starts at a multiple of its own width
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    text = json.dumps(plain({"format": FORMAT, **state}), allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {_KEY: text}}
    end = 0
    for key in order:
        start, end = end, end + tensors[key].numel() * tensors[key].element_size()
        header[key] = {
            "dtype": _NAMES[tensors[key].dtype],
            "shape": list(tensors[key].shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with replacing_file(path, needed_bytes=end + len(head) + 8) as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for key in order:
            flat = tensors[key].detach().to("cpu").contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint without reading its tensors.

    Raises
    ------
    RequestError
        If the file is missing, truncated, or not a checkpoint of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = json.loads(metadata.get(_KEY, "null"))
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RequestError(
            f"{path} is not a checkpoint of a training run of this version.",
            "Choose the folder of such a run, or an empty one.",
        )
    return state


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return tensors (on the CPU) and state of a checkpoint; raises as `read_state`."""
    state = read_state(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, state
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def load_module_weights(path: Path, module: str) -> dict[str, torch.Tensor]:
    """Return the state dict of one module, e.g. ``"network"`` out of ``best.safetensors``.

    Raises
    ------
    RequestError
        If the file cannot be read or holds no such module.
    """
    tensors, _ = load(path)
    found = within(tensors, f"modules.{module}.")
    if not found:
        raise RequestError(f"{path} holds no weights named '{module}'.")
    return found


def within(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose name starts with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def refuse_other_run(
    path: Path, state: Mapping[str, Any], config: Mapping[str, Any], task: Mapping[str, Any]
) -> None:
    """Refuse to go on from the checkpoint of another run, naming what differs.

    Raises
    ------
    RequestError
    """
    before = {k: v for k, v in state["config"].items() if k not in MAY_CHANGE}
    now = {k: v for k, v in config.items() if k not in MAY_CHANGE}
    found = [*_differences(before, now), *_differences(state["task"], plain(task))]
    if found:
        more = f", and {len(found) - 4} more" if len(found) > 4 else ""
        raise RequestError(
            f"{path} belongs to another training run: {', '.join(found[:4])}{more}.",
            "Use the same settings, or train into an empty folder.",
        )


def refuse_other_shapes(
    path: Path, stored: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    """Refuse tensors whose names or shapes are not those of the present modules.

    Raises
    ------
    RequestError
    """
    for key in [*wanted, *stored]:
        if key not in stored or key not in wanted:
            where = "the checkpoint" if key in stored else "the network"
            raise _other_network(path, f"only {where} has '{key}'")
        if stored[key].shape != wanted[key].shape:
            was, now = tuple(stored[key].shape), tuple(wanted[key].shape)
            raise _other_network(path, f"'{key}' has shape {was} in the checkpoint and {now} now")


def plain(value: Any) -> Any:
    """Return `value` JSON-ready: tuples as lists, numpy scalars as numbers, what is not finite as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys: Iterable[str] = dict.fromkeys([*before, *now])
        for key in keys:
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif before != now:
        yield f"{where} was {_short(before)} and is now {_short(now)}"


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _other_network(path: Path, detail: str) -> RequestError:
    return RequestError(
        f"{path} belongs to another network: {detail}.",
        "Use the same network, or train into an empty folder.",
    )


def _unreadable(path: Path, error: Exception) -> RequestError:
    if isinstance(error, FileNotFoundError):
        return RequestError(f"There is no checkpoint {path}.", "Choose the folder of a training run.")
    return RequestError(
        f"The checkpoint {path} cannot be read: it is truncated or not a safetensors file.",
        "Delete it to start again, or bring back a copy.",
    )
