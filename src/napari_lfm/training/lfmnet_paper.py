"""The published LFMNet as a task: its patches of three lenslets, its loss, on simulated pairs.

Page Vizcaíno et al., IEEE Trans. Comput. Imaging 7, 775 (2021), and the authors' public training script:
L1 on patches of 3 x 3 lenslets, each seen with the `fov` - 1 lenslets around it; frames surrounded by
dark lenslets; volumes between 0 and 1. What differs: the pairs are simulated, and the scale of the
volumes is kept in the model's card instead of being taken from whatever data are at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.networks.lfmnet import LFMNet
from napari_lfm.training.lfmnet import LfmnetTask
from napari_lfm.training.losses import combine
from napari_lfm.training.task import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from napari_lfm.training.lfmnet_plan import LfmnetPlan

PATCH_LENSLETS = 3
PATCHES_PER_FRAME = 4
_POSITIONS = 3  # stream of random numbers
_BRIGHT = 95.0
"""Percentile of the scenes' brightness that becomes 1; the few brighter ones are cut off there."""


class PaperTask(LfmnetTask):
    """Training of the published network; a batch is of patches, four out of each frame."""

    @staticmethod
    def _network(plan: LfmnetPlan) -> nn.Module:
        return LFMNet(**plan.network)

    def _bright(self, peaks: list[float]) -> float:
        return float(np.percentile(peaks, _BRIGHT))

    def _build_projector(self) -> Iterator[tuple[int, int]]:
        yield from ()  # the published loss has no re-projection

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return patches of light fields, (B, 1, N, N, 2 + fov, 2 + fov), and their volumes."""
        n, cells = self.plan.n_pixels, self.plan.settings.cells
        edge = int(self.plan.network["fov"]) // 2
        frames = -(-self.batch_size // PATCHES_PER_FRAME)
        pairs = self.pairs.batch(index, frames)
        images = functional.pad(pairs.image, (edge * n,) * 4)
        rng = numpy_rng(self.plan.seed, index, _POSITIONS)
        light, volumes = [], []
        for k in range(self.batch_size):
            y, x = (int(v) * n for v in rng.integers(0, cells - PATCH_LENSLETS + 1, 2))
            seen, made = (PATCH_LENSLETS + 2 * edge) * n, PATCH_LENSLETS * n
            light.append(images[k % frames, y : y + seen, x : x + seen])
            volumes.append(pairs.volume[k % frames, :, y : y + made, x : x + made])
        patches = torch.stack(light)
        across = PATCH_LENSLETS + 2 * edge
        views = patches.reshape(-1, across, n, across, n).permute(0, 2, 4, 1, 3)[:, None]
        target = (torch.stack(volumes) / self.output_scale).clamp(0, 1)
        return {"light_field": views.contiguous(), "volume": target}

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the mean absolute error."""
        found = self.modules["network"](batch["light_field"])[:, 0].permute(0, 3, 1, 2).float()
        return combine({"l1": (1.0, (found - batch["volume"]).abs().mean())})

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {**super().describe(), "reprojection": 0.0, "patch_lenslets": PATCH_LENSLETS}
