"""Light fields of cell bodies at known places, as fast as a localising network can be trained on them.

Balls and somata (with a darker nucleus) of 8 to 15 um lie in, around, above and below a field. They are
imaged through the lenslet projector; then comes what tissue and a real microscope add: light scattered on
its way (a blurred copy of the field), haze, views that are shaded, a lattice that is a little off, photons
and read noise. Everything is a function of the seed and the field's number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.simulation.scene import Grid, Scene
from napari_lfm.simulation.shapes import Ball
from napari_lfm.simulation.soft_shapes import Ellipsoid, Rotation, Waves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.optics.microscope import Microscope


OPTICS = (
    OpticsError(pupil=(1, 1, 0.98, 0.95, 0.88, 0.7)),
    OpticsError(na=0.008, focal_length=0.012, sample_index=0.002, pupil=(1, 0.99, 0.97, 0.92, 0.85, 0.75)),
    OpticsError(na=-0.008, focal_length=-0.012, sample_index=-0.002, pupil=(1, 1, 1, 0.98, 0.95, 0.85)),
)
"""How true optics differ from the ones that are told."""


@dataclass(frozen=True)
class NeuronSettings:
    """What the fields look like.

    Attributes
    ----------
    z_um : tuple of float
        Lowest and highest depth of neurons that count.
    z_beyond_um : float
        How far beyond these some others lie.
    z_step_um : float
        Distance of the simulated planes.
    voxels : int
        Voxels across a lenslet.
    cells : int
        Lenslets across a field.
    neurons : tuple of int
        Least and most neurons in a field, drawn evenly in the logarithm; its surroundings hold as many per
        area.
    diameter_um : tuple of float
    brightness : float
        The brightest is at most so many times as bright as the dimmest.
    electrons : tuple of float
        Least and most photo-electrons per pixel at the 99.9th percentile of a frame.
    haze : tuple of float
        Least and most background, as a share of the sources' own 99.9th percentile.
    shading : float
        Largest loss of light in views away from a random one, at the edge.
    jitter_px : float
        Standard deviation of the lattice's error, in lenslet pixels.
    optics : tuple of OpticsError
        How the true optics differ from the ones that are told; fields take turns.
    """

    z_um: tuple[float, float] = (-18.0, 36.0)
    z_beyond_um: float = 6.0
    z_step_um: float = 1.5
    voxels: int = 3
    cells: int = 23
    neurons: tuple[int, int] = (1, 40)
    diameter_um: tuple[float, float] = (8.0, 15.0)
    brightness: float = 5.0
    electrons: tuple[float, float] = (50.0, 5000.0)
    haze: tuple[float, float] = (0.03, 3.0)
    shading: float = 0.3
    jitter_px: float = 0.15
    optics: tuple[OpticsError, ...] = OPTICS


@dataclass(frozen=True)
class NeuronField:
    """One light field and what is in it.

    Attributes
    ----------
    views : ndarray, shape (v, u, t, s), float32
        Photo-electrons, or the noise-free expectation.
    neurons : ndarray, shape (n, 5)
        ``z_um``, ``t``, ``s`` (lenslets from the field's first), ``radius_um``, ``brightness``; also of those
        beside the field.
    """

    views: np.ndarray
    neurons: np.ndarray


@dataclass
class NeuronFields:
    """A source of simulated light fields of neurons for one microscope.

    Parameters
    ----------
    microscope : Microscope
        With a square lenslet array.
    n_pixels : int
        Pixels per lenslet, N.
    settings : NeuronSettings
    seed : int
    device : str
    """

    microscope: Microscope
    n_pixels: int
    settings: NeuronSettings = field(default_factory=NeuronSettings)
    seed: int = 0
    device: str = "cpu"
    _projectors: list[LensletProjector] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        lenslets = self.microscope.lenslets
        if lenslets is None or lenslets.lattice != "square":
            raise RequestError(
                f"The microscope '{self.microscope.name}' has no square lenslet array.",
                "Choose a light-field microscope with one.",
            )

    @property
    def lenslet_um(self) -> float:
        """Size of a lenslet in the sample."""
        out = self.microscope.lenslet_um
        assert out is not None
        return out

    def geometry(self, error: OpticsError) -> Geometry:
        """Return what is to be built for optics that are off by `error`."""
        s = self.settings
        assert self.microscope.lenslets is not None
        error = error.possible(self.microscope)
        true = error.applied(self.microscope, self.microscope.lenslets.pitch_um)
        optics = replace(CellOptics.of(true, self.n_pixels), pupil=error.pupil)
        return Geometry.plan(optics, [Plane(z, (s.voxels, s.voxels)) for z in self._depths()], (s.cells,) * 2)

    def _depths(self) -> list[float]:
        s = self.settings
        reach = s.z_beyond_um + s.diameter_um[1] / 2
        low, high = s.z_um[0] - reach, s.z_um[1] + reach
        return [round(low + k * s.z_step_um, 6) for k in range(math.ceil((high - low) / s.z_step_um) + 1)]

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Build the optics, yielding (planes done, planes in all)."""
        projectors = []
        for k, error in enumerate(self.settings.optics):
            projector = LensletProjector(self.geometry(error), self.device)
            for done, total in projector.build_steps(use_cache=False):
                yield k * total + done, len(self.settings.optics) * total
            projectors.append(projector)
        self._projectors = projectors

    def other(self, seed: int, settings: NeuronSettings | None = None) -> NeuronFields:
        """Return a source of other fields through the same optics; only what is not built in may differ."""
        out = NeuronFields(self.microscope, self.n_pixels, settings or self.settings, seed, self.device)
        out._projectors = self._projectors
        return out

    def clean(self, index: int, neurons: np.ndarray | None = None) -> NeuronField:
        """Return field `index` without haze and noise.

        Parameters
        ----------
        index : int
        neurons : ndarray, shape (n, 5), optional
            As `NeuronField.neurons`; default drawn.
        """
        if not self._projectors:
            for _ in self.prepare():
                pass
        projector = self._projectors[index % len(self._projectors)]
        g, s = projector.geometry, self.settings
        rng = np.random.default_rng([self.seed, 1, index])
        if neurons is None:
            neurons = self._places(rng, g.margin[0])
        scene = Scene(tuple(self._body(n, rng) for n in neurons))
        step = self.lenslet_um / s.voxels
        count = g.volume_cells[0] * s.voxels
        start = -(count - 1) / 2 * step
        depths = [p.z_um for p in g.planes]
        grid = Grid((len(depths), count, count), (s.z_step_um, step, step), (depths[0], start, start))
        with torch.no_grad():
            image = projector.forward(rasterise(scene, grid, self.device)[None]).cpu()
        n = self.n_pixels
        views = image.reshape(s.cells, n, s.cells, n).permute(1, 3, 0, 2).clamp(min=0).numpy()
        return NeuronField(np.ascontiguousarray(views), neurons)

    def _places(self, rng: np.random.Generator, margin: int) -> np.ndarray:
        s = self.settings
        wide = s.cells + 2 * min(margin, 4)
        count = round(_log_uniform(rng, s.neurons))
        share = (wide / s.cells) ** 2 * (1 + 2 * s.z_beyond_um / (s.z_um[1] - s.z_um[0]))
        count = max(1, int(rng.poisson(count * share)))
        half = (wide - s.cells) / 2
        out: list[np.ndarray] = []
        for _ in range(20 * count):  # cell bodies do not lie in one another
            radius = 0.5 * rng.uniform(*s.diameter_um)
            z = rng.uniform(s.z_um[0] - s.z_beyond_um, s.z_um[1] + s.z_beyond_um)
            t, u = rng.uniform(-half - 0.5, s.cells - 0.5 + half, 2)
            one = np.array([z, t, u, radius, s.brightness ** rng.uniform(-1, 0)])
            cell = self.lenslet_um
            if all(
                np.hypot.reduce([z - o[0], (t - o[1]) * cell, (u - o[2]) * cell]) > radius + o[3] for o in out
            ):
                out.append(one)
            if len(out) == count:
                break
        return np.array(out)

    def _body(self, neuron: np.ndarray, rng: np.random.Generator) -> Ball | Ellipsoid:
        z, t, s, radius, brightness = (float(v) for v in neuron)
        middle = (self.settings.cells - 1) / 2
        centre = (z, (t - middle) * self.lenslet_um, (s - middle) * self.lenslet_um)
        # a larger body is not brighter in itself: brightness is the light of the whole
        level = brightness / radius**2
        if rng.random() < 0.5:
            return Ball(centre, radius, brightness=level)
        long = rng.uniform(1.0, 1.3)
        radii = (radius / math.sqrt(long), radius / math.sqrt(long), radius * long)
        turn = _rotation(rng)
        return Ellipsoid(
            centre,
            radii,
            turn,
            core_share=rng.uniform(0.4, 0.65),
            core_level=rng.uniform(0.0, 0.6),
            bumps=Waves.random(rng, 2.0, 6),
            bumpiness=rng.uniform(0, 0.08),
            brightness=level,
        )

    def recorded(
        self,
        clean: NeuronField,
        rng: np.random.Generator,
        electrons: float | None = None,
        haze: float | None = None,
    ) -> NeuronField:
        """Return a field as a camera behind tissue sees it, in photo-electrons.

        Parameters
        ----------
        clean : NeuronField
        rng : numpy.random.Generator
        electrons, haze : float, optional
            Of the settings' meaning; default drawn from their ranges, evenly in the logarithm.
        """
        s = self.settings
        peak = _log_uniform(rng, s.electrons) if electrons is None else electrons
        share = _log_uniform(rng, s.haze) if haze is None else haze
        views: np.ndarray = clean.views.astype(np.float32)
        # a field with next to nothing in it is not made bright
        views = views / max(float(np.percentile(views, 99.9)), 0.05 * float(views.max()), 1e-9)
        views = views + share * self._haze(views, rng)
        views *= self._shading(rng)
        views = views / max(float(np.percentile(views, 99.9)), 1e-6) * peak
        views = _moved(views, rng.normal(0, s.jitter_px, 2))
        noise = self.microscope.camera.read_noise_e
        seen = rng.poisson(np.clip(views, 0, None)) + rng.normal(0, noise, views.shape)
        return NeuronField(seen.astype(np.float32), clean.neurons)

    def _haze(self, views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the background, its 99.9th percentile 1: scattered light, and tissue that glows all over.

        Light scattered on its way is a blurred copy of the field; scattered often, it has lost its angles.
        """
        sigma = [float(np.exp(rng.uniform(np.log(1.0), np.log(6.0))))] * 2
        lost, kept = rng.uniform(), np.zeros_like(views)
        if lost < 0.9:
            kept = gaussian_filter(views, (1, 1, *sigma), mode="nearest", truncate=3)
        flat = gaussian_filter(views.mean((0, 1)), sigma, mode="nearest", truncate=3)
        lost = 1.0 if lost >= 0.9 else lost / 0.9
        scattered = (1 - lost) * kept + lost * flat
        count = views.shape[-1]
        bumps = gaussian_filter(rng.normal(size=(count, count)), rng.uniform(2, 5))
        bumps = (bumps - bumps.mean()) / max(float(bumps.std()), 1e-9)
        tissue = np.clip(1 + rng.uniform(0, 0.5) * bumps, 0, None)
        mix = rng.uniform()
        out = mix * scattered / max(float(scattered.max()), 1e-9) + (1 - mix) * tissue / tissue.max()
        return np.asarray(out / max(float(np.percentile(out, 99.9)), 1e-9), np.float32)

    def _shading(self, rng: np.random.Generator) -> np.ndarray:
        """Return what share of the light every view keeps: a pupil that is not quite even, nor centred."""
        n = self.n_pixels
        at = (np.arange(n) - (n - 1) / 2) / (n / 2)
        y, x = rng.normal(0, 0.15, 2)
        away = (at[:, None] - y) ** 2 + (at - x) ** 2
        shade = 1 - self.settings.shading * rng.uniform() * away
        return np.asarray(np.clip(shade, 0.1, None)[:, :, None, None], np.float32)


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float] | tuple[int, int]) -> float:
    return float(np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]))))


def _moved(views: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """Move the lenslet image by a part of a pixel: every view takes some of its neighbour."""
    for axis, shift in enumerate(np.clip(shift_px, -1, 1).tolist()):
        near = np.roll(views, 1 if shift > 0 else -1, axis)
        edge: list[slice | int] = [slice(None)] * views.ndim
        edge[axis] = 0 if shift > 0 else -1
        near[tuple(edge)] = views[tuple(edge)]
        views = (1 - abs(shift)) * views + abs(shift) * near
    return views


def _rotation(rng: np.random.Generator) -> Rotation:
    a, b, c = np.linalg.qr(rng.normal(size=(3, 3)))[0].tolist()
    return tuple(a), tuple(b), tuple(c)
