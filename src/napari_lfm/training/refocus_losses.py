"""Losses of virtual refocusing: planes, each over its own brightness, and what is not explained."""

from __future__ import annotations

import torch
from torch.nn import functional

from napari_lfm.networks.refocus_depth import CELL_PX

CONSISTENT_PX = 8.0
"""Consistency is asked for below this scale: haze from beyond the range is not the stack's."""
LEAST_PEAK = {"widefield": 0.3, "confocal": 0.1}
"""Brightest of a plane, over that of the image, from which on it counts in full."""
_FLOOR = 1e-4
_OF_BRIGHTEST = 0.3
SIGNAL_WEIGHT = 10.0
"""How much more the difference counts where there is light."""
COARSE = (3, 4)
"""Planes and pixels of a neighbourhood."""


def differences(
    light: torch.Tensor,
    roots: torch.Tensor | None,
    wanted: torch.Tensor,
    valid: torch.Tensor,
    least_peak: float,
    rim_px: int,
) -> dict[str, torch.Tensor]:
    """Return the absolute difference of square roots and the squared one of light.

    Where there is light the former counts more: a median of nothing would be the best answer to points that
    could be a pixel further on. The latter is linear from the plane's own brightness on.

    Parameters
    ----------
    light : Tensor, shape (n, y, x)
        What was found.
    roots : Tensor, shape (n, y, x), or None
        Its square roots, negative ones too: where they are, they are pulled back to 0. None: of `light`.
    wanted : Tensor, shape (n, y, x)
    valid : Tensor, shape (n,)
        1 for planes that count.
    least_peak : float
        Of the brightness that differences are taken over.
    rim_px : int
        At the border that are left out.
    """
    inner = (..., slice(rim_px, -rim_px), slice(rim_px, -rim_px))
    light, wanted = light[inner], wanted[inner].clamp(min=0)
    if roots is None:
        # below 0 the slope of the root at the floor goes on
        positive = (light.clamp(min=0) + _FLOOR).sqrt() - _FLOOR**0.5
        roots = torch.where(light > 0, positive, light / (2 * _FLOOR**0.5) * 0.1)
    else:
        roots = roots[inner]
    flat = wanted.flatten(1)
    most = torch.quantile(flat[:, ::7], 0.999, dim=1).maximum(_OF_BRIGHTEST * flat.amax(1))
    peak = most[:, None, None].clamp(min=least_peak)
    weight = valid / valid.sum().clamp(min=1e-6)
    root = wanted.sqrt()
    signal = 1 + SIGNAL_WEIGHT * (root / peak.sqrt()).clamp(max=1)
    away = (roots - root).abs() / peak.sqrt() * signal
    square = functional.smooth_l1_loss(light / peak, wanted / peak, reduction="none") * 2
    return {
        "roots": (away.mean((1, 2)) * weight).sum(),
        "squares": (square.mean((1, 2)) * weight).sum(),
    }


def coarse_differences(
    light: torch.Tensor, wanted: torch.Tensor, valid: torch.Tensor, least_peak: float, rim_px: int
) -> torch.Tensor:
    """Return the difference of square roots of neighbourhoods, `COARSE` planes, rows and columns.

    A point that is found a pixel or a plane beside its place is no loss here, one that is missed is.
    Parameters as for `differences`.
    """
    pool = COARSE[0], COARSE[1], COARSE[1]
    found, meant, known = (
        functional.avg_pool3d(part[None], pool, (1, *pool[1:]))[0]
        for part in (light, wanted.clamp(min=0), valid[:, None, None].expand_as(light))
    )
    rim = max(1, rim_px // COARSE[1])
    whole = (known.amin((1, 2)) > 1 - 1e-3).to(light.dtype)
    return differences(found, None, meant, whole, 0.3 * least_peak, rim)["roots"]


def share_loss(
    log_shares: torch.Tensor, confocal: torch.Tensor, valid: torch.Tensor, rim_px: int
) -> torch.Tensor:
    """Return how far the shares of light by plane are from the true ones: Kullback and Leibler's divergence.

    Parameters
    ----------
    log_shares : Tensor, shape (planes, cells, cells)
        Logarithms; of planes that are not valid nothing is asked.
    confocal : Tensor, shape (planes, y, x)
    valid : Tensor, shape (planes,)
    rim_px : int
        At the border that are left out.
    """
    cells = functional.avg_pool2d(confocal[:, None], CELL_PX, ceil_mode=True)[:, 0] * valid[:, None, None]
    given = log_shares.float().masked_fill(valid[:, None, None] < 0.5, -30.0)
    given = given - torch.logsumexp(given, 0, keepdim=True)
    rim = min(-(-rim_px // CELL_PX), (min(cells.shape[1:]) - 1) // 2)
    inner = (..., slice(rim, cells.shape[1] - rim), slice(rim, cells.shape[2] - rim))
    cells, given = cells[inner], given[inner]
    total = cells.sum(0)
    wanted = cells / (total + 1e-6)
    away = (wanted * (torch.log(wanted + 1e-6) - given)).sum(0)
    weight = total.sqrt()  # what is dim counts less, but counts
    return (away * weight).mean() / (weight.mean() + 1e-6)


def high_passed(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, y, x) without what is wider than `CONSISTENT_PX`."""
    half = min(int(2 * CONSISTENT_PX), min(images.shape[1:]) - 1)
    line = torch.exp(-0.5 * (torch.arange(-half, half + 1, device=images.device) / CONSISTENT_PX) ** 2)
    line = (line / line.sum()).to(images.dtype)
    padded = functional.pad(images[:, None], (half,) * 4, mode="reflect")
    smooth = functional.conv2d(functional.conv2d(padded, line[None, None, None]), line[None, None, :, None])
    return images - smooth[:, 0]
