"""The finer settings of the *Localize* panel, and the parameters that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_CONFIDENCE = 0.05
"""Detections are kept from here on: the threshold moves among them without a new run."""


class LocalizeSettings(BaseModel):
    """What the panel offers below its algorithm: names and bounds of `LocalizeParameters`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed_threshold: float = Field(default=0.1, gt=0, le=1)
    """How bright a peak of the central view must be to be looked at, as a share of the brightest."""
    seeds: Literal["dense", "peaks"] = "dense"
    """Where depths are looked for: wherever the central view is bright, or at its peaks alone."""
    background: Literal["robust", "largest", "none"] = "robust"
    """What is taken off before: the low-rank haze below the sources, the largest component, or nothing."""
    movie: Literal["activity", "mean"] = "activity"
    """What points of a movie are looked for in: what changes, or the mean of its frames."""
    z_min_um: float | None = Field(default=None, ge=-1000, le=1000)
    """Lowest depth; empty: the model's, or what the optics resolve."""
    z_max_um: float | None = Field(default=None, ge=-1000, le=1000)
    """Highest depth; empty: the model's, or what the optics resolve."""
    fit: Literal["joint", "none"] = "joint"
    """joint: fit all points to the light field together, and look for hidden neurons in what is left."""
    diameter_um: float | None = Field(default=None, gt=0.5, le=60)
    """Diameter of a typical cell body; empty: the model's, or 11."""
    merge_um: float | None = Field(default=None, ge=0, le=100)
    """Points nearer to each other than this are one neuron; empty: 0.55 diameters."""


def parameters_of(algorithm: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's parameters; the threshold is applied afterwards, while it is moved."""
    return {"algorithm": algorithm, "threshold": LEAST_CONFIDENCE, **values}


def point_words(point: Mapping[str, Any]) -> str:
    """Return a point in words, as HTML."""
    from napari_lfm.widgets.fields import MICROMETRES

    place = ", ".join(f"{axis} {point[f'{axis}_um']:.1f}" for axis in "zyx")
    known = point.get("sigma_z_um")
    sure = f" (z \N{PLUS-MINUS SIGN} {known:.1f})" if known is not None and known == known else ""
    parts = [f"<b>{place} {MICROMETRES}</b>{sure}"]
    confidence = point.get("confidence")
    if confidence is not None and confidence == confidence:
        parts.append(f"confidence {confidence:.2f}")
    snr = point.get("snr")
    if snr is not None and snr == snr:
        parts.append(f"signal to noise {snr:.0f}")
    parts.append(f"{point.get('source', '')}, {point.get('algorithm', '')}")
    if point.get("at_edge") is True or str(point.get("at_edge")) == "True":
        parts.append("at the end of the depth range: it may lie further out")
    return "; ".join(str(p) for p in parts)
