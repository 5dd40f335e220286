"""From a request to rectified light-field data: what every light-field method starts with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Problem, RequestError, raise_for
from napari_lfm.io.check import check_pixels
from napari_lfm.lightfield.calibrate import calibrate, check_pitch
from napari_lfm.lightfield.grid import cell_grid
from napari_lfm.lightfield.rectify import Rectified, from_lenslet_image, from_vuts
from napari_lfm.lightfield.white import check_white
from napari_lfm.methods.pixels import rectify_at, resample_cells
from napari_lfm.methods.region import region_of
from napari_lfm.optics.microscope import Microscope, nearest_odd

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.methods.base import Request

MIN_LENSLETS = 5
QUICK_PIXELS = 2**22
"""Frames in memory up to this size are looked at before a run: about 10 ms."""
MAX_DRIFT_VOXELS = 0.25
"""A lattice so little rotated that its far corner moves by less is written as axis-aligned."""


@dataclass(frozen=True)
class LightfieldData:
    """Rectified frames with the optics that made them.

    Attributes
    ----------
    rectified : Rectified
        Frames, dark subtracted, not clipped.
    white : ndarray or None
        Rectified white frame, shape (rows * Ny, columns * Nx), dark subtracted.
    microscope : Microscope
    lattice : Lattice
    frame_spacing_s : float or None
        Time between frames where it is known.
    is_movie : bool
    pixel_um : float
        Object-space size of one input pixel: the camera's for raw frames, a lenslet's N-th part for frames
        that came rectified.
    offset_counts : float
        Mean grey value that was taken off as the camera's offset.
    """

    rectified: Rectified
    white: np.ndarray | None
    microscope: Microscope
    lattice: Lattice
    frame_spacing_s: float | None
    is_movie: bool
    pixel_um: float
    offset_counts: float = 0.0

    @property
    def n_pixels(self) -> int:
        """Pixels per lenslet, N."""
        return self.rectified.cell_px[1]

    def volume(
        self, volume: np.ndarray, z_um: np.ndarray, voxels: tuple[int, int], name: str
    ) -> xr.DataArray:
        """Label volumes (frames, z, y, x) that cover the rectified cells, in the world frame."""
        (ny, nx), (sy, sx) = self.rectified.cell_px, voxels
        # the voxel's centre on the rectified grid, then on the raw frame, then micrometres
        to_rectified = np.diag([ny / sy, nx / sx, 1.0])
        to_rectified[:2, 2] = 0.5 * ny / sy - 0.5, 0.5 * nx / sx - 0.5
        plane = np.diag([self.pixel_um, self.pixel_um, 1.0]) @ self.rectified.affine_px @ to_rectified
        dz = float(z_um[1] - z_um[0]) if len(z_um) > 1 else self.microscope.depth_of_field_um
        affine = np.eye(4)
        affine[0, 0], affine[0, 3] = dz, z_um[0]
        affine[1:3, 1:3], affine[1:3, 3] = plane[:2, :2], plane[:2, 2]
        spacing = {"z": dz, "y": float(np.hypot(*plane[:2, 0])), "x": float(np.hypot(*plane[:2, 1]))}
        # a rotation too small to be written leaves the middle of the field where it is
        middle = np.array([(n - 1) / 2 for n in volume.shape[-2:]])
        shift = plane[:2, :2] @ middle - middle * (spacing["y"], spacing["x"])
        y0, x0 = plane[:2, 2] + shift
        origin = {"z": float(z_um[0]), "y": float(y0), "x": float(x0)}
        dims: tuple[str, ...] = ("z", "y", "x")
        data = volume
        attrs: dict[str, object] = {}
        drift = max(abs(plane[0, 1]) * volume.shape[-1], abs(plane[1, 0]) * volume.shape[-2])
        rotated = drift > MAX_DRIFT_VOXELS * min(spacing["y"], spacing["x"])
        if self.is_movie:
            dims = ("t", *dims)
            spacing["t"] = self.frame_spacing_s or 1.0
            full = np.eye(5)
            full[0, 0] = spacing["t"]
            full[1:, 1:] = affine
            affine = full
        else:
            data = volume[0]
        if rotated:
            attrs["affine_um"] = affine.tolist()
            origin |= {"y": float(plane[0, 2]), "x": float(plane[1, 2])}
        return labelled(data, dims, spacing, origin, name=name, attrs=attrs)


def check_input(request: Request) -> list[Problem]:
    """Return what is wrong with a light-field request; of pixels, only small frames in memory are read."""
    out: list[Problem] = []
    image = request.inputs.get("image")
    if image is None:
        return [Problem("There is no light field.", "Choose an image.", field="image")]
    if request.microscope is None:
        out.append(
            Problem("No microscope is chosen.", "Choose a preset, or make your own.", field="microscope")
        )
    elif request.microscope.lenslets is None:
        out.append(
            Problem(
                f"The microscope '{request.microscope.name}' has no lenslet array.",
                "Choose a light-field microscope.",
                field="microscope",
            )
        )
    dims = tuple(map(str, image.dims))
    allowed = (("y", "x"), ("t", "y", "x"), ("v", "u", "t", "s"))
    if dims not in allowed:
        out.append(
            Problem(
                f"A light field has dims (y, x), (t, y, x) or (v, u, t, s), not ({', '.join(dims)}).",
                "Choose one channel and one position.",
                field="image",
            )
        )
        return out
    if 0 in image.shape:
        out.append(Problem("The light field is empty.", "Choose another file.", field="image"))
    for name in ("white", "dark"):
        other = request.inputs.get(name)
        if other is not None and tuple(other.shape[-2:]) != tuple(image.shape[-2:]):
            out.append(
                Problem(
                    f"The {name} frame is {other.shape[-2]} x {other.shape[-1]} pixels but the light field "
                    f"is {image.shape[-2]} x {image.shape[-1]}.",
                    "Record both with the same camera settings, or leave it out.",
                    field=name,
                )
            )
    if request.lattice is not None and _is_raw(request):
        if tuple(image.shape[-2:]) != request.lattice.image_shape:
            height, width = request.lattice.image_shape
            out.append(
                Problem(
                    f"The lenslet grid was found on a frame of {height} x {width} pixels, but the light "
                    f"field is {image.shape[-2]} x {image.shape[-1]}.",
                    "Calibrate on this recording.",
                    field="lattice",
                )
            )
        elif request.microscope is not None:
            out += check_pitch(request.lattice, request.microscope)
    if image.attrs.get("z_read_as_t"):
        out.append(
            Problem(
                f"The file calls its first axis z; its {image.sizes['t']} frames are read as a movie.",
                "Raw light fields have no z axis; name the axes if this is wrong.",
                severity="info",
                field="image",
            )
        )
    out += _layout_problems(request)
    out += region_of(request)[1]
    if not any(p.severity == "error" for p in out):
        out += _too_few_lenslets(request)
        if image.chunks is None and image.size <= QUICK_PIXELS:
            out += [p for p in check_pixels(image, _ceiling(request)) if p.severity == "error"]
    return out


def _ceiling(request: Request) -> float | None:
    return None if request.microscope is None else 2.0**request.microscope.camera.bit_depth - 1


def _is_raw(request: Request) -> bool:
    return "v" not in request.inputs["image"].dims and request.layout in ("auto", "raw")


def _too_few_lenslets(request: Request) -> list[Problem]:
    try:
        _, cells = expected_cells(request)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="region")]
    if _is_raw(request) and request.lattice is None:
        if request.region_px is None:
            return []  # calibrating counts them
        cells = cells[0] + 1, cells[1] + 1  # the pitch may be a little smaller than it should be
    if min(cells) >= MIN_LENSLETS:
        return []
    place = "region" if request.region_px is not None else "light field"
    return [
        Problem(
            f"Only {cells[0]} x {cells[1]} lenslets lie in the {place}; at least {MIN_LENSLETS} x "
            f"{MIN_LENSLETS} are needed.",
            "Draw a larger region." if place == "region" else "Check the layout, or record a larger field.",
            field="region" if place == "region" else "image",
        )
    ]


def _layout_problems(request: Request) -> list[Problem]:
    layout = request.layout
    if layout in ("auto", "raw", "vuts"):
        return []
    kind, _, count = layout.partition(":")
    if kind == "lenslet" and count.isdigit() and int(count) >= 3 and int(count) % 2 == 1:
        return []
    return [
        Problem(
            f"Unknown layout '{layout}'.", "Use auto, raw, lenslet:N with an odd N, or vuts.", field="layout"
        )
    ]


def expected_cells(request: Request) -> tuple[int, tuple[int, int]]:
    """Return (N, cells (rows, columns)): exact for a known lattice, else from the nominal pitch.

    N is that of the input; `prepare` can be asked for another one.

    Raises
    ------
    RequestError
        If the region touches no lenslet.
    """
    image, microscope = request.inputs["image"], request.microscope
    assert microscope is not None
    if "v" in image.dims:
        return int(image.sizes["v"]), (int(image.sizes["t"]), int(image.sizes["s"]))
    if request.layout.startswith("lenslet:"):
        n = int(request.layout.partition(":")[2])
        return n, (image.shape[-2] // n, image.shape[-1] // n)
    region, _ = region_of(request)
    lattice = request.lattice
    if lattice is not None:  # as `prepare` will cut it
        n = nearest_odd(lattice.pitch_px[1])
        return n, cell_grid(lattice, n, region).cells
    pitch = microscope.nominal_pitch_px or 15.0
    height, width = map(float, image.shape[-2:])
    if region is not None:  # all lenslets that it touches
        height, width = region[2] - region[0] + pitch, region[3] - region[1] + pitch
    hexagonal = microscope.lenslets is not None and microscope.lenslets.lattice == "hexagonal"
    cell_height = pitch * float(np.sqrt(3)) if hexagonal else pitch
    rows, columns = int(height / cell_height), int(width / pitch)
    return nearest_odd(pitch), (max(1, rows), max(1, columns))


def prepare(request: Request, n_pixels: int | None = None) -> Iterator[Progress | LightfieldData]:
    """Calibrate if needed, rectify, and yield the data last.

    Parameters
    ----------
    request : Request
    n_pixels : int, optional
        Pixels per lenslet that are wanted, odd; default those of the input.

    Raises
    ------
    RequestError
        With one sentence on what is wrong with the data.
    """
    raise_for(check_input(request))
    image, microscope = request.inputs["image"], request.microscope
    assert microscope is not None
    seen = check_pixels(image, _ceiling(request))
    raise_for(seen)
    for problem in seen:
        yield Progress(0, 1, str(problem))
    region, _ = region_of(request)
    is_movie = image.dims[0] == "t" and image.ndim == 3
    if "v" in image.dims:
        views = from_vuts(np.asarray(image, np.float32))
        yield _data(resample_cells(views, n_pixels), None, microscope, image, came_with=views.cell_px[1])
        return
    frames, white, dark = image.data, request.inputs.get("white"), request.inputs.get("dark")
    if request.layout.startswith("lenslet:"):
        n = int(request.layout.partition(":")[2])
        level = np.float32(0) if dark is None else _mean_frame(dark)
        flat = None
        if white is not None:
            seen_white = from_lenslet_image(np.asarray(white, np.float32) - level, n)
            flat = resample_cells(seen_white, n_pixels).image[0]
        lenslets = resample_cells(from_lenslet_image(frames - level, n), n_pixels)
        yield _data(lenslets, flat, microscope, image, float(np.mean(level)), came_with=n)
        return
    lattice = request.lattice
    first = image.isel(t=0) if is_movie else image
    if white is not None:  # also where the lattice is given: the light is divided by it
        doubts = check_white(first, white, dark, microscope.nominal_pitch_px)
        raise_for(doubts)
        for problem in doubts:
            yield Progress(0, 1, str(problem))
    if lattice is None:
        yield Progress(0, 1, "Finding the lenslets")
        lattice = calibrate(raw=first, white=white, dark=dark, microscope=microscope)
        raise_for(check_pitch(lattice, microscope))
        yield Progress(1, 1, "Finding the lenslets", values={"pitch_px": float(np.mean(lattice.pitch_px))})
    n = n_pixels or nearest_odd(lattice.pitch_px[1])
    if dark is not None:
        offset = np.asarray(dark, np.float32)
    else:
        # the camera's offset is the best guess; the fitted offset mends the rest
        guess = microscope.camera.offset_counts
        if white is None:  # nothing else says that it is there
            guess = min(guess, float(np.quantile(np.asarray(image[0] if is_movie else image), 0.001)))
        offset = np.full(image.shape[-2:], guess, np.float32)
    yield Progress(0, 1, "Rectifying")
    rectified = rectify_at(frames, lattice, n, dark=offset, region_px=region)
    if min(rectified.cells) < MIN_LENSLETS:
        rows, columns = rectified.cells
        raise RequestError(
            f"Only {rows} x {columns} lenslets lie in the region; at least {MIN_LENSLETS} x {MIN_LENSLETS} "
            "are needed.",
            "Draw a larger region.",
        )
    flat = None
    if white is not None:
        flat = rectify_at(np.asarray(white, np.float32), lattice, n, dark=offset, region_px=region).image[0]
    yield Progress(1, 1, "Rectifying")
    yield _data(rectified, flat, microscope, image, float(offset.mean()))


def _mean_frame(dark: xr.DataArray) -> np.ndarray:
    frames = np.asarray(dark, np.float32)
    return frames if frames.ndim == 2 else np.asarray(frames.mean(0))


def _data(
    rectified: Rectified,
    white: np.ndarray | None,
    microscope: Microscope,
    image: xr.DataArray,
    offset_counts: float = 0.0,
    came_with: int | None = None,
) -> LightfieldData:
    """Put everything together; `came_with` is N of frames that were rectified before."""
    is_movie = image.ndim == 3
    spacing = None
    if is_movie and "t" in image.coords and image.sizes["t"] > 1:
        times = image.coords["t"].values
        spacing = float(times[1] - times[0]) or None
    pixel = microscope.object_pixel_um
    if came_with is not None and microscope.lenslet_um is not None:
        pixel = microscope.lenslet_um / came_with  # no longer the camera's pixels
    return LightfieldData(
        rectified, white, microscope, rectified.lattice, spacing, is_movie, pixel, offset_counts
    )
