"""Which trained model restores a stack, or is gone on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.networks.catalogue import find_model, list_models
from napari_lfm.networks.isotropic_fit import check_isotropic_card, factor_of, resampling_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.networks.catalogue import ModelEntry

METHOD = "isotropic"
NO_START = "none"
"""In the place of a model: random weights, to be trained."""


def usual_model(factor: float = 0.0) -> ModelEntry | None:
    """Return the bundled model that suits a stack best, None where there is none.

    Parameters
    ----------
    factor : float
        Distance of the stack's planes, lateral pixels; 0: not known.
    """
    here = [e for e in list_models(METHOD) if e.source == "bundled" and not e.problem]

    def rank(entry: ModelEntry) -> tuple[bool, bool, tuple[bool, bool, float, str]]:
        suits = factor == 0 or check_isotropic_card(entry.card, factor).verdict == "matches"
        # of those that suit, one for just this distance goes before one for any
        return suits, factor > 0 and factor_of(entry.card) > 0, entry.preference

    return max(here, key=rank, default=None)


def named_model(model: str | Path, imports: bool = True) -> ModelEntry | None:
    """Return a model by its id or folder; a CSBDeep model is imported first.

    Parameters
    ----------
    model : str or Path
    imports : bool
        False: a CSBDeep model that was not imported yet is only looked at, and None returned.

    Raises
    ------
    RequestError
        If there is none, it is broken, or for another method.
    """
    from napari_lfm.networks.isotropic_published import care_entry, imported_care, is_care

    # an id is one even where a folder has the same name
    known = any(str(model).lower() in (e.card.id.lower(), e.folder.name.lower()) for e in list_models())
    if not known and is_care(model):
        return care_entry(model) if imports else imported_care(model)
    entry = find_model(model, METHOD)
    if entry.problem:
        raise RequestError(f"The model '{model}' cannot be used: {entry.problem}")
    return entry


def chosen_model(model: str | None, factor: float, imports: bool = True) -> ModelEntry | None:
    """Return the model that is named, else the bundled one that suits best.

    Parameters
    ----------
    model : str, optional
    factor : float
    imports : bool
        As for `named_model`.

    Raises
    ------
    RequestError
        If there is none.
    """
    if model and model != NO_START:
        return named_model(model, imports)
    entry = None if model else usual_model(factor)
    if entry is None:
        none = "No model is wanted" if model else "There is no model for isotropic restoration here"
        raise RequestError(
            f"{none}, and none is trained.",
            "Train one on this very stack: set train_minutes, to 5 for example.",
        )
    return entry


def channels_of(entry: ModelEntry) -> int:
    """Return how many channels a model restores together."""
    value = entry.card.network.get("channels", 1)
    return value if isinstance(value, int) else 1


def model_resampling(model: str | None, factor: float) -> Literal["modern", "csbdeep"]:
    """Return how a model's slices come to square pixels; the usual way where there is no such model."""
    try:
        entry = chosen_model(model, factor, imports=False)
    except RequestError:
        return "modern"
    # what was looked at only is CSBDeep's
    return "csbdeep" if entry is None else resampling_of(entry.card)


def model_problems(entry: ModelEntry, factor: float, channels: int) -> list[Problem]:
    """Return whether a model suits a stack.

    Parameters
    ----------
    entry : ModelEntry
    factor : float
        Distance of the stack's planes, lateral pixels.
    channels : int
        Of the stack.
    """
    takes = channels_of(entry)
    if takes not in (1, channels):
        return [
            Problem(
                f"The model '{entry.card.id}' restores {takes} channels together, and the stack has "
                f"{channels}.",
                "Choose a model of one channel, which takes them one by one, or train one.",
                field="model",
            )
        ]
    fit = check_isotropic_card(entry.card, factor)
    if not fit.reasons:
        return []
    remedy = "Look at the residual; a training on this stack, from this model, mends it."
    return [
        Problem(
            f"The model '{entry.card.id}' fits roughly. {' '.join(fit.reasons)}", remedy, "warning", "model"
        )
    ]
