"""Plans are made beside the window's thread: a mixture of experts has tens of thousands of names to match.

So is everything that follows from a plan by going through all of its tensors: a turn of the window's event
loop stores the outcome and paints it.
"""

from dataclasses import dataclass

from PySide6.QtCore import QObject, QRunnable, QThreadPool, Signal

from app.commands.recipe import Version
from engine.api.editing import outcome, outcomes
from engine.api.errors import RecipeError
from engine.api.needs import importance_bytes, measure_memory, quantize_memory
from engine.api.plan import ExportSummary, Plan, Planner
from engine.api.preset_sizes import NAMES
from engine.api.recipe import Recipe

MEASURED_WINDOWS = 16
"""Windows that a run measures unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A plan, and what views say of it.

    `pinned` and `changed`, by place in the plan: what edits leave alone, and what differs from the recipe one
    began with; never what is kept in F32. The memory is what a run takes at its peak, with and without
    measuring.
    """

    plan: Plan
    file_bytes: int
    bits_per_weight: float
    pinned: list[bool]
    changed: list[bool]
    quantize_memory: int
    measure_memory: int


class Forecast:
    """Makes the outlooks of one export, one after the other; remembers what they have in common."""

    def __init__(self, export: ExportSummary, planner: Planner) -> None:
        self._export, self._planner = export, planner
        self._base: tuple[Recipe, list[tuple[str, str]]] | None = None
        self._memory: tuple[int, int] | None = None

    def outlook(self, version: Version) -> Outlook:
        plan = self._planner.plan(version.recipe)
        pins = {number for number, rule in enumerate(version.recipe.rules) if rule.pinned}
        begun = self._begun(version)
        if self._memory is None:
            export = self._export
            self._memory = quantize_memory(export, 0), measure_memory(export, MEASURED_WINDOWS)
        importance = importance_bytes(plan)
        return Outlook(
            plan=plan,
            file_bytes=self._export.file_bytes(plan, version.recipe.output.options),
            bits_per_weight=plan.bits_per_weight,
            pinned=[tensor.rule in pins and not tensor.kept for tensor in plan.tensors],
            changed=[
                not tensor.kept and outcome(tensor.format, tensor.method) != before
                for tensor, before in zip(plan.tensors, begun, strict=True)
            ],
            quantize_memory=self._memory[0] + importance,
            measure_memory=self._memory[1] + importance,
        )

    def _begun(self, version: Version) -> list[tuple[str, str]]:
        """The outcomes of the preset or file that the recipe began with. Pins on a preset are not its own."""
        if self._base is None or self._base[0] is not version.base:
            base = version.base
            if version.name in NAMES:
                rules = [rule for rule in base.rules if not rule.pinned]
                base = base.model_copy(update={"rules": rules})
            self._base = version.base, outcomes(base, self._planner)
        return self._base[1]


class BackgroundPlanner(QObject):
    """Makes the outlook of the newest recipe asked for; one that comes late is dropped by its number."""

    planned = Signal(object)
    """An `Outlook`, in the window's thread."""

    refused = Signal(str)
    """Why the recipe cannot be planned: a pattern in it takes too long."""

    _made = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._number = 0
        self._made.connect(self._deliver)

    def ask(self, forecast: Forecast, version: Version) -> None:
        self._number += 1
        self._pool.clear()
        self._pool.start(_Work(self, forecast, version, self._number))

    def drop(self) -> None:
        """Whatever is under way comes too late."""
        self._number += 1
        self._pool.clear()

    def finish(self) -> None:
        """Wait for the work in hand: before the window goes."""
        self.drop()
        self._pool.waitForDone()

    def _deliver(self, number: int, outlook: object) -> None:
        if number != self._number:
            return
        if isinstance(outlook, str):
            self.refused.emit(outlook)
        else:
            self.planned.emit(outlook)


class _Work(QRunnable):
    def __init__(self, owner: BackgroundPlanner, forecast: Forecast, version: Version, number: int) -> None:
        super().__init__()
        self._owner, self._forecast, self._version, self._number = owner, forecast, version, number

    def run(self) -> None:
        try:
            made: Outlook | str = self._forecast.outlook(self._version)
        except RecipeError as error:
            made = str(error)
        self._owner._made.emit(self._number, made)
