"""The stack that isotropic restoration is trained on: read or handed over, one frame of it, its blur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.isotropic.blur import choose_blur
from napari_lfm.methods.isotropic.plan import frame_of, understood

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import xarray as xr

    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.methods.train_isotropic_wish import IsotropicWish
    from napari_lfm.training.isotropic_degradation import Degradation


@dataclass(frozen=True)
class IsotropicStack:
    """A stack as it was recorded.

    Attributes
    ----------
    name : str
    image : DataArray, dims out of ``t c z y x``
    psf : DataArray, optional
        A measured point spread function.
    blur : ChosenBlur, optional
        Where it is known already.
    """

    name: str
    image: xr.DataArray
    psf: xr.DataArray | None = None
    blur: ChosenBlur | None = None


@dataclass(frozen=True)
class TrainingFrame:
    """What is trained on.

    Attributes
    ----------
    values : ndarray, shape (channels, z, y, x)
        Every value a number.
    found : Understood
        Of the whole image.
    frame : int
        Of a movie.
    """

    values: np.ndarray
    found: Understood
    frame: int


def read_isotropic_stack(wish: IsotropicWish, layers: Sequence[IsotropicStack] = ()) -> IsotropicStack:
    """Return the stack of a wish.

    Parameters
    ----------
    wish : IsotropicWish
    layers : sequence of IsotropicStack
        The one that the wish names.

    Raises
    ------
    RequestError
        If it is not handed over, or no readable stack with sizes.
    """
    if wish.layers:
        named = [s for s in layers if s.name == wish.layers[0]]
        if not named:
            raise RequestError(
                f"The stack that this training is for is not here: {wish.layers[0]}.",
                "Open it again, under this name.",
            )
        return named[0]
    from napari_lfm.io.read import read_image

    path = Path(wish.stacks[0]).expanduser()
    image = read_image(path, "stack", wish.axes, wish.voxel_um)
    psf = None
    if wish.psf:
        psf = read_image(Path(wish.psf).expanduser(), None, voxel_um=wish.psf_voxel_um)
    return IsotropicStack(path.name, image, psf)


def training_frame(wish: IsotropicWish, image: xr.DataArray) -> TrainingFrame:
    """Return the frame and channels that are trained on; of a movie the middle one unless one is named.

    Raises
    ------
    RequestError
        As `understood`; if there is no such frame or channel.
    """
    found = understood(image, wish)
    for what, k, n in (
        ("frame", wish.frame, found.info.frames),
        ("channel", wish.channel, found.info.channels),
    ):
        if k is not None and k >= n:
            raise RequestError(
                f"There is no {what} {k}: the stack has {n}.", f"Give 0 to {n - 1}, or leave it out."
            )
    frame = found.info.frames // 2 if wish.frame is None else wish.frame
    return TrainingFrame(frame_of(image, frame, wish.channel), found, frame)


def training_degradation(
    wish: IsotropicWish, stack: IsotropicStack, frame: TrainingFrame
) -> tuple[Degradation, ChosenBlur]:
    """Return how slices are made coarse, and the blur that this is made with.

    Raises
    ------
    RequestError
        If the blur cannot be found.
    """
    from napari_lfm.training.isotropic_degradation import csbdeep_degradation, modern_degradation

    blur = stack.blur or choose_blur(frame.values, frame.found, wish, wish.microscope, stack.psf)
    factor = frame.found.factor
    if wish.profile == "csbdeep":
        return csbdeep_degradation(factor, kernel=blur.kernel), blur
    return modern_degradation(factor, kernel=blur.kernel, channels=list(frame.values)), blur
