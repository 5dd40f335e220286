"""One image with all that is wanted of it, as virtual refocusing is trained on it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from napari_lfm.networks.refocus import Sweep
from napari_lfm.networks.refocus_physics import RefocusPhysics
from napari_lfm.networks.refocus_render import Blurs


@dataclass(frozen=True)
class Example:
    """One image with its targets.

    `rim` pixels at the border are not compared; without `mends` only where light comes from is learned.
    """

    image: torch.Tensor
    sweep: Sweep | None
    condition: torch.Tensor
    physics: RefocusPhysics
    own: Blurs | None
    confocal: torch.Tensor | None
    valid: torch.Tensor
    wide: torch.Tensor
    blurs: Blurs | None
    z_um: np.ndarray
    rim: int
    mends: bool = True

    def to(self, device: torch.device) -> Example:
        """Return the same on a device."""
        if self.image.device == device:
            return self

        def moved(value: Any) -> Any:
            return (
                value.to(device)
                if isinstance(value, torch.Tensor | RefocusPhysics | Blurs | Sweep)
                else value
            )

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})


def between(stack: torch.Tensor, at: np.ndarray, box: tuple[slice, slice]) -> torch.Tensor:
    """Return planes of a stack, interpolated; those beyond its ends are the ends."""
    place = np.clip(at, 0, len(stack) - 1)
    low = np.floor(place + 1e-6).astype(int)
    share = torch.from_numpy((place - low).clip(0).astype(np.float32))[:, None, None]
    high = np.minimum(low + 1, len(stack) - 1)
    below = stack[low][(slice(None), *box)].float()
    if not bool((share > 1e-4).any()):
        return below
    return torch.lerp(below, stack[high][(slice(None), *box)].float(), share)


def turned(part: torch.Tensor, turn: int) -> torch.Tensor:
    """Return images (..., y, x) turned and mirrored, one way of eight where they are square."""
    flips = [axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit]
    part = torch.flip(part, flips) if flips else part
    return part.transpose(-1, -2) if turn & 4 and part.shape[-1] == part.shape[-2] else part
