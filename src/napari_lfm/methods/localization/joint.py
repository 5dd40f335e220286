"""Points that explain the light field together: depth curves propose, a joint fit decides, and once more.

Neurons that overlap hide each other from depth curves. So all that were found are fitted and taken off
(`refit`), depths are read off what is left, and everything is fitted together, a few times over. What
remains are bodies whose light stands out of its own uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.lightfield.purify import smooth_background, split_background
from napari_lfm.methods.localization.points import Found
from napari_lfm.methods.localization.refit import Body, JointFit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.lightfield.epipolar import Seeds
    from napari_lfm.methods.localization.points import Localizer
    from napari_lfm.methods.localization.templates import Templates

PASSES = 3
PROPOSED = 0.05
"""Least confidence of a proposal: the fit decides."""
LEAST_SIGNIFICANCE = 5.0
HALF_SURE = 45.0
"""Light that is so many of its standard deviations makes a confidence of one half."""
_DIM, _BESIDE = 0.08, 1.6
"""A body with less than this share of the light of one so many diameters away is what its fit has left."""
_NEARER = 0.8
"""Fitted places are surer than proposals: they are one neuron where nearer than this share of `merge_um`."""
_BEYOND_UM = 2.0


@dataclass(frozen=True)
class JointSigma:
    """A fitted depth's uncertainty: ``sqrt(floor^2 + (share * noise)^2 + (optics * z)^2)``.

    Attributes
    ----------
    floor_um, share, optics : float
        What is left when there is no noise; what counts of the fit's own standard deviation; how well the
        scale of depths is known, which is how well the optics are. Fitted so that 68 % of errors lie within
        one sigma, on fields whose optics are off.
    """

    floor_um: float = 0.1
    share: float = 2.0
    optics: float = 0.015

    def of(self, noise_um: np.ndarray, z_um: np.ndarray) -> np.ndarray:
        """Return sigma_z in um."""
        return np.asarray(
            np.sqrt(
                self.floor_um**2
                + (self.share * np.asarray(noise_um)) ** 2
                + (self.optics * np.asarray(z_um)) ** 2
            )
        )


@dataclass(frozen=True)
class Ground:
    """A light field with its background apart.

    Attributes
    ----------
    foreground, signal : ndarray, shape (v, u, t, s)
        For depth curves: without everything that is alike in all views, not below 0. For fits: without the
        smooth haze alone.
    """

    foreground: np.ndarray
    signal: np.ndarray


@dataclass(frozen=True)
class JointLocalizer:
    """Finds the sources of light fields of one microscope, all together.

    Parameters
    ----------
    localizer : Localizer
        Makes the proposals.
    templates : Templates
    sigma : JointSigma
    """

    localizer: Localizer
    templates: Templates
    sigma: JointSigma = JointSigma()

    def ground(self, views: np.ndarray) -> Ground:
        """Take the background off a light field (v, u, t, s)."""
        background, foreground = split_background(views, self.localizer.options.purify)
        body = self.localizer.options.diameter_um / self.localizer.lenslet_um
        return Ground(foreground, views - smooth_background(background, body))

    def find(self, views: np.ndarray) -> Found:
        """Return all points of one light field."""
        fit = self.new_fit(ground := self.ground(views))
        for _ in self.steps(ground, fit):
            pass
        return self.found(ground, fit)

    def new_fit(self, ground: Ground) -> JointFit:
        """Return a fit without bodies."""
        z = self.localizer.finder.z_um
        return JointFit(ground.signal, self.templates, (z[0] - _BEYOND_UM, z[-1] + _BEYOND_UM))

    def steps(self, ground: Ground, fit: JointFit) -> Iterator[int]:
        """Find all bodies, yielding how many there are after every sweep and pass."""
        proposer = self._proposer()
        foreground = ground.foreground
        for _ in range(PASSES):
            proposed = proposer.at(foreground, proposer.seeds(foreground))
            new = [b for b in self._bodies(proposed) if not any(self._one(b, o) for o in fit.bodies)]
            if not new:
                break
            fit.add(new)
            for _ in fit.steps():
                yield len(fit.bodies)
            self._prune(fit)
            foreground = np.maximum(fit.remaining(), 0)
            yield len(fit.bodies)
        for _ in fit.steps(2):  # without those that were dropped
            yield len(fit.bodies)
        self._prune(fit)

    def at(self, ground: Ground, fit: JointFit, seeds: Seeds) -> Found:
        """Return the points under places of the central view, beside what is fitted already."""
        proposed = self._proposer().at(ground.foreground, seeds)
        probed = [fit.probe(body) for body in self._bodies(proposed)]
        found: list[Body] = []
        for body in sorted(probed, key=lambda b: -b.significance):
            sure = body.significance >= LEAST_SIGNIFICANCE and not fit.is_pinned(body)
            if sure and not any(self._one(body, o) for o in found):
                found.append(body)
        # further clicks see the light field without it
        fit.add(b for b in found if not any(self._one(b, o) for o in fit.bodies))
        return self._points(ground, found)

    def found(self, ground: Ground, fit: JointFit) -> Found:
        """Return the points of a fit, the surest first."""
        return self._points(ground, fit.bodies)

    def _proposer(self) -> Localizer:
        options = self.localizer.options
        return self.localizer.with_options(replace(options, confidence=min(options.confidence, PROPOSED)))

    def _bodies(self, found: Found) -> list[Body]:
        radius = self.localizer.options.diameter_um / 2
        return [
            Body(float(t), float(s), float(z), radius)
            for t, s, z in zip(found.t, found.s, found.z_um, strict=True)
        ]

    def _one(self, a: Body, b: Body) -> bool:
        across = self.localizer.lenslet_um * np.hypot(a.t - b.t, a.s - b.s)
        limit = _NEARER * self.localizer.options.merge_um
        return bool(np.hypot(across, (a.z_um - b.z_um) / 1.5) < limit)

    def _prune(self, fit: JointFit) -> None:
        """Drop what does not stand out, what a neighbour's fit has left, and what is another one again."""
        bodies = fit.bodies
        reach = _BESIDE * self.localizer.options.diameter_um / self.localizer.lenslet_um
        kept: list[int] = []
        for k in sorted(range(len(bodies)), key=lambda k: -bodies[k].light):
            body = bodies[k]
            others = [bodies[o] for o in kept]
            beside = [o.light for o in others if np.hypot(o.t - body.t, o.s - body.s) < reach]
            ghost = body.light < _DIM * max(beside, default=0.0)
            if body.significance >= LEAST_SIGNIFICANCE and not ghost and not fit.is_pinned(body):
                if not any(self._one(body, o) for o in others):
                    kept.append(k)
        fit.keep(kept)

    def _points(self, ground: Ground, bodies: list[Body]) -> Found:
        rows = [(b.z_um, b.t, b.s, b.significance, b.sigma_z_um) for b in bodies]
        table = np.array(rows).reshape(-1, 5)
        z, t, s, significance, noise = table[np.argsort(-table[:, 3], kind="stable")].T
        sure = significance / (significance + HALF_SURE)
        keep = sure >= self.localizer.options.confidence
        z, t, s, significance, noise, sure = (v[keep] for v in (z, t, s, significance, noise, sure))
        bins = self.localizer.finder.z_um
        curve = np.zeros((len(z), len(bins)), np.float32)
        if len(z):
            evidence = self.localizer.evidence(ground.foreground, t, s, z, self.localizer.options.rows)
            curve = self.localizer.finder.curve(evidence)
        edge = (z < bins[0] + 1.0) | (z > bins[-1] - 1.0)
        return Found(z, t, s, sure, self.sigma.of(noise, z), significance, noise, curve, edge)
