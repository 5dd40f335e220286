"""Points and traces as tables, in micrometres of the one world that images lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_lfm.lightfield.views import lenslet_affine_px
from napari_lfm.methods.localization.traces import relative_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.methods.localization.points import Found


def place_um(data: LightfieldData, t: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (y_um, x_um) of places in the central view, in lenslets."""
    matrix = lenslet_affine_px(data.rectified)[:2] * data.pixel_um
    y, x = matrix @ np.stack([t, s, np.ones_like(t)])
    return y, x


def lenslets_at(data: LightfieldData, y_um: np.ndarray, x_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (t, s) in lenslets of points of the world; the inverse of `place_um`."""
    matrix = lenslet_affine_px(data.rectified)[:2] * data.pixel_um
    t, s = np.linalg.solve(matrix[:, :2], np.stack([y_um, x_um]) - matrix[:, 2:])
    return t, s


def points_table(found: Found, data: LightfieldData, algorithm: str) -> pd.DataFrame:
    """Return points as a table: place and confidence first."""
    y, x = place_um(data, found.t, found.s)
    return pd.DataFrame(
        {
            "z_um": found.z_um,
            "y_um": y,
            "x_um": x,
            "confidence": found.confidence,
            "sigma_z_um": found.sigma_z_um,
            "snr": found.snr,
            "at_edge": found.at_edge,
            "algorithm": algorithm,
            "neuron": np.arange(1, len(found) + 1),
        }
    )


def traces_table(
    traces: np.ndarray, spacing_s: float | None, numbers: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return traces (frames, neurons) as a long table: neuron, frame, time, light and dF/F.

    Neurons are numbered from 1 where `numbers` says nothing; times are not numbers without a spacing.
    """
    frames, count = traces.shape
    change = relative_change(traces)
    spacing = np.nan if spacing_s is None else spacing_s
    numbers = range(1, count + 1) if numbers is None else numbers
    return pd.DataFrame(
        {
            "neuron": np.repeat(np.asarray(numbers, int), frames),
            "frame": np.tile(np.arange(frames), count),
            "t_s": np.tile(np.arange(frames) * spacing, count),
            "light": traces.T.ravel(),
            "df_over_f": change.T.ravel(),
        }
    )
