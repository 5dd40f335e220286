"""Compare imported CSBDeep weights with Keras on the same input; every step in its own environment.

In one with CSBDeep (``pip install csbdeep==0.8.2 tensorflow-cpu``), then in this project's::

    python tools/compare_keras_import.py make FOLDER
    python tools/compare_keras_import.py compare FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

KINDS = {
    "one-channel": {},
    "two-channels": {"n_channel_in": 2, "n_channel_out": 2},
    "probabilistic": {"probabilistic": True},
    "three-levels": {"unet_n_depth": 3, "unet_n_first": 16, "unet_kern_size": 3, "unet_residual": False},
}


def make(folder: Path) -> None:
    """Save models with random weights, an input, and what Keras makes of it."""
    from csbdeep.models import CARE, Config

    rng = np.random.default_rng(0)
    for name, settings in KINDS.items():
        model = CARE(Config(axes="YXC", train_steps_per_epoch=1, **settings), name, basedir=str(folder))
        network = model.keras_model
        values = []
        for old in network.get_weights():
            size = 0.05 if old.ndim == 1 else 1.2 / np.prod(old.shape[:-1]) ** 0.5
            values.append((size * rng.standard_normal(old.shape)).astype(np.float32))
        network.set_weights(values)
        network.save_weights(str(folder / name / "weights_best.h5"))
        given = rng.random((2, 64, 96, settings.get("n_channel_in", 1))).astype(np.float32)
        np.savez(folder / name / "example.npz", given=given, made=network.predict(given, verbose=0))


def compare(folder: Path) -> None:
    """Print the largest difference of every model."""
    import torch

    from napari_lfm.networks.isotropic_import import load_care

    for name in KINDS:
        model, example = load_care(folder / name), np.load(folder / name / "example.npz")
        with torch.no_grad():
            made = model.network(torch.from_numpy(example["given"]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        worst = float(np.abs(made.numpy() - example["made"]).max())
        print(f"{name}: {worst:.1e} of values up to {np.abs(example['made']).max():.2f}")


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
