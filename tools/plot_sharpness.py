"""Draw the plot of docs/results/wfcon.md from the figures that the bench wrote.

python -m napari_lfm.bench._wfcon_sharpness --save docs/results/wfcon-sharpness.json
python tools/plot_sharpness.py
"""

from __future__ import annotations

import json

from plot_resolution import BLUE, DOCS, GREY, RED, Panel, sheet

CURVES = (
    ("light", GREY, "3 3", "wide field, without noise"),
    ("network", BLUE, "", "network"),
    ("confocal", RED, "", "confocal"),
)


def main() -> None:
    """Write the picture."""
    found = json.loads((DOCS / "results" / "wfcon-sharpness.json").read_text("utf-8"))
    panels = []
    for k, level in enumerate(("middle", "high")):
        panel = Panel((70 + 370 * k, 40), (290, 240), (0, 40), (0, 0.08))
        panel.axes(
            f"haze: {level}",
            "depth below the coverslip (um)",
            "gradient of the signal per pixel",
            range(0, 41, 10),
            (0, 0.02, 0.04, 0.06, 0.08),
        )
        for name, colour, dash, _ in CURVES:
            points = list(zip(found["depth_um"], found[level][name]["signal"], strict=True))
            panel.line(points, colour, dash)
            panel.dots(points, colour)
        panel.legend([(colour, dash, label) for _, colour, dash, label in CURVES], (82 + 370 * k, 56))
        panels.append(panel)
    (DOCS / "images" / "wfcon-sharpness.svg").write_text(sheet(760, 340, panels), "utf-8")


if __name__ == "__main__":
    main()
