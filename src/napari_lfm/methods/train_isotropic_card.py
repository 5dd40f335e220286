"""The card of a model of isotropic restoration, and the model itself in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_lfm.methods.run_card import card_of_run
from napari_lfm.networks.isotropic_fit import HIGH_PERCENTILE, LOW_PERCENTILE
from napari_lfm.networks.weights import save_model
from napari_lfm.simulation.focal_scenes import TRAINING_FAMILIES
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, read_state

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.methods.train_isotropic_data import TrainingFrame
    from napari_lfm.methods.train_isotropic_wish import IsotropicWish
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.training.isotropic import IsotropicTask
    from napari_lfm.training.isotropic_degradation import Degradation

_SIMULATED = (
    "simulated lateral slices (beads, cells in a layer, worm-like bodies full of nuclei, nuclei side by "
    "side, neurons, large soft bodies), confocal and wide-field, planes {0:g} to {1:g} pixels apart, blur "
    "and noise at random; no recording was used"
)
_FOR_ONE = (
    "Made for one stack. For another of the same kind, with planes as far apart, it may do; for others train "
    "again."
)
_FOR_ALL = (
    "For a first look at any stack, and for its own training to start from. It never saw the stack: trust it "
    "where a training on the stack agrees."
)


@dataclass(frozen=True)
class TrainedOn:
    """A user's stack that is trained on.

    Attributes
    ----------
    name : str
    frame : TrainingFrame
    degradation : Degradation
    blur : ChosenBlur
    fingerprint : str
    """

    name: str
    frame: TrainingFrame
    degradation: Degradation
    blur: ChosenBlur
    fingerprint: str


def install(
    wish: IsotropicWish,
    task: IsotropicTask,
    data: TrainedOn | None,
    run: Path,
    folder: Path,
    recipe: str = "",
    **entries: Any,
) -> None:
    """Write the model of a run's best weights, if there are any.

    Parameters
    ----------
    wish : IsotropicWish
    task : IsotropicTask
    data : TrainedOn or None
        None: simulated slices.
    run, folder : Path
        Of the training, and of the model.
    recipe : str
        For the card.
    **entries
        Other entries of the card, e.g. ``licence``.
    """
    if (run / BEST).is_file():
        card = isotropic_card(wish, task, data, run, folder.name, recipe, **entries)
        save_model(folder, card, load_module_weights(run / BEST, "network"))


def isotropic_card(
    wish: IsotropicWish,
    task: IsotropicTask,
    data: TrainedOn | None,
    run: Path,
    id: str,
    recipe: str,
    **entries: Any,
) -> ModelCard:
    """Return the card of a run's best weights; see `install`."""
    best = read_state(run / BEST)
    last = read_state(run / LAST) if (run / LAST).is_file() else best
    history = [h for h in last.get("history", []) if h["step"] == best["step"]]
    held = "specimens of other seeds" if data is None else "planes that were set aside"
    arguments = dict(task.arguments)
    values: dict[str, Any] = {
        "id": id,
        "method": "isotropic",
        "architecture": task.plan.architecture,
        "network": arguments,
        "microscope": None if wish.microscope is None else wish.microscope.model_dump(mode="json"),
        "n_pixels": None,
        "z_um": [],
        "voxels_per_lenslet": None,
        "scores": [{"set": f"validation: {held}", **history[0]["values"]}] if history else [],
        "recipe": recipe,
    }
    training: dict[str, Any] = {
        "losses": ["Laplace likelihood" if arguments.get("probabilistic") else "L1"],
        "minutes": round(float(best["seconds"]) / 60, 3),
    }
    scalers = {"low_percentile": LOW_PERCENTILE, "high_percentile": HIGH_PERCENTILE}
    if data is None:
        factors = task.describe()["stack"]["factor"]
        values |= {
            "title": wish.title or "Isotropic restoration, a start for any stack (simulated)",
            "scalers": {**scalers, "factor": 0.0},
            "specimens": list(TRAINING_FAMILIES),
            "data": _SIMULATED.format(*factors),
            "notes": _FOR_ALL,
        }
    else:
        values |= _of_stack(wish, data, scalers)
        training["stack"] = {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "frame": data.frame.frame,
        }
        training["blur"] = data.blur.record()
    return card_of_run(run, wish, task.modules["network"], {**values, **entries}, **training)


def _of_stack(wish: IsotropicWish, data: TrainedOn, scalers: dict[str, float]) -> dict[str, Any]:
    """Return what the card says of the stack."""
    found, blur = data.frame.found, data.blur
    channels = len(data.frame.values)
    planes = " x ".join(map(str, found.info.shape))
    words = f"one stack of the user ({data.name}), {planes} voxels, planes {found.factor:.3g} pixels apart"
    words += f", {channels} channels" if channels > 1 else ""
    if wish.starts:
        words += f"; fine-tuned from '{wish.start_from}'"
    return {
        "title": wish.title or f"Isotropic restoration of {data.name}",
        "scalers": {
            **scalers,
            "factor": round(found.factor, 6),
            "blur_px": round(blur.sigma_um / found.pixel_um, 6),
            "pixel_um": round(found.pixel_um, 6),
            "csbdeep": float(wish.profile == "csbdeep"),
        },
        "specimens": ["the user's own"],
        "data": words,
        "notes": _FOR_ONE,
    }
