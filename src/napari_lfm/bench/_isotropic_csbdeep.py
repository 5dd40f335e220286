"""CSBDeep 0.8.2 as the reference: a process of another interpreter that is asked for work."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from types import TracebackType

EPOCHS = 20
"""CSBDeep looks at its validation patches so often in a training."""


class CsbDeep:
    """CSBDeep in its own interpreter; a context manager, whose process ends with it.

    Parameters
    ----------
    python : path
        Interpreter that has csbdeep, tensorflow and tf_keras.
    threads : int
        Of its convolutions.

    Raises
    ------
    RequestError
        Where it cannot be started, or stops.
    """

    def __init__(self, python: str | Path, threads: int = 1) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.folder = Path(self._kept.name)
        self._log = (self.folder / "log.txt").open("w", encoding="utf-8")
        command = [str(python), str(Path(__file__).with_name("_isotropic_peer.py")), self._kept.name]
        # CSBDeep 0.8.2 is written for Keras 2
        surroundings = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        surroundings |= {"OMP_NUM_THREADS": str(threads)}
        try:
            self._process = subprocess.Popen(
                [*command, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=surroundings,
            )
        except OSError as error:
            self._log.close()
            self._kept.cleanup()
            raise RequestError(
                f"CSBDeep's interpreter {python} cannot be started: {error.strerror}.",
                "Give the python of an environment with csbdeep==0.8.2, tensorflow-cpu and tf_keras.",
            ) from error

    def __enter__(self) -> CsbDeep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what it no longer reads
                    pipe.close()
        self._log.close()
        self._kept.cleanup()

    def ask(self, do: str, **wish: Any) -> dict[str, Any]:
        """Return the answer to a request, with ``wall_s`` and ``busy_s`` (seconds of processor)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **wish}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.flush()
            said = (self.folder / "log.txt").read_text("utf-8").strip().splitlines()
            raise RequestError(
                f"CSBDeep stopped: {said[-1] if said else 'it said nothing'}.",
                "Its environment needs csbdeep==0.8.2, tensorflow-cpu and tf_keras.",
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def trained(
        self, batches: list[tuple[np.ndarray, np.ndarray]], held: Any, seed: int = 0
    ) -> dict[str, Any]:
        """Train a new network on these batches, once each, validating on `held`.

        Parameters
        ----------
        batches : list of (given, wanted)
            Arrays of shape (batch, rows, z), scaled.
        held : (given, wanted)
            The same.
        """
        epochs = min(EPOCHS, len(batches))
        steps = len(batches) // epochs * epochs
        self.ask("fresh", seed=seed, steps=steps, epochs=epochs, batch=len(batches[0][0]))
        path = self.folder / "patches.npz"
        given, wanted = (np.concatenate(part) for part in zip(*batches, strict=True))
        np.savez(path, given=given, wanted=wanted, held_given=held[0], held_wanted=held[1])
        found = self.ask("train", patches=str(path))
        path.unlink()
        return found

    def restored(self, scaled: np.ndarray) -> np.ndarray:
        """Return a stack (fine z, y, x), scaled and interpolated, after CSBDeep's two passes."""
        given, made = self.folder / "stack.npy", self.folder / "restored.npy"
        np.save(given, np.asarray(scaled, np.float32))
        self.ask("restore", stack=str(given), out=str(made))
        out: np.ndarray = np.load(made)
        given.unlink()
        made.unlink()
        return out
