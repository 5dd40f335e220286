"""One recording reconstructed by the public methods and scored: a row of the table for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Preview, Result
from napari_lfm.core.metrics import SCORES, psnr_db, score_volume
from napari_lfm.methods.base import Request
from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield, DeconvolveParameters
from napari_lfm.methods.lfmnet import Lfmnet, LfmnetParameters

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.bench._quality_scenes import Field
    from napari_lfm.networks.registry import ModelEntry

Row = dict[str, Any]


class Judge:
    """Scores volumes of one specimen.

    The truth is drawn on the very voxels of the volume; the outermost lenslets are left out.

    Parameters
    ----------
    field : Field
    draw : callable
        Voxels per lenslet -> truth (z, y, x).
    """

    def __init__(self, field: Field, draw: Callable[[int], np.ndarray]) -> None:
        self.field, self._draw = field, draw
        self._truths: dict[int, np.ndarray] = {}
        near = np.abs(np.asarray(field.z_um)) <= field.microscope.depth_of_field_um
        self.parts = {"near": near, "away": ~near}

    def score(self, volume: np.ndarray) -> Row:
        """Return the four scores, and the PSNR of the planes near z = 0 and away from it."""
        result, truth = self._both(volume)
        all_scores = score_volume(result, truth)
        out: Row = {name: _short(all_scores[name]) for name in SCORES}
        span = float(np.ptp(truth))
        for name, which in self.parts.items():
            if which.any() and truth[which].any():
                # the whole truth's range, so that dim planes do not count as much as bright ones
                out[f"psnr_db_{name}"] = _short(psnr_db(result[which], truth[which], data_range=span))
        return out

    def constant(self) -> Row:
        """Return the scores of an image that knows nothing."""
        truth = self._both(np.ones(self.truth(3).shape, np.float32))[1]
        return {name: _short(v) for name, v in score_volume(truth, truth)["constant"].items()}

    def truth(self, voxels: int) -> np.ndarray:
        """Return the truth at a sampling."""
        if voxels not in self._truths:
            self._truths[voxels] = self._draw(voxels)
        return self._truths[voxels]

    def _both(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = volume.shape[-1] // self.field.setup.lenslets
        truth, edge = self.truth(voxels), voxels * self.field.setup.edge_lenslets
        inside = slice(edge, truth.shape[-1] - edge)
        return volume[:, inside, inside], truth[:, inside, inside]


def richardson_lucy(
    field: Field, inputs: dict[str, xr.DataArray], voxels: int, judge: Judge, anti_aliasing: bool = True
) -> Row:
    """Return the scores of every iteration, and the relative residual after each.

    Returns
    -------
    dict
        ``iterations``: a list of scores, the first one after one iteration; ``residuals``: the same for the
        re-projection; ``constant``: scores of an image that knows nothing.
    """
    z = field.z_um
    parameters = DeconvolveParameters(
        z_min_um=z[0],
        z_max_um=z[-1] + 1e-3 * field.dz_um,  # the last plane, whatever rounding does
        z_step_um=field.dz_um,
        voxels_per_lenslet=voxels,
        iterations=field.setup.iterations,
        anti_aliasing=anti_aliasing,
    )
    scores: list[Row] = []
    residuals: list[float] = []
    for event in DeconvolveLightfield().run(_request(field, inputs, DeconvolveLightfield.id, parameters)):
        if isinstance(event, Preview):
            scores.append(judge.score(np.asarray(event.image)))
            residuals.append(event.progress.values["residual"])
        elif isinstance(event, Result):
            residuals.append(event.provenance["figures"]["relative_residual"])
    # each iteration tells the residual of what it started from
    return {
        "iterations": scores,
        "residuals": [_short(r) for r in residuals[1:]],
        "constant": judge.constant(),
    }


def network(
    field: Field, inputs: dict[str, xr.DataArray], entry: ModelEntry, voxels: int, judge: Judge
) -> Row:
    """Return the scores of a model's volume, and of the iterations that refine it.

    Returns
    -------
    dict
        ``network``; ``refined``: a list of scores, one for each iteration; ``refined_residuals``: before
        the first one (the network's volume at its best brightness) and after each.
    """
    parameters = LfmnetParameters(refine_iterations=field.setup.refine, voxels_per_lenslet=voxels)
    alone: np.ndarray | None = None
    refined: list[Row] = []
    residuals: list[float] = []
    request = _request(field, inputs, Lfmnet.id, parameters, str(entry.folder))
    for event in Lfmnet().run(request):
        if isinstance(event, Preview) and "iteration" in event.progress.values:
            refined.append(judge.score(np.asarray(event.image)))
            residuals.append(event.progress.values["residual"])
        elif isinstance(event, Preview):
            alone = np.asarray(event.image)
        elif isinstance(event, Result):
            if not refined:
                alone = np.asarray(event.outputs[event.primary])
            else:
                residuals.append(event.provenance["figures"]["refined_residual"])
    assert alone is not None
    return {
        "network": judge.score(alone),
        "refined": refined,
        "refined_residuals": [_short(r) for r in residuals],
    }


def _request(
    field: Field, inputs: dict[str, xr.DataArray], method: str, parameters: Any, model: str | None = None
) -> Request:
    return Request(
        method=method,
        inputs=inputs,
        parameters=parameters,
        microscope=field.microscope,
        lattice=field.lattice,
        layout="raw",
        model=model,
        device="auto",
        memory_gib=field.setup.memory_gib,
    )


def _short(value: float) -> float:
    return float(f"{value:.5g}")
