"""Hot pixels of a camera: found in the dark frame, or in the light field itself."""

from __future__ import annotations

import numpy as np


def find_hot_pixels(frame: np.ndarray, sigma: float, *, dark: bool) -> np.ndarray:
    """Return the pixels that stand out alone.

    A hot pixel is one pixel wide; light is never: the lenslet's diffraction spot spreads over its
    neighbours. So a pixel of a light frame is hot only if it also exceeds every neighbour by far.

    Parameters
    ----------
    frame : numpy.ndarray
        Frame (y, x); of a movie, its temporal median, which keeps what is hot all the time.
    sigma : float
        How many robust standard deviations (1.4826 MAD) above the expected value is hot.
    dark : bool
        True for a dark frame: every pixel far above its surroundings is hot.

    Returns
    -------
    numpy.ndarray of bool, shape of `frame`
    """
    frame = np.asarray(frame, np.float32)
    expected, lowest, highest = _neighbours(frame)
    excess = frame - expected
    spread = max(1.4826 * float(np.median(np.abs(excess - np.median(excess)))), 1e-6)
    if dark:
        return np.asarray(excess > sigma * spread)
    # photon noise, and structure within a lenslet, make neighbours differ where there is light
    local = np.maximum(highest - lowest, spread)
    return np.asarray((frame - highest > sigma * spread) & (frame - highest > 2 * local))


def _neighbours(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean without the extremes, minimum and maximum of every pixel's eight neighbours."""
    padded = np.pad(frame, 1, mode="reflect")
    height, width = frame.shape
    total = np.zeros_like(frame)
    lowest, highest = np.full_like(frame, np.inf), np.full_like(frame, -np.inf)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) == (1, 1):
                continue
            shifted = padded[dy : dy + height, dx : dx + width]
            total += shifted
            np.minimum(lowest, shifted, out=lowest)
            np.maximum(highest, shifted, out=highest)
    return (total - lowest - highest) / 6, lowest, highest


def replace_pixels(frame: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return a copy of `frame` (y, x) with bad pixels replaced by the mean of their good neighbours."""
    out = np.array(frame, np.float32)
    height, width = frame.shape
    for y, x in np.argwhere(bad):
        window = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        good = ~bad[window]
        if not good.any():  # a cluster: look further
            window = np.s_[max(y - 3, 0) : min(y + 4, height), max(x - 3, 0) : min(x + 4, width)]
            good = ~bad[window]
        if good.any():
            out[y, x] = np.asarray(frame[window], np.float32)[good].mean()
    return out
