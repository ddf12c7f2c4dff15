"""What the window asks the engine about the open model's numbers: figures and statistics.

Of each place where something is shown only the newest question counts: every question has a generation, and
an answer to an older one is dropped. With another model all are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.inspection import Inspection
from app.plotting import plotting
from app.state import State
from engine.api.events import Event, FigureRead, StatisticsRead
from engine.api.figures import Figure, HeatMap
from engine.api.recipe import Recipe
from engine.api.requests import ReadFigure, ReadStatistics
from engine.api.statistics import WeightStatistics
from engine.api.views import View

if TYPE_CHECKING:
    import numpy as np

Fail = Callable[[str], None]
"""Takes a sentence: why there is no answer."""

STATISTICS = "statistics"


@dataclass(frozen=True, eq=False)
class Drawn:
    """An answer: `values` float32 [height, width] of a heat map; `done` of `total` parts are in it."""

    figure: Figure | HeatMap
    values: np.ndarray | None
    done: int
    total: int
    last: bool


@dataclass(frozen=True)
class _Asked:
    """A question that has no last answer yet; `send` asks it of the engine."""

    generation: int
    send: Callable[[], None]


class FigureReader(QObject):
    """Asks `inspection` about the model of `state`."""

    dropped = Signal()
    """Another model is opened, or none: what was shown of the one before says nothing any more."""

    def __init__(self, state: State, inspection: Inspection, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state, self._inspection = state, inspection
        self._generation = 0
        self._asked: dict[str, _Asked] = {}
        plotting().ready.connect(self._send_all)
        state.model_changed.connect(self._follow_model)
        # An engine that is told to open a model forgets what was asked before: where that one stays open
        inspection.open_failed.connect(lambda *_: self._send_all())
        inspection.importance_found.connect(lambda *_: self._send_all())

    # ---------------------------------------------------------------------------- what one asks for

    def figure(self, place: str, view: View, then: Callable[[Drawn], None], failed: Fail) -> None:
        """Ask for what `place` is to show; `then` takes each answer, a better one each time."""
        model = str(self._state.path)

        def take(event: Event, generation: int) -> None:
            assert isinstance(event, FigureRead)
            wanted = self._wanted(place, generation)
            if wanted and event.last:
                del self._asked[place]
            try:
                values = _load(event.path, wanted)
            except (OSError, ValueError) as error:
                self._asked.pop(place, None)
                failed(f"The figure cannot be read: {error}")
                return
            if wanted:
                then(Drawn(event.figure, values, event.done, event.total, event.last))

        self._ask(
            place,
            lambda number: ReadFigure(id=number, model=model, place=place, view=view),
            take,
            failed,
        )

    def statistics(
        self,
        tensor: str,
        recipe: Recipe | None,
        activations: Path | None,
        then: Callable[[WeightStatistics], None],
        failed: Fail,
    ) -> None:
        """All that is known of a source tensor's weights; what `recipe` makes of them; what reaches them."""
        model = str(self._state.path)

        def take(event: Event, generation: int) -> None:
            assert isinstance(event, StatisticsRead)
            if self._wanted(STATISTICS, generation):
                del self._asked[STATISTICS]
                then(event.statistics)

        self._ask(
            STATISTICS,
            lambda number: ReadStatistics(
                id=number,
                model=model,
                tensor=tensor,
                recipe=recipe,
                activations=None if activations is None else str(activations),
            ),
            take,
            failed,
        )

    def drop(self, place: str) -> None:
        """Nobody waits for what was asked last for `place`."""
        self._asked.pop(place, None)

    # ------------------------------------------------------------------------------------- its work

    def _ask(
        self,
        place: str,
        make: Callable[[int], ReadFigure | ReadStatistics],
        take: Callable[[Event, int], None],
        failed: Fail,
    ) -> None:
        self._generation += 1
        generation = self._generation

        def fail(sentence: str) -> None:
            if self._wanted(place, generation):
                del self._asked[place]
                failed(sentence)

        def send() -> None:
            self._inspection.ask(make, lambda event: take(event, generation), fail, newest=True)

        self._asked[place] = _Asked(generation, send)
        if plotting().loaded:  # numpy comes along, which the answer needs at once
            send()
        else:
            plotting().load()

    def _wanted(self, place: str, generation: int) -> bool:
        asked = self._asked.get(place)
        return asked is not None and asked.generation == generation

    def _send_all(self) -> None:
        """What has no answer yet is asked now, or once more."""
        if plotting().loaded:
            for asked in tuple(self._asked.values()):
                asked.send()

    def _follow_model(self) -> None:
        if self._state.phase in ("empty", "opening"):
            self._asked.clear()
            self.dropped.emit()


def _load(path: str, wanted: bool) -> np.ndarray | None:
    """The array in a file, which is then deleted; None where there is no file, or nobody wants it.

    Raises `OSError`, `ValueError`.
    """
    if not path:
        return None
    import numpy as np

    try:
        return np.load(path) if wanted else None
    finally:
        Path(path).unlink(missing_ok=True)
