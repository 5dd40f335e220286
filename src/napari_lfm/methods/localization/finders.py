"""Depth curves of epipolar images by a trained network or by sparse coding, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_lfm.training.epipolar_pairs import NEAR_LENSLETS

if TYPE_CHECKING:
    from napari_lfm.methods.localization.csc import EpipolarCsc
    from napari_lfm.networks.cista import CistaNet

_AT_ONCE = 512


class DepthFinder(Protocol):
    """What turns epipolar images into depth curves.

    Attributes
    ----------
    id : str
        ``cista`` or ``csc``.
    z_um : ndarray, shape (depths,)
    half : int
        Lenslets on either side of an image's middle.
    """

    id: str
    z_um: np.ndarray
    half: int

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """Return how much speaks for every depth of the source in the middle, (n, depths); it adds up."""
        ...

    def curve(self, evidence: np.ndarray) -> np.ndarray:
        """Return probabilities (n, depths) from the mean evidence of several images of one source."""
        ...


class CistaFinder:
    """Depth curves by CISTA-net.

    Parameters
    ----------
    network : CistaNet
    z_um : ndarray
        Of the network's depth bins.
    """

    id = "cista"

    def __init__(self, network: CistaNet, z_um: np.ndarray) -> None:
        self.network, self.z_um = network, np.asarray(z_um, float)
        self.half = network.n_lenslets // 2

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """Return logits: those of independent images add up as evidence does."""
        device = next(self.network.parameters()).device
        out = []
        with torch.inference_mode():
            for k in range(0, len(images), _AT_ONCE):
                part = torch.from_numpy(images[k : k + _AT_ONCE]).to(device)
                out.append(self.network(part, NEAR_LENSLETS).float().cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, len(self.z_um)), np.float32)

    def curve(self, evidence: np.ndarray) -> np.ndarray:
        """Return the probabilities of mean logits."""
        return np.asarray(1 / (1 + np.exp(-np.clip(evidence, -40, 40))))


class CscFinder:
    """Depth curves by convolutional sparse coding.

    Parameters
    ----------
    csc : EpipolarCsc
    z_um : ndarray
        Depths of the dictionary.
    """

    id = "csc"

    def __init__(self, csc: EpipolarCsc, z_um: np.ndarray) -> None:
        self.csc, self.z_um = csc, np.asarray(z_um, float)
        self.half = csc.lenslets // 2

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """Return the codes' sizes, the largest 1."""
        parts: list[Any] = [
            self.csc.curves(torch.from_numpy(images[k : k + _AT_ONCE]), NEAR_LENSLETS)
            for k in range(0, len(images), _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.z_um)), np.float32)

    def curve(self, evidence: np.ndarray) -> np.ndarray:
        """Return the mean sizes, the largest 1."""
        return np.asarray(evidence / np.maximum(evidence.max(1, keepdims=True, initial=0.0), 1e-12))
