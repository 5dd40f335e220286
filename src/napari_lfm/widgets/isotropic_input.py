"""From what the user chose in the *Restore isotropic* panel to a request, or sentences why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ValidationError

from napari_lfm.core.problems import LfmError, Problem, explain_validation
from napari_lfm.methods.isotropic.method import Isotropic
from napari_lfm.methods.isotropic.parameters import IsotropicParameters
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve_stack import resolve_stack
from napari_lfm.widgets.state import ReconstructState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.core.problems import Estimate
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.widgets.state import LayerInfo

Blur = Literal["estimate", "microscope", "measured", "hand"]

_NO_STACK = Problem(
    "No stack is chosen.", "Drop your file above, or choose a layer.", severity="info", field="stack"
)
_NO_PSF = Problem(
    "No point spread function is chosen.", "Choose the layer or the file of a recorded bead.", field="psf"
)
_NO_OPTICS = Problem("No microscope is chosen.", "Choose yours, or another source of the blur.", field="blur")
_NO_BLUR = Problem("The blur along z is not entered.", "Enter it, or choose another source.", field="blur_um")


@dataclass(frozen=True)
class IsotropicChoice:
    """All that was chosen in the panel.

    Attributes
    ----------
    values : mapping
        Of the form of further settings, unchecked.
    stack : LayerInfo or None
    psf : LayerInfo or None
        A recorded point spread function.
    blur : {"estimate", "microscope", "measured", "hand"}
        Where the blur along z is taken from.
    blur_um : float
        By hand.
    microscope : Microscope or None
    minutes : float
        To train before the stack is restored; 0: the model as it is.
    model : str or None
        To begin with, or to restore with; ``none`` for random weights, None leaves it to the method.
    device : str
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    stack: LayerInfo | None = None
    psf: LayerInfo | None = None
    blur: Blur = "estimate"
    blur_um: float = 0.0
    microscope: Microscope | None = None
    minutes: float = 0.0
    model: str | None = None
    device: str = "auto"
    memory_gib: float | None = None


def resolve_isotropic(choice: IsotropicChoice) -> Request | list[Problem]:
    """Return the request that was chosen, or every problem that keeps it from being one."""
    if choice.stack is None:
        return [_NO_STACK]
    problems: list[Problem] = []
    if choice.blur == "measured" and choice.psf is None:
        problems.append(_NO_PSF)
    if choice.blur == "microscope" and choice.microscope is None:
        problems.append(_NO_OPTICS)
    if choice.blur == "hand" and not choice.blur_um > 0:
        problems.append(_NO_BLUR)
    values = {**choice.values, "train_minutes": choice.minutes}
    if choice.blur == "hand":
        values |= {"blur": "estimate", "blur_um": choice.blur_um}
    else:
        values |= {"blur": choice.blur, "blur_um": 0.0}
    try:
        parameters = IsotropicParameters.model_validate(values)
    except ValidationError as error:
        return [Problem("These settings do not go together.", explain_validation(error))]
    psf = choice.psf if choice.blur == "measured" else None
    layers = {layer.name: layer for layer in (choice.stack, psf) if layer is not None}
    state = ReconstructState(
        method=Isotropic.id,
        stack=choice.stack.name,
        psf="" if psf is None else psf.name,
        # another source leaves it out: what is open for light fields says nothing of this stack
        microscope=choice.microscope if choice.blur == "microscope" else None,
        device=choice.device,
        memory_gib=choice.memory_gib,
        model=choice.model,
    )
    request = resolve_stack(state, layers, parameters, flat_too=False)
    if isinstance(request, list):
        return [*request, *problems]
    return problems or request


@dataclass(frozen=True)
class IsotropicPlan:
    """What was found out about a request before it runs.

    Attributes
    ----------
    request : Request
    found : Understood or None
        What the stack was understood to be; None where it cannot be restored.
    problems : tuple of Problem
    estimate : Estimate or None
        Of restoring; None where it cannot run.
    device : str
    trains : bool
        Whether it could train first.
    restores : bool
        Whether it could restore with a model that there is.
    """

    request: Request
    found: Understood | None = None
    problems: tuple[Problem, ...] = ()
    estimate: Estimate | None = None
    device: str = "cpu"
    trains: bool = False
    restores: bool = False

    @property
    def asks(self) -> bool:
        """Whether the user is asked first: there is little to gain."""
        return self.found is not None and self.found.is_nearly_isotropic


def method() -> Method:
    """Return the method (worker thread: it brings torch with it)."""
    from napari_lfm.methods.base import get_method

    return get_method(Isotropic.id)


def plan_isotropic(request: Request) -> IsotropicPlan:
    """Return what restoring would do, with and without a training (worker thread).

    Parameters
    ----------
    request : Request
        With its minutes of training.
    """
    from napari_lfm.core.devices import pick_device
    from napari_lfm.methods.isotropic.plan import understood

    import_torch_gently()
    runner, parameters = method(), cast("IsotropicParameters", request.parameters)
    device = str(pick_device(request.device))
    try:
        found = understood(request.inputs["image"], parameters)
    except LfmError as error:
        return IsotropicPlan(request, problems=(error.problem(),), device=device)
    ready_made = replace(request, parameters=parameters.model_copy(update={"train_minutes": 0.0}))
    ways = {True: runner.check(request), False: runner.check(ready_made)}
    plan = IsotropicPlan(
        request,
        found,
        device=device,
        trains=_is_fine(ways[True]),
        restores=_is_fine(ways[False]),
    )
    # what is wrong with both is said once; that there is no model only where training will not do either
    shown = [] if plan.restores and not plan.trains else ways[True]
    if plan.restores:
        shown = [*shown, *(p for p in ways[False] if p not in shown)]
    plan = replace(plan, problems=tuple(shown))
    if not (plan.trains or plan.restores):
        return plan
    estimate = runner.estimate(ready_made)
    if plan.trains:
        estimate = replace(estimate, peak_bytes=max(estimate.peak_bytes, runner.estimate(request).peak_bytes))
    return replace(plan, estimate=estimate)


def look_for_blur(plan: IsotropicPlan) -> ChosenBlur:
    """Return the blur along z that a run would take, with its uncertainty (worker thread)."""
    from napari_lfm.methods.isotropic.blur import choose_blur
    from napari_lfm.methods.isotropic.plan import frame_of

    import_torch_gently()
    request = plan.request
    assert plan.found is not None
    parameters: Any = request.parameters
    stack = frame_of(request.inputs["image"], plan.found.info.frames // 2)
    return choose_blur(stack, plan.found, parameters, request.microscope, request.inputs.get("psf"))


def _is_fine(problems: list[Problem]) -> bool:
    return all(p.severity != "error" for p in problems)
