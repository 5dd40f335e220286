"""Wave-optics point spread function of a light-field microscope (Broxton et al. 2013).

For a source at object position (y, x, z): the scalar Debye field at the native image plane, the
lenslet transmittance, band-limited propagation to the sensor, intensity integrated over pixels and
averaged over the source voxel. Only sources inside one lenslet cell are needed, and the cell's
symmetries leave an eighth of them (a quarter for hexagonal lattices).

References
----------
Broxton et al., Opt. Express 21, 25418 (2013), eqs. 3-6.
Matsushima & Shimobaba, Opt. Express 17, 19662 (2009): band-limited angular spectrum.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import scipy.special
from scipy.interpolate import CubicSpline

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import Microscope, nearest_odd
from napari_lfm.optics.propagation import Propagator, RadialTable
from napari_lfm.optics.symmetry import Operation, cell_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERSION = 2  # raise when the numbers that come out change: it is part of the cache key


@dataclass(frozen=True)
class CellOptics:
    """Everything the point spread function depends on, apart from depth and voxel size.

    Attributes
    ----------
    magnification, na, sample_index, wavelength_um
        As in `Microscope`.
    pitch_um, focal_length_um, distance_um
        Lenslet pitch, focal length, lenslet-to-sensor distance (image side).
    lattice, aperture
        ``square`` or ``hexagonal``; ``square`` or ``circular``.
    cell_px : tuple of int
        Pixels (Ny, Nx) of one cell; a hexagonal cell is ``sqrt(3) pitch`` by ``pitch`` and holds two
        lenslets.
    pupil : tuple of float
        Radial pupil intensity at equally spaced ``rho = 0 .. 1``; empty for a clear pupil.
    """

    magnification: float
    na: float
    sample_index: float
    wavelength_um: float
    pitch_um: float
    focal_length_um: float
    distance_um: float
    lattice: str
    aperture: str
    cell_px: tuple[int, int]
    pupil: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, microscope: Microscope, n_pixels: int | None = None, pupil: Sequence[float] = ()
    ) -> CellOptics:
        """Take the optics of a light-field microscope, with N pixels per lenslet.

        Raises
        ------
        RequestError
            If the microscope has no lenslet array.
        """
        array = microscope.lenslets
        if array is None:
            raise RequestError(
                f"The microscope '{microscope.name}' has no lenslet array.",
                "Choose a light-field microscope, or add the array in the editor.",
            )
        n = n_pixels or microscope.n_pixels
        assert n is not None
        cell = (nearest_odd(math.sqrt(3) * n), n) if array.lattice == "hexagonal" else (n, n)
        return cls(
            magnification=microscope.objective.magnification,
            na=microscope.objective.na,
            sample_index=microscope.sample_index,
            wavelength_um=microscope.wavelength_um,
            pitch_um=array.pitch_um,
            focal_length_um=array.focal_length_um,
            distance_um=array.distance_um,
            lattice=array.lattice,
            aperture=array.aperture,
            cell_px=cell,
            pupil=tuple(float(p) for p in pupil),
        )

    @property
    def cell_um(self) -> tuple[float, float]:
        """Cell size (y, x) at the lenslet plane."""
        aspect = math.sqrt(3) if self.lattice == "hexagonal" else 1.0
        return self.pitch_um * aspect, self.pitch_um

    @property
    def group(self) -> tuple[Operation, ...]:
        """Symmetry operations of the cell."""
        return cell_group(self.lattice == "square" and self.cell_px[0] == self.cell_px[1])

    @property
    def oversampling(self) -> int:
        """Field samples per pixel: ``dx <= lambda / (4 (NA/M + pitch/(2 f)))``, for the intensity."""
        reach = 1 / math.sqrt(3) if self.lattice == "hexagonal" else 0.5
        limit = self.wavelength_um / (
            4 * (self.na / self.magnification + reach * self.pitch_um / self.focal_length_um)
        )
        pixel = max(c / n for c, n in zip(self.cell_um, self.cell_px, strict=True))
        return max(1, math.ceil(pixel / limit - 1e-6))

    def half_width(self, z_um: float, guard: int = 2) -> tuple[int, int]:
        """Return the half width (y, x) in cells that holds the light of a source at `z_um`.

        Geometric blur radius ``|z| tan(asin(NA/n))`` plus `guard` lenslets.
        """
        radius = abs(z_um) * self.na / math.sqrt(self.sample_index**2 - self.na**2) * self.magnification
        return tuple(  # type: ignore[return-value]
            math.ceil((radius + guard * self.pitch_um) / c - 0.25) for c in self.cell_um
        )

    def key(self) -> str:
        """Return a hash of the optics, for caches."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def debye_field(optics: CellOptics, z_um: Sequence[float], r_um: np.ndarray) -> np.ndarray:
    """Return the field of on-axis points at the native image plane, unit total flux.

    ``U(r, z) = integral_0^NA (1 - s^2/n^2)^(-1/4) exp(-i k0 z sqrt(n^2 - s^2)) J0(k0 r s) s ds``,
    the Debye integral of Broxton 2013 eq. 3 written over the numerical aperture s, with the
    aplanatic apodisation; the minus sign makes + z point towards the objective. The flux
    ``2 pi integral |U|^2 r dr`` is 1 by Parseval's theorem, at every depth alike.

    Parameters
    ----------
    optics : CellOptics
    z_um : sequence of float, length Z
    r_um : ndarray, shape (R,)
        Object-space radii.

    Returns
    -------
    ndarray of complex128, shape (Z, R)
    """
    k0, n, na = 2 * math.pi / optics.wavelength_um, optics.sample_index, optics.na
    z = np.asarray(z_um, float)
    cycles = (
        np.abs(z).max(initial=0) * (n - math.sqrt(n**2 - na**2)) + float(r_um.max(initial=0)) * na
    ) / optics.wavelength_um
    nodes, weights = _gauss_legendre(64 * math.ceil((48 + 6 * cycles) / 64))
    s, ds = na * (nodes + 1) / 2, weights * na / 2
    cos = np.sqrt(1 - (s / n) ** 2)
    amplitude = ds * s / np.sqrt(cos)
    if optics.pupil:
        rho = np.linspace(0, 1, len(optics.pupil))
        transmission = np.interp(s / na, rho, np.clip(optics.pupil, 0, None))
        amplitude = amplitude * np.sqrt(transmission)
        flux = 2 * math.pi / k0**2 * float(np.sum(ds * s / cos * transmission))
    else:
        flux = 2 * math.pi / k0**2 * n**2 * (1 - math.sqrt(1 - (na / n) ** 2))
    phase = np.exp(-1j * k0 * n * z[:, None] * cos)
    bessel = scipy.special.j0(k0 * np.outer(s, r_um))
    field: np.ndarray = (phase * amplitude) @ bessel / math.sqrt(flux)
    return field


@lru_cache(maxsize=32)
def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    # banded eigenvalues: far cheaper than numpy's dense ones for the thousand nodes of a wide field
    nodes, weights = scipy.special.roots_legendre(n)
    return nodes, weights


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 9), round(point[1], 9)


class LightfieldPsf:
    """Sensor images of voxels inside one lenslet cell.

    Parameters
    ----------
    optics : CellOptics
    voxels : tuple of int
        Voxels (sy, sx) per cell.
    guard : int
        Lenslets beyond the geometric blur that the images keep.
    max_half_width : tuple of int, optional
        Cap (y, x) on the half width in cells.
    nodes : int, optional
        Gauss-Legendre nodes per axis for the average over the voxel. By default 4 near the native
        plane, where the image changes fastest with the position, 3 further out, then 2.
    """

    def __init__(
        self,
        optics: CellOptics,
        voxels: tuple[int, int],
        guard: int = 2,
        max_half_width: tuple[int, int] | None = None,
        nodes: int | None = None,
    ) -> None:
        self.optics = optics
        self.voxels = voxels
        self.guard = guard
        self.max_half_width = max_half_width
        self.nodes = nodes
        square = voxels[0] == voxels[1]
        self.group = tuple(g for g in optics.group if square or not g.transpose)

    def half_width(self, z_um: float) -> tuple[int, int]:
        """Return the half width (y, x) in cells used at this depth."""
        hy, hx = self.optics.half_width(z_um, self.guard)
        if self.max_half_width is not None:
            hy, hx = min(hy, self.max_half_width[0]), min(hx, self.max_half_width[1])
        return hy, hx

    def nodes_at(self, z_um: float) -> int:
        """Return the nodes per axis used at this depth.

        With 2 nodes the image of a third of a lenslet was off by 9-16 % (L2) at z = 0 and 2-3 % where the
        light spreads over two lenslets; with 4 by 1.5 % (measured, 60x/1.2, against 8 nodes).
        """
        if self.nodes is not None:
            return self.nodes
        lenslets = max(h - self.guard for h in self.optics.half_width(z_um, self.guard))
        return 4 if lenslets <= 2 else 3 if lenslets <= 4 else 2

    @cached_property
    def representatives(self) -> list[int]:
        """Flat voxel indices, one of each symmetry class."""
        return sorted(
            {int(min(g.on_index(self.voxels)[i] for g in self.group)) for i in range(self.n_voxels)}
        )

    @property
    def n_voxels(self) -> int:
        """Voxels of one plane of one cell."""
        return self.voxels[0] * self.voxels[1]

    @cached_property
    def from_representative(self) -> list[tuple[int, Operation]]:
        """For each voxel: (position in `representatives`, operation that moves it there to here)."""
        out: list[tuple[int, Operation]] = []
        for i in range(self.n_voxels):
            for k, rep in enumerate(self.representatives):
                found = [g for g in self.group if int(g.on_index(self.voxels)[rep]) == i]
                if found:
                    out.append((k, found[0]))
                    break
        return out

    def _sources(
        self, count: int
    ) -> tuple[list[tuple[float, float]], list[list[tuple[int, Operation, float]]]]:
        """Return unique source points (cells, centred) and each representative's weighted nodes."""
        nodes, weights = np.polynomial.legendre.leggauss(count)
        unique: list[tuple[float, float]] = []
        recipes: list[list[tuple[int, Operation, float]]] = []
        known: dict[tuple[float, float], tuple[int, Operation]] = {}
        sy, sx = self.voxels
        for rep in self.representatives:
            a, b = divmod(rep, sx)
            recipe: list[tuple[int, Operation, float]] = []
            for ny, wy in zip(nodes, weights, strict=True):
                for nx, wx in zip(nodes, weights, strict=True):
                    point = (a + 0.5 + ny / 2) / sy - 0.5, (b + 0.5 + nx / 2) / sx - 0.5
                    if _rounded(point) not in known:
                        for g in self.group:
                            known.setdefault(_rounded(g.on_point(*point)), (len(unique), g))
                        unique.append(point)
                    source, move = known[_rounded(point)]
                    recipe.append((source, move, float(wy * wx / 4)))
            recipes.append(recipe)
        return unique, recipes

    def planes(self, z_um: Sequence[float]) -> Iterator[np.ndarray]:
        """Yield, depth by depth, the images of the representative voxels.

        Yields
        ------
        ndarray of float32, shape (representatives, (2 hy + 1) Ny, (2 hx + 1) Nx)
            Fraction of the voxel's collected light per pixel; the cell that holds the voxel is at the centre.
        """
        (ny, nx), radial = self.optics.cell_px, self._radial_tables(z_um)
        for index, z in enumerate(z_um):
            hy, hx = self.half_width(z)
            unique, recipes = self._sources(self.nodes_at(z))
            propagate = Propagator(self.optics, (hy, hx))
            images = [propagate(radial[index], *u) for u in unique]
            out = np.zeros((len(recipes), (2 * hy + 1) * ny, (2 * hx + 1) * nx), np.float32)
            for target, recipe in zip(out, recipes, strict=True):
                for k, g, weight in recipe:
                    target += weight * g.on_image(images[k])
            yield out

    def _radial_tables(self, z_um: Sequence[float]) -> list[RadialTable]:
        """Tabulate the field of each depth; the Bessel functions of all depths are computed once."""
        o = self.optics
        reach = max(
            math.hypot(*((h + 2) * c for h, c in zip(self.half_width(z), o.cell_um, strict=True)))
            for z in z_um
        )
        step = o.wavelength_um / o.na / 24  # the field varies with 2 pi NA / lambda at most
        coarse = np.arange(0, reach / o.magnification + 4 * step, step)
        fine = np.arange(0, coarse[-1], step / 6)
        out: list[RadialTable] = []
        for start in range(0, len(z_um), 16):
            fields = debye_field(o, z_um[start : start + 16], coarse)
            smooth = CubicSpline(coarse, fields, axis=1)(fine)
            out += [RadialTable(field, step / 6) for field in smooth]
        return out
