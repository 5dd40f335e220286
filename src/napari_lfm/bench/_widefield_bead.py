"""The measured bead beside models of its microscope (part of ``bench wide-field-rl``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_lfm.core.metrics import pearson
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf

BEAD = Path(__file__).parents[4] / "shared/data/pyotf/psf_wl520nm_z300nm_x130nm_na0.85_n1.0.tif"
STEP_UM = (0.3, 0.13, 0.13)
NA, WAVELENGTH_UM = 0.85, 0.52
_HALF = 20
_FINE = 3
"""Planes of the model per plane of the recording."""
_SHIFTS = np.arange(-6, 6.01, 1 / _FINE) / _FINE


def measured_bead(path: Path = BEAD) -> tuple[np.ndarray, tuple[float, float, float]] | None:
    """Return the surroundings (25, 41, 41) of the bead, background taken off, and where its middle is."""
    if not path.is_file():
        return None
    stack = tifffile.imread(path).astype(float)
    stack -= np.percentile(stack, 20)
    z, y, x = (int(k) for k in np.unravel_index(stack.argmax(), stack.shape))
    part = stack[:, y - _HALF : y + _HALF + 1, x - _HALF : x + _HALF + 1]
    plane = np.where(part[z] > 0.3 * part[z].max(), part[z], 0)
    rows, columns = np.arange(part.shape[1]), np.arange(part.shape[2])
    middle = ((plane.sum(1) * rows).sum() / plane.sum(), (plane.sum(0) * columns).sum() / plane.sum())
    return part, (float(z), float(middle[0]), float(middle[1]))


def bead_figures() -> dict[str, Any] | None:
    """Return correlation and widths of the bead and of models of it, None where it is absent.

    The model of the data sheet; the aperture that fits best; beads of some size with the nominal aperture.
    """
    found = measured_bead()
    if found is None:
        return None
    part, middle = found
    line = [round(v) for v in middle]
    across = (_width(part[line[0], line[1]], 0.13) + _width(part[line[0], :, line[2]], 0.13)) / 2
    figures: dict[str, Any] = {
        "bead": {"fwhm_across_um": across, "fwhm_along_um": _width(part[:, line[1], line[2]], 0.3)}
    }
    figures["nominal"] = {"na": NA, **_compare(part, middle, NA, 0.0)}
    figures["bead_size"] = [
        {"na": NA, "diameter_um": d, **_compare(part, middle, NA, d)} for d in (0.1, 0.2, 0.3, 0.4)
    ]
    tried = [{"na": na, **_compare(part, middle, na, 0.0)} for na in (0.7, 0.72, 0.74, 0.76, 0.78, 0.8, 0.82)]
    figures["best_aperture"] = max(tried, key=lambda row: row["correlation"])
    return figures


def _compare(
    part: np.ndarray, middle: tuple[float, float, float], na: float, diameter_um: float
) -> dict[str, float]:
    """Return how like a model is, at the depth where it is most so."""
    optics = WidefieldOptics(na=na, wavelength_um=WAVELENGTH_UM, immersion_index=1.0, sample_index=1.0)
    planes = len(part)
    fine = (STEP_UM[0] / _FINE, *STEP_UM[1:])
    shape = (2 * _FINE * planes + 1, part.shape[1] + 6, part.shape[2] + 6)
    model = widefield_psf(optics, shape, fine)
    if diameter_um:  # a ball's standard deviation along any axis
        model = gaussian_filter(model, [diameter_um / np.sqrt(20) / s for s in fine])
    best: tuple[float, np.ndarray] = (-1.0, part)
    for shift in _SHIFTS:
        grid = np.meshgrid(
            (np.arange(planes) - middle[0] + shift) * _FINE + _FINE * planes,
            np.arange(part.shape[1]) - middle[1] + _HALF + 3,
            np.arange(part.shape[2]) - middle[2] + _HALF + 3,
            indexing="ij",
        )
        seen = map_coordinates(model, grid, order=1)
        best = max(best, (pearson(seen, part), seen), key=lambda pair: pair[0])
    likeness, seen = best
    y, x = round(middle[1]), round(middle[2])
    z = int(seen[:, y, x].argmax())
    return {
        "correlation": likeness,
        "fwhm_across_um": (_width(seen[z, y], STEP_UM[1]) + _width(seen[z, :, x], STEP_UM[2])) / 2,
        "fwhm_along_um": _width(seen[:, y, x], STEP_UM[0]),
    }


def _width(line: np.ndarray, step: float) -> float:
    """Return the full width at half maximum of a line with one peak, by linear interpolation."""
    line = np.asarray(line, float) / line.max()
    top = int(line.argmax())
    left = top - int(np.argmax(line[top::-1] < 0.5))
    right = top + int(np.argmax(line[top:] < 0.5))
    start = left + (0.5 - line[left]) / (line[left + 1] - line[left])
    stop = right - (0.5 - line[right]) / (line[right - 1] - line[right])
    return float((stop - start) * step)
