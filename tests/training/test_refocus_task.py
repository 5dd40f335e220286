"""Training of virtual refocusing: it learns, repeats, and draws what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_stacks import FocalSettings
from napari_lfm.training.focal_pairs import OpticsSpread, RecordedFocal, SimulatedFocal, recorded
from napari_lfm.training.refocus import RefocusPlan, RefocusTask
from napari_lfm.training.refocus_losses import share_loss
from napari_lfm.training.task import numpy_rng

TINY = {"widths": (4, 6), "bands": (4,), "planes": 5, "depth_widths": (8, 8)}
SPREAD = OpticsSpread(variants=1)
ALL = (slice(0, 64), slice(0, 64))


@pytest.fixture(scope="module")
def source() -> SimulatedFocal:
    settings = FocalSettings(shape=(9, 64, 64), step_um=0.5, beyond=1)
    made = SimulatedFocal(settings, spread=SPREAD, pool=2, fresh_every=1000, validation_stacks=1)
    for _ in made.prepare():
        pass
    return made


def plan(**changes: object) -> RefocusPlan:
    values: dict[str, object] = {
        "network": TINY,
        "range_um": 2.0,
        "patch_px": 48,
        "planes": 3,
        "first_steps": 0,
        "render_every": 1,
    }
    return RefocusPlan(**{**values, **changes})  # type: ignore[arg-type]


def test_learns(source: SimulatedFocal) -> None:
    task = RefocusTask(source, plan(consistency=0.0))
    optimiser = torch.optim.Adam(task.modules["network"].parameters(), 3e-3)
    batches = [task.batch(k) for k in range(4)]
    losses = []
    for _ in range(10):
        total = torch.stack([task.loss("generator", b)["loss"] for b in batches]).mean()
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_batches_repeat(source: SimulatedFocal) -> None:
    one, two = (RefocusTask(source, plan(), seed=3).batch(5)[0] for _ in range(2))
    for name in ("image", "confocal", "wide", "valid"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name))
    assert not torch.equal(one.image, RefocusTask(source, plan(), seed=3).batch(6)[0].image)


def test_planes_that_no_stack_has_are_not_compared(source: SimulatedFocal) -> None:
    task = RefocusTask(source, plan())
    given = source.validation()[0]
    edge = task.example(given, 0, given.widefield[0].float(), 0.0, 1.0, np.array([0]), ALL, 0)
    assert edge.valid.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    middle = task.example(given, 4, given.widefield[4].float(), 0.0, 1.0, np.array([0]), ALL, 0)
    assert middle.valid.tolist() == [1.0] * 5


@pytest.mark.parametrize("turn", range(8))
def test_image_and_targets_are_turned_alike(source: SimulatedFocal, turn: int) -> None:
    """At distance 0 the rendered target is the image, and the confocal one is of the same place."""
    given = source.validation()[0]
    e = RefocusTask(source, plan()).example(
        given, 4, given.widefield[4].float(), 0.0, 1.0, np.array([0]), ALL, turn
    )
    torch.testing.assert_close(e.image, e.wide[0])
    assert e.confocal is not None and e.sweep is not None
    alike = [
        np.corrcoef(e.wide[0].flatten(), part.flatten())[0, 1] for part in (e.confocal[2], e.sweep.careful[2])
    ]
    assert min(alike) > 0.5


def test_the_stacks_own_truth_has_the_least_loss(
    source: SimulatedFocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the true confocal stack in place of the network's, nothing of the loss is left but noise."""
    task = RefocusTask(source, plan(network={**TINY, "planes": 9}))
    batch = [
        task.example(d, 4, d.widefield[4].float(), 0.0, 1.0, np.array([-3, 2]), ALL, 0)
        for d in [source.validation()[0]]
    ]
    with torch.no_grad():
        learned = task.loss("generator", batch)
        truth = batch[0].confocal
        assert truth is not None
        monkeypatch.setattr(task.modules["network"], "forward", lambda *_: (truth.clamp(min=0).sqrt(), None))
        best = task.loss("generator", batch)
        empty = torch.zeros_like(truth)
        monkeypatch.setattr(task.modules["network"], "forward", lambda *_: (empty, None))
        nothing = task.loss("generator", batch)
    assert float(best["confocal_roots"]) == 0.0
    assert float(best["consistency"]) < float(nothing["consistency"])
    assert float(best["widefield_roots"]) < 0.5 * float(nothing["widefield_roots"])
    assert float(best["widefield_roots"]) < float(learned["widefield_roots"])


def test_shares_are_those_of_the_light() -> None:
    """The true shares have no loss, the same light in another plane has much."""
    confocal = torch.zeros(5, 32, 32)
    confocal[1, :, :16], confocal[3, :, 16:] = 2.0, 1.0
    valid = torch.ones(5)

    def logs(planes: tuple[int, int]) -> torch.Tensor:
        out = torch.full((5, 4, 4), -12.0)
        out[planes[0], :, :2] = out[planes[1], :, 2:] = 0.0
        return torch.log_softmax(out, 0)

    right, wrong = (float(share_loss(logs(p), confocal, valid, 0)) for p in ((1, 3), (2, 3)))
    assert right == pytest.approx(0.0, abs=1e-3) and wrong > 3
    # of a plane that the stack does not have nothing is asked
    valid[1] = 0.0
    assert float(share_loss(logs((2, 3)), confocal, valid, 0)) == pytest.approx(0.0, abs=1e-3)


def test_discriminator_and_generator_both_learn(source: SimulatedFocal) -> None:
    task = RefocusTask(source, plan(adversarial=True))
    assert [p.name for p in task.phases] == ["generator", "discriminator"]
    for phase in task.phases:
        for module in task.modules.values():
            module.zero_grad()
        terms = task.loss(phase.name, task.batch(2))
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        assert "lsgan" in terms
        for name in phase.modules:
            assert any(
                float(p.grad.abs().sum()) > 0 for p in task.modules[name].parameters() if p.grad is not None
            )


def test_validation_scores_input_and_network(source: SimulatedFocal) -> None:
    task = RefocusTask(source, plan())
    with torch.no_grad():
        made = task.validate(task.modules)
    assert {"psnr_db", "input_db", "confocal_db"} <= set(made.values)
    assert np.isfinite(made.score) and made.images["truth"].shape == made.images["network"].shape


def test_noise_follows_the_light(source: SimulatedFocal) -> None:
    data = source.validation()[0]
    bright = recorded(data, 4, np.random.default_rng(0), jitter=False, electrons=1e5)
    dim = recorded(data, 4, np.random.default_rng(0), jitter=False, electrons=50.0)
    clean = (data.widefield[4].float() - bright.low) / bright.span
    assert float((bright.image - clean).abs().mean()) < 0.2 * float(
        (dim.image * dim.span + dim.low - data.widefield[4].float()).abs().mean() / bright.span
    )


def test_pool_gets_fresh_specimens() -> None:
    settings = FocalSettings(shape=(3, 32, 32), step_um=0.5, beyond=0)
    source = SimulatedFocal(settings, spread=SPREAD, pool=2, fresh_every=5, validation_stacks=1)
    first = source.at(0, 0)
    assert source.at(0, 4) is not None and source.at(0, 10).name != first.name
    rng = numpy_rng(0, 0)
    assert source.data(0, rng).name.startswith("focal-0-")


class TestRecorded:
    def stack(self) -> np.ndarray:
        return np.random.default_rng(0).random((6, 40, 200)).astype(np.float32) * 100

    def test_last_columns_are_only_validated_on(self) -> None:
        source = RecordedFocal([("mine", self.stack())], DefocusOptics(), 0.325, 0.5)
        assert source.data(0, np.random.default_rng(0)).columns == (0, 160)
        assert source.validation()[0].columns == (160, 200)
        task = RefocusTask(source, plan(range_um=2.0, patch_px=32))
        terms = task.loss("generator", task.batch(1))
        assert torch.isfinite(terms["loss"]) and "confocal_roots" not in terms  # there is no confocal stack
        with torch.no_grad():
            assert np.isfinite(task.validate(task.modules).score)

    @pytest.mark.parametrize(
        ("bad", "says"),
        [
            (np.ones((3, 64, 64)), "focal stack"),
            (np.ones((9, 8, 8)), "focal stack"),
            (np.full((9, 64, 128), np.nan), "no numbers"),
            (np.ones((9, 64, 128)), "dark"),
        ],
    )
    def test_refuses(self, bad: np.ndarray, says: str) -> None:
        with pytest.raises(RequestError, match=says):
            RecordedFocal([("bad", bad)], DefocusOptics(), 0.325, 0.5)

    def test_refuses_another_confocal_stack(self) -> None:
        with pytest.raises(RequestError, match="Register"):
            RecordedFocal(
                [("mine", self.stack())], DefocusOptics(), 0.325, 0.5, confocal=[np.ones((6, 40, 100))]
            )
