"""Recorded stacks without a truth: resolution along z before and after, and what the result explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_lfm.bench._isotropic_scenes import DATA, Case
from napari_lfm.bench._isotropic_ways import cubic, learnt, new_task, patches_of, restored, wish_of
from napari_lfm.core.decorrelation import decorrelation
from napari_lfm.methods.isotropic.explained import Explained, explained
from napari_lfm.optics.axial_estimate import estimate_axial_blur

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Say = Callable[[str], None]

STACKS = {
    "Golgi": ("xyz_calibrated_16bit__golgi_bfa.tif", (0.3876, 0.35143, 0.35143)),
    "nuclear envelope": ("xyz_nuclear_envelope_drosophila.tif", (1.0, 0.24165, 0.24165)),
}
"""Name -> file and voxel (z, y, x), micrometres, as their metadata say."""
STEPS = 1000


def real_stacks(
    say: Say = lambda _: None,
    steps: int = STEPS,
    folder: Path = DATA / "neubias",
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Return figures of every recorded stack; the network is trained on it, with the blur that it tells.

    Parameters
    ----------
    say : callable
    steps : int
    folder : Path
        Of the files.
    pictures : Path, optional
        Folder for a picture of a slice along z, cubic interpolation above the restored one.

    Returns
    -------
    dict
        By name, None where the file is absent: ``factor, blur_um, blur_uncertainty_um, note``;
        ``before``, ``cubic`` and ``after``: resolution by decorrelation along ``z, y, x``, micrometres;
        ``consistency_share``: what of the light the blurred and sampled result leaves unexplained, beyond
        noise; ``cubic_share``: the same of cubic interpolation; ``noise_share``.
    """
    out: dict[str, Any] = {}
    for name, (file, voxel) in STACKS.items():
        out[name] = None
        if (folder / file).is_file():
            say(f"{name}: {steps} steps")
            stack = tifffile.imread(folder / file)
            out[name] = one_stack(name, stack, voxel, steps, pictures)
    return out


def one_stack(
    name: str,
    stack: np.ndarray,
    voxel_um: tuple[float, float, float],
    steps: int = STEPS,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Return the figures of one stack (z, y, x), see `real_stacks`."""
    blur = estimate_axial_blur(stack, voxel_um)
    # where a stack does not tell, planes are as far apart as its blur is wide
    sigma_um = blur.sigma_um if blur.is_known else voxel_um[0] / 2
    pixel = voxel_um[1]
    case = Case(name, np.zeros((0, 0, 0), np.float32), stack, voxel_um[0] / pixel, sigma_um / pixel, pixel)
    wish = wish_of(steps=steps, patch_px=64, validate_every_steps=max(1, steps // 20))
    source = patches_of(case, wish)
    result = restored(learnt(new_task(source, wish), wish).network, case)
    plain = cubic(case)
    kernel = source.degradation.kernel
    shares = {}
    for way, volume in (("consistency_share", result), ("cubic_share", plain)):
        for found in explained(volume, stack, kernel, case.factor):
            if isinstance(found, Explained):
                shares[way], shares["noise_share"] = found.share, found.noise_share
    if pictures is not None:
        _picture(pictures / f"isotropic-{name.replace(' ', '-')}.png", plain, result)
    fine = (pixel,) * 3
    return {
        "factor": case.factor,
        "planes": len(stack),
        "new_planes": len(result),
        "blur_um": sigma_um,
        "blur_uncertainty_um": blur.uncertainty_um if blur.is_known else None,
        "note": blur.note,
        "before": decorrelation(stack, voxel_um).resolution_um,
        "cubic": decorrelation(plain, fine).resolution_um,
        "after": decorrelation(result, fine).resolution_um,
        **shares,
    }


def _picture(path: Path, plain: np.ndarray, result: np.ndarray) -> None:
    """Write the slice along z with the most in it: before above after, enlarged."""
    from skimage.io import imsave

    row = int(plain.std((0, 2)).argmax())
    low, high = np.percentile(plain[:, row], [1, 99.8])
    gap = np.full((3, plain.shape[2]), high, np.float32)
    sheet = np.concatenate([plain[:, row], gap, result[:, row]])
    grey = np.clip((sheet - low) / max(float(high - low), 1e-6), 0, 1) ** 0.7
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(
        path, np.kron(np.rint(255 * grey).astype(np.uint8), np.ones((3, 3), np.uint8)), check_contrast=False
    )
