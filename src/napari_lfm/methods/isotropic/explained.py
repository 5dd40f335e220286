"""Whether a restored stack, blurred and sampled as the microscope does, is the recorded one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.noise import estimate_noise
from napari_lfm.methods.waiting import waited_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIXELS = 1 << 18
_DARK_PERCENTILE = 2.0


@dataclass(frozen=True)
class Explained:
    """How far the restored stack explains the recorded one.

    Attributes
    ----------
    expected, residual : ndarray, float32, shape (z, y, x)
        What would have been recorded of the restored stack, and the recorded one less that; grey values.
    share : float
        Root mean square of the residual over that of the light, both less the noise: 0 all, 1 nothing.
    noise_share : float
        The same of the camera's noise, which no one can explain.
    """

    expected: np.ndarray
    residual: np.ndarray
    share: float
    noise_share: float


def expected_stack(
    restored: np.ndarray, kernel: np.ndarray, factor: float, planes: int, step_px: float = 1.0
) -> Iterator[np.ndarray | None]:
    """Yield None after every part of the work, and what a microscope would record last.

    Parameters
    ----------
    restored : ndarray, shape (fine z, y, x)
    kernel : ndarray, shape (lateral, axial)
        Of the anisotropic blur, in lateral pixels, see `napari_lfm.optics.axial_blur`.
    factor : float
        Distance of the recorded planes, lateral pixels.
    planes : int
        How many were recorded.
    step_px : float
        Distance of the restored planes, lateral pixels.
    """
    import torch

    from napari_lfm.training.isotropic_degradation import blur
    from napari_lfm.training.isotropic_resampling import back_to_pixels

    fine, rows, columns = restored.shape
    kernel = np.asarray(kernel, np.float32)

    def recorded(slices: torch.Tensor) -> torch.Tensor:
        """Return slices (n, 1, lateral, fine z) at the planes."""
        # the last plane may lie a part of a pixel behind the last restored one, which is held
        return back_to_pixels(blur(slices, kernel), step_px / factor, 0.0, planes)

    out = np.empty((planes, rows, columns), np.float32)
    if kernel.shape[0] == 1:
        # along z alone it is one matrix for all columns: that of its action on single planes
        unit = torch.eye(fine)[None, None]
        matrix = recorded(unit)[0, 0].T.numpy()
        flat = restored.reshape(fine, -1)
        filled = out.reshape(planes, -1)
        for first in range(0, flat.shape[1], _PIXELS):
            filled[:, first : first + _PIXELS] = matrix @ flat[:, first : first + _PIXELS]
            yield None
    else:
        size = max(1, _PIXELS // (fine * columns))
        for first in range(0, rows, size):
            part = np.ascontiguousarray(restored[:, first : first + size].transpose(1, 2, 0), np.float32)
            points = recorded(torch.from_numpy(part)[:, None])[:, 0].numpy()
            out[:, first : first + size] = points.transpose(2, 0, 1)
            yield None
        # what the kernel does along x it does along y
        from scipy.ndimage import convolve1d

        out = convolve1d(out, kernel.sum(1), axis=1, mode="reflect")
    yield out


def explained(
    restored: np.ndarray, stack: np.ndarray, kernel: np.ndarray, factor: float, step_px: float = 1.0
) -> Iterator[Explained | None]:
    """Compare a stack with what its restored version would give; yields None in between.

    Parameters
    ----------
    restored : ndarray, shape (fine z, y, x)
    stack : ndarray, shape (z, y, x)
        As recorded, the same grey values.
    kernel, factor, step_px
        As for `expected_stack`.
    """
    expected = np.zeros(0)
    for made in expected_stack(restored, kernel, factor, len(stack), step_px):
        yield None
        expected = expected if made is None else made
    # looking at the noise of a large stack takes seconds
    rest = waited_for(lambda: _compared(np.asarray(stack, np.float32), expected), "")
    while True:
        try:
            next(rest)
            yield None
        except StopIteration as end:
            yield end.value
            return


def _compared(stack: np.ndarray, expected: np.ndarray) -> Explained:
    residual = stack - expected
    noise = estimate_noise(stack)
    low = float(np.percentile(stack[:: max(1, len(stack) // 16), ::2, ::2], _DARK_PERCENTILE))
    variance, light, rest = 0.0, 0.0, 0.0
    for plane, left in zip(stack, residual, strict=True):
        if noise.known:
            variance += float(np.maximum(noise.slope * plane + noise.intercept, noise.least).mean())
        light += float(np.square(plane - low, dtype=np.float64).mean())
        rest += float(np.square(left, dtype=np.float64).mean())
    # grey values may be of any size: 1e-9 of a float image as well
    there = max(light - variance, 1e-12 * light) or 1.0
    share = float(np.sqrt(max(0.0, rest - variance) / there))
    return Explained(expected, residual, share, float(np.sqrt(variance / there)))
