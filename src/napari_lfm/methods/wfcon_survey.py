"""What pairs there are for a training, from the heads of their files or from layers: no pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import origin_of, spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.methods.wfcon_pairs import (
    LEAST_OVERLAP,
    LEAST_SIDE,
    SAME_VOXEL,
    NamedPair,
    match_files,
    pair_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import xarray as xr

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class StackHead:
    """What is known of a stack before it is read.

    Attributes
    ----------
    shape : tuple of int
        (z, y, x).
    voxel_um : tuple of float
        (z, y, x); 0 where nobody says.
    origin_um : tuple of float
    dtype : str
    """

    shape: tuple[int, int, int]
    voxel_um: Triple
    origin_um: Triple
    dtype: str

    @property
    def is_sized(self) -> bool:
        """Whether all voxel sizes are known."""
        return all(v > 0 for v in self.voxel_um)

    @property
    def voxels(self) -> int:
        """How many there are."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def sized(self, voxel_um: Sequence[float] | None) -> StackHead:
        """Return the head with sizes where it has none."""
        if self.is_sized or voxel_um is None:
            return self
        z, y, x = (float(v) for v in voxel_um)
        return StackHead(self.shape, (z, y, x), self.origin_um, self.dtype)


@dataclass(frozen=True)
class SeenPair:
    """A pair as far as it can be judged without its pixels.

    Attributes
    ----------
    name : str
    widefield, confocal : StackHead or None
        None where it cannot be read.
    problem : Problem or None
        Why it cannot be used.
    """

    name: str
    widefield: StackHead | None = None
    confocal: StackHead | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Survey:
    """All pairs, and the files without a partner."""

    pairs: tuple[SeenPair, ...]
    alone: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[SeenPair, ...]:
        """Pairs that nothing is known against."""
        return tuple(p for p in self.pairs if p.problem is None)

    @property
    def heads(self) -> list[tuple[StackHead, StackHead]]:
        """Both heads of every usable pair."""
        return [(p.widefield, p.confocal) for p in self.usable if p.widefield and p.confocal]

    @property
    def lacks_voxels(self) -> bool:
        """Whether a stack does not say how large its voxels are."""
        heads = [h for p in self.pairs for h in (p.widefield, p.confocal) if h is not None]
        return any(not h.is_sized for h in heads)


def survey_folder(folder: str | Path, voxel_um: Sequence[float] | None = None) -> Iterator[Progress | Survey]:
    """Look at the heads of all files of a folder of pairs; the survey comes last.

    Parameters
    ----------
    folder : path
    voxel_um : sequence of float, optional
        (z, y, x), for files that do not say.

    Raises
    ------
    RequestError
        If there is no such folder, or no pair in it.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise RequestError(f"There is no folder {place}.", "Choose the folder of the pairs.")
    files = pair_files(place)
    alone = match_files(place)[1]
    seen = []
    for k, (name, wide, confocal) in enumerate(files):
        yield Progress(k, len(files), f"Looking at {name}")
        try:
            heads = file_head(wide), file_head(confocal)
        except LfmError as error:
            seen.append(SeenPair(name, problem=_unusable(name, str(error), "")))
            continue
        seen.append(_judged(name, *heads, voxel_um))
    yield Survey(tuple(seen), tuple(alone))


def survey_layers(pairs: Sequence[NamedPair], voxel_um: Sequence[float] | None = None) -> Survey:
    """Look at pairs that are in memory; as `survey_folder`."""
    seen = []
    for pair in pairs:
        try:
            heads = head_of(pair.widefield), head_of(pair.confocal)
        except LfmError as error:
            seen.append(SeenPair(pair.name, problem=_unusable(pair.name, error.message, error.remedy)))
            continue
        seen.append(_judged(pair.name, *heads, voxel_um))
    return Survey(tuple(seen))


def head_of(image: xr.DataArray) -> StackHead:
    """Return the head of a labelled image.

    Raises
    ------
    RequestError
        If it is no single stack.
    """
    if "affine_um" in image.attrs:
        raise RequestError("a stack is turned in the viewer.", "Take the rotation off.")
    return _head({str(d): int(n) for d, n in image.sizes.items()}, spacing_of(image), origin_of(image), image)


def file_head(path: Path) -> StackHead:
    """Return the head of a TIFF file; raises as `head_of`, and where it cannot be read."""
    from napari_lfm.io.axes import name_axes
    from napari_lfm.io.tiff import describe

    series = describe(path)[0]
    record = series.record
    if record.get("dims") and len(record["dims"]) == len(record.get("shape", ())):
        sizes = dict(zip(record["dims"], record["shape"], strict=True))
        return _head(sizes, record.get("spacing", {}), record.get("origin", {}), series)
    dims = name_axes(series.axes, series.shape, "stack", path.name)
    return _head(dict(zip(dims, series.shape, strict=True)), series.spacing, {}, series)


def _head(
    sizes: Mapping[str, int], spacing: Mapping[str, float], origin: Mapping[str, float], what: object
) -> StackHead:
    more = [f"{n} {_AXES[d]}" for d, n in sizes.items() if d in _AXES and n > 1]
    if more:
        raise RequestError(f"a stack has {' and '.join(more)}.", "Give one stack of planes for each.")
    if any(d not in sizes for d in "zyx"):
        raise RequestError("one of them is a single image, not a stack.", "Give a stack of planes.")
    nz, ny, nx = (int(sizes[d]) for d in "zyx")
    steps = [float(spacing.get(d) or 0.0) for d in "zyx"]
    z, y, x = (abs(step) for step in steps)
    # of a mirrored layer the last voxel is the first place
    oz, oy, ox = (
        float(origin.get(d) or 0.0) + min(0.0, step) * (n - 1)
        for d, step, n in zip("zyx", steps, (nz, ny, nx), strict=True)
    )
    return StackHead((nz, ny, nx), (z, y, x), (oz, oy, ox), str(getattr(what, "dtype", "")))


_AXES = {"t": "frames", "c": "channels"}


def _judged(name: str, wide: StackHead, confocal: StackHead, voxel_um: Sequence[float] | None) -> SeenPair:
    wide, confocal = wide.sized(voxel_um), confocal.sized(voxel_um)
    problem = None
    if min(wide.shape[1:] + confocal.shape[1:]) < LEAST_SIDE:
        said = f"a stack of fewer than {LEAST_SIDE} x {LEAST_SIDE} pixels is too small."
        problem = _unusable(name, said, "Give larger ones.")
    elif not (wide.is_sized and confocal.is_sized):
        which = "the wide-field stack" if not wide.is_sized else "the confocal stack"
        problem = _unusable(name, f"{which} does not say how large its voxels are.", "Give the voxel size.")
    else:
        share = _overlap(wide, confocal)
        if share < LEAST_OVERLAP:
            problem = _unusable(
                name,
                f"its stacks have only {100 * share:.0f} % in common.",
                "Check voxel sizes and places, or leave it out.",
            )
    return SeenPair(name, wide, confocal, problem)


def _overlap(wide: StackHead, confocal: StackHead) -> float:
    """Return the share of the wide-field stack that both show, by their sizes and places."""
    share = 1.0
    for axis in range(3):
        ends = []
        for head in (wide, confocal):
            step = head.voxel_um[axis]
            start = head.origin_um[axis] - step / 2
            ends.append((start, start + step * head.shape[axis]))
        (a0, a1), (b0, b1) = ends
        share *= max(0.0, min(a1, b1) - max(a0, b0)) / (a1 - a0)
    return share


def _unusable(name: str, reason: str, remedy: str) -> Problem:
    return Problem(f"The pair '{name}' cannot be used: {reason}", remedy, severity="warning", field="pairs")


def survey_words(survey: Survey) -> str:
    """Return in words what the usable pairs are.

    Examples
    --------
    >>> head = StackHead((76, 2048, 2048), (0.5, 0.108, 0.108), (0, 0, 0), "uint16")
    >>> survey_words(Survey((SeenPair("a", head, head), SeenPair("b", head, head))))
    '2 pairs, 76 planes of 2048 x 2048 pixels, voxels of 0.5 x 0.108 x 0.108 um.'
    """
    heads = survey.heads
    if not heads:
        return "No pair can be used."
    wide = [w for w, _ in heads]
    shape = [_span([h.shape[k] for h in wide]) for k in range(3)]
    voxel = " x ".join(f"{v:.3g}" for v in wide[0].voxel_um)
    count = f"{len(heads)} pair{'s' if len(heads) > 1 else ''}"
    text = f"{count}, {shape[0]} planes of {shape[1]} x {shape[2]} pixels, voxels of {voxel} um."
    if any(not _same(h.voxel_um, wide[0].voxel_um) for h in wide):
        text += " Some have other voxels: they are resampled to those of the first."
    if any(not _same(w.voxel_um, c.voxel_um) or w.shape != c.shape for w, c in heads):
        text += " Confocal stacks of other shapes or voxels are brought onto the wide-field ones."
    if any(w.dtype != c.dtype for w, c in heads):
        text += " Bit depths differ; each stack is scaled by its own percentiles."
    return text


def _same(a: Triple, b: Triple) -> bool:
    return all(abs(v / w - 1) < SAME_VOXEL for v, w in zip(a, b, strict=True))


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
