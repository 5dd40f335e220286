"""The one training loop of every model: steps, validations, checkpoints, an end, and going on after it.

A folder of a run holds ``last.safetensors`` (everything needed to go on), ``best.safetensors`` (the averaged
weights with the best score), ``log.csv`` (every step) and ``validation.csv``.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_lfm import __version__
from napari_lfm.core.devices import is_out_of_memory
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import LfmError, RequestError, raise_for
from napari_lfm.io.atomic import check_output
from napari_lfm.training.checkpoint import BEST, LAST, load, plain, refuse_other_run, save
from napari_lfm.training.engine import Engine
from napari_lfm.training.events import Reason, TrainResult, Validated
from napari_lfm.training.feed import Feed
from napari_lfm.training.log import CsvLog, TensorBoardLog
from napari_lfm.training.outcome import read_result
from napari_lfm.training.schedule import progress, rate_factor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.training.config import TrainConfig
    from napari_lfm.training.task import Task

TrainEvent = Progress | Validated | TrainResult


def train(task: Task, config: TrainConfig, folder: str | Path, resume: bool = True) -> Iterator[TrainEvent]:
    """Train until the steps or minutes are over, the score stops rising, or the caller stops.

    Closing the generator stops within one step: the best weights so far and the present state are on the
    disk when ``close`` returns. Calling again with ``resume`` and more steps or minutes goes on; a run that
    was killed goes on from its last checkpoint and ends equal to one that was not.

    Parameters
    ----------
    task : Task
        What is trained, and on what.
    config : TrainConfig
    folder : path
        Folder of the run, made where missing.
    resume : bool
        Go on from the checkpoint in `folder`, if there is one. False starts again; the old checkpoints are
        kept as ``previous-*.safetensors``.

    Yields
    ------
    Progress, Validated or TrainResult
        After every step, every validation, and at the end. `Progress.values` holds ``loss`` and its terms,
        ``grad_norm``, ``rate`` (learning rate), ``steps_per_s``, ``share`` (of the run that is over) and
        ``score`` (the last one).

    Raises
    ------
    RequestError
        If the folder cannot be written, its checkpoint is damaged or of another run, memory runs out, or
        the state cannot be saved at the end (also out of ``close``; an earlier checkpoint is then kept).
    """
    run: _Run | None = None
    try:
        run = _Run(task, config, Path(folder), resume)
        yield from run.events()
    except (GeneratorExit, KeyboardInterrupt):
        if run is not None:
            run.finish("stopped")
        raise
    except Exception as error:
        if run is not None:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                run.finish(None)
        if is_out_of_memory(error):
            where = f" (step {run.step + 1})" if run is not None else ""
            raise RequestError(
                f"Memory ran out while training{where}.",
                "Take a smaller batch, a smaller field or a smaller network.",
            ) from error
        raise
    finally:
        if run is not None:
            run.close()
    yield read_result(folder)


def _now() -> float:
    return time.perf_counter()


class _Run:
    """Counters of a run, and what to do next."""

    def __init__(self, task: Task, config: TrainConfig, folder: Path, resume: bool) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.step, self.seconds = 0, 0.0
        self.skipped = self.bad_in_row = 0
        self.best_score, self.best_step, self.since_best = -math.inf, 0, 0
        self.validated_step, self.validated_s = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.ended: Reason | None = None
        self._pace = 0.0
        self._saved_step, self._saved_s = -1, 0.0
        self._best_waits: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        self._prepare_folder(resume)
        self.engine = Engine(task, config)
        if resume and (folder / LAST).exists():
            self._restore(folder / LAST)
        self._feed = Feed(task.batch, self.step * self.engine.updates_per_step, config.prefetch)
        self._log = CsvLog(folder / "log.csv", self.step)
        self._scores = CsvLog(folder / "validation.csv", self.step)
        self._board = TensorBoardLog(folder, self.step)

    def events(self) -> Iterator[Progress | Validated]:
        """Run to the end, which is saved."""
        yield self._progress("Training", {})
        while True:
            if self._validation_due():
                yield self._validate()
            if self._checkpoint_due() and (note := self._try_to_save()):
                yield self._progress(note, {})
            reason = self._reason()
            if reason is not None:
                break
            yield self._step()
            for note in self.task.notes():
                yield self._progress(note, {})
        if reason not in ("unstable", "collapsed") and self.step > self.validated_step:
            yield self._validate()
        self.finish(reason)

    def finish(self, reason: Reason | None) -> None:
        """Save the present state, and the best weights if none are there; half a step is not saved."""
        if not self.engine.whole:
            return
        self.ended = reason
        if not self.history and self.step > 0:
            # nothing was validated: the average of now is the best there is
            self._best_waits = self.engine.best_tensors(), self._best_state(None)
            self.best_step = self.step
        self._save()

    def close(self) -> None:
        """Stop the background thread and close the logs."""
        self._feed.close()
        for table in (self._log, self._scores, self._board):
            table.close()

    def _step(self) -> Progress:
        start = _now()
        share = progress(self.config, self.step, self.seconds)
        factor = rate_factor(self.config.schedule, share, self.config.warmup_share)
        values, fine = self.engine.step(self.step, factor, self._feed.next)
        self.step += 1
        self.skipped += not fine
        self.bad_in_row = 0 if fine else self.bad_in_row + 1
        self.engine.whole = True
        took = _now() - start
        self.seconds += took
        self._pace = took if not self._pace else 0.9 * self._pace + 0.1 * took
        values["rate"] = self.config.learning_rate * factor
        self._log.add({"step": self.step, "seconds": round(self.seconds, 3), **values})
        self._board.add(self.step, values)
        text = "Training" if fine else f"Step {self.step} was skipped: its loss or gradient is not finite"
        return self._progress(text, values)

    def _validate(self) -> Validated:
        start = _now()
        found = self.engine.validate()
        score = float(found.score)
        values = {key: float(value) for key, value in found.values.items()}
        self.engine.whole = False
        self.history.append(
            plain({"step": self.step, "seconds": self.seconds, "score": score} | {"values": values})
        )
        self.since_best += 1
        if score > self.best_score or len(self.history) == 1:
            self.best_score = score if math.isfinite(score) else -math.inf
            self.best_step, self.since_best = self.step, 0
            self._best_waits = self.engine.best_tensors(), self._best_state(found.score)
        self.validated_step = self.step
        self.engine.whole = True
        self.seconds += _now() - start
        self.validated_s = self.seconds
        self._scores.add({"step": self.step, "seconds": round(self.seconds, 3), "score": score, **values})
        self._board.add(self.step, {"score": score, **values})
        note = self._try_to_save()
        return Validated(
            step=self.step,
            score=score,
            best_score=self.best_score,
            best_step=self.best_step,
            values=values,
            images=found.images,
            progress=self._progress(note or "Validated", values),
        )

    def _validation_due(self) -> bool:
        if self.step == self.validated_step or self.bad_in_row:
            return False
        if self.config.validate_every_steps is not None:
            return self.step % self.config.validate_every_steps == 0
        every = self.config.validate_every_s
        return every is not None and self.seconds - self.validated_s >= every

    def _checkpoint_due(self) -> bool:
        if self.step == self._saved_step or self.step == 0:
            return False
        every = self.config.checkpoint_every_steps
        by_steps = every is not None and self.step % every == 0
        return by_steps or self.seconds - self._saved_s >= self.config.checkpoint_every_s

    def _reason(self) -> Reason | None:
        if self.bad_in_row >= self.config.skip_limit:
            return "unstable"
        if getattr(self.task, "collapsed", ""):
            return "collapsed"
        if self.config.steps is not None and self.step >= self.config.steps:
            return "steps"
        if self.config.minutes is not None and self.seconds >= 60 * self.config.minutes:
            return "minutes"
        if self.config.patience and self.since_best >= self.config.patience:
            return "patience"
        return None

    def _progress(self, message: str, values: dict[str, float]) -> Progress:
        figures = dict(values)
        figures["share"] = progress(self.config, self.step, self.seconds)
        if self._pace > 0:
            figures["steps_per_s"] = 1 / self._pace
        if self.history and self.history[-1]["score"] is not None:
            figures["score"] = self.history[-1]["score"]
        left = []
        if self.config.steps is not None and self._pace:
            left.append((self.config.steps - self.step) * self._pace)
        if self.config.minutes is not None:
            left.append(60 * self.config.minutes - self.seconds)
        seconds_left = max(min(left), 0.0) if left else None
        return Progress(self.step, self.config.steps or 0, message, seconds_left, figures)

    def _try_to_save(self) -> str:
        """Save; return what kept it from being saved, in one sentence, or nothing."""
        start = _now()
        try:
            self._save()
        except LfmError as error:
            self._hold_best()
            return f"Training goes on, but {error.message[:1].lower()}{error.message[1:]}"
        finally:
            self._saved_step = self.step
            self.seconds += _now() - start
            self._saved_s = self.seconds
        return ""

    def _save(self) -> None:
        # the best first: a state that speaks of it must not be there without it
        try:
            if self._best_waits is not None:
                save(self.folder / BEST, *self._best_waits)
                self._best_waits = None
            tensors, rest = self.engine.tensors()
            save(self.folder / LAST, tensors, {**self._state(), **rest})
        except RequestError:
            raise
        except LfmError as error:  # the disk: the user can mend it
            raise RequestError(error.message, error.remedy) from error

    def _hold_best(self) -> None:
        # the next step changes the weights; the best ones wait in memory for a disk with room
        if self._best_waits is not None:
            tensors, state = self._best_waits
            self._best_waits = {key: value.detach().cpu().clone() for key, value in tensors.items()}, state

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "bad_in_row": self.bad_in_row,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "since_best": self.since_best,
            "validated_step": self.validated_step,
            "validated_s": self.validated_s,
            "history": self.history,
            "ended": self.ended,
            **self._about(),
        }

    def _best_state(self, score: float | None) -> dict[str, Any]:
        return {"step": self.step, "seconds": self.seconds, "score": score, **self._about()}

    def _about(self) -> dict[str, Any]:
        return {
            "config": self.config.dump(),
            "task": self.task.describe(),
            "machine": {
                "device": str(self.engine.device),
                "bfloat16": self.engine.bfloat16,
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
                "system": platform.platform(),
            },
            "versions": {
                "napari-lfm": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def _prepare_folder(self, resume: bool) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"The folder {self.folder} cannot be made: {error.strerror}.", "Choose another place."
            ) from error
        raise_for(check_output(self.folder / LAST))
        for name in (LAST, BEST):
            for part in self.folder.glob(f".{name}.*.part"):  # of a run that was killed while it saved
                part.unlink(missing_ok=True)
        if not resume:
            for name in (LAST, BEST):
                if (self.folder / name).exists():
                    os.replace(self.folder / name, self.folder / f"previous-{name}")

    def _restore(self, path: Path) -> None:
        tensors, state = load(path)
        refuse_other_run(path, state, self.config.dump(), self.task.describe())
        self.engine.load(path, tensors, state)
        for name in (
            "step",
            "seconds",
            "skipped",
            "best_step",
            "since_best",
            "validated_step",
            "validated_s",
        ):
            setattr(self, name, state[name])
        self.history = list(state["history"])
        if state["best_score"] is not None:
            self.best_score = state["best_score"]
        # a run that ended for these reasons is given another chance; a killed one goes on counting
        self.bad_in_row = 0 if state["ended"] == "unstable" else state["bad_in_row"]
        if state["ended"] == "patience":
            self.since_best = 0
        self._saved_step, self._saved_s = self.step, self.seconds
