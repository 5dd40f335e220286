"""What a network starts from: a linear inverse of the optics, or a few Richardson-Lucy iterations.

Both take frames and give volumes, are built in steps and say beforehand what they will cost; which one it is
depends on the settings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_lfm.optics import inverse, iterated
from napari_lfm.optics.inverse import InverseSettings, LinearInverse
from napari_lfm.optics.iterated import IteratedStart, IterationSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from napari_lfm.optics.psf import CellOptics

StartSettings = InverseSettings | IterationSettings
Start = LinearInverse | IteratedStart


@dataclass(frozen=True)
class StartCost:
    """What a start takes.

    Attributes
    ----------
    building_bytes, held_bytes : int
        Memory at most while it is built, and afterwards.
    building_seconds, frame_seconds : float
        On two processor cores.
    """

    building_bytes: int
    held_bytes: int
    building_seconds: float
    frame_seconds: float


def start_settings(z_um: Sequence[float], arguments: Mapping[str, Any]) -> StartSettings | None:
    """Return the start that a network's constructor arguments name; None where it starts from nothing."""
    voxels = int(arguments.get("start_voxels", 0))
    if not voxels:
        return None
    z = tuple(float(v) for v in z_um)
    iterations = tuple(int(v) for v in arguments.get("start_iterations", ()))
    if iterations:
        return IterationSettings(z, voxels, iterations)
    return InverseSettings(z, voxels, tuple(float(v) for v in arguments.get("start_noise", ())))


def start_arguments(settings: StartSettings) -> dict[str, Any]:
    """Return the constructor arguments that name a start."""
    if isinstance(settings, IterationSettings):
        return {"start_voxels": settings.voxels, "start_iterations": list(settings.iterations)}
    return {"start_voxels": settings.voxels, "start_noise": list(settings.noise)}


def make_start(
    optics: CellOptics,
    settings: StartSettings,
    cells: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Start:
    """Return a start for frames of `cells` lenslets (rows, columns), not built yet."""
    kind = IteratedStart if isinstance(settings, IterationSettings) else LinearInverse
    return kind(optics, settings, cells, device)  # type: ignore[arg-type]


def start_cost(
    optics: CellOptics, settings: StartSettings, cells: tuple[int, int], use_cache: bool = True
) -> StartCost:
    """Return what a start takes, before anything is computed.

    Parameters
    ----------
    optics : CellOptics
    settings : InverseSettings or IterationSettings
    cells : tuple of int
    use_cache : bool
        Whether what the disk cache holds need not be built.
    """
    if isinstance(settings, IterationSettings):
        return StartCost(
            *iterated.iteration_bytes(optics, settings, cells),
            *iterated.iteration_seconds(optics, settings, cells, use_cache),
        )
    return StartCost(
        *inverse.inverse_bytes(optics, settings, cells),
        inverse.inverse_seconds(optics, settings, cells, use_cache),
        0.0,
    )


def start_version(settings: StartSettings | None) -> int | None:
    """Return the version of what computes a start: networks want the one that they were trained with."""
    if settings is None:
        return None
    return iterated.VERSION if isinstance(settings, IterationSettings) else inverse.VERSION
