"""How a network is trained: every setting of the loop, ready for the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_lfm.core.problems import RequestError, explain_validation

if TYPE_CHECKING:
    import torch

ScheduleName = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]

MAY_CHANGE = frozenset(
    {
        "steps",
        "minutes",
        "patience",
        "validate_every_s",
        "validate_every_steps",
        "checkpoint_every_s",
        "checkpoint_every_steps",
        "skip_limit",
        "prefetch",
        "device",
    }
)
"""Settings that another call may change when it goes on with the same run."""


class TrainConfig(BaseModel):
    """Settings of one training run; at least one of ``steps`` and ``minutes`` is needed.

    With ``steps`` alone a run is exactly repeatable (same machine, same number of threads, float32).
    With ``minutes`` the learning rate follows the clock, so two runs differ; one run that is stopped and
    resumed still goes on exactly where it was, because the clock is part of the checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int | None = Field(None, ge=1, le=100_000_000)
    """Steps of the whole run, those before a resume included; none: the minutes decide."""
    minutes: float | None = Field(None, gt=0, le=100_000, allow_inf_nan=False)
    """Minutes of the whole run. Validation and checkpoints count, because a user waits for them too; the
    time in which the caller holds the generator (paints, pauses) and the last save do not."""
    batch_size: int = Field(4, ge=1, le=65_536)
    """Examples per update."""
    learning_rate: float = Field(3e-4, gt=0, le=1, allow_inf_nan=False)
    """Largest learning rate of the schedule (AdamW)."""
    schedule: ScheduleName = "one-cycle"
    """Course of the learning rate over the run (`napari_lfm.training.schedule`)."""
    warmup_share: float = Field(0.1, ge=0, le=0.5)
    """Share of the run in which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """Decoupled weight decay of AdamW, per step and learning rate; biases and scales of norms are spared."""
    clip_norm: float = Field(1.0, ge=0, le=1e6)
    """Largest norm of all gradients of an update; 0: no clipping."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the running average of the weights, per step; 0: no averaging."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random."""
    precision: Precision = "auto"
    """Number format of the network's forward pass; ``auto``: bfloat16 where the hardware multiplies it."""
    channels_last: bool = True
    """Keep 2-D and 3-D convolution weights with the channel fastest; faster on most hardware."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    validate_every_s: float | None = Field(60.0, gt=0, le=1e6)
    """Seconds between validations; none: by steps only. There is always one at the end."""
    validate_every_steps: int | None = Field(None, ge=1)
    """Steps between validations; where given, the seconds are not used."""
    checkpoint_every_s: float = Field(120.0, gt=0, le=1e6)
    """Seconds between checkpoints; one more is written after every validation and at the end."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Steps between checkpoints, beside the seconds."""
    patience: int = Field(0, ge=0, le=100_000)
    """Stop after so many validations in a row without a better score; 0: never."""
    skip_limit: int = Field(10, ge=1, le=10_000)
    """Stop after so many steps in a row whose loss or gradient is not finite; fewer are skipped."""
    prefetch: int = Field(1, ge=0, le=16)
    """Batches made ahead by one background thread; 0: made when they are needed."""

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainConfig:
        if self.steps is None and self.minutes is None:
            raise ValueError("give the length of the training: steps, minutes or both")
        return self

    def dump(self) -> dict[str, Any]:
        """Return the settings JSON-ready, for the card and the checkpoint."""
        return self.model_dump(mode="json")


def make_config(**settings: Any) -> TrainConfig:
    """Return a checked `TrainConfig`.

    Raises
    ------
    RequestError
        If a setting is unknown, out of bounds or missing, in words.
    """
    try:
        return TrainConfig(**settings)
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Return whether the forward pass runs in bfloat16 on `device`.

    ``auto`` takes it on CUDA cards that multiply it and on CPUs with AMX or AVX512-BF16: elsewhere it is
    emulated and slower than float32.
    """
    import torch

    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    # torch has no public question for this; a version without these answers no
    asks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(bool(ask()) for ask in asks if ask is not None)
