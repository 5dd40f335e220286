"""What the *Register pair* panel reads from layers and says about a registration; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.resolve_stack import required_stack
from napari_lfm.widgets.session import layer_info

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import xarray as xr
    from napari.layers import Image

    from napari_lfm.training.registration_result import Registration


SHORT = {"psf": "by the PSF", "correlation": "by correlation"}
"""The two estimates in tables and drawings."""


def stack_of(layer: Image) -> xr.DataArray:
    """Return the stack (z, y, x) that an image layer shows; layers without sizes have none.

    Raises
    ------
    RequestError
        If the layer is a colour picture, turned, or no single stack.
    """
    image = required_stack(layer_info(layer))
    single = [d for d in image.dims if d not in ("z", "y", "x") and image.sizes[d] == 1]
    image = image.isel(dict.fromkeys(single, 0), drop=True)
    if set(image.dims) != {"z", "y", "x"}:
        raise RequestError(
            f"'{layer.name}' has the axes {', '.join(map(str, image.dims))}, not one stack z, y, x.",
            "Give one channel and one time point (Layer > Split Stack).",
        )
    return image


def brightest(stack: xr.DataArray) -> tuple[float, float]:
    """Return where a stack's middle plane is brightest, in world coordinates."""
    plane = np.asarray(stack.isel(z=stack.sizes["z"] // 2).values)
    row, column = np.unravel_index(int(plane.argmax()), plane.shape)
    return float(_coordinates(stack, "y")[row]), float(_coordinates(stack, "x")[column])


def _coordinates(stack: xr.DataArray, dim: str) -> np.ndarray:
    return np.asarray(stack.coords[dim].values if dim in stack.coords else np.arange(stack.sizes[dim]), float)


def along_z(stack: xr.DataArray, y: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    """Return z and the mean of 3 x 3 pixels, NaN outside."""
    at = []
    for dim, value in (("y", y), ("x", x)):
        places = _coordinates(stack, dim)
        step = spacing_of(stack).get(dim, 1.0)
        k = round((value - places[0]) / step)
        if not 0 <= k < len(places):
            return _coordinates(stack, "z"), np.full(stack.sizes["z"], np.nan)
        at.append(slice(max(0, k - 1), k + 2))
    values = np.asarray(stack.transpose("z", "y", "x")[:, at[0], at[1]].values, float)
    return _coordinates(stack, "z"), values.mean((1, 2))


def table_html(found: Registration) -> str:
    """Return both estimates and what is proposed, side by side."""
    rows = ["<tr><th></th><th>z</th><th>y</th><th>x</th><th>confidence</th></tr>"]
    for e in found.estimates:
        cells = "".join(f"<td align=right>&nbsp;{s:+.2f}</td>" for s in e.shift_voxels)
        rows.append(f"<tr><td>{SHORT[e.method]}</td>{cells}<td align=right>{e.confidence:.2f}</td></tr>")
    for title, shift in (("<b>voxels</b>", found.shift_voxels), (f"<b>{MICROMETRES}</b>", found.shift_um)):
        cells = "".join(f"<td align=right>&nbsp;<b>{s:+.2f}</b></td>" for s in shift)
        rows.append(f"<tr><td>{title}</td>{cells}<td></td></tr>")
    text = f"<table cellspacing=3>{''.join(rows)}</table>"
    if not found.turn.is_none:
        text += (
            f"Turned by {found.rotation_deg:+.2f}\N{DEGREE SIGN}, magnified {found.magnification:.4f}.<br>"
        )
    before, after = (float(np.nanmean(c)) for c in (found.correlation_before, found.correlation_after))
    return text + f"Correlation of planes without haze: {before:.2f} before, {after:.2f} after."


def click_callback(chosen: Callable[[], Callable[[float, float], None] | None]) -> Callable[..., Any]:
    """Return a mouse callback of a viewer that tells the place of every click that is no drag.

    Parameters
    ----------
    chosen : callable
        Returns what to call with (y, x), or None where it is gone: the viewer outlives the panel.
    """

    def clicked(viewer: Any, event: Any) -> Generator[None, None, None]:
        begin = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        take = chosen()
        if (
            take is not None
            and np.abs(np.asarray(event.pos) - begin).max() <= 3
            and viewer.dims.ndisplay == 2
        ):
            y, x = viewer.cursor.position[-2:]
            take(float(y), float(x))

    return clicked
