"""WFCON-Net as a task of the training loop: L1, a least-squares GAN, and features of VGG16."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.stack_scores import stack_scores
from napari_lfm.networks.vgg import VggFeatures, load_vgg, perceptual_distance
from napari_lfm.networks.wfcon import Discriminator, WfconNet
from napari_lfm.training.losses import L1, LeastSquaresDiscriminator, LeastSquaresGenerator, combine
from napari_lfm.training.stack_pairs import PatchSettings, draw_patch
from napari_lfm.training.task import BaseTask, Phase, Validation, adversarial_phases, numpy_rng, torch_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from napari_lfm.training.stack_pairs import PairSource

L1_WEIGHT, GAN_WEIGHT, VGG_WEIGHT = 2.0, 1.0, 0.01
"""Of the paper's equation 1."""
ROOT_FLOOR = 0.01
COLLAPSED_SPREAD = 0.2
"""An output whose spread is less than this share of the target's has collapsed."""
COLLAPSED_DB = 6.0
"""So is one that is this far behind the best."""


@dataclass(frozen=True)
class WfconPlan:
    """What decides a training apart from pairs and loop.

    Attributes
    ----------
    network : dict
        Arguments of `WfconNet`.
    patch : PatchSettings
    batch_size : int
    adversarial : bool
        With a discriminator.
    l1, gan, vgg : float
        Weights of the losses.
    vgg_file : str
        Weights of VGG16; empty: torchvision's. Without either the term is off.
    vgg_slices : int
        Slices of a patch that the features are compared on, chosen at random; 0: all.
    compressed : float
        Weight of the absolute difference of square roots, which is not in the paper: without it a median of
        nothing is the best answer to what is dim.
    gan_after : int
        Steps without the discriminator's voice: it learns from the first step on.
    """

    network: dict[str, Any] = field(default_factory=dict)
    patch: PatchSettings = field(default_factory=PatchSettings)
    batch_size: int = 2
    adversarial: bool = True
    l1: float = L1_WEIGHT
    gan: float = GAN_WEIGHT
    vgg: float = VGG_WEIGHT
    vgg_file: str = ""
    vgg_slices: int = 2
    compressed: float = 0.5
    gan_after: int = 0


class WfconTask(BaseTask):
    """Training of WFCON-Net.

    Parameters
    ----------
    source : PairSource
    plan : WfconPlan
    seed : int
    start : mapping of str to Tensor, optional
        Weights of the generator to go on from.
    """

    def __init__(
        self,
        source: PairSource,
        plan: WfconPlan,
        seed: int = 0,
        start: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        torch.manual_seed(seed)
        network = WfconNet(**plan.network)
        if start is not None:
            network.load_state_dict(dict(start))
        modules: dict[str, nn.Module] = {"network": network}
        if plan.adversarial:
            modules["discriminator"] = Discriminator(flat=network.flat)
        super().__init__(modules)
        self.source, self.plan, self.seed, self.started = source, plan, seed, start is not None
        wants = plan.adversarial and plan.vgg > 0
        # not one of the modules: nothing of it is trained, saved or averaged
        self._vgg: VggFeatures | None = load_vgg(plan.vgg_file or None) if wants else None
        self._notes: list[str] = []
        if wants and self._vgg is None:
            self._notes.append(
                "There are no VGG16 weights: the training goes on without comparing features. "
                "Give a file with them, or install torchvision."
            )
        self.collapsed = ""
        self._best_db, self._widest = -np.inf, 0.0
        self._l1 = L1()
        self.baseline: dict[str, float] = {}

    @property
    def uses_vgg(self) -> bool:
        """Whether features are compared."""
        return self._vgg is not None

    @property
    def phases(self) -> Sequence[Phase]:
        """Generator, then discriminator (the paper alternates them)."""
        if not self.plan.adversarial:
            return (Phase("generator", ("network",)),)
        return adversarial_phases()

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Make the first pairs; yields (done, all, what)."""
        yield from self.source.prepare()
        scores = [
            stack_scores(p.given.float().numpy(), p.wanted.float().numpy()) for p in self.source.validation()
        ]
        self.baseline = {f"input_{key}": value for key, value in _mean(scores).items()}

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return patches (B, 1, z, y, x), and the step they belong to."""
        step = index // len(self.phases)
        rng, generator = numpy_rng(self.seed, index), torch_rng(self.seed, index)
        patches = [
            draw_patch(self.source.pair(step, rng), self.plan.patch, rng, generator)
            for _ in range(self.plan.batch_size)
        ]
        given, wanted = (torch.stack(part)[:, None] for part in zip(*patches, strict=True))
        return {"given": given, "wanted": wanted, "step": torch.tensor(step), "draw": torch.tensor(index)}

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the paper's equation 1."""
        given, wanted = batch["given"], batch["wanted"]
        network = self.modules["network"]
        if phase == "discriminator":
            judge = self.modules["discriminator"]
            with torch.no_grad():
                made = network(given)
            return combine({"lsgan": (2.0, LeastSquaresDiscriminator()(judge(made), judge(wanted)))})
        made = network(given).float()
        terms = {"l1": (self.plan.l1, self._l1(made, wanted))}
        if self.plan.compressed > 0:
            terms["roots"] = (self.plan.compressed, self._l1(_root(made), _root(wanted.float())))
        if self.plan.adversarial:
            speaks = float(int(batch["step"]) >= self.plan.gan_after)
            judged = self.modules["discriminator"](made)
            # twice: the paper's has no factor of a half
            terms["lsgan"] = (2 * speaks * self.plan.gan, LeastSquaresGenerator()(judged))
            if self._vgg is not None:
                terms["vgg"] = (self.plan.vgg, self._features(made, wanted, int(batch["draw"])))
        return combine(terms)

    def _features(self, made: torch.Tensor, wanted: torch.Tensor, draw: int) -> torch.Tensor:
        assert self._vgg is not None
        self._vgg.to(made.device)
        count = self.plan.vgg_slices
        flat = [part.float().clamp(0, 1)[:, 0] for part in (made, wanted)]
        pick = range(flat[0].shape[1])
        if count and count < len(pick):
            chosen = numpy_rng(self.seed, draw, 5).choice(len(pick), count, replace=False)
            pick = sorted(int(k) for k in chosen)  # type: ignore[assignment]
        a, b = (part[:, list(pick)].flatten(0, 1) for part in flat)
        return perceptual_distance(self._vgg, a, b)

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score whole stacks that were never trained on, and see whether the training has collapsed."""
        network = modules["network"]
        device = next(network.parameters()).device
        scores, images, spread = [], {}, []
        for k, pair in enumerate(self.source.validation()):
            found = network(pair.given.float()[None, None].to(device))[0, 0].float().cpu().numpy()
            wanted = pair.wanted.float().numpy()
            scores.append(stack_scores(found, wanted))
            spread.append(float(found.std()) / max(float(wanted.std()), 1e-6))
            if k == 0:
                plane = int(wanted.sum((1, 2)).argmax())
                images = {
                    "truth": wanted[plane],
                    "network": found[plane],
                    "input": pair.given.float().numpy()[plane],
                }
        values = {**_mean(scores), **self.baseline}
        self._watch(values["psnr_db"], float(np.mean(spread)))
        return Validation(values["psnr_db"], values, images)

    def _watch(self, db: float, spread: float) -> None:
        """Note a collapse: the output has become empty, or far worse than it was."""
        far = db < self._best_db - COLLAPSED_DB or not np.isfinite(db)
        # a network that has hardly begun is empty too: only what had contrast before can lose it
        lost = spread < COLLAPSED_SPREAD < 0.5 * self._widest
        if self.plan.adversarial and np.isfinite(self._best_db) and (far or lost):
            self.collapsed = (
                f"The training has collapsed: its stacks are {self._best_db - db:.1f} dB worse than they "
                f"were, with {100 * spread:.0f} % of the contrast"
            )
        self._widest = max(self._widest, spread)
        self._best_db = max(self._best_db, db)

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        plan = asdict(self.plan)
        plan.pop("vgg_file")
        return {
            **plan,
            "patch": {**asdict(self.plan.patch), "shape": list(self.plan.patch.shape)},
            "pairs": self.source.describe(),
            "vgg_used": self.uses_vgg,
            "started_from_weights": self.started,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the largest contrast so far."""
        best = self._best_db if np.isfinite(self._best_db) else None
        return {"best_db": best, "widest": self._widest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        best = state.get("best_db")
        self._best_db = -np.inf if best is None else float(best)
        self._widest = float(state.get("widest", 0.0))

    def notes(self) -> list[str]:
        """Return what the user should know."""
        out, self._notes = self._notes, []
        return out


def _root(values: torch.Tensor) -> torch.Tensor:
    """Return square roots, made finite at 0 and straight below."""
    positive = (values.clamp(min=0) + ROOT_FLOOR).sqrt() - ROOT_FLOOR**0.5
    return torch.where(values > 0, positive, values / (2 * ROOT_FLOOR**0.5))


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]} if scores else {}
