"""Microscopes by name or file: the presets, the user's own, YAML and JSON files."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_lfm.core.problems import LfmError, RequestError, explain_validation
from napari_lfm.io.atomic import replacing_file
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.sanity import physical_sanity

__all__ = [
    "delete_user_microscope",
    "load_microscope",
    "physical_sanity",
    "preset_names",
    "save_microscope",
    "save_user_microscope",
    "user_microscope_dir",
    "user_microscope_names",
]

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST_FILE_BYTES = 1 << 20


@cache
def _presets() -> dict[str, Microscope]:
    folder = files("napari_lfm.optics") / "microscopes"
    found = [
        Microscope.model_validate(_parse(entry.read_text("utf-8"), entry.name))
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    ]
    # light-field microscopes first: they are what this plugin is mostly for
    return {m.name: m for m in sorted(found, key=lambda m: (m.lenslets is None, m.name))}


def preset_names(lightfield_only: bool = False) -> tuple[str, ...]:
    """Return the names of the bundled microscopes, light-field ones first.

    Parameters
    ----------
    lightfield_only : bool
        Leave out the wide-field ones, which have no lenslets.
    """
    return tuple(n for n, m in _presets().items() if m.lenslets is not None or not lightfield_only)


def user_microscope_dir() -> Path:
    """Return the folder of the user's own microscopes (under ``$NAPARI_LFM_HOME`` if that is set)."""
    home = os.environ.get("NAPARI_LFM_HOME")
    if home:
        return Path(home) / "microscopes"
    from platformdirs import user_data_path

    return Path(user_data_path("napari-lfm", appauthor=False)) / "microscopes"


def user_microscope_names() -> tuple[str, ...]:
    """Return the names of the user's own microscopes; files that cannot be read are left out."""
    return tuple(_user_microscopes())


def _user_microscopes() -> dict[str, Path]:
    found: dict[str, Path] = {}
    folder = user_microscope_dir()
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
        try:
            found[_read(path).name] = path
        except LfmError as error:
            log.warning("A microscope was left out: %s", error)
    return found


def load_microscope(name_or_path: str | Path) -> Microscope:
    """Return a microscope by the name of a preset, of the user's own, or from a YAML or JSON file.

    Parameters
    ----------
    name_or_path : str or Path
        What ends in ``.yaml``, ``.yml`` or ``.json``, or has a folder in it, is a file. Names ignore case.

    Raises
    ------
    RequestError
        If there is no such microscope (the nearest name is suggested), or the file cannot be read or
        does not describe one (each wrong entry is named).
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.lower().endswith(SUFFIXES) or Path(text).name != text:
        return _read(Path(text).expanduser())
    own = {name.lower(): path for name, path in _user_microscopes().items()}
    if text.lower() in own:
        return _read(own[text.lower()])
    presets = {name.lower(): m for name, m in _presets().items()}
    if text.lower() in presets:
        return presets[text.lower()]
    names = [*user_microscope_names(), *preset_names()]
    near = difflib.get_close_matches(text.lower(), [n.lower() for n in names], n=1)
    hint = next((f"Did you mean '{n}'?" for n in names if [n.lower()] == near), "")
    if not hint:
        hint = f"Use one of {', '.join(names)}, or a file that ends in .yaml or .json."
    raise RequestError(f"There is no microscope '{text}'.", hint)


def save_microscope(microscope: Microscope, path: str | Path) -> Path:
    """Write a microscope as YAML or JSON, by the suffix; an existing file is replaced in one step.

    Raises
    ------
    RequestError
        If the suffix is another one.
    LfmError
        If the file cannot be written; an older one is left as it was.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"A microscope cannot be saved as '{path.name}'.", "Choose a name that ends in .yaml or .json."
        )
    record = microscope.model_dump(mode="json", exclude_none=True)
    if path.suffix.lower() == ".json":
        text = json.dumps(record, indent=2) + "\n"
    else:
        import yaml

        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=100)
    with replacing_file(path) as file:
        file.write(text.encode())
    return path


def save_user_microscope(microscope: Microscope, overwrite: bool = False) -> Path:
    """Save among the user's own microscopes, where `load_microscope` finds it by name.

    Raises
    ------
    RequestError
        If a preset has the name, or another microscope of the user's has it and `overwrite` is false.
    """
    name = microscope.name
    if name.lower() in map(str.lower, preset_names()):
        raise RequestError(f"'{name}' is the name of a preset.", "Give yours another name.")
    if name.lower().endswith(SUFFIXES) or Path(name).name != name:
        raise RequestError(f"'{name}' looks like a file name.", "Give a plain name, such as 'my 60x'.")
    existing = {n.lower(): p for n, p in _user_microscopes().items()}
    if name.lower() in existing and not overwrite:
        raise RequestError(f"You already have a microscope '{name}'.", "Choose another name, or replace it.")
    if name.lower() in existing:
        return save_microscope(microscope, existing[name.lower()])
    user_microscope_dir().mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "microscope"
    path, n = user_microscope_dir() / f"{stem}.yaml", 2
    while path.exists():  # two names may differ only in characters that file names cannot have
        path, n = path.with_name(f"{stem}-{n}.yaml"), n + 1
    return save_microscope(microscope, path)


def delete_user_microscope(name: str) -> None:
    """Delete one of the user's own microscopes.

    Raises
    ------
    RequestError
        If there is none of that name; presets cannot be deleted.
    """
    own = {n.lower(): p for n, p in _user_microscopes().items()}
    if name.lower() not in own:
        raise RequestError(
            f"You have no microscope of your own named '{name}'.",
            "Presets cannot be deleted." if name.lower() in map(str.lower, preset_names()) else "",
        )
    own[name.lower()].unlink()


def _read(path: Path) -> Microscope:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise RequestError(f"{path} is too big for a microscope.", "Give a small YAML or JSON file.")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        near = _nearby(path)
        raise RequestError(f"There is no file {path}.", f"Did you mean {near}?" if near else "") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a text file.", "Give a YAML or JSON file.") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None
    record = _parse(text, str(path))
    if "origin_px" in record and "row_step_px" in record:
        raise RequestError(f"{path} is a lenslet grid, not a microscope.", "Give it with --grid.")
    try:
        return Microscope.model_validate(record)
    except ValidationError as error:
        raise RequestError(
            f"{path} does not describe a microscope.",
            " ".join([explain_validation(error), *_hints(error)]),
        ) from None


def _parse(text: str, where: str) -> Any:
    import yaml

    try:
        record = yaml.safe_load(text)  # JSON is YAML too
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" near line {mark.line + 1}" if mark else ""
        raise RequestError(f"{where} is not valid YAML or JSON{line}.", "Correct it there.") from None
    if not isinstance(record, dict):
        raise RequestError(
            f"{where} does not describe a microscope.",
            "It needs entries such as 'name', 'objective', 'camera' and 'wavelength_um'.",
        )
    return record


def _hints(error: ValidationError) -> list[str]:
    """Suggest the right name of an unknown entry, and the unit of a number that is far off."""
    hints = []
    for item in error.errors():
        loc = [str(part) for part in item["loc"]]
        if item["type"] == "extra_forbidden":
            model: type[BaseModel] | None = Microscope
            for part in loc[:-1]:
                model = _part_of(model, part)
            near = difflib.get_close_matches(loc[-1], model.model_fields if model else (), n=1)
            if near:
                hints.append(f"Did you mean '{near[0]}'?")
        elif loc and loc[-1].endswith("_um") and item["type"].startswith(("less", "greater")):
            hints.append("Lengths and wavelengths are in micrometres.")
    return list(dict.fromkeys(hints))


def _part_of(model: type[BaseModel] | None, field: str) -> type[BaseModel] | None:
    if model is None or field not in model.model_fields:
        return None
    annotation = model.model_fields[field].annotation
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _nearby(path: Path) -> Path | None:
    if not path.parent.is_dir():
        return None
    names = [p.name for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES]
    near = difflib.get_close_matches(path.name, names, n=1)
    return path.with_name(near[0]) if near else None
