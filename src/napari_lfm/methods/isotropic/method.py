"""``isotropic``: a stack as fine along z as across, by a network that has learnt from the stack itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.isotropic.parameters import IsotropicParameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.core.events import Event
    from napari_lfm.methods.base import InputKind, Request
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.fit import Fit
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.training.events import Validated


class Isotropic:
    """Isotropic restoration: what slices along z would show if z were resolved as x and y are."""

    id: ClassVar[str] = "isotropic"
    title: ClassVar[str] = "Isotropic restoration"
    summary: ClassVar[str] = (
        "Makes a stack that is coarser along z as fine there as it is across, with a network that has learnt "
        "from the stack's own planes how its structures look. Says how far the recording bears it out."
    )
    input_kind: ClassVar[InputKind] = "stack"
    takes_flat_images: ClassVar[bool] = False
    makes: ClassVar[str] = "isotropic stack"
    Parameters: ClassVar[type[IsotropicParameters]] = IsotropicParameters
    needs_model: ClassVar[bool] = True

    def complete(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return the request with the model and the source of the blur that it leaves out."""
        from napari_lfm.methods.isotropic.course import parameters_of
        from napari_lfm.methods.isotropic.plan import understood
        from napari_lfm.methods.isotropic.start import named_model, usual_model
        from napari_lfm.networks.isotropic_published import is_care

        p = parameters_of(request)
        if "psf" in request.inputs and not {"blur", "blur_um"} & p.model_fields_set:
            # whoever hands over a point spread function wants it to be used
            request = replace(request, parameters=p.model_copy(update={"blur": "measured"}))
        try:
            if request.model:
                if is_care(request.model):  # it is among the user's models from now on
                    entry = named_model(request.model)
                    assert entry is not None
                    request = replace(request, model=entry.card.id)
                return request, []
            entry = usual_model(understood(request.inputs["image"], p).factor)
        except RequestError:
            return request, []
        if entry is not None and not p.trains:
            request = replace(request, model=entry.card.id)
        return request, []

    def fit_card(
        self, card: ModelCard, microscope: Microscope | None, voxel_um: float | tuple[float, ...] | None
    ) -> Fit:
        """Return how a model suits a recording, by how far its planes are apart."""
        from napari_lfm.networks.isotropic_fit import check_isotropic_card, factor_of

        if voxel_um is None or isinstance(voxel_um, int | float):
            return check_isotropic_card(card, factor_of(card) or 1.0)
        return check_isotropic_card(card, voxel_um[0] / voxel_um[-1])

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.isotropic.check import check_request

        return check_request(request)

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        from napari_lfm.methods.isotropic.check import estimate_request

        return estimate_request(request)

    def run(self, request: Request) -> Iterator[Event]:
        """Train where it is asked for, and restore; yields a Preview for every frame."""
        from napari_lfm.methods.isotropic.job import restore_after_training
        from napari_lfm.training import events

        raise_for(self.check(request))
        for event in restore_after_training(request):
            if isinstance(event, events.Validated):
                yield _said(event)
            elif isinstance(event, Progress) and event.message == "Training":
                # of what a panel plots, a line of text has room for one
                loss = {k: v for k, v in event.values.items() if k == "loss"}
                yield replace(event, message=f"Training, step {event.step}", values=loss)
            elif isinstance(event, Progress | Preview | Result):
                yield event


def _said(event: Validated) -> Progress:
    """Return a validation in words."""
    found = event.values
    text = (
        f"Planes that were set aside: {found['psnr_db']:.2f} dB restored, "
        f"{found['input_psnr_db']:.2f} dB interpolated"
    )
    return Progress(event.step, event.progress.total, text, event.progress.seconds_left)
