"""From a light field to points: seeds, depth curves along both directions and many rows, rays, merging.

Beyond Song et al. (ICASSP 2021), who read depth off one epipolar image through the central row: evidence of
both directions and of the rows that the source runs through is put together, depths lie between bins, x and
y come from the rays of all views, every point has an uncertainty, and several detections of one neuron become
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_lfm.lightfield.epipolar import (
    CENTRAL,
    Direction,
    Seeds,
    bright_places,
    brightest_one,
    central_view,
    epipolar_windows,
    find_seeds,
)
from napari_lfm.lightfield.purify import Way, noise_of, split_background
from napari_lfm.lightfield.rays import refine_across
from napari_lfm.networks.depth_curve import centre_of, peaks_of

if TYPE_CHECKING:
    from napari_lfm.methods.localization.finders import DepthFinder

LEAST_SEED_SNR = 5.0
"""What does not stand out of the central view by so many standard deviations is noise."""
_DENSE = 0.6
"""Lenslets need not be as bright as a peak: a source may lie between two."""
DIRECTIONS: tuple[Direction, ...] = ("x", "y")


@dataclass(frozen=True)
class Sigma:
    """How a depth's uncertainty follows from its curve: ``sqrt(floor^2 + (share * width)^2) / height^fade``.

    Attributes
    ----------
    floor_um, share, fade : float
        Fitted so that 68 % of errors lie within one sigma (`napari_lfm.methods.localization.card`).
    """

    floor_um: float = 0.3
    share: float = 0.3
    fade: float = 1.0

    def of(self, width_um: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Return sigma_z in um."""
        spread = np.sqrt(self.floor_um**2 + (self.share * np.asarray(width_um)) ** 2)
        return np.asarray(spread / np.clip(height, 0.05, 1) ** self.fade)


@dataclass(frozen=True)
class PointOptions:
    """How points are looked for.

    Attributes
    ----------
    purify : str
        See `split_background`.
    seeds : str
        ``dense``: every lenslet of the central view that is bright enough; ``peaks``: its peaks alone, as
        published, which is faster and misses neurons that overlap there.
    seed_threshold : float
        Share of the brightest peak of the central view.
    rows : int
        Rows of views on either side of the central one whose evidence counts.
    confidence : float
        Height of the depth curve below which there is no point.
    merge_um : float
        Points nearer to each other than this are one neuron.
    diameter_um : float
        A typical cell body: what is looked at around a point.
    per_seed : int
        Depths that one seed may have: neurons one above the other.
    """

    purify: Way = "robust"
    seeds: Literal["dense", "peaks"] = "dense"
    seed_threshold: float = 0.1
    rows: int = 4
    confidence: float = 0.15
    merge_um: float = 6.0
    diameter_um: float = 11.0
    per_seed: int = 2


def typical_body_um(smallest_um: float, largest_um: float) -> float:
    """Return the diameter that stands for cell bodies of a range."""
    return round((smallest_um + largest_um) / 2, 1)


@dataclass(frozen=True)
class Found:
    """Points in lenslets and micrometres of depth, the surest first.

    Attributes
    ----------
    z_um, t, s : ndarray, shape (n,)
        Depth, lenslet row and column.
    confidence, sigma_z_um, snr, width_um : ndarray, shape (n,)
    curve : ndarray, shape (n, depths)
        Depth curves, each of the seed that its point comes from.
    at_edge : ndarray of bool, shape (n,)
        The depth lies at the end of the range: it may be further out.
    """

    z_um: np.ndarray
    t: np.ndarray
    s: np.ndarray
    confidence: np.ndarray
    sigma_z_um: np.ndarray
    snr: np.ndarray
    width_um: np.ndarray
    curve: np.ndarray
    at_edge: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.z_um)

    def taken(self, index: np.ndarray) -> Found:
        """Return some of them."""
        return Found(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Localizer:
    """Finds the sources of light fields of one microscope.

    Parameters
    ----------
    finder : DepthFinder
    slope_per_um : float
        Lenslets per view and um of depth, with its sign: `napari_lfm.lightfield.slopes.slope_at_depth` of 1.
    lenslet_um : float
        In the sample.
    options : PointOptions
    sigma : Sigma
    """

    finder: DepthFinder
    slope_per_um: float
    lenslet_um: float
    options: PointOptions = PointOptions()
    sigma: Sigma = Sigma()

    @property
    def half(self) -> int:
        """Lenslets on either side that a cell body covers."""
        return max(1, round(0.45 * self.options.diameter_um / self.lenslet_um))

    def foreground(self, views: np.ndarray) -> np.ndarray:
        """Return a light field (v, u, t, s) without its background."""
        return split_background(views, self.options.purify)[1]

    def seeds(self, foreground: np.ndarray) -> Seeds:
        """Return what stands out in the central view."""
        view = central_view(foreground)
        # the mean of nine views has a third of their noise
        least = LEAST_SEED_SNR * noise_of(foreground) / (2 * CENTRAL + 1)
        if self.options.seeds == "peaks":
            found = find_seeds(view, self.options.seed_threshold)
        else:
            found = bright_places(view, _DENSE * self.options.seed_threshold)
        bright = found.value > least
        return Seeds(found.t[bright], found.s[bright], found.value[bright])

    def find(self, views: np.ndarray) -> Found:
        """Return all points of one light field (v, u, t, s)."""
        foreground = self.foreground(views)
        return self.at(foreground, self.seeds(foreground))

    def at(self, foreground: np.ndarray, seeds: Seeds) -> Found:
        """Return the points under places of the central view."""
        o = self.options
        if not len(seeds):
            return self._none()
        first = self.finder.curve(self.evidence(foreground, seeds.t, seeds.s))
        rows: list[tuple[int, float, float, float]] = [
            (k, *peak)
            for k, curve in enumerate(first)
            for peak in peaks_of(curve, self.finder.z_um, o.confidence, o.per_seed)
        ]
        if not rows:
            return self._none()
        seed = np.array([r[0] for r in rows])
        z = np.array([r[1] for r in rows])
        t, s = seeds.t[seed].astype(float), seeds.s[seed].astype(float)
        # neighbouring places show the same neuron: one of them is enough to go on with
        t, s, _ = refine_across(foreground, t, s, self.slope_per_um * z, self.half, float(self.half))
        own = self._apart(z, t, s, np.array([r[3] for r in rows]))
        z, t, s = z[own], t[own], s[own]
        # along the ray that a first depth predicts the source is in every row of views
        evidence = self.evidence(foreground, t, s, z, o.rows)
        curve = self.finder.curve(evidence)
        z, width, height = self._near(curve, z)
        t, s, peak = refine_across(foreground, t, s, self.slope_per_um * z, self.half, float(self.half))
        noise = noise_of(foreground) or 1e-9
        bins = self.finder.z_um
        edge = (z < bins[0] + 1.0) | (z > bins[-1] - 1.0)
        found = Found(z, t, s, height, self.sigma.of(width, height), peak / noise, width, curve, edge)
        return self._merged(found.taken(np.flatnonzero(height >= o.confidence)))

    def _near(self, curve: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the peaks nearest to first depths: centre, width, height."""
        bins = self.finder.z_um
        window = np.abs(bins - z[:, None]) <= 4.0
        return centre_of(np.where(window, curve, 0.0), bins)

    def evidence(
        self, foreground: np.ndarray, t: np.ndarray, s: np.ndarray, z: np.ndarray | None = None, rows: int = 0
    ) -> np.ndarray:
        """Return the mean evidence of both directions and of rows along the rays."""
        images, count = [], len(t)
        for view in range(-rows, rows + 1):
            shift = 0.0 if z is None else self.slope_per_um * z * view
            for direction in DIRECTIONS:
                row, column = (t + shift, s) if direction == "x" else (t, s + shift)
                images.append(epipolar_windows(foreground, row, column, self.finder.half, direction, view))
        scaled, peak = brightest_one(np.concatenate(images))
        evidence = self.finder.evidence(scaled).reshape(len(images), count, -1)
        # an image in which the source lies outside the field says nothing
        weight = (peak.reshape(len(images), count, 1) > 0).astype(float)
        return np.asarray((evidence * weight).sum(0) / np.maximum(weight.sum(0), 1))

    def _merged(self, found: Found) -> Found:
        """Return the points with those of one neuron made one: the surest stays."""
        return found.taken(self._apart(found.z_um, found.t, found.s, found.confidence))

    def _apart(self, z: np.ndarray, t: np.ndarray, s: np.ndarray, sure: np.ndarray) -> np.ndarray:
        """Return which of several points to keep, the surest first: none nearer to another than allowed."""
        kept: list[int] = []
        for k in np.argsort(-sure, kind="stable").tolist():
            across = self.lenslet_um * np.hypot(t[k] - t[kept], s[k] - s[kept])
            # depths are known less well than places across
            if not (np.hypot(across, (z[k] - z[kept]) / 1.5) < self.options.merge_um).any():
                kept.append(k)
        return np.array(kept, int)

    def _none(self) -> Found:
        empty, depths = np.zeros(0), len(self.finder.z_um)
        return Found(*(empty,) * 7, np.zeros((0, depths)), np.zeros(0, bool))

    def with_options(self, options: PointOptions) -> Localizer:
        """Return the same with other options."""
        return replace(self, options=options)
