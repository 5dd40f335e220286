"""Parameters of refocusing: which surface, which outputs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from napari_lfm.methods.base import Parameters

Distance = Annotated[FiniteFloat, Field(ge=-1000, le=1000)]
Surface = Literal["plane", "stack", "tilt", "points", "height-map", "extended-focus"]


class RefocusParameters(Parameters):
    """Parameters of refocusing. Distances are those of the focus drive from the image's plane."""

    surface: Surface = "plane"
    """What is brought into focus: one plane, a stack of planes, a tilted plane, a surface through points, a
    height map, or everything at once (extended-focus, with its height map)."""
    z_um: float = Field(default=0.0, ge=-1000, le=1000)
    """Distance of the plane from the image's; of a tilted plane at the image's centre; added to points and
    height maps."""
    z_min_um: float | None = Field(default=None, ge=-1000, le=1000)
    """First plane of a stack or of extended focus; empty: the whole trained range."""
    z_max_um: float | None = Field(default=None, ge=-1000, le=1000)
    """Last plane; empty: the whole trained range."""
    z_step_um: float | None = Field(default=None, gt=0, le=1000)
    """Distance between planes; empty: as in training."""
    tilt_x_deg: float = Field(default=0.0, ge=-80, le=80)
    """Tilt along x: z rises with x where it is positive."""
    tilt_y_deg: float = Field(default=0.0, ge=-80, le=80)
    """Tilt along y: z rises with y where it is positive."""
    points_um: list[tuple[Distance, FiniteFloat, FiniteFloat]] | None = None
    """Points z, y, x of the surface, in the image's coordinates; three make a plane, more a thin-plate
    spline."""
    points_file: str | None = None
    """CSV with the columns z_um, y_um, x_um, instead of points_um."""
    smoothing: float = Field(default=0.0, ge=0, le=1e6, json_schema_extra={"advanced": True})
    """How far a surface may miss its points to be smoother; 0: not at all."""
    height_map_file: str | None = None
    """TIFF or npy file whose values are heights."""
    height_map_unit: Literal["nm", "um", "mm"] = "um"
    """Unit of the height map."""
    drift_um: list[Distance] | None = None
    """Drift of a movie: one distance per frame, added to the surface."""
    drift_file: str | None = None
    """Text file with one distance in um per line, instead of drift_um."""
    output: Literal["widefield", "confocal", "both"] = "both"
    """What is made of the image: the refocused wide-field image, a confocal-like one, or both."""
    check_consistency: bool = False
    """Also predict the whole range, blur it again, and show where that does not explain the image (residual,
    doubt); and where the network says something else when the image is mirrored and turned (guessed)."""
    compare: Literal["none", "wiener", "richardson-lucy"] = "none"
    """A deconvolution with the known defocus beside it."""
    iterations: int = Field(default=20, ge=1, le=1000, json_schema_extra={"advanced": True})
    """Iterations of that Richardson-Lucy deconvolution."""
    rounds: int = Field(default=4, ge=0, le=100, json_schema_extra={"advanced": True})
    """Richardson-Lucy steps that make the network's stack explain the image better; 0: none."""
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", json_schema_extra={"advanced": True}
    )
    """Number format of the network's layers. bfloat16 is chosen where the hardware multiplies it."""

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        for given, file, what in (
            (self.points_um, self.points_file, "points"),
            (self.drift_um, self.drift_file, "drift"),
        ):
            if given is not None and file is not None:
                raise ValueError(f"{what}_um and {what}_file are both given; give one of them")
        return self
