"""Seeded phantom families, and random scenes out of them.

Each family draws a `Scene` inside a `Box`. Family names are fixed, so that training
and evaluation can be split by family.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.families.cells import cells, nuclei
from napari_lfm.simulation.families.filaments import filaments
from napari_lfm.simulation.families.haze import tissue
from napari_lfm.simulation.families.neurons import neurons
from napari_lfm.simulation.families.recipe import RANDOM_FAMILIES
from napari_lfm.simulation.families.recipe import random_scene as _random_scene
from napari_lfm.simulation.families.simple import bars, beads, vesicles
from napari_lfm.simulation.families.vascular import vessels
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene, as_volume, thinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

Builder = Callable[..., Scene]


def mixtures(
    box: Box, rng: np.random.Generator, *, lenslet_um: float | None = None, brightness: float = 1.0
) -> Scene:
    """Return two or three families side by side in a hazy background, as in tissue.

    The scene carries the names of what is in it. `lenslet_um` sets the scale of the details, by default a
    30th of the field.
    """
    scale = lenslet_um if lenslet_um is not None else float(box.size_um[1:].min()) / 30
    names = list(RANDOM_FAMILIES)
    chosen = [names[k] for k in rng.choice(len(names), int(rng.integers(2, 4)), replace=False)]
    return _random_scene(chosen, box, rng, lenslet_um=scale, together=True, haze=1.0, brightness=brightness)


FAMILIES: dict[str, Builder] = {
    "vesicles": vesicles,
    "beads": beads,
    "vessels": vessels,
    "neurons": neurons,
    "bars": bars,
    "filaments": filaments,
    "nuclei": nuclei,
    "cells": cells,
    "tissue": tissue,
    "mixtures": mixtures,
}
ALIASES = {"shells": "vesicles"}


def family_name(name: str) -> str:
    """Return the fixed name of a family, aliases resolved.

    Raises
    ------
    RequestError
        If it does not exist; the message suggests the nearest.
    """
    family = ALIASES.get(name.strip().lower(), name.strip().lower())
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, [*FAMILIES, *ALIASES], n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(FAMILIES)}."
        raise RequestError(f"There is no phantom '{name.strip()}'.", hint)
    return family


def random_scene(
    families: Sequence[str],
    box: Box,
    rng: np.random.Generator,
    *,
    lenslet_um: float,
    haze: float = 0.3,
) -> Scene:
    """Return a random scene of one to three of these families, for training and evaluation.

    Parameters
    ----------
    families : sequence of str
        Names out of `FAMILIES`; the scene carries the names of those that were drawn (and ``tissue`` where
        haze came with them).
    box : Box
        Where the shapes may be; it may be taller than the imaged depths.
    rng : numpy.random.Generator
    lenslet_um : float
        Lenslet pitch in the object: all sizes are drawn relative to it.
    haze : float
        Share of the scenes that get a background haze; 0 keeps ``tissue`` out.
    """
    names = list(dict.fromkeys(family_name(f) for f in families))
    expanded = [n for f in names for n in (RANDOM_FAMILIES if f == "mixtures" else [f])]
    return _random_scene(list(dict.fromkeys(expanded)), box, rng, lenslet_um=lenslet_um, haze=haze)


def make_scene(
    kind: str,
    box: Box,
    seed: int | np.random.Generator = 0,
    *,
    labelled_share: float = 1.0,
    options: dict[str, dict[str, Any]] | None = None,
) -> Scene:
    """Return a scene of one family, or of several joined by ``+`` (``"vesicles+beads"``).

    Parameters
    ----------
    kind : str
        Family names joined by ``+``.
    box : Box
        Where the shapes may be.
    seed : int or numpy.random.Generator
        Same seed, same scene.
    labelled_share : float
        Below 1, only this random share of the bodies is fluorescent (sparse labelling).
    options : dict, optional
        Per family, keyword arguments of its function.

    Raises
    ------
    RequestError
        If a family does not exist; the message suggests the nearest.
    """
    rng = np.random.default_rng(seed)
    out = Scene(())
    for part in kind.split("+"):
        family = family_name(part)
        out = out + FAMILIES[family](box, rng, **(options or {}).get(family, {}))
    if labelled_share < 1:
        out = thinned(out, labelled_share, rng)
    return out


def make_phantom(kind: str, grid: Grid, seed: int | np.random.Generator = 0, **options: Any) -> xr.DataArray:
    """Return a rendered phantom, dims ``z y x``; arguments as for `make_scene`."""
    half = np.asarray(grid.voxel_um) / 2
    low = np.asarray(grid.origin_um) - half
    box = Box(_vector(low), _vector(low + np.asarray(grid.shape) * np.asarray(grid.voxel_um)))
    scene = make_scene(kind, box, seed, **options)
    return as_volume(rasterise(scene, grid).numpy(), scene, grid, name=kind)


def _vector(values: np.ndarray) -> tuple[float, float, float]:
    z, y, x = map(float, values)
    return z, y, x
