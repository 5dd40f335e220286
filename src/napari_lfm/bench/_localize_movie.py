"""A movie of flickering neurons: found once, their traces against the truth, and what a click takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.metrics import pair_points
from napari_lfm.lightfield.views import lenslet_image
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.localization.engine import LocalizeEngine
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.neuron_fields import NeuronFields, NeuronSettings
from napari_lfm.simulation.recording import SLIGHTLY_OFF

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

SEED, TOLERANCE_UM, APART_UM = 3_141, 5.0, 16.0


@dataclass(frozen=True)
class MovieSetup:
    """What is simulated.

    Attributes
    ----------
    microscope : str
    lenslets, voxels : int
        Across the field, and across a lenslet.
    neurons, frames : int
    electrons : float
        Photo-electrons of a neuron whose light is 1, at its brightest.
    haze : float
        Even light, as a share of that.
    """

    microscope: str = "imperial-25x1.0w"
    lenslets: int = 31
    voxels: int = 2
    neurons: int = 20
    frames: int = 200
    electrons: float = 300.0
    haze: float = 0.5


def movie_figures(setup: MovieSetup, model: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Simulate, detect once, and compare traces; then click on every neuron."""
    say("Simulating a movie")
    microscope = load_microscope(setup.microscope)
    movie, light, places = simulate(setup, microscope)
    method: Any = get_method("localize")
    request = Request(
        "localize",
        inputs={"image": movie},
        parameters=make_parameters(method, {}),
        microscope=microscope,
        model=model,
        layout=f"lenslet:{microscope.n_pixels}",
        device="cpu",
    )
    say("Localising in the movie")
    begun = time.perf_counter()
    result = list(method.run(request))[-1]
    seconds = time.perf_counter() - begun
    assert isinstance(result, Result)
    points: Any = result.outputs["points"]
    traces: Any = result.outputs["traces"]
    found, truth = pair_points(points[["z_um", "y_um", "x_um"]].to_numpy(float), places, TOLERANCE_UM)
    numbers = points["neuron"].to_numpy()
    alike = [
        float(np.corrcoef(traces[traces["neuron"] == numbers[i]]["light"], light[:, j])[0, 1])
        for i, j in zip(found, truth, strict=True)
    ]
    one = Request(**{**vars(request), "inputs": {"image": movie[:1].squeeze("t", drop=True)}})
    engine = next(e for e in method.engine(one) if isinstance(e, LocalizeEngine))
    for _ in engine.detect_steps():
        pass
    clicks = []
    for z, y, x in places:
        begun = time.perf_counter()
        hits = engine.places(engine.at(y, x))
        taken = time.perf_counter() - begun
        if len(hits) and np.linalg.norm(hits - (z, y, x), axis=1).min() < TOLERANCE_UM:
            clicks.append(taken)
    return {
        "frames": setup.frames,
        "neurons": setup.neurons,
        "found": len(points),
        "matched": len(found),
        "least_correlation": round(min(alike, default=float("nan")), 4),
        "median_correlation": round(statistics.median(alike), 4) if alike else None,
        "seconds": round(seconds, 2),
        "clicks_that_hit": len(clicks),
        "click_ms": round(1e3 * statistics.median(clicks), 1) if clicks else None,
        "slowest_click_ms": round(1e3 * max(clicks), 1) if clicks else None,
    }


def simulate(setup: MovieSetup, microscope: Microscope) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """Return a movie (t, y, x), the light (frames, neurons) and the places (neurons, 3) um in its world."""
    n, cell = microscope.n_pixels, microscope.lenslet_um
    assert n is not None and cell is not None
    rng = np.random.default_rng(SEED)
    settings = NeuronSettings(cells=setup.lenslets, voxels=setup.voxels, optics=(SLIGHTLY_OFF,))
    fields = NeuronFields(microscope, n, settings, SEED)
    low, high = settings.z_um
    bodies: list[np.ndarray] = []
    while len(bodies) < setup.neurons:
        place = (rng.uniform(low + 3, high - 3), *rng.uniform(3, setup.lenslets - 4, 2))
        body = np.array([*place, rng.uniform(4.2, 7.0), 1.0])
        if all(cell * np.hypot(*(body - o)[1:3]) > APART_UM for o in bodies):
            bodies.append(body)
    alone = np.stack([fields.clean(0, body[None]).views for body in bodies])
    alone /= max(float(np.percentile(view, 99.99)) for view in alone)
    light = np.full((setup.frames, setup.neurons), 0.3)
    for k in range(setup.neurons):  # calcium transients: a jump, and a decay over eight frames
        for start in {int(rng.integers(setup.frames)), *np.flatnonzero(rng.random(setup.frames) < 0.02)}:
            decay = np.exp(-np.arange(setup.frames - start) / 8)
            light[start:, k] += rng.uniform(0.5, 1.5) * decay
    noise = microscope.camera.read_noise_e
    frames = []
    for level in light:
        views = setup.electrons * (np.tensordot(level, alone, 1) + setup.haze)
        seen = rng.poisson(views) + rng.normal(0, noise, views.shape)
        frames.append(lenslet_image(seen.astype(np.float32)))
    pixel = cell / n
    table = np.array(bodies)
    places = np.stack([table[:, 0], *((table[:, k] * n + (n - 1) / 2) * pixel for k in (1, 2))], 1)
    return labelled(np.stack(frames), "tyx", {"t": 0.1, "y": pixel, "x": pixel}), light, places
