"""Sentences of the WFCON-Net page: pure functions from plain data to words."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.texts import coloured
from napari_lfm.widgets.train_texts import model_words, readable, titled_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.widgets.train_wfcon_input import WfconTrainPlan

Triple = tuple[float, float, float]

_TIMES = "\N{MULTIPLICATION SIGN}"


def wfcon_html(plan: WfconTrainPlan) -> str:
    """Return what is trained on what, what it gives and takes, as rich text."""
    estimate, wish = plan.estimate, plan.wish
    if estimate is None or wish is None:
        return ""
    first, *rest = (readable(sentence) for sentence in estimate.sentences)
    losses = "absolute difference" + (" and a discriminator" if wish.adversarial else "")
    start = f"the weights of <i>{html.escape(wish.start_from)}</i>" if wish.start_from else "random weights"
    if not wish.is_simulated:
        first += " Every pair is registered first." if wish.register_pairs else " They are taken as they lie."
    return titled_lines(
        {
            "Pairs": first,
            "You get": model_words(plan.model_id),
            "It learns": f"from {start}, by {losses}",
            "In figures": " ".join(rest),
        }
    )


def registered_html(shifts: Mapping[str, Triple]) -> str:
    """Return how far the pairs were moved."""
    if not shifts:
        return ""
    name = max(shifts, key=lambda n: sum(v * v for v in shifts[n]))
    far = f" {_TIMES} ".join(f"{abs(v):.2f}" for v in shifts[name])
    count = len(shifts)
    if count == 1:
        return f"<b>{html.escape(name)}</b> was moved by {far} {MICROMETRES} (z, y, x)."
    return (
        f"{count} pairs were registered; the one that was moved furthest, <b>{html.escape(name)}</b>, by "
        f"{far} {MICROMETRES} (z, y, x)."
    )


def left_out_html(reasons: Mapping[str, str]) -> str:
    """Return which pairs the training does without, and why; nothing where it has all."""
    if not reasons:
        return ""
    count = len(reasons)
    head = f"{count} pair{'s are' if count > 1 else ' is'} left out:"
    lines = [coloured(html.escape(head), "warning")]
    lines += [f"<b>{html.escape(name)}</b>: {readable(reason)}" for name, reason in reasons.items()]
    return "<br>".join(lines)
