"""The models on this machine: finding the right one, and opening it. Needs torch only for that.

The list itself is made in `napari_lfm.networks.catalogue`; import, delete and fetch are in
`napari_lfm.networks.store`.
"""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.catalogue import (
    ARCHITECTURES,
    ModelEntry,
    bundled_model_dir,
    find_model,
    list_models,
    locate_model,
    unknown_architecture,
    user_model_dir,
)
from napari_lfm.networks.fit import check_card
from napari_lfm.networks.store import delete_model, fetch_model, import_model
from napari_lfm.networks.weights import load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.optics.microscope import Microscope

__all__ = [
    "ARCHITECTURES",
    "ModelEntry",
    "best_model",
    "build_network",
    "bundled_model_dir",
    "delete_model",
    "fetch_model",
    "find_model",
    "import_model",
    "list_models",
    "locate_model",
    "open_network",
    "user_model_dir",
]


def best_model(method: str, microscope: Microscope, n_pixels: int | None = None) -> ModelEntry | None:
    """Return the installed model that fits best, None where none does.

    What matches goes before what must be resampled, and that before cards that do not tell their optics;
    then those that learned something, the user's before the bundled ones, the better score, the newer
    (`ModelEntry.preference`).

    Parameters
    ----------
    method : str
    microscope : Microscope
    n_pixels : int, optional
        Pixels per lenslet of the recording; default the microscope's.
    """
    ranked: list[tuple[int, ModelEntry]] = []
    for entry in list_models(method):
        if entry.problem or entry.source == "remote":
            continue
        verdict = check_card(entry.card, microscope, n_pixels).verdict
        if verdict != "refused":
            rank = 2 if entry.card.microscope is None else {"matches": 0, "resample": 1}[verdict]
            ranked.append((rank, entry))
    if not ranked:
        return None
    first = min(rank for rank, _ in ranked)
    return max((entry for rank, entry in ranked if rank == first), key=lambda e: e.preference)


def build_network(card: ModelCard) -> nn.Module:
    """Return the network of a card, with fresh weights.

    Raises
    ------
    RequestError
        If the architecture is unknown, or the card's sizes are not ones that it takes.
    """
    if card.architecture not in ARCHITECTURES:
        raise unknown_architecture(card)
    module, _, name = ARCHITECTURES[card.architecture].partition(":")
    kind = getattr(import_module(module), name)
    arguments = inspect.signature(kind).parameters
    known = list(arguments)
    for argument in card.network:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"It takes {', '.join(known)}."
            raise RequestError(
                f"The card of '{card.id}' sets '{argument}', which {card.architecture} does not have.",
                hint,
            )
    lacking = [n for n, a in arguments.items() if a.default is a.empty and n not in card.network]
    if lacking:
        what = ", ".join(map(repr, lacking))
        raise RequestError(
            f"The card of '{card.id}' does not set {what}, which {card.architecture} needs.",
            "Get the model again.",
        )
    try:
        network: nn.Module = kind(**card.network)
    except RequestError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"The network {card.architecture} cannot be built as the card of '{card.id}' says ({reason}).",
            "Get the model again.",
        ) from None
    return network


def open_network(entry: ModelEntry, device: torch.device | str = "cpu") -> nn.Module:
    """Return a model's network with its weights, in evaluation mode, on `device`.

    Raises
    ------
    RequestError
        If the model is broken, or its weights are not those of the network that its card describes.
    """
    if entry.problem:
        raise RequestError(f"The model '{entry.card.id}' cannot be used: {entry.problem}")
    weights = load_weights(entry.folder, entry.card)
    network = build_network(entry.card)
    differences = _differences(network.state_dict(), weights)
    if differences:
        raise RequestError(
            f"The weights of '{entry.card.id}' do not fit the network of its card: {'; '.join(differences)}.",
            "Get the model again.",
        )
    network.load_state_dict(weights)
    return network.to(device).eval()


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    def shape(tensor: Any) -> str:
        return " x ".join(map(str, tensor.shape)) or "a single number"

    def some(names: list[str]) -> str:
        shown = ", ".join(f"'{n}'" for n in names[:3])
        return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    out = []
    missing, extra = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    if missing:
        out.append(f"{some(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if extra:
        out.append(f"{some(extra)} {'is' if len(extra) == 1 else 'are'} unknown")
    other = [n for n in wanted if n in found and wanted[n].shape != found[n].shape]
    out += [f"'{n}' is {shape(found[n])}, not {shape(wanted[n])}" for n in other[:3]]
    if len(other) > 3:
        out.append(f"{len(other) - 3} more have other shapes")
    return out
