"""Specimens that no network was trained on, and their recordings by optics slightly off the nominal ones."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.families.haze import tissue
from napari_lfm.simulation.lightfield import SLIGHTLY_OFF, Exposure, OpticsError, simulate_lightfields
from napari_lfm.simulation.morphology import read_morphology
from napari_lfm.simulation.phantoms import FAMILIES, make_scene, random_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene
from napari_lfm.simulation.sensor import nominal_lattice

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.optics.microscope import Microscope

VERSION = 2
"""Raise it when recordings or scores change: what was kept on disk is then computed again."""
SEED = 7_310_022
UNSEEN_FAMILIES = ("neurons", "morphologies", "nuclei")
MORPHOLOGIES = Path(__file__).parents[4] / "shared/data/neurom"
PITCH, ROTATION_DEG, OFFSET_PX = 1.0013, 0.17, (0.35, -0.6)
LEAST_LIT = 3e-3
"""A specimen is drawn again while less than this share of the field's voxels holds light: an empty volume
would score 40 dB, and no method could be told from it."""
ATTEMPTS = 50

Group = Literal["seeds", "families"]
GROUPS: tuple[Group, ...] = ("seeds", "families")


@dataclass(frozen=True)
class Setup:
    """What is simulated and how finely.

    Attributes
    ----------
    specimens : int
        In each of the two groups; each is recorded at every noise level.
    lenslets : int
        Rows and columns of the recordings.
    electrons : tuple of float
        Photo-electrons per pixel at the 99.9th percentile of the frame: the noise levels.
    voxels, z_substeps : int
        Fine voxels per lenslet and planes per step of the simulated object.
    beyond : float
        How far specimens reach above and below the volume, as a share of its height.
    error : OpticsError
        How far the optics that record are off those that reconstruct.
    edge_lenslets : int
        Outermost lenslets that are not scored.
    iterations : int
        Of Richardson-Lucy; the best of them is found.
    refine : int
        Most Richardson-Lucy iterations that start from the network's volume.
    memory_gib : float, optional
        Budget of each reconstruction.
    """

    specimens: int = 6
    lenslets: int = 21
    electrons: tuple[float, ...] = (100.0, 600.0, 4000.0)
    voxels: int = 9
    z_substeps: int = 2
    beyond: float = 0.5
    error: OpticsError = SLIGHTLY_OFF
    edge_lenslets: int = 2
    iterations: int = 100
    refine: int = 5
    memory_gib: float | None = None


@dataclass(frozen=True)
class Specimen:
    """One scene of a group."""

    group: Group
    kind: str
    scene: Scene


@dataclass(frozen=True)
class Field:
    """The reconstruction's grid on the simulated sensor.

    Attributes
    ----------
    microscope : Microscope
        The nominal one.
    z_um : tuple of float
        Planes.
    setup : Setup
    """

    microscope: Microscope
    z_um: tuple[float, ...]
    setup: Setup

    @property
    def dz_um(self) -> float:
        """Distance between planes."""
        return self.z_um[1] - self.z_um[0] if len(self.z_um) > 1 else self.microscope.depth_of_field_um

    @property
    def pitch_px(self) -> float:
        """Lenslet pitch on the simulated sensor."""
        assert self.microscope.nominal_pitch_px is not None
        return self.microscope.nominal_pitch_px * PITCH

    @property
    def lenslet_um(self) -> float:
        """Lenslet pitch in the object."""
        return self.pitch_px * self.microscope.object_pixel_um

    @cached_property
    def lattice(self) -> Any:
        """Where the lenslets are."""
        n = self.setup.lenslets
        return nominal_lattice((n, n), (self.pitch_px, self.pitch_px), ROTATION_DEG, OFFSET_PX)

    @cached_property
    def simulated_z_um(self) -> tuple[float, float, float]:
        """First and last plane and step of the object: it reaches beyond the volume."""
        more = round(self.setup.beyond * len(self.z_um))
        return self.z_um[0] - more * self.dz_um, self.z_um[-1] + more * self.dz_um, self.dz_um

    @cached_property
    def box(self) -> Box:
        """What specimens fill: the field and as much around it as throws light into it."""
        from napari_lfm.optics.psf import CellOptics

        margin = CellOptics.of(self.microscope).half_width(max(abs(z) for z in self.z_um))[0]
        half = (self.setup.lenslets / 2 + margin) * self.lenslet_um
        low, high, step = self.simulated_z_um
        return Box((low - step / 2, -half, -half), (high + step / 2, half, half))

    def truth(self, scene: Scene, voxels: int) -> np.ndarray:
        """Return the specimen on the voxels of a reconstruction, (z, y, x): light per voxel.

        The grid turns with the lattice, so that nothing is interpolated. Every plane is the mean of thinner
        ones, as the recorded light came from the whole thickness.
        """
        n, thin = self.setup.lenslets * voxels, 4
        step = self.lenslet_um / voxels
        away = np.multiply(OFFSET_PX, self.microscope.object_pixel_um)
        c, s = math.cos(math.radians(-ROTATION_DEG)), math.sin(math.radians(-ROTATION_DEG))
        # the middle of the lattice, in coordinates that turn with it
        middle = c * away[0] + s * away[1], c * away[1] - s * away[0]
        start = [float(m - (n - 1) / 2 * step) for m in middle]
        turned, d = scene.turned(-ROTATION_DEG), self.dz_um / thin
        planes = []
        for z in self.z_um:  # plane by plane: the memory of one
            grid = Grid((thin, n, n), (d, step, step), (z - self.dz_um / 2 + d / 2, start[0], start[1]))
            planes.append(rasterise(turned, grid).mean(0).numpy())
        return np.stack(planes)


def training_families(card: ModelCard) -> tuple[str, ...]:
    """Return the phantom families that a model was trained on, as its card names them.

    Raises
    ------
    RequestError
        If the card names none.
    """
    found: Any = card.training.get("plan", {})
    found = found.get("settings", {}) if isinstance(found, dict) else {}
    named = found.get("families") or card.specimens
    known = tuple(f for f in named if f in FAMILIES)
    if not known:
        raise RequestError(
            f"The card of '{card.id}' does not say what it was trained on.",
            "Give the phantom families in its entry 'specimens'.",
        )
    return known


def draw_specimens(field: Field, families: tuple[str, ...]) -> list[Specimen]:
    """Return the specimens of both groups: other seeds of `families`, and families that are not among them.

    Morphologies from files are left out where the files are absent.
    """
    others = [k for k in UNSEEN_FAMILIES if (k if k != "morphologies" else "neurons") not in families]
    if not morphology_files():
        others = [k for k in others if k != "morphologies"]
    out: list[Specimen] = []
    for number, group in enumerate(GROUPS):
        for k in range(field.setup.specimens):
            if group == "families" and not others:
                break
            kind = "+".join(families) if group == "seeds" else others[k % len(others)]
            rng = np.random.default_rng([SEED, number, k])
            for _ in range(ATTEMPTS):
                scene = _scene(field, kind, rng)
                truth = _inner(field.truth(scene, 3), field.setup.edge_lenslets * 3)
                if float((truth > 0.05 * _brightest(scene, field)).mean()) > LEAST_LIT:
                    break
            named = "+".join(f for f in scene.families if f != "tissue") if group == "seeds" else kind
            out.append(Specimen(group, named, scene))
    return out


def morphology_files() -> list[Path]:
    """Return the traced neurons that there are."""
    found = sorted(p for p in MORPHOLOGIES.glob("*") if p.suffix.lower() in {".swc", ".h5"})
    try:
        import h5py  # noqa: F401
    except ImportError:
        found = [p for p in found if p.suffix.lower() == ".swc"]
    return found


def _scene(field: Field, kind: str, rng: np.random.Generator) -> Scene:
    lenslet = field.lenslet_um
    if kind != "morphologies":
        return random_scene(kind.split("+"), field.box, rng, lenslet_um=lenslet)
    files = morphology_files()
    path = files[int(rng.integers(len(files)))]
    # cell bodies of half a lenslet to three, as grown ones have; neurites the brighter the thinner they are
    soma = min(lenslet * math.exp(rng.uniform(math.log(0.5), math.log(3))), field.box.size_um[1] / 6)
    share = min(0.36 * soma / lenslet, 1.0) ** 2
    options = {
        "count": int(rng.integers(1, 5)),
        "morphologies": (path,),
        "scale": soma / read_morphology(path).soma_um,
        "brightness": min(share**-0.85, 6.0) * float(rng.uniform(0.3, 1.5)),
        "nucleus_level": float(rng.choice([0.2, 0.6, 1.5])),
        "brightness_spread": 0.4,
    }
    scene = make_scene("neurons", field.box, rng, options={"neurons": options})
    if rng.random() < 0.3:
        faint = math.exp(float(rng.uniform(math.log(0.01), math.log(0.25))))
        scale = lenslet * math.exp(rng.uniform(math.log(3), math.log(20)))
        contrast = float(rng.uniform(0.2, 0.9))
        scene = scene + tissue(field.box, rng, scale_um=scale, contrast=contrast, brightness=faint)
    return scene


def _brightest(scene: Scene, field: Field) -> float:
    step, dz, low = field.lenslet_um / 2, field.dz_um, field.box.low_um
    planes, rows, _ = (field.box.size_um / (dz, step, step)).astype(int).tolist()
    first = (low[0] + dz / 2, low[1] + step / 2, low[2] + step / 2)
    grid = Grid((planes, rows, rows), (dz, step, step), first)
    return float(rasterise(scene, grid).max())


def _inner(volume: np.ndarray, edge: int) -> np.ndarray:
    return volume[:, edge:-edge, edge:-edge] if edge else volume


@dataclass(frozen=True)
class Recordings:
    """Frames of all specimens by one microscope and camera.

    Attributes
    ----------
    electrons : ndarray, shape (specimens, y, x)
        Expected photo-electrons at a peak of one, hot pixels apart.
    hot : ndarray, shape (y, x)
        What hot pixels add, electrons.
    white, dark : ndarray, shape (y, x)
        Grey values.
    """

    electrons: np.ndarray
    hot: np.ndarray
    white: np.ndarray
    dark: np.ndarray

    def inputs(
        self, microscope: Microscope, specimen: int, peak: float, level: int
    ) -> dict[str, xr.DataArray]:
        """Return raw, white and dark frame of a specimen at a noise level, ready for a request."""
        rng = np.random.default_rng([SEED, 99, specimen, level])
        raw = record(self.electrons[specimen] * peak + self.hot, microscope.camera, rng)
        step = dict.fromkeys("yx", microscope.object_pixel_um)
        frames = {"image": raw, "white": self.white, "dark": self.dark}
        return {name: labelled(frame, "yx", step) for name, frame in frames.items()}


def make_recordings(
    field: Field, specimens: list[Specimen], folder: Path, say: Callable[[str], None]
) -> Recordings:
    """Record every specimen; what was recorded before is read from `folder`."""
    path = folder / f"recordings-{key_of(field, specimens)}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Recordings(**{name: kept[name] for name in ("electrons", "hot", "white", "dark")})
    s, camera = field.setup, field.microscope.camera
    recorded = simulate_lightfields(
        [p.scene for p in specimens],
        field.microscope,
        z_um=field.simulated_z_um,
        lenslets=(s.lenslets, s.lenslets),
        pitch_px=field.pitch_px,
        rotation_deg=ROTATION_DEG,
        offset_px=OFFSET_PX,
        exposure=Exposure(peak_electrons=1.0),
        error=s.error,
        voxels_per_lenslet=s.voxels,
        z_substeps=s.z_substeps,
        truth_voxels_per_lenslet=1,
        seed=SEED,
        on_progress=lambda k, n, _: say(f"Recording {len(specimens)} specimens: plane {k + 1} of {n}"),
    )
    dark = recorded[0]["dark"].values
    above = (dark - float(camera.offset_counts)) * camera.gain_e_per_count
    out = Recordings(
        np.stack([r["expected"].values for r in recorded]).astype(np.float32),
        np.where(above > 10 * camera.read_noise_e + 10, above, 0).astype(np.float32),
        recorded[0]["white"].values,
        dark,
    )
    with replacing_file(path) as file:
        np.savez(file, electrons=out.electrons, hot=out.hot, white=out.white, dark=out.dark)
    return out


def key_of(field: Field, specimens: list[Specimen]) -> str:
    """Return a short name for everything that recordings and truths depend on."""
    setup = asdict(field.setup)
    for name in ("iterations", "refine", "memory_gib", "electrons", "edge_lenslets"):
        setup.pop(name)
    shapes = [[p.group, p.kind, len(p.scene.shapes), repr(p.scene.shapes[0])[:200]] for p in specimens]
    told = [VERSION, field.microscope.model_dump(mode="json"), field.z_um, setup, shapes]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
