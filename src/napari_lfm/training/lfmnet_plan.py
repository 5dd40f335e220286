"""The plan of a training of LFMNet: microscope, depths, size of the network, specimens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.optics.inverse import InverseSettings
from napari_lfm.optics.iterated import IterationSettings
from napari_lfm.optics.start import start_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.optics.start import StartSettings
    from napari_lfm.training.lightfield_pairs import PairSettings

SPECIMENS: dict[str, tuple[str, ...]] = {
    "any": ("beads", "vesicles", "vessels", "filaments", "cells", "bars"),
    "beads": ("beads",),
    "vesicles": ("vesicles", "cells"),
    "vessels": ("vessels",),
    "filaments": ("filaments",),
    "neurons": ("neurons", "filaments"),
    "nuclei": ("nuclei", "cells"),
}
"""Specimen kinds that a user can choose, and the phantom families that stand for them."""
MOST_SLOPES = 32
START_NOISE = (3.0, 0.3)
"""Regularisations of the start: 3 comes nearest to the truth by itself, 0.3 is sharper and noisier."""
START_VOXELS = 3
LARGE_N = 21
"""More pixels per lenslet than this are many: optics and frames are then made as small as they may be."""
LARGE_START_VOXELS, LARGE_START_ITERATIONS = 2, (4, 16)
"""There, light from far beyond a frame's edges reaches in: iterations know, a linear inverse does not."""


@dataclass(frozen=True)
class NetworkSize:
    """How large a network is, and what that asks of its training.

    Attributes
    ----------
    arguments : dict
        Constructor arguments beside the geometry.
    batch_size : int
        Frames of `PairSettings.cells` squared lenslets per update.
    learning_rate : float
    """

    arguments: dict[str, int]
    batch_size: int
    learning_rate: float


SIZES: dict[str, NetworkSize] = {
    "small": NetworkSize({"width": 40, "lenslet_width": 96, "blocks": 3, "angular": 2}, 2, 1e-3),
    "medium": NetworkSize({"width": 64, "lenslet_width": 128, "blocks": 3, "angular": 4}, 2, 8e-4),
    "large": NetworkSize({"width": 112, "lenslet_width": 256, "blocks": 4, "angular": 6}, 8, 6e-4),
    "paper": NetworkSize({}, 16, 1e-3),
}
"""Small and medium suit a CPU, large wants a GPU; paper is the published network, which takes no sizes."""
PAPER_FOV = 9


def z_of_card(z_min_um: float, z_max_um: float, z_step_um: float) -> list[float]:
    """Return the depths of a model's planes, lowest first.

    Raises
    ------
    RequestError
        If the range is empty or has more than 256 planes.
    """
    count = int(np.floor((z_max_um - z_min_um) / z_step_um + 1e-6)) + 1
    if count < 1:
        raise RequestError(
            f"The depth range {z_min_um:g} to {z_max_um:g} um is empty.", "Give the lower end first."
        )
    if count > 256:
        raise RequestError(f"{count} planes are more than a network of 256.", "Take larger steps.")
    return [round(z_min_um + k * z_step_um, 6) for k in range(count)]


@dataclass(frozen=True)
class LfmnetPlan:
    """Everything that decides what a training gives, apart from the loop's own settings.

    Attributes
    ----------
    microscope : Microscope
    z_um : tuple of float
        Depths of the planes, evenly spaced.
    size : str
        A key of `SIZES`.
    specimen : str
        A key of `SPECIMENS`.
    voxels_per_lenslet : int
        Voxels across a lenslet of what is simulated, and of the network but the published one.
    n_pixels : int
        Pixels per lenslet, N.
    seed : int
    settings : PairSettings
    """

    microscope: Microscope
    z_um: tuple[float, ...]
    size: str
    specimen: str
    voxels_per_lenslet: int
    n_pixels: int
    seed: int
    settings: PairSettings

    @property
    def architecture(self) -> str:
        """Name of the network in model cards."""
        return "lfmnet-paper" if self.size == "paper" else "lfmnet-modern"

    @property
    def truth_voxels(self) -> int:
        """Voxels across a lenslet of the network's volumes: the published one makes one for each pixel."""
        return self.n_pixels if self.size == "paper" else self.voxels_per_lenslet

    @property
    def network(self) -> dict[str, Any]:
        """Constructor arguments of the network."""
        if self.size == "paper":
            cells = self.settings.cells
            fov = min(PAPER_FOV, cells - 1 + cells % 2)
            return {"n_depths": len(self.z_um), "fov": fov, "n_pixels": self.n_pixels}
        start = self.start
        assert start is not None  # only the published network has none
        return {
            "n_pixels": self.n_pixels,
            "depths": len(self.z_um),
            "voxels_per_lenslet": self.voxels_per_lenslet,
            "slopes": [round(v, 6) for v in self.slopes],
            **SIZES[self.size].arguments,
            **start_arguments(start),
        }

    @property
    def start(self) -> StartSettings | None:
        """What the network starts from; the published one has nothing."""
        if self.size == "paper":
            return None
        most = self.voxels_per_lenslet
        if self.n_pixels > LARGE_N:
            return IterationSettings(self.z_um, min(LARGE_START_VOXELS, most), LARGE_START_ITERATIONS)
        return InverseSettings(self.z_um, min(START_VOXELS, most), START_NOISE)

    def record(self) -> dict[str, Any]:
        """Return the plan JSON-ready, for the card."""
        out: dict[str, Any] = asdict(self)
        out["microscope"] = self.microscope.model_dump(mode="json")
        return dict(json.loads(json.dumps(out)))

    @property
    def slopes(self) -> list[float]:
        """Epipolar slopes that the network starts from: every plane, or 32 where there are more."""
        planes = np.asarray(self.z_um)
        if len(planes) > MOST_SLOPES:
            planes = np.linspace(planes[0], planes[-1], MOST_SLOPES)
        return [slope_at_depth(float(z), self.microscope, None, self.n_pixels) for z in planes]


def plan_of_record(record: Mapping[str, Any]) -> LfmnetPlan:
    """Return the plan that `LfmnetPlan.record` wrote down.

    Raises
    ------
    RequestError
        If it is of another version.
    """
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import OpticsError
    from napari_lfm.training.lightfield_pairs import PairSettings

    try:
        settings = dict(record["settings"])
        settings["families"] = tuple(settings["families"])
        settings["electrons"] = tuple(settings["electrons"])
        settings["errors"] = tuple(
            OpticsError(**{**error, "pupil": tuple(error["pupil"])}) for error in settings["errors"]
        )
        known = {f.name for f in fields(LfmnetPlan)}
        values: dict[str, Any] = {key: value for key, value in record.items() if key in known}
        values["microscope"] = Microscope.model_validate(record["microscope"])
        values["z_um"] = tuple(float(z) for z in record["z_um"])
        values["settings"] = PairSettings(**settings)
        return LfmnetPlan(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"The record of the training is not one of this version ({error}).", "Train into another folder."
        ) from None
