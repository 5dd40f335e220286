"""Pairs of images from two folders: streamed crops for training, whole files set aside for validation."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.training.task import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INPUT, TARGET = "input", "target"
_SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff")
_SAMPLES = 2**22  # values that a percentile is taken of, at most
_CROP, _SPLIT = 3, 4  # streams of random numbers


class _BadPair(Exception):
    """A pair cannot be used; the text says why."""


@dataclass(frozen=True)
class _Pair:
    input: np.ndarray
    target: np.ndarray
    scales: tuple[float, float]

    @property
    def nbytes(self) -> int:
        return int(self.input.nbytes + self.target.nbytes)


class FolderPairs:
    """Training data out of ``FOLDER/input/*.tif`` and ``FOLDER/target/*.tif`` with equal names.

    A pair that is unreadable, of another shape or not finite is skipped and named once, in `problems` and
    `notes`. Which pair and which crop batch number i shows depends on nothing but `seed` and i.

    Parameters
    ----------
    folder : path
    crop : tuple of int or None
        Size of a crop along the last dimensions, in steps of `units`; two entries (y, x) leave leading
        dimensions whole, a third one in front crops z, which input and target must then share. None: whole
        images, which must then be of one size.
    units : tuple of int
        Pixels of one lateral step in the input and in the target: (1, 1) for stacks on one grid, (pixels,
        voxels) per lenslet for lenslet images and volumes.
    seed : int
        Of crops, flips and the split.
    validation_share : float
        Share of the files set aside, at least one.
    flips : bool
        Mirror some of the crops along y and x. A lenslet image mirrored as a whole is the light field of
        the mirrored scene.
    percentile : float
        Of every whole image, given with its crops as a scale.
    cache_bytes : int
        Memory for images kept decoded.

    Raises
    ------
    RequestError
        If there are fewer than two usable pairs.
    """

    def __init__(
        self,
        folder: str | Path,
        crop: Sequence[int] | None,
        *,
        units: tuple[int, int] = (1, 1),
        seed: int = 0,
        validation_share: float = 0.1,
        flips: bool = True,
        percentile: float = 99.9,
        cache_bytes: int = 2**29,
    ) -> None:
        self.folder = Path(folder)
        self.crop = None if crop is None else tuple(crop)
        self.units, self.seed, self.flips, self.percentile = units, seed, flips, percentile
        self.problems: list[Problem] = []
        self._told = 0
        self._bad: set[str] = set()
        self._lock = threading.Lock()  # batches come from a background thread, validation does not
        self._cache: OrderedDict[str, _Pair] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._paths = self._find()
        names = self._with_common_shapes()
        order = [names[i] for i in numpy_rng(seed, 0, _SPLIT).permutation(len(names))]
        count = min(max(round(validation_share * len(order)), 1), len(order) - 1)
        # these are read now: training must not find out in an hour that it cannot be judged
        aside: list[str] = []
        while order and len(aside) < count:
            if self._pair(name := order.pop(0)) is not None:
                aside.append(name)
        if not aside or not order:
            usable = len(aside) + len(order)
            raise RequestError(
                f"{self.folder} holds {usable} usable pair{'s' * (usable != 1)} of images. "
                + " ".join(p.message for p in self.problems[:3]),
                "At least two are needed, one to train on and one to validate.",
            )
        self.validation_names, self.train_names = tuple(sorted(aside)), tuple(sorted(order))

    def batch(self, index: int, size: int) -> dict[str, torch.Tensor]:
        """Return batch number `index`: random crops of random training pairs.

        Returns
        -------
        dict
            ``input`` and ``target``, float32 (size, ...) in the files' units; ``input_scale`` and
            ``target_scale``, (size,), the percentile of the whole images (1 where it is not above 0).

        Raises
        ------
        RequestError
            If no training pair can be used.
        """
        rng = numpy_rng(self.seed, index, _CROP)
        return _stack([self._draw(rng) for _ in range(size)])

    def validation(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Give name and central crop, a batch of one, of every pair that was set aside.

        Raises
        ------
        RequestError
            If one of them went away.
        """
        for name in self.validation_names:
            pair = self._pair(name)
            if pair is None:  # good when the run began
                raise RequestError(str(self.problems[-1]), "Put the file back.")
            _, rooms = self._rooms(pair)
            yield name, _stack([self._cut(pair, [room // 2 for room in rooms], ())])

    def notes(self) -> list[str]:
        """Return a sentence for every pair skipped since the last call."""
        with self._lock:
            fresh = [str(p) for p in self.problems[self._told :]]
            self._told = len(self.problems)
        return fresh

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells this data set from another."""
        return {
            "pairs": self.folder.name,
            "train": list(self.train_names),
            "validation": list(self.validation_names),
            "crop": None if self.crop is None else list(self.crop),
            "units": list(self.units),
            "seed": self.seed,
            "flips": self.flips,
            "percentile": self.percentile,
        }

    def _find(self) -> dict[str, tuple[Path, Path]]:
        """Return the paths of all pairs by name; a file without a partner is a problem."""
        sides = []
        for side in (INPUT, TARGET):
            files = sorted((self.folder / side).glob("*")) if (self.folder / side).is_dir() else []
            sides.append({name: f for f in files if (name := _name(f)) and f.is_file()})
        inputs, targets = sides
        if not inputs and not targets:
            raise RequestError(
                f"There are no TIFF images in {self.folder / INPUT} and {self.folder / TARGET}.",
                f"Put images into '{INPUT}' and what they should become into '{TARGET}', under equal names.",
            )
        for name in sorted(inputs.keys() ^ targets.keys()):
            side, other = (INPUT, TARGET) if name in inputs else (TARGET, INPUT)
            path = (inputs | targets)[name]
            self._skip(name, f"'{side}/{path.name}' has no partner in '{other}'")
        return {name: (inputs[name], targets[name]) for name in sorted(inputs.keys() & targets.keys())}

    def _with_common_shapes(self) -> list[str]:
        """Return the names of pairs that fit together, and with most others."""
        shapes = {}
        for name, (one, two) in self._paths.items():
            try:
                shapes[name] = found = _shape(one), _shape(two)
                self._refuse_misfit(*found)
            except _BadPair as error:
                shapes.pop(name, None)
                self._skip(name, str(error))
        if not shapes:
            return []
        kinds = {name: tuple(self._fixed(shape) for shape in both) for name, both in shapes.items()}
        (common, _), *_ = Counter(kinds.values()).most_common(1)
        for name, kind in kinds.items():
            if kind != common:
                self._skip(
                    name, f"its shapes {shapes[name][0]} and {shapes[name][1]} differ from the others'"
                )
        return [name for name in shapes if name not in self._bad]

    def _fixed(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        # what must be equal in all pairs: everything that is not cropped
        return (len(shape), *(shape if self.crop is None else shape[: -len(self.crop)]))

    def _refuse_misfit(self, one: tuple[int, ...], two: tuple[int, ...]) -> None:
        steps = []
        for shape, unit, side in zip((one, two), self.units, (INPUT, TARGET), strict=True):
            if len(shape) < max(2, len(self.crop or ())):
                raise _BadPair(f"the {side} has shape {shape}, too few dimensions")
            if shape[-2] % unit or shape[-1] % unit:
                raise _BadPair(f"the {side} has shape {shape}, not a multiple of {unit}")
            steps.append((shape[-2] // unit, shape[-1] // unit))
        if steps[0] != steps[1]:
            raise _BadPair(f"input {one} and target {two} do not cover the same field")
        if self.crop is not None:
            size: tuple[int, ...] = steps[0]
            if len(self.crop) == 3:
                if one[-3] != two[-3]:
                    raise _BadPair(f"input {one} and target {two} have different numbers of planes")
                size = (one[-3], *size)
            if any(n < c for n, c in zip(size, self.crop, strict=True)):
                raise _BadPair(f"the images {one} and {two} are smaller than a crop of {self.crop}")

    def _draw(self, rng: np.random.Generator) -> dict[str, Any]:
        # a bad pair is bad whenever it is met, so that going on to the next draw is deterministic too
        names = list(self.train_names)
        while names:
            name = names[int(rng.integers(len(names)))]
            pair = self._pair(name)
            if pair is None:
                names.remove(name)
                continue
            _, rooms = self._rooms(pair)
            starts = [int(rng.integers(room + 1)) for room in rooms]
            flips = tuple(axis for axis in (-2, -1) if rng.integers(2) and self.flips)
            return self._cut(pair, starts, flips)
        raise RequestError(
            f"None of the {len(self.train_names)} training pairs in {self.folder} can be used. "
            f"{self.problems[-1]}"
        )

    def _rooms(self, pair: _Pair) -> tuple[tuple[int, ...], list[int]]:
        """Return crop sizes and the largest start per cropped dimension, both in steps."""
        shape = pair.input.shape
        whole = (*shape[:-2], shape[-2] // self.units[0], shape[-1] // self.units[0])
        crop = whole[-2:] if self.crop is None else self.crop
        return crop, [n - c for n, c in zip(whole[-len(crop) :], crop, strict=True)]

    def _cut(self, pair: _Pair, starts: Sequence[int], flips: tuple[int, ...]) -> dict[str, Any]:
        crop, _ = self._rooms(pair)
        cut: dict[str, Any] = {}
        for image, unit, side in zip((pair.input, pair.target), self.units, (INPUT, TARGET), strict=True):
            steps = (*[1] * (len(crop) - 2), unit, unit)
            spans = [slice(u * a, u * (a + n)) for a, n, u in zip(starts, crop, steps, strict=True)]
            window = (slice(None),) * (image.ndim - len(spans)) + tuple(spans)
            part = np.flip(image[window], flips) if flips else image[window]
            cut[side] = torch.from_numpy(np.ascontiguousarray(part, np.float32))
        cut["input_scale"], cut["target_scale"] = (torch.tensor(scale) for scale in pair.scales)
        return cut

    def _pair(self, name: str) -> _Pair | None:
        """Return the decoded pair, or None if it cannot be used."""
        with self._lock:
            if name in self._bad:
                return None
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
            try:
                one, two = (_read(path) for path in self._paths[name])
                self._refuse_misfit(one.shape, two.shape)
            except _BadPair as error:
                self._skip(name, str(error))
                return None
            pair = _Pair(one, two, (self._scale(one), self._scale(two)))
            self._cache[name] = pair
            while len(self._cache) > 1 and sum(p.nbytes for p in self._cache.values()) > self._cache_bytes:
                self._cache.popitem(last=False)
            return pair

    def _scale(self, image: np.ndarray) -> float:
        flat = image.reshape(-1)
        found = float(np.percentile(flat[:: -(-flat.size // _SAMPLES)], self.percentile))
        return found if found > 0 else 1.0

    def _skip(self, name: str, reason: str) -> None:
        self._bad.add(name)
        self.problems.append(
            Problem(f"The pair '{name}' is skipped: {reason}.", severity="warning", field=name)
        )


def _name(path: Path) -> str:
    """Return the file name without its TIFF suffix; empty for other and for hidden files."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix) and not path.name.startswith("."):
            return path.name[: -len(suffix)]
    return ""


def _shape(path: Path) -> tuple[int, ...]:
    try:
        with tifffile.TiffFile(path) as file:
            return tuple(map(int, file.series[0].shape))
    except Exception as error:  # a damaged TIFF fails in many ways, none of them a reason to stop
        raise _BadPair(f"'{path.parent.name}/{path.name}' cannot be read") from error


def _read(path: Path) -> np.ndarray:
    where = f"'{path.parent.name}/{path.name}'"
    try:
        image = np.asarray(tifffile.imread(path))
    except MemoryError:
        raise
    except Exception as error:
        raise _BadPair(f"{where} cannot be read") from error
    if image.dtype.kind not in "uifb":
        raise _BadPair(f"{where} holds {image.dtype} values")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise _BadPair(f"{where} contains NaN or infinite values")
    return image


def _stack(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}
