"""From a wish for refocusing to its task: network, plan, loop, simulated and stated microscopes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from napari_lfm.methods.train_refocus_wish import LEAST_PX
from napari_lfm.networks.refocus import DEPTH_WIDTHS, MODERN_BANDS, MODERN_WIDTHS
from napari_lfm.optics.microscope import Camera, Microscope, Objective
from napari_lfm.simulation.focal_stacks import FocalSettings
from napari_lfm.training.config import make_config
from napari_lfm.training.focal_pairs import OpticsSpread, SimulatedFocal
from napari_lfm.training.refocus import RefocusPlan

if TYPE_CHECKING:
    from napari_lfm.methods.train_refocus_wish import RefocusWish
    from napari_lfm.training.config import TrainConfig

NETWORK = {"widths": MODERN_WIDTHS, "bands": MODERN_BANDS, "sweep": True, "depth_widths": DEPTH_WIDTHS}
"""Entries of the tuning that are the network's, and what they are where nobody says."""
LEARNING_RATES = {"new": 1e-3, "simulated": 5e-4, "own": 2e-4}
_DEPTHS = (20 / 35, 50 / 35)
"""Simulated depths over the stated one."""
_CAMERA_PIXEL_UM = 6.5


def network_of(wish: RefocusWish) -> dict[str, Any]:
    """Return the arguments of the network that differ from its usual ones."""
    t = wish.tuning
    said: dict[str, Any] = {
        "widths": t.widths or None,
        "bands": t.bands,
        "sweep": t.sweep,
        "depth_widths": t.depth_widths or None,
    }
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in said.items()
        if v is not None and v != NETWORK[k]
    }


def least_pixels(wish: RefocusWish) -> int:
    """Return how many rows and columns a patch needs, a multiple of what the network halves."""
    return int(max(LEAST_PX, 2 ** len(wish.tuning.widths or MODERN_WIDTHS)))


def plan_of(wish: RefocusWish) -> RefocusPlan:
    """Return the plan of the training task."""
    t = wish.tuning
    return RefocusPlan(
        network=network_of(wish),
        range_um=wish.range_um,
        patch_px=t.patch_px,
        first_steps=t.first_steps,
        render_every=t.render_every,
        shares=t.shares,
        planes=t.planes,
        images=t.images,
        squares=t.squares,
        coarse=t.coarse,
        confocal=t.confocal,
        widefield=t.widefield,
        consistency=t.consistency,
        adversarial=wish.adversarial,
        gan=t.gan,
    )


def config_of(wish: RefocusWish) -> TrainConfig:
    """Return the loop's settings."""
    t = wish.tuning
    usual = LEARNING_RATES["new" if not wish.start_from else "simulated" if wish.is_simulated else "own"]
    seconds = t.validate_every_s or min(240.0, max(10.0, 3.0 * (wish.minutes or 80.0)))
    return make_config(
        minutes=wish.minutes,
        steps=wish.steps,
        batch_size=1,
        learning_rate=t.learning_rate or usual,
        schedule="one-cycle",
        warmup_share=0.05,
        ema_decay=t.ema_decay,
        weight_decay=1e-4,
        validate_every_s=None if t.validate_every_steps else seconds,
        validate_every_steps=t.validate_every_steps,
        checkpoint_every_s=t.checkpoint_every_s,
        prefetch=0,
        seed=wish.seed,
        device=wish.device,
        precision=t.precision,
    )


def spread_of(wish: RefocusWish) -> OpticsSpread:
    """Return the microscopes that simulated ones are drawn from."""
    s = wish.spread
    low, high = (round(share * wish.depth_um, 3) for share in _DEPTHS)
    about = wish.coverslip_error_um
    around = (about - 3.0, about + 3.0) if wish.immersion_index < 1.2 else (about, about)
    return OpticsSpread(
        depth_um=s.depth_um or (low, high),
        coverslip_error_um=s.coverslip_error_um or around,
        sample_index=s.sample_index or (wish.sample_index, round(wish.sample_index + 0.05, 4)),
        na_share=wish.na_share,
        wavelength_share=s.wavelength_share,
        pixel_share=s.pixel_share,
        wrong_share=s.wrong_share,
        variants=s.variants,
    )


def simulation_of(wish: RefocusWish) -> SimulatedFocal:
    """Return the simulated specimens of a wish."""
    t = wish.tuning
    planes = 2 * round(wish.range_um / wish.step_um) + 1
    return SimulatedFocal(
        FocalSettings(t.shape or (planes, 256, 256), wish.step_um, wish.pixel_um, t.beyond),
        wish.optics,
        spread_of(wish),
        wish.seed,
        t.pool,
        t.fresh_every,
        t.validation_stacks,
    )


def microscope_of(wish: RefocusWish) -> Microscope:
    """Return the microscope for the card, with the optics of the wish."""
    given = wish.microscope
    magnification = round(_CAMERA_PIXEL_UM / wish.pixel_um, 3)
    if given is not None:
        magnification = given.objective.magnification
    camera = Camera(pixel_um=round(magnification * wish.pixel_um, 4))
    kind = {True: "o", False: "w"}[wish.immersion_index > 1.4] if wish.immersion_index > 1.2 else ""
    return Microscope(
        name=f"wf-{magnification:g}x{wish.na:g}{kind}" if given is None else given.name,
        objective=Objective(magnification=magnification, na=wish.na, immersion_index=wish.immersion_index),
        camera=camera,
        wavelength_um=wish.wavelength_um,
        sample_index=wish.sample_index,
        notes="" if given is None else given.notes,
    )


def aberration_range(wish: RefocusWish) -> tuple[float, float]:
    """Return lowest and highest spherical aberration of the simulated microscopes, waves rms, signed."""
    s = spread_of(wish)
    found = [
        replace(wish.optics, depth_um=d, coverslip_error_um=c, sample_index=n).spherical_rms_waves
        for d, c, n in product(s.depth_um, s.coverslip_error_um, s.sample_index)
    ]
    return min(found), max(found)
