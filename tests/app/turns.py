"""How long the window's thread computes between two waits of its event loop."""

import gc
import time
from types import TracebackType

from PySide6.QtCore import QAbstractEventDispatcher


class Turns:
    """Notes the CPU time (`time.thread_time`) of each turn of the event loop in `cpu`, in seconds.

    A turn lasts from one `aboutToBlock` of the dispatcher to the next. Its `awake` would leave out timers:
    Qt's display-less dispatcher runs them before it says so. The wait in between costs no CPU time.
    """

    def __init__(self) -> None:
        self.cpu: list[float] = []

    def __enter__(self) -> "Turns":
        gc.collect()  # what earlier tests have left is not this window's work
        self._dispatcher = QAbstractEventDispatcher.instance()
        self._dispatcher.aboutToBlock.connect(self._end)
        self._ended = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dispatcher.aboutToBlock.disconnect(self._end)

    def _end(self) -> None:
        now = time.thread_time()
        self.cpu.append(now - self._ended)
        self._ended = now
