"""Isotropic restoration as a task of the training loop: a network, and one stack's own lateral slices."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.isotropic import make_network
from napari_lfm.training.isotropic_simulated import SimulatedLateral
from napari_lfm.training.losses import L1, combine
from napari_lfm.training.task import BaseTask, Validation, numpy_rng, torch_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from napari_lfm.training.isotropic_patches import LateralPatches
    from napari_lfm.training.isotropic_pooled import PooledPatches

LEARNING_RATE, BATCH_SIZE = 4e-4, 16
"""CSBDeep's (Adam, mean absolute error, 100 epochs of 400 steps)."""
_PREPARE, _VALIDATE = 11, 12  # streams of random numbers


@dataclass(frozen=True)
class IsotropicPlan:
    """What decides a training apart from stack and loop.

    Attributes
    ----------
    architecture : str
        Of `napari_lfm.networks.isotropic.ARCHITECTURES`.
    network : dict
        Its arguments; channels are the stack's.
    batch_size : int
    """

    architecture: str = "isotropic"
    network: dict[str, Any] = field(default_factory=dict)
    batch_size: int = BATCH_SIZE


@dataclass(frozen=True)
class LaplaceNLL:
    """``mean |m - t| / s + log 2 s``: likelihood of a Laplace distribution with mean m and width s.

    Weigert et al., Nature Methods 15, 1090 (2018), supplementary note on probabilistic networks.
    """

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean; `output` (B, 2 C, ...) holds means, then widths."""
        mean, width = output.float().chunk(2, 1)
        return ((mean - target.float()).abs() / width + torch.log(2 * width)).mean()


class IsotropicTask(BaseTask):
    """Training of isotropic restoration.

    Parameters
    ----------
    source : LateralPatches, PooledPatches or SimulatedLateral
    plan : IsotropicPlan
    seed : int
    start : mapping of str to Tensor, optional
        Weights to go on from.

    Raises
    ------
    RequestError
        If the network does not take the stack's channels, or the weights are another network's.
    """

    def __init__(
        self,
        source: LateralPatches | PooledPatches | SimulatedLateral,
        plan: IsotropicPlan | None = None,
        seed: int = 0,
        start: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        plan = IsotropicPlan() if plan is None else plan
        torch.manual_seed(seed)
        arguments = dict(plan.network)
        takes_channels = plan.architecture in ("isotropic", "isotropic-csbdeep")
        if takes_channels:
            arguments.setdefault("channels", source.channels)
        channels = arguments.get("channels", 1)
        if channels != source.channels:
            raise RequestError(
                f"The network takes {channels} channels, and the stack has {source.channels}.",
                "Train its channels one by one." if not takes_channels else "Give as many.",
            )
        if arguments.get("slices", 1) != 1:
            # beside a lateral slice lie planes a step away, beside a slice along z lie ones a pixel away
            raise RequestError("Neighbouring slices are not trained on.", "Give slices = 1.")
        network = make_network(plan.architecture, arguments)
        if start is not None:
            try:
                network.load_state_dict(dict(start))
            except RuntimeError:
                raise RequestError(
                    "The weights to start from are those of another network.", "Choose others, or none."
                ) from None
        super().__init__({"network": network})
        self.source, self.plan, self.seed, self.started = source, plan, seed, start is not None
        self.arguments = arguments
        self._laplace = bool(arguments.get("probabilistic", False))
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Degrade what is degraded once; yields (done, all, what)."""
        if isinstance(self.source, SimulatedLateral):
            yield from self.source.making()
            return
        self.source.prepare(torch_rng(self.seed, 0, _PREPARE))
        yield 1, 1, "Degrading lateral slices"

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return inputs and targets of a step."""
        self.source.prepare(torch_rng(self.seed, 0, _PREPARE))
        if isinstance(self.source, SimulatedLateral):
            self.source.at_step(index)
        given, wanted = self.source.draw(
            self.plan.batch_size, numpy_rng(self.seed, index), torch_rng(self.seed, index)
        )
        return {"given": given, "wanted": wanted}

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the mean absolute error, or the likelihood where the network states widths."""
        made = self.modules["network"](batch["given"])
        wanted = batch["wanted"]
        error = L1()(made[:, : wanted.shape[1]], wanted)
        if self._laplace:
            return combine({"laplace": (1.0, LaplaceNLL()(made, wanted)), "l1": (0.0, error)})
        return combine({"l1": (1.0, error)})

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score planes that were never trained on, and restore a slice along z to look at.

        Values: ``psnr_db`` of restored slices and ``input_psnr_db`` of degraded ones (with a range of 1,
        that between two percentiles). Images, all channels' first: ``truth``, ``input``, ``network``
        (lateral), ``xz_before``, ``xz_after``.
        """
        network = modules["network"]
        device = next(network.parameters()).device
        if not self._held:
            self._held = self.source.validation(torch_rng(self.seed, 0, _VALIDATE))

        def restored(image: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = network(image[None].to(device))[0, : len(image)].float().cpu()
            return out

        found, before = [], []
        images: dict[str, torch.Tensor] = {}
        for given, wanted in self._held:
            made = restored(given)
            found.append(float((made - wanted).square().mean()))
            before.append(float((given - wanted).square().mean()))
            if not images:
                images = {"truth": wanted[0], "input": given[0], "network": made[0]}
        axial = self.source.axial_slice()
        images |= {"xz_before": axial[0].T, "xz_after": restored(axial)[0].T}
        values = {"psnr_db": _decibel(found), "input_psnr_db": _decibel(before)}
        values["gain_db"] = values["psnr_db"] - values["input_psnr_db"]
        return Validation(values["psnr_db"], values, {k: v.contiguous().numpy() for k, v in images.items()})

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {
            **asdict(self.plan),
            "network": self.arguments,
            "stack": self.source.describe(),
            "started_from_weights": self.started,
            "seed": self.seed,
        }


def _decibel(errors: list[float]) -> float:
    return float(-10 * np.log10(max(float(np.mean(errors)), 1e-12)))
