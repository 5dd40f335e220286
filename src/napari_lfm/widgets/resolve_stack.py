"""From what the user chose to a `Request` of a method that works on stacks. Plain data, no Qt."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from napari_lfm.core.labelled import SPATIAL, origin_of, spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.io.layers import image_from_layer_info
from napari_lfm.methods.base import Request
from napari_lfm.widgets.fields import MICROMETRES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from pydantic import BaseModel

    from napari_lfm.widgets.state import LayerInfo, ReconstructState

_TIMES = "\N{MULTIPLICATION SIGN}"


def resolve_stack(
    state: ReconstructState,
    layers: Mapping[str, LayerInfo],
    parameters: BaseModel,
    flat_too: bool = True,
) -> Request | list[Problem]:
    """Return the request that the state describes, or every problem that keeps it from being one.

    Parameters
    ----------
    state : ReconstructState
        What the user chose; of the layers, `stack` and `psf` count.
    layers : mapping of str to LayerInfo
        The viewer's image layers by name.
    parameters : BaseModel
        The method's own, validated.
    flat_too : bool
        The method also takes single planes.
    """
    problems: list[Problem] = []
    inputs: dict[str, xr.DataArray] = {}
    sources: dict[str, str] = {}
    if not state.stack:
        problems.append(
            Problem("No stack is chosen.", "Drop your file on the panel, or choose a layer.", field="stack")
        )
    for key, name in (("image", state.stack), ("psf", state.psf)):
        if not name:
            continue
        if name not in layers:
            problems.append(Problem(f"The layer '{name}' is gone.", "Choose another one.", field=key))
            continue
        image = stack_of(layers[name])
        if isinstance(image, Problem):
            problems.append(image)
            continue
        inputs[key] = image
        if layers[name].path:
            sources[key] = layers[name].path
    if "image" in inputs:
        problems += size_problems(inputs["image"])
        if "z" not in inputs["image"].dims and not flat_too:
            problems.append(
                Problem(
                    f"'{state.stack}' has no z axis, and this method needs a stack of planes.",
                    "Choose a stack.",
                    field="stack",
                )
            )
    region = None
    if state.region_um is not None and "image" in inputs and not problems:
        found = region_in_stack(state.region_um, inputs["image"])
        if isinstance(found, Problem):
            problems.append(found)
        else:
            region = found
    if problems:
        return problems
    return Request(
        method=state.method,
        inputs=inputs,
        parameters=parameters,
        microscope=state.microscope,
        model=state.model,
        device=state.device,
        memory_gib=state.memory_gib,
        region_px=region,
        sources=sources,
    )


def stack_of(info: LayerInfo) -> xr.DataArray | Problem:
    """Return a layer as a labelled image, dims out of ``t c z y x``; or why it cannot be a stack.

    An axis that nobody has named is z. Length-1 axes before the last two are left out: they carry nothing.
    """
    try:
        image = image_from_layer_info(
            info.data,
            axis_labels=info.axis_labels,
            metadata={"napari_lfm": info.metadata} if info.metadata else None,
            source_path=info.path or None,
            name=info.name,
            rgb=info.rgb,
            kind="stack",
            **info.placement,
        )
    except LfmError as error:
        return Problem(error.message, error.remedy, field="stack")
    if set(image.dims) - set("tczyx"):
        return Problem(f"'{info.name}' is a light field.", "Choose a stack of planes.", field="stack")
    if "affine_um" in image.attrs:
        return image
    thin = [d for d in ("t", "c") if d in image.dims and image.sizes[d] == 1]
    return image.squeeze(thin, drop=True) if thin else image


def required_stack(info: LayerInfo) -> xr.DataArray:
    """Return what `stack_of` does.

    Raises
    ------
    RequestError
        If the layer cannot be a stack.
    """
    image = stack_of(info)
    if isinstance(image, Problem):
        raise RequestError(image.message, image.remedy)
    return image


def unknown_sizes(image: xr.DataArray) -> tuple[str, ...]:
    """Return the axes among z, y, x whose voxel size nobody has said."""
    known = spacing_of(image)
    return tuple(d for d in SPATIAL if d in image.dims and not known.get(d, 0.0) > 0)


def size_problems(image: xr.DataArray) -> list[Problem]:
    """Return what is wrong with the voxel sizes of a stack."""
    missing = unknown_sizes(image)
    if not missing:
        return []
    axes = " and ".join(missing) if len(missing) < 3 else "z, y and x"
    return [
        Problem(
            f"'{image.name}' does not say how large its voxels are (no size along {axes}).",
            "Enter the voxel size below the name of the stack.",
            field="voxel",
        )
    ]


def region_in_stack(
    region_um: tuple[float, float, float, float], image: xr.DataArray
) -> tuple[int, int, int, int] | Problem:
    """Return a rectangle in world micrometres as pixels of a stack's planes, cut to the plane.

    Parameters
    ----------
    region_um : tuple of float
        ``(y0, x0, y1, x1)``, corners in any order.
    image : xarray.DataArray
        With sizes along y and x.

    Returns
    -------
    tuple of int, or Problem
        ``(y0, x0, y1, x1)``, end excluded.
    """
    if "affine_um" in image.attrs:
        return Problem(
            f"'{image.name}' is turned in the viewer: a rectangle is no part of its rows and columns.",
            "Use the whole field, or take the rotation off.",
            field="region",
        )
    step, start = spacing_of(image), origin_of(image)
    ends = []
    for axis, dim in enumerate(("y", "x")):
        low, high = sorted((region_um[axis], region_um[axis + 2]))
        # pixel k covers (k - 1/2 .. k + 1/2) steps from the centre of the first one
        first = math.floor((low - start.get(dim, 0.0)) / step[dim] + 0.5)
        last = math.ceil((high - start.get(dim, 0.0)) / step[dim] + 0.5)
        ends.append((max(0, first), min(int(image.sizes[dim]), last)))
    (y0, y1), (x0, x1) = ends
    if y0 >= y1 or x0 >= x1:
        return Problem(
            "The drawn region lies outside the stack.",
            "Move the rectangle onto the image, or use the whole field.",
            field="region",
        )
    return y0, x0, y1, x1


def stack_words(image: xr.DataArray) -> str:
    """Return in words what a stack is understood to be.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lfm.core.labelled import labelled
    >>> stack_words(labelled(np.zeros((76, 64, 64), "u1"), "zyx", {"z": 0.5, "y": 0.1, "x": 0.1}))[:12]
    '76 planes of'
    """
    size, step = image.sizes, spacing_of(image)
    frame = f"{size['y']} {_TIMES} {size['x']} pixels"
    parts = [f"{size['z']} planes of {frame}" if "z" in size else f"one plane of {frame}"]
    if "c" in size:
        parts[0] = f"{size['c']} channels, each {parts[0]}"
    if "t" in size:
        parts[0] = f"{size['t']} frames, each {parts[0]}"
    if "z" in size:
        parts.append(f"{step['z']:.3g} {MICROMETRES} apart" if step.get("z") else "distance not known")
    if step.get("y") and step.get("x"):
        same = abs(step["y"] / step["x"] - 1) < 1e-3
        each = (
            f"{step['x']:.3g} {MICROMETRES}"
            if same
            else f"{step['y']:.3g} {_TIMES} {step['x']:.3g} {MICROMETRES}"
        )
        parts.append(f"pixels of {each}")
    else:
        parts.append("pixel size not known")
    return ", ".join(parts)


def stack_html(request: Request) -> str:
    """Return in plain words what will be made of which stack."""
    image = request.inputs["image"]
    size, step = image.sizes, spacing_of(image)
    extent = [f"{size[d] * step[d]:.3g}" for d in SPATIAL if d in size and d in step]
    field = f", in all {f' {_TIMES} '.join(extent)} {MICROMETRES}" if extent else ""
    lines = [f"<b>Stack:</b> {html.escape(str(image.name))}{field}"]
    psf = request.inputs.get("psf")
    if psf is not None:
        lines.append(f"<b>PSF:</b> {html.escape(str(psf.name))}")
    if request.microscope is not None:
        optics = request.microscope
        lines.append(
            f"<b>Objective:</b> {optics.objective.magnification:g}{_TIMES}/{optics.objective.na:g} of "
            f"{html.escape(optics.name)}, {1000 * optics.wavelength_um:.0f} nm"
        )
    if request.region_px is not None:
        y0, x0, y1, x1 = request.region_px
        lines.append(f"<b>Region:</b> {y1 - y0} {_TIMES} {x1 - x0} pixels, from row {y0}, column {x0}")
    return "<br>".join(lines)
