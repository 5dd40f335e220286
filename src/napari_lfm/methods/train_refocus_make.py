"""From what is said of a training of refocusing to a whole wish: files, start and the usual fill it in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.methods.refocus.card import domain_of
from napari_lfm.methods.refocus.own_stacks import sizes_of_files
from napari_lfm.methods.train_refocus_plan import NETWORK
from napari_lfm.methods.train_refocus_wish import OPTICS, RefocusSpread, RefocusTuning, RefocusWish
from napari_lfm.methods.train_wish import refuse_unknown
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.optics.microscope import Microscope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.networks.catalogue import ModelEntry

OBJECTIVES: dict[str, dict[str, Any]] = {
    "20x/0.8 air": {"na": 0.8, "pixel_um": 0.325, "step_um": 0.5, "range_um": 10.0},
    "40x/1.3 oil": {
        "na": 1.3,
        "immersion_index": 1.515,
        "sample_index": 1.38,
        "depth_um": 7.0,
        "pixel_um": 0.1625,
        "step_um": 0.135,
        "range_um": 2.7,
        "spread": {"depth_um": (4.0, 10.0), "sample_index": (1.36, 1.40), "na_share": 0.05},
    },
}
"""Those of the models that come with the package, as entries of a wish."""
_RANGE_UM, _DEPTH_OF_FIELD_UM = 10.0, 0.9375
"""Of the 20x/0.8 model: other objectives get as many depths of field."""
_MOST_RATIO = 2.0
"""Up to which a model's aperture, pixels and immersion are near enough to go on from it."""


def make_refocus_wish(values: Mapping[str, Any]) -> RefocusWish:
    """Return a checked wish in which everything is said that the training depends on.

    Parameters
    ----------
    values : mapping
        Entries of `RefocusWish`. The microscope may be a name, a file, a dict or itself. Of one's own stacks
        the sizes are those of the first file, the optics those of the microscope, or of the model that is
        named as ``start_from``. A model to go on from decides the network and, for one's own stacks, the
        range, unless they are given.

    Raises
    ------
    RequestError
        If an entry is unknown, out of bounds or missing, in words.
    """
    from napari_lfm.optics.presets import load_microscope

    given = {k: v for k, v in values.items() if v is not None or k in ("minutes", "steps")}
    refuse_unknown(given, RefocusWish, "setting")
    for name, model in (("tuning", RefocusTuning), ("spread", RefocusSpread)):
        if isinstance(given.get(name), dict):
            refuse_unknown(given[name], model, f"setting of '{name}'")
    for name in ("stacks", "layers", "confocal"):
        if isinstance(given.get(name), str):
            given[name] = (given[name],)
    microscope = given.get("microscope")
    if microscope is not None and not isinstance(microscope, Microscope):
        given["microscope"] = microscope = (
            Microscope.model_validate(microscope)
            if isinstance(microscope, dict)
            else load_microscope(microscope)
        )
    if str(given.get("start_from", "")).lower() == "none":
        given["start_from"] = ""
    own = bool(given.get("stacks") or given.get("layers"))
    if own:
        _fill_own(given)
    try:
        _fill_optics(given, own)
        if given.get("minutes") is None and given.get("steps") is None:
            given["minutes"] = 10.0 if own else 66.0
        elif "minutes" not in given:
            given["minutes"] = None
        _fill_network(given)
        return RefocusWish.model_validate(given)
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def _fill_own(given: dict[str, Any]) -> None:
    """Fill in what the files say."""
    if given.get("stacks"):
        pixel, step = sizes_of_files(given["stacks"], given.get("pixel_um"), given.get("step_um"))
        given |= {"pixel_um": pixel, "step_um": step}
    for name, what in (("pixel_um", "pixel size"), ("step_um", "distance of the planes")):
        if name not in given:
            raise RequestError(f"The {what} of the stack is not known.", f"Give it ({name}), in micrometres.")
    if not any(given.get(name) for name in ("microscope", "na", "start_from")):
        raise RequestError(
            "The optics of the stack are not known.",
            "Give a microscope, the numerical aperture, or the model of your microscope to start from.",
        )


def _fill_optics(given: dict[str, Any], own: bool) -> None:
    """Fill in the microscope: what is said, else the microscope's, else the start's, else the usual."""
    told = all(name in given for name in (*OPTICS, "range_um"))  # then the start need not be there any more
    wanted = own and given.get("start_from") and not told
    start = start_entry(str(given["start_from"])) if wanted else None
    domain = None if start is None else domain_of(start.card)
    base = DefocusOptics() if domain is None else domain.optics
    usual: dict[str, Any] = {name: getattr(base, name) for name in OPTICS}
    m = given.get("microscope")
    if m is not None:
        usual |= {
            "na": m.objective.na,
            "immersion_index": m.objective.immersion_index,
            "wavelength_um": m.wavelength_um,
            "sample_index": m.sample_index,
        }
        if not own:
            given.setdefault("pixel_um", round(m.object_pixel_um, 6))
    length = _number(given.get("wavelength_um"), usual["wavelength_um"])
    if length != base.wavelength_um:
        usual["excitation_um"] = round(base.excitation_um * length / base.wavelength_um, 4)
    immersion = _number(given.get("immersion_index"), usual["immersion_index"])
    if domain is None and immersion > 1.2:
        usual["depth_um"] = 7.0  # lenses with immersion have short working distances
    for name, value in usual.items():
        given.setdefault(name, value)
    if own and "start_from" not in given:
        given["start_from"] = best_start(
            _number(given["na"], 0.8), _number(given["pixel_um"], 0.325), immersion
        )
        if given["start_from"]:
            domain = domain_of(start_entry(given["start_from"]).card)
    if domain is not None and own:
        given.setdefault("range_um", domain.range_um)
    if "range_um" not in given:
        field = length * immersion / max(_number(given["na"], 0.8), 0.05) ** 2
        given["range_um"] = float(f"{min(_RANGE_UM, _RANGE_UM * field / _DEPTH_OF_FIELD_UM):.2g}")
    if not own:
        given.setdefault("step_um", round(_number(given["range_um"], _RANGE_UM) / 20, 4))


def _fill_network(given: dict[str, Any]) -> None:
    """Take the network of the model to go on from, unless the tuning says something of it."""
    tuning = given.get("tuning") or {}
    if not given.get("start_from") or not isinstance(tuning, dict) or tuning.keys() & NETWORK.keys():
        return
    network = start_entry(str(given["start_from"])).card.network
    given["tuning"] = {**{k: network[k] for k in NETWORK if k in network}, **tuning}


def best_start(na: float, pixel_um: float, immersion_index: float) -> str:
    """Return the id of the bundled model nearest to an objective, empty where none is near.

    The network is told aperture, wavelength and pixels, so that it need not be the same objective.
    """
    from napari_lfm.networks.catalogue import list_models

    found: list[tuple[float, str]] = []
    for entry in list_models("refocus"):
        if entry.problem or entry.source != "bundled" or entry.card.architecture != "refocus":
            continue
        domain = domain_of(entry.card)
        ratios = (
            na / domain.optics.na,
            pixel_um / domain.pixel_um,
            immersion_index / domain.optics.immersion_index,
        )
        away = [abs(math.log(max(r, 1e-6))) for r in ratios]
        if max(away) <= math.log(_MOST_RATIO):
            found.append((sum(away), entry.card.id))
    return min(found)[1] if found else ""


def start_entry(model: str) -> ModelEntry:
    """Return a model that can be gone on from.

    Raises
    ------
    RequestError
        If there is none, it is broken, or its network is the published one.
    """
    from napari_lfm.networks.catalogue import find_model

    entry = find_model(model, "refocus")
    if entry.problem:
        raise RequestError(f"The model '{model}' cannot be used: {entry.problem}")
    if entry.card.architecture != "refocus":
        raise RequestError(
            f"The model '{entry.card.id}' is the published network, which is not trained further here.",
            "Start from one of the models of this package, or from nothing.",
        )
    return entry


def _number(value: Any, otherwise: float) -> float:
    """Return a number of somebody's; what is none is told when the wish is checked."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return otherwise
    return found if math.isfinite(found) and found > 0 else otherwise
