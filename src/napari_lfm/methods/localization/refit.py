"""A joint fit of all points to the whole light field: the last bits of accuracy, and what no point explains.

Every point is a ball whose response follows from the optics (`templates`); place, depth, size and brightness
of all of them are fitted to the recorded views at once, by Gauss-Newton steps on one point after the other,
each seeing the light field without the others (block-coordinate descent). Light that is scattered on its way
is a wide disc without parallax, fitted beside each; what does not fit, such as neurons that nobody found,
weighs less (Huber). Views may be a little brighter or darker than the optics say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.methods.localization.templates import FINE, INNER, Templates, spline_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SWEEPS = 5
_HUBER = 2.0
_HAZE_LENSLETS = (2.5, 5.0)
_GAUSSIAN = 1.4826
_PRIOR = 1e-4
_STEP = np.array([0.4, 0.4, 2.0, 1.5])
"""Most that t, s (lenslets), z and radius (um) change in a step."""


@dataclass(frozen=True)
class Body:
    """One fitted source.

    Attributes
    ----------
    t, s : float
        Lenslets.
    z_um, radius_um : float
    light : float
        In all views together, in the units of the light field.
    sigma_z_um, sigma_light : float
        By the noise alone.
    """

    t: float
    s: float
    z_um: float
    radius_um: float
    light: float = 0.0
    sigma_z_um: float = np.inf
    sigma_light: float = np.inf

    @property
    def significance(self) -> float:
        """Light over its standard deviation."""
        return self.light / self.sigma_light if self.sigma_light > 0 else 0.0


@dataclass(frozen=True)
class _Window:
    """Where a response lies: flat indices into the views, which are inside, and lenslets from the ray."""

    index: np.ndarray
    inside: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


class JointFit:
    """Balls fitted to one light field.

    Parameters
    ----------
    signal : ndarray, shape (v, u, t, s)
        Background removed; not cut off at 0.
    templates : Templates
    z_um : tuple of float
        Depths stay within these.
    bodies : iterable of Body
        First guesses.
    """

    def __init__(
        self,
        signal: np.ndarray,
        templates: Templates,
        z_um: tuple[float, float],
        bodies: Iterable[Body] = (),
    ) -> None:
        self._signal, self.z_um = signal, z_um
        # a recording may lack its outer views
        lit = signal[templates.view[0], templates.view[1]].any((1, 2))
        templates = templates.seen_by(lit) if lit.any() else templates
        self._templates, self._inner = templates, templates.within(INNER)
        v, u = self._inner.view
        self._rest = np.ascontiguousarray(signal[v, u], np.float32)
        self._offset = np.arange(-templates.half, templates.half + 1)
        self._shade = np.array([1.0, 0, 0, 0, 0])
        spread = self._rest.ravel()[:: max(1, self._rest.size // 200_000)]
        self._noise = _GAUSSIAN * float(np.median(np.abs(spread - np.median(spread)))) or 1e-9
        self._drawn: list[tuple[np.ndarray, np.ndarray] | None] = []
        self.bodies: list[Body] = []
        self.add(bodies)

    def add(self, bodies: Iterable[Body]) -> None:
        """Take further first guesses in."""
        for body in bodies:
            self.bodies.append(body)
            self._drawn.append(None)
            if body.light > 0:
                self._draw(len(self.bodies) - 1)

    def keep(self, chosen: Iterable[int]) -> None:
        """Drop all bodies but these."""
        kept = sorted(set(chosen))
        for k in range(len(self.bodies)):
            if k not in kept:
                self._erase(k)
        self.bodies = [self.bodies[k] for k in kept]
        self._drawn = [self._drawn[k] for k in kept]

    def steps(self, sweeps: int = SWEEPS) -> Iterator[int]:
        """Improve all bodies, yielding the number of sweeps that are done."""
        for sweep in range(sweeps):
            count = len(self._shade)
            normal, right = np.zeros((count, count)), np.zeros(count)
            for k in np.argsort([-b.light for b in self.bodies]).tolist():
                found = self._improve(k)
                if found is not None:
                    normal += found[0]
                    right += found[1]
            size = float(np.trace(normal))
            if size > 0:  # without evidence views are as bright as the optics say
                prior = _PRIOR * size * np.eye(count)
                shade = np.linalg.solve(normal + prior, right + prior[0])
                self._shade = shade / max(float((shade @ self._shapes(self._inner)).mean()), 1e-3)
            yield sweep + 1

    def probe(self, body: Body, sweeps: int = SWEEPS) -> Body:
        """Fit one more body among the others, which stay as they are; those in its place are set aside."""
        near = [
            k
            for k, b in enumerate(self.bodies)
            if np.hypot(b.t - body.t, b.s - body.s) < 1.5 and abs(b.z_um - body.z_um) < body.radius_um
        ]
        for k in near:
            self._erase(k)
        self.add([body])
        for _ in range(sweeps):
            self._improve(len(self.bodies) - 1)
        found = self.bodies[-1]
        self.keep(range(len(self.bodies) - 1))
        for k in near:
            self._draw(k)
        return found

    def is_pinned(self, body: Body) -> bool:
        """Return whether a fit went to the end of depths or sizes: haze, or what no ball is like."""
        low, high = self.z_um
        largest = float(self._templates.radius_um[-1])
        return not low + 0.05 < body.z_um < high - 0.05 or body.radius_um > 0.98 * largest

    def remaining(self) -> np.ndarray:
        """Return the light field (v, u, t, s) without all bodies, in all views."""
        out = np.array(self._signal, np.float32)
        v, u = self._templates.view
        views = out[v, u]
        for body in self.bodies:
            if body.light > 0:
                window = self._window(body, self._templates)
                image = body.light * self._response(body, window, self._templates)
                views.ravel()[window.index[window.inside]] -= image[window.inside]
        out[v, u] = views
        return out

    # -- one body ---------------------------------------------------------------------------

    def _shapes(self, templates: Templates) -> np.ndarray:
        """Return how the brightness of views may differ: radially, and to one side; (5, views)."""
        y, x = templates.at
        radius = y**2 + x**2
        return np.asarray(np.stack([np.ones_like(radius), radius, radius**2, y, x]), np.float32)

    def _gain(self, templates: Templates) -> np.ndarray:
        gain = np.clip(self._shade @ self._shapes(templates), 0.1, 10.0)
        return np.asarray(gain, np.float32)[:, None, None]

    def _window(self, body: Body, templates: Templates) -> _Window:
        rows = body.t + templates.ray[0] * body.z_um
        columns = body.s + templates.ray[1] * body.z_um
        at_row = np.rint(rows).astype(int)[:, None] + self._offset
        at_column = np.rint(columns).astype(int)[:, None] + self._offset
        nt, ns = self._signal.shape[2:]
        inside = ((at_row >= 0) & (at_row < nt))[:, :, None] & ((at_column >= 0) & (at_column < ns))[:, None]
        index = (
            np.arange(len(rows))[:, None, None] * (nt * ns)
            + np.clip(at_row, 0, nt - 1)[:, :, None] * ns
            + np.clip(at_column, 0, ns - 1)[:, None]
        )
        return _Window(index, inside, at_row - rows[:, None], at_column - columns[:, None])

    def _response(self, body: Body, window: _Window, templates: Templates) -> np.ndarray:
        """Return the response of light 1 in a window, (views, size, size)."""
        spline = templates.of(body.z_um, body.radius_um)[0]
        middle, size = (spline.shape[-1] - 1) // 2, spline.shape[-1]
        left = spline_weights(window.rows * FINE + middle, size)[0] * self._gain(templates)
        right = spline_weights(window.columns * FINE + middle, size)[0]
        return np.asarray(left @ spline @ right.swapaxes(-1, -2))

    def _derivatives(self, body: Body, window: _Window) -> list[np.ndarray]:
        """Return the response and its derivatives by t, s, z and radius, in the views that are fitted."""
        spline, by_z, by_radius = self._inner.of(body.z_um, body.radius_um)
        middle, size = (spline.shape[-1] - 1) // 2, spline.shape[-1]
        gain = self._gain(self._inner)
        left, left_slope = (w * gain for w in spline_weights(window.rows * FINE + middle, size))
        right, right_slope = (
            w.swapaxes(-1, -2) for w in spline_weights(window.columns * FINE + middle, size)
        )
        half_way = left @ spline
        by_t = -FINE * (left_slope @ spline) @ right
        by_s = -FINE * half_way @ right_slope
        ray_t, ray_s = self._inner.ray[:, :, None, None]
        along = ray_t * by_t + ray_s * by_s + left @ by_z @ right
        return [half_way @ right, by_t, by_s, along, left @ by_radius @ right]

    def _improve(self, k: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Take a step with one body; returns what it says on the views' brightness, as normal equations."""
        body = self.bodies[k]
        self._erase(k)
        window = self._window(body, self._inner)
        inside = window.inside
        data = self._rest.ravel()[window.index][inside]
        model, *slopes = (r[inside] for r in self._derivatives(body, window))
        # light, scattered light and background are linear: they come first, so that steps in place start well
        linear = np.stack([model, *self._beside(body, window)])
        weight, light, left, scale = np.ones_like(data), 0.0, data, self._noise
        for _ in range(2):
            weighted = linear * weight
            amplitudes = _solve(weighted @ linear.T, weighted @ data)
            left = data - amplitudes @ linear
            light = float(amplitudes[0])
            scale = max(self._noise, _GAUSSIAN * float(np.median(np.abs(left)))) if len(left) else 1.0
            weight = 1 / np.maximum(1.0, np.abs(left) / (_HUBER * scale))
        if light <= 0 or not len(data):
            self.bodies[k] = replace(body, light=0.0, sigma_light=np.inf, sigma_z_um=np.inf)
            return None
        columns = np.concatenate([linear, light * np.stack(slopes)])
        normal = (columns * weight) @ columns.T
        step = _solve(normal, (columns * weight) @ left)
        variance = _variances(normal) * scale**2
        moves = np.clip(step[-4:], -_STEP, _STEP)
        low, high = self._inner.radius_um[[0, -1]]
        self.bodies[k] = replace(
            body,
            t=body.t + float(moves[0]),
            s=body.s + float(moves[1]),
            z_um=float(np.clip(body.z_um + moves[2], *self.z_um)),
            radius_um=float(np.clip(body.radius_um + moves[3], low, high)),
            light=max(light + float(step[0]), 0.0),
            sigma_z_um=float(np.sqrt(variance[-2])),
            sigma_light=float(np.sqrt(variance[0])),
        )
        self._draw(k)
        # the next brightness of views is looked for in terms of the present one
        bare = light * model / np.broadcast_to(self._gain(self._inner), inside.shape)[inside]
        shapes = self._shapes(self._inner)
        views = np.broadcast_to(shapes[:, :, None, None], (len(shapes), *inside.shape))[:, inside] * bare
        return (views * weight) @ views.T, (views * weight) @ (left + light * model)

    def _beside(self, body: Body, window: _Window) -> list[np.ndarray]:
        """Return what else a window may show: discs around the body without parallax, an even background."""
        rows = window.rows + (self._inner.ray[0] * body.z_um)[:, None]
        columns = window.columns + (self._inner.ray[1] * body.z_um)[:, None]
        away = (rows[:, :, None] ** 2 + columns[:, None] ** 2)[window.inside]
        return [*(np.exp(-away / 2 / wide**2) for wide in _HAZE_LENSLETS), np.ones_like(away)]

    def _draw(self, k: int) -> None:
        body = self.bodies[k]
        window = self._window(body, self._inner)
        image = (body.light * self._response(body, window, self._inner))[window.inside]
        index = window.index[window.inside]
        self._rest.ravel()[index] -= image
        self._drawn[k] = index, image

    def _erase(self, k: int) -> None:
        drawn = self._drawn[k]
        if drawn is not None:
            self._rest.ravel()[drawn[0]] += drawn[1]
            self._drawn[k] = None


def _variances(normal: np.ndarray) -> np.ndarray:
    """Return the diagonal of the inverse; columns may be of very different sizes, and alike."""
    size = np.sqrt(np.diag(normal)).clip(1e-20)
    return np.asarray(np.diag(np.linalg.pinv(normal / size[:, None] / size, hermitian=True)) / size**2)


def _solve(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve normal equations; a little damping for columns that are alike."""
    size = np.sqrt(np.diag(normal)).clip(1e-20)
    scaled = normal / size[:, None] / size
    return np.asarray(np.linalg.solve(scaled + 1e-4 * np.eye(len(scaled)), right / size) / size)
