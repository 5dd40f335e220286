"""What one run of refocusing makes: outputs, filled frame by frame, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.focus import ExtendedFocus, extended_focus
from napari_lfm.methods.refocus.physical import deconvolved, deconvolved_surface
from napari_lfm.methods.refocus.residual import Consistency, consistency
from napari_lfm.methods.refocus.tiles import Slices, parts_of
from napari_lfm.networks.stack_scale import stack_levels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from napari_lfm.methods.refocus.engine import Refocused, Refocuser
    from napari_lfm.methods.refocus.parameters import RefocusParameters
    from napari_lfm.methods.refocus.plan import RefocusPlan
    from napari_lfm.networks.stack_scale import StackLevels

Step = tuple[int, int, str]
_ALL: Slices = (slice(None), slice(None))


def levels_of(frame: np.ndarray, plan: RefocusPlan) -> StackLevels | None:
    """Return the grey values that become 0 and 1, None of a frame of one brightness."""
    try:
        if plan.is_published:
            from napari_lfm.methods.refocus.published import published_levels

            return published_levels(frame)
        return stack_levels(frame, plan.domain.low_percentile, plan.domain.high_percentile)
    except RequestError:
        return None


class Course:
    """Outputs of a run.

    Parameters
    ----------
    plan : RefocusPlan
    parameters : RefocusParameters
    image : xarray.DataArray
    """

    def __init__(self, plan: RefocusPlan, parameters: RefocusParameters, image: xr.DataArray) -> None:
        self.plan, self.parameters = plan, parameters
        self.image = image.isel(z=0, drop=True) if "z" in image.dims else image
        self.notes: list[str] = []
        self.shares: list[float] = []
        self._made: dict[str, np.ndarray] = {}

    @property
    def primary(self) -> str:
        """Name of the output that matters most."""
        if self.parameters.surface == "extended-focus":
            return "extended-focus"
        return "refocused" if self.plan.widefield else "confocal-like"

    def frame(self, t: int, c: int) -> np.ndarray:
        """Return one image (y, x), in its own type.

        Raises
        ------
        RequestError
            If there are values that are no numbers.
        """
        chosen = self.image.isel({d: k for d, k in (("t", t), ("c", c)) if d in self.image.dims})
        out = np.asarray(chosen.transpose("y", "x").data)
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            raise RequestError(
                f"There are pixels that are NaN or infinite{self.place(t, c)}.",
                "Replace them, or leave the frame out.",
            )
        return out

    def place(self, t: int, c: int) -> str:
        """Return which frame and channel that is, in words, nothing where there is one only."""
        words = [
            f"{name} {k + 1} of {n}"
            for name, k, n in (("frame", t, self.plan.frames), ("channel", c, self.plan.channels))
            if n > 1
        ]
        return ", " + ", ".join(words) if words else ""

    def take(self, refocuser: Refocuser, at: tuple[int, int]) -> Iterator[Step]:
        """Refocus one image and keep what is made; yields (done, all, what)."""
        drift = float(self.plan.drift_um[at[0]])
        if self.parameters.surface == "extended-focus":
            yield from self._extended(refocuser, at, drift)
        elif self.plan.is_stack:
            yield from self._stack(refocuser, at, drift)
        else:
            self._surface(refocuser, at, self.plan.heights + np.float32(drift))
            yield 1, 1, "Refocused"
        if self.parameters.check_consistency:
            for event in consistency(refocuser):
                if isinstance(event, Consistency):
                    self._keep("residual", event.residual, at)
                    self._keep("doubt", event.doubt, at)
                    self._keep("guessed", event.guessed, at)
                    self.shares.append(event.share)
                else:
                    yield event.step, event.total, event.message
        refocuser.forget()

    def _surface(self, refocuser: Refocuser, at: tuple[int, int], heights: np.ndarray) -> None:
        self._keep_heads(refocuser.surface(heights), at)
        if heights.size > 1 and at[1] == 0:
            self._keep("height", heights, at)
        if self.parameters.compare != "none":
            kind, iterations = self.parameters.compare, self.parameters.iterations
            self._keep(kind, deconvolved_surface(refocuser, heights, kind, iterations), at)

    def _stack(self, refocuser: Refocuser, at: tuple[int, int], drift: float) -> Iterator[Step]:
        parts, z_um = parts_of(refocuser.shape), self.plan.z_um
        total = len(parts) * len(z_um)
        for number, (region, where, _) in enumerate(parts):
            for k, z in enumerate(z_um):
                made = refocuser.plane(float(z + drift), region)
                self._keep_heads(made, at, k, where)
                yield number * len(z_um) + k + 1, total, f"Plane at {z + drift:+.3g} um"
        if self.parameters.compare != "none":
            kind, iterations = self.parameters.compare, self.parameters.iterations
            for k, z in enumerate(z_um):
                self._keep(kind, deconvolved(refocuser, float(z + drift), kind, iterations), at, k)
                yield total, total, f"Deconvolution at {z + drift:+.3g} um"

    def _keep_heads(
        self, made: Refocused, at: tuple[int, int], plane: int | None = None, where: Slices = _ALL
    ) -> None:
        if self.plan.widefield:
            self._keep("refocused", made.widefield, at, plane, where)
        if self.plan.confocal:
            self._keep("confocal-like", made.confocal, at, plane, where)
        if self.plan.beyond_share:
            self._keep("beyond", made.beyond, at, plane, where)

    def _extended(self, refocuser: Refocuser, at: tuple[int, int], drift: float) -> Iterator[Step]:
        head: Any = "confocal" if self.plan.confocal else "widefield"
        for event in extended_focus(refocuser, [float(z + drift) for z in self.plan.z_um], head):
            if isinstance(event, ExtendedFocus):
                self._keep("extended-focus", event.image, at)
                self._keep("height", event.height_um, at)
                self._keep("certainty", event.certainty, at)
                if self.plan.beyond_share:
                    beyond = np.abs(event.height_um) > self.plan.domain.range_um
                    self._keep("beyond", beyond, at)
                if self.parameters.compare != "none":
                    kind, iterations = self.parameters.compare, self.parameters.iterations
                    made = deconvolved_surface(refocuser, event.height_um, kind, iterations)
                    self._keep(kind, made, at)
            else:
                yield event.step, event.total, event.message

    # -- where it goes ----------------------------------------------------------------------

    def _keep(
        self,
        name: str,
        values: np.ndarray,
        at: tuple[int, int],
        plane: int | None = None,
        where: Slices = _ALL,
    ) -> None:
        if name not in self._made:
            planes = 1 if plane is None else len(self.plan.z_um)
            shape = (self.plan.frames, self.plan.channels, planes, *self.plan.pixels.result_shape)
            self._made[name] = np.zeros(shape, bool if values.dtype == bool else np.float32)
        self._made[name][at][plane or 0][where] = values

    def outputs(self) -> dict[str, xr.DataArray]:
        """Return all that was made, the primary output first."""
        if self.primary not in self._made:
            raise RequestError(
                "Every frame is of one brightness: there is nothing to refocus.", "Check the file."
            )
        names = [self.primary, *(n for n in self._made if n != self.primary)]
        return {name: self._labelled(name, self._made[name]) for name in names}

    def part(self, number: int) -> xr.DataArray:
        """Return the primary output up to an image, as far as it goes."""
        t, c = divmod(number, self.plan.channels)
        values = self._made.get(self.primary)
        if values is None:
            values = np.zeros((1, 1, 1, *self.plan.pixels.result_shape), np.float32)
        return self._labelled(self.primary, values[: t + 1] if self.plan.frames > 1 else values[:, : c + 1])

    def _labelled(self, name: str, values: np.ndarray) -> xr.DataArray:
        """Return values (t, c, z, y, x) as an image that lies where the input does."""
        plan, image = self.plan, self.image
        has_z = plan.is_stack and name not in ("residual", "doubt", "guessed")
        dims = [*(d for d in ("t", "c") if d in image.dims), *("z" if has_z else ""), "y", "x"]
        sizes = dict(zip("tczyx", values.shape, strict=True))
        spacing, origin = spacing_of(image), origin_of(image)
        for d in "yx":
            sign = -1.0 if spacing.get(d, 1.0) < 0 else 1.0
            spacing[d] = (
                sign * plan.pixels.result_pixel_um
                if plan.pixels.factor != 1
                else spacing.get(d, plan.pixels.pixel_um)
            )
        if has_z:
            z = plan.z_um
            spacing["z"] = float(z[1] - z[0]) if len(z) > 1 else plan.domain.step_um
            origin["z"] = float(z[0])
        spacing = {d: s for d, s in spacing.items() if d in dims}
        out = labelled(values.reshape([sizes[d] for d in dims]), dims, spacing, origin, name)
        for d in ("t", "c", "y", "x") if plan.pixels.factor == 1 else ("t", "c"):
            if d in image.coords and d in dims:
                out = out.assign_coords({d: image.coords[d][: sizes[d]]})
        if "affine_um" in image.attrs and not has_z and plan.pixels.factor == 1:
            out.attrs["affine_um"] = image.attrs["affine_um"]
        return out
