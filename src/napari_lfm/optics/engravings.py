"""Reading what is engraved on an objective, and what names of media and dyes mean."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from napari_lfm.core.problems import RequestError

IMMERSION_INDEX = {"air": 1.0, "water": 1.333, "silicone": 1.406, "glycerol": 1.456, "oil": 1.518}
"""Refractive indices of immersion media near 546 nm and 23 degrees."""

SAMPLE_INDEX = {
    "air": 1.0,
    "water": 1.333,
    "buffer": 1.335,
    "sucrose 500 mM": 1.35,
    "tissue": 1.37,
    "glycerol": 1.47,
    "mountant": 1.47,
    "oil": 1.518,
    "cleared tissue": 1.52,
}
"""Refractive indices of common samples."""

EMISSION_NM = {
    "DAPI": 461.0,
    "Hoechst": 461.0,
    "GFP": 509.0,
    "EGFP": 509.0,
    "GCaMP": 512.0,
    "MitoTracker Green": 516.0,
    "Calcein": 515.0,
    "Alexa Fluor 488": 519.0,
    "FITC": 519.0,
    "YFP": 527.0,
    "Alexa Fluor 555": 565.0,
    "Cy3": 570.0,
    "tdTomato": 581.0,
    "RFP": 584.0,
    "mScarlet": 594.0,
    "MitoTracker Red": 599.0,
    "Alexa Fluor 568": 603.0,
    "mCherry": 610.0,
    "Texas Red": 615.0,
    "Alexa Fluor 594": 617.0,
    "Nile Red": 635.0,
    "Alexa Fluor 647": 665.0,
    "Cy5": 670.0,
}
"""Emission maxima of common dyes and fluorescent proteins, nm; a filter shifts what is recorded."""

TUBE_LENS_MM = {"Nikon": 200.0, "Leica": 200.0, "Mitutoyo": 200.0, "Olympus": 180.0, "Zeiss": 164.5}
"""Focal length of the tube lens that each maker's printed magnifications assume."""

# Only words that one maker uses; "Plan Apo" alone could be anybody's.
_BRAND_WORDS = {
    "Nikon": r"nikon|cfi\d*|mrd\d+",
    "Olympus": r"olympus|evident|(?:u|x|l)+um?pl?x?(?:s?apo|fl|an)\w*|uplan\w*|uplx\w*|upls\w*|uapo\w*",
    "Zeiss": r"zeiss|(?:plan|c)-?apochromat|achroplan|(?:ec|plan)[- ]?neofluar|fluar|lci|m27",
    "Leica": r"leica|hcx?|hi plan|n plan",
    "Mitutoyo": r"mitutoyo|m plan apo",
}

# Longest spellings first: "oil" must win over "o", "water" over "w".
_IMMERSION_WORDS = {
    "oil": r"oil|oel|öl|oi|o|hi",
    "water": r"water|wasser|dipping|visir|h2o|dip|wi|w",
    "glycerol": r"glycerol|glycerin|glyc|gly|g",
    "silicone": r"silicone|sil|si|s",
    "air": r"air|dry",
}
_MULTI = r"imm|multi|mimm"

_NUMBER = r"(\d+(?:[.,]\d+)?)"
_MAGNIFICATION = re.compile(rf"(?<![\d.,]){_NUMBER}\s*[x×](?![a-z]{{4}})\s*([a-z]{{0,3}})?", re.IGNORECASE)
_NA_NAMED = re.compile(r"(?:\bN\.?A\.?\s*[=:]?\s*([01][.,]\d+))|(?:([01][.,]\d+)\s*N\.?A\.?)", re.IGNORECASE)
_NA_BARE = re.compile(r"^\s*[/,;:]?\s*(?:[a-z]{1,8}\s*){0,3}[/,;:]?\s*([01]?[.,]\d+)", re.IGNORECASE)
# numbers that are no aperture: what follows "infinity /" is the coverslip, what follows "WD" is a distance
_OTHER_NUMBERS = re.compile(
    r"(?:∞|inf(?:inity)?\.?|160|170|210)\s*/\s*[\d.,-]+(?:\s*/\s*\S+)?|\bWD\s*[=:]?\s*[\d.,]+(?:\s*mm)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Engraving:
    """What an objective's text says.

    Attributes
    ----------
    magnification, na : float
        As printed.
    immersion : str or None
        A key of `IMMERSION_INDEX`; None when the text says nothing, or offers several media.
    several_media : bool
        The objective has a collar for more than one immersion medium.
    brand : str or None
        A key of `TUBE_LENS_MM`, where a word in the text betrays the maker.
    """

    magnification: float
    na: float
    immersion: str | None
    several_media: bool
    brand: str | None


def read_engraving(text: str) -> Engraving:
    """Read an objective's text, such as ``Plan Apo 40x/0.95 Corr`` or ``60x/1.20 W``.

    Raises
    ------
    RequestError
        If no magnification or no numerical aperture is found in it.
    """
    plain = _OTHER_NUMBERS.sub(" ", text)
    magnification = _MAGNIFICATION.search(plain)
    if magnification is None:
        raise RequestError(
            f"No magnification was found in '{text}'.", "Type it as it is printed, such as '60x/1.20 W'."
        )
    rest = plain[magnification.end(1) :]
    after = re.sub(r"^\s*[x×]", "", rest, count=1, flags=re.IGNORECASE)
    named = _NA_NAMED.search(plain)
    na = (named.group(1) or named.group(2)) if named else None
    if na is None:
        bare = _NA_BARE.search(after)
        na = bare.group(1) if bare else None
    if na is None:
        raise RequestError(
            f"No numerical aperture was found in '{text}'.", "Type it as it is printed, such as '60x/1.20 W'."
        )
    several = re.search(rf"\b(?:{_MULTI})\b", after, re.IGNORECASE) is not None
    return Engraving(
        magnification=_number(magnification.group(1)),
        na=_number(na),
        immersion=None if several else _immersion(plain, after),
        several_media=several,
        brand=_brand(text),
    )


def _immersion(plain: str, after: str) -> str | None:
    # Whole words first, anywhere; then the letters that stick to the magnification or follow the aperture.
    for medium, words in _IMMERSION_WORDS.items():
        long = "|".join(w for w in words.split("|") if len(w) >= 3)
        if long and re.search(rf"(?<![a-zäöü])(?:{long})(?![a-zäöü])", plain, re.IGNORECASE):
            return medium
    # 60xW, 40XC WI, 63x/1.4 O: a lone letter elsewhere ("N PLAN", "S Fluor") names a series instead
    tail = re.sub(r"^C(?=\s|$)", "", after)
    for medium, words in _IMMERSION_WORDS.items():
        if re.search(rf"(?:^|[\s/,;\d])(?:{words})(?=$|[\s/,;\d])", tail, re.IGNORECASE):
            return medium
    return None


def _brand(text: str) -> str | None:
    for brand, words in _BRAND_WORDS.items():
        if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", text, re.IGNORECASE):
            return brand
    return None


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def index_of(medium: str | float, table: dict[str, float], what: str) -> float:
    """Return the refractive index of a medium given by name or by number.

    Raises
    ------
    RequestError
        If the name is unknown (the nearest one is suggested).
    """
    try:
        return float(medium)
    except ValueError:
        return look_up(str(medium), table, what)


def look_up(name: str, table: dict[str, float], what: str) -> float:
    """Return the value of `name` in `table`, ignoring case, spaces and hyphens.

    Raises
    ------
    RequestError
        If it is not there; the nearest name is suggested.
    """
    keys = {_bare(k): k for k in table}
    if _bare(name) in keys:
        return table[keys[_bare(name)]]
    near = difflib.get_close_matches(_bare(name), keys, n=1)
    hint = f"Did you mean '{keys[near[0]]}'?" if near else f"Known are {', '.join(table)}; or give a number."
    raise RequestError(f"'{name}' is not a known {what}.", hint)


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
