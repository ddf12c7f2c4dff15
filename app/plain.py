"""Texts of files as the window can show them: names, paths and refusals may hold anything, markup too."""

import re

from PySide6.QtGui import Qt

from engine.api.wording import printable as printable

BREAK = "\N{ZERO WIDTH SPACE}"
LONG_WORD = 32
"""Letters after which a word may break anywhere."""

WORD_PART = 8
MOST_SHOWN, MOST_TOLD = 200, 1000
"""How many letters of a name a line shows, and how many its tool tip."""


def as_tip(text: str) -> str:
    """`text` so that a tool tip shows it letter by letter, even where it looks like markup."""
    return Qt.convertFromPlainText(text) if Qt.mightBeRichText(text) else text


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """`text` with … in its middle where it has more than `most` letters."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[-half:]}"


def breakable(text: str) -> str:
    """`text` with places to break in long words, so that a label that wraps never widens the window."""
    return re.sub(rf"[^\s{BREAK}]{{{LONG_WORD + 1},}}", _with_breaks, text)


def _with_breaks(word: re.Match[str]) -> str:
    letters = word[0]
    return BREAK.join(letters[at : at + WORD_PART] for at in range(0, len(letters), WORD_PART))
