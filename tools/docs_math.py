"""mkdocs hook: formulas become MathML when the pages are built; they need no script and no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replace what arithmatex marked as formulas."""

    def render(match: re.Match[str], display: str) -> str:
        latex = html.unescape(match.group(1)).strip()
        try:
            return str(convert(latex, display=display))
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: cannot set the formula {latex!r}: {error!r}") from error

    content = _BLOCK.sub(lambda m: render(m, "block"), content)
    return _INLINE.sub(lambda m: render(m, "inline"), content)
