"""npe2 sample data: light fields that are simulated on this machine, with their truth."""

from __future__ import annotations

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]


def vesicle_and_beads() -> list[LayerData]:
    """Return the sample light field, its white frame, the true volume and the true bead positions.

    The first call simulates it (about half a minute on two cores); later ones read it from the cache.
    """
    from napari_lfm.io.layers import layer_data_from
    from napari_lfm.io.point_layers import points_layer_data_from
    from napari_lfm.simulation.sample import sample_recording

    recording = sample_recording()
    return [
        layer_data_from(recording["truth"], "truth", "truth", colormap="gray", visible=False),
        points_layer_data_from(recording["points"].assign(confidence=1.0), "true beads", visible=False),
        layer_data_from(recording["white"], "white frame", "white", visible=False),
        layer_data_from(recording["raw"], "vesicle and beads", "lightfield"),
    ]
