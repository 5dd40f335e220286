"""``bench localize``: neurons found in simulated light fields by three algorithms, and how long each takes.

The comparison of Song et al. (ICASSP 2021, figure 6 and table 1) made again: specimens over the same depths,
at three levels of noise and haze, through the public method with calibration from the white frame. Errors
are those of matched pairs; misses are counted apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._localize_movie import MovieSetup, movie_figures
from napari_lfm.bench._localize_scenes import SETUPS, Frames, LocalizeSetup, Specimen, frames_of
from napari_lfm.core.events import Result
from napari_lfm.core.metrics import pair_points
from napari_lfm.lightfield.calibrate import calibrate
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.optics.cache import cache_dir
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

Say = Callable[[str], None]
ALGORITHMS = ("phase-space", "csc", "cista", "cista-joint")
"""``csc`` and ``cista`` as published, by epipolar images alone; ``-joint``: with the joint fit after them."""
JOINT = "-joint"
DEFAULT_MOVIE = MovieSetup()
FEW = 4
_ROW_LENSLETS = 1.5
"""A body of 11 um shows in the rows of lenslets this near to its middle."""
PAPER = {
    "phase-space": {"rmse_x_um": 4.05, "rmse_y_um": 5.48, "rmse_z_um": 3.41, "ms_per_epi": 3590.0},
    "csc": {"rmse_x_um": 1.78, "rmse_y_um": 2.94, "rmse_z_um": 1.14, "ms_per_epi": 3610.0},
    "cista": {"rmse_x_um": 1.60, "rmse_y_um": 1.98, "rmse_z_um": 0.82, "ms_per_epi": 0.216},
}
"""What the paper reports, on specimens of its own."""


def run(
    progress: Say | None = None,
    setup: LocalizeSetup | None = None,
    algorithms: tuple[str, ...] = ALGORITHMS,
    model: str | None = None,
    folder: Path | None = None,
    movie: MovieSetup | None = DEFAULT_MOVIE,
) -> dict[str, Any]:
    """Simulate, localise and score.

    Parameters
    ----------
    progress : callable, optional
        Called with a sentence.
    setup : LocalizeSetup, optional
    algorithms : tuple of str
    model : str, optional
        Of CISTA-net; default the one that fits best.
    folder : path, optional
        Where recordings are kept; default in the cache folder.
    movie : MovieSetup, optional
        None for no movie.

    Returns
    -------
    dict
        ``rows``: for every algorithm, kind of specimen and level, root mean square errors, in depth also
        where epipolar images show 1 to 4 neurons, precision, recall, F1, the share of depth errors within one
        sigma, milliseconds per epipolar image; ``movie``: traces against the truth, and milliseconds from a
        click to its points; ``paper``: the published figures.
    """
    say = progress or (lambda _: None)
    setup = setup or LocalizeSetup()
    microscope = load_microscope(setup.microscope)
    every, frames = frames_of(setup, microscope, folder or cache_dir() / "bench", say)
    first = frames.inputs(microscope, 0, setup.levels[0][1], 0.0)
    lattice = calibrate(raw=first["image"], white=first["white"], dark=first["dark"], microscope=microscope)
    rows = []
    for algorithm in algorithms:
        times = {}
        if JOINT not in algorithm:  # what a fit takes has to do with neurons, not with epipolar images
            times = epipolar_times(algorithm, setup, microscope, model, lattice, frames)
        for kind in dict.fromkeys(s.kind for s in every):
            for name, electrons, haze in setup.levels:
                say(f"{algorithm}: {kind}, {name} noise")
                found = _scored(
                    algorithm, [k for k, s in enumerate(every) if s.kind == kind], every, frames,
                    microscope, lattice, (electrons, haze), setup, model,
                )  # fmt: skip
                row: dict[str, Any] = {"algorithm": algorithm, "specimens": kind, "level": name}
                rows.append({**row, "electrons": electrons, "haze": haze, **found, **times})
    out: dict[str, Any] = {"microscope": setup.microscope, "rows": rows, "paper": PAPER}
    if movie is not None:
        out["movie"] = movie_figures(movie, model, say)
    return out


def _scored(
    algorithm: str,
    chosen: list[int],
    every: list[Specimen],
    frames: Frames,
    microscope: Microscope,
    lattice: Lattice,
    level: tuple[float, float],
    setup: LocalizeSetup,
    model: str | None,
) -> dict[str, Any]:
    cell_um = microscope.lenslet_um or 1.0
    errors, sigmas, found_count, seconds = [np.zeros((0, 3))], [np.zeros(0)], 0, []
    truth_count = sum(len(frames.points[k]) for k in chosen)
    method = get_method("localize")
    values = _values(algorithm, setup)
    few: list[np.ndarray] = []
    for k in chosen:
        request = Request(
            "localize",
            inputs=frames.inputs(microscope, k, *level),
            parameters=make_parameters(method, values),
            microscope=microscope,
            lattice=lattice,
            model=model if values["algorithm"] == "cista" else None,
            device="cpu",
        )
        begun = time.perf_counter()
        result = list(method.run(request))[-1]
        seconds.append(time.perf_counter() - begun)
        assert isinstance(result, Result)
        table: Any = result.outputs["points"]
        ours = table[["z_um", "y_um", "x_um"]].to_numpy(float)
        a, b = pair_points(ours, frames.points[k], setup.tolerance_um)
        errors.append(ours[a] - frames.points[k][b])
        sigmas.append(table["sigma_z_um"].to_numpy(float)[a])
        few.append(_sources_per_image(frames.points[k], cell_um)[b] <= FEW)
        found_count += len(ours)
    error, sigma = np.concatenate(errors), np.concatenate(sigmas)
    one_to_four = error[np.concatenate([np.zeros(0, bool), *few]), 0]
    precision, recall = len(error) / max(found_count, 1), len(error) / max(truth_count, 1)
    rmse = np.sqrt((error**2).mean(0)) if len(error) else np.full(3, np.nan)
    return {
        **{f"rmse_{axis}_um": round(float(v), 3) for axis, v in zip("zyx", rmse, strict=True)},
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 3),
        "inside_sigma": round(float((np.abs(error[:, 0]) <= sigma).mean()), 3) if len(error) else None,
        "rmse_z_1_to_4_um": round(float(np.sqrt((one_to_four**2).mean())), 3) if len(one_to_four) else None,
        "neurons_1_to_4": len(one_to_four),
        "neurons": truth_count,
        "seconds_per_field": round(statistics.median(seconds), 3),
    }


def _values(algorithm: str, setup: LocalizeSetup) -> dict[str, Any]:
    """Return the method's parameters for a row of the table."""
    name = algorithm.removesuffix(JOINT)
    values: dict[str, Any] = {"algorithm": name, "fit": "joint" if algorithm != name else "none"}
    if name != "cista":
        values |= {"z_min_um": setup.z_um[0], "z_max_um": setup.z_um[1]}
    return values


def _sources_per_image(points: np.ndarray, lenslet_um: float) -> np.ndarray:
    """Return how many bodies the fuller of the two epipolar images through each shows, itself included."""
    beside = np.abs(points[:, None, 1:] - points[None, :, 1:]) < _ROW_LENSLETS * lenslet_um
    return np.asarray(beside.sum(1).max(1))


def epipolar_times(
    algorithm: str,
    setup: LocalizeSetup,
    microscope: Microscope,
    model: str | None,
    lattice: Lattice,
    frames: Frames,
) -> dict[str, float]:
    """Return milliseconds per epipolar image, in a batch of 256 and alone.

    Phase space fits a whole light field at once: its time is shared out among the images of its field, one
    along x and one along y for each lenslet row and column.
    """
    from napari_lfm.methods.localization.setup import make_localizer, make_phase_space

    method = get_method("localize")
    values = _values(algorithm, setup)
    request = Request(
        "localize",
        inputs=frames.inputs(microscope, 0, 500.0, 1.0),
        parameters=make_parameters(method, values),
        microscope=microscope,
        lattice=lattice,
        model=model if values["algorithm"] == "cista" else None,
        device="cpu",
    )
    n = microscope.n_pixels
    assert n is not None
    rng = np.random.default_rng(0)
    if algorithm == "phase-space":
        fit = _end_of(make_phase_space(request, microscope, n, (setup.lenslets,) * 2))
        begun = time.perf_counter()
        for _ in fit.steps(rng.random((n, n, setup.lenslets, setup.lenslets)).astype(np.float32)):
            pass
        return {"ms_per_epi": round(1e3 * (time.perf_counter() - begun) / (2 * setup.lenslets), 3)}
    entry = None
    if values["algorithm"] == "cista":
        from napari_lfm.methods.chosen_model import choose_model

        entry = choose_model(request, "localize")
    localizer = _end_of(make_localizer(request, microscope, n, entry))
    out = {}
    for name, count, repeats in (("ms_per_epi", 256, 5), ("ms_for_one", 1, 40)):
        images = rng.random((count, n, 2 * localizer.finder.half + 1)).astype(np.float32)
        localizer.finder.evidence(images)
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            localizer.finder.evidence(images)
            times.append(time.perf_counter() - begun)
        out[name] = round(1e3 * statistics.median(times) / count, 4)
    return out


def _end_of(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Run a part of it, for one of the microscopes that bundled models are for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("microscope", choices=sorted(SETUPS))
    parser.add_argument("algorithms", nargs="*", default=list(ALGORITHMS))
    parser.add_argument("--model")
    parser.add_argument("--folder", type=Path, help="where recordings are kept")
    given = parser.parse_args()
    found = run(_tell, SETUPS[given.microscope], tuple(given.algorithms), given.model, given.folder, None)
    _tell(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
