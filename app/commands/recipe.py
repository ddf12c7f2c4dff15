"""The one undoable command: the recipe as it was, and as it is now."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtGui import QUndoCommand

from engine.api.recipe import Recipe


@dataclass(frozen=True)
class Version:
    """A recipe, and what it started from: `name` of a preset or a file, `base` as that gave it.

    `path` is the file that saving writes to, None where the user has not named one.
    """

    recipe: Recipe
    name: str
    base: Recipe
    path: Path | None = None

    @property
    def edited(self) -> bool:
        return self.recipe != self.base


class ChangeRecipe(QUndoCommand):
    """Replace the recipe. A recipe is immutable and small, so whole ones are kept: undo cannot go wrong."""

    def __init__(self, text: str, before: Version, after: Version, apply: Callable[[Version], None]) -> None:
        super().__init__(text)
        self._before, self._after, self._apply = before, after, apply

    def redo(self) -> None:
        self._apply(self._after)

    def undo(self) -> None:
        self._apply(self._before)
