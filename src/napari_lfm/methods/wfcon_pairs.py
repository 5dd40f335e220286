"""Pairs of wide-field and confocal stacks for a training: found, read, registered, brought onto one grid."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import resample_onto

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import xarray as xr

SIDES = (("widefield", "input"), ("confocal", "target"))
"""Names of the two folders of a folder of pairs."""
LEAST_OVERLAP = 0.25
"""Share of a stack that a pair must have in common."""
LEAST_SIDE = 20
"""Pixels across of a stack: four fifths of a single one are still a patch that a discriminator can judge."""
SAME_VOXEL = 0.03
"""Part by which the voxels of pairs may differ before they are resampled."""
_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class NamedPair:
    """Two stacks of one specimen, as they were recorded.

    Attributes
    ----------
    name : str
    widefield, confocal : DataArray, dims ``z y x``
    placed : bool
        They were brought together by hand: they are not registered again.
    """

    name: str
    widefield: xr.DataArray
    confocal: xr.DataArray
    placed: bool = False

    def fingerprint(self) -> str:
        """Return what tells these stacks from others of the same name, from a plane of each."""
        parts = []
        for image in (self.widefield, self.confocal):
            plane = image.isel(z=image.sizes["z"] // 2) if "z" in image.dims else image
            sum_of = zlib.crc32(np.ascontiguousarray(plane.values).tobytes())
            parts.append(f"{'x'.join(map(str, image.shape))}:{sum_of:08x}")
        return " ".join(parts)


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
    shift_um : tuple of float or None
        Found by registration, (z, y, x): to be added to the wide-field stack's coordinates.
    """

    name: str
    widefield: np.ndarray
    confocal: np.ndarray
    voxel_um: tuple[float, float, float]
    sentence: str
    shift_um: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class PairLeftOut(Progress):
    """A pair cannot be used; the training goes on without it.

    Attributes
    ----------
    name : str
    reason, remedy : str
    """

    name: str = ""
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class PairReady(Progress):
    """A pair can be trained on.

    Attributes
    ----------
    name : str
    shift_um : tuple of float or None
        As in `ReadyPair`.
    """

    name: str = ""
    shift_um: tuple[float, float, float] | None = None


def match_files(folder: str | Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Return name and both files of every pair of a folder, and the names that have no partner."""
    folder = Path(folder).expanduser()
    sides = []
    for names in SIDES:
        place = next((folder / n for n in names if (folder / n).is_dir()), None)
        files = [] if place is None else sorted(p for p in place.iterdir() if _is_tiff(p))
        sides.append({_stem(p): p for p in files})
    wide, confocal = sides
    both = [(n, wide[n], confocal[n]) for n in wide if n in confocal]
    return both, sorted({*wide, *confocal} - {n for n, *_ in both})


def pair_files(folder: str | Path) -> list[tuple[str, Path, Path]]:
    """Return name and both files of every pair in ``FOLDER/widefield`` and ``FOLDER/confocal``.

    Raises
    ------
    RequestError
        If there is none; the first that lacks its partner is named.
    """
    both, alone = match_files(folder)
    if not both:
        what = f"'{alone[0]}' has no partner of the same name" if alone else "there are no TIFFs"
        raise RequestError(
            f"{folder} holds no pairs: {what}.",
            "Put the wide-field stacks into its folder 'widefield' and the confocal ones, under equal names, "
            "into 'confocal'.",
        )
    return both


def read_pair(
    name: str, widefield: Path, confocal: Path, voxel_um: Sequence[float] | None = None
) -> NamedPair:
    """Read both stacks of a pair.

    Parameters
    ----------
    name : str
    widefield, confocal : Path
    voxel_um : sequence of float, optional
        (z, y, x), for files that do not say.

    Raises
    ------
    RequestError
        If one of them is no readable stack, or does not say how large its voxels are.
    """
    return NamedPair(name, _read(widefield, voxel_um), _read(confocal, voxel_um))


def _read(path: Path, voxel_um: Sequence[float] | None) -> xr.DataArray:
    from napari_lfm.io.read import read_image

    try:
        image = read_image(path, "stack")
    except RequestError:
        if voxel_um is None:
            raise
        image = read_image(path, "stack", voxel_um=voxel_um)
    return image.load()


def make_ready(
    pair: NamedPair, register: bool = True, shift_um: Sequence[float] | None = None
) -> Iterator[Progress | ReadyPair]:
    """Bring a pair onto the wide-field stack's grid, registered where wanted.

    Parameters
    ----------
    pair : NamedPair
    register : bool
        Not where it was placed by hand.
    shift_um : sequence of float, optional
        Found before: it is not looked for again.

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
    shift: tuple[float, float, float] | None = None
    if register and not pair.placed:
        if shift_um is None:
            shift_um = yield from _registered(pair.name, wide, confocal)
        z, y, x = (float(v) for v in shift_um)
        shift = z, y, x
        confocal = _shifted(confocal, shift)
        words.append("moved by " + " x ".join(f"{-v:+.2f}" for v in shift) + " um")
    elif register:
        words.append("placed by hand")
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
    if min(wide.shape[1:]) < LEAST_SIDE:
        raise RequestError(
            f"The stacks of '{pair.name}' have fewer than {LEAST_SIDE} x {LEAST_SIDE} pixels in common.",
            "Leave this pair out.",
        )
    if share < 0.999:
        words.append(f"{100 * share:.0f} % in common")
    spacing = spacing_of(wide)
    voxel = (abs(spacing["z"]), abs(spacing["y"]), abs(spacing["x"]))
    sentence = f"{pair.name}: {', '.join(words) or 'as it is'}"
    yield ReadyPair(pair.name, np.asarray(wide.values), np.asarray(confocal.values), voxel, sentence, shift)


def _registered(
    name: str, wide: xr.DataArray, confocal: xr.DataArray
) -> Generator[Progress, None, tuple[float, float, float]]:
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
            f"The pair '{name}' could not be registered: {found.reason}",
            "Register it by hand in the 'Register pair' panel, or train without registration.",
        )
    return found.shift_um


def with_voxels(pair: ReadyPair, voxel_um: tuple[float, float, float]) -> ReadyPair:
    """Return the pair resampled to these voxels, as it is where it has them already."""
    ratio = [own / wanted for own, wanted in zip(pair.voxel_um, voxel_um, strict=True)]
    if all(abs(r - 1) < SAME_VOXEL for r in ratio):
        return pair
    shape = tuple(int((n - 1) * r + 1e-6) + 1 for n, r in zip(pair.widefield.shape, ratio, strict=True))
    own, wanted = (dict(zip("zyx", v, strict=True)) for v in (pair.voxel_um, voxel_um))
    grid = labelled(np.broadcast_to(np.float32(0), shape), "zyx", wanted)
    wide, confocal = (
        resample_onto(labelled(s, "zyx", own), grid)[0].values for s in (pair.widefield, pair.confocal)
    )
    said = " x ".join(f"{v:.3g}" for v in voxel_um)
    return replace(
        pair,
        widefield=wide,
        confocal=confocal,
        voxel_um=voxel_um,
        sentence=f"{pair.sentence}, resampled to voxels of {said} um",
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
            f"A stack of '{name}' does not say how large its voxels are.",
            "Give the voxel size (--voxel-um Z,Y,X).",
        )
    values: Any = squeezed.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RequestError(f"A stack of '{name}' holds values that are no numbers.", "Replace or crop them.")
    if float(values.max()) == float(values.min()):
        raise RequestError(f"A stack of '{name}' is all of one brightness.", "Leave this pair out.")
    squeezed = squeezed.transpose("z", "y", "x")
    # mirrored layers are turned round, so that both stacks' coordinates rise
    falling = [d for d, step in spacing_of(squeezed).items() if step < 0]
    return squeezed.isel({d: slice(None, None, -1) for d in falling}) if falling else squeezed


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
