"""Draw the plot of docs/results/wfcon.md from the figures that the bench wrote.

python -m napari_lfm.bench._wfcon_sharpness --save docs/results/wfcon-sharpness.json
python tools/plot_sharpness.py
"""

from __future__ import annotations

import json

from plot_resolution import BLUE, DOCS, GREY, RED, Panel, round_ticks, sheet

CURVES = (
    ("widefield", GREY, "wide field, without noise"),
    ("network", BLUE, "network"),
    ("confocal", RED, "confocal"),
)


def main() -> None:
    """Write the picture."""
    found = json.loads((DOCS / "results" / "wfcon-sharpness.json").read_text("utf-8"))
    top = 1.15 * max(max(found[name]) for name, _, _ in CURVES)
    panel = Panel((70, 40), (460, 250), (0, 40), (0, top))
    panel.axes(
        "Sharpness of the signal against depth",
        "depth below the coverslip (um)",
        "over that of the first 4 um",
        range(0, 41, 10),
        round_ticks(0, top),
    )
    for name, colour, _ in CURVES:
        panel.line(zip(found["depth_um"], found[name], strict=True), colour)
        panel.dots(zip(found["depth_um"], found[name], strict=True), colour)
    panel.legend([(colour, "", label) for _, colour, label in CURVES], (90, 60))
    (DOCS / "images" / "wfcon-sharpness.svg").write_text(sheet(560, 350, [panel]), "utf-8")


if __name__ == "__main__":
    main()
