"""The command line: the same methods as the panel, from a shell. No maths, no file formats here.

Commands import what they need when they are called, so that ``napari-lfm --help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_lfm import __version__
from napari_lfm.cli import bench, calibrate, demo, doctor, evaluate, listing, models, run, simulate, train

app = typer.Typer(
    name="napari-lfm",
    help="Interactive computational microscopy: light fields and stacks in, volumes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Interactive computational microscopy: light fields and stacks in, volumes out."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command("demo")(demo.demo)
app.command("methods")(listing.methods)
app.command("models")(models.models)
app.command("microscopes")(listing.microscopes)
app.command("calibrate")(calibrate.calibrate)
app.command("run")(run.run)
app.command("simulate")(simulate.simulate)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line."""
    app()


__all__ = ["app", "main"]
