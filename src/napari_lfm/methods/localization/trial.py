"""How well points are found in simulated fields: errors of matched pairs, misses, and honest sigmas."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_lfm.core.metrics import pair_points
from napari_lfm.methods.localization.joint import JointSigma
from napari_lfm.methods.localization.points import Sigma

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_lfm.methods.localization.points import Found
    from napari_lfm.simulation.neuron_fields import NeuronField

S = TypeVar("S")
TOLERANCE_UM = 5.0
BORDER_LENSLETS = 1.0
"""Neurons nearer than this to the field's edge are neither asked for nor held against anyone."""
ALONE_LENSLETS = 4.0
"""A neuron is isolated where the next one is further away in the central view."""


@dataclass(frozen=True)
class Trial:
    """What came of some fields.

    Attributes
    ----------
    error_um : ndarray, shape (pairs, 3)
        Found minus true (z, y, x), of matched pairs.
    sigma_um, width_um, height : ndarray, shape (pairs,)
    alone : ndarray of bool, shape (pairs,)
    z_um : ndarray, shape (pairs,)
        Where they are.
    matched, found, truth : int
    seconds : float
        For all fields.
    """

    error_um: np.ndarray
    sigma_um: np.ndarray
    width_um: np.ndarray
    height: np.ndarray
    alone: np.ndarray
    z_um: np.ndarray
    matched: int
    found: int
    truth: int
    seconds: float

    @property
    def rmse_um(self) -> tuple[float, float, float]:
        """Root mean square errors (z, y, x) of the matched pairs; not a number without any."""
        return _rms(self.error_um)

    @property
    def rmse_alone_um(self) -> tuple[float, float, float]:
        """The same of isolated neurons."""
        return _rms(self.error_um[self.alone])

    @property
    def precision(self) -> float:
        """Matched over found."""
        return self.matched / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Matched over true."""
        return self.matched / self.truth if self.truth else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def inside_sigma(self) -> float:
        """Share of depth errors within one sigma."""
        return float((np.abs(self.error_um[:, 0]) <= self.sigma_um).mean()) if len(self.error_um) else 0.0


def try_out(
    find: Callable[[np.ndarray], Found],
    fields: Iterable[NeuronField],
    lenslet_um: float,
    z_um: tuple[float, float],
    tolerance_um: float = TOLERANCE_UM,
) -> Trial:
    """Find the neurons of fields, and compare.

    Parameters
    ----------
    find : callable
        Light field (v, u, t, s) to points.
    fields : iterable of NeuronField
        Recorded.
    lenslet_um : float
    z_um : tuple of float
        Depths within which neurons are asked for.
    tolerance_um : float
        Furthest a point may lie from the neuron that it is taken for.
    """
    errors, rows, alone = [np.zeros((0, 3))], [np.zeros((0, 4))], [np.zeros(0, bool)]
    matched = found_count = truth_count = 0
    seconds = 0.0
    for field in fields:
        begun = time.perf_counter()
        found = find(field.views)
        seconds += time.perf_counter() - begun
        last = field.views.shape[-1] - 1
        neurons = field.neurons
        place = np.stack([neurons[:, 0], neurons[:, 1] * lenslet_um, neurons[:, 2] * lenslet_um], 1)
        ours = np.stack([found.z_um, found.t * lenslet_um, found.s * lenslet_um], 1)
        asked = _within(neurons[:, 1], neurons[:, 2], last)
        asked &= (neurons[:, 0] >= z_um[0]) & (neurons[:, 0] <= z_um[1])
        a, b = pair_points(ours, place, tolerance_um)
        counts = asked[b]
        # what was found of a neuron that is not asked for is no mistake, nor is what lies at the border
        taken = np.zeros(len(ours), bool)
        taken[a] = True
        wrong = ~taken & _within(found.t, found.s, last)
        matched += int(counts.sum())
        found_count += int(counts.sum() + wrong.sum())
        truth_count += int(asked.sum())
        a, b = a[counts], b[counts]
        errors.append(ours[a] - place[b])
        rows.append(np.stack([found.sigma_z_um[a], found.width_um[a], found.confidence[a], place[b, 0]], 1))
        away = np.hypot(
            neurons[:, 1][:, None] - neurons[:, 1], neurons[:, 2][:, None] - neurons[:, 2]
        ) + np.where(np.eye(len(neurons), dtype=bool), np.inf, 0)
        alone.append(away.min(1, initial=np.inf)[b] > ALONE_LENSLETS)
    sigma, width, height, depth = np.concatenate(rows).T
    return Trial(
        np.concatenate(errors), sigma, width, height, np.concatenate(alone), depth,
        matched, found_count, truth_count, seconds,
    )  # fmt: skip


def fit_sigma(trial: Trial) -> Sigma:
    """Return the sigma that 68 % of the depth errors lie within, for sure and for doubtful points alike.

    The shape is the one that makes errors over sigma most alike (largest likelihood); the size makes the
    share right.
    """
    error = np.abs(trial.error_um[:, 0])
    if len(error) < 20:
        return Sigma()
    shapes = (
        Sigma(floor, share, fade)
        for floor in (0.05, 0.1, 0.2, 0.3, 0.5)
        for share in (0.1, 0.2, 0.3, 0.5, 0.8)
        for fade in (0.0, 0.5, 1.0, 1.5, 2.0)
    )
    one, size = _likeliest(shapes, lambda s: s.of(trial.width_um, trial.height), error)
    return replace(one, floor_um=one.floor_um * size, share=one.share * size)


def fit_joint_sigma(trial: Trial) -> JointSigma:
    """Return the same for points of a joint fit."""
    error = np.abs(trial.error_um[:, 0])
    if len(error) < 20:
        return JointSigma()
    shapes = (
        JointSigma(floor, share, optics)
        for floor in (0.02, 0.05, 0.1, 0.2)
        for share in (0.5, 1.0, 2.0, 3.0)
        for optics in (0.0, 0.005, 0.01, 0.015, 0.02)
    )
    one, size = _likeliest(shapes, lambda s: s.of(trial.width_um, trial.z_um), error)
    return JointSigma(one.floor_um * size, one.share * size, one.optics * size)


def _likeliest(
    shapes: Iterable[S], sigma_of: Callable[[S], np.ndarray], error: np.ndarray
) -> tuple[S, float]:
    """Return the shape of sigma that fits errors best, and its size: 68 % lie within."""
    found: list[tuple[float, S, float]] = []
    for one in shapes:
        sigma = np.maximum(sigma_of(one), 1e-6)
        size = float(np.quantile(error / sigma, 0.6827))
        scaled = sigma * max(size, 1e-6)
        # errors have longer tails than a Gaussian: Laplace's likelihood does not mind a few
        found.append((float(-(np.log(scaled) + error / scaled).mean()), one, size))
    _, best, size = max(found, key=lambda f: f[0])
    return best, size


def _within(t: np.ndarray, s: np.ndarray, last: int) -> np.ndarray:
    edge = BORDER_LENSLETS
    return np.asarray((t >= edge) & (t <= last - edge) & (s >= edge) & (s <= last - edge))


def _rms(error: np.ndarray) -> tuple[float, float, float]:
    if not len(error):
        return (float("nan"),) * 3
    z, y, x = np.sqrt((error**2).mean(0)).tolist()
    return z, y, x
