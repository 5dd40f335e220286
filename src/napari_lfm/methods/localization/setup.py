"""From a request to what finds its points: the trained network, the dictionary, or the sparse fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_lfm.core.devices import pick_device
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.methods.localization.csc import EpipolarCsc
from napari_lfm.methods.localization.dictionary import BALL_UM, epipolar_dictionary
from napari_lfm.methods.localization.finders import CistaFinder, CscFinder
from napari_lfm.methods.localization.joint import JointLocalizer, JointSigma
from napari_lfm.methods.localization.phase_space import PhaseSpace
from napari_lfm.methods.localization.points import Localizer, PointOptions, Sigma, typical_body_um
from napari_lfm.methods.localization.templates import make_templates
from napari_lfm.methods.localize import default_threshold

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.localize import LocalizeParameters
    from napari_lfm.networks.registry import ModelEntry
    from napari_lfm.optics.microscope import Microscope

T = TypeVar("T")
BIN_UM = 1.0
WHAT_VIEWS_SHOW = "Computing what every view shows of a cell body"
_ONE_NEURON = 0.55
"""Points nearer than this share of a cell body are one neuron."""
CSC_SIGMA = Sigma(0.8, 0.5, 0.5)


def told(steps: Generator[tuple[int, int], None, T], message: str) -> Generator[Progress, None, T]:
    """Go through steps, yielding each as progress; returns what they return."""
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield Progress(done, total, message)


def depth_bins(request: Request, entry: ModelEntry | None) -> np.ndarray:
    """Return the depths that are told apart, in um: the model's, or those that the optics resolve well.

    Without a model the range is half of that in which points are resolved to within a lenslet.

    Raises
    ------
    RequestError
        If the range is empty, or goes beyond the model's.
    """
    p: LocalizeParameters = request.parameters  # type: ignore[assignment]
    assert request.microscope is not None
    if entry is not None:
        low, high = min(entry.card.z_um), max(entry.card.z_um)
    else:
        reach = max(1, round(0.5 * request.microscope.depth_range_um))
        low, high = -float(reach), float(reach)
    wanted = (low if p.z_min_um is None else p.z_min_um, high if p.z_max_um is None else p.z_max_um)
    if wanted[1] <= wanted[0]:
        raise RequestError(
            f"The depth range {wanted[0]:g} to {wanted[1]:g} um is empty.", "Give the lower end first."
        )
    if entry is None and wanted[1] < wanted[0] + BIN_UM:
        raise RequestError(
            f"The depth range {wanted[0]:g} to {wanted[1]:g} um is less than a step of {BIN_UM:g} um.",
            "Give a wider one.",
        )
    if entry is not None:
        if wanted[0] < low - 1e-6 or wanted[1] > high + 1e-6:
            raise RequestError(
                f"The model '{entry.card.id}' was trained for depths of {low:g} to {high:g} um; "
                f"{wanted[0]:g} to {wanted[1]:g} um go beyond.",
                "Stay within its range, leave the range out, or choose another algorithm.",
            )
        return np.asarray(sorted(entry.card.z_um), float)
    return np.arange(wanted[0], wanted[1] + 1e-6, BIN_UM)


def body_um(parameters: LocalizeParameters, entry: ModelEntry | None) -> float:
    """Return the diameter of a typical cell body: as asked for, of those that the model knows, or 11."""
    if parameters.diameter_um is not None:
        return parameters.diameter_um
    wish = entry.card.training.get("wish", {}) if entry is not None else {}
    small, large = wish.get("diameter_min_um"), wish.get("diameter_max_um")
    return typical_body_um(small, large) if small and large else BALL_UM


def options_of(parameters: LocalizeParameters, entry: ModelEntry | None) -> PointOptions:
    """Return how points are looked for."""
    threshold, body = parameters.threshold, body_um(parameters, entry)
    if threshold is None:
        threshold = default_threshold(parameters.algorithm, parameters.fit)
    return PointOptions(
        purify=parameters.background,
        seeds=parameters.seeds,
        seed_threshold=parameters.seed_threshold,
        confidence=threshold,
        merge_um=round(_ONE_NEURON * body, 1) if parameters.merge_um is None else parameters.merge_um,
        diameter_um=body,
    )


def make_localizer(
    request: Request, microscope: Microscope, n_pixels: int, entry: ModelEntry | None
) -> Generator[Progress, None, Localizer]:
    """Return what finds points by epipolar images; yields the stages of building it."""
    p: LocalizeParameters = request.parameters  # type: ignore[assignment]
    bins = depth_bins(request, entry)
    cell = microscope.lenslet_um
    assert cell is not None
    slope = slope_at_depth(1.0, microscope, None, n_pixels)
    device = pick_device(request.device)
    if entry is not None:
        from napari_lfm.networks.registry import open_network

        yield Progress(0, 1, f"Opening the model '{entry.card.id}'")
        network: Any = open_network(entry, device)
        scalers = entry.card.scalers
        names = {"sigma_floor_um": "floor_um", "sigma_share": "share", "sigma_fade": "fade"}
        sigma = Sigma(**{field: float(scalers[name]) for name, field in names.items() if name in scalers})
        yield Progress(1, 1, f"Opening the model '{entry.card.id}'")
        return Localizer(CistaFinder(network, bins), slope, cell, options_of(p, entry), sigma)
    half = epipolar_half(microscope, n_pixels, bins)
    steps = epipolar_dictionary(microscope, n_pixels, bins.tolist(), half, body_um(p, None))
    atoms = yield from told(steps, "Computing the dictionary of epipolar images")
    finder = CscFinder(EpipolarCsc(atoms, device=device), bins)
    return Localizer(finder, slope, cell, options_of(p, None), CSC_SIGMA)


def make_joint(
    localizer: Localizer, microscope: Microscope, n_pixels: int, entry: ModelEntry | None
) -> Generator[Progress, None, JointLocalizer]:
    """Return what fits the points of a localizer together; yields the stages of building it."""
    bins = localizer.finder.z_um
    steps = make_templates(microscope, n_pixels, (bins[0], bins[-1]), localizer.options.diameter_um)
    templates = yield from told(steps, WHAT_VIEWS_SHOW)
    scalers = {} if entry is None else entry.card.scalers
    names = {"joint_floor_um": "floor_um", "joint_share": "share", "joint_optics": "optics"}
    sigma = JointSigma(**{field: float(scalers[name]) for name, field in names.items() if name in scalers})
    return JointLocalizer(localizer, templates, sigma)


def epipolar_half(microscope: Microscope, n_pixels: int, bins: np.ndarray) -> int:
    """Return how many lenslets on either side of a source its line reaches, and a little more."""
    steepest = abs(slope_at_depth(float(np.abs(bins).max()), microscope, None, n_pixels))
    return int(np.ceil(steepest * (n_pixels - 1) / 2)) + 3


def make_phase_space(
    request: Request, microscope: Microscope, n_pixels: int, cells: tuple[int, int]
) -> Generator[Progress, None, PhaseSpace]:
    """Return the sparse fit of whole light fields; yields the stages of building it."""
    bins = depth_bins(request, None)
    fit = PhaseSpace(microscope, n_pixels, cells, bins.tolist(), device=pick_device(request.device))
    for done, total in fit.build_steps():
        yield Progress(done, total, "Computing the optics")
    return fit
