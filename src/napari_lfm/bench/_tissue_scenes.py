"""Specimens and haze that WFCON-Net is scored on: other phantoms than it was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.labelled import labelled
from napari_lfm.core.sharpness import sharpness_by_depth
from napari_lfm.networks.stack_scale import stack_levels
from napari_lfm.simulation.brain_slice import brain_slice
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.families.cells import cells, nuclei
from napari_lfm.simulation.families.haze import tissue
from napari_lfm.simulation.families.neurons import neurons
from napari_lfm.simulation.families.vascular import vessels
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue, TissueSettings
from napari_lfm.simulation.tissue_files import CAMERA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    import xarray as xr

    from napari_lfm.simulation.scene import Box, Scene

ELECTRONS = 4000.0
"""Of the brightest voxels of a wide-field stack."""
ABERRATION_UM = 6.0
LEVELS = {"low": 200.0, "middle": 100.0, "high": 50.0, "beyond": 25.0}
"""Mean free paths, um. The last is shorter than any in training."""
SIDE = 192
"""Pixels across of what is scored: the middle of a wider specimen, so that haze comes from beyond it."""
MASK_SIGNAL, MASK_BACKGROUND = 0.15, 0.03


@dataclass(frozen=True)
class TissueStack:
    """One recording with what a confocal microscope would have shown.

    Attributes
    ----------
    widefield : DataArray, uint16, dims ``z y x``
    confocal : ndarray, shape (z, y, x)
        Expected light: without noise.
    group, level : str
    """

    widefield: xr.DataArray
    confocal: np.ndarray
    group: str
    level: str

    @property
    def truth(self) -> np.ndarray:
        """The confocal stack, 0 to 1 between the percentiles."""
        return normalised(self.confocal)


def normalised(stack: np.ndarray) -> np.ndarray:
    """Return a stack with its percentiles 0.5 and 99.9 at 0 and 1: every way is scored like this."""
    stack = np.asarray(stack, np.float32)
    return stack_levels(stack).scaled(stack)


def other_slice(box: Box, rng: np.random.Generator, morphologies: Sequence[str | Path] = ()) -> Scene:
    """Return tissue of families that no training drew: cells with membranes, whole neurons, vessels.

    Neurons are traced ones where files of such are given.
    """
    area = float(box.size_um[1:].prod()) / 1700
    scene = cells(
        box,
        rng,
        count=int(rng.integers(4, 12) * area) + 1,
        radius_um=float(rng.uniform(3.5, 6)),
        membrane_um=float(rng.uniform(0.3, 0.6)),
        organelles=30,
        cytosol=float(rng.uniform(0.15, 0.4)),
    )
    scene = scene + neurons(
        box,
        rng,
        count=int(rng.integers(2, 6) * area) + 1,
        morphologies=morphologies,
        soma_um=float(rng.uniform(4, 6)),
        reach_um=35.0,
        brightness=float(rng.uniform(0.4, 1.0)),
        nucleus_level=float(rng.uniform(0.3, 0.8)),
    )
    if rng.random() < 0.5:
        scene = scene + vessels(box, rng)
    return scene + tissue(box, rng, scale_um=12.0, contrast=0.4, brightness=float(rng.uniform(0.005, 0.04)))


def nuclei_slice(box: Box, rng: np.random.Generator) -> Scene:
    """Return densely packed nuclei: another structure, as the paper's DAPI channel."""
    volume = float(box.size_um.prod()) / 69_000
    scene = nuclei(
        box,
        rng,
        count=int(rng.integers(15, 35) * volume) + 1,
        radius_um=float(rng.uniform(3, 4.5)),
        texture_um=float(rng.uniform(0.8, 2.0)),
    )
    return scene + tissue(box, rng, scale_um=15.0, contrast=0.3, brightness=float(rng.uniform(0.005, 0.03)))


GROUPS: dict[str, Callable[..., Scene]] = {
    "seeds": brain_slice,
    "phantoms": other_slice,
    "nuclei": nuclei_slice,
}
"""What is scored: trained families with other seeds, other families, another structure."""


def make_stacks(
    group: str,
    level: str,
    count: int,
    maker: ThickTissue | None = None,
    scene: Callable[..., Scene] | None = None,
) -> list[TissueStack]:
    """Return recordings of a group of specimens in a level of haze; the same specimens at every level."""
    made = maker or ThickTissue(TissueSettings())
    out = []
    for k in range(count):
        pair = made.pair(
            np.random.default_rng([90_210, k]),
            Scattering(LEVELS[level], ABERRATION_UM),
            scene or GROUPS[group],
        )
        out.append(TissueStack(*recorded(pair.widefield, pair.confocal, made, k)[:2], group, level))
    return out


def recorded(
    widefield: torch.Tensor, confocal: torch.Tensor, made: ThickTissue, number: int
) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """Return what the camera recorded of the middle, the truth there, and the expected electrons."""
    light = widefield.numpy() / float(np.percentile(widefield.numpy(), 99.9)) * ELECTRONS
    cut = [slice((n - SIDE) // 2, (n + SIDE) // 2) if n > SIDE else slice(None) for n in light.shape[1:]]
    light = light[:, cut[0], cut[1]]
    counts = record(light, CAMERA, np.random.default_rng([77, number]))
    image = labelled(counts, "zyx", dict(zip("zyx", made.settings.voxel_um, strict=True)))
    return image, confocal.numpy()[:, cut[0], cut[1]], light


def sharpness_at(stack: np.ndarray, confocal: np.ndarray, planes: Sequence[int]) -> tuple[float, float]:
    """Return the gradient of signal and of background in some planes, as the paper's figure 1 has them.

    Signal is where the confocal stack is bright, background where it is dark; NaN where there is too little.
    """
    light, truth = normalised(stack), normalised(confocal)
    out = []
    for k in planes:
        signal, dark = truth[k] > MASK_SIGNAL, truth[k] < MASK_BACKGROUND
        if min(signal.sum(), dark.sum()) >= 400:
            gy, gx = np.gradient(light[k])
            rough = np.abs(gy) + np.abs(gx)
            out.append((float(rough[signal].mean()), float(rough[dark].mean())))
    return (float("nan"), float("nan")) if not out else tuple(np.mean(out, 0))


def hardness(level: str, count: int = 5) -> dict[str, float]:
    """Return how much contrast is left at 38 um of a slice, over that of a sample of 3 um.

    Returns
    -------
    dict
        ``regions``: by bright and dark regions (the paper's figure 1, where it is about 0.2); ``patches``: by
        the sharpest and the flattest patch of 32 x 32 pixels.
    """
    thin = ThickTissue(TissueSettings(shape=(6, 384, 384)))
    thick = ThickTissue(TissueSettings())
    regions: list[list[float]] = [[], []]
    patches: list[list[float]] = [[], []]
    for which, (maker, length, planes) in enumerate(
        ((thin, 1e6, range(1, 5)), (thick, LEVELS[level], range(74, 78)))
    ):
        for k in range(count):
            aberration = 0.0 if which == 0 else ABERRATION_UM
            pair = maker.pair(np.random.default_rng([1234, k]), Scattering(length, aberration))
            counts = np.asarray(recorded(pair.widefield, pair.confocal, maker, k)[0].values, np.float32)
            side = counts.shape[-1]
            cut = slice((384 - side) // 2, (384 + side) // 2)
            truth = pair.confocal.numpy()[:, cut, cut]
            signal, dark = sharpness_at(counts, truth, list(planes))
            if np.isfinite(signal):
                regions[which].append(signal / dark)
            ratio = sharpness_by_depth(counts).ratio[planes.start : planes.stop]
            patches[which].append(float(np.nanmean(ratio)))
    return {
        "regions": float(np.mean(regions[1]) / np.mean(regions[0])),
        "patches": float(np.mean(patches[1]) / np.mean(patches[0])),
    }
