"""From the axes that a file names to dims out of ``t c z y x``, in that order."""

from __future__ import annotations

from typing import Literal

from napari_lfm.core.problems import RequestError

Kind = Literal["stack", "image", "lightfield"]
ORDER = "tczyx"
# what tifffile calls axes of which the file says nothing
_UNNAMED = "QI"


def name_axes(letters: str, shape: tuple[int, ...], kind: Kind | None, where: str) -> tuple[str, ...]:
    """Return one dim per axis of a file.

    Parameters
    ----------
    letters : str
        One letter per axis, in tifffile's words (``T Z C Y X S``, ``Q`` and ``I`` unnamed).
    shape : tuple of int
        Sizes, for messages.
    kind : {"stack", "image", "lightfield"} or None
        What the image is to be used as: a leading unnamed axis is z for stacks (and for None),
        t for the others.
    where : str
        File name, for messages.

    Returns
    -------
    tuple of str

    Raises
    ------
    RequestError
        If an axis cannot be named.
    """
    letters = letters.upper()
    taken = [c for c in letters if c not in _UNNAMED]
    # the last two axes are the image itself, whatever the file calls them
    if "Y" not in taken and "X" not in taken and len(letters) >= 2 and set(letters[-2:]) <= set(_UNNAMED):
        letters = letters[:-2] + "YX"
        taken = [c for c in letters if c not in _UNNAMED]
    if kind == "lightfield" and "Z" in taken and "T" not in taken:
        # Fiji calls every series of frames "slices"; a raw light field has no z axis
        letters = letters.replace("Z", "T")
        taken = [c for c in letters if c not in _UNNAMED]
    unnamed = [i for i, c in enumerate(letters) if c in _UNNAMED]
    spare = [c for c in (("T", "Z") if kind in ("image", "lightfield") else ("Z", "T")) if c not in taken]
    chosen = list(letters)
    if len(unnamed) == 1 and spare:
        chosen[unnamed[0]] = spare[0]
    elif len(unnamed) == 2 and kind in ("stack", None) and {"T", "Z"} <= set(spare):
        chosen[unnamed[0]], chosen[unnamed[1]] = "T", "Z"
    dims = tuple(c.lower() for c in chosen)
    if any(d not in ORDER for d in dims) or len(set(dims)) < len(dims) or not {"y", "x"} <= set(dims):
        raise RequestError(
            f"The axes of {where} are not clear: its shape is {_sizes(shape)}.",
            "Name them, e.g. with --axes TZYX.",
        )
    return dims


def parse_axes(axes: str, shape: tuple[int, ...], where: str) -> tuple[str, ...]:
    """Return the dims that the user's `axes` string names, one per axis of `shape`.

    Raises
    ------
    RequestError
        If a letter is unknown or repeated, y or x is missing, or the number does not fit.
    """
    dims = tuple(axes.strip().lower())
    wrong = [d for d in dims if d not in ORDER]
    if wrong or len(set(dims)) < len(dims) or not {"y", "x"} <= set(dims):
        raise RequestError(
            f"'{axes}' does not name axes.",
            "Use each of the letters T C Z Y X once at most, Y and X always, e.g. ZYX.",
        )
    if len(dims) != len(shape):
        raise RequestError(
            f"The axes '{axes.upper()}' do not fit {where}, which has {len(shape)} axes of {_sizes(shape)}.",
            f"Give {len(shape)} letters.",
        )
    return dims


def canonical(dims: tuple[str, ...]) -> tuple[str, ...]:
    """Return `dims` in the order ``t c z y x``."""
    return tuple(d for d in ORDER if d in dims)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
