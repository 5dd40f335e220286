"""Real objects: a measured bead, refocused from single planes; real nuclei, imaged by the model's optics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from scipy.ndimage import zoom

from napari_lfm.bench._refocus_beads import spot
from napari_lfm.bench._refocus_quality import ITERATIONS, Ledger, pairs_of, physical_ways, score_pairs
from napari_lfm.bench._refocus_scenes import SEED, real_optics
from napari_lfm.bench._widefield_bead import BEAD, NA, STEP_UM, WAVELENGTH_UM
from napari_lfm.core.metrics import pearson
from napari_lfm.methods.refocus.opening import open_refocuser
from napari_lfm.networks.refocus_fit import check_refocus_card
from napari_lfm.optics.defocus import DefocusOptics, transfer_table
from napari_lfm.optics.microscope import Camera, Microscope, Objective
from napari_lfm.simulation.focal_stacks import FocalSettings, image_focal_stack

if TYPE_CHECKING:
    from napari_lfm.bench._refocus_scenes import Model

NUCLEI = Path(__file__).parents[4] / "shared/data/cells3d/nuclei.tif"
NUCLEI_STEP_UM = (0.29, 0.26, 0.26)
OFFSETS = (-10, -7, -5, -3, -1, 0, 1, 3, 5, 7, 10)
"""Planes of the recording from the one in focus."""
WINDOW_UM = 8.0
DEPTHS_UM = (0.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 27.0, 35.0, 45.0)
SHIFTS_UM = tuple(float(v) for v in np.arange(-0.9, 0.91, 0.15).round(2))
DIRECTIONS = {"as filed": 1, "turned round": -1}


def bead_microscope() -> Microscope:
    """Return the microscope of the measured bead, as its name says."""
    return Microscope(
        name="measured bead",
        objective=Objective(magnification=50, na=NA, immersion_index=1.0),
        camera=Camera(pixel_um=50 * STEP_UM[1]),
        wavelength_um=WAVELENGTH_UM,
        sample_index=1.33,
    )


def real_bead(model: Model, path: Path = BEAD) -> dict[str, Any] | None:
    """Return the measured bead refocused from single planes; None where it is absent, or the model unfit.

    Twice: with planes in the order of the file, and turned round, since the file does not say which way the
    focus went. Everything is compared on the model's pixels, in a window of 8 um around the bead.

    Returns
    -------
    dict
        ``rows``: direction, z_um (how far the plane lies from focus), and for ``input``, ``wiener`` (best of
        its settings, picked with the measured plane at hand) and both heads the ``fwhm_um`` and the
        ``pearson`` with the measured plane in focus; ``in_focus_um``; ``notes`` of the resampling;
        ``aberration``, see `aberration_of`.
    """
    microscope = bead_microscope()
    fit = check_refocus_card(model.entry.card, STEP_UM[1], microscope)
    if not path.is_file() or fit.verdict == "refused":
        return None
    stack = tifffile.imread(path).astype(np.float32)
    focus, y, x = (int(k) for k in np.unravel_index(stack.argmax(), stack.shape))

    def opened(plane: np.ndarray) -> Any:
        return open_refocuser(plane, STEP_UM[1], model.entry, microscope, "cpu", network=model.network)

    truth = opened(stack[focus])
    place = np.array([y, x]) * truth.factor
    reach = round(WINDOW_UM / 2 / truth.pixel_um)
    row, column = (round(float(v)) for v in place)
    window = (slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1))
    target = truth.refocuser.scaled.cpu().numpy()

    def told(plane: np.ndarray) -> dict[str, float]:
        shown = plane - np.median(plane)
        width, _, found = spot(shown, place)
        like = pearson(plane[window], target[window])
        return {
            "fwhm_um": round(width * truth.pixel_um, 3),
            "pearson": round(like, 4),
            "found": float(found),
        }

    rows = []
    for direction, sign in DIRECTIONS.items():
        for offset in OFFSETS:
            if not 0 <= focus + offset < len(stack):
                continue
            one = opened(stack[focus + offset]).refocuser
            # the image's plane lies `away` above focus: focus is at -away from it
            away = sign * offset * STEP_UM[0]
            made = one.plane(-away)
            found: dict[str, Any] = {"direction": direction, "z_um": round(away, 3)}
            found["input"] = told(one.scaled.cpu().numpy())
            ways = [told(plane) for name, plane in physical_ways(one, -away, ()) if name.startswith("wiener")]
            found["wiener"] = max(ways, key=lambda w: w["pearson"])
            found["widefield"], found["confocal"] = told(made.widefield), told(made.confocal)
            rows.append(found)
    return {
        "rows": rows,
        "in_focus_um": told(target)["fwhm_um"],
        "notes": list(truth.notes),
        "aberration": aberration_of(stack, (focus, y, x)),
        "mean_pearson": {
            d: {
                way: round(
                    float(np.mean([r[way]["pearson"] for r in rows if r["direction"] == d and r["z_um"]])), 4
                )
                for way in ("input", "wiener", "widefield", "confocal")
            }
            for d in DIRECTIONS
        },
    }


def aberration_of(stack: np.ndarray, middle: tuple[int, int, int]) -> dict[str, Any]:
    """Return how like models with more and more spherical aberration the bead is, in both directions.

    Each plane by itself, and the mean over planes: the few bright ones near focus hardly tell a direction.
    Where the model's focus lies between planes is fitted.

    Returns
    -------
    dict
        ``rows``: direction, ``depth_um`` in water, ``rms_waves`` of the aberration, ``correlation``, and
        ``on_axis``: correlation of the logarithm of the brightness along the axis; ``best_of``: the row with
        the highest correlation of each direction.
    """
    focus, y, x = middle
    half, side = min(focus, len(stack) - 1 - focus, 10), min(48, y, x)
    part = stack[focus - half : focus + half + 1, y - side : y + side + 1, x - side : x + side + 1]
    size = (part.shape[1], part.shape[2])
    near = (slice(None), slice(side - 1, side + 2), slice(side - 1, side + 2))
    axis = np.log(np.clip(part[near].mean((1, 2)) - np.median(part), 1, None))
    rows: list[dict[str, Any]] = []
    for depth in DEPTHS_UM:
        optics = DefocusOptics(na=NA, wavelength_um=WAVELENGTH_UM, depth_um=depth)
        table = transfer_table(optics, half * STEP_UM[0] + 1.5)
        for direction, sign in DIRECTIONS.items():
            best = (-1.0, 0.0)
            for shift in SHIFTS_UM:
                z = sign * (np.arange(-half, half + 1) * STEP_UM[0] + shift)
                planes = table.planes("widefield", z, size, STEP_UM[1])
                spots = np.fft.fftshift(np.fft.irfft2(planes, size), (1, 2))
                like = [pearson(a, b) for a, b in zip(spots, part, strict=True)]
                middle_of = np.log(spots[near].mean((1, 2)).clip(1e-7))
                best = max(best, (float(np.mean(like)), pearson(middle_of, axis)))
            row = {"direction": direction, "depth_um": depth, "correlation": round(best[0], 4)}
            rows.append(
                row | {"on_axis": round(best[1], 4), "rms_waves": round(optics.spherical_rms_waves, 4)}
            )
    best_of = {
        d: max((r for r in rows if r["direction"] == d), key=lambda r: float(r["correlation"]))
        for d in DIRECTIONS
    }
    return {"rows": rows, "best_of": best_of}


def real_nuclei(
    model: Model, electrons: float = 1000.0, turns: int = 2, path: Path = NUCLEI
) -> dict[str, Any] | None:
    """Return Pearson by |z| for real nuclei imaged by the model's optics, None where they are absent.

    The recorded (confocal) volume is taken for the fluorophores, mirrored beyond its borders, and imaged with
    aberrations that the network is not told.

    Returns
    -------
    dict
        ``rows``: as of `napari_lfm.bench._refocus_quality`.
    """
    if not path.is_file():
        return None
    volume = tifffile.imread(path).astype(np.float32)
    volume = np.clip(volume - np.percentile(volume, 5), 0, None)
    kept = Ledger()
    for turn in range(turns):
        optics = real_optics(model, 300 + turn)
        settings, truth, inside = _object(volume, model, optics)
        stack = image_focal_stack(torch.from_numpy(truth), settings, optics)
        half = round(model.domain.range_um / model.domain.step_um)
        pairs = pairs_of(settings.shape[0], half, 50 + turn)
        score_pairs(model, stack, pairs, electrons, kept, ITERATIONS, [SEED, 19, turn], "nuclei", inside)
    return {"rows": kept.rows(model.domain.range_um), "electrons": electrons, "voxel_um": NUCLEI_STEP_UM}


def _object(
    volume: np.ndarray, model: Model, optics: DefocusOptics
) -> tuple[FocalSettings, np.ndarray, tuple[slice, slice]]:
    """Return settings of a stack, the object on its voxels, and the pixels that show the volume itself."""
    pixel, step = model.domain.pixel_um, model.domain.step_um
    voxel = (step * optics.drive_ratio, pixel, pixel)
    factors = [a / b for a, b in zip(NUCLEI_STEP_UM, voxel, strict=True)]
    made = np.clip(zoom(volume, factors, order=1, mode="nearest", grid_mode=True), 0, None)
    most = 2 * round(model.domain.range_um / step) + 1
    made = made[: most + len(made) % 2]
    margin = made.shape[1] // 4
    wide = np.pad(made, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    settings = FocalSettings((len(wide), *wide.shape[1:]), step, pixel, beyond=0)
    inner = slice(margin + 8, -margin - 8)
    return settings, np.ascontiguousarray(wide, np.float32), (inner, inner)
