"""What the program has to say, before it is laid out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Action = tuple[str, Callable[[], object]]
"""The text of a button, and what it does."""


@dataclass(frozen=True)
class Notice:
    """A banner: `text` says what happened, what it means and what to do; `actions` are buttons.

    `about`: what it speaks of; the banner goes when that has moved on.
    """

    kind: Literal["error", "warning", "info"]
    text: str
    detail: str = ""
    actions: tuple[Action, ...] = ()
    about: object = None
