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

from napari_lfm.bench._tissue_scenes import ABERRATION_UM, GROUPS, LEVELS, recorded
from napari_lfm.bench.wfcon_quality import network
from napari_lfm.core.sharpness import sharpness_by_depth
from napari_lfm.io.atomic import replacing_file
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue

if TYPE_CHECKING:
    from collections.abc import Sequence

BIN_UM = 4.0


def sharpness_rows(
    groups: Sequence[str] = ("seeds", "phantoms"), count: int = 6, level: str = "middle"
) -> Any:
    """Return mean sharpness of the signal by depth, over that of the first bin.

    The sharpest 32 x 32 pixels of every plane (the paper's measure) depend on what lies there, so every curve
    is a mean over specimens. Wide field is given as expected light: noise would count as sharpness.

    Returns
    -------
    dict
        ``depth_um`` and for ``widefield``, ``network`` and ``confocal`` the curves.
    """
    maker = ThickTissue()
    step = maker.settings.voxel_um[0]
    per_bin = round(BIN_UM / step)
    sums: dict[str, list[np.ndarray]] = {"widefield": [], "network": [], "confocal": []}
    for group in groups:
        for k in range(count):
            pair = maker.pair(
                np.random.default_rng([4711, k]), Scattering(LEVELS[level], ABERRATION_UM), GROUPS[group]
            )
            image, confocal, light = recorded(pair.widefield, pair.confocal, maker, k)
            for name, stack in (
                ("widefield", light),
                ("network", network(image, None)),
                ("confocal", confocal),
            ):
                found = sharpness_by_depth(stack).signal
                sums[name].append(found[: len(found) // per_bin * per_bin].reshape(-1, per_bin).mean(1))
    curves = {name: np.mean(v, 0) for name, v in sums.items()}
    return {
        "depth_um": [BIN_UM * (k + 0.5) for k in range(len(curves["network"]))],
        "specimens": count * len(groups),
        "level": level,
        **{name: (v / v[0]).round(4).tolist() for name, v in curves.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write or print the figures."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench._wfcon_sharpness")
    parser.add_argument("--save", type=Path, help="JSON file to write")
    parser.add_argument("--count", type=int, default=6, help="specimens of each group")
    given = parser.parse_args(arguments)
    text = json.dumps(sharpness_rows(count=given.count), indent=1) + "\n"
    if given.save is not None:
        with replacing_file(given.save) as file:
            file.write(text.encode())
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
