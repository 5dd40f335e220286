"""How a result was made: the record that travels in it, and the way back from the record to a run."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm import __version__
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.io.ome_zarr import is_zarr, record_from_zarr
from napari_lfm.io.points import is_points_file, read_sidecar
from napari_lfm.io.recipe import as_command, as_python
from napari_lfm.io.record import jsonable
from napari_lfm.io.tiff import check_file, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

__all__ = [
    "as_command",
    "as_python",
    "changed_inputs",
    "fingerprint",
    "make_provenance",
    "read_provenance",
]

SCHEMA = 1
"""Rises when the meaning of a field changes."""


def fingerprint(image: xr.DataArray) -> str:
    """Return ``sha256:...`` over data type, shape and pixels of `image`, whatever its storage.

    Pixels are hashed little-endian in C order, so that byte order, chunks and file format make no
    difference. A dask array is read a frame at a time.
    """
    dtype = image.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{dtype.str} {tuple(map(int, image.shape))} ".encode())
    data = image.data
    lazy = hasattr(data, "dask")
    steps = data.chunks[0] if lazy and data.ndim else [data.shape[0] if data.ndim else 1]
    start = 0
    for step in steps:
        block = data[start : start + step] if data.ndim else data
        digest.update(np.ascontiguousarray(np.asarray(block), dtype).data)
        start += step
    return f"sha256:{digest.hexdigest()}"


def make_provenance(
    *,
    method: str,
    parameters: Mapping[str, Any] | Any,
    inputs: Mapping[str, xr.DataArray],
    sources: Mapping[str, str] | None = None,
    microscope: Mapping[str, Any] | Any | None = None,
    microscope_source: str | None = None,
    lattice: Mapping[str, Any] | Any | None = None,
    model: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    memory_gib: float | None = None,
    region_px: Sequence[int] | None = None,
    layout: str = "auto",
    **extra: Any,
) -> dict[str, Any]:
    """Return the JSON-ready record of a run.

    Parameters
    ----------
    method : str
        Method id.
    parameters : mapping or pydantic model
        All parameters with the values used.
    inputs : mapping of str to xarray.DataArray
        ``image``, and ``white`` and ``dark`` where used; each one's fingerprint is taken.
    sources : mapping of str to str, optional
        File of each input; default ``attrs["source"]``.
    microscope, lattice : mapping or pydantic model, optional
        The optics and the calibration used.
    microscope_source : str, optional
        Preset name or file that the microscope came from; scripts then use it.
    model : mapping, optional
        ``{"id": ..., "sha256": ...}`` of the trained model.
    device : str or torch.device
        Where it ran.
    memory_gib, region_px, layout
        As in the request.
    **extra
        Anything else worth keeping, JSON-ready.

    Returns
    -------
    dict
    """
    known: dict[str, Any] = {}
    for name, image in inputs.items():
        entry: dict[str, Any] = {
            "fingerprint": fingerprint(image),
            "dtype": image.dtype.name,
            "dims": [str(d) for d in image.dims],
            "shape": [int(n) for n in image.shape],
            "spacing": image.attrs.get("spacing", {}),
        }
        if "read" in image.attrs:  # what the user said of the file: needed to read it so again
            entry["read"] = image.attrs["read"]
        known[name] = entry
    where = {n: str(i.attrs["source"]) for n, i in inputs.items() if i.attrs.get("source")}
    where.update({n: str(s) for n, s in (sources or {}).items() if s})
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "program": "napari-lfm",
        "method": method,
        "parameters": parameters,
        "inputs": known,
        "sources": where,
        "microscope": microscope,
        "microscope_source": microscope_source,
        "lattice": lattice,
        "model": model,
        "layout": layout,
        "region_px": None if region_px is None else [int(v) for v in region_px],
        "device": str(device),
        "memory_gib": memory_gib,
        "versions": _versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }
    ready: dict[str, Any] = jsonable({k: v for k, v in record.items() if v is not None})
    return ready


def _versions() -> dict[str, str]:
    out = {"napari-lfm": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("torch", "napari"):  # only where they took part: never imported for this
        if name in sys.modules and hasattr(sys.modules[name], "__version__"):
            out[name] = str(sys.modules[name].__version__)
    return out


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance inside a result: OME-TIFF, OME-Zarr, points CSV or its JSON.

    It names the ``method``, or holds the settings of ``napari-lfm simulate`` under ``simulated``.

    Raises
    ------
    RequestError
        If the file is missing or carries none.
    """
    path = Path(path)
    if is_zarr(path):
        found = record_from_zarr(path).get("provenance")
    else:
        check_file(path)
        if path.suffix.lower() == ".json":
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise RequestError(
                    f"{path.name} is not a readable JSON file.", "Give the result itself."
                ) from None
            found = record.get("provenance", record) if isinstance(record, dict) else None
        elif path.suffix.lower() == ".csv" or is_points_file(path):
            found = read_sidecar(path)
        else:
            found = describe(path)[0].record.get("provenance")
    if not isinstance(found, dict) or not {"method", "simulated"} & found.keys():
        raise RequestError(
            f"{path.name} does not say how it was made (no napari-lfm provenance).",
            "Give a file that napari-lfm saved; for points keep the .csv.json beside the .csv.",
        )
    return found


def changed_inputs(provenance: Mapping[str, Any], inputs: Mapping[str, xr.DataArray]) -> list[Problem]:
    """Return a warning for every input whose pixels are not those that `provenance` was made from."""
    out: list[Problem] = []
    for name, entry in provenance.get("inputs", {}).items():
        if name not in inputs:
            out.append(
                Problem(f"The run used a {name} frame that is not given now.", "Give it.", "warning", name)
            )
        elif entry.get("fingerprint") not in (None, fingerprint(inputs[name])):
            out.append(
                Problem(
                    f"The {name} is not the same as in the first run (its pixels differ).",
                    "The result will differ, too; give the original file to repeat the run exactly.",
                    "warning",
                    name,
                )
            )
    return out
