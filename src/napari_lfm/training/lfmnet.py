"""LFMNet as a task of the training loop: simulated pairs, the loss, the validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.metrics import pearson, psnr_db
from napari_lfm.networks.lenslet_net import LensletNet
from napari_lfm.optics.iterated import IteratedStart, IterationSettings
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.start import Start, make_start, start_version
from napari_lfm.training.lfmnet_plan import LARGE_N
from napari_lfm.training.lightfield_pairs import LightfieldPairs, Pair, bright_level, joined, turned
from napari_lfm.training.losses import SignalWeighted, combine, target_scale
from napari_lfm.training.task import BaseTask, Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from napari_lfm.training.lfmnet_plan import LfmnetPlan

VALIDATION_SCENES = 8
VALIDATION_ELECTRONS = (100.0, 600.0, 4000.0)
LEAST_SCALE = 0.3
"""Targets darker than this share of a typical one are scaled as if they had it: dark frames teach little."""
LEAST_LOSS = 2e-3
"""What an empty volume scores at least, for samples that are nearly empty themselves."""
LEAST_POWER = 1e-4
"""The same for the squared error."""
REPROJECTION_WEIGHT = 0.5


class LfmnetTask(BaseTask):
    """Training of LFMNet on simulated light fields of one microscope.

    The loss of a sample is the signal-weighted one, divided by what an empty volume would score: sparse and
    dense, dim and bright specimens then count alike, and nothing is gained by giving up on the sparse ones.
    The squared error, relative to the volume's power, is a second term; a third compares re-projections:
    what the error of the first volume of the batch would do on the sensor.

    Parameters
    ----------
    plan : LfmnetPlan
    batch_size : int
    baseline : callable, optional
        Reconstructs a validation frame by other means, tensor (rows * N, columns * N) -> array
        (z, y, x); shown and scored beside the network.
    device : str
        Where the network is trained: its volumes are projected back there.
    """

    def __init__(
        self,
        plan: LfmnetPlan,
        batch_size: int,
        baseline: Callable[[torch.Tensor], np.ndarray] | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(plan.seed)
        super().__init__({"network": self._network(plan)})
        self.plan, self.batch_size, self._device = plan, batch_size, device
        args = (plan.microscope, plan.n_pixels, plan.z_um, plan.voxels_per_lenslet, plan.settings)
        self.pairs = LightfieldPairs(*args, seed=plan.seed, truth_voxels=plan.truth_voxels)
        self.output_scale = 1.0
        self._baseline = baseline
        self._signal = SignalWeighted()
        self._projector: LensletProjector | None = None
        self._start = self._make_start()
        self._recordings: dict[int, tuple[Pair, torch.Tensor]] = {}
        self._validation: list[Pair] = []
        self._given: list[dict[str, torch.Tensor]] = []
        self._baseline_volumes: list[np.ndarray] = []
        self._shown: int | None = None
        self.baseline_psnr_db: float | None = None

    @staticmethod
    def _network(plan: LfmnetPlan) -> nn.Module:
        return LensletNet(**plan.network)

    @property
    def validation_pairs(self) -> tuple[Pair, ...]:
        """The frames and volumes that the network is scored on."""
        return tuple(self._validation)

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Build the optics, the first scenes and the validation set; yields (done, all, what)."""
        for done, total in self.pairs.prepare():
            yield done, total, "Computing the optics"
        for done, total in self._build_projector():
            yield done, total, "Computing the optics to project back with"
        if self._start is not None:
            # a training set is made once; the disk cache is for what is used again
            for done, total in self._start.build_steps(use_cache=False):
                yield done, total, "Computing the optics to start from"
        count = self.plan.settings.pool
        peaks, starts = [], []
        for k in range(count):
            pair = self.pairs.scene_pair(k)
            peaks.append(bright_level(pair.volume))
            starts.append(self._start_levels(pair.image))
            yield k + 1, count, "Drawing specimens"
        # typical bright voxels become 1: stored, so that it is the same ever after
        lit = [p for p in peaks if p > 0]
        self.output_scale = round(self._bright(lit), 4) if lit else 1.0
        if self._start is not None:
            bright = [s for s, p in zip(starts, peaks, strict=True) if p > 0]
            network: Any = self.modules["network"]
            if bright:
                network.start_scale.copy_(torch.tensor(np.median(bright, 0)).clamp(min=1e-6))
            if isinstance(self._start, IteratedStart):
                self._begin_with_the_last(network)
        yield from self._validation_set()

    def _begin_with_the_last(self, network: Any) -> None:
        """Make the last volume of an iterated start the network's first answer: it is a fair one."""
        fine = (self.plan.voxels_per_lenslet / network.start_voxels) ** 2  # light adds up
        with torch.no_grad():
            network.straight[-1] = network.start_scale[-1] / fine / self.output_scale

    def _bright(self, peaks: list[float]) -> float:
        """Return the brightness that the network calls 1, from those of the first scenes."""
        return float(np.median(peaks))

    def _build_projector(self) -> Iterator[tuple[int, int]]:
        p = self.plan
        if REPROJECTION_WEIGHT <= 0:
            return
        s = self._projected_voxels
        cells = (p.settings.cells, p.settings.cells)
        planes = [Plane(z, (s, s)) for z in p.z_um]
        geometry = Geometry.plan(CellOptics.of(p.microscope, p.n_pixels), planes, cells, margin=(0, 0))
        self._projector = LensletProjector(geometry, self._device, p.settings.storage)
        yield from self._projector.build_steps(use_cache=False)

    def _make_start(self) -> Start | None:
        p = self.plan
        if p.start is None:
            return None
        cells = (p.settings.cells, p.settings.cells)
        return make_start(CellOptics.of(p.microscope, p.n_pixels), p.start, cells, self._device)

    def _start_levels(self, image: torch.Tensor) -> list[float]:
        """Return what counts as bright in each volume of a frame's start."""
        if self._start is None:
            return []
        volumes = self.start_of(image)[0].chunk(self._start.settings.volumes)
        return [bright_level(v.cpu()) for v in volumes]

    def _inputs(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the network is given for frames."""
        return {"image": image} if self._start is None else {"image": image, "start": self.start_of(image)}

    def start_of(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the network starts from, for frames (B, rows * N, columns * N)."""
        assert self._start is not None
        return self._start(image)

    @property
    def _projected_voxels(self) -> int:
        """Voxels per lenslet of what is projected back.

        With many pixels per lenslet the whole volume costs more than the network; one voxel per lenslet
        still says whether light and depth are right.
        """
        return self.plan.voxels_per_lenslet if self.plan.n_pixels <= LARGE_N else 1

    def _validation_set(self) -> Iterator[tuple[int, int, str]]:
        source = self.pairs.other(self.plan.seed + 7919)
        rng = np.random.default_rng([self.plan.seed, 7919])
        index = 0
        while len(self._validation) < VALIDATION_SCENES:
            pair = source.scene_pair(index)
            index += 1
            if bright_level(pair.volume) > 0 or index > 20 * VALIDATION_SCENES:
                electrons = VALIDATION_ELECTRONS[len(self._validation) % len(VALIDATION_ELECTRONS)]
                pair = Pair(pair.image.float(), pair.volume.float())
                self._validation.append(source.recorded(pair, rng, electrons))
                self._given.append(self._inputs(self._validation[-1].image))
            yield len(self._validation), VALIDATION_SCENES, "Drawing specimens to validate on"
        if self._baseline is not None:
            for k, pair in enumerate(self._validation):
                self._baseline_volumes.append(self._baseline(pair.image[0]))
                yield k + 1, VALIDATION_SCENES, "Deconvolving them, to compare with"
            scores = [
                psnr_db(b, p.volume[0].numpy())
                for b, p in zip(self._baseline_volumes, self._validation, strict=True)
            ]
            self.baseline_psnr_db = float(np.mean(scores))

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Return frames and the volumes that the network should give for them."""
        if isinstance(self.plan.start, IterationSettings):
            return self._batch_of_recordings(index)
        pair = self.pairs.batch(index, self.batch_size)
        return {**self._inputs(pair.image), "volume": pair.volume / self.output_scale}

    def _batch_of_recordings(self, index: int) -> dict[str, torch.Tensor]:
        """Return recordings with starts that were iterated once: doing it anew would take too long."""
        pairs, starts = [], []
        for which, operation in self.pairs.draw(index, self.batch_size):
            if which not in self._recordings:
                pair = self.pairs.recording(which)
                start = self.start_of(pair.image).half().cpu()
                self._recordings[which] = Pair(pair.image.half(), pair.volume.half()), start
            pair, start = self._recordings[which]
            pairs.append(pair.turned(operation))
            starts.append(turned(start, operation))
        pair = joined(pairs)
        volume = pair.volume.float() / self.output_scale
        return {"image": pair.image.float(), "start": torch.cat(starts).float(), "volume": volume}

    def loss(self, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the signal-weighted loss, the squares and the re-projection, relative to an empty volume."""
        target = batch["volume"]
        output = self.modules["network"](batch["image"], batch.get("start")).float()
        scale = torch.maximum(target_scale(target), 0.25 * target.flatten(1).amax(1)).clamp(min=LEAST_SCALE)
        relative = []
        for k in range(len(target)):
            one, size = target[k : k + 1], scale[k : k + 1]
            empty = self._signal(torch.zeros_like(one), one, size).clamp(min=LEAST_LOSS)
            relative.append(self._signal(output[k : k + 1], one, size) / empty)
        unit = scale.reshape(-1, 1, 1, 1)
        error = ((output - target) / unit).square().mean((1, 2, 3))
        power = (target / unit).square().mean((1, 2, 3)).clamp(min=LEAST_POWER)
        terms = {
            "signal": (1.0, torch.stack(relative).mean()),
            "squares": (1.0, (error / power).mean()),  # what the peak signal-to-noise ratio counts
        }
        if self._projector is not None:
            terms["reprojection"] = (REPROJECTION_WEIGHT, self._reprojected(output, target, batch["image"]))
        return combine(terms)

    def _reprojected(self, output: torch.Tensor, target: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return ``|P (o - t)|^2 / |y|^2`` of the first sample: projecting all costs more than it teaches."""
        assert self._projector is not None
        with torch.autocast(output.device.type, enabled=False):
            error = (output[:1] - target[:1]) * self.output_scale
            wide = self.plan.voxels_per_lenslet // self._projected_voxels
            if wide > 1:  # light adds up
                error = torch.nn.functional.avg_pool2d(error, wide) * wide**2
            light = image[:1].float().square().sum()
            return self._projector.forward(error).square().sum() / light.clamp(min=1e-6)

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score volumes of specimens that the training never sees."""
        scores, similar, slices = [], [], []
        for pair, inputs in zip(self._validation, self._given, strict=True):
            network: Any = modules["network"]
            device = next(network.parameters()).device
            given = {name: value.to(device) for name, value in inputs.items()}
            found = network.volume_of(**given)[0].float().clamp(min=0).cpu().numpy()
            truth = pair.volume[0].numpy()
            scores.append(psnr_db(found, truth))
            similar.append(pearson(found, truth))
            slices.append(found)
        values = {"psnr_db": float(np.mean(scores)), "pearson": float(np.mean(similar))}
        if self.baseline_psnr_db is not None:
            values["baseline_psnr_db"] = self.baseline_psnr_db
        if self._shown is None:  # always the same one, so that it can be watched: a typical one
            self._shown = int(np.argsort(scores)[len(scores) // 2])
        truth = self._validation[self._shown].volume[0].numpy()
        plane = int(truth.sum((1, 2)).argmax())
        images = {"truth": truth[plane], "network": slices[self._shown][plane]}
        if self._baseline_volumes:
            images["richardson-lucy"] = self._baseline_volumes[self._shown][plane]
        return Validation(values["psnr_db"], values, images)

    def describe(self) -> dict[str, Any]:
        """Return what tells this training from another."""
        return {
            **self.plan.record(),
            "batch_size": self.batch_size,
            "reprojection": REPROJECTION_WEIGHT,
            # constants that no plan holds: a training goes on with the same ones
            "network": self.plan.network,
            "inverse": start_version(self.plan.start),
        }
