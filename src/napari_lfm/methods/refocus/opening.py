"""From an image and a model to something that can be refocused: pixels checked, resampled where needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.devices import pick_device
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import domain_of
from napari_lfm.methods.refocus.engine import Refocuser
from napari_lfm.networks import registry
from napari_lfm.networks.refocus_explain import ROUNDS
from napari_lfm.networks.refocus_fit import SAME_PIXEL, check_refocus_card

if TYPE_CHECKING:
    from torch import nn

    from napari_lfm.methods.refocus.card import RefocusDomain
    from napari_lfm.networks.registry import ModelEntry
    from napari_lfm.networks.stack_scale import StackLevels
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.training.config import Precision


@dataclass(frozen=True)
class OpenedImage:
    """An image that can be refocused, and what had to be done to it.

    Attributes
    ----------
    refocuser : Refocuser
    pixel_um : float
        Of the result. The first pixel lies where the image's does.
    factor : float
        Pixels of the result per pixel of the image; 1: not resampled.
    notes : tuple of str
        What a user should be told.
    """

    refocuser: Refocuser
    pixel_um: float
    factor: float
    notes: tuple[str, ...] = ()


def open_refocuser(
    image: np.ndarray,
    pixel_um: float,
    entry: ModelEntry,
    microscope: Microscope | None = None,
    device: str = "auto",
    levels: StackLevels | None = None,
    network: nn.Module | None = None,
    precision: Precision = "auto",
    rounds: int = ROUNDS,
) -> OpenedImage:
    """Return an image, ready to be refocused by a model.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        Any grey values.
    pixel_um : float
        In the sample. Further than `SAME_PIXEL` from the model's: resampled to that.
    entry : ModelEntry
    microscope : Microscope, optional
        The one that recorded it; default: the card's.
    device : str
    levels : StackLevels, optional
        Grey values that become 0 and 1: a movie keeps the first frame's.
    network : Module, optional
        The model's, where it is open already.
    precision, rounds
        See `Refocuser`.

    Raises
    ------
    RequestError
        If this is no flat image, it has no size, no contrast, or the model does not fit.
    """
    checked_image(image)
    if not (np.isfinite(pixel_um) and pixel_um > 0):
        raise RequestError(f"A pixel of {pixel_um:g} um is none.", "Give the pixel size in micrometres.")
    if entry.problem:
        raise RequestError(f"The model '{entry.card.id}' cannot be used: {entry.problem}")
    fit = check_refocus_card(entry.card, pixel_um, microscope)
    if fit.verdict == "refused":
        raise RequestError(
            f"The model '{entry.card.id}' does not fit. {' '.join(fit.reasons)}",
            "Choose another model, correct the pixel size, or train a model on this microscope.",
        )
    domain = seen_by(domain_of(entry.card), microscope)
    factor, notes = resampling(pixel_um, domain.pixel_um)
    if factor != 1:
        image = resampled(image, factor)
        pixel_um = domain.pixel_um
    if network is None:
        network = registry.open_network(entry, pick_device(device))
    kind: type[Refocuser] = Refocuser
    if entry.card.architecture == "refocus-paper":
        from napari_lfm.methods.refocus.published import PublishedRefocuser

        kind = PublishedRefocuser
    return OpenedImage(
        kind(network, domain, image, pixel_um, levels, precision=precision, rounds=rounds),
        pixel_um,
        factor,
        notes,
    )


def checked_image(image: np.ndarray) -> None:
    """Refuse what is no flat image of several pixels with numbers in them.

    Raises
    ------
    RequestError
    """
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        raise RequestError("This is a colour image.", "Choose one of its colours as a grey image.")
    if image.ndim != 2 or min(image.shape) < 2:
        raise RequestError(
            f"An image of {' x '.join(map(str, image.shape))} pixels cannot be refocused.",
            "Give one plane (y, x) of several pixels.",
        )
    if image.dtype.kind not in "biuf":
        raise RequestError(f"Pixels of type {image.dtype} are no grey values.", "Give real numbers.")
    if image.dtype.kind == "f":
        bad = image.size - int(np.count_nonzero(np.isfinite(image)))
        if bad:
            raise RequestError(
                f"{bad} of {image.size} pixels are NaN or infinite.",
                "Replace them by their neighbours' values, or crop the image.",
            )
    if image.min() == image.max():
        raise RequestError(
            f"The image is constant: every pixel has the value {float(image.flat[0]):g}.",
            "Leave it out, or check the file.",
        )


def seen_by(domain: RefocusDomain, microscope: Microscope | None) -> RefocusDomain:
    """Return what a model was trained for, with the optics of the microscope that is used."""
    if microscope is None:
        return domain
    optics = replace(
        domain.optics,
        na=microscope.objective.na,
        immersion_index=microscope.objective.immersion_index,
        wavelength_um=microscope.wavelength_um,
        sample_index=microscope.sample_index,
    )
    return replace(domain, optics=optics)


def resampling(pixel_um: float, model_um: float) -> tuple[float, tuple[str, ...]]:
    """Return new pixels per pixel, and what to say about it."""
    ratio = pixel_um / model_um
    if abs(ratio - 1) <= SAME_PIXEL:
        return 1.0, ()
    return ratio, (
        f"The image is resampled from pixels of {pixel_um:.4g} um to the model's of {model_um:g} um",
    )


def resampled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return rows and columns of what `resampled` gives."""
    if factor == 1:
        return shape
    return int((shape[0] - 1) * factor + 1e-6) + 1, int((shape[1] - 1) * factor + 1e-6) + 1


def resampled(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image with other pixels; the first one stays where it is.

    Cubic convolution (Keys, IEEE Trans. Acoust. 29, 1153 (1981)), as wide as the larger pixels.
    """
    down, across = (
        _cubic_weights(n, m, factor)
        for n, m in zip(image.shape, resampled_shape(image.shape, factor), strict=True)
    )
    return np.asarray(down @ image.astype(np.float32) @ across.T, np.float32)


def _cubic_weights(old: int, new: int, factor: float) -> np.ndarray:
    wide = max(1.0, 1 / factor)
    away = np.abs(np.arange(new)[:, None] / factor - np.arange(old)) / wide
    weights = np.where(
        away < 1, 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    )
    weights[away >= 2] = 0
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
