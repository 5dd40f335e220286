"""Fill docs/results/isotropic.md with the figures that the bench wrote, and draw its plot.

python -m napari_lfm.bench.isotropic --csbdeep PYTHON --pictures docs/images --save FIGURES
python tools/isotropic_page.py

FIGURES is docs/results/isotropic.json. What stands between ``<!-- NAME -->`` and ``<!-- end -->`` on the page
is made here; the rest of it is left alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from plot_resolution import BLUE, DOCS, GREY, RED, Panel, round_ticks, sheet
from refocus_page import table

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = DOCS / "results" / "isotropic.json"
PAGE = DOCS / "results" / "isotropic.md"
PLOT = DOCS / "images" / "isotropic-course.svg"
ABSENT = "Not measured yet."
GOAL_DB = 3.0
WAYS = {
    "linear": "linear interpolation",
    "cubic": "cubic interpolation",
    "richardson-lucy": "Richardson-Lucy, best",
    "csbdeep": "CSBDeep",
    "network": "ours",
    "starter": "the starter as it is",
    "started": "ours, from the starter",
    "truth": "truth",
}
Figures = dict[str, Any]


def about(found: Figures) -> str:
    """Say on what machine it was measured."""
    machine = found.get("machine")
    if machine is None:
        return ABSENT
    return f"Measured on {machine['cores']} cores of {machine['cpu']}."


def quality(found: Figures) -> str:
    """Return the scores."""
    q = found["quality"]
    rows = [
        [
            row["specimen"],
            f"{row['factor']:g}",
            WAYS[row["way"]],
            f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.3f}",
            _um(row["resolution_z_um"]),
            _um(row["resolution_x_um"]),
            f"{row['seconds']:.0f}" if "seconds" in row else "-",
        ]
        for row in q["rows"]
        if row["way"] != "linear"
    ]
    head = ["specimen", "anisotropy", "way", "PSNR, dB", "SSIM", "resolution z, µm", "x, µm", "training, s"]
    return (
        f"{q['steps']} steps of {q['batch']} patches of {q['patch_px']} x {q['patch_px']} pixels; seconds "
        f"are the processor's.\n\n{table(head, rows)}\n\n{verdict(q['rows'])}"
    )


def verdict(rows: list[Figures]) -> str:
    """Say which goals are met."""
    at = {(r["specimen"], r["factor"], r["way"]): r for r in rows}
    said = []
    for specimen, factor in dict.fromkeys((r["specimen"], r["factor"]) for r in rows):
        ours, plain = (at[specimen, factor, way]["psnr_db"] for way in ("network", "cubic"))
        text = f"{specimen}, {factor:g}: {ours - plain:+.2f} dB over cubic interpolation"
        if factor == 4:
            text += f" (goal of {GOAL_DB:g} dB {'reached' if ours - plain >= GOAL_DB else 'missed'})"
        peer = at.get((specimen, factor, "csbdeep"))
        if peer is not None:
            text += f", {ours - peer['psnr_db']:+.2f} dB over CSBDeep"
        said.append(f"- {text}.")
    return "\n".join(said)


def speed(found: Figures) -> str:
    """Return the steps per second."""
    s = found["speed"]
    names = {"csbdeep": "CSBDeep", "ours_float32": "ours, float32", "ours": "ours, as it comes"}
    least = s.get("csbdeep")
    rows = [
        [label, f"{s[name]:.2f}", f"{s[name] / least:.1f}" if least else "-"]
        for name, label in names.items()
        if name in s
    ]
    return (
        f"{s['batch']} patches of {s['patch_px']} x {s['patch_px']} pixels, one thread, taking turns.\n\n"
        f"{table(['network', 'steps per second', 'times CSBDeep'], rows)}\n\n"
        f"{100 * s['drawing_share']:.0f} % of our step goes into drawing and degrading the patches, which "
        "CSBDeep has done before."
    )


def course(found: Figures) -> str:
    """Return what minutes give."""
    c = found["course"]
    rows = [
        [
            r["start"],
            f"{r['minutes']:g}",
            f"{r['steps']:,}",
            f"{r['psnr_db']:.2f}",
            f"{100 * r['gain_share']:.0f} %",
        ]
        for r in c["rows"]
    ]
    head = ["from", "minutes", "steps", "PSNR, dB", "share of the final gain"]
    start = f"The starter is `{c['starter']}`." if c["starter"] else "There is no starter model yet."
    return (
        f"{c['specimen'].capitalize()} at {c['factor']:g}; cubic interpolation has {c['cubic_db']:.2f} dB; "
        f"threads: {c['threads']}. {start}\n\n"
        f"![PSNR against minutes](../images/{PLOT.name})\n\n{table(head, rows)}"
    )


def blur(found: Figures) -> str:
    """Return how near the estimates of the blur are."""
    rows = [
        [
            name,
            f"{s['stacks']:g}",
            f"{s['told']:g}",
            *(["-"] * 4 if s["close"] is None else _near(s)),
        ]
        for name, s in found["blur"]["summary"].items()
    ]
    head = [
        "specimen",
        "stacks",
        "told",
        "within 10 %",
        "median ratio",
        "worst",
        "within 2 stated deviations",
    ]
    return table(head, rows)


def _near(s: Figures) -> list[str]:
    return [
        f"{100 * s['close']:.0f} %",
        f"{s['median_ratio']:.3f}",
        f"{s['worst_ratio']:.2f}",
        f"{100 * s['covered']:.0f} %",
    ]


def segmentation(found: Figures) -> str:
    """Return how nuclei are found."""
    s = found["segmentation"]
    rows = [
        [
            f"{r['factor']:g}",
            WAYS[r["way"]],
            f"{r['rand']:.3f}",
            f"{r['iou']:.3f}",
            f"{100 * r['found']:.0f} %",
        ]
        for r in s["rows"]
    ]
    return f"{s['nuclei']} nuclei.\n\n" + table(
        ["anisotropy", "stack", "adjusted Rand index", "mean IoU", "found"], rows
    )


def real(found: Figures) -> str:
    """Return the figures of recorded stacks."""
    rows, pictures = [], []
    for name, r in found["real"].items():
        if r is None:
            continue
        told = "" if r["blur_uncertainty_um"] is None else f" ± {r['blur_uncertainty_um']:.2f}"
        rows.append(
            [
                name,
                f"{r['factor']:.2f}",
                f"{r['blur_um']:.2f}{told}",
                *(_um(r[when]["z"]) for when in ("before", "cubic", "after")),
                _um(r["after"]["x"]),
                f"{100 * r['consistency_share']:.1f} %",
                f"{100 * r['cubic_share']:.1f} %",
            ]
        )
        pictures.append(
            f"![{name} along z, before and after](../images/isotropic-{name.replace(' ', '-')}.png)"
        )
    head = [
        "stack", "anisotropy", "blur along z, µm", "z before, µm", "z, cubic", "z after", "x after",
        "left unexplained", "by cubic interpolation",
    ]  # fmt: skip
    return table(head, rows) + "\n\n" + "\n\n".join(pictures)


def large(found: Figures) -> str:
    """Return time and memory of a large stack."""
    r = found["large"]
    z, y, x = r["shape"]
    how = "bfloat16" if r["bfloat16"] else "float32"
    return (
        f"To {z} x {y} x {x} voxels: **{r['seconds'] / 60:.1f} minutes**, threads: {r['threads']}, {how}; "
        f"{r['peak_gib']:.2f} GiB at most, {r['result_gib']:.2f} GiB of them result and disagreement. It can "
        f"be stopped between any two events, at most {r['longest_s']:.2f} s apart."
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _um(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


BLOCKS: dict[str, Callable[[Figures], str]] = {
    f.__name__: f for f in (about, quality, speed, course, blur, segmentation, real, large)
}


def filled(page: str, found: Figures) -> str:
    """Return the page with every block made anew."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        text = BLOCKS[name](found) if name in found or name == "about" else ABSENT
        return f"<!-- {name} -->\n\n{text}\n\n<!-- end -->"

    return re.sub(r"<!-- (?!end)(\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def course_plot(found: Figures) -> str:
    """Draw PSNR against minutes."""
    c = found["course"]
    values = [r["psnr_db"] for r in c["rows"]] + [c["cubic_db"]]
    low, high = min(values) - 0.5, max(values) + 0.5
    most = max(r["minutes"] for r in c["rows"])
    panel = Panel((70, 40), (420, 240), (0, most), (low, high))
    panel.axes("training on the stack", "minutes", "PSNR (dB)", round_ticks(0, most), round_ticks(low, high))
    legend = []
    for start, colour in (("random", BLUE), ("starter", RED)):
        points = sorted((r["minutes"], r["psnr_db"]) for r in c["rows"] if r["start"] == start)
        if points:
            panel.line(points, colour)
            panel.dots(points, colour)
            legend.append((colour, "", f"from {'random weights' if start == 'random' else 'the starter'}"))
    panel.line([(0, c["cubic_db"]), (most, c["cubic_db"])], GREY, "3 3")
    panel.legend([*legend, (GREY, "3 3", "cubic interpolation")], (320, 200))
    return sheet(520, 340, [panel])


def main() -> None:
    """Write the page and the picture."""
    found = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else {}
    PAGE.write_text(filled(PAGE.read_text("utf-8"), found), "utf-8")
    if "course" in found:
        PLOT.write_text(course_plot(found), "utf-8")


if __name__ == "__main__":
    main()
