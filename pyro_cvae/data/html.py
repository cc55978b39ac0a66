"""HTML in texts: tags, comments, scripts and entities are taken out, so that they are no words."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

_TAGS = (
    "a|abbr|address|article|aside|audio|b|blockquote|body|br|button|canvas|caption|center|cite|code|col|colgroup|dd|"
    "del|details|dfn|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|h1|h2|h3|h4|h5|h6|head|"
    "header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|nav|noscript|object|ol|option|p|"
    "picture|pre|q|s|samp|script|section|select|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|"
    "td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_PATTERN = re.compile(rf"<!--|<!doctype\b|</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_MARKUP = _PATTERN.search
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});").search
_INLINE = frozenset("a abbr b em font i mark q s small span strong sub sup tt u wbr".split())  # noqa: SIM905
"""Tags that may stand within a word."""


class _Words(HTMLParser):
    """Collects the text outside of scripts and styles; a tag that ends a line is a blank."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Silence within script and style."""
        self._silent += tag in ("script", "style")
        if tag not in _INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """Words again after script and style."""
        self._silent = max(0, self._silent - (tag in ("script", "style")))
        if tag not in _INLINE:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if not self._silent:
            self.parts.append(data)


def without_tags(text: str) -> str:
    """The text itself, or where it has tags of HTML or entities, what a reader would see of it.

    ``&lt;p&gt;`` is a tag, too, written twice over. What is no tag of HTML stays (``a < b``, ``vector<int>``).
    """
    for _ in range(2):
        if _MARKUP(text):
            parser = _Words()
            try:
                parser.feed(text)
                parser.close()
            except AssertionError:  # how it refuses some declarations that are none
                return _PATTERN.sub(" ", text)
            text = " ".join("".join(parser.parts).split())
        elif _ENTITY(text):
            text = html.unescape(text)
        else:
            break
    return text
