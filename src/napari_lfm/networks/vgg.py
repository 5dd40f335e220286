"""Features of VGG16 up to relu4_3, for a loss that compares what images look like.

Simonyan & Zisserman, ICLR 2015; as a loss: Johnson, Alahi & Fei-Fei, ECCV 2016. The weights do not travel
with this package: they are read from a file, or from torchvision where that is installed.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAYERS = ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512))
_NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
"""Layers of torchvision's ``features``."""
_BGR_MEANS = (103.939, 116.779, 123.68)
_RGB_MEANS, _RGB_STDS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEATURE_UNIT = 12.75
"""Features of the original weights are divided by this, so that their squared differences are nearer to
those of pixels (Ledig et al., CVPR 2017)."""


class VggFeatures(nn.Module):
    """Frozen convolutions of VGG16; images (B, y, x) in, 0 to 1, features (B, 512, y / 8, x / 8) out.

    Parameters
    ----------
    weights : mapping of str to array
        ``block1_conv1_weight`` and so on, as the authors published them (blue, green, red; 0 to 255), or
        ``features.0.weight`` and so on, as torchvision has them.
    where : str
        For messages.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], where: str = "the file") -> None:
        super().__init__()
        self._authors = "block1_conv1_weight" in weights
        layers: list[nn.Module] = []
        given, index = 3, 0
        for block, count, width in _LAYERS:
            if block > 1:
                layers.append(nn.MaxPool2d(2))
            for k in range(count):
                stem = f"block{block}_conv{k + 1}_" if self._authors else f"features.{_NUMBERS[index]}."
                conv = nn.Conv2d(given, width, 3, padding=1)
                for name in ("weight", "bias"):
                    value = weights.get(stem + name)
                    if value is None or tuple(value.shape) != tuple(getattr(conv, name).shape):
                        raise RequestError(
                            f"{where} does not hold VGG16: {stem}{name} is missing or of another shape.",
                            "Give its convolution weights up to relu4_3, or train without this loss.",
                        )
                    with torch.no_grad():
                        getattr(conv, name).copy_(torch.as_tensor(np.asarray(value, np.float32)))
                layers += [conv, nn.ReLU()]
                given, index = width, index + 1
        self.body = nn.Sequential(*layers)
        means, stds = (_BGR_MEANS, (FEATURE_UNIT,) * 3) if self._authors else (_RGB_MEANS, _RGB_STDS)
        self.register_buffer("means", torch.tensor(means).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("stds", torch.tensor(stds).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features; grey images are shown as three equal channels."""
        grey = images[:, None].expand(-1, 3, -1, -1)
        means, stds = self.get_buffer("means"), self.get_buffer("stds")
        if self._authors:
            out: torch.Tensor = self.body(255 * grey - means) / FEATURE_UNIT
        else:
            out = self.body((grey - means) / stds)
        return out


def perceptual_distance(vgg: VggFeatures, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of the features of images (B, y, x)."""
    with torch.no_grad():
        wanted = vgg(target)
    return functional.mse_loss(vgg(output).float(), wanted.float())


def load_vgg(path: str | Path | None) -> VggFeatures | None:
    """Return the features from a file (npz or safetensors), or from torchvision; None where there is neither.

    Raises
    ------
    RequestError
        If a file is named and cannot be used.
    """
    if path:
        file = Path(path).expanduser()
        if not file.is_file():
            raise RequestError(f"There is no file {file} with VGG16 weights.", "Check the path.")
        return VggFeatures(_read(file), str(file))
    try:
        from torchvision.models import VGG16_Weights, vgg16  # type: ignore[import-not-found]

        state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    except Exception:  # not installed, not matching this torch, or no network: the loss does without
        return None
    return VggFeatures({k: v.numpy() for k, v in state.items()}, "torchvision")


def _read(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if file.suffix == ".npz":
            # out of memory, so that no file is left open where it is damaged
            with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as found:
                return dict(found)
        if file.suffix == ".safetensors":
            return dict(load_file(file))
    except (OSError, ValueError, SafetensorError, BadZipFile):
        raise RequestError(f"{file} cannot be read.", "Get it again.") from None
    raise RequestError(
        f"{file} is neither npz nor safetensors.",
        "Convert it: pickles are not opened here, they may run code.",
    )
