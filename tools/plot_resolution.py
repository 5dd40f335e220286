"""Draw the plots of docs/results/light-field-resolution.md from the figures that the benches printed.

    napari-lfm bench beads --json > docs/results/beads.json
    napari-lfm bench sphere --json > docs/results/sphere.json
    python tools/plot_resolution.py

Plain SVG, no plotting library: the pictures are small and the same on every machine.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOCS = Path(__file__).parents[1] / "docs"
BLUE, RED, GREY, SHADE = "#1f5fa8", "#c2410c", "#6b7280", "#eceff3"
HEAD, LEFT, RIGHT, FOOT = 34, 58, 16, 46


class Panel:
    """One set of axes at (x0, y0) on the sheet."""

    def __init__(
        self,
        at: tuple[float, float],
        size: tuple[float, float],
        x_range: tuple[float, float],
        y_range: tuple[float, float],
    ) -> None:
        (self.x0, self.y0), (self.width, self.height) = at, size
        self.x_range, self.y_range = x_range, y_range
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        """Return the sheet's x of a value."""
        low, high = self.x_range
        return self.x0 + (value - low) / (high - low) * self.width

    def y(self, value: float) -> float:
        """Return the sheet's y of a value."""
        low, high = self.y_range
        return self.y0 + self.height - (value - low) / (high - low) * self.height

    def text(
        self, x: float, y: float, what: str, anchor: str = "middle", colour: str = "#111", **more: Any
    ) -> None:
        """Write at a place of the sheet."""
        extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'fill="{colour}"{extra}>{escape(what)}</text>'
        )

    def axes(
        self, title: str, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]
    ) -> None:
        """Draw frame, ticks and labels."""
        right, bottom = self.x0 + self.width, self.y0 + self.height
        for value in y_ticks:
            y = self.y(value)
            self.parts.append(f'<path d="M{self.x0} {y:.1f}H{right}" stroke="#d6dae0" stroke-width="1"/>')
            self.text(self.x0 - 6, y + 4, f"{value:g}", "end")
        for value in x_ticks:
            self.parts.append(f'<path d="M{self.x(value):.1f} {bottom}v4" stroke="#111"/>')
            self.text(self.x(value), bottom + 17, f"{value:g}")
        self.parts.append(
            f'<rect x="{self.x0}" y="{self.y0}" width="{self.width}" height="{self.height}" '
            f'fill="none" stroke="#111"/>'
        )
        self.text(self.x0 + self.width / 2, self.y0 - 10, title, font_weight="bold")
        self.text(self.x0 + self.width / 2, bottom + 36, x_label)
        cx, cy = self.x0 - 42, self.y0 + self.height / 2
        self.text(cx, cy, y_label, transform=f"rotate(-90 {cx:.1f} {cy:.1f})")

    def band(self, low: float, high: float) -> None:
        """Shade a range of x."""
        x = self.x(max(low, self.x_range[0]))
        self.parts.append(
            f'<rect x="{x:.1f}" y="{self.y0}" width="{self.x(high) - x:.1f}" '
            f'height="{self.height}" fill="{SHADE}"/>'
        )

    def line(
        self, points: Iterable[tuple[float, float]], colour: str, dash: str = "", dots: bool = False
    ) -> None:
        """Draw a line, with dots on it where asked."""
        places = [(self.x(a), self.y(b)) for a, b in points]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{style}/>')
        if dots:
            self.dots(points, colour, 3)

    def dots(self, points: Iterable[tuple[float, float]], colour: str, radius: float = 2.6) -> None:
        """Draw dots; what lies outside the axes is put on their edge, hollow."""
        for a, b in points:
            inside = min(max(b, self.y_range[0]), self.y_range[1])
            fill = colour if inside == b else "none"
            self.parts.append(
                f'<circle cx="{self.x(a):.1f}" cy="{self.y(inside):.1f}" r="{radius}" fill="{fill}" '
                f'stroke="{colour}" fill-opacity="0.75"/>'
            )

    def legend(self, entries: Sequence[tuple[str, str, str]], at: tuple[float, float]) -> None:
        """Write (colour, dash, label) rows from a place inside the axes."""
        x, y = at
        for k, (colour, dash, label) in enumerate(entries):
            row = y + 16 * k
            style = f' stroke-dasharray="{dash}"' if dash else ""
            self.parts.append(f'<path d="M{x} {row}h22" stroke="{colour}" stroke-width="2"{style}/>')
            self.text(x + 28, row + 4, label, "start")


def sheet(width: float, height: float, panels: Iterable[Panel]) -> str:
    """Return the SVG document."""
    body = "\n".join(part for panel in panels for part in panel.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="Helvetica, Arial, sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return evenly spaced round numbers within a range."""
    raw = (high - low) / count
    step = next(s for s in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 50, 100) if s >= 0.8 * raw)
    first = -int(-low // step) if low > 0 else int(low / step)
    ticks = [round(step * k, 6) for k in range(first, int(high / step + 1e-9) + 1)]
    return [t for t in ticks if low - 1e-9 <= t <= high + 1e-9]


def width_plot(cases: dict[str, Any]) -> str:
    """Draw FWHM against depth, one panel for each microscope."""
    panels = []
    size = (330.0, 250.0)
    for k, (name, case) in enumerate(cases.items()):
        microscope = load_microscope(name)
        low, high, _ = case["z_um"]
        rows, dof = case["by_depth"], case["depth_of_field_um"]
        top = 1.15 * max(max(r["fwhm_axial_um"], r["fwhm_lateral_um"]) for r in rows)
        panel = Panel((LEFT + k * (size[0] + LEFT + RIGHT), HEAD), size, (low, high), (0, top))
        panel.band(-dof, dof)
        panel.axes(
            name,
            "depth z (µm)",
            "full width at half maximum (µm)",
            round_ticks(low, high, 6),
            round_ticks(0, top),
        )
        panel.line([(r["z_um"], r["fwhm_axial_um"]) for r in rows], RED, dots=True)
        panel.line([(r["z_um"], r["fwhm_lateral_um"]) for r in rows], BLUE, dots=True)
        fine = [low + (high - low) * i / 240 for i in range(241)]
        panel.line([(z, microscope.lateral_resolution_at(z)) for z in fine if abs(z) >= dof], GREY, "5 4")
        panel.line([(low, case["voxel_um"]), (high, case["voxel_um"])], GREY, "1 3")
        panels.append(panel)
    width = 2 * (size[0] + LEFT + RIGHT)
    notes = Panel((0, 0), (width, 10), (0, 1), (0, 1))
    rows = [(RED, "", "axial"), (BLUE, "", "lateral"), (GREY, "5 4", "band limit"), (GREY, "1 3", "voxel")]
    for k, entry in enumerate(rows):
        notes.legend([entry], (LEFT + 110 * k, HEAD + size[1] + FOOT + 12))
    notes.text(LEFT + 450, HEAD + size[1] + FOOT + 16, "shaded: within the depth of field", "start")
    return sheet(width, HEAD + size[1] + FOOT + 30, [*panels, notes])


def error_plot(cases: dict[str, Any]) -> str:
    """Draw every bead's error against depth: axial in z steps above, lateral in voxels below."""
    panels = []
    size = (330.0, 170.0)
    for k, (name, case) in enumerate(cases.items()):
        low, high, step = case["z_um"]
        dof, beads = case["depth_of_field_um"], case["beads"]
        lateral = [(b[0], (b[2] ** 2 + b[3] ** 2) ** 0.5 / case["voxel_um"]) for b in beads]
        for row, (title, label, points, y_range, limit) in enumerate(
            (
                (name, "axial error (z steps)", [(b[0], b[1] / step) for b in beads], (-1.25, 1.25), (-1, 1)),
                ("", "lateral error (voxels)", lateral, (0.0, 1.0), (0.5,)),
            )
        ):
            at = (LEFT + k * (size[0] + LEFT + RIGHT), HEAD + row * (size[1] + FOOT))
            panel = Panel(at, size, (low, high), y_range)
            panel.band(-dof, dof)
            ticks = [-1, -0.5, 0, 0.5, 1] if row == 0 else [0, 0.25, 0.5, 0.75, 1]
            panel.axes(title, "true depth z (µm)", label, round_ticks(low, high, 6), ticks)
            for value in limit:
                panel.line([(low, value), (high, value)], GREY, "5 4")
            panel.dots(points, RED if row == 0 else BLUE)
            panels.append(panel)
    return sheet(2 * (size[0] + LEFT + RIGHT), HEAD + 2 * (size[1] + FOOT), panels)


def scale_plot(subjects: dict[str, Any]) -> str:
    """Draw the axial scale of every subject for the three ways to treat the white frame."""
    order = [n for n in subjects if n != "real vesicle"] + [n for n in subjects if n == "real vesicle"]
    ways = {"vignetting pupil": BLUE, "vignetting white": RED, "vignetting none": GREY}
    left, row = 240, 30
    values = [subjects[n][w]["axial_scale"] for n in order for w in ways]
    high = max(values) + 0.05
    panel = Panel((left, HEAD), (430, row * len(order)), (0.98, high), (0, len(order)))
    ticks = [t for t in (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3) if t <= high]
    panel.axes("", "axial scale: lateral over axial radius (1: a sphere)", "", ticks, [])
    for tick in ticks:
        panel.line([(tick, 0), (tick, len(order))], "#111" if tick == 1 else "#d6dae0")
    for k, name in enumerate(order):
        middle = len(order) - k - 0.5
        weight = "bold" if name == "real vesicle" else "normal"
        panel.text(left - 10, panel.y(middle) + 4, name, "end", font_weight=weight)
        for j, (way, colour) in enumerate(ways.items()):
            fit, y = subjects[name][way], middle + 0.22 * (1 - j)
            error = 2 * fit["axial_scale_error"]
            panel.line([(fit["axial_scale"] - error, y), (fit["axial_scale"] + error, y)], colour)
            panel.dots([(fit["axial_scale"], y)], colour, 3.5)
    for j, (way, colour) in enumerate(ways.items()):
        panel.legend([(colour, "", way)], (left + 150 * j, HEAD + row * len(order) + FOOT + 12))
    return sheet(left + 430 + RIGHT, HEAD + row * len(order) + FOOT + 30, [panel])


def main() -> None:
    """Write the pictures."""
    results, images = DOCS / "results", DOCS / "images"
    beads = json.loads((results / "beads.json").read_text("utf-8"))
    cases = {name: case for name, case in beads.items() if name != "machine"}
    sphere = json.loads((results / "sphere.json").read_text("utf-8"))
    for name, picture in {
        "bead-width": width_plot(cases),
        "bead-error": error_plot(cases),
        "axial-scale": scale_plot(sphere["subjects"]),
    }.items():
        (images / f"{name}.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
