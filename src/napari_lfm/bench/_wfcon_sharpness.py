"""Sharpness against depth of wide field, network and confocal stack, over several specimens.

``python -m napari_lfm.bench._wfcon_sharpness --save docs/results/wfcon-sharpness.json``
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._tissue_scenes import ABERRATION_UM, GROUPS, LEVELS, recorded, sharpness_at
from napari_lfm.bench.wfcon_quality import network
from napari_lfm.io.atomic import replacing_file
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue

if TYPE_CHECKING:
    from collections.abc import Sequence

BIN_PLANES = 16
"""Planes of a bin: 8 um."""


def sharpness_rows(
    groups: Sequence[str] = ("seeds", "phantoms"), count: int = 4, levels: Sequence[str] = ("middle", "high")
) -> dict[str, Any]:
    """Return gradients of signal and background by depth (the paper's figure 1), means over specimens.

    Wide field is given as recorded, and as expected light: noise counts as sharpness.

    Returns
    -------
    dict
        ``depth_um``, and for every level ``light``, ``recorded``, ``network`` and ``confocal``, each with
        ``signal`` and ``contrast`` (signal over background).
    """
    maker = ThickTissue()
    planes, step = maker.settings.shape[0], maker.settings.voxel_um[0]
    bins = [range(b, b + BIN_PLANES) for b in range(0, planes - BIN_PLANES + 1, BIN_PLANES)]
    out: dict[str, Any] = {"depth_um": [step * (b.start + b.stop) / 2 for b in bins]}
    out["specimens"] = count * len(groups)
    for level in levels:
        found: dict[str, list[list[tuple[float, float]]]] = {}
        for group in groups:
            for k in range(count):
                pair = maker.pair(
                    np.random.default_rng([4711, k]), Scattering(LEVELS[level], ABERRATION_UM), GROUPS[group]
                )
                image, confocal, light = recorded(pair.widefield, pair.confocal, maker, k)
                stacks = {
                    "light": light,
                    "recorded": image.values,
                    "network": network(image, None),
                    "confocal": confocal,
                }
                for name, stack in stacks.items():
                    row = [sharpness_at(stack, confocal, b) for b in bins]
                    found.setdefault(name, []).append(row)
        out[level] = {}
        for name, rows in found.items():
            values = np.asarray(rows)
            out[level][name] = {
                "signal": np.nanmean(values[..., 0], 0).round(5).tolist(),
                "contrast": np.nanmean(values[..., 0] / values[..., 1], 0).round(3).tolist(),
            }
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write or print the figures."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench._wfcon_sharpness")
    parser.add_argument("--save", type=Path, help="JSON file to write")
    parser.add_argument("--count", type=int, default=4, help="specimens of each group")
    given = parser.parse_args(arguments)
    text = json.dumps(sharpness_rows(count=given.count), indent=1) + "\n"
    if given.save is not None:
        with replacing_file(given.save) as file:
            file.write(text.encode())
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
