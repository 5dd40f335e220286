"""Pairs of stacks of simulated tissue as a folder of files, as a user's own pairs would lie there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.write import write_image
from napari_lfm.optics.microscope import Camera
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue, TissueSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

CAMERA = Camera(pixel_um=6.5, gain_e_per_count=0.5, offset_counts=100.0, read_noise_e=1.6)
CONFOCAL_SHARE = 0.1
"""Electrons of a confocal stack over those of a wide-field one: a pinhole and a dwell time are dear."""
_NAMES = ("widefield", "confocal", "truth")


def recorded_pair(
    made: ThickTissue,
    seed: int | list[int],
    scattering: Scattering,
    electrons: float,
    shift_px: tuple[int, int, int] = (0, 0, 0),
) -> dict[str, xr.DataArray]:
    """Return both recordings (uint16, with noise) and the fluorophores of one specimen.

    Parameters
    ----------
    made : ThickTissue
    seed : int or list of int
    scattering : Scattering
    electrons : float
        Of the brightest voxels of the wide-field stack.
    shift_px : tuple of int
        Planes, rows and columns by which the confocal stack shows the specimen moved.
    """
    rng = np.random.default_rng(seed)
    pair = made.pair(rng, scattering)
    voxel = dict(zip("zyx", made.settings.voxel_um, strict=True))
    out = {"truth": labelled(pair.truth.numpy(), "zyx", voxel)}
    confocal = np.roll(pair.confocal.numpy(), shift_px[1:], (1, 2))
    if shift_px[0]:
        confocal = np.roll(confocal, shift_px[0], 0)
        empty = slice(0, shift_px[0]) if shift_px[0] > 0 else slice(shift_px[0], None)
        confocal[empty] = 0
    for name, light, share in (
        ("widefield", pair.widefield.numpy(), 1.0),
        ("confocal", confocal, CONFOCAL_SHARE),
    ):
        peak = float(np.percentile(light, 99.9))
        counts = record(light / peak * electrons * share, CAMERA, rng)
        out[name] = labelled(counts, "zyx", voxel)
    return out


def write_tissue(
    folder: str | Path,
    count: int = 1,
    shape: tuple[int, int, int] = (80, 256, 256),
    scattering_um: float = 100.0,
    electrons: float = 4000.0,
    shift_px: tuple[int, int, int] = (0, 0, 0),
    seed: int = 0,
) -> Iterator[tuple[int, int, dict[str, Path]]]:
    """Write pairs into the folders ``widefield``, ``confocal`` and ``truth``; yields (done, all, files).

    Parameters
    ----------
    folder : path
    count : int
        Pairs.
    shape : tuple of int
        Planes, rows, columns.
    scattering_um : float
        Mean free path.
    electrons, shift_px, seed
        As for `recorded_pair`.

    Raises
    ------
    RequestError
        If a figure makes no stack.
    """
    if count < 1 or scattering_um <= 0 or electrons <= 0:
        raise RequestError(
            f"{count} pairs with a mean free path of {scattering_um:g} um and {electrons:g} electrons "
            "cannot be simulated.",
            "Give figures above 0.",
        )
    if any(abs(s) >= n for s, n in zip(shift_px, shape, strict=True)):
        raise RequestError(f"A shift of {shift_px} leaves nothing of {shape} voxels.", "Give a smaller one.")
    made = ThickTissue(TissueSettings(shape=shape))
    settings = {
        "kind": "tissue", "scattering_um": scattering_um, "electrons": electrons, "shift_px": list(shift_px),
    }  # fmt: skip
    for k in range(count):
        pair = recorded_pair(made, [seed, k], Scattering(scattering_um), electrons, shift_px)
        files = {}
        for name in _NAMES:
            place = Path(folder) / name
            place.mkdir(parents=True, exist_ok=True)
            provenance = {"simulated": {**settings, "seed": [seed, k]}}
            files[name] = write_image(place / f"pair-{k + 1:03d}.ome.tif", pair[name], provenance)
        yield k + 1, count, files
