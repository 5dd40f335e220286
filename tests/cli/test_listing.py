"""What there is: methods, models, microscopes, benchmarks; help; purity of JSON."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

COMMANDS = (
    "demo",
    "methods",
    "models",
    "microscopes",
    "calibrate",
    "run",
    "simulate",
    "train",
    "evaluate",
    "bench",
    "doctor",
)


def test_every_command_is_in_the_help(shell: Shell) -> None:
    done = shell("--help")
    assert done.status == 0
    for name in COMMANDS:
        assert f" {name} " in done.out
        assert shell(name, "--help").status == 0


def test_an_unknown_command_or_option_is_status_2(shell: Shell) -> None:
    assert shell("runn").status == 2
    assert shell("methods", "--jsn").status == 2
    assert shell("--version").out.strip()[0].isdigit()


def test_help_and_listings_do_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from napari_lfm.cli import app\n"
        "for words in (['--help'], ['models'], ['microscopes', '--json'], ['run', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "heavy = {'torch', 'napari', 'qtpy', 'xarray', 'pandas', 'scipy'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    # the help alone needs none of them
    code = (
        "import sys, napari_lfm.cli\n"
        "print(sorted({'torch', 'xarray', 'pandas', 'scipy', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_methods_tell_their_parameters(shell: Shell) -> None:
    done = shell("methods", "--json")
    found = {m["id"]: m for m in done.json["methods"]}
    assert "deconvolve-lightfield" in found
    parameters = {p["name"]: p for p in found["stretch"]["parameters"]}
    assert parameters["gain"] == {
        "name": "gain",
        "required": False,
        "type": "number",
        "default": 2.0,
        "above": 0.0,
        "maximum": 100.0,
        "description": "Factor, without unit.",
        "advanced": False,
    }
    assert parameters["steps"]["advanced"] is True
    assert parameters["mode"]["choices"][0] == "plain"
    assert parameters["limit"]["type"] == "number"
    text = shell("methods").out
    assert "gain" in text
    assert "Factor, without unit. [2.0]" in text


def test_every_parameter_has_a_unit_or_a_sentence(shell: Shell) -> None:
    for method in shell("methods", "--json").json["methods"]:
        assert method["summary"]
        for parameter in method["parameters"]:
            assert parameter["description"], parameter["name"]


def test_train_explains_that_there_is_nothing_to_train(shell: Shell, tmp_path: Path) -> None:
    done = shell("train", "stretch", "-o", tmp_path / "m", "--json")
    assert (done.status, done.out) == (2, "")
    assert "nothing to train" in done.err
    assert "Did you mean" in shell("train", "strech", "-o", tmp_path / "m").err


def test_microscopes_are_listed_with_figures(shell: Shell) -> None:
    found = {m["name"]: m for m in shell("microscopes", "--json").json["microscopes"]}
    mbl = found["mbl-60x1.2w"]
    assert mbl["source"] == "preset"
    assert mbl["nominal_pitch_px"] == pytest.approx(100 / 6.5)
    assert mbl["microscope"]["objective"]["na"] == 1.2
    assert found["wf-20x0.8"]["lenslet_pitch_um"] is None
    assert "wide field" in shell("microscopes").out


def test_a_new_microscope_is_asked_for_saved_and_usable(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    answers = "mine\n60x/1.20 W\n100\n2500\n6.5\n593\n"
    done = shell("microscopes", "--new", path, "--json", answers=answers)
    assert done.status == 0, done.err
    assert done.json["name"] == "mine"
    assert done.json["nominal_pitch_px"] == pytest.approx(100 / 6.5)
    from napari_lfm.optics.presets import load_microscope

    assert load_microscope(path).objective.magnification == 60


def test_bench_runs_what_is_there(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    module = types.ModuleType("napari_lfm_test_bench")

    def run(progress: object) -> dict[str, float]:
        assert callable(progress)
        progress("Warming up")
        return {"seconds_per_iteration": 0.5}

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        "napari_lfm.cli.bench.benchmarks", lambda: {"one-thing": module.__name__, "other": module.__name__}
    )
    done = shell("bench", "one-thing", "--json")
    assert done.json["seconds_per_iteration"] == 0.5
    assert done.json["machine"]["cores"] >= 1
    assert "Warming up" in done.err
    assert set(shell("bench", "--json").json["benchmarks"]) == {"one-thing", "other"}
    assert "seconds_per_iteration: 0.5" in shell("bench", "one-thing").out
    done = shell("bench", "one-thin")
    assert (done.status, "Did you mean 'one-thing'" in done.err) == (2, True)


def test_every_benchmark_can_be_called() -> None:
    from importlib import import_module

    from napari_lfm.cli.bench import benchmarks

    found = benchmarks()
    assert "light-field-rl" in found
    for module in found.values():
        assert callable(import_module(module).run)
