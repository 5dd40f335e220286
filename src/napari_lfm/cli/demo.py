from __future__ import annotations

from napari_lfm.cli._console import Answer, Json, command


@command
def demo(as_json: Json = False) -> Answer:
    return Answer({})
