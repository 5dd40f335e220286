"""Checkpoints as the authors' training writes them: read, refused, imported; nothing in them is run."""

from __future__ import annotations

import argparse
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.lfmnet import LFMNet
from napari_lfm.networks.lfmnet_checkpoint import import_checkpoint, is_checkpoint, read_checkpoint
from napari_lfm.networks.registry import build_network, find_model, open_network
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

DOUBLE = [(0, "conv"), (1, "norm"), (3, "conv"), (4, "norm")]


def authors_state(depths: int = 4, fov: int = 3, skip: bool = False) -> dict[str, torch.Tensor]:
    """The shallow network's weights under the documented names, made without our own classes."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int) -> None:
        state[name] = 0.1 * torch.randn(shape, generator=generator)

    def conv(name: str, n_in: int, n_out: int, size: int = 3) -> None:
        put(f"{name}.weight", n_out, n_in, size, size)
        put(f"{name}.bias", n_out)

    def double(name: str, n_in: int, n_out: int) -> None:
        for at, kind in DOUBLE:
            if kind == "conv":
                conv(f"{name}.conv.{at}", n_in if at == 0 else n_out, n_out)
                continue
            for part in ("weight", "bias", "running_mean"):
                put(f"{name}.conv.{at}.{part}", n_out)
            state[f"{name}.conv.{at}.running_var"] = 0.5 + torch.rand(n_out, generator=generator)
            state[f"{name}.conv.{at}.num_batches_tracked"] = torch.tensor(7)

    put("lensletConvolution.0.bias", depths)
    for i in range(3):
        put(f"lensletConvolution.0.conv_layers.{i}.weight", depths, 1, 3, fov, fov)
    double("Unet.inc.conv", depths, 64)
    for name, n_in in (("down1", 64), ("down2", 128)):
        conv(f"Unet.{name}.mpconv.0", n_in, 128)
        double(f"Unet.{name}.mpconv.1", 128, 128)
    for name, n_in in (("up3", 256), ("up4", 128)):
        n_up = n_in // 2 if skip else n_in
        put(f"Unet.{name}.up.weight", n_in // 2, n_up, 3, 3)
        put(f"Unet.{name}.up.bias", n_up)
        double(f"Unet.{name}.conv", n_in, 64)
    conv("Unet.outc.0.conv", 64, depths, 1)
    return state


def slabs(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights as the authors' code would keep them."""
    out = dict(state)
    kernel = out.pop("lensletConvolution.0.weight")
    for i in range(3):
        out[f"lensletConvolution.0.conv_layers.{i}.weight"] = kernel[:, None, 3 * i : 3 * i + 3].clone()
    return out


def saved(path: Path, state: dict[str, torch.Tensor], wrapper: str = "module.", **more: Any) -> Path:
    args = argparse.Namespace(
        fovInput=3,
        useSkipCon=False,
        useShallowUnet=True,
        useBias=True,
        GPUs=[0, 1],
        ths=0.03,
        randomSeed=None,
    )
    content = {
        "epoch": 44,
        "args": args,
        "model_state_dict": {wrapper + name: value for name, value in state.items()},
        "optimizer_state_dict": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.005}]},
        "loss": 0.25,
        "dataset_path": "Brain_40x_64Depths_362imgs.h5",
    }
    torch.save({**content, **more}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(tmp_path / "model_44", authors_state())


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("wrapper", ["module.", ""])
def test_the_documented_names_fit(tmp_path: Path, skip: bool, wrapper: str) -> None:
    state = authors_state(skip=skip)
    found = read_checkpoint(saved(tmp_path / "model_2", state, wrapper), down="maxpool")
    assert found.network == {
        "n_depths": 4, "fov": 3, "shallow": True, "skip": skip, "bias": True,
        "down": "maxpool", "act": "leaky",
    }  # fmt: skip
    net = LFMNet(**found.network)
    net.load_state_dict(found.state_dict)
    assert torch.equal(net.state_dict()["Unet.up3.up.weight"], state["Unet.up3.up.weight"])
    assert (found.facts["epoch"], found.facts["loss"]) == (44, 0.25)
    assert found.facts["args"]["GPUs"] == [0, 1]
    assert len(found.facts["notes"]) == skip  # its settings say that there is no skip


def test_the_format_of_old_torch_versions(tmp_path: Path) -> None:
    path = tmp_path / "model_0"
    content = {"model_state_dict": authors_state(), "args": argparse.Namespace(), "epoch": 0}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert is_checkpoint(path)
    assert read_checkpoint(path, act="relu").network["down"] == "stride"


def test_a_full_network_needs_no_variant_and_a_bare_state_dict_will_do(tmp_path: Path) -> None:
    state = slabs(LFMNet(2, 3, shallow=False, bias=False).state_dict())
    torch.save(state, tmp_path / "weights")
    found = read_checkpoint(tmp_path / "weights")
    assert found.network == {
        "n_depths": 2, "fov": 3, "shallow": False, "skip": False, "bias": False,
        "down": "stride", "act": "relu",
    }  # fmt: skip
    LFMNet(**found.network).load_state_dict(found.state_dict)


def test_both_variants_load_and_differ(checkpoint: Path) -> None:
    volumes = []
    for down in ("maxpool", "stride"):
        network, state, _ = read_checkpoint(checkpoint, down=down)  # type: ignore[arg-type]
        net = LFMNet(**network, n_pixels=5)
        net.load_state_dict(state)
        with torch.no_grad():
            volumes.append(net.eval().volume_of(torch.linspace(0, 1, 400).view(1, 20, 20)))
    assert (volumes[0] - volumes[1]).abs().max() > 1e-4


def test_where_the_file_cannot_tell_the_variant_it_asks(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(RequestError, match=r"which of two variants.*Say down = maxpool or down = stride"):
        read_checkpoint(checkpoint)
    for day, guess in (("2020_03_26__14:31:55", "stride"), ("2020_11_02__09:00:00", "maxpool")):
        folder = tmp_path / f"{day}_TrueB_commit__".replace(":", "-")
        folder.mkdir()
        with pytest.raises(RequestError, match=f"speaks for {guess}"):
            read_checkpoint(saved(folder / "model_44", authors_state()))
    with pytest.raises(RequestError, match="no variant mean"):
        read_checkpoint(checkpoint, down="mean")  # type: ignore[arg-type]


class Trap:
    """Unpickling it makes a file, if anything runs it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle", "inside"])
def test_a_pickle_of_something_else_is_never_run(tmp_path: Path, how: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / "model_4"
    trap = Trap(touched)
    if how == "pickle":
        path.write_bytes(pickle.dumps(trap))
    elif how == "inside":
        saved(path, authors_state(), optimizer_state_dict=trap)
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(RequestError, match="nothing in it was run") as caught:
        read_checkpoint(path, down="maxpool")
    assert how == "pickle" or "mkdir" in str(caught.value)
    assert not touched.exists()
    pickle.loads(pickle.dumps(trap))  # and the trap does work
    assert touched.is_dir()


def test_files_that_are_no_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    path, whole = tmp_path / "model_8", checkpoint.read_bytes()

    def refused(content: bytes, sentence: str) -> None:
        path.write_bytes(content)
        with pytest.raises(RequestError, match=sentence):
            read_checkpoint(path, down="maxpool")

    refused(b"", "is empty")
    refused(b"not a checkpoint at all", "is no checkpoint of PyTorch")
    for kept in (3, len(whole) // 2, len(whole) - 10):
        refused(whole[:kept], "incomplete or damaged|no checkpoint of PyTorch")
    refused(pickle.dumps({"model_state_dict": {}}, protocol=2), "a pickle of something else")
    torch.save(authors_state(), path, _use_new_zipfile_serialization=False)
    for kept in (12, 400, 90_000):
        refused(path.read_bytes()[:kept], "incomplete or damaged")
        torch.save(authors_state(), path, _use_new_zipfile_serialization=False)
    torch.save(torch.zeros(3), path)
    refused(path.read_bytes(), "holds no weights of LFMNet")
    torch.save({"epoch": 3}, path)
    refused(path.read_bytes(), "holds no weights of LFMNet")
    torch.save({"model_state_dict": nn.Linear(2, 2).state_dict()}, path)
    refused(path.read_bytes(), "another network")
    with pytest.raises(RequestError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(RequestError, match="cannot be read"):
        read_checkpoint(tmp_path / "absent")


def test_shapes_that_do_not_fit_are_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "model_10"

    def refused(sentence: str, **changed: torch.Tensor | None) -> None:
        state = authors_state()
        for name, value in changed.items():
            if value is None:
                del state[name]
            else:
                state[name] = value
        saved(path, state)
        with pytest.raises(RequestError, match=sentence):
            read_checkpoint(path, down="maxpool")

    inc = "Unet.inc.conv.conv.0.weight"
    refused(
        rf"'{inc}' in .* are 64 x 2 x 3 x 3, but LFMNet \(shallow, 4 depths\) has 64 x 4 x 3 x 3",
        **{inc: torch.zeros(64, 2, 3, 3)},
    )
    refused("lacks the weights 'Unet.up4.up.bias'", **{"Unet.up4.up.bias": None})
    refused("does not have, 'Unet.extra'", **{"Unet.extra": torch.zeros(1)})
    refused("not all finite numbers", **{inc: torch.full((64, 4, 3, 3), torch.nan)})
    refused(
        "fov odd",
        **{f"lensletConvolution.0.conv_layers.{i}.weight": torch.zeros(4, 1, 3, 4, 4) for i in range(3)},
    )
    first = "lensletConvolution.0.conv_layers.{}.weight"
    refused(
        "are 4 x 1 x 3 x 5 x 5, but LFMNet with 4 depths", **{first.format(1): torch.zeros(4, 1, 3, 5, 5)}
    )
    refused("lacks the weights", **{first.format(2): None})
    refused(
        "has no 4-D convolution", **{"lensletConvolution.0.conv_layers.0.weight": torch.zeros(4, 3, 3, 3)}
    )


def test_import_makes_a_model_that_opens(checkpoint: Path, lfm_home: Path) -> None:
    guv = load_microscope("mbl-60x1.2w")
    with pytest.raises(RequestError, match="Name the microscope"):
        import_checkpoint(checkpoint, down="maxpool")
    with pytest.raises(RequestError, match="at which depths"):
        import_checkpoint(checkpoint, down="maxpool", microscope=guv)
    with pytest.raises(RequestError, match="3 depths do not fit the 4 planes"):
        import_checkpoint(checkpoint, down="maxpool", microscope=guv, z_um=(0, 1, 2))
    with pytest.raises(RequestError, match="cannot be divided by 0"):
        import_checkpoint(checkpoint, down="maxpool", microscope=guv, z_um=(0, 3), input_max=0)
    with pytest.raises(RequestError, match="has no lenslets"):
        plain = guv.model_copy(update={"lenslets": None})
        import_checkpoint(checkpoint, down="maxpool", microscope=plain, z_um=(0, 3))
    entry = import_checkpoint(checkpoint, down="stride", microscope=guv, z_um=(-3, 3), input_max=213)
    assert entry.card.id == "lfmnet-model-44"
    found = find_model("lfmnet-model-44", method="lfmnet")
    card = found.card
    assert (card.architecture, card.n_pixels, card.voxels_per_lenslet) == ("lfmnet-paper", 15, 15)
    assert card.z_um == [-3, -1, 1, 3]
    assert card.scalers == {"input_max": 213}
    assert card.training["args"]["ths"] == 0.03
    net = open_network(found)
    assert isinstance(net, LFMNet)
    assert (net.down, net.act, net.n_pixels) == ("stride", "relu", 15)
    assert not net.training
    expected = authors_state()
    found_state = net.state_dict()
    for i in range(3):
        slab = expected.pop(f"lensletConvolution.0.conv_layers.{i}.weight")
        assert torch.equal(found_state["lensletConvolution.0.weight"][:, 3 * i : 3 * i + 3], slab[:, 0])
    assert all(torch.equal(found_state[name], value) for name, value in expected.items())
    with torch.no_grad():
        assert net.volume_of(torch.rand(1, 45, 45)).shape == (1, 4, 45, 45)
    with pytest.raises(RequestError, match="model 'lfmnet-model-44' already"):
        import_checkpoint(checkpoint, down="stride", microscope=guv, z_um=(-3, 3))
    second = import_checkpoint(checkpoint, "another", down="maxpool", microscope=guv, z_um=(-3, 3))
    assert second.card.id == "another"
    assert "255" in second.card.notes


def test_the_papers_network_is_taken_to_be_the_papers_microscope(tmp_path: Path) -> None:
    path = saved(tmp_path / "model_98", authors_state(64, 9))
    card = import_checkpoint(path, down="maxpool").card
    assert card.parameters == 1_602_496
    assert card.optics == load_microscope("bern-40x0.9")
    assert (len(card.z_um), card.z_um[0], card.z_um[-1]) == (64, -28.35, 28.35)
    assert "assumed" in card.notes
    with torch.device("meta"):
        assert build_network(card).n_pixels == 33


def test_what_looks_like_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    assert is_checkpoint(checkpoint)
    assert not is_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert not is_checkpoint(tmp_path / "notes.txt")
    (tmp_path / "model_12").write_text("cut short")  # its reader can say what is wrong
    assert is_checkpoint(tmp_path / "model_12")
