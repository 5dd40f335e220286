"""``napari-lfm models --import`` with a checkpoint of LFMNet's authors."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import torch

from napari_lfm.networks.lfmnet import LFMNet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell


def test_a_checkpoint_is_imported_and_asked_about(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "model_6"
    state = LFMNet(3, 3).state_dict()
    kernel = state.pop("lensletConvolution.0.weight")
    for i in range(3):  # as the authors' code keeps it
        state[f"lensletConvolution.0.conv_layers.{i}.weight"] = kernel[:, None, 3 * i : 3 * i + 3].clone()
    torch.save({"model_state_dict": state, "args": Namespace(ths=0.03), "epoch": 6}, path)
    asked = shell("models", "--import", path)
    assert asked.status == 2
    assert "down = maxpool or down = stride" in asked.err
    told = ("--down", "stride", "--microscope", "mbl-60x1.2w", "--z-um", "-2", "2", "--input-max", "99")
    done = shell("models", "--import", path, "--id", "theirs", *told, "--json")
    assert done.status == 0
    assert done.json["id"] == "theirs"
    assert (done.json["z_um"], done.json["scalers"]) == ([-2, 0, 2], {"input_max": 99})
    assert done.json["network"]["act"] == "relu"
    assert "theirs" in shell("models").out
    assert shell("models", "--down", "stride").status == 2
    folder = done.json["folder"]
    assert "is no checkpoint" in shell("models", "--import", folder, "--down", "stride").err
