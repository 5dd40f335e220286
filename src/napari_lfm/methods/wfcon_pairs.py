"""Pairs of wide-field and confocal stacks for a training: found, read, registered, brought onto one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.core.resample import resample_onto

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

SIDES = (("widefield", "input"), ("confocal", "target"))
"""Names of the two folders of a folder of pairs."""
LEAST_OVERLAP = 0.25
"""Share of a stack that a pair must have in common."""
_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class NamedPair:
    """Two stacks of one specimen, as they were recorded.

    Attributes
    ----------
    name : str
    widefield, confocal : DataArray, dims ``z y x``
    """

    name: str
    widefield: xr.DataArray
    confocal: xr.DataArray


@dataclass(frozen=True)
class ReadyPair:
    """Two stacks on the wide-field's grid.

    Attributes
    ----------
    name : str
    widefield, confocal : ndarray, shape (z, y, x)
    voxel_um : tuple of float
    sentence : str
        What was done with it.
    """

    name: str
    widefield: np.ndarray
    confocal: np.ndarray
    voxel_um: tuple[float, float, float]
    sentence: str


def pair_files(folder: str | Path) -> list[tuple[str, Path, Path]]:
    """Return name and both files of every pair in ``FOLDER/widefield`` and ``FOLDER/confocal``.

    Raises
    ------
    RequestError
        If there is none; the first that lacks its partner is named.
    """
    folder = Path(folder).expanduser()
    sides = []
    for names in SIDES:
        place = next((folder / n for n in names if (folder / n).is_dir()), None)
        files = [] if place is None else sorted(p for p in place.iterdir() if _is_tiff(p))
        sides.append({_stem(p): p for p in files})
    wide, confocal = sides
    both = [n for n in wide if n in confocal]
    if not both:
        alone = next(iter([*wide, *confocal]), "")
        what = f"'{alone}' has no partner of the same name" if alone else "there are no TIFFs"
        raise RequestError(
            f"{folder} holds no pairs: {what}.",
            "Put the wide-field stacks into its folder 'widefield' and the confocal ones, under equal names, "
            "into 'confocal'.",
        )
    return [(n, wide[n], confocal[n]) for n in both]


def read_pairs(
    folder: str | Path, voxel_um: Sequence[float] | None = None
) -> Iterator[Progress | list[NamedPair]]:
    """Read every pair of a folder; one that cannot be read is left out, with a sentence.

    Parameters
    ----------
    folder : path
    voxel_um : sequence of float, optional
        (z, y, x), where the files do not say.
    """
    from napari_lfm.io.read import read_image

    files = pair_files(folder)
    out = []
    for k, (name, *paths) in enumerate(files):
        yield Progress(k, len(files), f"Reading {name}")
        try:
            stacks = [read_image(p, "stack", voxel_um=voxel_um).load() for p in paths]
        except LfmError as error:
            yield Progress(k + 1, len(files), f"The pair '{name}' is left out: {error}")
            continue
        out.append(NamedPair(name, stacks[0], stacks[1]))
    yield out


def make_ready(pair: NamedPair, register: bool = True) -> Iterator[Progress | ReadyPair]:
    """Bring a pair onto the wide-field stack's grid, registered where wanted.

    Yields
    ------
    Progress or ReadyPair
        The pair last.

    Raises
    ------
    RequestError
        If it cannot be used, with the reason: not stacks, NaN, dark, hardly any overlap, or a registration
        whose two estimates contradict each other.
    """
    wide, confocal = (_stack(pair.name, s) for s in (pair.widefield, pair.confocal))
    words = []
    if wide.dtype != confocal.dtype:
        words.append(f"{wide.dtype} and {confocal.dtype}, scaled alike")
    if register:
        from napari_lfm.training.registration import Registration, register_pair

        found: Registration | None = None
        for event in register_pair(wide, confocal):
            if isinstance(event, Registration):
                found = event
            else:
                yield event
        assert found is not None
        if not found.accepted:
            raise RequestError(
                f"The pair '{pair.name}' could not be registered: {found.reason}",
                "Register it by hand in the 'Register pair' panel, or train without registration.",
            )
        confocal = _shifted(confocal, found.shift_um)
        words.append("moved by " + " x ".join(f"{-v:+.2f}" for v in found.shift_um) + " um")
    before = wide.shape
    try:
        confocal, wide = resample_onto(confocal, wide)
    except RequestError as error:
        raise RequestError(f"The pair '{pair.name}' cannot be used: {error.message}", error.remedy) from None
    share = float(np.prod(wide.shape) / np.prod(before))
    if share < LEAST_OVERLAP:
        raise RequestError(
            f"The stacks of '{pair.name}' have only {100 * share:.0f} % in common.", "Leave this pair out."
        )
    if share < 0.999:
        words.append(f"{100 * share:.0f} % in common")
    spacing = spacing_of(wide)
    voxel = (abs(spacing["z"]), abs(spacing["y"]), abs(spacing["x"]))
    sentence = f"{pair.name}: {', '.join(words) or 'as it is'}"
    yield ReadyPair(pair.name, np.asarray(wide.values), np.asarray(confocal.values), voxel, sentence)


def alike(pairs: Sequence[ReadyPair]) -> Iterator[ReadyPair]:
    """Yield the pairs with the voxels of the first; others are resampled."""
    from scipy.ndimage import zoom

    for pair in pairs:
        ratio = [v / w for v, w in zip(pair.voxel_um, pairs[0].voxel_um, strict=True)]
        if all(abs(r - 1) < 0.03 for r in ratio):
            yield pair
            continue
        wide, confocal = (
            zoom(np.asarray(s, np.float32), ratio, order=1) for s in (pair.widefield, pair.confocal)
        )
        yield ReadyPair(
            pair.name,
            wide,
            confocal,
            pairs[0].voxel_um,
            f"{pair.sentence}; resampled to the voxels of {pairs[0].name}",
        )


def _stack(name: str, image: xr.DataArray) -> xr.DataArray:
    squeezed = image.squeeze(
        [d for d in image.dims if str(d) not in "zyx" and image.sizes[d] == 1], drop=True
    )
    if sorted(map(str, squeezed.dims)) != ["x", "y", "z"]:
        raise RequestError(
            f"A stack of '{name}' has the axes {' '.join(map(str, image.dims))}.",
            "Give one stack (z, y, x) for each: a channel and a frame.",
        )
    missing = [d for d in "zyx" if d not in spacing_of(squeezed)]
    if missing:
        raise RequestError(
            f"A stack of '{name}' does not say how large its voxels are.", "Give --voxel-um Z,Y,X."
        )
    values: Any = squeezed.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RequestError(f"A stack of '{name}' holds values that are no numbers.", "Replace or crop them.")
    if float(values.max()) == float(values.min()):
        raise RequestError(f"A stack of '{name}' is all of one brightness.", "Leave this pair out.")
    return squeezed.transpose("z", "y", "x")


def _shifted(image: xr.DataArray, shift_um: Sequence[float]) -> xr.DataArray:
    """Return the confocal stack where the wide-field one shows the same: the wide-field stays."""
    moved = {}
    for dim, shift in zip("zyx", shift_um, strict=True):
        at = image.coords[dim]
        moved[dim] = (dim, at.values - shift, dict(at.attrs))
    return image.assign_coords(moved)


def _is_tiff(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _stem(path: Path) -> str:
    name = path.name[: -len(path.suffix)]
    return name[:-4] if name.lower().endswith(".ome") else name
