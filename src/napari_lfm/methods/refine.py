"""Richardson-Lucy that starts from a volume instead of from an even grey: a few iterations are enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls

from napari_lfm.methods.deconvolve_lightfield import DeconvolveParameters
from napari_lfm.methods.plan import Plan, make_plan
from napari_lfm.methods.smoothing import put_fine
from napari_lfm.methods.solver import RichardsonLucy, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.lightfield_data import LightfieldData

FLOOR = 0.4
"""Every voxel starts with at least this part of an even volume's brightness: zeros could never grow, and
with less the network's volume of a dense specimen falls behind an even start within a few iterations."""
_SAMPLINGS = (7, 5, 3)


def refine_plan(
    request: Request, z_um: np.ndarray, voxels: int, iterations: int, data: LightfieldData | None = None
) -> tuple[Request, Plan]:
    """Return the deconvolution that refines a volume, at a sampling that it can be done with.

    Parameters
    ----------
    request : Request
        Of the network's run.
    z_um : ndarray
        Depths of the volume, evenly spaced.
    voxels : int
        Voxels per lenslet of the volume; fewer are taken where the operator would not fit the memory.
    iterations : int
    data : LightfieldData, optional
        Rectified frames where there are any yet.

    Raises
    ------
    RequestError
        If not even one plane fits.
    """
    choices = [voxels] if voxels <= _SAMPLINGS[0] else []
    choices += [s for s in _SAMPLINGS if s < voxels]
    last: tuple[Request, Plan] | None = None
    for s in choices:
        step = float(z_um[1] - z_um[0]) if len(z_um) > 1 else 1.0
        parameters = DeconvolveParameters(
            z_min_um=float(z_um[0]),
            z_max_um=float(z_um[-1]) + 1e-3 * step,  # the last plane, whatever rounding does
            z_step_um=step,
            voxels_per_lenslet=s,
            iterations=iterations,
            accelerate=True,
        )
        wanted = replace(
            request, method="deconvolve-lightfield", parameters=parameters, model=None, continue_from=None
        )
        last = wanted, make_plan(wanted, data)
        if not last[1].streamed:
            break
    assert last is not None
    wanted, plan = last
    return wanted, replace(plan, frames_at_once=1)


def start_from(solver: RichardsonLucy, volume: torch.Tensor) -> State:
    """Return the best start that a volume allows.

    Light from the margin is taken to be like that at the edge of the field. The brightness of the volume,
    of an even haze in it, of the guard planes, and the camera's offset are those that explain the
    measurement best together (non-negative least squares; the prediction is linear in all four).

    Parameters
    ----------
    solver : RichardsonLucy
        For one frame.
    volume : tensor, shape (1, z, rows * s, columns * s)
        The observed field, any brightness; negative values count as 0.

    Returns
    -------
    State
    """
    m = solver.measurement
    explained = explain(solver, volume)
    even = _fit([explained.columns[1], *explained.columns[len(explained.parts) :]], explained.target)[0]
    start = torch.zeros_like(explained.parts[0])
    for level, part in zip(_floored(explained.levels, even), explained.parts, strict=True):
        start += level * part
    offset = m.data.new_zeros(1, 1, 1, 1)
    if solver.options.fit_offset:
        # the solver's shift keeps prediction and data positive down to minus itself
        offset = (offset + explained.offset).clamp(min=-0.9 * float(m.shift.min()))
    return State(start, offset)


@dataclass(frozen=True)
class Explained:
    """A measurement explained by a volume and by what else there may be.

    Attributes
    ----------
    parts : list of tensor
        Channels of the volume, of an even haze in it, and of light in the guard planes, if there are any.
    levels : ndarray
        How much of each.
    offset : float
        The camera's.
    columns : list of tensor
        Predictions of the parts and of the offset, over observed pixels.
    target : tensor
        The measurement there.
    """

    parts: list[torch.Tensor]
    levels: np.ndarray
    offset: float
    columns: list[torch.Tensor]
    target: torch.Tensor


def explain(solver: RichardsonLucy, volume: torch.Tensor) -> Explained:
    """Fit the brightness of a volume, an even haze, the guard planes' light and the camera's offset.

    Parameters
    ----------
    solver : RichardsonLucy
        For one frame.
    volume : tensor, shape (1, z, rows * s, columns * s)
        The observed field; the margin is taken to be like its edge. Negative values count as 0.
    """
    m, g, projector = solver.measurement, solver.projector.geometry, solver.projector
    (sy, sx), (my, mx) = g.planes[0].voxels, g.margin
    pad = (mx * sx, mx * sx, my * sy, my * sy)
    shape = torch.nn.functional.pad(volume.clamp(min=0), pad, mode="replicate")
    empty = m.data.new_zeros(1, g.voxel_channels, *g.volume_cells)
    nothing = m.data.new_zeros(1, 1, 1, 1)
    parts = [put_fine(projector, empty, shape.to(empty), solver.n_fine)]
    parts.append(put_fine(projector, empty, torch.ones_like(shape).to(empty), solver.n_fine))
    if solver.n_fine < len(g.planes):
        parts.append(torch.ones_like(empty) - parts[1])
    seen = (m.response > 0).expand_as(m.data)
    target = m.data[seen].cpu().double()  # not every device has doubles
    columns = [solver.predict(State(part, nothing))[seen].cpu().double() for part in parts]
    columns += [torch.ones_like(target), -torch.ones_like(target)] if solver.options.fit_offset else []
    levels = _fit(columns, target)
    offset = float(levels[-2] - levels[-1]) if solver.options.fit_offset else 0.0
    return Explained(parts, levels[: len(parts)], offset, columns, target)


def _floored(levels: np.ndarray, even: float) -> list[float]:
    """Let the volume be as bright as it was fitted, and everything else at least a little."""
    return [float(levels[0]), *(max(float(v), FLOOR * even, 1e-6) for v in levels[1:])]


def _fit(columns: Sequence[torch.Tensor], target: torch.Tensor) -> np.ndarray:
    """Return non-negative weights of `columns` that come nearest to `target`."""
    a = torch.stack(list(columns), 1)
    # the normal equations' square root: a few numbers instead of all pixels
    gram = (a.T @ a).numpy()
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 1e-14 * values[-1]))
    right = (vectors.T @ (a.T @ target).numpy()) / root
    weights, _ = nnls(root[:, None] * vectors.T, right)
    return np.asarray(weights)
