"""Where not to trust a refocused image: what its own stack, blurred again, does not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_lfm.core.events import Progress
from napari_lfm.core.noise import estimate_noise
from napari_lfm.methods.refocus.tiles import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.methods.refocus.engine import Refocuser

HIGH_PASS_PX = 8.0
"""Wider structure is left out, as in training: haze from beyond the range is not the stack's."""
_NEIGHBOURHOOD_PX = 6.0
_LEAST_LIGHT = 0.01
"""Part of the brightest below which nothing is worth a doubt."""
_TURNED_PLANES = 10
_TURNS = (np.fliplr, np.transpose)
_NOISE_MARGIN = 1.2
"""Its variance is known, in a neighbourhood, to about a fifth."""


@dataclass(frozen=True)
class Consistency:
    """How far the predicted stack explains the image.

    Attributes
    ----------
    expected : ndarray, float32, shape (y, x)
        The image that the predicted confocal stack would have given, grey values above the dark level.
    residual : ndarray, float32, shape (y, x)
        The image less that, without structure wider than `HIGH_PASS_PX`.
    doubt : ndarray, float32, shape (y, x)
        0: everything is explained but noise; 1: nothing is.
    share : float
        Mean size of the residual over that of the image, high-passed alike, both in neighbourhoods and less
        their noise.
    guessed : ndarray, float32, shape (y, x)
        How far the planes change when the network sees the image mirrored and turned, over their light: 0
        where it is sure, 1 where it guesses.
    """

    expected: np.ndarray
    residual: np.ndarray
    doubt: np.ndarray
    share: float
    guessed: np.ndarray


def consistency(refocuser: Refocuser) -> Iterator[Progress | Consistency]:
    """Predict planes over the whole range, blur them again, and compare with the image.

    Yields a `Progress` for every plane, and the `Consistency` last.

    Parameters
    ----------
    refocuser : Refocuser
    """
    z_um = refocuser.consistency_z_um()
    every = max(1, len(z_um) // _TURNED_PLANES)
    parts = parts_of(refocuser.shape)
    total = len(parts) * (len(z_um) + len(_TURNS) * len(z_um[::every])) + 1
    done = 0
    planes = np.empty((len(z_um), *refocuser.shape), np.float32)
    for region, at, _ in parts:
        for k, z in enumerate(z_um):
            planes[k][at] = refocuser.confocal(float(z), region)
            done += 1
            yield Progress(done, total, f"Plane at {z:+.3g} um for the check")
    expected = refocuser.expected(planes, z_um)
    span = np.float32(refocuser.levels.span)
    image = np.asarray(refocuser.scaled.cpu().numpy(), np.float32) * span
    changed, there = np.zeros(refocuser.shape), np.zeros(refocuser.shape)
    for turn in _TURNS:
        grey = turn(image) + np.float32(refocuser.levels.low)
        other = type(refocuser)(
            refocuser.network,
            refocuser.domain,
            grey.copy(),
            refocuser.pixel_um,
            refocuser.levels,
            refocuser.precision,
            refocuser.rounds,
        )
        change, light = turn(changed), turn(there)  # views: what is added there is added here
        for region, at, _ in parts_of(other.shape):
            for k in range(0, len(z_um), every):
                plane, own = other.confocal(float(z_um[k]), region), turn(planes[k])[at]
                change[at] += (plane - own) ** 2
                light[at] += ((plane + own) / 2) ** 2
                done += 1
                yield Progress(done, total, "Planes of the turned image for the check")
    found = judged(image, expected, changed, there)
    yield Progress(total, total, "Compared with the image")
    yield found


def judged(
    image: np.ndarray,
    expected: np.ndarray,
    changed: np.ndarray | None = None,
    light: np.ndarray | None = None,
) -> Consistency:
    """Return the comparison of an image with what is expected, all (y, x).

    `changed` and `light` are sums of squares over planes: of what turning changes, and of the light.
    """
    seen, rest = _high_passed(image), _high_passed(image - expected)
    noise = estimate_noise(image[None])
    level = gaussian_filter(image, 2.0)
    variance = np.maximum(noise.slope * level + noise.intercept, noise.least)
    # noise is no one's fault: what exceeds it counts, over what there is to explain
    power, left = (gaussian_filter(part**2, _NEIGHBOURHOOD_PX) for part in (seen, rest))
    signal, unexplained = (np.maximum(part - _NOISE_MARGIN * variance, 0) for part in (power, left))
    least = _LEAST_LIGHT * float(np.percentile(np.abs(image), 99.9))
    there = power + variance + least**2
    doubt = np.sqrt(unexplained / np.maximum(there, 1e-12))
    share = float(np.sqrt(unexplained).mean() / max(float(np.sqrt(signal).mean()), 1e-12))
    return Consistency(
        np.asarray(expected, np.float32),
        np.asarray(rest, np.float32),
        np.asarray(np.clip(doubt, 0, 1), np.float32),
        share,
        np.zeros_like(rest) if changed is None or light is None else _guessed(changed, light),
    )


def _guessed(changed: np.ndarray, light: np.ndarray) -> np.ndarray:
    there = gaussian_filter(light, _NEIGHBOURHOOD_PX / 2)
    least = _LEAST_LIGHT**2 * float(np.percentile(light, 99.9)) + 1e-12
    share = gaussian_filter(changed, _NEIGHBOURHOOD_PX / 2) / (there + least)
    return np.asarray(np.clip(np.sqrt(share), 0, 1), np.float32)


def _high_passed(image: np.ndarray) -> np.ndarray:
    return np.asarray(image - gaussian_filter(image, HIGH_PASS_PX, mode="reflect", truncate=2.0))
