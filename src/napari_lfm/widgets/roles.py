"""Guessing which of several opened files is the light field, the white frame and the dark frame."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from napari_lfm.widgets.state import ROLES, Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORDS: Mapping[Role, tuple[str, ...]] = {
    "white": ("radiometry", "white", "whites", "flat", "flatfield", "uniform", "homogeneous", "reference"),
    "dark": ("dark", "darkframe", "darks", "black", "background", "offset", "bias"),
    "lightfield": ("lightfield", "lf", "raw", "sample", "lenslet"),
}


def guess_role(path: str, metadata: Mapping[str, Any] | None = None) -> Role | None:
    """Return the role that a file's own record or its name tells, None when nothing does.

    Examples
    --------
    >>> guess_role("Radiometry_GUVExperim1.tif")
    'white'
    >>> guess_role("DarkFrame_GUVExperim1.tif")
    'dark'
    """
    told = (metadata or {}).get("role")
    for role in ROLES:
        if told == role:
            return role
    # "DarkFrame_GUVExperim1" -> dark, frame, guvexperim, 1: words begin at capitals, digits and signs
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", PurePath(path).name)
    lower = {word.lower() for word in words} | {(a + b).lower() for a, b in itertools.pairwise(words)}
    for role, known in _WORDS.items():
        if lower & set(known):
            return role
    return None


def assign_roles(
    names: Sequence[str],
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    taken: Sequence[Role] = (),
) -> dict[str, Role]:
    """Give each role to at most one of several files opened together.

    A single file without a telling name is taken for the light field, since that is what
    people open first. `taken` roles are given only to files that ask for them by name.
    """
    metadata = metadata or {}
    out: dict[str, Role] = {}
    for name in names:
        role = guess_role(name, metadata.get(name))
        if role is not None and role not in out.values():
            out[name] = role
    if "lightfield" not in out.values() and "lightfield" not in taken:
        for name in names:
            if name not in out:
                out[name] = "lightfield"
                break
    return out
