"""Measure how accurate the measures of resolution are, on images whose spectrum is known in closed form.

Prints estimate over imposed value along every axis: mean and spread of three images. The figures of
``how-to/evaluate.md``::

    python docs/measure_evaluate_accuracy.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.decorrelation import decorrelation
from napari_lfm.core.shell_correlation import AGAINST_TRUTH, shell_correlation, single_shell_correlation
from napari_lfm.core.spectra import power_spectra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEEDS = 3
NOISE = 0.1
BLURRED = (
    ((128, 128, 128), (0.1, 0.1, 0.1), (0.12, 0.12, 0.12)),
    ((128, 128, 128), (0.1, 0.1, 0.1), (0.4, 0.12, 0.12)),
    ((128, 128, 128), (0.1, 0.1, 0.1), (0.6, 0.12, 0.12)),
    ((32, 192, 192), (0.3, 0.1, 0.1), (0.45, 0.15, 0.15)),
    ((32, 192, 192), (0.3, 0.1, 0.1), (0.8, 0.2, 0.2)),
    ((256, 256), (0.1, 0.1), (0.15, 0.3)),
)
BAND_LIMITED = (
    ((96, 128, 128), (0.1, 0.1, 0.1), (0.4, 0.4, 0.4)),
    ((96, 128, 128), (0.1, 0.1, 0.1), (1.0, 0.3, 0.3)),
    ((32, 192, 192), (0.3, 0.1, 0.1), (1.0, 0.35, 0.35)),
    ((256, 256), (0.1, 0.1), (0.4, 0.4)),
)


def random_image(
    shape: Sequence[int],
    voxel_um: Sequence[float],
    length_um: Sequence[float],
    transfer: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> np.ndarray:
    """Return white noise under a transfer function of ``sqrt(sum (length * frequency)^2)``."""
    scaled = [
        (np.fft.fftfreq(n, v) * s).reshape([-1 if j == i else 1 for j in range(len(shape))])
        for i, (n, v, s) in enumerate(zip(shape, voxel_um, length_um, strict=True))
    ]
    radius = np.sqrt(sum((k**2 for k in scaled), np.zeros(())))
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.fft.ifftn(np.fft.fftn(noise) * transfer(radius)).real


def sharp(radius: np.ndarray) -> np.ndarray:
    """Pass what lies within 1."""
    return (radius < 1).astype(float)


def incoherent(radius: np.ndarray) -> np.ndarray:
    """Fall as the transfer of a circular pupil does, to zero at 1."""
    r = np.clip(radius, 0, 1)
    return 2 / np.pi * (np.arccos(r) - r * np.sqrt(1 - r**2))


def show(title: str, rows: list[list[float | None]], imposed: Sequence[float]) -> None:
    """Print estimate over imposed value."""
    ratios = np.array([[np.nan if v is None else v for v in row] for row in rows]) / np.asarray(imposed)
    cells = "  ".join(f"{m:.2f}+-{s:.2f}" for m, s in zip(ratios.mean(0), ratios.std(0), strict=True))
    print(f"    {title:<32}{cells}")


def main() -> None:
    """Measure."""
    for shape, voxel, sigma in BLURRED:
        print(f"blur {sigma} um, voxels {voxel} um, shape {shape}, noise {NOISE:g}")
        imposed = 2 * np.pi * np.asarray(sigma) / np.sqrt(np.log(6 / NOISE**2))
        rows: dict[str, list[list[float | None]]] = {}
        for seed in range(SEEDS):
            blur = random_image(shape, voxel, sigma, lambda r: np.exp(-2 * (np.pi * r) ** 2), seed)
            rng = np.random.default_rng(100 + seed)
            a, b = (blur + rng.normal(0, NOISE, shape) for _ in range(2))
            for title, found in (
                ("FSC, two images (1/7)", shell_correlation(a, b, voxel)),
                ("FSC with truth (0.378)", shell_correlation(a, blur, voxel, threshold=AGAINST_TRUTH)),
                ("FSC, image split (1/7)", single_shell_correlation(a, voxel)),
            ):
                rows.setdefault(title, []).append(list(found.resolution_um.values()))
        for title, values in rows.items():
            show(title, values, imposed)
    for transfer in (sharp, incoherent):
        for shape, voxel, period in BAND_LIMITED:
            for noise in (0.01, 0.1, 0.5):
                print(f"{transfer.__name__} cut-off {period} um, voxels {voxel} um, noise {noise:g}")
                found_rows: dict[str, list[list[float | None]]] = {"Decorrelation": [], "Noise floor": []}
                for seed in range(SEEDS):
                    image = random_image(shape, voxel, period, transfer, seed)
                    image += np.random.default_rng(50 + seed).normal(0, noise * image.std(), shape)
                    found_rows["Decorrelation"].append(
                        list(decorrelation(image, voxel).resolution_um.values())
                    )
                    found_rows["Noise floor"].append(list(power_spectra(image, voxel).resolution_um.values()))
                for title, values in found_rows.items():
                    show(title, values, period)


if __name__ == "__main__":
    main()
