"""Virtual refocusing as a task of the training loop: one image, many distances at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.networks.refocus import RefocusNet, conditions
from napari_lfm.networks.refocus_physics import RefocusPhysics, reblur_planes
from napari_lfm.networks.wfcon import Discriminator
from napari_lfm.training.focal_pairs import FocalData, recorded
from napari_lfm.training.losses import LeastSquaresDiscriminator, LeastSquaresGenerator, combine
from napari_lfm.training.refocus_losses import consistency_loss
from napari_lfm.training.task import BaseTask, Phase, Validation, numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from napari_lfm.optics.defocus import DefocusOptics
    from napari_lfm.training.focal_pairs import FocalSource

ADAM = (0.5, 0.999)
DISCRIMINATOR_RATE = 0.3
_LEAST_PEAK = 0.3
_CANDIDATES = 3
_CONTEXT_PX = 32
"""Beyond the largest blur, what of a recording the physical guesses are made from."""
_VALIDATION_SHARES = (-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0)


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
    planes : int
        Distances per image and step.
    images : int
        Images per step.
    squares : float
        Weight of the squared difference of the light, beside the absolute one of its square roots.
    confocal : float
        Weight of the confocal head.
    consistency : float
        Weight of the difference between the image and the confocal stack, blurred as the microscope blurs
        it; 0: off.
    consistency_every : int
        Steps between those that have it: they need planes over the whole range.
    adversarial : bool
        With a discriminator (LSGAN), as in the paper.
    gan : float
        Its weight.
    """

    network: dict[str, Any] = field(default_factory=dict)
    range_um: float = 10.0
    patch_px: int = 160
    planes: int = 12
    images: int = 1
    squares: float = 4.0
    confocal: float = 1.0
    consistency: float = 0.3
    consistency_every: int = 4
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
        self._multiple, self._physics = network.multiple, network.physics
        self._reblur: dict[Any, torch.Tensor] = {}

    @property
    def phases(self) -> Sequence[Phase]:
        """Generator, then discriminator."""
        if not self.plan.adversarial:
            return (Phase("generator", ("network",)),)
        return (
            Phase("generator", ("network",), betas=ADAM),
            Phase("discriminator", ("discriminator",), rate=DISCRIMINATOR_RATE, betas=ADAM),
        )

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Make the first stacks; yields (done, all, what)."""
        yield from self.source.prepare()

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return images, conditions, guesses and targets of one step."""
        step = index // len(self.phases)
        rng = numpy_rng(self.seed, index)
        # planes over the whole range, evenly spaced, where consistency is asked for
        whole = self.plan.consistency > 0 and step % self.plan.consistency_every == 0
        drawn = [self._draw(self.source.data(step, rng), rng, whole) for _ in range(self.plan.images)]
        return {key: torch.stack([d[key] for d in drawn]) for key in drawn[0]}

    def _draw(self, data: FocalData, rng: np.random.Generator, whole: bool) -> dict[str, torch.Tensor]:
        count = len(data.widefield)
        plane = int(rng.integers(count))
        given = recorded(data, plane, rng)
        reach = int(self.plan.range_um / data.step_um + 1e-6)
        if whole:
            stride = max(1, round(self.plan.range_um / 10 / data.step_um))
            first = -reach + int(rng.integers(stride))
            offsets = np.arange(first, reach + 1, stride)
        else:
            able = np.arange(max(-reach, -plane), min(reach, count - 1 - plane) + 1)
            offsets = np.sort(rng.choice(able, min(self.plan.planes, len(able)), replace=False))
        z = offsets * data.step_um
        box = self._place(data, given.image, rng)
        physics = self._guesses(data, given.image, z, box)
        at = np.clip(plane + offsets, 0, count - 1)
        valid = torch.from_numpy((at == plane + offsets).astype(np.float32))
        rows, columns = box
        wide = ((data.widefield[at][:, rows, columns].float() - given.low) / given.span).clamp(min=0)
        known = data.confocal is not None
        other = torch.zeros_like(wide)
        if data.confocal is not None:
            other = data.confocal[at][:, rows, columns].float() / given.span
        parts = [given.image[rows, columns][None, None], torch.stack([wide, other], 1)]
        if physics is not None:
            parts.append(physics)
        turned = _turned(parts, rng)
        out = {
            "image": turned[0],
            "wanted": turned[1],
            "valid": valid,
            "known": torch.tensor([1.0, float(known)]),
            "condition": condition_of(z, self.plan.range_um, data.optics, data.pixel_um),
            "whole": torch.tensor(float(whole)),
            "z_um": torch.from_numpy(z),
        }
        if physics is not None:
            out["physics"] = turned[2]
        if whole:
            out["reblur"] = self._reblur_planes(data, z)
        return out

    def _place(self, data: FocalData, image: torch.Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
        """Return rows and columns with something in them."""
        multiple = self._multiple
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

    def _guesses(
        self, data: FocalData, image: torch.Tensor, z: np.ndarray, box: tuple[slice, slice]
    ) -> torch.Tensor | None:
        if not self._physics:
            return None
        if data.periodic:
            made = RefocusPhysics(data.optics, data.pixel_um, self.plan.range_um, image, 0)
            return made.channels(z)[:, :, box[0], box[1]]
        # of a large recording only what the blur reaches: transforms of all of it would take most of a step
        around = int(float(data.optics.blur_radius_um(self.plan.range_um)) / data.pixel_um) + _CONTEXT_PX
        first = [max(0, b.start - around) for b in box]
        near = image[first[0] : box[0].stop + around, first[1] : box[1].stop + around]
        made = RefocusPhysics(data.optics, data.pixel_um, self.plan.range_um, near)
        rows, columns = (slice(b.start - f, b.stop - f) for b, f in zip(box, first, strict=True))
        return made.channels(z)[:, :, rows, columns]

    def _reblur_planes(self, data: FocalData, z: np.ndarray) -> torch.Tensor:
        key = data.optics, data.pixel_um, float(z[0])
        if key not in self._reblur:
            side = 2 * self.plan.patch_px
            planes = reblur_planes(data.optics, self.plan.range_um, z, (side, side), data.pixel_um)
            step = float(z[1] - z[0]) if len(z) > 1 else data.step_um
            self._reblur[key] = planes * (step / data.optics.depth_of_field_um)
        return self._reblur[key]

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return differences of square roots and of light, consistency, and the discriminator's say."""
        images = len(batch["image"])
        network = self.modules["network"]
        terms: dict[str, list[torch.Tensor]] = {}
        if phase == "discriminator":
            judge = self.modules["discriminator"]
            total = []
            for k in range(images):
                with torch.no_grad():
                    made = network(batch["image"][k], batch["condition"][k], _item(batch, "physics", k))
                real = batch["wanted"][k][batch["valid"][k] > 0].clamp(min=0).sqrt()
                fake = made.float()[batch["valid"][k] > 0].clamp(min=0)
                total.append(LeastSquaresDiscriminator()(judge(_judged(fake)), judge(_judged(real))))
            return combine({"lsgan": (2.0, torch.stack(total).mean())})
        for k in range(images):
            roots = network(batch["image"][k], batch["condition"][k], _item(batch, "physics", k)).float()
            wanted, valid = batch["wanted"][k].float(), batch["valid"][k]
            for key, value in self._differences(roots, wanted, valid, batch["known"][k]).items():
                terms.setdefault(key, []).append(value)
            if float(batch["whole"][k]) > 0 and "reblur" in batch:
                terms.setdefault("consistency", []).append(
                    consistency_loss(roots[:, 1], batch["reblur"][k], batch["image"][k, 0, 0].float())
                )
            if self.plan.adversarial:
                judged = self.modules["discriminator"](_judged(roots[valid > 0].clamp(min=0)))
                terms.setdefault("lsgan", []).append(LeastSquaresGenerator()(judged))
        weights = {
            "roots": 1.0,
            "squares": self.plan.squares,
            "consistency": self.plan.consistency,
            "lsgan": self.plan.gan,
        }
        return combine({key: (weights[key], torch.stack(v).mean()) for key, v in terms.items()})

    def _differences(
        self, roots: torch.Tensor, wanted: torch.Tensor, valid: torch.Tensor, known: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the two differences, each plane over its own brightness."""
        rim = min(16, roots.shape[-1] // 8)
        inner = (..., slice(rim, -rim), slice(rim, -rim))
        roots, wanted = roots[inner], wanted[inner]
        peak = torch.quantile(wanted.flatten(2)[..., ::3], 0.999, dim=2)[..., None, None].clamp(
            min=_LEAST_PEAK
        )
        weight = valid[:, None] * known[None] * torch.tensor([1.0, self.plan.confocal], device=valid.device)
        weight = weight / weight.sum().clamp(min=1e-6)
        away = (roots - wanted.sqrt()).abs() / peak.sqrt()
        # brighter than the brightest is cut: a single bead must not outweigh the field
        light = ((roots.clamp(min=0) ** 2 - wanted) / peak).clamp(-3, 3) ** 2
        return {
            "roots": (away.mean((2, 3)) * weight).sum(),
            "squares": (light.mean((2, 3)) * weight).sum(),
        }

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score refocused planes of specimens that were never trained on."""
        network = modules["network"]
        device = next(network.parameters()).device
        rows: list[dict[str, float]] = []
        images: dict[str, np.ndarray] = {}
        for k, data in enumerate(self.source.validation()):
            made = self._validated(network, device, data, k)
            rows += made[0]
            images = images or made[1]
        values = {key: float(np.mean([r[key] for r in rows if key in r])) for key in rows[0]}
        return Validation(values["psnr_db"] + 0.5 * values.get("confocal_db", 0.0), values, images)

    def _validated(
        self, network: nn.Module, device: torch.device, data: FocalData, number: int
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
        z, at = offsets * data.step_um, plane + offsets
        multiple = self._multiple
        first, stop = data.columns or (0, data.widefield.shape[2])
        size = [
            max(multiple, min(n, 288) // multiple * multiple) for n in (data.widefield.shape[1], stop - first)
        ]
        box = slice(0, size[0]), slice(first, first + size[1])
        physics = self._guesses(data, given.image, z, box)
        condition = condition_of(z, self.plan.range_um, data.optics, data.pixel_um)
        image = given.image[box]
        with torch.no_grad():
            roots = network(
                image[None, None].to(device),
                condition.to(device),
                None if physics is None else physics.to(device),
            )
        light = roots.float().clamp(min=0).cpu() ** 2
        rows = []
        for n, k in enumerate(at):
            wide = ((data.widefield[k][box].float() - given.low) / given.span).clamp(min=0)
            row = {"psnr_db": _psnr(light[n, 0], wide), "input_db": _psnr(image.clamp(min=0), wide)}
            if data.confocal is not None:
                other = data.confocal[k][box].float() / given.span
                row["confocal_db"] = _psnr(light[n, 1], other)
            rows.append(row)
        n = len(at) - 1
        pictures = {
            "input": image.numpy(),
            "network": light[n, 0].numpy(),
            "truth": ((data.widefield[at[n]][box].float() - given.low) / given.span).numpy(),
            "network confocal": light[n, 1].numpy(),
        }
        return rows, pictures

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {
            **asdict(self.plan),
            "stacks": self.source.describe(),
            "started_from_weights": self.started,
            "seed": self.seed,
        }


def condition_of(
    z_um: np.ndarray | torch.Tensor, range_um: float, optics: DefocusOptics, pixel_um: float
) -> torch.Tensor:
    """Return `conditions` of distances, (n,) for planes or (n, y, x) for surfaces."""
    z = torch.as_tensor(np.asarray(z_um), dtype=torch.float32)
    z = z.reshape(-1, 1, 1, 1) if z.dim() == 1 else z[:, None]
    return conditions(
        z,
        range_um,
        float(optics.edge_waves(1.0)),
        float(optics.blur_radius_um(1.0)) / pixel_um,
        pixel_um * 4 * optics.na / optics.wavelength_um,
    )


def _judged(planes: torch.Tensor) -> torch.Tensor:
    """Return what the discriminator sees, (B, 1, 1, y, x): square roots, cut at the brightest."""
    return planes.clamp(max=3.0).flatten(0, 1)[:, None, None]


def _item(batch: Mapping[str, torch.Tensor], key: str, k: int) -> torch.Tensor | None:
    return batch[key][k] if key in batch else None


def _turned(parts: Sequence[torch.Tensor], rng: np.random.Generator) -> list[torch.Tensor]:
    """Return all parts turned and mirrored alike across."""
    flips = [axis for axis in (-2, -1) if rng.random() < 0.5]
    swap = parts[0].shape[-1] == parts[0].shape[-2] and rng.random() < 0.5
    out = []
    for part in parts:
        part = torch.flip(part, flips) if flips else part
        out.append((part.transpose(-1, -2) if swap else part).contiguous())
    return out


def _psnr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return decibels over the brightest of the wanted plane, at least a third of the image's."""
    peak = max(float(torch.quantile(wanted.flatten(), 0.9995)), _LEAST_PEAK)
    error = float(((found.clamp(0, peak) - wanted.clamp(0, peak)) ** 2).mean())
    return float(10 * np.log10(peak**2 / max(error, 1e-12)))
