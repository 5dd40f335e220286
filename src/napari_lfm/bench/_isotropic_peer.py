"""CSBDeep at work, in an interpreter of its own: requests come as lines of JSON, answers go back as such.

Started by path (`_isotropic_csbdeep`), with CSBDeep and TensorFlow installed beside it; imports nothing of
this project. Everything else that is printed goes to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np


class Peer:
    """CSBDeep's network of isotropic restoration, with its defaults."""

    def __init__(self, folder: str, threads: int) -> None:
        tensorflow = import_module("tensorflow")
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        self.models = import_module("csbdeep.models")
        self.folder, self.count = folder, 0
        self.model: Any = None

    def fresh(self, seed: int, steps: int, epochs: int, batch: int) -> dict[str, Any]:
        """Make a new network."""
        import_module("tensorflow").keras.utils.set_random_seed(seed)
        config = self.models.Config(
            axes="YXC",
            train_batch_size=batch,
            train_epochs=epochs,
            train_steps_per_epoch=steps // epochs,
            train_tensorboard=False,
        )
        self.count += 1
        self.model = self.models.IsotropicCARE(config, f"run-{self.count}", basedir=self.folder)
        self.model.prepare_for_training()
        return {"parameters": int(self.model.keras_model.count_params())}

    def train(self, patches: str) -> dict[str, Any]:
        """Train on patches in a file, as CSBDeep does; the weights with the best validation are kept."""
        kept = np.load(patches)
        given, wanted = kept["given"][..., None], kept["wanted"][..., None]
        held = kept["held_given"][..., None], kept["held_wanted"][..., None]
        history = self.model.train(given, wanted, validation_data=held)
        return {"validation": [float(v) for v in history.history["val_loss"]]}

    def restore(self, stack: str, out: str) -> dict[str, Any]:
        """Restore a stack (z, y, x) that is scaled and interpolated already."""
        made = self.model.predict(np.load(stack), "ZYX", factor=1, normalizer=None)
        np.save(out, np.asarray(made, np.float32))
        return {}

    def steps(self, count: int, batch: int, side: int) -> dict[str, Any]:
        """Train for some steps on one batch, to be timed."""
        rng = np.random.default_rng(0)
        given = rng.random((batch, side, side, 1)).astype(np.float32)
        for _ in range(count):
            self.model.keras_model.train_on_batch(given, given[:, ::-1])
        return {}


def serve() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not be taken for answers
    folder, threads = sys.argv[1:3]
    peer = Peer(folder, int(threads))
    for line in sys.stdin:
        wish = json.loads(line)
        name = wish.pop("do")
        wall, busy = time.perf_counter(), time.process_time()
        found = getattr(peer, name)(**wish)
        found |= {"wall_s": time.perf_counter() - wall, "busy_s": time.process_time() - busy}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
