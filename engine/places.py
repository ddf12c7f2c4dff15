"""Figures and statistics for the window's places: each has a thread, where the newest request counts.

A request that comes while an older one of its place is being answered breaks that off between two pieces of
work; from then on nothing of the older one is sent.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.api.events import Event, FigureRead, StatisticsRead
from engine.api.requests import ReadFigure, ReadStatistics
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.failures import failure
from engine.figures import Drawn, figures
from engine.figures.drawn import Wanted
from engine.handed_arrays import HandedArrays
from engine.input_statistics import input_statistics
from engine.quantization_errors import error_of
from engine.weight_statistics import gather, statistics_of

Asked = ReadFigure | ReadStatistics

PATIENCE = 2.0
"""Seconds that what is broken off is waited for at the end."""


class Places:
    """Answers with `send`. `ready` waits until what planning needs is loaded."""

    def __init__(
        self, send: Callable[[Event], None], arrays: HandedArrays, ready: Callable[[], None]
    ) -> None:
        self._send, self._arrays, self._ready = send, arrays, ready
        self._places: dict[str, _Place] = {}
        self._ending: list[threading.Thread] = []

    def ask(self, request: Asked) -> None:
        """Begin to answer; returns at once."""
        name = f"figure {request.place}" if isinstance(request, ReadFigure) else "statistics"
        if name not in self._places:
            self._places[name] = _Place(name, self._send, self._arrays, self._ready)
        self._places[name].ask(request)

    def drop(self) -> None:
        """Nothing that was asked for is wanted any more: those places end."""
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        for place in self._places.values():
            place.close()
            self._ending.append(place.thread)
        self._places.clear()

    def close(self) -> None:
        self.drop()
        for thread in self._ending:
            thread.join(PATIENCE)


class _Place:
    """One place: its thread, which has the model open as long as it lives."""

    def __init__(
        self, name: str, send: Callable[[Event], None], arrays: HandedArrays, ready: Callable[[], None]
    ) -> None:
        self._send, self._arrays, self._ready = send, arrays, ready
        self._changed = threading.Condition()
        self._newest: Asked | None = None
        self._begun = self._closed = False
        self._model: tuple[str, Checkpoint] | None = None
        self.thread = threading.Thread(target=self._serve, name=f"place {name}", daemon=True)
        self.thread.start()

    def ask(self, request: Asked) -> None:
        with self._changed:
            self._newest, self._begun = request, False
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._newest, self._closed = None, True
            self._changed.notify()

    # -------------------------------------------------------------------------------- its thread

    def _serve(self) -> None:
        try:
            while (request := self._next()) is not None:
                try:
                    self._answer(request)
                except Exception as error:
                    self._tell(request, partial(failure, error, request.id))
        finally:
            if self._model:
                self._model[1].close()

    def _next(self) -> Asked | None:
        """The next request, waited for; None: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._newest is not None and not self._begun))
            self._begun = True
            return self._newest

    def _answer(self, request: Asked) -> None:
        def wanted() -> bool:
            return self._newest is request

        if isinstance(request, ReadStatistics):
            self._statistics(request, wanted)
            return
        if getattr(request.view, "recipe", None) is not None:
            self._ready()
        for drawn in figures(self._opened(request.model), request.view, wanted):
            self._show(request, drawn)

    def _statistics(self, request: ReadStatistics, wanted: Wanted) -> None:
        checkpoint = self._opened(request.model)
        gathered = gather(checkpoint, request.tensor, wanted=wanted)
        if gathered is None:
            return
        found = statistics_of(checkpoint, gathered)
        if request.recipe is not None:
            self._ready()
            found.error = error_of(checkpoint, request.recipe, gathered.tensor, wanted)
        if request.activations is not None:
            found.inputs = input_statistics(checkpoint, Path(request.activations), found.canonical)
        self._tell(request, lambda: StatisticsRead(id=request.id, statistics=found))

    def _show(self, request: ReadFigure, drawn: Drawn) -> None:
        path = "" if drawn.values is None else self._arrays.write(drawn.values)
        event = FigureRead(
            id=request.id,
            figure=drawn.figure,
            path=path,
            done=drawn.done,
            total=drawn.total,
            last=drawn.last,
        )
        if not self._tell(request, lambda: event) and path:
            with suppress(OSError):
                Path(path).unlink()

    def _tell(self, request: Asked, event: Callable[[], Event]) -> bool:
        """Send the event, unless the request is not the newest any more; whether it was."""
        with self._changed:
            if self._newest is not request:
                return False
            self._send(event())
            return True

    def _opened(self, path: str) -> Checkpoint:
        if self._model and self._model[0] != path:
            self._model[1].close()
            self._model = None
        if self._model is None:
            self._model = path, open_checkpoint(path)
        return self._model[1]
