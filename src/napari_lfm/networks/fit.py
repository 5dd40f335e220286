"""Does a model fit a microscope? Each figure of the optics is held against what the network can see.

A network that takes light fields sees two things: which pixel behind a lenslet a ray meets (its angle),
and by how many lenslets the ray is displaced at a depth. A difference in the optics is harmless while it
moves neither by more than half a step, anywhere in the pupil and at any trained depth:

- Pixels. A ray of numerical aperture ``a`` meets the sensor ``a d / M`` from the lenslet's axis (sine
  condition; d: distance to the sensor, M: magnification), that is ``N a / g`` rectified pixels, with the
  aperture ``g = M pitch / d`` that one lenslet's width spans.
- Lenslets. From depth z, the ray goes ``z tan(asin(a / n)) / p`` lenslets aside (n: index of the sample,
  p = pitch / M: one lenslet in the object). A larger p or n is the same picture from another depth, to
  first order: ``z`` becomes ``z p'/p n'/n``. The planes then lie elsewhere, which is said and can be
  put right.
- Diffraction. The spot behind a lenslet is ``lambda d / pitch`` wide, and one lenslet sees depth z with
  a blur of ``lambda |z| / (n p)`` (`Microscope.lateral_resolution_at`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.optics.microscope import LensletArray, Microscope

Verdict = Literal["matches", "resample", "refused"]

HALF_STEP = 0.5
"""Largest displacement, in pixels or lenslets, that a network is not asked to notice."""
LARGEST_RESCALING = 0.10
"""Part by which depths may be rescaled: beyond it the diffraction pattern is another one, too."""
LARGEST_INVENTION = 1.5
"""A model may want this many times the pixels per lenslet that were recorded, not more."""


@dataclass(frozen=True)
class Fit:
    """What `check_card` found.

    Attributes
    ----------
    verdict : {"matches", "resample", "refused"}
    reasons : tuple of str
        Full sentences: what differs, or what could not be checked.
    z_scale : float
        The planes of the card lie at this multiple of their depth in the user's microscope; 1 unless
        the verdict is ``resample``.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    z_scale: float = 1.0


def check_card(card: ModelCard, microscope: Microscope, n_pixels: int | None = None) -> Fit:
    """Return whether a model can be used with a microscope.

    Parameters
    ----------
    card : ModelCard
    microscope : Microscope
        The user's.
    n_pixels : int, optional
        Pixels per lenslet of the recording; default the microscope's.
    """
    n_user = n_pixels or microscope.n_pixels
    trained = card.optics
    if trained is None:
        return _unchecked(card, n_user)
    if trained.lenslets is None or microscope.lenslets is None:
        return _wide_field(trained, microscope)
    n_model = card.n_pixels or trained.n_pixels or n_user or 1
    farthest = max((abs(z) for z in card.z_um), default=trained.depth_range_um)
    refused = _refusals(trained, microscope, n_model, farthest)
    if n_user and n_model > LARGEST_INVENTION * n_user:
        refused.append(
            f"The model needs {n_model} pixels per lenslet, and {n_user} were recorded:"
            " too many would have to be invented."
        )
    scale, displaced = _depths(trained, microscope, farthest)
    text, beyond = _depth_reason(trained, microscope, farthest, scale, displaced)
    if beyond:
        refused.append(text)
    if refused:
        return Fit("refused", tuple(refused))
    reasons = []
    if n_user and n_user != n_model:
        reasons.append(
            f"The model was trained with {n_model} pixels per lenslet, and this recording has {n_user}."
        )
    if text:
        reasons.append(text)
    return Fit("resample", tuple(reasons), scale if text else 1.0) if reasons else Fit("matches")


def _unchecked(card: ModelCard, n_user: int | None) -> Fit:
    if card.n_pixels and n_user and card.n_pixels != n_user:
        return Fit(
            "refused",
            (
                f"The model takes {card.n_pixels} pixels per lenslet, and this recording has {n_user}.",
                "Its card does not say which microscope it was trained for, so that nothing tells whether"
                " resampling would do.",
            ),
        )
    return Fit(
        "matches",
        (
            "The card does not say which microscope the model was trained for, so that nothing could be"
            " checked but the pixels per lenslet.",
        ),
    )


def _wide_field(trained: Microscope, seen: Microscope) -> Fit:
    if (trained.lenslets is None) != (seen.lenslets is None):
        have, lack = "with lenslets", "without lenslets"
        was, now = (lack, have) if trained.lenslets is None else (have, lack)
        return Fit("refused", (f"The model was trained for a microscope {was}, and this one is {now}.",))
    # the depth of field goes with n lambda / NA^2: each may be off by the tenth that depths may
    reasons = [
        _differs(what, old, new)
        for what, old, new in (
            ("NA", trained.objective.na, seen.objective.na),
            ("a sample index of", trained.sample_index, seen.sample_index),
            ("a wavelength in um of", trained.wavelength_um, seen.wavelength_um),
        )
        if abs(new / old - 1) > LARGEST_RESCALING
    ]
    if reasons:
        return Fit("refused", tuple(reasons))
    old, new = trained.object_pixel_um, seen.object_pixel_um
    if abs(new / old - 1) > 0.02:
        return Fit("resample", (_differs("pixels in um of", old, new),))
    return Fit("matches")


def _differs(what: str, old: object, new: object) -> str:
    def said(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    again = "NA " if what == "NA" else ""  # "has 0.9" alone says nothing
    return f"The model was trained for {what} {said(old)}, and this microscope has {again}{said(new)}."


def _array(microscope: Microscope) -> LensletArray:
    assert microscope.lenslets is not None
    return microscope.lenslets


def _span(microscope: Microscope) -> float:
    """Return the numerical aperture g that one lenslet's width spans on the sensor."""
    array = _array(microscope)
    return microscope.objective.magnification * array.pitch_um / array.distance_um


def _refusals(trained: Microscope, seen: Microscope, n: int, farthest_um: float) -> list[str]:
    """Return what no resampling mends."""
    out = []
    old, new = _array(trained), _array(seen)
    if old.lattice != new.lattice:
        out.append(_differs("lenslets whose lattice is", old.lattice, new.lattice))
    if old.aperture != new.aperture:
        out.append(_differs("lenslets whose shape is", old.aperture, new.aperture))
    na_old, na_new = trained.objective.na, seen.objective.na
    span_old, span_new = _span(trained), _span(seen)
    if n * abs(na_new - na_old) / span_old > HALF_STEP:
        out.append(_differs("NA", na_old, na_new))
    shift = n * na_old * abs(1 / span_new - 1 / span_old)
    if shift > HALF_STEP:
        out.append(
            f"The model was trained for lenslets of {_lenslets(trained)}, and this microscope has"
            f" {_lenslets(seen)}: rays end up to {shift:.1f} pixels from where the model expects them."
        )
    if n * abs(new.distance_um / new.focal_length_um - old.distance_um / old.focal_length_um) > HALF_STEP:
        was, now = (a.distance_um / a.focal_length_um for a in (old, new))
        out.append(
            f"The model was trained with the sensor at {was:.3g} focal lengths behind the lenslets, and here"
            f" it is at {now:.3g}."
        )
    if _colour_shift(trained, seen, n, farthest_um) > HALF_STEP:
        old_nm, new_nm = (f"{m.wavelength_um * 1e3:.0f} nm" for m in (trained, seen))
        out.append(_differs("a wavelength of", old_nm, new_nm))
    return out


def _lenslets(microscope: Microscope) -> str:
    array = _array(microscope)
    at = "" if array.sensor_distance_um is None else f", {array.distance_um:g} um before the sensor,"
    return f"f/{array.f_number:.3g}{at} behind {microscope.objective.magnification:g}x"


def _colour_shift(trained: Microscope, seen: Microscope, n: int, farthest_um: float) -> float:
    """Return how far, in pixels or lenslets, the wavelength alone changes the diffraction blur."""
    array, change = _array(trained), abs(seen.wavelength_um - trained.wavelength_um)
    spot_px = change * array.distance_um / array.pitch_um * n / array.pitch_um
    lenslet = trained.lenslet_um or 1.0
    return max(spot_px, change * farthest_um / (trained.sample_index * lenslet**2))


def _depths(trained: Microscope, seen: Microscope, farthest_um: float) -> tuple[float, tuple[float, float]]:
    """Return the depth scale that makes both microscopes agree best, and what it leaves displaced.

    Displacements are before and after it: the largest over the pupil, lenslets at the farthest depth.
    """
    # the same pixel, not the same ray, is compared (g may differ by its tolerance), where both have light
    wider = _span(seen) / _span(trained)
    rays = np.linspace(0, min(trained.objective.na, seen.objective.na / wider), 33)[1:]
    other = rays * wider
    old = np.tan(np.arcsin(rays / trained.sample_index)) / (trained.lenslet_um or 1.0)
    new = np.tan(np.arcsin(other / seen.sample_index)) / (seen.lenslet_um or 1.0)
    scale = float((old * new).sum() / (new * new).sum())
    before = float(np.abs(new - old).max()) * farthest_um
    after = float(np.abs(scale * new - old).max()) * farthest_um
    return scale, (before, after)


def _depth_reason(
    trained: Microscope,
    seen: Microscope,
    farthest_um: float,
    scale: float,
    displaced: tuple[float, float],
) -> tuple[str, bool]:
    """Return what to say about the depths, nothing where they agree, and whether it goes too far."""
    before, after = displaced
    far = abs(scale - 1) > LARGEST_RESCALING
    if before <= HALF_STEP and not far:
        return "", False
    what = []
    old, new = trained.lenslet_um or 1.0, seen.lenslet_um or 1.0
    if abs(new / old - 1) > 1e-3:
        what.append(f"lenslets of {old:.4g} um in the sample, and this microscope has {new:.4g} um")
    if abs(seen.sample_index / trained.sample_index - 1) > 1e-3:
        what.append(
            f"a sample index of {trained.sample_index:.4g}, and this microscope has {seen.sample_index:.4g}"
        )
    if not what:  # within the tolerance of the pixels, but far from the native plane it counts
        what.append(f"lenslets of {_lenslets(trained)}, and this microscope has {_lenslets(seen)}")
    said = f"The model was trained for {'; for '.join(what)}"
    if far or after > HALF_STEP:
        return f"{said}: at {farthest_um:g} um rays end up to {before:.1f} lenslets elsewhere.", True
    return f"{said}: its planes lie at {scale:.3f} times the depths of its card.", False
