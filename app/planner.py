"""Plans are made beside the window's thread: a mixture of experts has tens of thousands of names to match."""

from PySide6.QtCore import QObject, QRunnable, QThreadPool, Signal

from engine.api.plan import Planner
from engine.api.recipe import Recipe


class BackgroundPlanner(QObject):
    """Makes the plan of the newest recipe asked for; one that comes late is dropped by its number."""

    planned = Signal(object)
    """A `Plan`, in the window's thread."""

    _made = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._number = 0
        self._made.connect(self._deliver)

    def ask(self, planner: Planner, recipe: Recipe) -> None:
        self._number += 1
        self._pool.clear()
        self._pool.start(_Work(self, planner, recipe, self._number))

    def drop(self) -> None:
        """Whatever is under way comes too late."""
        self._number += 1
        self._pool.clear()

    def finish(self) -> None:
        """Wait for the work in hand: before the window goes."""
        self.drop()
        self._pool.waitForDone()

    def _deliver(self, number: int, plan: object) -> None:
        if number == self._number:
            self.planned.emit(plan)


class _Work(QRunnable):
    def __init__(self, owner: BackgroundPlanner, planner: Planner, recipe: Recipe, number: int) -> None:
        super().__init__()
        self._owner, self._planner, self._recipe, self._number = owner, planner, recipe, number

    def run(self) -> None:
        self._owner._made.emit(self._number, self._planner.plan(self._recipe))
