"""From what the user chose to a `Request`, or to plain sentences about what is missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.base import Method, Request, get_method, make_parameters
from napari_lfm.widgets.resolve_stack import resolve_stack
from napari_lfm.widgets.state import ROLE_TITLES, LayerInfo, ReconstructState, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

_VUTS = ("v", "u", "t", "s")


def resolve(
    state: ReconstructState, layers: Mapping[str, LayerInfo], method: Method | None = None
) -> Request | list[Problem]:
    """Return the request that the state describes, or every problem that keeps it from being one.

    Parameters
    ----------
    state : ReconstructState
        What the user chose.
    layers : mapping of str to LayerInfo
        The viewer's image layers by name.
    method : Method, optional
        The chosen method, looked up by its id unless given.
    """
    if not state.method:
        return [Problem("No method is chosen.", "Choose one at the top of the panel.", field="method")]
    try:
        chosen = method or get_method(state.method)
        parameters = make_parameters(chosen, state.parameters)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="parameters")]
    if chosen.input_kind == "stack":
        return resolve_stack(state, layers, parameters, getattr(chosen, "takes_flat_images", True))

    problems: list[Problem] = []
    inputs: dict[str, xr.DataArray] = {}
    sources: dict[str, str] = {}
    names: dict[Role, str] = {"lightfield": state.lightfield, "white": state.white, "dark": state.dark}
    if not state.lightfield:
        problems.append(
            Problem(
                "No light field is chosen.",
                "Drop your file on the 'Light field' panel, or choose a layer there.",
                field="lightfield",
            )
        )
    for role, name in names.items():
        if not name:
            continue
        if name not in layers:
            problems.append(Problem(f"The layer '{name}' is gone.", "Choose another one.", field=role))
            continue
        image = _input_image(role, layers[name], state)
        if isinstance(image, Problem):
            problems.append(image)
            continue
        key = "image" if role == "lightfield" else role
        inputs[key] = image
        if layers[name].path:
            sources[key] = layers[name].path

    problems += _size_problems(inputs)
    # a method with trained models can tell the microscope from theirs
    guessable = state.microscope is None and hasattr(chosen, "complete")
    if chosen.input_kind == "lightfield" and not (guessable and state.region_um is None):
        problems += microscope_problems(state.microscope)
    region = None
    if state.region_um is not None and "image" in inputs and state.microscope is not None:
        found = region_px(state.region_um, state.microscope.object_pixel_um, _frame_shape(inputs["image"]))
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
        lattice=usable_lattice(state.lattice, inputs["image"]),
        layout=state.layout,
        model=state.model,
        device=state.device,
        memory_gib=state.memory_gib,
        region_px=region,
        sources=sources,
    )


def microscope_problems(microscope: Microscope | None) -> list[Problem]:
    """Return what keeps a light-field method from using this microscope."""
    if microscope is None:
        return [
            Problem(
                "No microscope is chosen.",
                "Choose yours on the 'Light field' panel, or enter it with 'From data sheet...'.",
                field="microscope",
            )
        ]
    if microscope.lenslets is None:
        return [
            Problem(
                f"'{microscope.name}' is a wide-field microscope, without a lenslet array.",
                "Choose a light-field microscope.",
                field="microscope",
            )
        ]
    return []


def usable_lattice(lattice: Lattice | None, image: xr.DataArray) -> Lattice | None:
    """Return the lattice where it belongs to a frame of this size, else None (it is then found anew)."""
    if lattice is None or image.dims[-2:] != ("y", "x"):
        return None
    return lattice if tuple(lattice.image_shape) == _frame_shape(image) else None


def frame_dims(info: LayerInfo, layout: str) -> tuple[str, ...] | Problem:
    """Return the dimension names of a layer's array: ``y x``, ``t y x`` or ``v u t s``, or why not."""
    shape, ndim = info.shape, len(info.shape)
    if info.rgb:
        return Problem(
            f"'{info.name}' is a colour picture.",
            "Light fields are grey: split the channels, and keep the one of your dye.",
            field="lightfield",
        )
    if ndim == 4 and (layout == "vuts" or info.axis_labels == _VUTS):
        return _VUTS
    if ndim == 2:
        return ("y", "x")
    if ndim == 3:
        return ("t", "y", "x")
    # length-1 axes of other readers (channel, position) carry nothing
    if ndim > 3 and math.prod(shape[:-3]) == 1:
        return (*("one" for _ in shape[:-3]), "t", "y", "x")
    return Problem(
        f"'{info.name}' has {ndim} axes, {' x '.join(map(str, shape))}.",
        "A light field is one camera frame, a movie of them (t, y, x), or four axes (v, u, t, s).",
        field="lightfield",
    )


def frame_count(info: LayerInfo, layout: str) -> int:
    """Return how many frames of a light field a layer holds."""
    dims = frame_dims(info, layout)
    return info.shape[-3] if not isinstance(dims, Problem) and dims[-3:] == ("t", "y", "x") else 1


def _input_image(role: Role, info: LayerInfo, state: ReconstructState) -> xr.DataArray | Problem:
    dims = frame_dims(info, state.layout)
    if isinstance(dims, Problem):
        return dims
    data = info.data
    while dims[0] == "one":
        data, dims = data[0], dims[1:]
    if dims[0] == "t" and data.shape[0] == 1:
        data, dims = data[0], dims[1:]
    if dims == ("t", "y", "x"):
        if role != "lightfield":
            # several white or dark frames are repeats of one scene: their mean is less noisy
            data, dims = data.mean(axis=0), dims[1:]
        elif state.frame is not None:
            if not 0 <= state.frame < data.shape[0]:
                return Problem(
                    f"'{info.name}' has {data.shape[0]} frames; frame {state.frame} is not one of them.",
                    f"Choose a frame from 0 to {data.shape[0] - 1}, or all of them.",
                    field="frame",
                )
            data, dims = data[state.frame], dims[1:]
    spacing: dict[str, float] = {}
    if dims[-1] == "x" and state.microscope is not None:
        spacing = dict.fromkeys(("y", "x"), state.microscope.object_pixel_um)
    attrs = {"source": info.path} if info.path else {}
    return labelled(data, dims, spacing, name=info.name, attrs=attrs)


def _frame_shape(image: xr.DataArray) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


def _size_problems(inputs: Mapping[str, xr.DataArray]) -> list[Problem]:
    out: list[Problem] = []
    if "image" not in inputs or inputs["image"].dims[-1] != "x":
        return out
    want = _frame_shape(inputs["image"])
    roles: tuple[Role, ...] = ("white", "dark")
    for role in roles:
        if role in inputs and _frame_shape(inputs[role]) != want:
            have = _frame_shape(inputs[role])
            title = ROLE_TITLES[role].lower()
            out.append(
                Problem(
                    f"The {title} '{inputs[role].name}' is {have[0]} x {have[1]} pixels, "
                    f"the light field {want[0]} x {want[1]}.",
                    f"Choose the {title} of the same camera region, or none.",
                    field=role,
                )
            )
    return out


def region_px(
    region_um: tuple[float, float, float, float], pixel_um: float, shape: tuple[int, int]
) -> tuple[int, int, int, int] | Problem:
    """Return a rectangle in world micrometres as raw pixels, cut to the frame.

    Parameters
    ----------
    region_um : tuple of float
        ``(y0, x0, y1, x1)``, corners in any order.
    pixel_um : float
        Camera pixel in object space.
    shape : tuple of int
        Raw frame (height, width).

    Returns
    -------
    tuple of int, or Problem
        ``(y0, x0, y1, x1)``, end excluded.
    """
    y0, y1 = sorted((region_um[0], region_um[2]))
    x0, x1 = sorted((region_um[1], region_um[3]))
    # pixel k covers (k - 1/2 .. k + 1/2) * pixel_um, as the world's origin is the first pixel's centre
    top, left = math.floor(y0 / pixel_um + 0.5), math.floor(x0 / pixel_um + 0.5)
    bottom, right = math.ceil(y1 / pixel_um + 0.5), math.ceil(x1 / pixel_um + 0.5)
    top, left = max(0, top), max(0, left)
    bottom, right = min(shape[0], bottom), min(shape[1], right)
    if top >= bottom or left >= right:
        return Problem(
            "The drawn region lies outside the light field.",
            "Move the rectangle onto the image, or use the whole field.",
            field="region",
        )
    return top, left, bottom, right


def field_um(request: Request) -> tuple[float, float, float, float] | None:
    """Return the part of the world ``(y0, x0, y1, x1)`` that a request works on; None where unknown."""
    image = request.inputs["image"]
    if image.dims[-2:] != ("y", "x") or "affine_um" in image.attrs:
        return None
    step, start = spacing_of(image), origin_of(image)
    if not {"y", "x"} <= step.keys():
        return None
    y0, x0, y1, x1 = request.region_px or (0, 0, *_frame_shape(image))
    (dy, dx), (top, left) = ((of.get("y", 0.0), of.get("x", 0.0)) for of in (step, start))
    return top + y0 * dy, left + x0 * dx, top + y1 * dy, left + x1 * dx
