"""What a form must know about one field of a pydantic model: label, unit, bounds, kind. No Qt."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Kind = Literal["float", "int", "bool", "choice", "text", "model"]

MICROMETRES = "\N{GREEK SMALL LETTER MU}m"
_UNITS = {
    "um": MICROMETRES,
    "nm": "nm",
    "mm": "mm",
    "px": "px",
    "deg": "degrees",
    "s": "s",
    "ms": "ms",
    "gib": "GiB",
    "counts": "grey values",
    "e": "electrons",
    "db": "dB",
}
_LONG_UNITS = {"e_per_count": "electrons per grey value"}
_WORDS = {"na": "NA", "psf": "PSF", "tv": "TV"}


@dataclass(frozen=True)
class FieldSpec:
    """One field of a form.

    Attributes
    ----------
    name : str
        Field name of the model.
    label : str
        In plain words, with the unit in brackets: ``"z min (um)"``.
    kind : str
        ``float``, ``int``, ``bool``, ``choice``, ``text`` or ``model`` (a part with fields of its own).
    default : Any
        Default value, None where the field must be given.
    required : bool
        The model has no default for it.
    optional : bool
        None is allowed; the form shows it as ``none_text``.
    low, high : float or None
        Bounds; None for open.
    low_open, high_open : bool
        The bound itself is not allowed.
    choices : tuple
        Allowed values of a ``choice``.
    tooltip : str
        The field's own documentation.
    advanced : bool
        Shown only on demand.
    model : type or None
        The part's model for kind ``model``.
    """

    name: str
    label: str
    kind: Kind
    default: Any = None
    required: bool = False
    optional: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Any, ...] = ()
    tooltip: str = ""
    advanced: bool = False
    model: type[BaseModel] | None = None
    none_text: str = "not given"


def label_of(name: str) -> str:
    """Return a field name in plain words, its unit suffix in brackets.

    Examples
    --------
    >>> label_of("iterations")
    'iterations'
    >>> label_of("frame_interval_s")
    'frame interval (s)'
    """
    for suffix, unit in _LONG_UNITS.items():
        if name.endswith("_" + suffix):
            return f"{_plain(name[: -len(suffix) - 1])} ({unit})"
    head, _, tail = name.rpartition("_")
    if head and tail in _UNITS:
        return f"{_plain(head)} ({_UNITS[tail]})"
    return _plain(name)


def _plain(name: str) -> str:
    if name == "f_number":
        return "f-number"
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def specs_of(model: type[BaseModel]) -> list[FieldSpec]:
    """Return the form description of every field of a pydantic model, in order."""
    return [_spec(name, info) for name, info in model.model_fields.items()]


def _spec(name: str, info: FieldInfo) -> FieldSpec:
    annotation, optional = _without_none(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    required = info.is_required()
    default = None if required else info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        default = None
    kind: Kind = "text"
    choices: tuple[Any, ...] = ()
    part: type[BaseModel] | None = None
    if get_origin(annotation) is Literal:
        kind, choices = "choice", get_args(annotation)
    elif annotation is bool:
        kind = "bool"
    elif annotation is int:
        kind = "int"
    elif annotation is float:
        kind = "float"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind, part = "model", annotation
    low = high = None
    low_open = high_open = False
    for rule in info.metadata:
        if getattr(rule, "ge", None) is not None:
            low, low_open = float(rule.ge), False
        if getattr(rule, "gt", None) is not None:
            low, low_open = float(rule.gt), True
        if getattr(rule, "le", None) is not None:
            high, high_open = float(rule.le), False
        if getattr(rule, "lt", None) is not None:
            high, high_open = float(rule.lt), True
    return FieldSpec(
        name=name,
        label=label_of(name),
        kind=kind,
        default=default,
        required=required,
        optional=optional,
        low=low,
        high=high,
        low_open=low_open,
        high_open=high_open,
        choices=choices,
        tooltip=_tooltip(info, low, high),
        advanced=bool(extra.get("advanced", False)),
        model=part,
        none_text=str(extra.get("none_text", "not given")),
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return annotation, False


def _tooltip(info: FieldInfo, low: float | None, high: float | None) -> str:
    text = " ".join((info.description or "").split())
    if low is not None and high is not None:
        text += f" From {low:g} to {high:g}."
    elif low is not None:
        text += f" From {low:g}."
    elif high is not None:
        text += f" Up to {high:g}."
    return text.strip()
