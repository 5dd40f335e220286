"""The passes of ``lfmnet`` over one frame: tiles, flips, and the iterations that refine what came out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.events import Progress
from napari_lfm.methods.confidence import Agreement, apply, undo
from napari_lfm.methods.network_input import resample_lateral, scale_frame, take_planes
from napari_lfm.methods.plan import build_solver
from napari_lfm.methods.refine import start_from
from napari_lfm.methods.tiling import run_tiles, tiles_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.lfmnet_plan import NetworkPlan
    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.methods.solver import RichardsonLucy
    from napari_lfm.optics.start import Start


class Passes:
    """Runs the network over the frames of a recording.

    Parameters
    ----------
    data : LightfieldData
        Rectified at the network's N.
    plan : NetworkPlan
    network : nn.Module
    device : torch.device
    scalers : mapping
        The card's.
    gain : ndarray, optional
        Brightness of each lenslet in the white frame.
    start : LinearInverse or IteratedStart, optional
        For a network that starts from one; built for the frame's lenslets.

    Attributes
    ----------
    scale : float
        What the last frame was divided by, grey values.
    confidence : ndarray or None
        Of the last frame, shape (z, y, x).
    """

    def __init__(
        self,
        data: LightfieldData,
        plan: NetworkPlan,
        network: Any,
        device: torch.device,
        scalers: Mapping[str, float],
        gain: np.ndarray | None,
        start: Start | None = None,
    ) -> None:
        self.data, self.plan, self.network, self.device = data, plan, network, device
        self.scalers, self.gain, self.start = scalers, gain, start
        self.scale = 0.0
        self.confidence: np.ndarray | None = None
        self._begun = time.perf_counter()
        self._done = 0

    def run(self, frame: int) -> Iterator[Progress | tuple[Progress, np.ndarray]]:
        """Reconstruct one frame; yield the volume (z, y, x) after every step, complete at the end."""
        plan = self.plan
        scaled = scale_frame(self.data, frame, self.scalers, self.gain)
        self.scale, self.confidence = scaled.scale, None
        image = torch.from_numpy(np.ascontiguousarray(scaled.image)).to(self.device)
        start: torch.Tensor | None = None
        if self.start is not None:
            start = (yield from self._made_start(frame, self.start, image)).to(self.device)
        (rows, columns), s = plan.cells, plan.network_voxels
        agreement: Agreement | None = None
        if len(plan.operations) > 1:
            agreement = Agreement((len(plan.planes.z_um), rows * s, columns * s))
        for turn, operation in enumerate(plan.operations):
            cells = (columns, rows) if operation.transpose else (rows, columns)
            tiles = tiles_of(cells, plan.tile, plan.reach, plan.step)
            answer = torch.zeros(len(plan.planes.z_um), cells[0] * s, cells[1] * s)
            moved = apply(operation, image).contiguous()
            begun = None if start is None else apply(operation, start)
            results = run_tiles(self.network, moved, plan.n_pixels, tiles, plan.precision, begun)
            for number, (tile, part) in enumerate(results, 1):
                (y0, x0), (y1, x1) = tile.keep_start, tile.keep_stop
                answer[:, y0 * s : y1 * s, x0 * s : x1 * s] = take_planes(part, plan.planes).cpu()
                whole = undo(operation, answer)
                last = number == len(tiles)
                if last and agreement is not None:
                    agreement.add(whole)
                # half an answer says nothing beside several whole ones
                shown = whole if agreement is None or agreement.count == 0 else agreement.mean
                if last and agreement is not None and turn == len(plan.operations) - 1:
                    sure = resample_lateral(agreement.confidence(), plan.cells, plan.voxels)
                    self.confidence = sure.numpy()
                yield self._progress(frame, turn, number, len(tiles)), self._volume(shown, scaled.to_volume)

    def _made_start(
        self, frame: int, start: Start, image: torch.Tensor
    ) -> Generator[Progress, None, torch.Tensor]:
        """Return what the network starts from, (channels, y, x)."""
        which = f", frame {frame + 1} of {self.plan.frames}" if self.plan.frames > 1 else ""
        steps = start.steps(image[None])
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                volumes: torch.Tensor = end.value
                return volumes[0]
            if total > 1:
                yield Progress(done, total, f"Iterations that the network starts from: {done}{which}")

    def _volume(self, answer: torch.Tensor, scale: float) -> np.ndarray:
        """Return an answer in grey values, at the sampling that is wanted, as an array of its own."""
        grey = (answer * scale).clamp_(min=0)
        out: np.ndarray = resample_lateral(grey, self.plan.cells, self.plan.voxels).contiguous().numpy()
        return out

    def _progress(self, frame: int, turn: int, number: int, tiles: int) -> Progress:
        turns, frames = len(self.plan.operations), self.plan.frames
        self._done += 1
        total = frames * turns * tiles
        each = (time.perf_counter() - self._begun) / self._done
        parts = [
            f"frame {frame + 1} of {frames}" if frames > 1 else "",
            f"view {turn + 1} of {turns}" if turns > 1 else "",
            f"tile {number} of {tiles}" if tiles > 1 else "",
        ]
        text = ", ".join(p for p in parts if p)
        message = f"Network: {text}" if text else "Network"
        return Progress(self._done, total, message, seconds_left=each * max(0, total - self._done))


class Refiner:
    """Richardson-Lucy iterations on what the network gave, frame by frame with one operator.

    Attributes
    ----------
    figures : dict
        Relative residual after the last iteration and what noise alone would leave, of the last frame.
    """

    def __init__(
        self, request: Request, data: LightfieldData, plan: NetworkPlan, device: torch.device
    ) -> None:
        assert plan.refine is not None
        self.wanted, self.plan = plan.refine
        self.data, self.device, self.frames = data, device, plan.frames
        self.solver: RichardsonLucy | None = None
        self.figures: dict[str, Any] = {}

    def run(self, frame: int, volume: np.ndarray) -> Iterator[Progress | tuple[Progress, np.ndarray]]:
        """Refine one frame's volume (z, y, x); yield what is there after every iteration."""
        parameters: Any = self.wanted.parameters
        batch = slice(frame, frame + 1)
        if self.solver is None:
            for item in build_solver(self.wanted, parameters, self.data, self.plan, self.device, batch):
                if isinstance(item, Progress):
                    yield item
                else:
                    self.solver = item
            assert self.solver is not None
        else:
            self.solver = self.plan.same_for(self.solver, self.data, parameters, batch)
        solver = self.solver
        state = start_from(solver, torch.from_numpy(volume)[None].to(self.device))
        begun, total = time.perf_counter(), parameters.iterations
        which = f", frame {frame + 1} of {self.frames}" if self.frames > 1 else ""
        for done in range(1, total + 1):
            state = solver.step(state)
            each = (time.perf_counter() - begun) / done
            values = {"residual": state.residuals[-1], "iteration": float(done)}
            left = each * (total - done + (self.frames - frame - 1) * total)
            shown = solver.volume(state)[0].float().cpu().contiguous().numpy()
            yield Progress(done, total, f"Refining {done}{which}", left, values), shown
        self.figures = {
            "refined_residual": solver.residual(state),
            "start_residual": state.residuals[0],
            "expected_noise": solver.measurement.noise,
        }
