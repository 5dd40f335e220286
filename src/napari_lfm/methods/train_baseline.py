"""Richardson-Lucy on simulated frames: what a network is compared with while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.core.metrics import psnr_db
from napari_lfm.methods.deconvolve_lightfield import DeconvolveParameters
from napari_lfm.methods.plan import options_of, planes_of
from napari_lfm.methods.solver import Measurement, RichardsonLucy
from napari_lfm.optics.projector import Geometry, LensletProjector
from napari_lfm.optics.psf import CellOptics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lfm.training.lfmnet_plan import LfmnetPlan
    from napari_lfm.training.lightfield_pairs import Pair

FEW, MANY = 5, 15
ENOUGH_BYTES = 1 << 30
"""A larger operator is made for a narrower margin around the field."""
_LEAST_SHIFT = 1e-4
"""Of the brightest pixels: keeps the Poisson likelihood defined where a frame has no negative pixels."""


class Baseline:
    """Deconvolution with the microscope's nominal optics and the method's own settings, guard planes too.

    A task calls it with each validation frame. The volumes have the network's number of voxels.

    Parameters
    ----------
    plan : LfmnetPlan
    """

    def __init__(self, plan: LfmnetPlan) -> None:
        self.plan = plan
        self._few: list[np.ndarray] = []
        self._solver: RichardsonLucy | None = None
        self._projector = LensletProjector(baseline_geometry(plan), "cpu", plan.settings.storage)

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Build the projector, yielding (planes done, planes in all)."""
        yield from self._projector.build_steps()

    def __call__(self, image: torch.Tensor) -> np.ndarray:
        """Return the volume after 15 iterations, (z, y, x); that after 5 is kept for `few_psnr_db`."""
        with torch.no_grad():
            solver = self._solver_of(image)
            state = solver.start()
            while state.iteration < MANY:
                if state.iteration == FEW:
                    self._few.append(self._volume(solver.volume(state)))
                state = solver.step(state)
            return self._volume(solver.volume(state))

    def few_psnr_db(self, pairs: Sequence[Pair]) -> float:
        """Return the score after 5 iterations on the frames seen so far."""
        scores = [psnr_db(v, p.volume[0].numpy()) for v, p in zip(self._few, pairs, strict=True)]
        return float(np.mean(scores))

    def release(self) -> None:
        """Let go of the operator and the volumes."""
        self._few.clear()
        self._solver = None
        self._projector.matrix = None

    def _solver_of(self, image: torch.Tensor) -> RichardsonLucy:
        data = self._projector.image_to_channels(image[None].float())
        shift = (-torch.quantile(data.flatten()[:: max(1, data.numel() // 200_000)], 0.01)).clamp(
            min=_LEAST_SHIFT
        )
        response = torch.ones_like(data)
        measurement = Measurement(data, response, 0.0, shift.reshape(1, 1, 1, 1), 0.0)
        if self._solver is None:
            cell, s = self.plan.microscope.lenslet_um or 1.0, self.plan.voxels_per_lenslet
            parameters = _parameters(self.plan)
            voxel = (parameters.z_step_um, cell / s, cell / s)
            self._solver = RichardsonLucy(
                self._projector, measurement, options_of(parameters), len(self.plan.z_um), voxel
            )
            return self._solver
        return self._solver.for_measurement(measurement)

    def _volume(self, volume: torch.Tensor) -> np.ndarray:
        s, t = self.plan.voxels_per_lenslet, self.plan.truth_voxels
        if s != t:  # light per voxel, of which there are more
            volume = functional.interpolate(volume, scale_factor=t / s, mode="bilinear") * (s / t) ** 2
        return volume[0].cpu().numpy()


def baseline_geometry(plan: LfmnetPlan) -> Geometry:
    """Return the geometry of the comparison: the planes of the volume and its guard planes."""
    optics = CellOptics.of(plan.microscope, plan.n_pixels)
    planes, _ = planes_of(_parameters(plan))
    widths = [optics.half_width(z) for z in plan.z_um]
    half = (max(w[0] for w in widths), max(w[1] for w in widths))
    cells = (plan.settings.cells, plan.settings.cells)
    for margin in (half, (-(-half[0] // 2), -(-half[1] // 2))):
        geometry = Geometry.plan(optics, planes, cells, margin=margin, max_half_width=half)
        if geometry.matrix_bytes(plan.settings.storage) <= ENOUGH_BYTES:
            break
    return geometry


def _parameters(plan: LfmnetPlan) -> DeconvolveParameters:
    z = plan.z_um
    step = (z[-1] - z[0]) / (len(z) - 1) if len(z) > 1 else plan.microscope.depth_of_field_um
    return DeconvolveParameters(
        z_min_um=z[0],
        z_max_um=z[-1] + 0.01 * step,  # no plane is lost to rounding
        z_step_um=round(step, 6),
        voxels_per_lenslet=plan.voxels_per_lenslet,
        iterations=MANY,
    )
