"""Weights on the disk: safetensors only, with the fingerprint that the card holds.

Nothing in such a file can run: it is a table of names, shapes and numbers. Pickles are refused unopened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.networks.card import CARD_FILE, WEIGHTS_FILE, ModelCard, card_bytes, is_pickle_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

LARGEST_WEIGHTS_BYTES = 4 << 30

_LARGEST_HEADER_BYTES = 100 << 20
_LARGEST_HALF = 65504.0
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_AGAIN = "Get the model again."


def save_model(
    folder: str | Path, card: ModelCard, state_dict: Mapping[str, torch.Tensor], half: bool = True
) -> ModelCard:
    """Write weights and card into a model folder; what was there stays if anything fails.

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist; other files in it are left alone.
    card : ModelCard
        Its `sha256` is filled in.
    state_dict : mapping of str to Tensor
    half : bool
        Store float16 what has two or more dimensions and fits; biases, running means and integers stay
        as they are, since they take no room.

    Returns
    -------
    ModelCard
        The card as it was written.

    Raises
    ------
    LfmError
        If the weights are not finite (nothing is written), or the disk is full.
    """
    from safetensors.torch import save

    tensors = {name: _stored(name, tensor, half) for name, tensor in state_dict.items()}
    content = save(tensors, {"format": "pt"})
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    write_model(Path(folder), card, content)
    return card


def write_model(folder: Path, card: ModelCard, weights: bytes) -> None:
    """Write both files of a model; both are on the disk before either replaces an old one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The folder {folder} cannot be made ({error.strerror}).", "Choose another place."
        ) from None
    text = card_bytes(card)
    with (
        replacing_file(folder / CARD_FILE, len(weights)) as card_file,
        replacing_file(folder / WEIGHTS_FILE, len(weights)) as weights_file,
    ):
        card_file.write(text)
        card_file.flush()
        os.fsync(card_file.fileno())
        weights_file.write(weights)


def load_weights(folder: str | Path, card: ModelCard) -> dict[str, torch.Tensor]:
    """Return the weights of a model folder, floating-point ones as float32, on the CPU.

    Raises
    ------
    RequestError
        If the file is missing, incomplete, of another kind, not the one of the card, or holds values that
        are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(folder) / WEIGHTS_FILE
    content = read_checked(path, card.sha256)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RequestError(f"{path} cannot be read as safetensors ({_first_line(error)}).", _AGAIN) from None
    out = {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()}
    for name, tensor in out.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RequestError(f"The weights '{name}' in {path} are not all finite numbers.", _AGAIN)
    return out


def read_checked(path: Path, sha256: str) -> bytes:
    """Return the bytes of a weights file that is whole and has the fingerprint `sha256`.

    Raises
    ------
    RequestError
    """
    problem = weights_problem(path)
    if problem:
        raise RequestError(problem, _AGAIN)
    if not sha256:
        raise RequestError(f"The card beside {path} does not hold the sha256 of its weights.", _AGAIN)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}).", "Check its permissions.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise RequestError(
            f"{path} is not the file of its card: their sha256 are {found[:12]} and {sha256[:12]}.",
            _AGAIN,
        )
    return content


def weights_problem(path: Path) -> str:
    """Return what is wrong with a weights file as far as its head tells, else nothing; no torch needed."""
    try:
        if not path.is_file():
            pickles = sorted(p.name for p in path.parent.iterdir() if is_pickle_name(p.name))
            if pickles:
                return f"{path} is missing, and '{pickles[0]}' beside it is a pickle, which is never opened."
            return f"{path} is missing."
        size = path.stat().st_size
        if size > LARGEST_WEIGHTS_BYTES:
            return f"{path} is larger than {LARGEST_WEIGHTS_BYTES >> 30} GiB."
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(_PICKLE_STARTS):
                return f"{path} is a pickle, not safetensors; it might run code and is not opened."
            length = int.from_bytes(start, "little")
            if size < 8:
                return f"{path} is incomplete."
            if length > _LARGEST_HEADER_BYTES:
                return f"{path} is not a safetensors file."
            if length + 8 > size:
                return f"{path} is incomplete, or not a safetensors file."
            header = file.read(length)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})."
    try:
        ends = [_end(entry) for name, entry in json.loads(header).items() if name != "__metadata__"]
    except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError):
        return f"{path} is not a safetensors file."
    needed = 8 + length + max(ends, default=0)
    if size < needed:
        return f"{path} is incomplete: {size} of {needed} bytes are there."
    if size > needed:
        return f"{path} is not a safetensors file: something follows its last number."
    return ""


def _end(entry: Any) -> int:
    begin, end = entry["data_offsets"]
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end):
        raise ValueError("offsets")
    return end


def _stored(name: str, tensor: torch.Tensor, half: bool) -> torch.Tensor:
    import torch

    # a copy: two names may share one memory, which safetensors refuses
    tensor = tensor.detach().to("cpu", copy=True).contiguous()
    if not tensor.is_floating_point():
        return tensor
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if not math.isfinite(largest):
        raise LfmError(
            f"The model was not saved: its weights '{name}' are not finite numbers.",
            "Train again from an earlier state, with a lower learning rate.",
        )
    if half and tensor.ndim >= 2 and largest <= _LARGEST_HALF:
        return tensor.to(torch.float16)
    return tensor


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
