"""``napari-lfm train``: fit a trainable method to your own optics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_lfm.cli._console import Answer, Json, command


@command
def train(
    method: Annotated[str, typer.Argument(help="Method to train.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Model folder.")] = None,
    as_json: Json = False,
) -> Answer:
    """Train a method; none of this version's methods is trainable."""
    from napari_lfm.core.problems import RequestError
    from napari_lfm.methods.base import get_method

    known = get_method(method)  # an unknown name gets its own answer first
    raise RequestError(
        f"'{known.id}' has nothing to train: it computes from the optics alone.",
        "No method of this version is trained; run it with 'napari-lfm run'.",
    )
