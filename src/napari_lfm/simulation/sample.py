"""The sample light field: a giant vesicle among beads, made once on this machine and kept.

It is the picture of the real giant-vesicle recording that the optics ``mbl-60x1.2w`` come from: a thin
spherical membrane in water, some haze, a camera with real noise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import LfmError
from napari_lfm.optics.cache import cache_dir
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.files import read_recording, write_recording
from napari_lfm.simulation.lightfield import simulate_lightfield
from napari_lfm.simulation.phantoms import make_scene
from napari_lfm.simulation.recording import SLIGHTLY_OFF, Exposure, Recording
from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Ball, Vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.microscope import Microscope

log = logging.getLogger(__name__)

MICROSCOPE = "mbl-60x1.2w"
Z_UM = (-7.0, 7.0, 1.0)
LENSLETS = (19, 19)
PITCH_PX = 15.4
ROTATION_DEG = 0.25
OFFSET_PX = (1.7, -2.3)
SEED = 7
EXPOSURE = Exposure(peak_electrons=3000, background=0.06)
_VERSION = 2  # raise when the simulation itself changes: kept samples are then made anew

_VESICLE = Ball((0.4, -0.6, 0.8), 5.5, 5.1)
_BEAD_UM, _BEAD_BRIGHTNESS = 0.5, 9.0
_CLEAR_OF_MEMBRANE_UM = 2.0


def sample_scene() -> Scene:
    """Return a vesicle of 11 um diameter and the beads outside and inside it."""
    box = Box((-6.0, -11.5, -11.5), (6.0, 11.5, 11.5))
    options = {
        "count": 26,
        "diameter_um": _BEAD_UM,
        "brightness": _BEAD_BRIGHTNESS,
        "brightness_spread": 0.15,
        "apart_um": 4.0,
    }
    beads = make_scene("beads", box, SEED, options={"beads": options})
    kept = [k for k, p in enumerate(beads.points_um) if _clear(p)]
    shapes = (_VESICLE, *(beads.shapes[k] for k in kept))
    return Scene(shapes, ("vesicles", "beads"), tuple(beads.points_um[k] for k in kept))


def _clear(point: Vector) -> bool:
    """Whether a bead can be told from the membrane by eye, above all along z."""
    y, x = point[1] - _VESICLE.centre_um[1], point[2] - _VESICLE.centre_um[2]
    return float(np.hypot(y, x)) > _VESICLE.radius_um + _CLEAR_OF_MEMBRANE_UM


def sample_microscope() -> Microscope:
    """Return the (nominal) microscope of the sample."""
    return load_microscope(MICROSCOPE)


def sample_recording(
    *, fresh: bool = False, device: str = "cpu", on_progress: Callable[[int, int, str], None] | None = None
) -> Recording:
    """Return the sample recording: from the cache folder, else simulated (half a minute) and kept there.

    Parameters
    ----------
    fresh : bool
        Simulate it in any case.
    device : str
        Where to simulate.
    on_progress : callable, optional
        Called with (step, steps, what is being done) while simulating.
    """
    folder = cache_dir() / "samples" / _key()
    if not fresh and folder.is_dir():
        try:
            return read_recording(folder)
        except LfmError as error:
            log.info("The kept sample cannot be used: %s", error)
    recording = simulate_lightfield(
        sample_scene(),
        sample_microscope(),
        z_um=Z_UM,
        lenslets=LENSLETS,
        pitch_px=PITCH_PX,
        rotation_deg=ROTATION_DEG,
        offset_px=OFFSET_PX,
        exposure=EXPOSURE,
        error=SLIGHTLY_OFF,
        seed=SEED,
        device=device,
        on_progress=on_progress,
    )
    _keep(recording, folder)
    return recording


def _key() -> str:
    """Return a hash of everything the sample depends on."""
    scene = sample_scene()
    text = json.dumps(
        [
            _VERSION,
            sample_microscope().model_dump(mode="json"),
            asdict(EXPOSURE),
            asdict(SLIGHTLY_OFF),
            [Z_UM, LENSLETS, PITCH_PX, ROTATION_DEG, OFFSET_PX, SEED],
            repr(scene),
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _keep(recording: Recording, folder: Path) -> None:
    """Keep a recording; a full disk or a read-only folder only costs the time to make it again."""
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        write_recording(part, recording, sample_microscope(), {"simulated": "sample"})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except (OSError, LfmError) as error:
        log.info("The sample could not be kept: %s", error)
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
