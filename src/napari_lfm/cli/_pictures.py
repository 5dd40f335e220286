"""Pictures for the demo: panels with captions and scale bars, drawn with Pillow (scikit-image needs it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER, _QUIET = (25, 25, 30), (255, 255, 255), (110, 110, 118)
_GAP, _CAPTION = 14, 24


@dataclass(frozen=True)
class Panel:
    """One picture with its caption.

    Attributes
    ----------
    image : array, shape (rows, columns) or (rows, columns, 3)
        Values 0 to 1.
    caption : str
    pixel_um : tuple of float
        Size of an image pixel (y, x), micrometres; unequal sizes are drawn to scale.
    bar_um : float
        Length of the scale bar, 0 for none.
    marks : sequence of (y, x)
        Image positions to mark with a small cross.
    """

    image: npt.NDArray[np.floating]
    caption: str
    pixel_um: tuple[float, float] = (1.0, 1.0)
    bar_um: float = 0.0
    marks: Sequence[tuple[float, float]] = field(default=())


def shown(
    image: npt.ArrayLike, low: float | None = None, high: float | None = None, gamma: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return an image scaled to 0..1 between `low` and `high` (default: 0.5 and 99.8 percentiles)."""
    values = np.asarray(image, np.float64)
    low = float(np.percentile(values, 0.5)) if low is None else low
    high = float(np.percentile(values, 99.8)) if high is None else high
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(scaled**gamma)


def signed(image: npt.ArrayLike, reach: float) -> npt.NDArray[np.float64]:
    """Return a difference in colours: blue for -reach, white for 0, red for +reach."""
    v = np.clip(np.asarray(image, np.float64) / reach, -1, 1)[..., None]
    blue, white, red = (np.array(c, float) / 255 for c in ((33, 80, 170), (248, 248, 248), (190, 35, 40)))
    return np.asarray(np.where(v < 0, white + (blue - white) * -v, white + (red - white) * v))


def sheet(rows: Sequence[Sequence[Panel]], title: str, px_per_um: float) -> Image.Image:
    """Return panels in rows under a title, all at one scale.

    Parameters
    ----------
    rows : sequence of sequences of Panel
    title : str
    px_per_um : float
        Picture pixels per micrometre.
    """
    drawn = [[_draw(panel, px_per_um) for panel in row] for row in rows]
    widths = [sum(p.width for p in row) + _GAP * (len(row) + 1) for row in drawn]
    heights = [max(p.height for p in row) + _GAP for row in drawn]
    wide = max(*widths, _font(17).getlength(title) + 2 * _GAP) if widths else 0
    out = Image.new("RGB", (int(wide), sum(heights) + 2 * _GAP + 22), _PAPER)
    ImageDraw.Draw(out).text((_GAP, _GAP), title, _INK, _font(17))
    y = 2 * _GAP + 22
    for row, height in zip(drawn, heights, strict=True):
        x = _GAP
        for panel in row:
            out.paste(panel, (x, y))
            x += panel.width + _GAP
        y += height
    return out


def save(picture: Image.Image, path: Path) -> Path:
    """Save as PNG, replacing an older file only when complete."""
    from napari_lfm.io.atomic import replacing_file

    with replacing_file(path) as file:
        picture.save(file, format="PNG", optimize=True)
    return path


def _draw(panel: Panel, px_per_um: float) -> Image.Image:
    values = (255 * np.clip(panel.image, 0, 1)).astype(np.uint8)
    rows, columns = values.shape[:2]
    size = (
        max(1, round(columns * panel.pixel_um[1] * px_per_um)),
        max(1, round(rows * panel.pixel_um[0] * px_per_um)),
    )
    # nearest: voxels are shown as they are, not smoothed into something prettier
    picture = Image.fromarray(values).convert("RGB").resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for y, x in panel.marks:
        cy, cx = (y + 0.5) * size[1] / rows, (x + 0.5) * size[0] / columns
        for a, b in (((cx - 4, cy), (cx + 4, cy)), ((cx, cy - 4), (cx, cy + 4))):
            draw.line((*a, *b), fill=(255, 150, 30), width=1)
    if panel.bar_um:
        length = panel.bar_um * px_per_um
        x1, y1 = size[0] - 10, size[1] - 10
        # a dark rim: the bar must be seen on bright and on dark ground
        draw.rectangle((x1 - length - 1, y1 - 5, x1 + 1, y1 + 1), fill=(0, 0, 0))
        draw.rectangle((x1 - length, y1 - 4, x1, y1), fill=(255, 255, 255))
        text = f"{panel.bar_um:g} um"  # the built-in font has no mu
        place = (x1 - length / 2 - _font(13).getlength(text) / 2, y1 - 23)
        draw.text(place, text, (255, 255, 255), _font(13), stroke_width=1, stroke_fill=(0, 0, 0))
    out = Image.new(
        "RGB", (max(size[0], int(_font(13).getlength(panel.caption)) + 1), size[1] + _CAPTION), _PAPER
    )
    out.paste(picture, (0, 0))
    ImageDraw.Draw(out).text((0, size[1] + 4), panel.caption, _QUIET, _font(13))
    return out


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
