"""What every command shares: answers on stdout, messages on stderr, exit status, a progress line."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from napari_lfm.core.problems import LfmError
from napari_lfm.core.words import duration

if TYPE_CHECKING:
    from napari_lfm.core.events import Event

P = ParamSpec("P")

Microscope = Annotated[
    str | None, typer.Option("--microscope", help="Preset, own microscope, or YAML or JSON file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else there.")]


@dataclass(frozen=True)
class Answer:
    """What a command has to say.

    Attributes
    ----------
    data : mapping
        The JSON object of ``--json``.
    text : str
        The same for people.
    exit_status : int
        0 unless something is amiss that is no error of the request.
    """

    data: Mapping[str, Any]
    text: str = ""
    exit_status: int = field(default=0)


def say(message: object) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr, flush=True)


def command(function: Callable[P, Answer]) -> Callable[P, None]:
    """Turn a function that returns an `Answer` into a command that never shows a traceback.

    While it works stdout is stderr, so that no library can spoil the one JSON object.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        out = sys.stdout
        try:
            with contextlib.redirect_stdout(sys.stderr), _ending_like_ctrl_c():
                answer = function(*args, **kwargs)
            _print(answer, bool(kwargs.get("as_json")), out)
        except typer.Exit:
            raise
        except BaseException as error:
            raise typer.Exit(explain(error)) from None
        if answer.exit_status:
            raise typer.Exit(answer.exit_status)

    return wrapped


@contextlib.contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM (a batch system's time limit, ``kill``) stop a command as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, which alone may set it
        yield
        return
    try:
        yield
    finally:
        # None: set by something other than Python, which cannot be put back
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def explain(error: BaseException) -> int:
    """Print what went wrong in a sentence, and return the exit status."""
    if isinstance(error, LfmError):
        say(f"Error: {error}")
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        say("Stopped. Nothing was overwritten.")
        return 1
    if isinstance(error, BrokenPipeError):
        # the reader of our output has gone; keep the interpreter from complaining at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, MemoryError):
        say("Error: Not enough memory. Give a smaller region or depth range, or set --memory-gib.")
        return 1
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        say(f"Error: {error.strerror}{where}. {_remedy(error)}")
        return 2 if isinstance(error, _REQUEST_OSERRORS) else 1
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    say(f"Error: Something unexpected happened ({type(error).__name__}). {_logged(error)}")
    return 1


_REQUEST_OSERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "Free some space and run again; the old file is as it was."
    if isinstance(error, PermissionError):
        return "Choose a place you may write to."
    return "Check the path."


def _logged(error: BaseException) -> str:
    """Write the traceback to a log file and return a sentence that says where."""
    text = "".join(traceback.format_exception(error))
    try:
        folder = log_dir()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        path.write_text(f"{' '.join(sys.argv)}\n\n{text}", encoding="utf-8")
    except OSError:
        return f"Please report it: {' '.join(str(error).split())}"
    return f"Please report it with this file: {path}"


def log_dir() -> Path:
    """Return the folder of log files: ``$NAPARI_LFM_HOME/log`` if set, else the user's."""
    home = os.environ.get("NAPARI_LFM_HOME")
    if home:
        return Path(home) / "log"
    from platformdirs import user_log_path

    return Path(user_log_path("napari-lfm", appauthor=False))


def _print(answer: Answer, as_json: bool, out: IO[str]) -> None:
    text = json.dumps(jsonable(answer.data), indent=2) if as_json else answer.text
    if text:
        print(text, file=out, flush=True)


def jsonable(value: Any) -> Any:
    """Return `value` as JSON has it; what is not finite becomes null, numpy becomes plain."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)


class ProgressLine:
    """One line on stderr that follows a run; rewritten in place on a terminal, sparse in a log."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.width = 0
        self.last = ("", -1.0)
        self.next_at = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event of a running method."""
        from napari_lfm.core.events import Preview, Progress

        if isinstance(event, Preview):
            event = event.progress
        if isinstance(event, Progress):
            self.show(event.step, event.total, event.message, event.seconds_left, event.values)

    def show(
        self,
        step: int,
        total: int,
        message: str,
        seconds_left: float | None = None,
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Show a step."""
        now = time.monotonic()
        done = bool(total) and step >= total
        # "Iteration 3, frame 1 of 9" follows "Iteration 2, frame 1 of 9": no new stage
        stage = re.sub(r"\d+", "", message)
        fresh = stage != self.last[0]
        if not (fresh or done or now >= self.next_at) or (stage, float(step)) == self.last:
            return
        self.last, self.next_at = (stage, float(step)), now + (0.1 if self.live else 5.0)
        # "Iteration 3" of 15 reads "Iteration 3/15"
        numbered = message.endswith(f" {step}") and not message.endswith(f" of {step}")
        text = message + (f"{'' if numbered else f' {step}'}/{total}" if total else "")
        for name, value in (values or {}).items():
            if name == "iteration":
                continue
            text += f", {name.replace('_', ' ')} {value:.4g}"
        if seconds_left is not None and not done:
            text += f", {duration(seconds_left)} left"
        if self.live:
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self.live and self.width:
            self.stream.write("\n")
            self.stream.flush()
            self.width = 0


def about(seconds: float) -> str:
    """Return an estimated time as people say it."""
    return duration(seconds) if seconds < 1 else f"about {duration(seconds)}"


def size(n_bytes: float) -> str:
    """Return a memory size as people say it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"


def prepare_output(path: Path) -> Path:
    """Make the output's folder and refuse an output that cannot be written, before the work is done.

    Raises
    ------
    RequestError
        With the reason.
    """
    from napari_lfm.core.problems import RequestError, raise_for
    from napari_lfm.io.atomic import check_output

    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The folder {path.absolute().parent} cannot be made ({error.strerror}).",
            "Choose another output with -o.",
        ) from None
    raise_for(check_output(path))
    return path


def numbers(text: str, count: int, what: str, example: str) -> tuple[float, ...]:
    """Return comma-separated numbers.

    Raises
    ------
    RequestError
        If there are not `count` of them.
    """
    from napari_lfm.core.problems import RequestError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise RequestError(f"'{text}' is not a {what}.", f"Give {count} numbers, such as {example}.")
    return values
