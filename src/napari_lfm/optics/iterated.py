"""A few accelerated Richardson-Lucy iterations on the lenslet projector: a start for a network.

Where there are many pixels per lenslet, a linear inverse (`napari_lfm.optics.inverse`) has to be coarse,
and knows nothing of volumes that are not negative. A few iterations from an even volume cost a second or
two and know both. Nothing is fitted beside the volume and nothing is smoothed: the network does that.

References
----------
Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974).
Biggs & Andrews, Appl. Opt. 36, 1766 (1997): acceleration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_lfm.optics.guards import guard_thickness, guarded_planes, widest
from napari_lfm.optics.projector import Geometry, LensletProjector, cached_operator

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_lfm.optics.psf import CellOptics

SHIFT = 0.02
"""Added to data and prediction, as a share of the frame's root mean square: dark pixels then count less."""
MOST_MOMENTUM = 0.95
VERSION = 1
"""Raise it when the iterations change: networks want those that they were trained with."""
_TINY = 1e-12


@dataclass(frozen=True)
class IterationSettings:
    """What decides the iterations, apart from the optics and the frame.

    Attributes
    ----------
    z_um : tuple of float
        Depths of the volume's planes.
    voxels : int
        Voxels across a lenslet.
    iterations : tuple of int
        After how many iterations a volume is taken; one volume for each, fewest first.
    """

    z_um: tuple[float, ...]
    voxels: int
    iterations: tuple[int, ...]

    @property
    def volumes(self) -> int:
        """Volumes that are made of one frame."""
        return len(self.iterations)


def iteration_geometry(optics: CellOptics, settings: IterationSettings, cells: tuple[int, int]) -> Geometry:
    """Return the sizes of the projector: the volume's planes, then the guard planes, with a margin."""
    planes = guarded_planes(settings.z_um, settings.voxels)
    return Geometry.plan(optics, planes, cells, max_half_width=widest(optics, settings.z_um))


def iteration_bytes(
    optics: CellOptics, settings: IterationSettings, cells: tuple[int, int]
) -> tuple[int, int]:
    """Return the memory that building the optics takes at most, and what is held and used afterwards."""
    g = iteration_geometry(optics, settings, cells)
    matrix = g.matrix_bytes()
    return matrix + g.plane_bytes(), matrix + 2 * g.vector_bytes()


def iteration_seconds(
    optics: CellOptics, settings: IterationSettings, cells: tuple[int, int], use_cache: bool = True
) -> tuple[float, float]:
    """Return how long two processor cores take to build the optics, and for the iterations of a frame."""
    g = iteration_geometry(optics, settings, cells)
    built = use_cache and cached_operator(g) is not None
    return (0.5 if built else g.build_seconds()), 2 * settings.iterations[-1] * g.product_seconds()


@dataclass(frozen=True)
class _State:
    """One frame (channels), its shift, the estimate, the one before, and the last two moves."""

    data: torch.Tensor
    shift: float
    x: torch.Tensor
    before: torch.Tensor
    moves: tuple[torch.Tensor, ...] = ()


class IteratedStart:
    """Volumes from light fields by a few iterations.

    Parameters
    ----------
    optics : CellOptics
    settings : IterationSettings
    cells : tuple of int
        Lenslets (rows, columns) of the frames.
    device : torch.device or str

    Raises
    ------
    ValueError
        If the counts do not rise, or there is none.
    """

    def __init__(
        self,
        optics: CellOptics,
        settings: IterationSettings,
        cells: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        counts = settings.iterations
        if not counts or counts[0] < 1 or list(counts) != sorted(set(counts)):
            raise ValueError(f"{counts} are no rising counts of iterations")
        self.settings, self.cells = settings, cells
        self._projector = LensletProjector(iteration_geometry(optics, settings, cells), device)
        self._inverse_norm: torch.Tensor | None = None
        self._even: torch.Tensor | None = None
        self._lit = 0.0

    @property
    def ready(self) -> bool:
        """Whether it has been built."""
        return self._inverse_norm is not None

    def build_steps(self, use_cache: bool = True) -> Iterator[tuple[int, int]]:
        """Build, yielding (steps done, steps in all) so that it can be cancelled."""
        p, g = self._projector, self._projector.geometry
        for done, total in p.build_steps(use_cache):
            yield done, total + 1
        with torch.no_grad():
            seen = torch.ones(1, g.pixel_channels, *g.cells, device=p.device)
            norm = p.backproject(seen)
            # a coarse voxel of a guard plane holds the light of all that it stands for
            even = torch.ones(1, g.voxel_channels, 1, 1, device=p.device)
            guards = torch.ones(g.voxel_channels, dtype=torch.bool)
            guards[p.stored_channels(len(self.settings.z_um)).cpu()] = False
            even[:, guards] = guard_thickness(self.settings.z_um, self.settings.voxels)
            self._even = even.expand(1, -1, *g.volume_cells)
            self._lit = float(p.project(self._even.contiguous()).mean())
            # voxels that no observed pixel sees keep their start value instead of running away
            self._inverse_norm = 1 / norm.clamp(min=1e-3 * float(norm.max()))
        yield total + 1, total + 1

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the volumes of lenslet images, as `steps` does."""
        steps = self.steps(image)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                out: torch.Tensor = end.value
                return out

    def steps(self, image: torch.Tensor) -> Generator[tuple[int, int], None, torch.Tensor]:
        """Iterate, yielding (iterations done, iterations in all) so that it can be cancelled.

        Parameters
        ----------
        image : tensor, shape (frames, rows * N, columns * N)

        Returns
        -------
        tensor, shape (frames, volumes * planes, rows * s, columns * s)
            Light per voxel in the units of `image`. Always computed in float32, without gradients, and
            frame by frame: no frame depends on its neighbours.

        Raises
        ------
        RuntimeError
            If it has not been built.
        ValueError
            If the frames have other lenslets than it was built for.
        """
        if not self.ready:
            raise RuntimeError("the optics of the iterations have not been built")
        ny, nx = self._projector.geometry.optics.cell_px
        if tuple(image.shape[1:]) != (self.cells[0] * ny, self.cells[1] * nx):
            raise ValueError(f"frames of shape {tuple(image.shape[1:])} do not hold {self.cells} lenslets")
        each = self.settings.iterations[-1]
        volumes: list[torch.Tensor] = []
        for k in range(len(image)):
            for done, volume in self._iterations(image[k : k + 1]):
                if done in self.settings.iterations:
                    volumes.append(volume)
                yield k * each + done, len(image) * each
        return torch.cat(volumes).reshape(len(image), -1, *volumes[0].shape[-2:])

    def _iterations(self, image: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        state: _State | None = None
        for done in range(1, self.settings.iterations[-1] + 1):
            # not around the yield: whoever asks for the next one has a mode of its own
            with torch.no_grad(), torch.autocast(self._projector.device.type, enabled=False):
                state = self._begun(image) if state is None else state
                state = self._next(state)
                volume = self._volume(state.x)
            yield done, volume

    def _begun(self, image: torch.Tensor) -> _State:
        p = self._projector
        assert self._even is not None
        data = p.image_to_channels(image.to(p.device, torch.float32))
        shift = SHIFT * float(data.square().mean().sqrt()) + _TINY
        data = (data + shift).clamp(min=0)
        x = self._even * (max(float(data.mean()) - shift, 1e-3 * shift) / self._lit)
        return _State(data, shift, x, x)

    def _next(self, state: _State) -> _State:
        p, x = self._projector, state.x
        assert self._inverse_norm is not None
        start = x
        if len(state.moves) == 2:
            new, old = state.moves
            share = float((new * old).sum() / old.square().sum().clamp(min=_TINY))
            start = (x + min(max(share, 0.0), MOST_MOMENTUM) * (x - state.before)).clamp(min=0)
        # data and prediction hold the same shift: the ratio of an exact prediction is 1
        ratio = state.data / (p.project(start) + state.shift).clamp(min=_TINY)
        after = (p.backproject(ratio) * self._inverse_norm).mul_(start).clamp_(min=0)
        return replace(state, x=after, before=x, moves=(after - start, *state.moves[:1]))

    def _volume(self, x: torch.Tensor) -> torch.Tensor:
        p, s = self._projector, self.settings.voxels
        (my, mx), (rows, columns) = p.geometry.margin, self.cells
        volume = p.channels_to_volume(x, slice(0, len(self.settings.z_um)))
        return volume[..., my * s : (my + rows) * s, mx * s : (mx + columns) * s]
