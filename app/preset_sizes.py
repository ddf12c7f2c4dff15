"""How large the file would be with each preset, worked out beside the window's thread, one by one."""

from dataclasses import dataclass, field
from functools import partial

from PySide6.QtCore import QObject, Signal

from app.background import Latest
from app.state import State
from engine.api.importance import ImportanceFacts
from engine.api.plan import ExportSummary, Planner
from engine.api.preset_sizes import NAMES, preset_size
from engine.api.recipe import Recipe

Size = int | str
"""The bytes of the file, or why there would be none."""


@dataclass(eq=False)
class _Series:
    """All presets over one recipe. Its planner is its own: another thread may be at that of the state."""

    export: ExportSummary
    recipe: Recipe
    importance: ImportanceFacts | None
    found: dict[str, Size] = field(default_factory=dict)
    planner: Planner | None = None

    def is_about(self, export: ExportSummary, recipe: Recipe, importance: ImportanceFacts | None) -> bool:
        """Whether presets would come to the same over this recipe: its own rules give way to theirs."""
        same = export is self.export and importance == self.importance
        return same and _kept(recipe) == _kept(self.recipe)

    def work_out(self, name: str) -> tuple["_Series", str, Size]:
        self.planner = self.planner or Planner(self.export.tensors, self.importance)
        found = preset_size(self.recipe, name, self.export, self.planner)
        return self, name, found.reason or found.bytes or 0


class PresetSizes(QObject):
    """Follows the recipe of `state`, whenever it is asked."""

    changed = Signal(str)
    """The size of this preset is known now."""

    def __init__(self, state: State, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._series: _Series | None = None
        self._worker = Latest(self)
        self._worker.answered.connect(self._take)

    def ask(self) -> dict[str, Size]:
        """What is known for the recipe of now; the rest follows."""
        export, recipe = self._state.export, self._state.document.recipe
        if export is None or recipe is None:
            return {}
        importance = self._state.importance
        if self._series is None or not self._series.is_about(export, recipe, importance):
            self._series = _Series(export, recipe, importance)
            self._go_on()
        return dict(self._series.found)

    def _go_on(self) -> None:
        series = self._series
        assert series is not None, "something was asked"
        left = next((name for name in NAMES if name not in series.found), None)
        if left is not None:
            self._worker.ask(partial(series.work_out, left))

    def _take(self, answer: tuple[_Series, str, Size]) -> None:
        series, name, size = answer
        if series is not self._series:
            return
        series.found[name] = size
        self.changed.emit(name)
        self._go_on()


def _kept(recipe: Recipe) -> tuple:
    """What of a recipe outlives a preset."""
    return recipe.imatrix, recipe.output, [rule for rule in recipe.rules if rule.pinned]
