"""What is asked of the inspecting engine while it is idle: the jobs on disk, how fast this machine is."""

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer

from app.inspection import Inspection
from app.jobs import JobBoard
from app.settings import Settings
from app.state import State
from engine.api.jobs import JobSummary

LIST_EVERY_MS = 3000
MEASURE_AFTER_MS = 4000
"""How long after the first model is open the speeds are measured: by then its histogram has been shown."""


class Upkeep(QObject):
    """Keeps `board` and `settings` true, without ever starting an engine for that."""

    def __init__(
        self, state: State, inspection: Inspection, board: JobBoard, settings: Settings, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._inspection, self._board, self._settings = inspection, board, settings
        self._listing = QTimer(self, interval=LIST_EVERY_MS)
        self._listing.timeout.connect(self._list)
        self._measuring = QTimer(self, singleShot=True, interval=MEASURE_AFTER_MS)
        self._measuring.timeout.connect(self._measure)
        self._measured = self._asked = self._closed = False
        state.ready.connect(self._measure_later)
        inspection.speeds_measured.connect(self._take_speeds)

    def watch(self, seen: bool) -> None:
        """Follow the disk while somebody can see it."""
        if seen and not self._closed:
            self._listing.start()
        else:
            self._listing.stop()

    def ask_jobs(self, then: Callable[[list[JobSummary]], None] = lambda found: None) -> None:
        """Have the board follow the disk now; `then` takes what there is."""
        since, self._asked = self._board.moment, True

        def take(found: list[JobSummary]) -> None:
            self._asked = False
            self._board.take(found, since)
            then(found)

        def fail(sentence: str) -> None:
            self._asked = False

        self._inspection.jobs(take, fail)

    def close(self) -> None:
        self._closed = True
        self._listing.stop()
        self._measuring.stop()

    def _list(self) -> None:
        if self._inspection.idle and not self._asked:
            self.ask_jobs()

    def _measure_later(self) -> None:
        if not self._measured and not self._closed:
            self._measuring.start()

    def _measure(self) -> None:
        """Once, when nothing else takes the machine."""
        if self._inspection.idle and not self._board.active:
            self._measured = True
            self._inspection.measure_speeds()
        else:
            self._measuring.start()

    def _take_speeds(self, speeds: object) -> None:
        self._settings.speeds = speeds  # type: ignore[assignment]
