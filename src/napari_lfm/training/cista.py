"""CISTA-net as a task of the training loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.networks.cista import CistaNet
from napari_lfm.networks.depth_curve import centre_of
from napari_lfm.training.epipolar_pairs import NEAR_LENSLETS, EpipolarPairs, EpipolarSet
from napari_lfm.training.task import BaseTask, Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from napari_lfm.training.epipolar_pairs import EpipolarSettings

VALIDATION_FIELDS = 60
HIT_UM = 5.0
"""An image counts as understood where its depth is this near."""


@dataclass(frozen=True)
class CistaPlan:
    """What decides a training apart from microscope, specimens and loop.

    Attributes
    ----------
    kernels : tuple of int
    profile : str
        See `CistaNet`.
    batch_size : int
    """

    kernels: tuple[int, ...] = (9, 13, 17)
    profile: str = "modern"
    batch_size: int = 256


class CistaTask(BaseTask):
    """Training of CISTA-net on simulated epipolar images.

    The loss is the binary cross-entropy with soft labels (Song et al., section 3), once for all sources of
    an image and once for those in its middle.

    Parameters
    ----------
    pairs : EpipolarPairs
    plan : CistaPlan
    seed : int
    """

    def __init__(self, pairs: EpipolarPairs, plan: CistaPlan, seed: int = 0) -> None:
        torch.manual_seed(seed)
        settings: EpipolarSettings = pairs.settings
        self.arguments: dict[str, Any] = {
            "n_views": pairs.fields.n_pixels,
            "n_lenslets": 2 * settings.half + 1,
            "depths": len(settings.z_um),
            "kernels": list(plan.kernels),
            "profile": plan.profile,
        }
        super().__init__({"network": CistaNet(**self.arguments)})
        self.pairs, self.plan, self.seed = pairs, plan, seed
        self._validation: EpipolarSet | None = None

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Build the optics and the validation set; yields (done, all, what)."""
        for done, total in self.pairs.prepare():
            yield done, total, "Computing the optics"
        source = self.pairs.other(self.seed + 7919)
        parts = []
        for k in range(VALIDATION_FIELDS):
            parts.append(source.field_set(k))
            yield k + 1, VALIDATION_FIELDS, "Drawing neurons to validate on"
        self._validation = EpipolarSet.joined(parts)

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return images and labels."""
        found = self.pairs.batch(index, self.plan.batch_size)
        return {"image": found.image.float(), "every": found.every.float(), "near": found.near.float()}

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the cross-entropies, per depth bin and image."""
        network: Any = self.modules["network"]
        codes = network.codes(batch["image"])
        every, near = (
            functional.binary_cross_entropy_with_logits(network.curve(codes, reach).float(), batch[name])
            for name, reach in (("every", None), ("near", NEAR_LENSLETS))
        )
        return {"loss": every + near, "every": every, "near": near}

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score neurons that the training never sees: how many depths are near, and how far off those are."""
        assert self._validation is not None
        found, network = self._validation, modules["network"]
        device = next(network.parameters()).device
        curves, losses = [], []
        for k in range(0, len(found), 512):
            image = found.image[k : k + 512].float().to(device)
            net: Any = network
            logits = net.curve(net.codes(image), NEAR_LENSLETS).float().cpu()
            target = found.near[k : k + 512].float()
            losses.append(functional.binary_cross_entropy_with_logits(logits, target) * len(target))
            curves.append(logits.sigmoid())
        curve = torch.cat(curves).numpy()
        z = centre_of(curve, np.asarray(self.pairs.settings.z_um))[0]
        error = z - found.z_um.numpy()
        hit = np.abs(error) < HIT_UM
        alone = hit & (found.sources.numpy() == 1)
        loss = float(sum(losses) / len(found))
        values = {
            "near": loss,
            "hits": float(hit.mean()),
            "rmse_z_um": float(np.sqrt((error[hit] ** 2).mean())) if hit.any() else float("nan"),
            "rmse_z_alone_um": float(np.sqrt((error[alone] ** 2).mean())) if alone.any() else float("nan"),
        }
        return Validation(-loss, values)

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {
            "microscope": self.pairs.fields.microscope.model_dump(mode="json"),
            "n_pixels": self.pairs.fields.n_pixels,
            "neurons": asdict(self.pairs.fields.settings),
            "images": asdict(self.pairs.settings),
            "network": self.arguments,
            "batch_size": self.plan.batch_size,
            "seed": self.seed,
        }
