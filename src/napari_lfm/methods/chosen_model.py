"""Which trained model a request means, whether it fits, and what its card says about planes and voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.networks import registry
from napari_lfm.networks.fit import check_card
from napari_lfm.optics.microscope import Microscope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from napari_lfm.methods.base import Request
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.registry import ModelEntry

_TOLERANCE = 0.01
"""Part of a plane distance that depths may be off and still be the same."""

_PITCH_TOLERANCE = 0.1
"""Part of the pitch that a recording may be off and still be a model's."""


@dataclass(frozen=True)
class Planes:
    """Depths of a result, as a linear mixture of a network's.

    Attributes
    ----------
    z_um : ndarray, shape (planes,)
    lower, upper : ndarray of int, shape (planes,)
        Network planes below and above each depth; the same where it is one of them.
    share : ndarray, shape (planes,)
        Part of the upper one.
    """

    z_um: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray

    @property
    def resampled(self) -> bool:
        """Whether any depth lies between two planes of the network."""
        return bool((self.share > 0).any())


def choose_model(request: Request, method: str) -> ModelEntry:
    """Return the model that a request names, or else the one that fits its microscope best.

    Raises
    ------
    RequestError
        If there is no such model, its folder is broken, or none fits.
    """
    if request.model:
        entry = registry.find_model(request.model, method)
        if entry.problem:
            raise RequestError(f"The model '{request.model}' cannot be used: {entry.problem}")
        return entry
    if request.microscope is None:
        entries = [e for e in registry.list_models(method) if not e.problem]
        names = ", ".join(e.card.id for e in entries)
        raise RequestError(
            "Neither a microscope nor a model is chosen.",
            f"Choose your microscope, or a model: {names}." if names else "Choose your microscope.",
        )
    found = registry.best_model(method, request.microscope, _pixels_of_layout(request))
    if found is None:
        raise RequestError(
            f"There is no {method} model for the microscope '{request.microscope.name}'.",
            f"Train one with 'napari-lfm train {method}', or import one; 'napari-lfm models' lists them.",
        )
    return found


def with_microscope(request: Request, entry: ModelEntry) -> Request:
    """Return the request with its model's microscope where it has none.

    Raises
    ------
    RequestError
        If neither knows a microscope.
    """
    if request.microscope is not None:
        return request
    if entry.card.microscope is None:
        raise RequestError(
            f"The card of '{entry.card.id}' does not say which microscope it is for.", "Choose yours."
        )
    return replace(request, microscope=Microscope.model_validate(entry.card.microscope))


def complete(request: Request, method: str) -> tuple[Request, list[Problem]]:
    """Return the request with the microscope and the model that it leaves out, and what is to say about it.

    Without both, the lenslets' pitch tells: it is measured, and the model with the nearest one is taken,
    if it is near enough.
    A request that stays incomplete is returned as it is; `choose_model` explains it.
    """
    if request.microscope is not None:
        return request, []
    try:
        if not request.model:
            request = _by_pitch(request, method)
        entry = choose_model(request, method)
        request = with_microscope(request, entry)
    except RequestError:
        return request, []
    assert request.microscope is not None
    note = f"The microscope is taken to be '{request.microscope.name}', as '{entry.card.id}' is for it."
    return replace(request, model=request.model or entry.card.id), [
        Problem(note, severity="info", field="microscope")
    ]


def _by_pitch(request: Request, method: str) -> Request:
    """Return the request with the model whose microscope has the recording's pitch, if there is one."""
    from napari_lfm.lightfield.calibrate import calibrate

    entries = [e for e in registry.list_models(method) if not e.problem and e.card.microscope]
    if not entries:
        return request
    wanted, lattice = float(_pixels_of_layout(request) or 0), request.lattice
    if not wanted:
        image = request.inputs["image"]
        if lattice is None:
            frame = image.isel(t=0) if image.dims[0] == "t" else image
            lattice = calibrate(
                raw=frame, white=request.inputs.get("white"), dark=request.inputs.get("dark"), microscope=None
            )
        wanted = float(np.mean(lattice.pitch_px))
    off = [
        abs(wanted / (Microscope.model_validate(e.card.microscope).nominal_pitch_px or np.inf) - 1)
        for e in entries
    ]
    best = int(np.argmin(off))
    if off[best] > _PITCH_TOLERANCE:
        return request
    return replace(request, model=entries[best].card.id, lattice=lattice)


def check_fit(card: ModelCard, request: Request, n_pixels: int) -> list[Problem]:
    """Return whether a model suits the optics and the N pixels per lenslet of a recording."""
    assert request.microscope is not None
    fit = check_card(card, request.microscope, n_pixels)
    reasons = " ".join(fit.reasons)
    if fit.verdict == "refused":
        remedy = "Choose another model, or train one for this microscope."
        return [
            Problem(f"The model '{card.id}' does not fit this recording. {reasons}", remedy, field="model")
        ]
    if fit.verdict == "resample":
        resampled = card.n_pixels not in (None, n_pixels)
        remedy = "The light field is resampled for it; the volume lies where the recording does."
        if not resampled:
            remedy = "The volume's planes are put where this microscope has them."
        return [Problem(f"The model '{card.id}' fits roughly. {reasons}", remedy, "warning", "model")]
    # it may be that nothing could be checked
    return [Problem(reasons, severity="info", field="model")] if reasons else []


def depth_scale(card: ModelCard, microscope: Microscope | None) -> float:
    """Return by what the depths of a card are multiplied in a microscope that its model fits roughly."""
    return 1.0 if microscope is None else check_card(card, microscope).z_scale


def planes_of_card(
    card: ModelCard,
    z_min_um: float | None,
    z_max_um: float | None,
    z_step_um: float | None,
    z_scale: float = 1.0,
) -> Planes:
    """Return the depths that are asked for, out of those that the model was trained for.

    Parameters
    ----------
    card : ModelCard
    z_min_um, z_max_um : float, optional
        Range; default the model's.
    z_step_um : float, optional
        Distance between planes; default: the model's own planes within the range.
    z_scale : float
        What the card's depths are in this microscope, see `depth_scale`.

    Raises
    ------
    RequestError
        If the range leaves the trained one, is reversed, or holds no plane.
    """
    order = np.argsort(card.z_um)
    known = z_scale * np.asarray(card.z_um, float)[order]
    low = float(known[0]) if z_min_um is None else z_min_um
    high = float(known[-1]) if z_max_um is None else z_max_um
    spacing = float(np.median(np.diff(known))) if len(known) > 1 else 1.0
    slack = _TOLERANCE * spacing
    trained = f"{known[0]:.4g} to {known[-1]:.4g} um"
    if high < low - slack:
        raise RequestError(f"z_max_um = {high:g} lies below z_min_um = {low:g}.", "Swap them.")
    if low < known[0] - slack or high > known[-1] + slack:
        raise RequestError(
            f"The model '{card.id}' was trained for depths of {trained}; {low:g} to {high:g} um go beyond.",
            "Stay within its range, leave the range out, or choose another model.",
        )
    even = len(known) < 2 or bool(np.abs(np.diff(known) - spacing).max() < _TOLERANCE * spacing)
    if z_step_um is None and even:
        depths: np.ndarray = known[(known >= low - slack) & (known <= high + slack)]
        if not len(depths):
            raise RequestError(
                f"No plane of the model '{card.id}' lies between {low:g} and {high:g} um.",
                f"Its planes are {spacing:g} um apart; widen the range or set z_step_um.",
            )
    else:
        step = spacing if z_step_um is None else z_step_um
        depths = low + step * np.arange(int(np.floor((high - low) / step + 1e-6)) + 1)
    position: np.ndarray = np.interp(depths, known, np.arange(len(known)))
    near = np.rint(position)
    position[:] = np.where(np.abs(position - near) < _TOLERANCE, near, position)
    lower = np.floor(position).astype(int)
    upper = np.ceil(position).astype(int)
    return Planes(depths, order[lower], order[upper], position - lower)


def describe_model(entry: ModelEntry) -> dict[str, Any]:
    """Return what provenance keeps of a model; with its folder where the id alone would not find it."""
    card = entry.card
    out = {
        "id": card.id,
        "version": card.version,
        "sha256": card.sha256,
        "architecture": card.architecture,
        "microscope": card.microscope,
        "n_pixels": card.n_pixels,
        "source": entry.source,
    }
    if not _is_listed(entry):
        out["folder"] = str(entry.folder)
    return out


def changed_model(record: dict[str, Any], entry: ModelEntry) -> list[Problem]:
    """Return an error where a model is not the one that a result was made with."""
    card, before = entry.card, str(record.get("sha256", ""))
    if not before or before == card.sha256:
        return []
    versions = f"version {record.get('version', '?')} then, {card.version} now; "
    return [
        Problem(
            f"The weights of '{card.id}' are not those that the result was made with ({versions}"
            f"sha256 {before[:12]} then, {card.sha256[:12]} now).",
            f"Bring the old ones back, or name the model with --model {card.id} to use the new ones.",
            field="model",
        )
    ]


def skeleton(card: ModelCard) -> nn.Module:
    """Return the network without memory for its weights: to ask it for its sizes and costs."""
    return _skeleton(card.model_dump_json(), card.sha256)


def sized(network: Any, n_pixels: int) -> Any:
    """Tell a network that takes any number of pixels per lenslet which one it is."""
    if network.n_pixels is None:
        network.n_pixels = n_pixels
    return network


@lru_cache(maxsize=8)
def _skeleton(text: str, _: str) -> nn.Module:
    import torch

    from napari_lfm.networks.card import ModelCard

    # built with numbers and then let go of them: on torch's meta device building takes seconds
    with torch.random.fork_rng(devices=[]):
        return registry.build_network(ModelCard.model_validate_json(text)).to("meta").eval()


def _is_listed(entry: ModelEntry) -> bool:
    listed: Sequence[ModelEntry] = registry.list_models(entry.card.method)
    return any(e.card.id == entry.card.id and e.folder == entry.folder for e in listed if not e.problem)


def _pixels_of_layout(request: Request) -> int | None:
    image = request.inputs.get("image")
    if image is not None and "v" in image.dims:
        return int(image.sizes["v"])
    kind, _, count = request.layout.partition(":")
    return int(count) if kind == "lenslet" and count.isdigit() else None
