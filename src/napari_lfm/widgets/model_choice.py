"""Trained models as a user is offered them: sorted by fit, in words. Plain data, no Qt."""

from __future__ import annotations

import html
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_lfm.networks.card import WEIGHTS_FILE
from napari_lfm.networks.fit import check_card
from napari_lfm.optics.microscope import nearest_odd
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.texts import coloured, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.catalogue import ModelEntry
    from napari_lfm.networks.fit import Fit
    from napari_lfm.optics.microscope import Microscope

Verdict = Literal["matches", "resample", "unchecked", "refused", "remote", "broken", "unknown"]

FIT_WORDS: dict[Verdict, str] = {
    "matches": "fits",
    "resample": "needs resampling",
    "unchecked": "fit not known",
    "refused": "does not fit",
    "remote": "not fetched yet",
    "broken": "cannot be used",
    "unknown": "",
}
_ORDER: tuple[Verdict, ...] = ("matches", "resample", "unchecked", "unknown", "refused", "remote", "broken")
# without a microscope, fitting voxels still say more than others
_STACK_ORDER: tuple[Verdict, ...] = ("matches", "unchecked", *_ORDER[1:2], *_ORDER[3:])
_SOURCES = {"user": "your own", "bundled": "came with napari-lfm", "remote": "not on this machine yet"}
_TIMES = "\N{MULTIPLICATION SIGN}"
_EVEN = 0.01


@dataclass(frozen=True)
class Offer:
    """A model and how it suits the recording.

    Attributes
    ----------
    entry : ModelEntry
    key : str
        What names it in a request: its id, or its folder where the id names another one.
    verdict : str
        ``unknown`` while no microscope is chosen.
    reasons : tuple of str
        What differs, or why it cannot be used.
    z_scale : float
        The card's depths are multiplied by this in the user's microscope.
    """

    entry: ModelEntry
    key: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    z_scale: float = 1.0

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.entry.card

    @property
    def title(self) -> str:
        """The line of the list."""
        word = FIT_WORDS[self.verdict]
        return f"{self.card.id} ({word})" if word else self.card.id


def pixels_per_lenslet(
    microscope: Microscope | None, lattice: Lattice | None, layout: str = "auto"
) -> int | None:
    """Return N of a recording as far as it is known: from its layout, its lattice, else the optics."""
    kind, _, count = layout.partition(":")
    if kind == "lenslet" and count.isdigit():
        return int(count)
    if lattice is not None:
        return nearest_odd(lattice.pitch_px[1])
    return None if microscope is None else microscope.n_pixels


def offers(
    entries: Sequence[ModelEntry],
    microscope: Microscope | None,
    n_pixels: int | None = None,
    fit: Callable[[ModelCard], Fit] | None = None,
    optics_count: bool = True,
) -> list[Offer]:
    """Return models with their fit, the best first; the order within a fit is that of `best_model`.

    With `fit`, that is asked; methods that take stacks do not need a microscope to choose a model. Without
    `optics_count` it does not matter that nobody has compared the optics.
    """
    found: list[Offer] = []
    seen: set[str] = set()
    for entry in entries:
        name = entry.card.id.lower()
        key = str(entry.folder) if name in seen else entry.card.id
        seen.add(name)
        found.append(_offer(entry, key, microscope, n_pixels, fit, optics_count))
    found.sort(key=lambda o: o.entry.preference, reverse=True)
    order = _ORDER if fit is None else _STACK_ORDER
    found.sort(key=lambda o: order.index(o.verdict))
    return found


def _offer(
    entry: ModelEntry,
    key: str,
    microscope: Microscope | None,
    n_pixels: int | None,
    fit: Callable[[ModelCard], Fit] | None,
    optics_count: bool,
) -> Offer:
    if entry.source == "remote":
        return Offer(entry, key, "remote", ("It is not on this machine yet.",))
    if entry.problem:
        return Offer(entry, key, "broken", (entry.problem,))
    if microscope is None and fit is None:
        return Offer(entry, key, "unknown")
    if fit is not None:
        found = fit(entry.card)
    else:
        assert microscope is not None
        found = check_card(entry.card, microscope, n_pixels)
    compared = entry.card.microscope is not None and microscope is not None
    if found.verdict != "matches" or compared or not optics_count:
        return Offer(entry, key, found.verdict, found.reasons, found.z_scale)
    who = "No microscope is chosen" if microscope is None else "The card does not say its microscope"
    reasons = found.reasons or (f"{who}, so that the optics could not be compared.",)
    return Offer(entry, key, "unchecked", reasons, found.z_scale)


def fit_html(offer: Offer, what: str = "your microscope") -> str:
    """Return the fit to something in words; quiet where all is well."""
    reasons, more = html.escape(" ".join(offer.reasons)), len(offer.reasons) - 1
    if offer.verdict == "refused" and more > 0:  # all of them stand where the run is planned
        others = "is another reason" if more == 1 else f"are {more} more reasons"
        reasons = f"{html.escape(offer.reasons[0])} There {others}: see 'What will be done'."
    if offer.verdict == "matches":
        return coloured(f"\N{CHECK MARK} It fits {what}.", "good")
    if offer.verdict == "unknown":
        return ""
    kind = {"refused": "error", "broken": "error", "resample": "warning", "unchecked": "warning"}
    word = FIT_WORDS[offer.verdict].capitalize()
    return f"{coloured(f'{word}.', kind.get(offer.verdict, 'info'))} {reasons}"


def question(offer: Offer, n_pixels: int | None) -> str:
    """Return what the user has to agree to before the model may run, empty for nothing."""
    if offer.verdict != "resample":
        return ""
    wanted = []
    if offer.card.n_pixels and offer.card.n_pixels != n_pixels:
        wanted.append(f"resample to the model's N = {offer.card.n_pixels}")
    if offer.z_scale != 1.0:
        wanted.append(f"put its planes at {offer.z_scale:.3f} times their depth")
    text = " and ".join(wanted) or "use it all the same"
    return text[0].upper() + text[1:]


def parameters_of(offer: Offer) -> dict[str, Any]:
    """Return the depths and the sampling of a model as parameters of a form."""
    card, scale = offer.card, offer.z_scale
    if not card.z_um:
        return {}
    depths = sorted(round(scale * z, 6) for z in card.z_um)
    steps = [b - a for a, b in itertools.pairwise(depths)]
    even = bool(steps) and max(steps) - min(steps) < _EVEN * min(steps)
    return {
        "z_min_um": depths[0],
        "z_max_um": depths[-1],
        # planes that are not evenly spaced stay where they are: an empty step means the model's own
        "z_step_um": round((depths[-1] - depths[0]) / len(steps), 6) if even else None,
        "voxels_per_lenslet": card.voxels_per_lenslet,
    }


# ------------------------------------------------------------------------------- words
def optics_text(card: ModelCard) -> str:
    """Return the optics that a model is for, in one line."""
    microscope = card.optics
    pixels = "" if card.n_pixels is None else f"N\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{card.n_pixels}"
    if microscope is None:
        return ", ".join(t for t in ("not told by the card", pixels) if t)
    objective = microscope.objective
    parts = [f"{objective.magnification:g}{_TIMES}/{objective.na:g}"]
    if microscope.lenslets is not None:
        array = microscope.lenslets
        parts.append(f"lenslets {array.pitch_um:g} {MICROMETRES} f/{array.f_number:.3g}")
    parts += [pixels, f"{microscope.wavelength_um * 1e3:.0f} nm", f"index {microscope.sample_index:g}"]
    return ", ".join(p for p in parts if p)


def depths_text(card: ModelCard) -> str:
    """Return the depths and the sampling that a model gives, in one line."""
    if not card.z_um:
        return ""
    planes = len(card.z_um)
    text = (
        f"{min(card.z_um):g} to {max(card.z_um):g} {MICROMETRES}, {planes} plane{'s' if planes > 1 else ''}"
    )
    if card.method == "localize":  # it gives points, not voxels
        return text.replace("planes", "depths")
    voxels = card.voxels_per_lenslet or card.n_pixels
    return f"{text}, {voxels} voxels per lenslet" if voxels else text


def _score_text(card: ModelCard) -> str:
    return "" if card.score_db is None else f"{card.score_db:.1f} dB PSNR"


def _size_text(entry: ModelEntry) -> str:
    card = entry.card
    parts = [f"{card.parameters / 1e6:.2g} million parameters"] if card.parameters else []
    try:
        parts.append(size((entry.folder / WEIGHTS_FILE).stat().st_size))
    except OSError:
        pass
    return ", ".join(parts)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td style='padding-right:8px'>{name}</td><td>{html.escape(text)}</td></tr>"
        for name, text in rows
        if text
    )
    return f"<table>{cells}</table>"


def summary_html(entry: ModelEntry) -> str:
    """Return what a user must know of a model, compact."""
    card = entry.card
    return _rows(
        [
            ("Optics", optics_text(card)),
            ("Depths", depths_text(card)),
            ("Has seen", ", ".join(card.specimens)),
            ("Score", _score_text(card)),
            ("Size", _size_text(entry)),
            ("Licence", card.licence),
            ("Source", _SOURCES[entry.source]),
        ]
        if card.architecture
        else [("Folder", str(entry.folder))]
    )


def card_html(entry: ModelEntry) -> str:
    """Return the whole card."""
    card = entry.card
    optics = card.optics
    rows = [
        ("Problem", entry.problem),
        ("Id", f"{card.id}, version {card.version}" if card.version else card.id),
        ("Method", card.method),
        ("Network", card.architecture),
        ("Microscope", "" if optics is None else optics.name),
        ("Optics", optics_text(card) if card.architecture else ""),
        ("Depths", depths_text(card)),
        ("Has seen", ", ".join(card.specimens)),
        ("Trained on", card.data),
        ("Training", _training_text(card)),
        ("Recipe", card.recipe),
        ("Notes", card.notes),
        ("Size", _size_text(entry)),
        ("Licence", card.licence),
        ("Source", _SOURCES[entry.source]),
        ("Address", card.url),
        ("Folder", str(entry.folder)),
        ("sha256", card.sha256),
        ("Made with", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ]
    head = f"<h3>{html.escape(card.title or card.id)}</h3>"
    return head + _rows(rows) + _scores_html(card)


def _training_text(card: ModelCard) -> str:
    parts = []
    if card.hours:
        parts.append(f"{card.hours:.3g} h")
    if card.trained_on:
        parts.append(f"on {card.trained_on}")
    return ", ".join(t for t in (" ".join(parts), card.date) if t)


def _scores_html(card: ModelCard) -> str:
    if not card.scores:
        return ""
    columns = list(dict.fromkeys(name for score in card.scores for name in score))
    head = "".join(
        f"<th align='left' style='padding-right:8px'>{html.escape(c.replace('_', ' '))}</th>" for c in columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td style='padding-right:8px'>{html.escape(_plain(score.get(c, '')))}</td>" for c in columns
        )
        + "</tr>"
        for score in card.scores
    )
    return f"<h4>Scores</h4><table><tr>{head}</tr>{body}</table>"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
