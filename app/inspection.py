"""The one engine that answers the window's questions: models, checks, jobs, speeds, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from PySide6.QtCore import QObject, QTimer, Signal

from app.ending import Ending, sentence_of
from app.engine_client import PATIENCE, EngineProcess, Patience
from app.opening import Opening
from app.state import State
from engine.api.events import (
    Answer,
    Checked,
    Event,
    Failed,
    FigureRead,
    Hello,
    ImportanceFound,
    JobsListed,
    Page,
    SpeedsMeasured,
)
from engine.api.jobs import Check, JobSummary, QuantizeRequest
from engine.api.requests import (
    CheckRun,
    ListJobs,
    MeasureSpeeds,
    OpenModel,
    Question,
    ReadFigure,
    ReadStatistics,
    RemoveJobs,
    Request,
)

DEATHS = 3
WITHIN_SECONDS = 60.0
"""An engine that dies `DEATHS` times within this time is not started again unasked."""


Slot = tuple[type[Question], str]
"""A kind of question, and of figures the place where one is shown."""


@dataclass(frozen=True)
class _Question:
    """`refused`: takes the sentence of a failure that says what to mend; without it `failed` does."""

    take: Callable[[Event], None]
    failed: Callable[[str], None]
    refused: Callable[[str], None] | None = None


class Inspection(QObject):
    """Keeps one engine, asks it, and hands answers out. The next request starts a dead one again."""

    ready = Signal(object)
    """The engine's `Hello`."""

    failed = Signal(object)
    """An `Ending`: the engine died by itself."""

    speeds_measured = Signal(object)
    """The `Speeds` of this machine."""

    open_failed = Signal(object, str)
    """A path that cannot be opened, and why."""

    importance_found = Signal(object)
    """A path that was to be opened: it is an importance matrix."""

    closed = Signal()
    """The engine is gone, as `close` wanted."""

    def __init__(
        self,
        parent: QObject | None = None,
        *,
        command: Sequence[str] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        super().__init__(parent)
        self._command, self._patience = command, patience
        self._engine: EngineProcess | None = None
        self._number = 0
        self._opening: Opening | None = None
        self._questions: dict[int, _Question] = {}
        self._newest: dict[Slot, int] = {}  # of which only the newest counts
        self._deaths: list[float] = []
        self._refusal = ""
        self._hung = self._closing = False

    # ---------------------------------------------------------------------------- what one asks for

    def start(self) -> None:
        """Start the engine, if there is none, also where it had died too often."""
        self._refusal = ""
        self._running_engine()

    def open(self, path: Path, state: State) -> None:
        """Read the model into `state`, as it comes; an older one that is still being read is dropped."""
        self._refusal = ""
        self._forget_model()
        if state.phase in ("empty", "opening"):  # a model that is open stays until this one can be shown
            state.opening(path)
        self._opening = Opening(self._next(), path, state, shown=state.phase == "opening")
        self._send(OpenModel(id=self._opening.id, model=str(path)))

    def check(
        self,
        request: QuantizeRequest,
        then: Callable[[list[Check]], None],
        failed: Callable[[str], None],
    ) -> None:
        """Check what can be checked before a run; `failed` takes a sentence."""

        def take(event: Event) -> None:
            assert isinstance(event, Checked)
            then(event.checks)

        self._ask(CheckRun(id=self._next(), quantize=request), _Question(take, failed))

    def jobs(
        self, then: Callable[[list[JobSummary]], None], failed: Callable[[str], None] = lambda _: None
    ) -> None:
        """All jobs on disk. Who gives no `failed` hears of a dead engine by the signal alone."""
        self._ask(ListJobs(id=self._next()), _Question(_collecting(then), failed))

    def remove(
        self, jobs: list[str], then: Callable[[list[JobSummary]], None], failed: Callable[[str], None]
    ) -> None:
        """Delete jobs, and what the unfinished ones have written; `then` takes those that are left."""
        self._ask(RemoveJobs(id=self._next(), jobs=jobs), _Question(_collecting(then), failed))

    def measure_speeds(self) -> None:
        """Ask how fast this machine is; `speeds_measured` follows, unless the engine dies of it."""

        def take(event: Event) -> None:
            assert isinstance(event, SpeedsMeasured)
            self.speeds_measured.emit(event.speeds)

        self._ask(MeasureSpeeds(id=self._next()), _Question(take, lambda sentence: None))

    def ask(
        self,
        make: Callable[[int], Question],
        take: Callable[[Event], None],
        failed: Callable[[str], None],
        refused: Callable[[str], None] | None = None,
        *,
        newest: bool = False,
    ) -> None:
        """Ask what `make` makes with an id; `take` gets each answer where several come.

        `newest`: older questions of the kind are dropped, of figures those for the same place.

        `refused` takes the sentence where what was asked for cannot be; `failed` any other, as that of an
        engine that died, and every one where there is no `refused`.
        """
        request = make(self._next())
        if newest:
            self._questions.pop(self._newest.get(_slot(request), 0), None)
            self._newest[_slot(request)] = request.id
        self._ask(request, _Question(take, failed, refused))

    @property
    def idle(self) -> bool:
        """Whether the engine is up and has nothing to answer."""
        opens = self._opening is not None and not self._opening.over
        return self._engine is not None and not opens and not self._questions

    def close(self) -> None:
        """End the engine; `closed` tells when it is gone. Nothing is asked or answered from here on."""
        self._closing = True
        self._opening = None
        self._questions.clear()
        if self._engine is None:
            QTimer.singleShot(0, self, self.closed.emit)
        else:
            self._engine.close()

    # --------------------------------------------------------------------------------- to the engine

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _forget_model(self) -> None:
        """What was asked about the model that was open."""
        for (kind, _), number in self._newest.items():
            if kind in (ReadFigure, ReadStatistics):
                self._questions.pop(number, None)

    def _ask(self, request: Question, question: _Question) -> None:
        if self._refusal:
            question.failed(self._refusal)
        elif not self._closing:
            self._questions[request.id] = question
            self._send(request)

    def _send(self, request: Request) -> None:
        engine = self._running_engine()
        if engine is not None:
            engine.send(request)

    def _running_engine(self) -> EngineProcess | None:
        if self._engine is None and not self._closing:
            self._hung = False
            self._engine = EngineProcess(self, command=self._command, patience=self._patience)
            self._engine.received.connect(self._take)
            self._engine.ended.connect(self._bury)
            self._engine.silent.connect(self._end_hung)
            self._engine.start()
        return self._engine

    # ------------------------------------------------------------------------------- from the engine

    def _take(self, event: Event) -> None:
        if isinstance(event, Hello):
            self.ready.emit(event)
        elif isinstance(event, Page | ImportanceFound):
            if self._opening is not None and event.id == self._opening.id:
                self._go_on(self._opening, event)
        elif isinstance(event, Answer):
            question = self._questions.get(event.id)
            if not isinstance(event, JobsListed | FigureRead) or event.last:
                self._questions.pop(event.id, None)
            if question is not None:
                question.take(event)
            elif isinstance(event, FigureRead) and event.path:
                Path(event.path).unlink(missing_ok=True)
        elif isinstance(event, Failed) and event.id is not None:
            self._fail(event.id, sentence_of(event), refused=event.code == "user")

    def _go_on(self, opening: Opening, event: Page | ImportanceFound) -> None:
        if not isinstance(event, ImportanceFound):
            opening.take(event)
        elif opening.give_up():
            self.importance_found.emit(opening.path)
        if opening.over and self._opening is opening:  # by now another one may be opened
            self._opening = None

    def _fail(self, id_: int, sentence: str, *, refused: bool) -> None:
        """The request `id_` has no answer."""
        if self._opening is not None and self._opening.id == id_:
            self._fail_opening(self._opening, sentence)
        elif (question := self._questions.pop(id_, None)) is not None:
            tell = question.refused if refused and question.refused else question.failed
            tell(sentence)

    def _fail_opening(self, opening: Opening, sentence: str) -> None:
        self._opening = None
        if opening.fail(sentence):
            self.open_failed.emit(opening.path, sentence)

    # ----------------------------------------------------------------------------------- its endings

    def _end_hung(self, silent: bool) -> None:
        """An engine that does not even say that it is alive answers nothing any more."""
        if silent and self._engine is not None:
            self._hung = True
            self._engine.cancel()

    def _bury(self, ending: Ending) -> None:
        assert self._engine is not None
        self._engine.deleteLater()
        self._engine = None
        if self._closing:
            self.closed.emit()
            return
        if self._hung:
            sentence = "The engine did not answer any more and was ended."
            ending = replace(ending, how="killed", sentence=sentence)
        ending = self._count_death(ending)
        self._fail_all(ending.sentence)
        self.failed.emit(ending)

    def _count_death(self, ending: Ending) -> Ending:
        """Remember when it died; stay down, and say so, where it was too often."""
        now = monotonic()
        self._deaths = [*(then for then in self._deaths if now - then < WITHIN_SECONDS), now]
        if len(self._deaths) < DEATHS:
            return ending
        self._deaths.clear()
        self._refusal = f"{ending.sentence} It ended {DEATHS} times within a minute and stays down for now."
        return replace(ending, sentence=self._refusal)

    def _fail_all(self, sentence: str) -> None:
        questions, self._questions = self._questions, {}
        if self._opening is not None:
            self._fail_opening(self._opening, sentence)
        for question in questions.values():
            question.failed(sentence)


def _collecting(then: Callable[[list[JobSummary]], None]) -> Callable[[Event], None]:
    """Takes pages of jobs; hands all of them over with the last one."""
    found: list[JobSummary] = []

    def take(event: Event) -> None:
        assert isinstance(event, JobsListed)
        found.extend(event.jobs)
        if event.last:
            then(found)

    return take


def _slot(request: Question) -> Slot:
    """What the newest question of takes the place of the others."""
    return type(request), request.place if isinstance(request, ReadFigure) else ""
