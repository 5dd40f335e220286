"""Does a microscope make physical sense? Plain sentences, from its numbers alone."""

from __future__ import annotations

import math

from napari_lfm.core.problems import Problem
from napari_lfm.optics.microscope import LensletArray, Microscope, nearest_odd

VISIBLE_UM = (0.38, 0.78)
F_NUMBER_TOLERANCE = 0.15
FEWEST_PIXELS = 5


def physical_sanity(microscope: Microscope) -> list[Problem]:
    """Return what is odd about a microscope that is valid as data.

    Parameters
    ----------
    microscope : Microscope
        The optics to judge.

    Returns
    -------
    list of Problem
        ``error`` where nothing can be reconstructed, ``warning`` where numbers contradict each other,
        ``info`` for what is worth knowing. Empty when all is well.
    """
    m = microscope
    found = _objective(m) + _emission(m)
    if m.lenslets is None:
        return found + _sampling(m)
    return found + _f_numbers(m, m.lenslets) + _pixels(m, m.lenslets) + _array(m.lenslets)


def _objective(m: Microscope) -> list[Problem]:
    na, immersion = m.objective.na, m.objective.immersion_index
    found = []
    if na >= m.sample_index:
        found.append(
            Problem(
                f"The numerical aperture {na:g} is not below the sample index {m.sample_index:g}: "
                "the outermost light never leaves the sample, so the aperture in use is smaller.",
                "Check the sample index, or expect the resolution of a smaller aperture.",
                "warning",
                "sample_index",
            )
        )
    elif abs(immersion - m.sample_index) > 0.05 and na > 0.7 * min(immersion, m.sample_index):
        found.append(
            Problem(
                f"Immersion ({immersion:g}) and sample ({m.sample_index:g}) differ in refractive index: "
                "depths by the stage scale are not depths in the sample, and focus blurs with depth.",
                "Results are in true sample depth; expect them to be worse far from the coverslip.",
                "info",
                "sample_index",
            )
        )
    return found


def _emission(m: Microscope) -> list[Problem]:
    low, high = VISIBLE_UM
    if low <= m.wavelength_um <= high:
        return []
    return [
        Problem(
            f"An emission wavelength of {m.wavelength_um:g} um is not visible light "
            f"({low:g} to {high:g} um).",
            "Check it: it is in micrometres, so 520 nm is 0.52.",
            "warning",
            "wavelength_um",
        )
    ]


def _sampling(m: Microscope) -> list[Problem]:
    # the intensity of a wide-field image ends at 2 NA / lambda
    nyquist = m.wavelength_um / (4 * m.objective.na)
    if m.object_pixel_um <= 1.05 * nyquist:  # camera makers round their pixel sizes
        return []
    return [
        Problem(
            f"The camera pixel is {m.object_pixel_um:.3g} um in the sample, coarser than the "
            f"{nyquist:.3g} um that the objective resolves (Nyquist): fine detail is lost or aliased.",
            "More magnification or a camera with smaller pixels would keep it.",
            "info",
            "camera.pixel_um",
        )
    ]


def _f_numbers(m: Microscope, array: LensletArray) -> list[Problem]:
    lens, light = array.f_number, m.image_f_number
    # the disc behind a lenslet is the pupil's image: as wide as the distance over the light's f-number
    filled = array.distance_um / light / array.pitch_um
    if abs(filled - 1) <= F_NUMBER_TOLERANCE:
        return []
    intro = f"The lenslets are f/{lens:.3g}, the light at the image plane is f/{light:.3g} (M / 2NA)"
    if filled > 1:
        return [
            Problem(
                f"{intro}: the discs behind neighbouring lenslets overlap "
                f"({filled:.0%} of the pitch), which mixes their light.",
                "Check magnification, aperture and focal length; if they are right, close the objective's "
                "aperture or use shorter lenslets.",
                "warning",
                "lenslets.focal_length_um",
            )
        ]
    return [
        Problem(
            f"{intro}: the discs behind the lenslets fill only {filled:.0%} of the pitch, "
            f"and the pixels between them stay dark.",
            "Check magnification, aperture and focal length; if they are right, nothing is wrong but "
            "angular resolution is given away.",
            "warning",
            "lenslets.focal_length_um",
        )
    ]


def _pixels(m: Microscope, array: LensletArray) -> list[Problem]:
    pitch_px = array.pitch_um / m.camera.effective_pixel_um
    found = []
    if pitch_px < FEWEST_PIXELS:
        found.append(
            Problem(
                f"There are only {pitch_px:.2g} pixels behind each lenslet: "
                "too few to tell directions apart.",
                "At least 5 are needed, 9 or more are usual; check pixel size, relay and pitch.",
                "error" if pitch_px < 3 else "warning",
                "camera.pixel_um",
            )
        )
    n = m.n_pixels
    if n is not None and n > 1.5 * pitch_px:
        found.append(
            Problem(
                f"Resampling {pitch_px:.3g} pixels per lenslet to {n} invents no detail and costs memory.",
                f"Set pixels_per_lenslet to {nearest_odd(pitch_px)}, or leave it empty.",
                "warning",
                "pixels_per_lenslet",
            )
        )
    elif n is not None and n < 0.8 * pitch_px:
        found.append(
            Problem(
                f"The {pitch_px:.3g} pixels behind each lenslet are resampled to {n}: "
                "faster, with some angular detail given away.",
                "Leave pixels_per_lenslet empty to keep all of it.",
                "info",
                "pixels_per_lenslet",
            )
        )
    # a lenslet's diffraction pattern ends at pitch / (lambda d) cycles per um
    finest = m.wavelength_um * array.distance_um / (2 * array.pitch_um)
    if m.camera.effective_pixel_um > 2 * finest and pitch_px >= FEWEST_PIXELS:
        found.append(
            Problem(
                f"The pixel of {m.camera.effective_pixel_um:.3g} um is much coarser than the diffraction "
                f"patterns behind the lenslets ({finest:.3g} um would follow them).",
                "They are averaged over the pixel in the model too; nothing to mend.",
                "info",
                "camera.pixel_um",
            )
        )
    return found


def _array(array: LensletArray) -> list[Problem]:
    found = []
    if array.aperture == "circular":
        fill = math.pi / 4 if array.lattice == "square" else math.pi / (2 * math.sqrt(3))
        found.append(
            Problem(
                f"Circular lenslets on a {array.lattice} lattice leave gaps: "
                f"{1 - fill:.0%} of the light is lost.",
                "",
                "info",
                "lenslets.aperture",
            )
        )
    if array.aperture == "square" and array.lattice == "hexagonal":
        rows_um = array.pitch_um * math.sqrt(3) / 2
        found.append(
            Problem(
                f"Square lenslets of {array.pitch_um:g} um do not fit on a hexagonal lattice: its rows are "
                f"only {rows_um:.3g} um apart, so the apertures would overlap.",
                "Lenslets in a hexagonal array have circular apertures as a rule: choose 'circular', or the "
                "square lattice.",
                "warning",
                "lenslets.aperture",
            )
        )
    defocus = array.distance_um / array.focal_length_um
    if not 0.3 <= defocus <= 3:
        found.append(
            Problem(
                f"The sensor is {defocus:.2g} focal lengths behind the lenslets.",
                "Check the lenslet-to-sensor distance: it is in micrometres and is usually the focal length.",
                "warning",
                "lenslets.sensor_distance_um",
            )
        )
    return found
