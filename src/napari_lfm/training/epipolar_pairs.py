"""Epipolar images of simulated neurons, with the depths that a network should find in them.

Each field of `napari_lfm.simulation.neuron_fields` gives the images through its neurons, along x and y and
in several rows of views; background is removed as it is from recordings. A label says which depth bins hold a
source, softened over neighbouring bins (Song et al., ICASSP 2021, section 3): one label for all sources
that an image shows, and one for those in its middle alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.lightfield.epipolar import Direction, brightest_one, epipolar_windows
from napari_lfm.lightfield.purify import split_background
from napari_lfm.lightfield.slopes import slope_per_um

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.simulation.neuron_fields import NeuronField, NeuronFields

NEAR_LENSLETS = 1
"""Lenslets on either side of an image's middle that belong to the source in the middle."""
_DIM = 0.06
"""Sources dimmer than this share of the brightest in an image are not asked for."""


@dataclass(frozen=True)
class EpipolarSettings:
    """What the images and labels look like.

    Attributes
    ----------
    z_um : tuple of float
        The depth bins.
    label_um : float
        Standard deviation of the soft labels.
    half : int
        Lenslets on either side of an image's middle.
    rows : int
        Rows of views for each neuron and direction; the first is the central one.
    furthest_row : int
        How far from the centre the others are at most.
    masked : float
        Share of the images whose outer views are dark, as in light fields of fewer views.
    pool, most, fresh_every : int
        Fields at the start, at the end, and steps after which there is one more.
    """

    z_um: tuple[float, ...]
    label_um: float = 1.5
    half: int = 11
    rows: int = 3
    furthest_row: int = 8
    masked: float = 0.3
    pool: int = 40
    most: int = 3000
    fresh_every: int = 4


@dataclass(frozen=True)
class EpipolarSet:
    """Images of one or more fields.

    Attributes
    ----------
    image : tensor, shape (n, views, lenslets)
        Brightest pixel 1.
    every, near : tensor, shape (n, depths)
        Soft labels of all sources, and of those in the middle.
    z_um : tensor, shape (n,)
        Depth of the neuron that the image goes through.
    sources : tensor, shape (n,)
        How many sources the image shows.
    """

    image: torch.Tensor
    every: torch.Tensor
    near: torch.Tensor
    z_um: torch.Tensor
    sources: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def taken(self, index: torch.Tensor) -> EpipolarSet:
        """Return some of them."""
        return EpipolarSet(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: list[EpipolarSet]) -> EpipolarSet:
        """Return several as one."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


class EpipolarPairs:
    """A source of labelled epipolar images for one microscope.

    Parameters
    ----------
    fields : NeuronFields
    settings : EpipolarSettings
    seed : int
    """

    def __init__(self, fields: NeuronFields, settings: EpipolarSettings, seed: int = 0) -> None:
        self.fields, self.settings, self.seed = fields, settings, seed
        self._slope = -slope_per_um(fields.microscope, None, fields.n_pixels)
        self._sets: dict[int, EpipolarSet] = {}

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Build the optics, yielding (planes done, planes in all)."""
        yield from self.fields.prepare()

    def other(self, seed: int) -> EpipolarPairs:
        """Return a source of other fields through the same optics."""
        return EpipolarPairs(self.fields.other(seed), self.settings, seed)

    def field_set(self, index: int) -> EpipolarSet:
        """Return the images of field `index`, in 16 bits; recorded once and kept."""
        if index not in self._sets:
            rng = np.random.default_rng([self.seed, 2, index])
            self._sets[index] = self.images_of(self.fields.recorded(self.fields.clean(index), rng), rng)
        return self._sets[index]

    def images_of(self, recorded: NeuronField, rng: np.random.Generator) -> EpipolarSet:
        """Return the labelled images through the neurons of a recorded field."""
        s, (low, high) = self.settings, (self.settings.z_um[0], self.settings.z_um[-1])
        _, foreground = split_background(recorded.views)
        count = recorded.views.shape[-1]
        z, t, c = recorded.neurons[:, 0], recorded.neurons[:, 1], recorded.neurons[:, 2]
        inside = (t > 0) & (t < count - 1) & (c > 0) & (c < count - 1) & (z >= low) & (z <= high)
        chosen = np.flatnonzero(inside)
        ways: tuple[Direction, ...] = ("x", "y")
        parts = [
            self._cut(foreground, recorded.neurons, chosen, way, row, rng)
            for way in ways
            for row in range(s.rows)
        ]
        return EpipolarSet.joined(parts)

    def _cut(
        self,
        foreground: np.ndarray,
        neurons: np.ndarray,
        chosen: np.ndarray,
        direction: Direction,
        row: int,
        rng: np.random.Generator,
    ) -> EpipolarSet:
        s = self.settings
        z, across, along = neurons[:, 0], neurons[:, 1], neurons[:, 2]
        if direction == "y":
            across, along = along, across
        view = np.zeros(len(chosen), int)
        if row:
            view = rng.integers(1, s.furthest_row + 1, len(chosen)) * rng.choice([-1, 1], len(chosen))
        # a seed is known to a part of a lenslet, and in views off the centre the depth only roughly
        off = rng.normal(0, 0.2, len(chosen)) + view * self._slope * rng.normal(0, 1.5, len(chosen))
        middle_across = across[chosen] + view * self._slope * z[chosen] + off
        middle_along = along[chosen] + rng.normal(0, 0.2, len(chosen))
        places = (middle_across, middle_along) if direction == "x" else (middle_along, middle_across)
        images, _ = brightest_one(epipolar_windows(foreground, *places, s.half, direction, view))
        every, near, sources = self._labels(
            neurons, across, along, view, np.rint(middle_across), np.rint(middle_along)
        )
        return EpipolarSet(
            torch.from_numpy(images).half(),
            torch.from_numpy(every).half(),
            torch.from_numpy(near).half(),
            torch.from_numpy(z[chosen].astype(np.float32)),
            torch.from_numpy(sources),
        )

    def _labels(
        self,
        neurons: np.ndarray,
        across: np.ndarray,
        along: np.ndarray,
        view: np.ndarray,
        row: np.ndarray,
        middle: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return soft labels (n, depths) of all and of the middle's sources, and how many there are."""
        z, radius, brightness = neurons[:, 0], neurons[:, 3], neurons[:, 4]
        cell = self.fields.lenslet_um
        distance = np.abs(across + view[:, None] * self._slope * z - row[:, None])  # image, neuron
        seen = distance < 0.8 * radius / cell + 0.4
        # a disc's chord, roughly: what part of its brightest line this row shows
        chord = np.sqrt(np.clip(1 - (distance / (radius / cell + 0.7)) ** 2, 0, 1))
        bright = chord * brightness / radius * (np.abs(along - middle[:, None]) <= self.settings.half + 0.5)
        seen &= bright > _DIM * bright.max(1, keepdims=True, initial=1e-12)
        here = seen & (np.abs(along - middle[:, None]) <= NEAR_LENSLETS + 0.25)
        bins = np.asarray(self.settings.z_um)
        soft = np.exp(-((bins - z[:, None]) ** 2) / 2 / self.settings.label_um**2)  # neuron, depth
        every, near = (
            (mask[..., None] * soft).max(1, initial=0.0).astype(np.float32) for mask in (seen, here)
        )
        return every, near, seen.sum(1)

    def _view_masks(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return which views each image keeps, (count, views, 1)."""
        n = self.fields.n_pixels
        furthest = (n - 1) // 2
        kept = np.where(
            rng.random(count) < self.settings.masked,
            rng.integers(furthest // 3 + 1, furthest + 1, count),
            furthest,
        )
        return np.asarray(np.abs(np.arange(n) - furthest) <= kept[:, None], np.float16)[..., None]

    def batch(self, step: int, size: int) -> EpipolarSet:
        """Return the images of a training step; the same step gives the same ones."""
        s = self.settings
        rng = np.random.default_rng([self.seed, 3, step])
        known = min(s.most, s.pool + step // s.fresh_every)
        parts: list[EpipolarSet] = []
        left = size
        while left > 0:
            found = self.field_set(int(rng.integers(known)))
            if not len(found):
                continue
            take = rng.permutation(len(found))[: min(left, 8)]
            parts.append(found.taken(torch.from_numpy(take)))
            left -= len(take)
        out = EpipolarSet.joined(parts)
        # light from the other side: views and lenslets turn round together, and slopes stay
        turned = torch.from_numpy(rng.random(len(out)) < 0.5)[:, None, None]
        image = torch.where(turned, out.image.flip(1, 2), out.image)
        image = image * torch.from_numpy(self._view_masks(rng, len(out)))
        image = image / image.amax((1, 2), keepdim=True).clamp(min=1e-3)
        return EpipolarSet(image, out.every, out.near, out.z_um, out.sources)
