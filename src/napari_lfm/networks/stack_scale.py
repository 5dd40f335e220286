"""How stacks are scaled before a network sees them: two percentiles of the whole stack become 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_lfm.core.problems import RequestError

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.9
_MOST_SAMPLES = 4_000_000


@dataclass(frozen=True)
class StackLevels:
    """Grey values that become 0 and 1."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """Grey values from 0 to 1."""
        return self.high - self.low

    def scaled(self, stack: np.ndarray) -> np.ndarray:
        """Return a stack as the network sees it, float32."""
        return (np.asarray(stack, np.float32) - np.float32(self.low)) / np.float32(self.span)

    def grey(self, scaled: np.ndarray) -> np.ndarray:
        """Return what the network says in grey values above the dark level, none negative."""
        out = np.maximum(scaled, np.float32(0))
        out *= np.float32(self.span)  # in place: these stacks are large
        return np.asarray(out, np.float32)


def stack_levels(
    stack: np.ndarray, low_percentile: float = LOW_PERCENTILE, high_percentile: float = HIGH_PERCENTILE
) -> StackLevels:
    """Return the levels of a stack; of every n-th voxel where it is large.

    Raises
    ------
    RequestError
        If the stack is all of one brightness.
    """
    flat = stack.reshape(-1)
    # a stride that shares no factor with the sizes of images, so that no column is preferred
    stride = max(1, flat.size // _MOST_SAMPLES)
    stride += 1 - stride % 2 if stride > 1 else 0
    low, high = np.percentile(np.asarray(flat[::stride], np.float32), [low_percentile, high_percentile])
    if not high > low:
        raise RequestError(
            f"The stack is dark: 99 of 100 voxels have the value {low:g}.",
            "Leave it out, or check the file.",
        )
    return StackLevels(float(low), float(high))
