"""One light field made ready for questions: all its points, the neuron under a click, what a point rests on.

Rectifying, taking the background off and opening the network take a second; a click takes milliseconds. So
all that stays the same while a user clicks and moves thresholds is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.epipolar import Seeds, brightest_one, central_view, epipolar_windows
from napari_lfm.methods.localization.look import Look, look_at
from napari_lfm.methods.localization.points import DIRECTIONS
from napari_lfm.methods.localization.setup import make_joint, make_localizer
from napari_lfm.methods.localization.table import lenslets_at, place_um

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.methods.localization.joint import Ground, JointLocalizer
    from napari_lfm.methods.localization.points import Found, Localizer
    from napari_lfm.methods.localization.refit import JointFit
    from napari_lfm.networks.registry import ModelEntry

SNAP_LENSLETS = 2
"""A click means the brightest lenslet this near to it."""


@dataclass(frozen=True)
class Grounds:
    """What one point rests on.

    Attributes
    ----------
    images : dict of str to ndarray, shape (views, lenslets)
        Epipolar images along x and y through the point, brightest pixel 1; its lenslet is in the middle.
    slope : float
        Lenslets per view of its line.
    offset : dict of str to float
        Lenslets from the middle at which the line crosses the central view.
    z_um, curve : ndarray, shape (depths,)
        The depth curve.
    """

    images: dict[str, np.ndarray]
    slope: float
    offset: dict[str, float]
    z_um: np.ndarray
    curve: np.ndarray


@dataclass
class Together:
    """What fits points together, the light field without its background, and the fit so far."""

    joint: JointLocalizer
    ground: Ground
    fit: JointFit


@dataclass
class LocalizeEngine:
    """A light field with what finds its points.

    Attributes
    ----------
    data : LightfieldData
    look : Look
        The views that points are looked for in.
    foreground : ndarray, shape (v, u, t, s)
    localizer : Localizer
    together : Together, optional
        Where points are fitted to the light field together.
    last : Found, optional
        What was detected last.
    """

    data: LightfieldData
    look: Look
    foreground: np.ndarray
    localizer: Localizer
    together: Together | None = None
    last: Found | None = None

    @classmethod
    def prepare(
        cls, request: Request, data: LightfieldData, entry: ModelEntry | None, movie: str
    ) -> Generator[Progress, None, LocalizeEngine]:
        """Make a light field ready, yielding what is being done."""
        look = look_at(data, movie)
        yield Progress(0, 1, f"Looking for neurons in {look.kind}")
        localizer = yield from make_localizer(request, data.microscope, data.n_pixels, entry)
        parameters: Any = request.parameters
        if parameters.fit == "none":
            yield Progress(0, 1, "Taking off the background")
            return cls(data, look, localizer.foreground(look.views), localizer)
        joint = yield from make_joint(localizer, data.microscope, data.n_pixels, entry)
        yield Progress(0, 1, "Taking off the background")
        ground = joint.ground(look.views)
        return cls(data, look, ground.foreground, localizer, Together(joint, ground, joint.new_fit(ground)))

    def seeds(self) -> Seeds:
        """Return what stands out in the central view."""
        return self.localizer.seeds(self.foreground)

    def detect_steps(self) -> Iterator[Progress]:
        """Find all points, yielding how far it is; `found` has them then."""
        if self.together is None:
            seeds = self.seeds()
            yield Progress(0, 1, f"Reading the depths of {len(seeds)} places")
            self.last = self.localizer.at(self.foreground, seeds)
            return
        one = self.together
        one.fit = one.joint.new_fit(one.ground)
        yield Progress(0, 0, f"Reading the depths of {len(self.seeds())} places")
        for count in one.joint.steps(one.ground, one.fit):
            yield Progress(0, 0, f"Fitting {count} neurons to the light field")
        self.last = one.joint.found(one.ground, one.fit)

    def found(self) -> Found:
        """Return all points that were found last."""
        return self.none() if self.last is None else self.last

    def detect(self) -> Found:
        """Find and return all points."""
        for _ in self.detect_steps():
            pass
        return self.found()

    def none(self) -> Found:
        """Return no points."""
        return self.localizer.at(self.foreground, Seeds(*(np.zeros(0),) * 3))

    def at(self, y_um: float, x_um: float) -> Found:
        """Return the neurons under a place of the world: those that the central view shows there.

        A place in a volume is seen in the central view straight above or below, so its depth does not matter.

        Raises
        ------
        RequestError
            If the place lies outside the field, or nothing but background is there.
        """
        t, s = (float(v[0]) for v in lenslets_at(self.data, np.array([y_um]), np.array([x_um])))
        view = central_view(self.foreground)
        rows, columns = view.shape
        if not (-0.5 <= t <= rows - 0.5 and -0.5 <= s <= columns - 0.5):
            raise RequestError("This place lies outside the light field.", "Click on the light field.")
        near = _near(t, rows), _near(s, columns)
        part = view[near]
        if float(part.max()) <= 0:
            raise RequestError(
                "There is nothing but background here.", "Click on something bright in the central view."
            )
        row, column = np.unravel_index(int(part.argmax()), part.shape)
        at_t, at_s = near[0].start + float(row), near[1].start + float(column)
        seeds = Seeds(np.array([at_t]), np.array([at_s]), np.array([float(part.max())]))
        if self.together is None:
            return self.localizer.at(self.foreground, seeds)
        return self.together.joint.at(self.together.ground, self.together.fit, seeds)

    def grounds(self, z_um: float, y_um: float, x_um: float) -> Grounds:
        """Return what a point of the world rests on: found, moved or added by hand."""
        t, s = (float(v[0]) for v in lenslets_at(self.data, np.array([y_um]), np.array([x_um])))
        half = self.localizer.finder.half
        places = np.array([t]), np.array([s])
        images: dict[str, np.ndarray] = {
            way: brightest_one(epipolar_windows(self.foreground, *places, half, way))[0][0]
            for way in DIRECTIONS
        }
        evidence = self.localizer.evidence(self.foreground, *places, np.array([z_um]))
        return Grounds(
            images,
            self.localizer.slope_per_um * z_um,
            {"x": s - round(s), "y": t - round(t)},
            self.localizer.finder.z_um,
            self.localizer.finder.curve(evidence)[0],
        )

    @property
    def frames(self) -> int:
        """Frames of the movie; 1 of a light field."""
        return len(self.data.rectified.image)

    def traces_at(self, places: np.ndarray) -> Generator[Progress, None, np.ndarray]:
        """Read the light (frames, n) of neurons at places (n, 3) of the world, (z, y, x) um."""
        from napari_lfm.methods.localization.movie import read_traces

        t, s = lenslets_at(self.data, places[:, 1], places[:, 2])
        return (
            yield from read_traces(
                self.data,
                places[:, 0],
                t,
                s,
                self.localizer.options.diameter_um,
                self.localizer.options.purify,
            )
        )

    def places(self, found: Found) -> np.ndarray:
        """Return points (n, 3) in the world, (z, y, x) um."""
        y, x = place_um(self.data, found.t, found.s)
        return np.stack([found.z_um, y, x], 1)


def _near(at: float, count: int) -> slice:
    middle = min(max(round(at), 0), count - 1)
    return slice(max(0, middle - SNAP_LENSLETS), middle + SNAP_LENSLETS + 1)
