from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.training.folder_pairs import FolderPairs
from napari_lfm.training.loop import train
from napari_lfm.training.losses import L1, Sum
from napari_lfm.training.task import BaseTask, Validation

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, side: str, name: str, image: np.ndarray) -> Path:
    path = folder / side / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def coded(number: int, shape: tuple[int, ...], unit: int) -> np.ndarray:
    """An image whose values say which pair and which lateral step they belong to."""
    y, x = (np.arange(n) // unit for n in shape[-2:])
    return np.broadcast_to(1000 * number + 20 * y[:, None] + x, shape).astype(np.uint16)


@pytest.fixture
def lenslets(tmp_path: Path) -> Path:
    """Six light fields of 3 pixels per lenslet with volumes of 4 planes and 2 voxels per lenslet."""
    for i in range(1, 7):
        write(tmp_path, "input", f"{i}.tif", coded(i, (18, 24), 3))
        write(tmp_path, "target", f"{i}.ome.tif", coded(i, (4, 12, 16), 2))
    return tmp_path


def pairs(folder: Path, **more: Any) -> FolderPairs:
    return FolderPairs(folder, **{"crop": (4, 5), "units": (3, 2), "seed": 3, **more})


def test_crops_of_both_sides_show_the_same_lenslets(lenslets: Path) -> None:
    data = pairs(lenslets, flips=False)
    starts = set()
    for index in range(8):
        batch = data.batch(index, 3)
        assert batch["input"].shape == (3, 12, 15) and batch["target"].shape == (3, 4, 8, 10)
        assert batch["input"].dtype == torch.float32
        assert torch.equal(batch["input"][:, ::3, ::3], batch["target"][:, 0, ::2, ::2])
        starts |= set(batch["input"][:, 0, 0].tolist())
    assert len(starts) > 10


def test_flips_mirror_both_sides(lenslets: Path) -> None:
    batch = pairs(lenslets).batch(0, 40)
    assert torch.equal(batch["input"][:, 1::3, 1::3], batch["target"][:, 0, ::2, ::2])
    corners = batch["input"][:, 0, 0] - batch["input"][:, -1, -1]
    assert set(corners.tolist()) == {-64.0, -56.0, 56.0, 64.0}  # 3 rows of 20 and 4 columns either way


def test_batches_depend_on_seed_and_index_alone(lenslets: Path) -> None:
    one, two = pairs(lenslets), pairs(lenslets, cache_bytes=1)
    for index in (5, 2, 9):
        a, b = one.batch(index, 2), two.batch(index, 2)
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(one.batch(5, 2)["input"], one.batch(6, 2)["input"])
    assert not torch.equal(one.batch(5, 2)["input"], pairs(lenslets, seed=4).batch(5, 2)["input"])


def test_the_cache_stays_small(lenslets: Path) -> None:
    data = pairs(lenslets, cache_bytes=3000)
    data.batch(0, 30)
    assert sum(p.nbytes for p in data._cache.values()) <= 3000  # noqa: SLF001


def test_files_set_aside_are_never_trained_on(lenslets: Path) -> None:
    data = pairs(lenslets, validation_share=0.3)
    assert len(data.validation_names) == 2
    assert sorted(data.train_names + data.validation_names) == list("123456")
    seen = {int(v) for i in range(20) for v in (data.batch(i, 4)["input"][:, 0, 0] // 1000)}
    assert seen == set(map(int, data.train_names))
    aside = dict(data.validation())
    assert tuple(aside) == data.validation_names
    for name, batch in aside.items():
        assert batch["target"].shape == (1, 4, 8, 10)
        assert float(batch["input"][0, 0, 0]) == 1000 * int(name) + 20 * 1 + 1  # the centre
    assert pairs(lenslets, validation_share=0.3).describe() == data.describe()


def test_scales_are_those_of_the_whole_image(tmp_path: Path) -> None:
    ramp = np.arange(400, dtype=np.float32).reshape(20, 20)
    for name in "ab":
        write(tmp_path, "input", f"{name}.tif", ramp)
        write(tmp_path, "target", f"{name}.tif", ramp * 0)
    batch = FolderPairs(tmp_path, (4, 4), percentile=50).batch(0, 3)
    assert batch["input_scale"].tolist() == [199.5] * 3
    assert batch["target_scale"].tolist() == [1.0] * 3


def test_stacks_are_cropped_along_z_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        stack = rng.random((6, 10, 12)).astype(np.float32)
        write(tmp_path, "input", f"{name}.tif", stack)
        write(tmp_path, "target", f"{name}.tif", stack * 2)
    batch = FolderPairs(tmp_path, (3, 8, 8)).batch(0, 5)
    assert batch["input"].shape == (5, 3, 8, 8)
    assert torch.equal(batch["input"] * 2, batch["target"])
    whole = FolderPairs(tmp_path, None).batch(0, 2)
    assert whole["input"].shape == (2, 6, 10, 12)


BAD = {
    "nan": "contains NaN or infinite values",
    "truncated": "cannot be read",
    "text": "cannot be read",
    "shape": "do not cover the same field",
    "planes": "differ from the others'",
    "small": "smaller than a crop",
    "complex": "holds complex64 values",
    "alone": "has no partner in 'target'",
}


def spoil(folder: Path, kind: str) -> None:
    """Make pair 4 a bad one."""
    if kind == "nan":
        bad = coded(4, (4, 12, 16), 2).astype(np.float32)
        bad[2, 3, 3] = np.nan
        write(folder, "target", "4.ome.tif", bad)
    elif kind == "truncated":
        path = folder / "input" / "4.tif"
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "text":
        (folder / "input" / "4.tif").write_text("not an image")
    elif kind == "shape":
        write(folder, "input", "4.tif", coded(4, (18, 21), 3))
    elif kind == "planes":
        write(folder, "target", "4.ome.tif", coded(4, (5, 12, 16), 2))
    elif kind == "small":
        write(folder, "input", "4.tif", coded(4, (9, 9), 3))
        write(folder, "target", "4.ome.tif", coded(4, (4, 6, 6), 2))
    elif kind == "complex":
        write(folder, "input", "4.tif", np.ones((18, 24), np.complex64))
    else:
        (folder / "target" / "4.ome.tif").unlink()


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_pair_is_skipped_and_named_once(lenslets: Path, kind: str) -> None:
    spoil(lenslets, kind)
    data = pairs(lenslets, validation_share=0.3)
    seen = {int(v) for i in range(30) for v in (data.batch(i, 4)["input"][:, 0, 0] // 1000)}
    seen |= {int(b["input"][0, 0, 0] // 1000) for _, b in data.validation()}
    assert seen == {1, 2, 3, 5, 6}
    (problem,) = data.problems
    assert problem.severity == "warning" and problem.field == "4"
    assert problem.message.startswith("The pair '4' is skipped: ") and BAD[kind] in problem.message
    assert data.notes() == [problem.message]
    assert data.notes() == []


def test_a_bad_pair_found_late_does_not_break_repeatability(lenslets: Path) -> None:
    spoil(lenslets, "nan")
    one, two = pairs(lenslets), pairs(lenslets)
    forward = [one.batch(i, 3) for i in range(12)]
    backward = [two.batch(i, 3) for i in reversed(range(12))][::-1]
    assert all(torch.equal(a["input"], b["input"]) for a, b in zip(forward, backward, strict=True))


def test_nothing_to_train_on_is_refused(tmp_path: Path, lenslets: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RequestError, match="There are no TIFF images in"):
        FolderPairs(empty, (4, 4))
    one = tmp_path / "one"
    for side in ("input", "target"):
        write(one, side, "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(RequestError, match=r"holds 1 usable pair of images.*At least two"):
        FolderPairs(one, (4, 4))
    nans = tmp_path / "nans"
    for name in "abc":
        for side in ("input", "target"):
            write(nans, side, f"{name}.tif", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(RequestError, match=r"holds 0 usable pairs of images\. The pair '.' is skipped"):
        FolderPairs(nans, (4, 4))
    data = pairs(lenslets)
    for name in "123456":
        (lenslets / "input" / f"{name}.tif").unlink()
    with pytest.raises(RequestError, match="None of the 5 training pairs"):
        data.batch(0, 1)
    assert len(data.notes()) == 5
    assert len(list(data.validation())) == 1  # was read when the data set was opened


def test_a_bad_pair_is_named_while_training(tmp_path: Path, config: Any) -> None:
    class Copy(BaseTask):
        def __init__(self) -> None:
            super().__init__({"network": torch.nn.Conv2d(1, 1, 1)})
            self.data = FolderPairs(tmp_path / "data", (4, 4))
            self.notes, self.describe = self.data.notes, self.data.describe

        def batch(self, index: int) -> dict[str, torch.Tensor]:
            return self.data.batch(index, 2)

        def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            out = self.modules["network"](batch["input"][:, None])
            return Sum({"l1": (1.0, L1())})(out, batch["target"][:, None])

        def validate(self, modules: Any) -> Validation:
            errors = [
                float(L1()(modules["network"](b["input"][:, None]), b["target"][:, None]))
                for _, b in self.data.validation()
            ]
            return Validation(-float(np.mean(errors)))

    rng = np.random.default_rng(0)
    for name in "abcd":
        image = rng.random((8, 8)).astype(np.float32)
        write(tmp_path / "data", "input", f"{name}.tif", image)
        write(tmp_path / "data", "target", f"{name}.tif", image)
    write(tmp_path / "data", "input", "c.tif", np.full((8, 8), np.nan, np.float32))
    events = list(train(Copy(), config(prefetch=1), tmp_path / "run"))
    assert events[-1].reason == "steps"
    told = [e.message for e in events if isinstance(e, Progress) and "skipped" in e.message]
    assert told == ["The pair 'c' is skipped: 'input/c.tif' contains NaN or infinite values."]
