"""The engine in one call: files or arrays in, a result out. The command line goes through here too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import xarray as xr

from napari_lfm.core.events import Event, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Problem, RequestError, raise_for
from napari_lfm.methods.base import Method, Request, get_method, make_parameters
from napari_lfm.methods.region import region_of

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.methods.train_lfmnet import TrainedModel
    from napari_lfm.optics.microscope import Microscope

Image: TypeAlias = "xr.DataArray | np.ndarray | str | PathLike[str]"
OnEvent = Callable[[Event], None]

__all__ = ["Image", "OnEvent", "build_request", "execute", "run", "train"]


def run(
    method: str,
    image: Image,
    *,
    white: Image | None = None,
    dark: Image | None = None,
    psf: Image | None = None,
    microscope: Microscope | Mapping[str, Any] | str | PathLike[str] | None = None,
    lattice: Lattice | Mapping[str, Any] | str | PathLike[str] | None = None,
    layout: str = "auto",
    axes: str | None = None,
    voxel_um: tuple[float, float, float] | None = None,
    psf_voxel_um: tuple[float, float, float] | None = None,
    model: str | None = None,
    device: str = "auto",
    memory_gib: float | None = None,
    region_px: tuple[int, int, int, int] | None = None,
    sources: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
    **parameters: Any,
) -> Result:
    """Run a method to its end and return its result.

    Parameters
    ----------
    method : str
        Method id, e.g. ``"deconvolve-lightfield"``.
    image : xarray.DataArray, array or path
        What the method works on. Plain arrays are raw frames ``(y, x)`` or ``(t, y, x)``, light fields cut
        into views ``(v, u, t, s)``, or stacks ``(z, y, x)``, by the method's kind of input.
    white, dark : the same, optional
        White and dark frame of a light field.
    psf : the same, optional
        Point spread function of a stack: a recorded bead, or a finished one.
    microscope : Microscope, dict, name or path, optional
        The optics; default those that the image carries, else those of the model.
    lattice : Lattice, dict or path, optional
        Calibration; default the one that the image carries, else the method calibrates by itself.
    layout : str
        ``auto``, ``raw``, ``lenslet:N`` or ``vuts``.
    axes : str, optional
        Axes of the file, or of a plain array of a stack, where they are not the usual ones, e.g. ``"tzyx"``.
    voxel_um : tuple of float, optional
        Voxel size (z, y, x) of a stack that does not say it.
    psf_voxel_um : tuple of float, optional
        The same of the point spread function; default what its file says, else that of the stack.
    model : str, optional
        Id or folder of a trained model; default, for methods that need one, the one that fits best.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory_gib : float, optional
        Memory budget; default 80 % of what is free.
    region_px : tuple of int, optional
        ``(y0, x0, y1, x1)`` in raw pixels, end excluded; what reaches beyond the frame is cut off.
    sources : mapping of str to str, optional
        Where arrays came from, for the provenance record.
    on_event : callable, optional
        Called with every event; an exception in it ends the run.
    **parameters
        The method's own parameters.

    Returns
    -------
    Result

    Raises
    ------
    RequestError
        If the request is wrong; the text says what and how to mend it.

    Examples
    --------
    >>> from napari_lfm.api import run
    >>> result = run("deconvolve-lightfield", "raw.tif", white="white.tif",
    ...              microscope="mbl-60x1.2w", z_min_um=-7, z_max_um=7)  # doctest: +SKIP
    >>> volume = result.outputs[result.primary]  # doctest: +SKIP
    """
    request, problems = build_request(
        method,
        image,
        white=white,
        dark=dark,
        psf=psf,
        microscope=microscope,
        lattice=lattice,
        layout=layout,
        axes=axes,
        voxel_um=voxel_um,
        psf_voxel_um=psf_voxel_um,
        model=model,
        device=device,
        memory_gib=memory_gib,
        region_px=region_px,
        sources=sources,
        parameters=parameters,
    )
    raise_for(problems)
    return execute(request, on_event)


def train(
    microscope: Microscope | Mapping[str, Any] | str | PathLike[str],
    *,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    model_folder: str | PathLike[str] | None = None,
    on_event: Callable[[Any], None] | None = None,
    **wish: Any,
) -> TrainedModel:
    """Train LFMNet for a microscope, from its optics alone; the model is then in the list.

    Parameters
    ----------
    microscope : Microscope, dict, name or path
    folder : path, optional
        Folder of the training; default in the user's folder.
    resume : bool
        Go on with an earlier training, with more minutes or steps in all.
    model_folder : path, optional
        Where the model goes; default the user's models.
    on_event : callable, optional
        Called with every step and validation; an exception in it stops, and the best so far is kept.
    **wish
        `napari_lfm.methods.train_lfmnet.TrainWish`: ``z_min_um``, ``specimen``, ``minutes``, ...

    Returns
    -------
    TrainedModel

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled; the text says why and how to mend it.

    Examples
    --------
    >>> from napari_lfm.api import train
    >>> model = train("mbl-60x1.2w", z_min_um=-7, z_max_um=7, z_step_um=1)  # doctest: +SKIP
    """
    from napari_lfm.methods.train_lfmnet import TrainedModel, make_wish, run_training

    optics = as_microscope(microscope)
    events = run_training(
        make_wish({"microscope": optics, **wish}),
        None if folder is None else fspath(folder),
        resume,
        None if model_folder is None else fspath(model_folder),
    )
    last: TrainedModel | None = None
    with contextlib.closing(cast("Generator[Any]", events)):
        for event in events:
            if isinstance(event, TrainedModel):
                last = event
            if on_event is not None:
                on_event(event)
    assert last is not None
    return last


def build_request(
    method: str,
    image: Image,
    *,
    white: Image | None = None,
    dark: Image | None = None,
    psf: Image | None = None,
    microscope: Microscope | Mapping[str, Any] | str | PathLike[str] | None = None,
    lattice: Lattice | Mapping[str, Any] | str | PathLike[str] | None = None,
    layout: str = "auto",
    axes: str | None = None,
    voxel_um: tuple[float, float, float] | None = None,
    psf_voxel_um: tuple[float, float, float] | None = None,
    model: str | None = None,
    device: str = "auto",
    memory_gib: float | None = None,
    region_px: tuple[int, int, int, int] | None = None,
    sources: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Request, list[Problem]]:
    """Return the complete request, and what its method says about it; parameters as for `run`.

    Raises
    ------
    RequestError
        If there is no such method, parameter, file, microscope or lattice.
    """
    runner = get_method(method)
    values = make_parameters(runner, parameters or {})
    optics = as_microscope(microscope)
    names = {"image": image, "white": white, "dark": dark}

    def read(of: Microscope | None) -> dict[str, xr.DataArray]:
        return {
            name: read_input(what, runner, of, layout if name == "image" else "auto", axes, voxel_um, name)
            for name, what in names.items()
            if what is not None
        }

    inputs = read(optics)
    if psf is not None:
        inputs["psf"] = read_psf(psf, runner, psf_voxel_um)
    carried = inputs["image"].attrs
    if optics is None and carried.get("microscope"):
        optics = as_microscope(carried["microscope"])
    if lattice is None and carried.get("lattice"):
        lattice = carried["lattice"]
    paths = {n: str(a.attrs["source"]) for n, a in inputs.items() if a.attrs.get("source")}
    request = Request(
        method=runner.id,
        inputs=inputs,
        parameters=values,
        microscope=optics,
        lattice=as_lattice(lattice),
        layout=layout,
        model=model,
        device=device,
        memory_gib=memory_gib,
        region_px=region_px,
        sources={**paths, **(sources or {})},
    )
    region, notes = region_of(request)
    if not any(p.severity == "error" for p in notes):
        request = replace(request, region_px=region)
    # a region that is refused, the method refuses too
    complete = getattr(runner, "complete", None)
    if complete is not None:  # what the method knows itself, such as the microscope of its model
        request, more = complete(request)
        notes = [*notes, *more]
        if optics is None and request.microscope is not None:
            request = replace(request, inputs={**inputs, **read(request.microscope)})  # now with sizes
    return request, list(dict.fromkeys([*notes, *runner.check(request)]))


def execute(request: Request, on_event: OnEvent | None = None) -> Result:
    """Run a request to its end; whatever ends it early also closes the method's generator.

    Raises
    ------
    RequestError
        If the method finds something wrong.
    """
    events = get_method(request.method).run(request)
    result: Result | None = None
    try:
        for event in events:
            if isinstance(event, Result):
                result = event
            if on_event is not None:
                on_event(event)
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
    if result is None:
        raise RuntimeError(f"'{request.method}' ended without a result")
    return result


def as_microscope(value: Microscope | Mapping[str, Any] | str | PathLike[str] | None) -> Microscope | None:
    """Return a microscope from itself, its dict, its name or its file."""
    from napari_lfm.optics.microscope import Microscope

    if value is None or isinstance(value, Microscope):
        return value
    if isinstance(value, Mapping):
        return Microscope.model_validate(dict(value))
    from napari_lfm.optics.presets import load_microscope

    return load_microscope(fspath(value))


def as_lattice(value: Lattice | Mapping[str, Any] | str | PathLike[str] | None) -> Lattice | None:
    """Return a lattice from itself, its dict or its JSON file.

    Raises
    ------
    RequestError
        If the file is not there or holds no lattice.
    """
    from napari_lfm.lightfield.files import load_lattice
    from napari_lfm.lightfield.lattice import Lattice

    if value is None or isinstance(value, Lattice):
        return value
    return Lattice.from_json(dict(value)) if isinstance(value, Mapping) else load_lattice(value)


def read_psf(what: Image, method: Method, voxel_um: tuple[float, float, float] | None = None) -> xr.DataArray:
    """Return a point spread function as a labelled image; it may be without sizes.

    Raises
    ------
    RequestError
        If the method takes none, or the file is no stack.
    """
    if method.input_kind != "stack":
        raise RequestError(f"'{method.id}' takes no point spread function.", "Leave it out.")
    if isinstance(what, xr.DataArray):
        return what
    if isinstance(what, str | PathLike):
        from napari_lfm.io.read import read_image

        return read_image(Path(what), kind=None, voxel_um=voxel_um)
    array = np.asarray(what)
    if array.ndim not in (2, 3):
        raise RequestError(
            f"The point spread function has {array.ndim} axes.", "Give one of a single point: (z, y, x)."
        )
    dims = "zyx"[-array.ndim :]
    step = (
        {} if voxel_um is None else {d: float(v) for d, v in zip("zyx", voxel_um, strict=True) if d in dims}
    )
    return labelled(array, dims, step, name="psf")


def read_input(
    what: Image,
    method: Method,
    microscope: Microscope | None,
    layout: str,
    axes: str | None,
    voxel_um: tuple[float, float, float] | None,
    name: str = "image",
) -> xr.DataArray:
    """Return an input as a labelled image, read from its file where it is a path."""
    if isinstance(what, xr.DataArray):
        return what
    if isinstance(what, str | PathLike):
        from napari_lfm.io.read import axes_that_fit, read_image, read_lightfield

        axes = axes if name == "image" else axes_that_fit(Path(what), axes)
        if method.input_kind == "lightfield":
            return read_lightfield(Path(what), microscope=microscope, layout=layout, axes=axes)
        flat = bool(getattr(method, "takes_flat_images", False))
        return read_image(Path(what), kind=method.input_kind, axes=axes, voxel_um=voxel_um, flat=flat)
    array = np.asarray(what)
    if method.input_kind == "lightfield" and array.ndim == 4:
        return xr.DataArray(array, dims=("v", "u", "t", "s"), name=name)
    dims = {2: "yx", 3: "zyx" if method.input_kind == "stack" else "tyx"}.get(array.ndim)
    if axes is not None and method.input_kind != "lightfield" and name == "image":
        from napari_lfm.io.axes import parse_axes

        dims = "".join(parse_axes(axes, array.shape, "the array"))
    if dims is None:
        raise RequestError(
            f"The {name} has {array.ndim} axes.", "Give one channel: (y, x), (t, y, x) or (z, y, x)."
        )
    step: dict[str, float] = {}
    if voxel_um is not None:
        step = {d: float(v) for d, v in zip("zyx", voxel_um, strict=True) if d in dims}
    elif microscope is not None and method.input_kind != "stack":
        step = dict.fromkeys("yx", microscope.object_pixel_um)
    return labelled(array, dims, step, name=name)
