"""The point spread function against a slow implementation of its own, and against what physics demands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.special import j0

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.presets import load_microscope
from napari_lfm.optics.psf import CellOptics, LightfieldPsf, debye_field

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., CellOptics]


def slow_field(o: CellOptics, z: float, reach_um: float) -> CubicSpline:
    """Broxton 2013 eq. 3 by a plain trapezoid over the polar angle; unit flux by Parseval's theorem."""
    k = 2 * np.pi * o.sample_index / o.wavelength_um
    theta = np.linspace(0, np.arcsin(o.na / o.sample_index), 3001)
    weight = np.full(theta.size, theta[1])
    weight[[0, -1]] /= 2
    kernel = weight * np.sqrt(np.cos(theta)) * np.sin(theta) * np.exp(-1j * k * z * np.cos(theta))
    r = np.linspace(0, reach_um, 1500)
    power = 2 * np.pi / k**2 * (1 - np.cos(theta[-1]))  # 2 pi integral |U|^2 r dr
    return CubicSpline(r, j0(k * np.outer(r, np.sin(theta))) @ kernel / np.sqrt(power))


def slow_image(
    o: CellOptics, field_of: CubicSpline, y0: float, x0: float, half: tuple[int, int], finer: int
) -> np.ndarray:
    """Broxton 2013 eqs. 4-6 step by step in numpy, double precision, on a grid `finer` than the engine's.

    Every lenslet is set down by itself at its own centre, and the angular spectrum is neither
    band-limited nor cut to the window: the field reaches 3 cells beyond it.
    """
    k0 = 2 * np.pi / o.wavelength_um
    ny, nx = o.cell_px
    extra = 3
    fine = finer * o.oversampling
    sizes = [(2 * (h + extra) + 1) * n * fine for h, n in zip(half, (ny, nx), strict=True)]
    steps = [c / n / fine for c, n in zip(o.cell_um, (ny, nx), strict=True)]
    y, x = ((np.arange(n) - (n - 1) / 2) * d for n, d in zip(sizes, steps, strict=True))
    field = field_of(np.hypot((y - y0)[:, None], (x - x0)[None, :]) / o.magnification)

    lens = np.zeros(field.shape, complex)
    reach = max(half) + extra + 2
    for i in range(-2 * reach, 2 * reach + 1):
        for j in range(-reach, reach + 1):
            if o.lattice == "hexagonal":
                cy, cx = i * o.pitch_um * np.sqrt(3) / 2, (j + 0.5 * (i % 2)) * o.pitch_um
            else:
                cy, cx = i * o.pitch_um, j * o.pitch_um
            rows = np.flatnonzero(np.abs(y - cy) <= o.pitch_um / 2)
            columns = np.flatnonzero(np.abs(x - cx) <= o.pitch_um / 2)
            if not (rows.size and columns.size):
                continue
            rho2 = (y[rows, None] - cy) ** 2 + (x[None, columns] - cx) ** 2
            inside = rho2 <= (o.pitch_um / 2) ** 2 if o.aperture == "circular" else np.ones(rho2.shape, bool)
            part = np.ix_(rows, columns)
            lens[part] = np.where(inside, np.exp(-1j * k0 * rho2 / (2 * o.focal_length_um)), lens[part])

    fy, fx = (np.fft.fftfreq(n, d) for n, d in zip(sizes, steps, strict=True))
    kz = 2 * np.pi * np.sqrt(np.maximum(1 / o.wavelength_um**2 - fy[:, None] ** 2 - fx[None, :] ** 2, 0))
    sensor = np.fft.ifft2(np.fft.fft2(field * lens) * np.exp(1j * kz * o.distance_um))
    light = np.abs(sensor) ** 2 * steps[0] * steps[1] / o.magnification**2
    pixels = light.reshape(sizes[0] // fine, fine, sizes[1] // fine, fine).sum((1, 3))
    return pixels[extra * ny : -extra * ny, extra * nx : -extra * nx]


@pytest.mark.parametrize(
    ("lattice", "aperture", "z", "index", "distance"),
    [
        ("square", "square", 6.0, 1.0, 2200.0),
        ("square", "circular", -9.0, 1.33, 2200.0),
        ("hexagonal", "circular", 7.0, 1.0, 2200.0),
        ("square", "square", 4.0, 1.0, 1700.0),
    ],
)
def test_agrees_with_a_slow_implementation(
    make_optics: Make, lattice: str, aperture: str, z: float, index: float, distance: float
) -> None:
    optics = make_optics(lattice, aperture, sample_index=index, distance_um=distance)
    psf = LightfieldPsf(optics, (3, 3), nodes=1)  # one node: a point at the voxel's centre
    images, half = next(psf.planes([z])), psf.half_width(z)
    field = slow_field(optics, z, 100.0)
    for k, (image, rep) in enumerate(zip(images, psf.representatives, strict=True)):
        (a, b), (cy, cx) = divmod(rep, 3), optics.cell_um
        place = ((a + 0.5) / 3 - 0.5) * cy, ((b + 0.5) / 3 - 0.5) * cx
        same_grid = slow_image(optics, field, *place, half, 1)
        assert np.linalg.norm(image - same_grid) < 1e-3 * np.linalg.norm(same_grid)
        if k == 0:  # what the engine's own grid costs: edges of lenslets and of circular apertures
            finer = slow_image(optics, field, *place, half, 4)
            assert np.linalg.norm(image - finer) < 0.03 * np.linalg.norm(finer)
            assert image.sum() == pytest.approx(finer.sum(), rel=0.02)


@pytest.mark.parametrize("z", [0.0, 3.0, -20.0])
@pytest.mark.parametrize("pupil", [(), (1.0, 0.9, 0.4)])
def test_the_incident_field_carries_unit_flux_at_every_depth(
    make_optics: Make, z: float, pupil: tuple[float, ...]
) -> None:
    r = np.arange(0, 160, 0.05)
    field = debye_field(make_optics(pupil=pupil), [z], r)[0]
    flux = 2 * np.pi * np.trapezoid(np.abs(field) ** 2 * r, r)
    assert flux == pytest.approx(1, abs=0.004)  # the Airy rings beyond the table hold the rest


def test_the_focus_is_the_airy_disc(make_optics: Make) -> None:
    optics = make_optics(na=0.2)  # paraxial
    r = np.linspace(0, 3, 3001)
    field = np.abs(debye_field(optics, [0.0], r)[0])
    first_zero = r[np.argmin(field)]
    assert first_zero == pytest.approx(0.61 * optics.wavelength_um / optics.na, rel=0.01)


def test_voxels_are_averaged_not_sampled(make_optics: Make) -> None:
    """Against 5 x 5 points in each voxel; near z = 0 a point at the centre is far off."""
    optics = make_optics(n=7)
    many = LightfieldPsf(optics, (15, 15), nodes=1)
    images = next(many.planes([4.0]))
    errors = []
    for nodes in (1, 2, 4):
        psf = LightfieldPsf(optics, (3, 3), nodes=nodes)
        worst = 0.0
        for image, rep in zip(next(psf.planes([4.0])), psf.representatives, strict=True):
            a, b = divmod(rep, 3)
            mean = np.zeros(image.shape)
            for i in range(5):
                for j in range(5):
                    kind, move = many.from_representative[(5 * a + i) * 15 + 5 * b + j]
                    mean += move.on_image(images[kind]) / 25
            worst = max(worst, float(np.linalg.norm(image - mean) / np.linalg.norm(mean)))
        errors.append(worst)
    point, standard, dense = errors
    assert point > 0.1
    assert standard < point / 2
    assert dense < 0.05  # the reference has 5 x 5 points only


@pytest.mark.parametrize("voxels", [(1, 1), (2, 2), (3, 3), (2, 3)])
def test_symmetry_makes_the_images_that_are_not_computed(make_optics: Make, voxels: tuple[int, int]) -> None:
    psf = LightfieldPsf(make_optics(), voxels)
    alone = LightfieldPsf(make_optics(), voxels)
    alone.group = alone.group[:1]  # the identity: every voxel is computed by itself
    images, all_of_them = next(psf.planes([5.0])), next(alone.planes([5.0]))
    assert len(alone.representatives) == voxels[0] * voxels[1]
    assert len(psf.representatives) < len(alone.representatives) or voxels == (1, 1)
    for image, (kind, move) in zip(all_of_them, psf.from_representative, strict=True):
        np.testing.assert_allclose(move.on_image(images[kind]), image, atol=2e-6 * image.max())


def test_a_hexagonal_array_treats_its_six_neighbours_alike(make_optics: Make) -> None:
    optics = make_optics("hexagonal", "circular", n=25)
    image = next(LightfieldPsf(optics, (1, 1), nodes=1).planes([9.0]))[0]
    np.testing.assert_allclose(image, image[::-1], atol=1e-5 * image.max())
    np.testing.assert_allclose(image, image[:, ::-1], atol=1e-5 * image.max())
    dy, dx = (c / n for c, n in zip(optics.cell_um, optics.cell_px, strict=True))
    y = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2)[:, None] * dy
    x = (np.arange(image.shape[1]) - (image.shape[1] - 1) / 2)[None] * dx
    angles = np.arange(6) * np.pi / 3
    shares = [float(image[np.hypot(y - 100 * np.sin(a), x - 100 * np.cos(a)) < 57].sum()) for a in angles]
    assert min(shares) > 0.05 * image.sum()
    assert np.ptp(shares) < 0.02 * np.mean(shares)  # pixels and lenslets are no hexagons: 0.8 % here


@pytest.mark.parametrize("distance", [2200.0, 3300.0, 4400.0])
def test_light_spreads_with_the_distance_to_the_sensor(make_optics: Make, distance: float) -> None:
    """Defocused ("2.0") cameras: the spot of an in-focus point opens as NA / M behind the array."""
    optics = make_optics(n=25, pitch_um=200.0, focal_length_um=4400.0, distance_um=distance, na=0.4)
    image = next(LightfieldPsf(optics, (1, 1), nodes=1).planes([0.0]))[0]
    assert image.sum() == pytest.approx(1, abs=0.02)
    axis = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2) * optics.pitch_um / 25
    radius = np.hypot(axis[:, None], axis[None])
    edge = optics.na / optics.magnification * distance
    assert image[radius < edge + 12].sum() > 0.85  # Airy rings and lenslet edges throw light further
    assert image[radius < edge - 12].sum() < 0.95
    # an even disc has half its light within 0.71 of its radius
    order = np.argsort(radius.ravel())
    half_light = radius.ravel()[order][np.searchsorted(np.cumsum(image.ravel()[order]), 0.5 * image.sum())]
    assert half_light == pytest.approx(edge / np.sqrt(2), rel=0.15)


def test_oversampling_is_what_the_microscopes_need() -> None:
    assert CellOptics.of(load_microscope("imperial-25x1.0w")).oversampling == 5
    assert CellOptics.of(load_microscope("bern-40x0.9")).oversampling in (1, 2)


def test_every_optical_figure_is_part_of_the_key(make_optics: Make) -> None:
    base = make_optics()
    changes: list[dict[str, object]] = [
        {"na": 0.44},
        {"sample_index": 1.33},
        {"wavelength_um": 0.56},
        {"pitch_um": 101.0},
        {"focal_length_um": 2201.0},
        {"distance_um": 2100.0},
        {"aperture": "circular"},
        {"magnification": 20.5},
        {"cell_px": (7, 7)},
        {"pupil": (1.0, 0.5)},
    ]
    keys = {base.key(), *(replace(base, **c).key() for c in changes)}  # type: ignore[arg-type]
    assert len(keys) == len(changes) + 1
    assert make_optics().key() == base.key()


def test_no_lenslets_no_light_field() -> None:
    with pytest.raises(RequestError, match="no lenslet array"):
        CellOptics.of(load_microscope("wf-20x0.8"))
