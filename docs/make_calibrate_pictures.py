"""Draw the pictures of how-to/calibrate.md: ``python docs/make_calibrate_pictures.py FOLDER``.

FOLDER holds the raw light field, white and dark frame of the giant-vesicle recording (napari-LF's
GUVExperim1). The pictures in the repository were made with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from napari_lfm.lightfield.calibrate import calibrate, residual_map
from napari_lfm.lightfield.rectify import rectify
from napari_lfm.lightfield.views import Refocuser, lf4d

OUT = Path(__file__).parent / "images"
ZOOM = 3
GAP = 8
ORANGE, BLUE = (255, 150, 30), (60, 170, 255)


def grey(image: np.ndarray, low: float = 0.5, high: float = 99.7) -> np.ndarray:
    """Return an image as 8-bit grey between two percentiles."""
    a, b = np.percentile(image, [low, high])
    return (255 * np.clip((image - a) / max(b - a, 1e-9), 0, 1)).astype(np.uint8)


def grid_over(image, lattice, corner, size):
    """Return a zoomed crop with cells (blue) and centres (orange)."""
    y0, x0 = corner
    crop = Image.fromarray(grey(image)[y0 : y0 + size, x0 : x0 + size]).convert("RGB")
    crop = crop.resize((size * ZOOM, size * ZOOM), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(crop)
    down, right = (np.array(s) / 2 for s in (lattice.row_step_px, lattice.column_step_px))
    for centre in lattice.centres_px().reshape(-1, 2):
        ring = [centre - down - right, centre - down + right, centre + down + right, centre + down - right]
        place = [tuple(((p - (y0, x0) + 0.5) * ZOOM)[::-1]) for p in [centre, *ring]]
        draw.polygon(place[1:], outline=BLUE)
        x, y = place[0]
        draw.line([(x - 3, y), (x + 3, y)], fill=ORANGE)
        draw.line([(x, y - 3), (x, y + 3)], fill=ORANGE)
    return crop


def beside(pictures):
    """Return pictures side by side on white."""
    width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
    out = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        out.paste(picture, (x, 0))
        x += picture.width + GAP
    return out


def arrows(residual, scale_px):
    """Return the residual map: one arrow per lenslet, `scale_px` pixels of picture per raw pixel."""
    rows, columns, _ = residual.shape
    pitch = 16
    out = Image.new("RGB", (columns * pitch, rows * pitch), "white")
    draw = ImageDraw.Draw(out)
    for i in range(rows):
        for j in range(columns):
            y, x = (i + 0.5) * pitch, (j + 0.5) * pitch
            dy, dx = residual[i, j] * scale_px
            if not np.isfinite(dy + dx):
                draw.point((x, y), fill=(200, 0, 0))
                continue
            draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(150, 150, 150))
            draw.line([(x, y), (x + dx, y + dy)], fill=(20, 60, 160), width=1)
    return out


def small(image):
    """Return a lenslet-resolution image, enlarged."""
    picture = Image.fromarray(grey(image, 0.5, 99.9))
    side = 196
    return picture.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def main(folder: Path) -> None:
    """Draw all pictures."""
    names = ("Lightfield", "Radiometry", "DarkFrame")
    raw, white, dark = (tifffile.imread(folder / f"{name}_GUVExperim1.tif") for name in names)
    from_white, blind = calibrate(white=white), calibrate(raw)
    grids = [grid_over(white, from_white, (0, 0), 150), grid_over(raw, blind, (60, 80), 150)]
    beside(grids).quantize(128).save(OUT / "calibrate-grid.png", optimize=True)
    maps = [arrows(residual_map(from_white, white), 40), arrows(residual_map(blind, raw), 40)]
    beside(maps).quantize(16).save(OUT / "calibrate-residual.png", optimize=True)
    views = Refocuser(lf4d(rectify(raw, from_white, 15, dark=dark)))
    pictures = [small(views.view(7, u)) for u in (3, 11)]
    pictures += [small(views.refocus(slope, 3)) for slope in (-0.3, 0.0, 0.3)]
    beside(pictures).quantize(64).save(OUT / "calibrate-views.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
