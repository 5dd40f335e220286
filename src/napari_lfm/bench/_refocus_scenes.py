"""What ``bench refocus`` looks at: specimens that no training drew, beads, recordings, and the model.

All distances are given in shares of a model's range, so that one benchmark serves every objective.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import RefocusDomain, domain_of
from napari_lfm.methods.refocus.engine import Refocuser
from napari_lfm.networks.registry import ModelEntry, find_model, list_models, open_network
from napari_lfm.simulation.focal_stacks import FocalSettings, FocalStack, focal_stack, image_focal_stack
from napari_lfm.simulation.phantoms import make_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box
from napari_lfm.training.focal_pairs import READ_NOISE_E, OpticsSpread

if TYPE_CHECKING:
    import torch
    from torch import nn

    from napari_lfm.optics.defocus import DefocusOptics
    from napari_lfm.simulation.scene import Scene

SEED = 20_260_611
FAMILIES = ("filaments", "nuclei", "cells", "vesicles", "vessels")
"""None of them is among `focal_scenes.TRAINING_FAMILIES`."""
DENSITIES = ("sparse", "crowded")
"""A third of the bodies, and all of them; specimens take turns."""
LAYER = "thin layer"
LAYER_SHARE = 0.4
"""Thickness of a thin layer, over the range: 4 um of 10; as many bodies as in a sparse specimen."""
SIDE_PX = 320
BEAD_PIXELS = 1.5
"""Diameter of a bead: large enough to be sampled, small enough to be hardly wider than a point."""
DARK_COUNTS = 100.0
PEAK = 99.9
"""Percentile of the expected image that has the stated photo-electrons."""


_ABERRATION = ("depth_um", "coverslip_error_um", "sample_index")


@dataclass(frozen=True)
class Model:
    """A model for refocusing, opened.

    Attributes
    ----------
    entry : ModelEntry
    network : Module
    domain : RefocusDomain
    """

    entry: ModelEntry
    network: nn.Module
    domain: RefocusDomain

    def opened(self, image: np.ndarray, optics: DefocusOptics | None = None) -> Refocuser:
        """Return an image with the model's pixels, ready; `optics` are what its physics goes by."""
        domain = self.domain if optics is None else replace(self.domain, optics=optics)
        return Refocuser(self.network, domain, image, domain.pixel_um)

    @property
    def settings(self) -> FocalSettings:
        """Planes and pixels of stacks that reach over the range on both sides of their middle."""
        half = round(self.domain.range_um / self.domain.step_um)
        return FocalSettings((2 * half + 1, SIDE_PX, SIDE_PX), self.domain.step_um, self.domain.pixel_um)


def open_model(name: str | None = None, device: str = "cpu") -> Model:
    """Return a model by id or folder; default the bundled one for the lowest aperture.

    Raises
    ------
    RequestError
        If there is none.
    """
    if name:
        entry = find_model(name, "refocus")
    else:
        known = [e for e in list_models("refocus") if e.source == "bundled" and not e.problem]
        if not known:
            raise RequestError(
                "There is no model for refocusing in the package.", "Name one: an id or a folder."
            )
        entry = min(known, key=lambda e: e.card.scalers.get("na", 9.0))
    return Model(entry, open_network(entry, device).eval(), domain_of(entry.card))


def real_optics(model: Model, number: int) -> DefocusOptics:
    """Return a microscope with an aberration out of the range that was trained on.

    Depth, coverslip and refractive index are drawn as in training, by another seed; the network is told none
    of them. Aperture and wavelength are the stated ones.
    """
    ranges = trained_ranges(model)
    own = np.random.default_rng([SEED, 5, number])
    return replace(model.domain.optics, **{name: float(own.uniform(*r)) for name, r in ranges.items()})


def trained_ranges(model: Model) -> dict[str, tuple[float, float]]:
    """Return what depth, coverslip and index were drawn from, as the card says; else the usual ranges."""
    found = _ranges_in(model.entry.card.training)
    if found:
        return found
    spread, stated = OpticsSpread(), model.domain.optics
    if stated.immersion_index <= 1.1:
        return {name: getattr(spread, name) for name in _ABERRATION}
    about = stated.sample_index
    return {
        "depth_um": (0.3 * stated.depth_um, 1.7 * stated.depth_um),
        "coverslip_error_um": (0.0, 0.0),
        "sample_index": (about - 0.04, about + 0.04),
    }


def _ranges_in(told: Any) -> dict[str, tuple[float, float]]:
    """Return the first ranges of aberration that a card's record of its training holds."""
    if not isinstance(told, dict):
        return {}
    ranges = {n: told[n] for n in _ABERRATION if isinstance(told.get(n), list) and len(told[n]) == 2}
    if len(ranges) == len(_ABERRATION):
        return {n: (float(low), float(high)) for n, (low, high) in ranges.items()}
    return next((found for value in told.values() if (found := _ranges_in(value))), {})


def ideal_optics(domain: RefocusDomain) -> DefocusOptics:
    """Return the stated microscope without any aberration."""
    return replace(
        domain.optics, depth_um=0.0, coverslip_error_um=0.0, sample_index=domain.optics.immersion_index
    )


def phantom_stack(model: Model, family: str, number: int, layer: bool = False) -> FocalStack:
    """Return the stack of specimen `number` of a family, with an aberration of its own.

    Even numbers are sparse, odd ones crowded; with `layer` all of it lies around the middle plane.
    """
    rng = np.random.default_rng([SEED, FAMILIES.index(family), number, *([1] if layer else [])])
    settings = model.settings
    options = _sizes(family, settings.pixel_um * settings.shape[2])
    if layer or density_of(number) == "sparse":
        name = "trees" if family == "vessels" else "count"
        options[name] = max(1, round(options[name] / 3))
    if layer:  # what is thicker than the layer would not lie in it
        most = 0.45 * LAYER_SHARE * model.domain.range_um
        options["radius_um"] = min(options["radius_um"], most)

    def drawn(box: Box, rng: np.random.Generator) -> Scene:
        return make_scene(family, box, rng, options={family: options})

    which = 17 * FAMILIES.index(family) + number
    if not layer:
        return focal_stack(settings, real_optics(model, which), rng, drawn)
    optics = real_optics(model, 1000 + which)
    grid = settings.grid(optics)
    size = [n * v for n, v in zip(grid.shape, grid.voxel_um, strict=True)]
    thick = LAYER_SHARE * model.domain.range_um
    truth = rasterise(drawn(Box.centred((thick, size[1], size[2])), rng), grid)
    # what has grown out of the layer is cut off
    z_um = (np.arange(len(truth)) - (len(truth) - 1) / 2) * grid.voxel_um[0]
    truth[np.abs(z_um) > thick / 2 + 1e-9] = 0
    return image_focal_stack(truth, settings, optics)


def density_of(number: int) -> str:
    """Return how crowded specimen `number` of a family is."""
    return DENSITIES[number % len(DENSITIES)]


def _sizes(family: str, side_um: float) -> dict[str, Any]:
    """Return sizes that suit a field of this width: 104 um with the model for 20x."""
    s = side_um / 104
    return {
        "filaments": {"count": 60, "length_um": 60 * s, "persistence_um": 40 * s, "radius_um": 0.15 * s},
        "nuclei": {"count": 60, "radius_um": 4.0 * s, "texture_um": 1.5 * s},
        "cells": {"count": 24, "radius_um": 8.0 * s, "membrane_um": 0.4 * s},
        "vesicles": {"count": 60, "radius_um": 2.0 * s, "membrane_um": 0.3 * s},
        "vessels": {"trees": 4, "radius_um": 2.5 * s, "smallest_um": 0.6 * s, "wall_um": 0.5 * s},
    }[family]


def recorded(light: np.ndarray, electrons: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image with noise, float32 counts above a dark level of 100.

    Parameters
    ----------
    light : ndarray, shape (y, x)
        Expected.
    electrons : float
        Photo-electrons at the 99.9th percentile of `light`.
    rng : Generator
    """
    per = electrons / max(float(np.percentile(light, PEAK)), 1e-12)
    counts = rng.poisson(light * per) + READ_NOISE_E * rng.standard_normal(light.shape)
    return np.asarray(counts + DARK_COUNTS, np.float32)


def bead_image(
    model: Model, optics: DefocusOptics, plane_um: float, side: int, places_px: np.ndarray
) -> np.ndarray:
    """Return the light of beads of `BEAD_PIXELS` in one plane, the microscope focused on 0.

    Parameters
    ----------
    model : Model
    optics : DefocusOptics
        Of the microscope as it is.
    plane_um : float
        Where the beads lie: refocusing by this brings them into focus.
    side : int
        Pixels across.
    places_px : ndarray, shape (n, 2)
        (y, x).

    Returns
    -------
    ndarray, shape (y, x)
        Each bead has the light 1 in all.
    """
    return _spots(model, optics, "widefield", -plane_um, side, places_px)


def confocal_beads(model: Model, optics: DefocusOptics, side: int, places_px: np.ndarray) -> np.ndarray:
    """Return the same beads in focus, by the confocal microscope, in its units (see `FocalStack`)."""
    return _spots(model, optics, "confocal", 0.0, side, places_px) * np.float32(optics.depth_of_field_um)


def _spots(
    model: Model, optics: DefocusOptics, kind: Any, focus_um: float, side: int, places_px: np.ndarray
) -> np.ndarray:
    from napari_lfm.optics.defocus import transfer_table

    table = transfer_table(optics, model.domain.range_um + 2 * model.domain.step_um)
    transfer = table.planes(kind, focus_um, (side, side), model.domain.pixel_um)[0]
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    phase = sum(np.exp(-2j * np.pi * (fy * y + fx * x)) for y, x in places_px)
    u = np.maximum(np.pi * BEAD_PIXELS * np.hypot(fy, fx), 1e-3)
    phase = phase * 3 * (np.sin(u) - u * np.cos(u)) / u**3  # a ball, seen along z
    return np.asarray(np.fft.irfft2(transfer * phase, (side, side)).clip(min=0), np.float32)


def numpy_of(values: torch.Tensor) -> np.ndarray:
    """Return a tensor's values, float32."""
    return np.asarray(values.float().cpu().numpy(), np.float32)
