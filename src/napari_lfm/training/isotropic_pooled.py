"""Patches of all channels of a stack for a network of one channel: it learns what is common to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.training.isotropic_patches import LateralPatches

if TYPE_CHECKING:
    from napari_lfm.training.isotropic_degradation import Degradation
    from napari_lfm.training.isotropic_patches import PatchPlan


class PooledPatches:
    """The slices of every channel of one stack, each scaled and degraded by itself.

    Parameters
    ----------
    stack : ndarray, shape (channels, z, y, x)
        As recorded. Channels without signal are left out.
    degradation : Degradation
        Its noise is one per channel.
    plan : PatchPlan

    Raises
    ------
    RequestError
        If no channel can be trained on.
    """

    channels = 1

    def __init__(self, stack: np.ndarray, degradation: Degradation, plan: PatchPlan | None = None) -> None:
        self.degradation = degradation
        self.parts: list[LateralPatches] = []
        self.used: list[int] = []
        problem: RequestError | None = None
        for k, channel in enumerate(stack):
            noise = degradation.noise[k : k + 1] or degradation.noise[-1:]
            try:
                part = LateralPatches(channel, replace(degradation, noise=noise), plan)
            except RequestError as error:
                problem = problem or error
                continue
            self.parts.append(part)
            self.used.append(k)
        if problem is not None and not self.parts:
            raise problem
        self.plan = self.parts[0].plan

    def prepare(self, generator: torch.Generator) -> None:
        """Degrade what is degraded once."""
        for part in self.parts:
            part.prepare(generator)

    def draw(
        self, count: int, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets, shape (count, 1, side, side), of channels drawn at random."""
        chosen = np.bincount(rng.integers(len(self.parts), size=count), minlength=len(self.parts))
        pairs = [part.draw(int(n), rng, generator) for part, n in zip(self.parts, chosen, strict=True) if n]
        given, wanted = (torch.cat(side) for side in zip(*pairs, strict=True))
        return given, wanted

    def validation(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return inputs and targets (1, rows, columns), scaled, of planes never trained on."""
        return [pair for part in self.parts for pair in part.validation(generator)]

    def axial_slice(self) -> torch.Tensor:
        """Return the slice (1, x, z) of the channel with the most contrast, scaled, z at lateral pixels."""
        slices = [part.axial_slice() for part in self.parts]
        return slices[int(np.argmax([float(s.std()) for s in slices]))]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells these patches from others."""
        return {"channels": self.used, "parts": [part.describe() for part in self.parts]}


def patches_of(
    stack: np.ndarray, degradation: Degradation, plan: PatchPlan | None = None, pooled: bool = True
) -> LateralPatches | PooledPatches:
    """Return the patches of a stack.

    Parameters
    ----------
    stack : ndarray, shape (channels, z, y, x)
    degradation : Degradation
    plan : PatchPlan, optional
    pooled : bool
        For a network of one channel, that learns from all of them; else for one that sees them together.
    """
    if pooled and len(stack) > 1:
        return PooledPatches(stack, degradation, plan)
    return LateralPatches(stack, degradation, plan)
