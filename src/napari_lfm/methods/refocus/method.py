"""``refocus``: one wide-field image, or every frame of a movie, onto any surface by a trained network."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from napari_lfm.core.devices import is_out_of_memory
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.refocus.parameters import RefocusParameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from napari_lfm.methods.base import InputKind, Request
    from napari_lfm.methods.refocus.course import Course
    from napari_lfm.methods.refocus.plan import RefocusPlan
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.fit import Fit
    from napari_lfm.optics.microscope import Microscope


class Refocus:
    """Other planes and surfaces from one wide-field image, by a network that knows the defocus."""

    id: ClassVar[str] = "refocus"
    title: ClassVar[str] = "Virtual refocusing"
    summary: ClassVar[str] = (
        "Brings one wide-field image, or a movie, into focus on another plane, a stack of them, a tilted or "
        "a curved surface, with a trained network; also as a confocal-like image. Says where not to trust it."
    )
    input_kind: ClassVar[InputKind] = "image"
    makes: ClassVar[str] = "surface"
    Parameters: ClassVar[type[RefocusParameters]] = RefocusParameters
    needs_model: ClassVar[bool] = True

    def complete(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return the request with the model that it leaves out, and with what its files say."""
        from napari_lfm.methods.refocus.plan import choose_refocus_model
        from napari_lfm.methods.refocus.wish import with_files

        request = with_files(request)
        if request.model:
            return request, []
        try:
            entry = choose_refocus_model(request, self.id)
        except RequestError:
            return request, []
        return replace(request, model=entry.card.id), []

    def fit_card(
        self, card: ModelCard, microscope: Microscope | None, voxel_um: float | tuple[float, ...] | None
    ) -> Fit:
        """Return how a model suits a recording; of several sizes the last one is the pixel's."""
        from napari_lfm.networks.refocus_fit import check_refocus_card, pixel_of

        if voxel_um is None:
            pixel = pixel_of(card)
        else:
            pixel = float(voxel_um if isinstance(voxel_um, int | float) else voxel_um[-1])
        return check_refocus_card(card, pixel, microscope)

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.refocus.plan import check_request

        return check_request(request, self.id)

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        from napari_lfm.methods.refocus.plan import make_plan

        return make_plan(request, self.id).estimate(request.inputs["image"])

    def run(self, request: Request) -> Iterator[Event]:
        """Refocus frame by frame; yields a Preview after every frame of a movie."""
        from napari_lfm.methods.refocus.plan import make_plan
        from napari_lfm.methods.refocus.wish import with_files

        request = with_files(request)
        raise_for(self.check(request))
        plan = make_plan(request, self.id)
        for note in plan.notes:
            yield Progress(0, 1, note)
        try:
            yield from self._frames(request, plan)
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if plan.device == "cpu":
            raise RequestError("The memory is not enough for this image.", "Crop it.")
        yield Progress(0, 1, f"The {plan.device} device is out of memory; going on on the CPU")
        request = replace(request, device="cpu")
        yield from self._frames(request, make_plan(request, self.id))

    def _frames(self, request: Request, plan: RefocusPlan) -> Iterator[Event]:
        from napari_lfm.core.devices import pick_device
        from napari_lfm.methods.refocus.course import Course, levels_of
        from napari_lfm.networks.registry import open_network

        started = time.perf_counter()
        yield Progress(0, 1, f"Opening the model '{plan.entry.card.id}'")
        network: Any = open_network(plan.entry, pick_device(plan.device))
        course = Course(plan, request.parameters, request.inputs["image"])  # type: ignore[arg-type]
        levels: dict[int, Any] = {}
        count = plan.frames * plan.channels
        for number in range(count):
            t, c = divmod(number, plan.channels)
            frame, where = course.frame(t, c), course.place(t, c)
            if c not in levels:  # the first frame's, so that brightness does not flicker
                levels[c] = levels_of(frame, plan)
                if levels[c] is None:
                    levels.pop(c)
            if c not in levels or float(frame.min()) == float(frame.max()):
                note = f"All of one brightness{where}: it stays dark"
                course.notes.append(note)
                yield Progress(number + 1, count, note)
                continue
            yield from self._one(request, course, network, frame, levels[c], (t, c), started)
            if number + 1 < count:
                left = (time.perf_counter() - started) / (number + 1) * (count - 1 - number)
                progress = Progress(number + 1, count, f"Refocused{where}", seconds_left=left)
                yield Preview(course.primary, course.part(number), progress, provenance=_model_record(plan))
        yield self._result(request, course, started)

    def _one(
        self,
        request: Request,
        course: Course,
        network: Any,
        frame: np.ndarray,
        levels: Any,
        at: tuple[int, int],
        started: float,
    ) -> Iterator[Event]:
        from napari_lfm.methods.refocus.opening import open_refocuser

        plan = course.plan
        opened = open_refocuser(
            frame,
            plan.pixels.pixel_um,
            plan.entry,
            request.microscope,
            plan.device,
            levels,
            network,
            course.parameters.precision,
            course.parameters.rounds,
        )
        number, count = at[0] * plan.channels + at[1], plan.frames * plan.channels
        for done, total, said in course.take(opened.refocuser, at):
            spent = time.perf_counter() - started
            share = (number + done / max(1, total)) / count
            left = spent / share * (1 - share) if share > 0.02 else None
            yield Progress(number * total + done, count * total, said + course.place(*at), seconds_left=left)

    def _result(self, request: Request, course: Course, started: float) -> Result:
        from napari_lfm.io.provenance import make_provenance
        from napari_lfm.methods.refocus.plan import beyond_sentence

        plan = course.plan
        notes = [*plan.notes, *course.notes]
        if plan.beyond_share:
            notes.append(beyond_sentence(plan))
        figures: dict[str, Any] = {
            "pixel_um": plan.pixels.result_pixel_um,
            "beyond_share": plan.beyond_share,
            "range_um": plan.domain.range_um,
            "notes": notes,
            "seconds": time.perf_counter() - started,
        }
        if course.shares:
            figures["consistency_shares"] = course.shares
        provenance = make_provenance(
            method=self.id,
            parameters=request.parameters,
            inputs=request.inputs,
            sources=request.sources,
            microscope=None if request.microscope is None else request.microscope.model_dump(mode="json"),
            **_model_record(plan),
            device=plan.device,
            memory_gib=request.memory_gib,
            layout=request.layout,
            input_kind="image",
            figures=figures,
        )
        outputs = course.outputs()
        for image in outputs.values():
            image.attrs["provenance"] = provenance
        return Result(outputs, course.primary, provenance)


def _model_record(plan: RefocusPlan) -> dict[str, Any]:
    """Return what the record of a result, or of a preview that is kept, says of the model."""
    from napari_lfm.methods.chosen_model import describe_model

    return {"model": describe_model(plan.entry)}
