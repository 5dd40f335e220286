"""Neuron shapes: from SWC and HDF5 morphology files, or grown by a random walk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.shapes import Ball, Shape, Tube, Union, Vector
from napari_lfm.simulation.soft_shapes import Ellipsoid, rotation_of

SOMA = 1
_MAX_SOMA_UM = 15.0


@dataclass(frozen=True)
class Morphology:
    """A tree of points.

    Attributes
    ----------
    points_um : array, shape (n, 3)
        (z, y, x), the soma's centre at the origin.
    radii_um : array, shape (n,)
    parents : array, shape (n,)
        Index of the parent, -1 for roots.
    soma_um : float
        Radius of the cell body.
    source : str
        File name, or ``"grown"``: evaluation splits go by it.
    """

    points_um: npt.NDArray[np.float64]
    radii_um: npt.NDArray[np.float64]
    parents: npt.NDArray[np.int64]
    soma_um: float
    source: str

    def body(
        self,
        centre_um: Vector = (0.0, 0.0, 0.0),
        rotation: npt.NDArray[np.float64] | None = None,
        scale: float = 1.0,
        brightness: float = 1.0,
        soma_brightness: float = 1.0,
        nucleus_level: float = 1.0,
    ) -> Union:
        """Return the cell at `centre_um`: its soma and one tube per unbranched stretch, as one body.

        The nucleus is `nucleus_level` times as bright as the rest of the soma.
        """
        turn = np.eye(3) if rotation is None else rotation
        points = scale * self.points_um @ turn.T + np.asarray(centre_um)
        radii = np.maximum(scale * self.radii_um, 0.05)
        soma = scale * self.soma_um
        body: Shape = Ball(centre_um, soma, brightness=soma_brightness)
        if nucleus_level != 1:
            half = (0.85 * soma, soma, 1.18 * soma)
            body = Ellipsoid(
                centre_um,
                half,
                rotation_of(turn),
                core_share=0.55,
                core_level=nucleus_level,
                brightness=soma_brightness,
            )
        out: list[Shape] = [body]
        for chain in _chains(self.parents):
            track, thick = _outside(points[chain], radii[chain], np.asarray(centre_um), 0.75 * soma)
            if len(track) > 1:
                line = tuple((z, y, x) for z, y, x in track.tolist())
                out.append(Tube(line, tuple(thick.tolist()), brightness=brightness))
        return Union(tuple(out))


def read_morphology(path: str | Path) -> Morphology:
    """Read an SWC text file or an HDF5 morphology (``points`` and ``structure`` tables).

    Raises
    ------
    RequestError
        If the file is neither, or HDF5 support (h5py) is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"There is no morphology file {path}.", "Check the path.")
    if path.suffix.lower() in {".h5", ".hdf5"}:
        kinds, points, radii, parents = _read_hdf5(path)
    else:
        kinds, points, radii, parents = _read_swc(path)
    return _centred(kinds, points, radii, parents, path.name)


def grow_neuron(
    rng: np.random.Generator, *, reach_um: float = 60.0, dendrites: int = 5, soma_um: float = 6.0
) -> Morphology:
    """Return a neuron grown by a persistent random walk that branches and tapers.

    Parameters
    ----------
    rng : numpy.random.Generator
    reach_um : float
        Path length of a dendrite.
    dendrites : int
        Number of stems.
    soma_um : float
        Radius of the cell body.
    """
    step = max(reach_um / 60, 0.1)
    points, radii, parents = [np.zeros(3)], [0.15 * soma_um], [-1]
    way = _unit(rng.normal(size=(dendrites, 3)))
    home, width = np.zeros(dendrites, int), 0.15 * soma_um * np.exp(0.25 * rng.normal(size=dendrites))
    # dendrites end at different lengths
    left = reach_um * rng.uniform(0.6, 1.0, dendrites)
    while len(home):
        # all tips move one step at once
        way = _unit(way + 0.17 * rng.normal(size=way.shape))
        here = np.arange(len(home)) + len(points)
        points.extend(np.array(points)[home] + step * way)
        radii.extend(width.tolist())
        parents.extend(home.tolist())
        forks = rng.random(len(home)) < 0.045
        # Rall's law: the 3/2 powers of the daughters' radii add up to the mother's
        share = rng.uniform(0.25, 0.75, len(home))
        first = np.where(forks, share ** (2 / 3), 0.99) * width
        side = 0.5 * rng.normal(size=way.shape)
        home = np.concatenate([here, here[forks]])
        way = _unit(np.concatenate([way + np.where(forks[:, None], side, 0), (way - side)[forks]]))
        left = np.concatenate([left, left[forks]]) - step
        width = np.concatenate([first, ((1 - share) ** (2 / 3) * width)[forks]])
        alive = (left > 0) & (width > 0.012 * soma_um)
        home, way, width, left = home[alive], way[alive], width[alive], left[alive]
    return Morphology(np.array(points), np.array(radii), np.array(parents), soma_um, "grown")


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))


def random_rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a rotation matrix, uniform over all rotations."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return np.asarray(q)


_Tables = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]
]


def _read_swc(path: Path) -> _Tables:
    try:
        lines = path.read_text(encoding="utf-8", errors="strict").splitlines()
        rows = [line.split()[:7] for line in lines if line.strip() and not line.lstrip().startswith("#")]
        table = np.array(rows, float)
        if table.ndim != 2 or table.shape[1] != 7:
            raise ValueError
    except ValueError:
        raise RequestError(
            f"{path.name} is not an SWC morphology.",
            "Each line needs seven numbers: id, kind, x, y, z, radius, parent.",
        ) from None
    row_of = {int(i): k for k, i in enumerate(table[:, 0])}
    parents = np.array([row_of.get(int(p), -1) for p in table[:, 6]])
    return table[:, 1].astype(int), table[:, [4, 3, 2]], table[:, 5], parents


def _read_hdf5(path: Path) -> _Tables:
    try:
        import h5py
    except ImportError:
        raise RequestError(
            f"Reading {path.name} needs h5py.", "Install it with 'pip install h5py', or use an SWC file."
        ) from None
    try:
        with h5py.File(path) as file:
            points, structure = np.asarray(file["points"], float), np.asarray(file["structure"], int)
    except (OSError, KeyError):
        raise RequestError(
            f"{path.name} is not an HDF5 morphology.", "It needs tables 'points' and 'structure'."
        ) from None
    kinds, parents = np.empty(len(points), int), np.arange(-1, len(points) - 1)
    ends = np.append(structure[1:, 0], len(points))
    for (start, kind, mother), end in zip(structure, ends, strict=True):
        kinds[start:end] = kind
        # a section hangs on the last point of the section it grows from
        parents[start] = ends[mother] - 1 if mother >= 0 else -1
    return kinds, points[:, [2, 1, 0]], points[:, 3] / 2, parents


def _centred(
    kinds: npt.NDArray[np.int64],
    points: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    parents: npt.NDArray[np.int64],
    source: str,
) -> Morphology:
    soma = kinds == SOMA
    body = points[soma] if soma.any() else points[:1]
    centre = body.mean(0)
    # a contour of points tells the size by its spread, a single point by its own radius
    spread = float(np.linalg.norm(body - centre, axis=1).mean()) if len(body) > 1 else 0.0
    size = max(spread, float(radii[soma].max()) if len(body) == 1 and soma.any() else 0.0, 1.0)
    keep = np.flatnonzero(~soma)
    new = np.full(len(points), -1)
    new[keep] = np.arange(len(keep))
    linked = np.where(parents[keep] >= 0, new[parents[keep]], -1)
    if not len(keep):
        raise RequestError(f"{source} has no dendrites or axon.", "Use a complete morphology.")
    return Morphology(points[keep] - centre, radii[keep], linked, min(size, _MAX_SOMA_UM), source)


def _outside(
    track: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    radius: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the part of a neurite that leaves the soma: none of it runs through the nucleus."""
    away = np.linalg.norm(track - centre, axis=1)
    if not away[0] < radius < away.max():
        return (track, radii) if away[0] >= radius else (track[:0], radii[:0])
    first = int(np.argmax(away >= radius))
    share = (radius - away[first - 1]) / (away[first] - away[first - 1])
    start = track[first - 1] + share * (track[first] - track[first - 1])
    return np.concatenate([start[None], track[first:]]), radii[first - 1 :]


def _chains(parents: npt.NDArray[np.int64]) -> list[list[int]]:
    """Split a tree into unbranched stretches; each starts at the branch point it grows from."""
    children = np.bincount(parents[parents >= 0], minlength=len(parents))
    out: list[list[int]] = []
    for tip in np.flatnonzero(children != 1):
        chain, here = [int(tip)], int(parents[tip])
        while here >= 0:
            chain.append(here)
            if children[here] != 1:
                break
            here = int(parents[here])
        if len(chain) > 1:
            out.append(chain[::-1])
    return out
