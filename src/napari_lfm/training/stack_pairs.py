"""Patches to train stack networks on: of simulated tissue, or of a user's registered pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.stack_scale import StackLevels, stack_levels
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue, TissueSettings
from napari_lfm.training.task import numpy_rng, torch_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TISSUE_LENGTH_UM = (40.0, 250.0)
"""Mean free paths that trainings draw from."""
ABERRATIONS_UM = (0.0, 6.0, 12.0)
PEAK_ELECTRONS = (600.0, 20_000.0)
SKIPS = (1, 2, 4)
_CANDIDATES = 3


@dataclass(frozen=True)
class PatchSettings:
    """What a patch is.

    Attributes
    ----------
    shape : tuple of int
        (z, y, x).
    skip_share : float
        Share of the patches whose input has every second or fourth plane only, the others interpolated.
    """

    shape: tuple[int, int, int] = (20, 128, 128)
    skip_share: float = 0.25


@dataclass(frozen=True)
class StackPair:
    """A scaled pair.

    Attributes
    ----------
    given, wanted : Tensor, shape (z, y, x)
        Any float type; 0 to 1 between the percentiles of the stack.
    noise : float
        Electrons of the value 1 where the input has no noise yet; 0 where it was recorded.
    dark : float
        Input value of no light, where there is noise to come.
    name : str
    """

    given: torch.Tensor
    wanted: torch.Tensor
    noise: float = 0.0
    dark: float = 0.0
    name: str = ""

    def recorded(self, generator: torch.Generator) -> StackPair:
        """Return the pair with its noise drawn, for all of the stack."""
        return replace(self, given=with_noise(self, self.given.float(), generator), noise=0.0)


class PairSource(Protocol):
    """Where pairs come from."""

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Make what is needed first; yields (done, all, what)."""
        ...

    def pair(self, step: int, rng: np.random.Generator) -> StackPair:
        """Return one of the pairs to train on at a step."""
        ...

    def validation(self) -> Sequence[StackPair]:
        """Return pairs that are never trained on."""
        ...

    def describe(self) -> dict[str, object]:
        """Return, JSON-ready, what tells this source from another."""
        ...


def with_noise(pair: StackPair, part: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a part of the input with shot noise (its Gaussian limit: there is haze everywhere)."""
    if pair.noise <= 0:
        return part
    light = (part - pair.dark).clamp(min=0)
    return part + (light / pair.noise).sqrt() * torch.randn(part.shape, generator=generator)


def skipped(stack: torch.Tensor, every: int, first: int = 0) -> torch.Tensor:
    """Return a stack (z, y, x) with only every n-th plane recorded, the others interpolated."""
    if every <= 1:
        return stack
    known = torch.arange(first, len(stack), every)
    if len(known) == 0:
        known = torch.tensor([0])
    at = (torch.arange(len(stack)) - int(known[0])) / every
    low = at.floor().clamp(0, len(known) - 1).long()
    high = (low + 1).clamp(max=len(known) - 1)
    share = (at - low).clamp(0, 1).reshape(-1, 1, 1).to(stack.dtype)
    return torch.lerp(stack[known[low]], stack[known[high]], share)


def draw_patch(
    pair: StackPair, settings: PatchSettings, rng: np.random.Generator, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and target (z, y, x): a random place with something in it, turned at random."""
    size = [min(n, m) for n, m in zip(settings.shape, pair.given.shape, strict=True)]
    corner, best = [0, 0, 0], -1.0
    for _ in range(_CANDIDATES):
        at = [int(rng.integers(n - m + 1)) for n, m in zip(pair.given.shape, size, strict=True)]
        z, y, x = (slice(a, a + n) for a, n in zip(at, size, strict=True))
        light = float(pair.wanted[z, y, x][::4, ::8, ::8].float().std())
        if light > best:
            corner, best = at, light
        if rng.random() < 0.3:  # some places are taken as they come: background is to be learnt too
            break
    z, y, x = (slice(a, a + n) for a, n in zip(corner, size, strict=True))
    every = 1
    if rng.random() < settings.skip_share:
        every = int(rng.choice(SKIPS[1:]))
    # planes around the patch too, so that the interpolated ones have theirs on both sides
    top = slice(max(0, z.start - every), min(len(pair.given), z.stop + every))
    column = with_noise(pair, pair.given[top, y, x].float(), generator)
    column = skipped(column, every, int(rng.integers(every)) if every > 1 else 0)
    given = column[z.start - top.start :][: size[0]]
    wanted = pair.wanted[z, y, x].float()
    flips = [axis for axis in range(3) if rng.random() < 0.5]
    swap = size[1] == size[2] and rng.random() < 0.5
    out = []
    for part in (given, wanted):
        turned = torch.flip(part, flips) if flips else part
        out.append(turned.transpose(1, 2) if swap else turned)
    return out[0].contiguous(), out[1].contiguous()


class TissuePairs:
    """Pairs of simulated thick tissue; old specimens make way for new ones as the training goes on.

    Parameters
    ----------
    settings : TissueSettings
    seed : int
    pool : int
        Specimens in memory at a time.
    fresh_every : int
        Steps after which the oldest specimen is replaced.
    validation_stacks : int
    """

    def __init__(
        self,
        settings: TissueSettings | None = None,
        seed: int = 0,
        pool: int = 40,
        fresh_every: int = 40,
        validation_stacks: int = 4,
    ) -> None:
        self.tissue = ThickTissue(settings)
        self.seed, self.pool, self.fresh_every = seed, pool, fresh_every
        self._count = validation_stacks
        self._kept: dict[int, tuple[int, StackPair]] = {}
        self._validation: list[StackPair] = []

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Draw the first specimens and those to validate on."""
        for k in range(self.pool):
            self.at(k, 0)
            yield k + 1, self.pool, "Drawing specimens"
        for k in range(self._count):
            pair = self.make(self.seed + 7919, k)
            side = [min(n, 192) for n in pair.given.shape[1:]]
            part = replace(
                pair,
                given=pair.given[:, : side[0], : side[1]],
                wanted=pair.wanted[:, : side[0], : side[1]].float(),
            )
            self._validation.append(part.recorded(torch_rng(self.seed, k, 77)))
            yield k + 1, self._count, "Drawing specimens to validate on"

    def pair(self, step: int, rng: np.random.Generator) -> StackPair:
        """Return a specimen that is in memory at this step."""
        return self.at(int(rng.integers(self.pool)), step)

    def validation(self) -> Sequence[StackPair]:
        """Return the specimens that are never trained on."""
        return self._validation

    def make(self, seed: int, number: int, scattering: Scattering | None = None) -> StackPair:
        """Return specimen `number` of a seed, scaled; its haze and light are drawn too."""
        rng = numpy_rng(seed, number)
        if scattering is None:
            length = float(np.exp(rng.uniform(*np.log(TISSUE_LENGTH_UM))))
            scattering = Scattering(length, float(rng.choice(ABERRATIONS_UM)))
        electrons = float(np.exp(rng.uniform(*np.log(PEAK_ELECTRONS))))
        made = self.tissue.pair(rng, scattering)
        return scaled_pair(made.widefield, made.confocal, electrons, f"tissue-{seed}-{number}")

    def describe(self) -> dict[str, object]:
        """Return what tells this source from another."""
        s = self.tissue.settings
        return {
            "kind": "simulated tissue",
            "na": s.na,
            "immersion_index": s.immersion_index,
            "sample_index": s.sample_index,
            "emission_um": s.emission_um,
            "excitation_um": s.excitation_um,
            "voxel_um": list(s.voxel_um),
            "shape": list(s.shape),
            "pinhole_airy": s.pinhole_airy,
            "scattering_um": list(TISSUE_LENGTH_UM),
            "aberration_um": list(ABERRATIONS_UM),
            "electrons": list(PEAK_ELECTRONS),
            "pool": self.pool,
            "fresh_every": self.fresh_every,
            "seed": self.seed,
        }

    def at(self, slot: int, step: int) -> StackPair:
        """Return the specimen that is in a place of the pool at a step."""
        # slot k is renewed at steps k * fresh_every, k * fresh_every + pool * fresh_every, ...
        age = (step - slot * self.fresh_every) // (self.pool * self.fresh_every) + 1
        number = slot + self.pool * max(0, age)
        kept = self._kept.get(slot)
        if kept is None or kept[0] != number:
            pair = self.make(self.seed, number)
            pair = replace(pair, given=pair.given.half(), wanted=pair.wanted.half())
            kept = number, pair
            self._kept[slot] = kept
        return kept[1]


def scaled_pair(
    widefield: torch.Tensor, confocal: torch.Tensor, electrons: float, name: str = ""
) -> StackPair:
    """Return expected light of both microscopes, scaled as stacks with this much noise would be.

    Parameters
    ----------
    widefield, confocal : Tensor, shape (z, y, x)
    electrons : float
        Of the brightest voxels of the wide-field stack.
    """
    light = widefield / float(torch.quantile(widefield.flatten()[::31], 0.999))
    wide = light.numpy().reshape(-1)[::7]
    noisy = wide + np.sqrt(np.maximum(wide, 0) / electrons) * np.random.default_rng(0).normal(size=wide.size)
    levels = stack_levels(noisy)
    target = stack_levels(confocal.numpy())
    return StackPair(
        (light - levels.low) / levels.span,
        (confocal - target.low) / target.span,
        noise=electrons * levels.span,
        dark=-levels.low / levels.span,
        name=name,
    )


class RecordedPairs:
    """Registered pairs of a user, split by stack: some are only validated on.

    Parameters
    ----------
    pairs : sequence of StackPair or (name, widefield, confocal)
        Scaled ones, or arrays (z, y, x) of equal shape, in any units.
    seed : int
        Which are validated on.
    validation_share : float
        Share of the stacks; at least one. A single pair is split in two along x.
    """

    def __init__(
        self,
        pairs: Sequence[StackPair | tuple[str, np.ndarray, np.ndarray]],
        seed: int = 0,
        validation_share: float = 0.2,
    ) -> None:
        if not pairs:
            raise RequestError("There is no pair to train on.", "Give at least one.")
        made = [pair if isinstance(pair, StackPair) else checked_pair(*pair) for pair in pairs]
        if len(made) == 1:
            one, cut = made[0], int(0.8 * made[0].given.shape[2])
            made = [
                replace(one, given=one.given[..., part], wanted=one.wanted[..., part])
                for part in (slice(0, cut), slice(cut, None))
            ]
        order = (
            np.random.default_rng([seed, 3]).permutation(len(made)) if len(pairs) > 1 else np.array([1, 0])
        )
        held = count_held(len(pairs), validation_share)
        self._validation = [made[k] for k in order[:held]]
        self._train = [made[k] for k in order[held:]]
        self.names = [p.name for p in self._train], [p.name for p in self._validation]
        self.seed = seed

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Do nothing: everything is there."""
        yield 1, 1, "Reading the pairs"

    def pair(self, step: int, rng: np.random.Generator) -> StackPair:
        """Return a pair, large ones more often."""
        sizes = np.array([p.given.numel() for p in self._train], float)
        one: StackPair = self._train[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        return one

    def validation(self) -> Sequence[StackPair]:
        """Return the pairs that are never trained on, their middle where they are large."""
        return [_middle(p, 256) for p in self._validation]

    def describe(self) -> dict[str, object]:
        """Return what tells this source from another."""
        return {
            "kind": "recorded pairs",
            "train": self.names[0],
            "validate": self.names[1],
            "shapes": [list(p.given.shape) for p in (*self._train, *self._validation)],
            "seed": self.seed,
        }


def count_held(pairs: int, validation_share: float) -> int:
    """Return how many of so many pairs are only validated on; of a single one it is a part of itself."""
    return max(1, min(round(validation_share * pairs), pairs - 1))


def checked_pair(name: str, widefield: np.ndarray, confocal: np.ndarray) -> StackPair:
    """Return two stacks (z, y, x) of equal shape, scaled by their percentiles.

    Raises
    ------
    RequestError
        If their shapes differ, or one is dark or holds values that are no numbers.
    """
    if widefield.shape != confocal.shape or widefield.ndim != 3:
        raise RequestError(
            f"The stacks of '{name}' are {widefield.shape} and {confocal.shape} voxels.",
            "Register them first: both must be one stack (z, y, x) of the same shape.",
        )
    for kind, stack in (("wide-field", widefield), ("confocal", confocal)):
        if not np.isfinite(stack).all():
            raise RequestError(
                f"The {kind} stack of '{name}' holds values that are no numbers.", "Replace or crop them."
            )
    scaled = []
    for kind, stack in (("wide-field", widefield), ("confocal", confocal)):
        try:
            levels: StackLevels = stack_levels(stack)
        except RequestError as error:
            raise RequestError(f"The {kind} stack of '{name}' is dark.", error.remedy) from None
        scaled.append(torch.from_numpy(levels.scaled(stack)))
    return StackPair(scaled[0], scaled[1], name=name)


def _middle(pair: StackPair, most: int) -> StackPair:
    cut = [slice((n - min(n, most)) // 2, (n + min(n, most)) // 2) for n in pair.given.shape[1:]]
    return replace(pair, given=pair.given[:, cut[0], cut[1]], wanted=pair.wanted[:, cut[0], cut[1]])
