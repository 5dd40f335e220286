"""Virtual refocusing as a task of the training loop: one image, all planes within reach at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.networks.refocus_physics import RefocusPhysics
from napari_lfm.networks.refocus_render import Blurs, blurs, plane_z_um, rendered, stack_spectrum, unexplained
from napari_lfm.networks.wfcon import Discriminator
from napari_lfm.training.focal_pairs import FocalData, recorded
from napari_lfm.training.losses import LeastSquaresDiscriminator, LeastSquaresGenerator, combine
from napari_lfm.training.refocus_examples import Example, between, turned
from napari_lfm.training.refocus_losses import (
    LEAST_PEAK,
    coarse_differences,
    differences,
    high_passed,
    share_loss,
)
from napari_lfm.training.task import BaseTask, Phase, Validation, adversarial_phases, numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from napari_lfm.training.focal_pairs import FocalSource

_CANDIDATES = 3
_VALIDATION_SHARES = (-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0)
_LEAST_PEAK = 0.3
_RIM_PX, _RIM_RECORDED_PX = 12, 40
"""Pixels at the border that are not compared; of recordings what lies beyond is not known."""


@dataclass(frozen=True)
class RefocusPlan:
    """What decides a training apart from stacks and loop.

    Attributes
    ----------
    network : dict
        Arguments of `RefocusNet`.
    range_um : float
        Largest distance.
    patch_px : int
        Of recorded stacks; simulated ones are taken whole, for they go on periodically.
    first_steps : int
        Steps that train the part that says where light comes from alone: they are quick.
    render_every : int
        Steps after those between the ones that render wide-field planes and ask for consistency.
    planes : int
        Wide-field planes that are rendered and compared, per image and step.
    images : int
        Images per step.
    shares : float
        Weight of the cross entropy of where light comes from.
    squares : float
        Weight of the squared difference of the light, beside the absolute one of its square roots.
    coarse : float
        Weight of the difference of neighbourhoods, which forgives a point that is a little beside its place.
    confocal : float
        Weight of the confocal stack.
    widefield : float
        Weight of the rendered wide-field planes.
    consistency : float
        Weight of the difference between the image and what the confocal stack says it should be.
    adversarial : bool
        With a discriminator (LSGAN), as in the paper.
    gan : float
        Its weight.
    """

    network: dict[str, Any] = field(default_factory=dict)
    range_um: float = 10.0
    patch_px: int = 256
    first_steps: int = 3000
    render_every: int = 2
    planes: int = 3
    images: int = 1
    shares: float = 0.5
    squares: float = 12.0
    coarse: float = 0.5
    confocal: float = 1.0
    widefield: float = 1.0
    consistency: float = 0.3
    adversarial: bool = False
    gan: float = 0.02


class RefocusTask(BaseTask):
    """Training of virtual refocusing.

    Parameters
    ----------
    source : FocalSource
    plan : RefocusPlan
    seed : int
    start : mapping of str to Tensor, optional
        Weights to go on from.
    """

    def __init__(
        self,
        source: FocalSource,
        plan: RefocusPlan,
        seed: int = 0,
        start: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        torch.manual_seed(seed)
        network = RefocusNet(**plan.network)
        if start is not None:
            network.load_state_dict(dict(start))
        modules: dict[str, nn.Module] = {"network": network}
        if plan.adversarial:
            modules["discriminator"] = Discriminator(flat=True)
        super().__init__(modules)
        self.source, self.plan, self.seed, self.started = source, plan, seed, start is not None
        self._multiple, self._planes, self._sweep = network.multiple, network.planes, network.sweep
        self._blurs: dict[Any, Blurs] = {}

    @property
    def phases(self) -> Sequence[Phase]:
        """Generator, then discriminator."""
        if not self.plan.adversarial:
            return (Phase("generator", ("network",)),)
        return adversarial_phases()

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Make the first stacks; yields (done, all, what)."""
        yield from self.source.prepare()

    def batch(self, index: int) -> list[Example]:
        """Return images, sweeps and targets of one step."""
        step = index // len(self.phases)
        rng = numpy_rng(self.seed, index)
        out = []
        for _ in range(self.plan.images):
            data = self.source.data(step, rng)
            # more often near the middle, where there are planes on both sides
            plane = int(rng.triangular(-0.5, (len(data.widefield) - 1) / 2, len(data.widefield) - 0.5) + 0.5)
            given = recorded(data, plane, rng)
            reach = int(self.plan.range_um / data.step_um + 1e-6)
            able = np.arange(max(-reach, -plane), min(reach, len(data.widefield) - 1 - plane) + 1)
            mends = step >= self.plan.first_steps or data.confocal is None or not self._sweep
            whole = mends and (step % self.plan.render_every == 0 or data.confocal is None)
            count = min(self.plan.planes, len(able)) if whole else 0
            offsets = np.sort(rng.choice(able, count, replace=False))
            turn = int(rng.integers(8))
            box = self._place(data, given.image, rng)
            e = self.example(data, plane, given.image, given.low, given.span, offsets, box, turn)
            out.append(replace(e, mends=mends))
        return out

    def example(
        self,
        data: FocalData,
        plane: int,
        image: torch.Tensor,
        low: float,
        span: float,
        offsets: np.ndarray,
        box: tuple[slice, slice],
        turn: int,
    ) -> Example:
        """Return one image with what is wanted of it.

        Parameters
        ----------
        data : FocalData
        plane : int
            Of the stack, that was the image.
        image : Tensor, shape (y, x)
            As it was recorded, scaled: ``(grey - low) / span``.
        low, span : float
        offsets : ndarray of int
            Of the wide-field planes to be compared, from `plane`.
        box : tuple of slice
            Rows and columns.
        turn : int
            0 to 7: turned and mirrored.
        """
        image = turned(image[box], turn).contiguous()
        physics = RefocusPhysics(
            data.optics, data.pixel_um, self.plan.range_um, image, 0 if data.periodic else None
        )
        sweep = physics.sweep(self._planes) if self._sweep else None
        at = plane + plane_z_um(self._planes, self.plan.range_um) / data.step_um
        valid = torch.from_numpy(((at > -1e-6) & (at < len(data.widefield) - 1 + 1e-6)).astype(np.float32))
        confocal = None
        if data.confocal is not None:
            confocal = turned(between(data.confocal, at, box), turn) / span
        wide = (turned(data.widefield[plane + offsets][(slice(None), *box)].float(), turn) - low) / span
        z = offsets * data.step_um
        own = shown = None
        if len(z):
            own = self._blurs_of(physics, data, 0.0)
            parts = [self._blurs_of(physics, data, float(v)) for v in z]
            shown = Blurs(torch.cat([p.planes for p in parts]), torch.cat([p.soften for p in parts]))
        return Example(
            image,
            sweep,
            physics.conditions(self._planes),
            physics,
            own,
            confocal,
            valid,
            wide.clamp(min=0).contiguous(),
            shown,
            z,
            _RIM_PX if data.periodic else min(_RIM_RECORDED_PX, min(image.shape) // 5),
        )

    def _blurs_of(self, physics: RefocusPhysics, data: FocalData, z_um: float) -> Blurs:
        """Return the blurs to a plane; those of simulated stacks are kept, in half precision."""
        key = data.optics, data.pixel_um, physics.padded, round(z_um, 4)
        if key not in self._blurs:
            made = blurs(physics, self._planes, [z_um])
            if not data.periodic:
                return made
            self._blurs[key] = Blurs(made.planes.half(), made.soften.half())
        kept = self._blurs[key]
        return Blurs(kept.planes.float(), kept.soften.float())

    def _place(self, data: FocalData, image: torch.Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
        """Return rows and columns with something in them; all of what is periodic."""
        multiple = self._multiple
        if data.periodic and image.shape[0] % multiple == 0 and image.shape[1] % multiple == 0:
            return slice(0, image.shape[0]), slice(0, image.shape[1])
        first, stop = data.columns or (0, image.shape[1])
        size = [
            max(multiple, min(self.plan.patch_px, n) // multiple * multiple)
            for n in (image.shape[0], stop - first)
        ]
        best, chosen = -1.0, (0, first)
        for _ in range(_CANDIDATES):
            y = int(rng.integers(max(1, image.shape[0] - size[0] + 1)))
            x = first + int(rng.integers(max(1, stop - first - size[1] + 1)))
            spread = float(image[y : y + size[0] : 2, x : x + size[1] : 2].std())
            if spread > best:
                best, chosen = spread, (y, x)
            if rng.random() < 0.3:  # background is to be learnt too
                break
        y, x = chosen
        return slice(y, y + size[0]), slice(x, x + size[1])

    def loss(self, phase: str, batch: list[Example]) -> dict[str, torch.Tensor]:
        """Return differences of square roots, of light and of shares, consistency, the discriminator's say.

        The first steps train the part that says where light comes from alone: the other one builds on it.
        """
        network = self.modules["network"]
        terms: dict[str, list[torch.Tensor]] = {}
        if phase == "discriminator":
            return self._judgement(batch)
        for e in (example.to(_device_of(network)) for example in batch):
            if not e.mends:
                assert e.sweep is not None and e.confocal is not None
                shares = network.log_shares(e.image, e.condition, e.sweep)  # type: ignore[operator]
                terms.setdefault("shares", []).append(share_loss(shares, e.confocal, e.valid, e.rim))
                continue
            roots, shares = network(e.image, e.condition, e.sweep)
            roots = roots.float()
            light = roots.clamp(min=0) ** 2
            if e.confocal is not None:
                least = LEAST_PEAK["confocal"]
                for key, value in differences(light, roots, e.confocal, e.valid, least, e.rim).items():
                    terms.setdefault(f"confocal_{key}", []).append(value)
                coarse = coarse_differences(light, e.confocal, e.valid, least, e.rim)
                terms.setdefault("confocal_coarse", []).append(coarse)
                if shares is not None:
                    terms.setdefault("shares", []).append(share_loss(shares, e.confocal, e.valid, e.rim))
            if self.plan.adversarial:
                judged = self.modules["discriminator"](_judged(roots[e.valid > 0].clamp(min=0)))
                terms.setdefault("lsgan", []).append(LeastSquaresGenerator()(judged))
            if e.own is None or e.blurs is None:
                continue
            spectrum = stack_spectrum(e.physics, light)
            rest = unexplained(e.physics, spectrum, e.own)
            made = rendered(e.physics, spectrum, rest, e.blurs)
            alike = torch.ones(len(made), device=made.device)
            for key, value in differences(made, None, e.wide, alike, LEAST_PEAK["widefield"], e.rim).items():
                terms.setdefault(f"widefield_{key}", []).append(value)
            missing = e.physics.inner(torch.fft.irfft2(rest, e.physics.padded))
            away = high_passed(missing[None])[..., e.rim : -e.rim, e.rim : -e.rim]
            terms.setdefault("consistency", []).append(away.abs().mean())
        p = self.plan
        weights = {
            "shares": p.shares,
            "widefield_roots": p.widefield,
            "widefield_squares": p.widefield * p.squares,
            "confocal_roots": p.confocal,
            "confocal_squares": p.confocal * p.squares,
            "confocal_coarse": p.confocal * p.coarse,
            "consistency": p.consistency,
            "lsgan": p.gan,
        }
        return combine({key: (weights[key], torch.stack(v).mean()) for key, v in terms.items()})

    def _judgement(self, batch: list[Example]) -> dict[str, torch.Tensor]:
        """Return the discriminator's loss."""
        network, judge = self.modules["network"], self.modules["discriminator"]
        total = []
        for e in (example.to(_device_of(judge)) for example in batch):
            if e.confocal is None or not e.mends:
                continue
            with torch.no_grad():
                made = network(e.image, e.condition, e.sweep)[0].float()
            fake, real = made.clamp(min=0)[e.valid > 0], e.confocal.clamp(min=0).sqrt()[e.valid > 0]
            total.append(LeastSquaresDiscriminator()(judge(_judged(fake)), judge(_judged(real))))
        if not total:  # nothing confocal to tell apart
            nothing = sum(q.sum() for q in judge.parameters()) * 0.0
            return combine({"lsgan": (2.0, torch.as_tensor(nothing))})
        return combine({"lsgan": (2.0, torch.stack(total).mean())})

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score refocused planes of specimens that were never trained on."""
        network = modules["network"]
        rows: list[dict[str, float]] = []
        images: dict[str, np.ndarray] = {}
        for k, data in enumerate(self.source.validation()):
            made = self._validated(network, data, k)
            rows += made[0]
            images = images or made[1]
        values = {key: float(np.mean([r[key] for r in rows if key in r])) for key in rows[0]}
        return Validation(values["psnr_db"] + 0.5 * values.get("confocal_db", 0.0), values, images)

    def _validated(
        self, network: nn.Module, data: FocalData, number: int
    ) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
        count = len(data.widefield)
        rng = numpy_rng(self.seed, number, 77)
        plane = (count - 1) // 2 if number % 2 == 0 else int(rng.integers(count))
        given = recorded(data, plane, rng, jitter=False)
        reach = int(self.plan.range_um / data.step_um + 1e-6)
        offsets = np.unique([round(s * reach) for s in _VALIDATION_SHARES])
        offsets = offsets[(plane + offsets >= 0) & (plane + offsets < count)]
        if not data.noise_free:  # of a recording the image itself would be its own target, noise and all
            offsets = offsets[offsets != 0]
        first, stop = data.columns or (0, data.widefield.shape[2])
        m = self._multiple
        size = [max(m, min(n, 288) // m * m) for n in (data.widefield.shape[1], stop - first)]
        box = slice(0, size[0]), slice(first, first + size[1])
        e = self.example(data, plane, given.image, given.low, given.span, offsets, box, 0)
        e = e.to(_device_of(network))
        with torch.no_grad():
            light = network(e.image, e.condition, e.sweep)[0].float().clamp(min=0) ** 2
            assert e.own is not None and e.blurs is not None
            spectrum = stack_spectrum(e.physics, light)
            wide = rendered(e.physics, spectrum, unexplained(e.physics, spectrum, e.own), e.blurs)
        e, wide, light = e.to(torch.device("cpu")), wide.cpu(), light.cpu()
        rows = []
        image = e.image
        at = plane_z_um(self._planes, self.plan.range_um)
        for n, z in enumerate(e.z_um):
            row = {"psnr_db": _psnr(wide[n], e.wide[n]), "input_db": _psnr(image.clamp(min=0), e.wide[n])}
            k = int(np.abs(at - z).argmin())
            if e.confocal is not None and e.valid[k]:
                row["confocal_db"] = _psnr(light[k], e.confocal[k])
            rows.append(row)
        n = len(e.z_um) - 1
        pictures = {"input": image.numpy(), "network": wide[n].numpy(), "truth": e.wide[n].numpy()}
        return rows, pictures

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {
            **asdict(self.plan),
            "stacks": self.source.describe(),
            "started_from_weights": self.started,
            "seed": self.seed,
        }


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _judged(planes: torch.Tensor) -> torch.Tensor:
    """Return what the discriminator sees, (B, 1, 1, y, x): square roots, cut at the brightest."""
    return planes.clamp(max=3.0)[:, None, None]


def _psnr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return decibels over the brightest of the wanted plane, at least a third of the image's."""
    peak = max(float(torch.quantile(wanted.flatten(), 0.9995)), _LEAST_PEAK)
    error = float(((found.clamp(0, peak) - wanted.clamp(0, peak)) ** 2).mean())
    return float(10 * np.log10(peak**2 / max(error, 1e-12)))
