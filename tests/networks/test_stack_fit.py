"""Whether a model for stacks fits: voxels that can be resampled, optics that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.stack_fit import check_stack_card, voxel_of
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

VOXEL = (0.5, 0.1083, 0.1083)
SCALERS = {f"voxel_{axis}_um": v for axis, v in zip("zyx", VOXEL, strict=True)}


def card(microscope: Microscope | None = None, scalers: dict[str, float] | None = None) -> ModelCard:
    return ModelCard(
        id="a", title="", version="1", method="wfcon", architecture="wfcon", network={},
        microscope=None if microscope is None else microscope.model_dump(mode="json"), n_pixels=None,
        z_um=[], voxels_per_lenslet=None, scalers=SCALERS if scalers is None else scalers, specimens=[],
        licence="", data="", training={}, scores=[], hours=0.0, trained_on="", date="2026-01-01",
        parameters=1, sha256="", versions={}, notes="",
    )  # fmt: skip


def scaled(z: float, across: float) -> tuple[float, float, float]:
    return z * VOXEL[0], across * VOXEL[1], across * VOXEL[2]


@pytest.mark.parametrize(
    ("z", "across", "verdict"),
    [
        (1.0, 1.0, "matches"),
        (1.04, 0.98, "matches"),
        (1.0, 2.0, "resample"),  # binned twofold, with the size as a file rounds it
        (1.0, 2.002, "resample"),
        (4.0, 1.0, "resample"),
        (1.0, 2.2, "refused"),
        (1.0, 0.35, "refused"),
        (5.0, 1.0, "refused"),
        (0.15, 1.0, "refused"),
    ],
)
def test_voxels(z: float, across: float, verdict: str) -> None:
    found = check_stack_card(card(), scaled(z, across), None)
    assert found.verdict == verdict
    # y and x say the same, and that once
    assert len(found.reasons) == (verdict != "matches")


def test_optics_are_noted_from_a_tenth_on_and_refused_from_a_third_on() -> None:
    own = load_microscope("wf-60x1.4o")

    def with_na(na: float) -> Any:
        objective = own.objective.model_copy(update={"na": na})
        return check_stack_card(card(own), VOXEL, own.model_copy(update={"objective": objective}))

    assert with_na(1.3).verdict == "matches"
    assert with_na(1.2).verdict == "resample"
    assert "1.2" in with_na(1.2).reasons[0]
    assert with_na(0.8).verdict == "refused"
    red = own.model_copy(update={"wavelength_um": 1.5 * own.wavelength_um})
    assert check_stack_card(card(own), VOXEL, red).verdict == "refused"
    # neither is held against a microscope that nobody has told
    assert check_stack_card(card(), VOXEL, red).verdict == "matches"


def test_a_card_without_voxels_is_refused() -> None:
    assert voxel_of(card()) == VOXEL
    with pytest.raises(RequestError, match="how large its voxels are"):
        check_stack_card(card(scalers={}), VOXEL, None)
