"""Focal stacks of one specimen, by a wide-field microscope with its aberration and by a confocal one.

Laterally the specimen goes on periodically, so that its haze comes from beyond the field too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.defocus import DefocusOptics, TransferTable, transfer_table
from napari_lfm.simulation.focal_scenes import focal_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class FocalSettings:
    """Planes and pixels of a stack.

    Attributes
    ----------
    shape : tuple of int
        Planes and pixels, (z, y, x).
    step_um : float
        Of the focus drive.
    pixel_um : float
        In the sample.
    beyond : int
        Further planes above and below that hold objects too: they are seen blurred only.
    """

    shape: tuple[int, int, int] = (41, 256, 256)
    step_um: float = 0.5
    pixel_um: float = 0.325
    beyond: int = 6

    def __post_init__(self) -> None:
        """Refuse stacks that are none."""
        if min(self.shape) < 1 or min(self.step_um, self.pixel_um) <= 0 or self.beyond < 0:
            raise RequestError(
                f"A stack of {self.shape} planes and pixels, {self.step_um:g} um apart, cannot be simulated.",
                "Give sizes of at least one, and distances above 0.",
            )

    @property
    def object_planes(self) -> int:
        """Planes of the specimen."""
        return self.shape[0] + 2 * self.beyond

    @property
    def table_range_um(self) -> float:
        """Largest distance between focus and object."""
        return (self.shape[0] + self.beyond) * self.step_um

    def grid(self, optics: DefocusOptics) -> Grid:
        """Return the voxels of the specimen; a step of the focus drive is longer in the sample."""
        step = self.step_um * optics.drive_ratio
        return Grid.centred((self.object_planes, *self.shape[1:]), (step, self.pixel_um, self.pixel_um))


@dataclass(frozen=True)
class FocalStack:
    """Expected light, before any noise.

    Attributes
    ----------
    widefield : Tensor, float32, shape (z, y, x)
        Focus rises with the index.
    confocal : Tensor, float32, shape (z, y, x)
        Per depth of field: an object much thinner than that is about as bright as in `widefield`.
    truth : Tensor, float32, shape (z, y, x)
        Fluorophores of the same planes.
    optics : DefocusOptics
    points : ndarray, shape (n, 3)
        Bodies, in voxels (z, y, x) of the stack.
    families : tuple of str
    """

    widefield: torch.Tensor
    confocal: torch.Tensor
    truth: torch.Tensor
    optics: DefocusOptics
    points: np.ndarray
    families: tuple[str, ...] = field(default=())


def focal_stack(
    settings: FocalSettings,
    optics: DefocusOptics,
    seed: int | np.random.Generator,
    scene: Callable[[Box, np.random.Generator], Scene] = focal_scene,
    device: torch.device | str = "cpu",
) -> FocalStack:
    """Return the stack of a random specimen.

    Parameters
    ----------
    settings : FocalSettings
    optics : DefocusOptics
    seed : int or Generator
    scene : callable
        Draws a specimen into a box.
    device : torch.device or str
    """
    rng = np.random.default_rng(seed)
    grid = settings.grid(optics)
    size = [n * v for n, v in zip(grid.shape, grid.voxel_um, strict=True)]
    drawn = scene(Box.centred((size[0], size[1], size[2])), rng)
    truth = rasterise(drawn, grid, device)
    points = np.array(drawn.points_um, float).reshape(-1, 3)
    points = (points - grid.origin_um) / grid.voxel_um - [settings.beyond, 0, 0]
    return image_focal_stack(truth, settings, optics, points, drawn.families)


def image_focal_stack(
    truth: torch.Tensor,
    settings: FocalSettings,
    optics: DefocusOptics,
    points: np.ndarray | None = None,
    families: tuple[str, ...] = (),
) -> FocalStack:
    """Return the stacks of given fluorophores, shape (object planes, y, x)."""
    beyond, count = settings.beyond, settings.shape[0]
    table = transfer_table(optics, settings.table_range_um)
    planes = len(truth)
    length = next_fast_len(planes + count)
    spectrum = torch.fft.fft(torch.fft.rfft2(truth.float()), length, dim=0)
    # stack plane f sees object plane p from f + beyond - p planes away
    shifts = np.fft.fftfreq(length, 1 / length).round().astype(int)
    out = []
    for kind in ("widefield", "confocal"):
        transfer = _transfer(table, kind, shifts, settings).to(truth.device)
        seen = torch.fft.ifft(spectrum * torch.fft.fft(transfer, dim=0), dim=0)[beyond : beyond + count]
        out.append(torch.fft.irfft2(seen, settings.shape[1:]).clamp(min=0))
        del seen, transfer
    return FocalStack(
        out[0],
        out[1] * optics.depth_of_field_um,
        truth[beyond : beyond + count],
        optics,
        np.zeros((0, 3)) if points is None else points,
        families,
    )


def _transfer(table: TransferTable, kind: str, shifts: np.ndarray, settings: FocalSettings) -> torch.Tensor:
    """Return transfer functions (plane differences in FFT order, y, x); pixels are averaged already."""
    most = settings.shape[0] + settings.beyond
    planes = table.planes(
        "confocal" if kind == "confocal" else "widefield",
        np.clip(shifts, -most, most) * settings.step_um,
        (settings.shape[1], settings.shape[2]),
        settings.pixel_um,
        pixel_mean=False,
    )
    return torch.from_numpy(planes)
