"""A simulated recording as a folder of files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import RequestError
from napari_lfm.io.points import read_points, write_points
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image
from napari_lfm.lightfield.files import load_lattice, save_lattice
from napari_lfm.optics.presets import save_microscope
from napari_lfm.simulation.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

_FRAMES = ("raw", "white", "dark", "expected")


def write_recording(
    folder: str | Path,
    recording: Recording,
    microscope: Microscope,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write frames and truth (OME-TIFF), points (CSV), lattice (JSON) and microscope (YAML).

    Returns
    -------
    dict
        What was written: ``raw``, ``white``, ``dark``, ``expected``, ``truth``, ``points``, ``grid``,
        ``microscope``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images: dict[str, xr.DataArray] = {
        "raw": recording["raw"],
        "white": recording["white"],
        "dark": recording["dark"],
        "expected": recording["expected"],
        "truth": recording["truth"],
    }
    out = {n: write_image(folder / f"{n}.ome.tif", image, provenance) for n, image in images.items()}
    points = recording["points"].assign(confidence=1.0)
    out["points"] = write_points(folder / "points.csv", points, provenance)
    out["grid"] = save_lattice(folder / "grid.json", recording["lattice"])
    out["microscope"] = save_microscope(microscope, folder / "microscope.yaml")
    return out


def read_recording(folder: str | Path) -> Recording:
    """Read what `write_recording` wrote.

    Raises
    ------
    RequestError
        If something is missing or damaged.
    """
    folder = Path(folder)
    raw, white, dark, expected = (read_image(folder / f"{n}.ome.tif", kind="image") for n in _FRAMES)
    truth = read_image(folder / "truth.ome.tif", kind=None)
    points: pd.DataFrame = read_points(folder / "points.csv")[["z_um", "y_um", "x_um"]]
    if truth.ndim != 3:
        raise RequestError(f"{folder / 'truth.ome.tif'} is no volume.", "Simulate again.")
    return Recording(
        raw=raw.load(),
        white=white.load(),
        dark=dark.load(),
        truth=truth.load(),
        expected=expected.load(),
        points=points,
        lattice=load_lattice(folder / "grid.json"),
    )
