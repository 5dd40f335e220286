"""What can be wrong with a request, in words a microscopist can act on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or worth knowing, before a run.

    Attributes
    ----------
    message : str
        What is wrong, one plain sentence.
    remedy : str
        How to mend it, one plain sentence; may be empty for ``info``.
    severity : {"error", "warning", "info"}
        An ``error`` stops the run.
    field : str
        Name of the parameter or input concerned, empty when it is none of them.
    """

    message: str
    remedy: str = ""
    severity: Severity = "error"
    field: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class LfmError(Exception):
    """An expected failure whose text is one clear sentence for the user.

    The command line prints the text and exits with `exit_status`; the panel
    shows it. A traceback is never needed to understand it.
    """

    exit_status = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy

    def problem(self) -> Problem:
        """Return the same failure as a `Problem`."""
        return Problem(self.message, self.remedy)


class RequestError(LfmError):
    """The request or its input is wrong: the user can mend it (exit status 2)."""

    exit_status = 2


def raise_for(problems: Iterable[Problem]) -> None:
    """Raise one `RequestError` with every error among `problems`, if there is any."""
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        raise RequestError(" ".join(str(p) for p in errors))


def explain_validation(error: ValidationError) -> str:
    """Return what a pydantic model refused, one plain sentence per value."""
    sentences = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "value_error":  # our own validators speak plainly already
            text = item["msg"].removeprefix("Value error, ")
        elif item["type"] == "missing":
            text = f"'{where}' is missing"
        elif item["type"] == "extra_forbidden":
            text = f"there is no entry '{where}'"
        else:
            text = f"{where} = {item['input']!r} {_expected(item['type'], item['msg'], item['input'])}"
        sentences.append(f"{text}.")
    return " ".join(sentences)


def _expected(kind: str, message: str, value: object) -> str:
    """Return what a value had to be, in words for people who do not program."""
    if kind.startswith("int_"):
        return "must be a whole number"
    if kind.startswith("bool_"):
        return "must be true or false"
    if kind.startswith(("float_", "finite_")) or str(value).strip().lower() in ("nan", "-nan"):
        return "is not a number"
    return re.sub(r"^\w+ should ", "must ", message)


@dataclass(frozen=True)
class Estimate:
    """What a run will need and give, before it starts.

    Attributes
    ----------
    output_shape : tuple of int
        Shape of the primary result.
    output_dims : tuple of str
        Its dimension names, out of ``t c z y x``.
    peak_bytes : int
        Largest memory in use at once on the device.
    seconds : float
        Expected duration on the chosen device.
    notes : tuple of str
        Plain sentences, e.g. which memory path was chosen.
    """

    output_shape: tuple[int, ...]
    output_dims: tuple[str, ...]
    peak_bytes: int
    seconds: float
    notes: tuple[str, ...] = ()
