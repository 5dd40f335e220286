"""What no single room can check about itself. The layers are checked by import-linter in `make lint`."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import napari_lfm
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import get_method, make_parameters, method_ids

PACKAGE = Path(napari_lfm.__file__).parent
ROOT = PACKAGE.parents[1]
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST = 400


def names(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


# start-up stays light: a command line that prints its help, a manifest that is read, need no torch
@pytest.mark.parametrize(
    "module",
    [
        "napari_lfm",
        "napari_lfm.cli",
        "napari_lfm.methods.base",
        "napari_lfm.optics.presets",
        "napari_lfm.optics.wizard",
        "napari_lfm.io.read",
        "napari_lfm.io.provenance",
        "napari_lfm.lightfield.lattice",
        "napari_lfm._reader",
        "napari_lfm._writer",
        "napari_lfm._sample_data",
    ],
)
def test_importing_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded & {"torch", "napari", "qtpy", "PyQt6", "magicgui", "superqt", "vispy"} == set()


def test_training_needs_little() -> None:
    """A bare machine with a GPU has torch, numpy, scipy, tifffile, safetensors and pydantic."""
    code = (
        "import sys, napari_lfm.training.lfmnet, napari_lfm.training.loop, napari_lfm.networks.lfmnet;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert loaded & {"napari", "qtpy", "xarray", "pandas", "skimage", "dask", "yaml", "platformdirs"} == set()


@pytest.mark.parametrize("room", sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py")))
def test_every_room_says_in_one_sentence_what_lives_there(room: str) -> None:
    doc = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
    assert doc
    sentence, *_ = doc.split("\n\n")
    assert sentence.endswith(".")


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_modules_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert ast.get_docstring(ast.parse(text))


def calls(path: Path) -> set[str]:
    """Names of everything called in a file: ``print``, ``time.sleep``, ``widget.setStyleSheet``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_no_prints_style_sheets_or_private_windows(path: Path) -> None:
    called = calls(path)
    assert not {c for c in called if c.endswith(".setStyleSheet")}
    assert "_qt_viewer" not in path.read_text("utf-8")
    assert "_qt_window" not in path.read_text("utf-8")
    if not path.relative_to(PACKAGE).parts[0].startswith("cli"):
        assert "print" not in called


@pytest.mark.parametrize("path", TESTS, ids=names(TESTS))
def test_no_test_sleeps(path: Path) -> None:
    assert not calls(path) & {"time.sleep", "sleep"}


def test_the_manifest_stands_in_both_places() -> None:
    inside = PACKAGE / "napari.yaml"
    outside = ROOT / "napari.yaml"
    assert outside.read_bytes() == inside.read_bytes()
    assert outside.is_symlink()


def test_every_command_of_the_manifest_exists() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(PACKAGE / "napari.yaml")
    assert manifest.name == "napari-lfm"
    commands = manifest.contributions.commands or []
    for command in commands:
        assert command.python_name
        module, _, name = command.python_name.partition(":")
        spec = find_spec(module)
        assert spec and spec.origin, command.python_name
        tree = ast.parse(Path(spec.origin).read_text("utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert name.partition(".")[0] in defined | imported, command.python_name


@pytest.mark.parametrize("method_id", method_ids())
def test_every_parameter_is_documented_and_bounded(method_id: str) -> None:
    schema = get_method(method_id).Parameters.model_json_schema()
    for name, field in schema["properties"].items():
        assert field.get("description"), name
        options = [field, *field.get("anyOf", ())]
        if any(option.get("type") in {"number", "integer"} for option in options):
            bounds = {key for option in options for key in option if "inimum" in key or "aximum" in key}
            assert len(bounds) == 2, f"{name} needs a lower and an upper bound"


def test_a_wrong_method_is_answered_with_the_right_one() -> None:
    with pytest.raises(RequestError, match="Did you mean 'deconvolve-lightfield'"):
        get_method("deconvolve-lightfeld")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"iteration": 3}, "no parameter 'iteration'. Did you mean 'iterations'"),
        ({"iterations": "many"}, "iterations = 'many' must be a whole number"),
        ({"iterations": 0}, "iterations = 0 must be greater than or equal to 1"),
    ],
)
def test_wrong_parameters_are_explained(values: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        make_parameters(get_method("deconvolve-lightfield"), values)


def test_one_version() -> None:
    from importlib.metadata import version

    assert version("napari-lfm") == napari_lfm.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"[{napari_lfm.__version__}]" in changelog
