"""What the plans of all trainings have in common: figures, a name, an earlier training. No Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from napari_lfm.core.problems import LfmError, Problem, RequestError, explain_validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_lfm.training.events import TrainResult

FITTING = "(the bundled one that fits)"
"""What a training can start from, beside `NOTHING` and a model's id."""
NOTHING = ""

MostSteps = Annotated[
    int | None,
    Field(
        ge=1,
        le=100_000_000,
        description="End after so many steps, if that is before the minutes are over.",
        json_schema_extra={"advanced": True, "none_text": "as many as the minutes allow"},
    ),
]


@dataclass(frozen=True)
class Earlier:
    """A training that was begun before, maybe in another session.

    Attributes
    ----------
    wish : TrainWish, WfconWish or the like
    result : TrainResult or None
        How far it came; None where it made no checkpoint.
    """

    wish: Any
    result: TrainResult | None


@dataclass(frozen=True)
class CommonPlan:
    """A training that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings : BaseModel
        The form's values, checked.
    wish : TrainWish, WfconWish or the like
        None where it cannot start.
    layers : tuple
        Stacks or pairs for the wish, each with a ``name``, where they are layers of the viewer.
    problems : tuple of Problem
    estimate : TrainingEstimate or the like
        What it takes, in ``sentences``; None where it cannot start.
    model_id : str
        Name in the list of models.
    earlier : Earlier or None
        The training that has this name already.
    """

    settings: Any
    wish: Any = None
    layers: tuple[Any, ...] = ()
    problems: tuple[Problem, ...] = ()
    estimate: Any = None
    model_id: str = ""
    earlier: Earlier | None = None


Plan = TypeVar("Plan", bound=CommonPlan)


def slug(name: str) -> str:
    """Return a text as the name of a model.

    Examples
    --------
    >>> slug("My zebrafish, 20x/0.5")
    'My-zebrafish-20x-0.5'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:79].rstrip("-.")


def wrong_figures(error: ValidationError) -> Problem:
    """Return what is wrong with the form's values."""
    return Problem("These figures do not make a training.", explain_validation(error))


def nothing_chosen(message: str, remedy: str, field: str) -> Problem:
    """Return that the user's data are still to come."""
    return Problem(message, remedy, severity="info", field=field)


def begun_plan(
    kind: type[Plan], settings: type[BaseModel], values: Mapping[str, Any], missing: Problem | None
) -> Plan:
    """Return a plan with the form's values, or with problems where they are wrong or data are missing."""
    try:
        plan = kind(settings.model_validate(dict(values)))
    except ValidationError as error:
        return kind(settings(), problems=(wrong_figures(error),))
    return plan if missing is None else replace(plan, problems=(missing,))


def validation_pause_s(minutes: float, most_s: float) -> float:
    """Return the time between validations."""
    # the slices are to be seen a few times, also in a short training
    return min(most_s, max(10.0, 60 * minutes / 20))


def with_id(wish: Any, name: str, usual_id: Callable[[Any], str]) -> Any:
    """Return the wish with the name that was typed as its id, else with a free one (worker thread)."""
    from napari_lfm.methods.train_jobs import free_id

    return wish.model_copy(update={"id": slug(name) or free_id(usual_id(wish))})


def earlier_of(name: str, read_wish: Callable[[Path], Any]) -> Earlier | None:
    """Return the training of this name, None where there is none (worker thread).

    Parameters
    ----------
    name : str
    read_wish : callable
        Returns what the training in a folder was asked for.

    Raises
    ------
    RequestError
        If there is one that cannot be read, or of another network.
    """
    from napari_lfm.methods.train_jobs import RECORD, training_folder
    from napari_lfm.training.checkpoint import LAST
    from napari_lfm.training.outcome import read_result

    folder = training_folder(name)
    if not (folder / RECORD).is_file():
        return None
    try:
        wish = read_wish(folder).model_copy(update={"id": name})
        return Earlier(wish, read_result(folder) if (folder / LAST).is_file() else None)
    except LfmError:
        raise RequestError(
            f"There is a training '{name}' already, of another network or not readable.",
            "Type another name.",
        ) from None


def with_taken_name(plan: Plan, earlier: Earlier, missing: str = "", remedy: str = "") -> Plan:
    """Return a plan that says that there is a training of its name already.

    Parameters
    ----------
    plan : CommonPlan
    earlier : Earlier
    missing, remedy : str
        That layers, ``{}``, which it was on are not chosen now, and how they are brought.
    """
    head = f"There is a training '{plan.model_id}' already"
    lacking = {*getattr(earlier.wish, "layers", ())} - {layer.name for layer in plan.layers}
    if lacking:
        need = ", ".join(f"'{name}'" for name in sorted(lacking))
        remedy = f"{remedy}, or type another name."
        problem = Problem(f"{head}, {missing.format(need)}.", remedy, severity="warning", field="name")
        return replace(plan, problems=(problem,))
    remedy = "Continue goes on with it as it was; for another one, type another name."
    problem = Problem(f"{head}.", remedy, severity="info", field="name")
    return replace(plan, problems=(problem,), earlier=earlier)


def checked(plan: Plan, wish: Any, problems: Sequence[Problem], estimate: Callable[[], Any]) -> Plan:
    """Return the plan with what was found about the wish, and, if it can start, with it and its estimate."""
    plan = replace(plan, problems=tuple(problems))
    if any(p.severity == "error" for p in problems):
        return plan
    return replace(plan, wish=wish, estimate=estimate())
