"""The authors' models for refocusing: imported from their folders, run with their own normalisation."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import RefocusDomain, domain_of
from napari_lfm.methods.refocus.published import PublishedRefocuser, published_levels
from napari_lfm.networks import refocus_published
from napari_lfm.networks.catalogue import list_models
from napari_lfm.networks.refocus_paper import RefocusPaperNet
from napari_lfm.networks.refocus_published import import_published, is_published
from napari_lfm.networks.stack_scale import StackLevels
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path


class Told(nn.Module):
    """Gives what it was told: the image plus the distance, over 10 um."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, image: torch.Tensor, z_um: torch.Tensor) -> torch.Tensor:
        self.seen.append((image.clone(), z_um.clone()))
        return self.factor * (image + z_um / 10)


def refocuser(image: np.ndarray, **more: Any) -> tuple[PublishedRefocuser, Told]:
    network = Told()
    domain = RefocusDomain(DefocusOptics(), 0.325, 10.0, 0.5, confocal=False)
    return PublishedRefocuser(network, domain, image, 0.325, **more), network


def cells(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = 100 + rng.normal(0, 2, shape)
    image[4:12, 4:12] = 1000
    return image.astype(np.float32)


def test_the_scale_is_that_of_the_plug_in() -> None:
    image = cells((40, 60))
    levels = published_levels(image)
    # median off; divided by the foreground's 99th percentile of grey values as they are
    assert levels.low == pytest.approx(np.median(image))
    assert levels.span == pytest.approx(1000)
    with pytest.raises(RequestError, match="all of one brightness"):
        published_levels(np.full((8, 8), 3.0))


def test_a_frame_is_padded_with_zeros_and_told_the_distance() -> None:
    image = cells((40, 60))
    made, network = refocuser(image, frame_px=64)
    plane = made.plane(-5.0)
    seen, z_um = network.seen[0]
    assert seen.shape == z_um.shape == (1, 1, 64, 64)
    assert not seen[0, 0, 40:].any()
    assert not seen[0, 0, :, 60:].any()
    assert float(z_um.min()) == float(z_um.max()) == -5.0
    scaled = (image - made.levels.low) / made.levels.span
    wanted = np.maximum(scaled - 0.5, 0) * made.levels.span
    assert np.allclose(plane.widefield, wanted, atol=1e-2)
    assert not plane.beyond.any()
    # a region, and then the rest: the network runs once
    part = made.plane(-5.0, (10, 20, 30, 40))
    assert np.array_equal(part.widefield, plane.widefield[10:30, 20:40])
    assert len(network.seen) == 1
    heights = np.linspace(-12, 12, 40 * 60, dtype=np.float32).reshape(40, 60)
    surface = made.surface(heights)
    assert np.array_equal(surface.beyond, np.abs(heights) > 10)
    assert torch.equal(network.seen[-1][1][0, 0, :40, :60], torch.from_numpy(heights).clip(-12.5, 12.5))
    with pytest.raises(RequestError, match="no confocal stack"):
        made.expected(np.zeros((3, 40, 60)), np.arange(3.0))


def test_large_images_are_seen_in_frames() -> None:
    image = cells((150, 90))
    levels = StackLevels(100.0, 200.0)
    whole, _ = refocuser(image, levels=levels, frame_px=256)
    frames, network = refocuser(image, levels=levels, frame_px=64)
    heights = np.fromfunction(lambda y, x: 0.05 * y - 0.03 * x, image.shape).astype(np.float32)
    assert np.allclose(frames.surface(heights).widefield, whole.surface(heights).widefield, atol=1e-3)
    assert len(network.seen) == 6


def write_table(folder: Path) -> None:
    """Write what looks like a SavedModel with an index that is none."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / "variables" / "variables.index").write_bytes(struct.pack("<Q", 7) * 8)


def test_a_published_folder_becomes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Leica_20X0.8_worm_TxRd"
    write_table(folder)
    assert is_published(folder)
    assert not is_published(tmp_path)
    with pytest.raises(RequestError, match="damaged"):
        import_published(folder)
    assert not [e for e in list_models("refocus") if e.source == "user"]

    class Small(RefocusPaperNet):
        """The network, thin: the real one has tens of millions of weights."""

        levels = 5

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.last = nn.Conv2d(2, 1, 3)

    monkeypatch.setattr(refocus_published, "load_published", lambda _: Small())
    card = import_published(folder).card
    assert card.id == "refocus-leica-20x0.8-worm-txrd"
    assert (card.architecture, card.network) == ("refocus-paper", {"levels": 5})
    assert card.licence.startswith("non-commercial, never passed on")
    assert "20x/0.8 is assumed" in card.notes
    domain = domain_of(card)
    assert (domain.range_um, domain.pixel_um, domain.confocal) == (10.0, 0.325, False)
    oil = import_published(folder, "oil", load_microscope("wf-40x1.3o")).card
    assert domain_of(oil).range_um == 2.7
    assert domain_of(oil).optics.na == 1.3
    assert "assumed" not in oil.notes
    assert domain_of(import_published(folder, "told", z_um=(-4, 6)).card).range_um == 6.0
