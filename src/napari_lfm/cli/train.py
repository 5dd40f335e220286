"""``napari-lfm train``: make a network for your own microscope, from its optics, or from stacks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, Microscope, ProgressLine, command, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.methods.train_lfmnet import TrainedModel, TrainWish
    from napari_lfm.training.events import Validated

TRAINABLE = ("lfmnet", "localize", "wfcon", "refocus", "isotropic")
_LENGTH = ("minutes", "steps")
_SCORES = (
    ("network", "psnr_db"),
    ("Richardson-Lucy", "baseline_psnr_db"),
    ("after 5 iterations", "rl5_psnr_db"),
)
_FIGURES = ("psnr_db", "pearson", "baseline_psnr_db", "rl5_psnr_db")


@command
def train(
    method: Annotated[
        str, typer.Argument(help="Method to train: lfmnet, localize, wfcon, refocus, isotropic.")
    ],
    stacks: Annotated[
        list[Path] | None,
        typer.Argument(
            help="refocus: focal stacks to train on [simulated specimens]; isotropic: the stack to restore."
        ),
    ] = None,
    microscope: Microscope = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="YAML file with all settings; options count more.")
    ] = None,
    z_min_um: Annotated[float | None, typer.Option("--z-min-um", help="Lowest plane, um.")] = None,
    z_max_um: Annotated[float | None, typer.Option("--z-max-um", help="Highest plane, um.")] = None,
    z_step_um: Annotated[float | None, typer.Option("--z-step-um", help="Distance of planes, um.")] = None,
    voxels_per_lenslet: Annotated[
        int | None, typer.Option("--voxels-per-lenslet", help="Voxels across a lenslet [3].")
    ] = None,
    n_pixels: Annotated[
        int | None, typer.Option("--n-pixels", help="Pixels per lenslet, N [the microscope's].")
    ] = None,
    specimen: Annotated[
        str | None,
        typer.Option(help="any, beads, vesicles, vessels, filaments, neurons or nuclei [any]."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--size", help="small, medium, large (GPU) or paper [small].")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes of training in all [20].")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in all; alone, exactly repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random [0].")] = None,
    raw: Annotated[
        Path | None, typer.Option(help="A recording; with --white, to find the lenslets in.")
    ] = None,
    white: Annotated[Path | None, typer.Option(help="White frame: its pupil is trained on, too.")] = None,
    dark: Annotated[Path | None, typer.Option(help="Dark frame of the white frame.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Id of the model [lfmnet-MICROSCOPE].")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the model.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A finer setting of recipes; repeat it."),
    ] = None,
    compare: Annotated[
        bool | None, typer.Option("--compare/--no-compare", help="Score Richardson-Lucy, too [yes].")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="wfcon: folder with folders 'widefield' and 'confocal' [simulated tissue]."),
    ] = None,
    register: Annotated[
        bool | None, typer.Option("--register/--no-register", help="wfcon: register every pair [yes].")
    ] = None,
    voxel_um: Annotated[
        str | None, typer.Option("--voxel-um", help="Of stacks: voxel size Z,Y,X, um.")
    ] = None,
    vgg: Annotated[
        Path | None,
        typer.Option("--vgg", help="wfcon: weights of VGG16, npz or safetensors [torchvision's]."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option("--start-from", help="Of stacks: model to go on from, id or folder; or none."),
    ] = None,
    confocal: Annotated[
        list[Path] | None,
        typer.Option("--confocal", help="refocus: registered confocal stack, one for each; repeat it."),
    ] = None,
    na: Annotated[float | None, typer.Option("--na", help="refocus: numerical aperture.")] = None,
    immersion_index: Annotated[
        float | None, typer.Option("--immersion-index", help="refocus: air 1, water 1.333, oil 1.515.")
    ] = None,
    wavelength_um: Annotated[
        float | None, typer.Option("--wavelength-um", help="refocus: of the fluorescence, um.")
    ] = None,
    range_um: Annotated[
        float | None, typer.Option("--range-um", help="refocus: largest distance from the image, um.")
    ] = None,
    reverse: Annotated[
        bool | None, typer.Option("--reverse", help="refocus: planes come in falling order.")
    ] = None,
    adversarial: Annotated[
        bool | None,
        typer.Option("--adversarial/--no-adversarial", help="refocus: against a discriminator, too [no]."),
    ] = None,
    psf: Annotated[
        Path | None, typer.Option("--psf", help="isotropic: a measured point spread function.")
    ] = None,
    psf_voxel_um: Annotated[
        str | None, typer.Option("--psf-voxel-um", help="isotropic: its voxel size Z,Y,X, um.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last training, with more minutes or steps.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Folder of the training [in your user folder].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model folder [among your models].")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps [auto].")] = None,
    as_json: Json = False,
) -> Answer:
    """Train a network for your microscope; Ctrl-C stops and keeps the best so far, --resume goes on."""
    _refuse_untrainable(method)
    of_pairs: dict[str, Any] = {
        "--pairs": pairs, "--register": register, "--voxel-um": voxel_um,
        "--vgg": vgg, "--start-from": start_from,
    }  # fmt: skip
    focal: dict[str, Any] = {
        "STACKS": stacks or None, "--confocal": confocal or None, "--na": na,
        "--immersion-index": immersion_index, "--wavelength-um": wavelength_um, "--range-um": range_um,
        "--reverse": reverse, "--adversarial": adversarial,
    }  # fmt: skip
    measured: dict[str, Any] = {"--psf": psf, "--psf-voxel-um": psf_voxel_um}
    if method in ("localize", "wfcon", "refocus", "isotropic"):
        from napari_lfm.cli._train_other import train_other

        named = {
            "microscope": microscope, "n_pixels": n_pixels, "z_min_um": z_min_um, "z_max_um": z_max_um,
            "z_step_um": z_step_um, "minutes": minutes, "steps": steps, "seed": seed, "title": title,
            "device": device, "id": output.name if id is None and output is not None else id,
        }  # fmt: skip
        others: dict[str, Any] = {
            "--voxels-per-lenslet": voxels_per_lenslet, "--specimen": specimen, "--size": network,
            "--raw": raw, "--white": white, "--dark": dark, "--compare": compare,
        }  # fmt: skip
        lenslets = ("n_pixels", "z_min_um", "z_max_um", "z_step_um")
        if method != "localize":
            others |= {"--" + k.replace("_", "-"): named.pop(k) for k in lenslets}
        if method == "wfcon":
            named |= _stack_entries(of_pairs)
            others |= focal
        elif method == "refocus":
            others |= {k: v for k, v in of_pairs.items() if k not in ("--voxel-um", "--start-from")}
            named |= _focal_entries(focal, voxel_um, start_from)
        elif method == "isotropic":
            others |= {k: v for k, v in (of_pairs | focal).items() if k not in ("--voxel-um", "--start-from")}
            others.pop("STACKS")
            named |= _own_entries(stacks, voxel_um, measured) | {"start_from": start_from}
        else:
            others |= of_pairs | focal
        others |= {} if method == "isotropic" else measured
        return train_other(method, named, others, settings or [], recipe, resume, folder, output)
    _refuse_stack_options(of_pairs | focal | measured)
    from napari_lfm.core.problems import raise_for
    from napari_lfm.methods.train_lfmnet import check_training, estimate_training, run_training

    given: dict[str, Any] = {
        "microscope": microscope,
        "z_min_um": z_min_um,
        "z_max_um": z_max_um,
        "z_step_um": z_step_um,
        "voxels_per_lenslet": voxels_per_lenslet,
        "n_pixels": n_pixels,
        "specimen": specimen,
        "size": network,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "id": output.name if id is None and output is not None else id,
        "title": title,
        "compare": compare,
        "device": device,
    }
    wish = _wish(given, settings or [], recipe, folder if resume else None, resume)
    if white is not None:
        wish = _with_pupil(wish, raw, white, dark)
    problems = [] if resume else check_training(wish, output)
    for problem in problems:
        if problem.severity != "error":
            say(f"Note: {problem}")
    raise_for(problems)
    for sentence in estimate_training(wish).sentences:
        say(sentence)
    words = shlex.join(["napari-lfm", *sys.argv[1:]])
    events = run_training(wish, folder, resume, output, recipe=words)
    return _follow(events, method, wish, folder)


def _refuse_untrainable(method: str) -> None:
    from napari_lfm.core.problems import RequestError
    from napari_lfm.methods.base import get_method

    if method in TRAINABLE:
        return
    known = get_method(method)  # an unknown name gets its own answer first
    if known.id not in TRAINABLE:
        raise RequestError(
            f"'{known.id}' has nothing to train: it computes from the optics alone.",
            f"Train {' or '.join(TRAINABLE)}; run this one with 'napari-lfm run'.",
        )


def _stack_entries(stacks: dict[str, Any]) -> dict[str, Any]:
    """Return what the options about pairs of stacks say, by the names of the wish."""
    from napari_lfm.cli._console import numbers

    names = {"--pairs": "pairs", "--register": "register_pairs", "--voxel-um": "voxel_um"}
    names |= {"--vgg": "vgg_file", "--start-from": "start_from"}
    out = {names[k]: str(v) if isinstance(v, Path) else v for k, v in stacks.items()}
    if out["voxel_um"] is not None:
        out["voxel_um"] = numbers(out["voxel_um"], 3, "voxel size", "0.3,0.1,0.1")
    return out


def _focal_entries(focal: dict[str, Any], voxel_um: str | None, start_from: str | None) -> dict[str, Any]:
    """Return what the options about focal stacks say, by the names of the wish."""
    from napari_lfm.cli._console import numbers
    from napari_lfm.core.problems import RequestError

    out = {k.lower().removeprefix("--").replace("-", "_"): v for k, v in focal.items()}
    for name in ("stacks", "confocal"):
        out[name] = None if out[name] is None else [str(p) for p in out[name]]
    if voxel_um is not None:
        step, rows, columns = numbers(voxel_um, 3, "voxel size", "0.5,0.325,0.325")
        if rows != columns:
            raise RequestError(
                f"Pixels of {rows:g} x {columns:g} um are no squares.", "Resample the stack first."
            )
        out |= {"step_um": step, "pixel_um": columns}
    return {**out, "start_from": start_from}


def _own_entries(stacks: list[Path] | None, voxel_um: str | None, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what the options about a stack of one's own say, by the names of the wish."""
    from napari_lfm.cli._console import numbers

    sizes = {"voxel_um": voxel_um, "psf_voxel_um": measured["--psf-voxel-um"]}
    out: dict[str, Any] = {
        k: None if v is None else numbers(v, 3, "voxel size", "0.5,0.1,0.1") for k, v in sizes.items()
    }
    out["stacks"] = [str(p) for p in stacks] if stacks else None
    out["psf"] = None if measured["--psf"] is None else str(measured["--psf"])
    return out


def _refuse_stack_options(stacks: dict[str, Any]) -> None:
    from napari_lfm.core.problems import RequestError

    strange = [name for name, value in stacks.items() if value is not None]
    if strange:
        raise RequestError(f"{', '.join(strange)} means nothing to 'lfmnet'.", "Leave it out.")


def _wish(
    given: dict[str, Any], settings: list[str], recipe: Path | None, folder: Path | None, resume: bool
) -> TrainWish:
    """Return the wish: what the recipe or the earlier training says, and the options, which count more."""
    from napari_lfm.cli._wishes import parse_settings
    from napari_lfm.methods.train_lfmnet import load_recipe, make_wish, recorded_wish

    given = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = {} if recipe is None else load_recipe(recipe)
    if resume:
        named = {**values, **given}
        values |= recorded_wish(folder, named.get("id", ""), named.get("microscope"))
    if any(name in given for name in _LENGTH):
        values = {name: value for name, value in values.items() if name not in _LENGTH}
        given = {"minutes": None, **given}
    values |= given
    tuning = parse_settings(settings)
    if tuning:
        values["tuning"] = {**(values.get("tuning") or {}), **tuning}
    return make_wish(values)


def _with_pupil(wish: TrainWish, raw: Path | None, white: Path, dark: Path | None) -> TrainWish:
    from napari_lfm.api import build_request
    from napari_lfm.methods.train_pupil import pupil_of

    request, _ = build_request(
        "deconvolve-lightfield", raw or white, white=white, dark=dark, microscope=wish.microscope
    )
    pupil, misfit = pupil_of(request, wish.n_pixels)
    say(f"The pupil fitted to {white.name} explains {1 - misfit:.0%} of it.")
    return wish.model_copy(update={"pupil": pupil})


def _follow(events: Iterator[Any], method: str, wish: TrainWish, folder: Path | None) -> Answer:
    """Show a training's events to its end, or to Ctrl-C."""
    from napari_lfm.core.events import Progress
    from napari_lfm.training.events import Validated

    line = ProgressLine()
    last: TrainedModel | None = None
    best: Validated | None = None
    shown: dict[str, float] = {}
    try:
        for event in events:
            if isinstance(event, Validated):
                best = event if event.best_step == event.step else best
                shown = {name: event.values[key] for name, key in _SCORES if key in event.values}
                line.end()
                say(f"Step {event.step}: {', '.join(f'{k} {v:.2f} dB' for k, v in shown.items())}")
            elif isinstance(event, Progress):
                training = event.message == "Training"
                values = {"loss": event.values["loss"]} if "loss" in event.values else {}
                message = f"Step {event.step}" if training else event.message
                line.show(event.step, event.total, message, event.seconds_left, {**values, **shown})
            else:
                last = event
    except KeyboardInterrupt:
        line.end()
        _close(events)
        return _stopped(wish, folder, method, best)
    finally:
        line.end()
        _close(events)
    assert last is not None
    return _answer(last, method, best)


def _close(events: Iterator[Any]) -> None:
    close = getattr(events, "close", None)
    if close is not None:
        close()


def _stopped(wish: TrainWish, folder: Path | None, method: str, best: Validated | None) -> Answer:
    """Say what a stopped training leaves; as with 'run --keep-partial', its exit status is 1."""
    from napari_lfm.core.problems import RequestError
    from napari_lfm.methods.train_lfmnet import outcome_of_training

    try:
        found = outcome_of_training(wish, folder)
    except RequestError:
        say("Stopped before the first step: there was nothing to keep.")
        return Answer({"method": method, "model": None, "reason": "stopped"}, "", 1)
    answer = _answer(found, method, best)
    say("Stopped. The same command with --resume goes on.")
    return Answer(answer.data, answer.text, 1)


def _answer(found: TrainedModel, method: str, best: Validated | None) -> Answer:
    result, entry = found.result, found.entry
    data: dict[str, Any] = {"method": method, "training": str(found.folder), "model": None, "id": None}
    if result is not None:
        say(result.sentence)
        data |= {
            "reason": result.reason,
            "steps": result.step,
            "best_step": result.best_step,
            "minutes": round(result.seconds / 60, 3),
        }
    if best is not None:
        data |= {name: best.values[name] for name in _FIGURES if name in best.values}
    if entry is None:
        say("No model was made: nothing was learned.")
        return Answer(data, "", 1)
    data |= {
        "id": entry.card.id,
        "model": str(entry.folder),
        "parameters": entry.card.parameters,
        "sha256": entry.card.sha256,
    }
    say(f"Saved the model '{entry.card.id}': {entry.folder}")
    return Answer(data, str(entry.folder))
