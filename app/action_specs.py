"""What an action and a menu of the window are described by."""

from dataclasses import dataclass
from typing import Literal

from PySide6.QtGui import QKeySequence

Need = Literal[
    "",
    "model",
    "plan",
    "selection",
    "importance",
    "open importance",
    "usable importance",
    "undo",
    "redo",
    "command",
    "active job",
    "resumable job",
    "memory job",
    "restartable job",
    "job folder",
    "removable job",
    "finished jobs",
]
"""What must be there for an action to make sense: an open model, its plan, selected tensors, …"""

Standard = QKeySequence.StandardKey


@dataclass(frozen=True)
class ActionSpec:
    """One action.

    `tip` is a sentence without its full stop. `rule` draws a line above it in its menu. Of the actions of a
    `group` one is checked. The keys of a `focused` action count only inside the view that the action is
    added to, so they may be plain letters.
    """

    key: str
    text: str
    tip: str
    shortcuts: tuple[Standard | str, ...] = ()
    icon: str = ""
    needs: Need = ""
    group: str = ""
    checkable: bool = False
    focused: bool = False
    rule: bool = False


@dataclass(frozen=True)
class MenuSpec:
    """A menu and what it holds. One that lies `inside` another stands there above the action `before`."""

    text: str
    actions: tuple[ActionSpec, ...] = ()
    inside: str = ""
    before: str = ""
    needs: Need = ""
    tip: str = ""
