"""Rectified light fields in numpy files: four axes (v, u, t, s), pixel behind a lenslet and lenslet."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from napari_lfm.core.problems import RequestError
from napari_lfm.io.tiff import check_file

if TYPE_CHECKING:
    from pathlib import Path

LIGHT_FIELD_DIMS = ("v", "u", "t", "s")


def light_field_from_npz(path: Path) -> xr.DataArray:
    """Read the 4-D light field in an npz file: ``vuts``, ``lightfield``, ``data``, or the only 4-D array.

    Raises
    ------
    RequestError
        If the file is not readable or holds no single 4-D array; the message lists what it holds.
    """
    check_file(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise RequestError(
            f"{path.name} is not a readable npz file.", "Save it again with numpy.savez."
        ) from None
    four = {name: a for name, a in arrays.items() if a.ndim == 4 and a.dtype.kind in "uif"}
    chosen = next((n for n in ("vuts", "lightfield", "data", "arr_0") if n in four), None)
    if chosen is None and len(four) == 1:
        chosen = next(iter(four))
    if chosen is None:
        seen = "; ".join(f"{name} {' x '.join(map(str, a.shape))}" for name, a in arrays.items()) or "nothing"
        raise RequestError(
            f"{path.name} has no single 4-D light field in it; it holds {seen}.",
            "Save one array (v, u, t, s) under the name 'vuts'.",
        )
    return xr.DataArray(
        four[chosen],
        dims=LIGHT_FIELD_DIMS,
        attrs={"spacing": {}, "source": str(path.absolute())},
    )
