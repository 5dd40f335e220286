"""Fill docs/results/refocus.md with the figures that the bench wrote, and draw its plots.

python -m napari_lfm.bench.refocus refocus-20x0.8 --save docs/results/refocus-20x0.8.json
python -m napari_lfm.bench.refocus refocus-40x1.3 --save docs/results/refocus-40x1.3.json
python tools/refocus_page.py

What stands between ``<!-- NAME -->`` and ``<!-- end -->`` is made here; the rest of the page is left alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from plot_resolution import BLUE, DOCS, GREY, RED, Panel, round_ticks, sheet

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = DOCS / "results" / "refocus.md"
MODELS = ("refocus-20x0.8", "refocus-40x1.3")
PARTS = ("networks", "quality", "beads", "sides", "surfaces", "real", "speed")
ABSENT = "Not measured yet."
GOAL_DB = 3.0
GREEN = "#15803d"
WAYS = (
    ("input", GREY, "3 3", "input"),
    ("wiener", GREEN, "6 3", "Wiener, best"),
    ("richardson-lucy", RED, "", "Richardson-Lucy, best"),
    ("network alone", BLUE, "2 2", "network, no steps after it"),
    ("network", BLUE, "", "network"),
)
NEEDED = {"quality": ("quality",), "beads": ("beads", "sides")}
"""Parts that a plot shows."""
_LIKENESS = ("correlation", "on_axis")
HEADS = {"widefield": "wide-field", "confocal": "confocal"}
Figures = dict[str, Any]


def read() -> dict[str, Figures]:
    """Return the kept figures of every model."""
    paths = {name: DOCS / "results" / f"{name}.json" for name in MODELS}
    return {n: json.loads(p.read_text("utf-8")) for n, p in paths.items() if p.is_file()}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def about(found: Figures) -> str:
    """Say which model and machine."""
    m, machine = found["model"], found.get("machine", {})
    where = f"; on {machine['cores']} cores of {machine['cpu']}" if machine else ""
    return (
        f"`{m['id']}`, weights `{m['sha256'][:12]}`: {m['range_um']:g} µm on both sides of the image, "
        f"pixels of {m['pixel_um']:g} µm, stated aberration {m['spherical_rms_waves']:.2f} waves rms{where}."
    )


def quality_picture(found: Figures) -> str:
    """Return the plot of scores, where they are measured."""
    return _picture(found, "quality", "PSNR against distance, for both heads")


def beads_picture(found: Figures) -> str:
    """Return the plot of widths and sides, where they are measured."""
    return _picture(found, "beads", "Width of beads against distance, and how often the side is told")


def _picture(found: Figures, name: str, what: str) -> str:
    for part in NEEDED[name]:
        found[part]
    return f"![{what}](../images/{found['model']['id']}-{name}.svg)"


def networks(found: Figures) -> str:
    """Return the parameter counts."""
    n = found["networks"]
    rows = [
        ["as published, five levels", f"{n['paper_5_levels']:,}"],
        ["as released, six levels", f"{n['paper_6_levels']:,}"],
        [f"`{found['model']['id']}`", f"{n['modern']:,}"],
    ]
    return table(["network", "numbers"], rows)


def gains(found: Figures) -> str:
    """Return the mean gains, beside the goal."""
    return _gains(found["quality"], found["model"]["range_um"])


def layer_gains(found: Figures) -> str:
    """Return the same for thin layers, and the gains by family."""
    layers = found["quality"]["layers"]
    return f"{_gains(layers, found['model']['range_um'])}\n\n{_by_specimen(layers)}"


def _gains(q: Figures, range_um: float) -> str:
    rows = [
        [
            HEADS[s["head"]],
            f"{s['electrons']:g}",
            f"{s['over_input_db']:+.2f}",
            f"{s['least_over_input_db']:+.2f}",
            f"{s['unfitted_over_input_db']:+.2f}",
            f"{s['over_physical_db']:+.2f}",
        ]
        for s in q["summary"]
    ]
    head = ["head", "electrons", "over the input, dB", "at the worst distance", "without the fit"]
    shown = table([*head, "over the best deconvolution, dB"], rows)
    said = []
    for s in q["summary"]:
        verdict = "reached" if s["over_input_db"] >= GOAL_DB else "missed"
        beside = "above" if s["over_physical_db"] > 0 else "below"
        said.append(
            f"{HEADS[s['head']]}, {s['electrons']:g} electrons: the goal of {GOAL_DB:g} dB is {verdict}, and "
            f"the network is {beside} the best deconvolution on average"
        )
    listed = "\n".join(f"- {line}." for line in said)
    return f"Mean over |z| from {0.2 * range_um:g} µm on:\n\n{shown}\n\n{listed}"


def by_distance(found: Figures) -> str:
    """Return PSNR, similarity and Pearson by distance, for both heads at the least noise."""
    parts = []
    electrons = max(r["electrons"] for r in found["quality"]["rows"])
    for head, name in HEADS.items():
        rows = [r for r in found["quality"]["rows"] if r["head"] == head and r["electrons"] == electrons]
        lines = []
        for r in rows:
            scores = [r.get(w) for w, *_ in WAYS]
            cells = [
                f"{s['psnr_db']:.2f} / {s['ssim']:.3f} / {s['pearson']:.3f}" if s else "" for s in scores
            ]
            lines.append([f"{r['z_um']:g}", *cells])
        parts.append(
            f"Against the {name} plane, {electrons:g} electrons; PSNR (dB) / SSIM / Pearson:\n\n"
            + table(["\\|z\\|, µm", *(label for *_, label in WAYS)], lines)
        )
    return "\n\n".join(parts)


def _scores(s: dict[str, float] | None) -> str:
    return "" if s is None else f"{s['psnr_db']:.2f} / {s['ssim']:.3f} / {s['pearson']:.3f}"


def by_specimen(found: Figures) -> str:
    """Return gains by family and density."""
    return _by_specimen(found["quality"])


def _by_specimen(q: Figures) -> str:
    kept = {(r["family"], r["density"], r["head"]): r for r in q["by_family"]}
    rows = []
    for family, density in dict.fromkeys((f, d) for f, d, _ in kept):
        cells = []
        for head in HEADS:
            r = kept.get((family, density, head))
            cells += [f"{r['over_input_db']:+.2f}", f"{r['over_physical_db']:+.2f}"] if r else ["", ""]
        rows.append([family, density, *cells])
    head = ["specimen", "", "wide field: over input", "over deconvolution", "confocal: over input"]
    return table([*head, "over deconvolution"], rows)


def beads(found: Figures) -> str:
    """Return the extension of the depth of field."""
    b = found["beads"]
    rows = []
    for way, label in (("input", "input"), ("widefield", "wide-field head"), ("confocal", "confocal head")):
        low, high = b["range_um"][way]
        rows.append([label, f"{low:g} to {high:g} µm", f"{b['fold'][way]:.1f}"])
    focus = b["in_focus_um"]
    claim = found["published"]["depth_of_field_fold"]
    most = 2 * found["model"]["range_um"] / b["depth_of_field_um"]
    return (
        table(["", "sharp from, to", "over the depth of field"], rows)
        + f"\n\nDepth of field {b['depth_of_field_um']:.2f} µm; beads in focus are "
        f"{focus['widefield']:.2f} µm (wide field) and {focus['confocal']:.2f} µm (confocal) wide. The most "
        f"that can come out, with the whole range, is {most:.1f}. The paper claims {claim:g}-fold, on "
        f"its own specimens."
    )


def bead_rows(found: Figures) -> str:
    """Return widths by distance."""
    lines = []
    for r in found["beads"]["rows"]:
        cells = [f"{r[w]['fwhm_um']:.2f} ({r[w]['found']:.0%})" for w in ("input", "widefield", "confocal")]
        lines.append([f"{r['z_um']:g}", *cells])
    head = ["z, µm", "input", "wide-field head", "confocal head"]
    return "Width in µm (share of beads at their place):\n\n" + table(head, lines)


def sides(found: Figures) -> str:
    """Return how often the side is told."""
    s = found["sides"]
    rows = [
        [f"{a['z_um']:g}", f"{a['told']:.0%} of {a['tries']}", f"{i['told']:.0%} of {i['tries']}"]
        for a, i in zip(s["aberrated"], s["ideal"], strict=True)
    ]
    waves = s["spherical_rms_waves"]["aberrated"]
    return (
        table(["\\|z\\|, µm", f"aberrated ({min(waves):.2f} to {max(waves):.2f} waves)", "ideal"], rows)
        + f"\n\nAll distances together: {s['aberrated_told']:.0%} with aberration, "
        f"{s['ideal_told']:.0%} without."
    )


def surfaces(found: Figures) -> str:
    """Return errors on surfaces."""
    s = found["surfaces"]
    rows = [
        [
            r["surface_name"],
            HEADS[r["head"]],
            f"{r['from_um']:g} to {r['to_um']:g}",
            f"{r['surface']:.4f}",
            f"{r['planes']:.4f}",
            f"{r['difference']:.5f}",
        ]
        for r in s["rows"]
    ]
    head = ["surface", "head", "\\|height\\|, µm", "surface", "uniform planes", "between the two"]
    return (
        table(head, rows)
        + f"\n\nOver all pixels the error on surfaces is {s['ratio']:.3f} times that of uniform planes "
        f"({s['worst_ratio']:.3f} in the worst row)."
    )


def bead_real(found: Figures) -> str:
    """Return the measured bead, as filed and turned round."""
    b = found["real"]["bead"]
    if b is None:
        return ABSENT
    parts = [f"In focus, on the model's pixels, the bead is {b['in_focus_um']:.2f} µm wide. {b['notes'][0]}."]
    ways = (("input", "input"), ("wiener", "Wiener"), ("widefield", "wide-field head"))
    ways = (*ways, ("confocal", "confocal head"))
    for direction, means in b["mean_pearson"].items():
        rows = []
        for r in b["rows"]:
            if r["direction"] == direction:
                cells = [_spot(r[w]) for w, _ in ways]
                rows.append([f"{r['z_um']:g}", *cells])
        rows.append(["mean", *(f"{means[w]:.3f}" for w, _ in ways)])
        parts.append(
            f"Planes {direction}; width in µm / Pearson with the plane in focus, a dash where no bead is at "
            "its place:\n\n" + table(["z, µm", *(label for _, label in ways)], rows)
        )
    best = b["aberration"]["best_of"]
    lines = [
        [
            d,
            f"{r['depth_um']:g} µm, {r['rms_waves']:.3f} waves",
            f"{r['correlation']:.4f}",
            f"{r['on_axis']:.4f}",
        ]
        for d, r in best.items()
    ]
    parts.append(
        "The model of the microscope that is most like the recording, for both directions; correlation of "
        "planes, and of the brightness along the axis (logarithm):\n\n"
        + table(["planes", "aberration as by a depth of", "planes", "axis"], lines)
    )
    return "\n\n".join(parts)


def _spot(told: dict[str, float]) -> str:
    width = f"{told['fwhm_um']:.2f}" if told["found"] else "–"
    return f"{width} / {told['pearson']:.3f}"


def nuclei(found: Figures) -> str:
    """Return Pearson by distance for real nuclei."""
    n = found["real"]["nuclei"]
    if n is None:
        return ABSENT
    rows = []
    for z in sorted({r["z_um"] for r in n["rows"]}):
        cells = []
        for head in HEADS:
            r = next((r for r in n["rows"] if r["z_um"] == z and r["head"] == head), None)
            cells += [f"{r[w]['pearson']:.3f}" if r else "" for w in ("input", "wiener", "network")]
        rows.append([f"{z:g}", *cells])
    heads = [f"{name}: {way}" for name in HEADS.values() for way in ("input", "Wiener", "network")]
    return table(["\\|z\\|, µm", *heads], rows)


def speed(found: Figures) -> str:
    """Return times and memory."""
    s = found["speed"]
    plane, stack, slider, movie = s["plane"], s["stack"], s["slider"], s["movie"]
    rows = [
        ["512 x 512, first plane", f"{plane['first_s']:.2f} s", f"{plane['peak_gib']:.2f} GiB"],
        ["512 x 512, first plane of another image", f"{plane['again_s']:.2f} s", ""],
        ["512 x 512, further planes", f"{plane['next_s']:.3f} s", ""],
        [
            f"{stack['planes']:g} planes of 1024 x 1024",
            f"{stack['seconds']:.1f} s",
            f"{stack['peak_gib']:.2f} GiB",
        ],
        ["slider, first plane of a region of 512 in 2048 x 2048", f"{slider['first_s']:.2f} s", ""],
        ["slider, further planes", f"{slider['next_s']:.3f} s", f"{slider['peak_gib']:.2f} GiB"],
        [
            f"movie, {movie['frames']} frames of {movie['side_px']} x {movie['side_px']} to a surface each",
            f"{movie['seconds']:.1f} s",
            f"{movie['peak_gib']:.2f} GiB",
        ],
    ]
    gpu = s["gpu"]
    if not isinstance(gpu, str):
        gpu = f"{gpu['name']}: {gpu['planes_per_second']:g} planes of 1024 x 1024 a second."
    return (
        table(["what", "time", "peak of the process"], rows)
        + f"\n\n{plane['threads']} threads. A movie can be stopped between any two events, at most "
        f"{movie['cancel_s']:.2f} s apart here; closing took {movie['closed_s']:.3f} s. {gpu} The "
        f"authors report {found['published']['seconds_512']:g} s for 512 x 512, with their network and GPU."
    )


BLOCKS: dict[str, Callable[[Figures], str]] = {
    f.__name__: f
    for f in (
        about, quality_picture, beads_picture, networks, gains, layer_gains, by_distance, by_specimen,
        beads, bead_rows, sides, surfaces, bead_real,
        nuclei, speed,
    )
}  # fmt: skip


def filled(page: str, figures: dict[str, Figures]) -> str:
    """Return the page with every block made anew."""

    def block(match: re.Match[str]) -> str:
        name, _, model = match[1].partition(" ")
        found = figures.get(model or MODELS[0])
        try:
            text = ABSENT if found is None else BLOCKS[name](found)
        except KeyError as error:
            if name not in BLOCKS or str(error).strip("'") not in PARTS:
                raise
            text = ABSENT
        return f"<!-- {match[1]} -->\n\n{text}\n\n<!-- end -->"

    return re.sub(r"<!-- (?!end)([\w .-]+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def quality_plot(found: Figures) -> str:
    """Draw PSNR against |z|, one panel for each head, at the least noise."""
    rows = found["quality"]["rows"]
    electrons = max(r["electrons"] for r in rows)
    panels = []
    for k, (head, name) in enumerate(HEADS.items()):
        chosen = [r for r in rows if r["head"] == head and r["electrons"] == electrons and r["z_um"] > 0]
        values = [r[w]["psnr_db"] for r in chosen for w, *_ in WAYS if w in r]
        low, high = min(values) - 1, max(values) + 3
        panel = Panel((70 + 370 * k, 40), (290, 240), (0, found["model"]["range_um"]), (low, high))
        panel.axes(
            f"{name} plane", "|z| (um)", "PSNR (dB)", round_ticks(*panel.x_range), round_ticks(low, high)
        )
        for way, colour, dash, _ in WAYS:
            points = [(r["z_um"], r[way]["psnr_db"]) for r in chosen if way in r]
            if points:
                panel.line(points, colour, dash)
                panel.dots(points, colour)
        panel.legend([(c, d, label) for _, c, d, label in WAYS], (190 + 370 * k, 56))
        panels.append(panel)
    return sheet(760, 340, panels)


def bead_plot(found: Figures) -> str:
    """Draw the width of beads over that in focus, and how often the side is told."""
    b, reach = found["beads"], found["model"]["range_um"]
    widths = Panel((70, 40), (290, 240), (-reach, reach), (0, 8))
    widths.axes(
        "beads, refocused", "z (um)", "width over in focus", round_ticks(-reach, reach), (0, 1.5, 3, 4.5, 6)
    )
    curves = (
        ("input", GREY, "3 3", "widefield"),
        ("widefield", BLUE, "", "widefield"),
        ("confocal", RED, "", "confocal"),
    )
    for way, colour, dash, head in curves:
        points = [(r["z_um"], min(r[way]["fwhm_um"] / b["in_focus_um"][head], 6.0)) for r in b["rows"]]
        widths.line(points, colour, dash)
    widths.legend(
        [(GREY, "3 3", "input"), (BLUE, "", "wide-field head"), (RED, "", "confocal head")], (150, 56)
    )
    told = Panel((440, 40), (290, 240), (0, reach), (0, 100))
    told.axes("side told correctly", "|z| (um)", "per cent", round_ticks(0, reach), (0, 25, 50, 75, 100))
    for way, colour, dash in (("aberrated", BLUE, ""), ("ideal", GREY, "3 3")):
        points = [(r["z_um"], 100 * r["told"]) for r in found["sides"][way]]
        told.line(points, colour, dash)
        told.dots(points, colour)
    told.legend([(BLUE, "", "aberrated as trained"), (GREY, "3 3", "without aberration")], (520, 250))
    return sheet(760, 340, [widths, told])


PLOTS: dict[str, Callable[[Figures], str]] = {"quality": quality_plot, "beads": bead_plot}


def plots_of(found: Figures) -> list[tuple[str, Callable[[Figures], str]]]:
    """Return the plots whose figures are there."""
    return [(name, draw) for name, draw in PLOTS.items() if all(part in found for part in NEEDED[name])]


def main() -> None:
    """Write the page and the pictures."""
    figures = read()
    PAGE.write_text(filled(PAGE.read_text("utf-8"), figures), "utf-8")
    for model, found in figures.items():
        for name, draw in plots_of(found):
            (DOCS / "images" / f"{model}-{name}.svg").write_text(draw(found), "utf-8")


if __name__ == "__main__":
    main()
