"""How long the window's thread computes between two waits of its event loop."""

import time
from types import TracebackType

from PySide6.QtCore import QAbstractEventDispatcher


class Turns:
    """Notes the CPU time (`time.thread_time`) and the wall time of each turn of the event loop, in seconds.

    A turn ends with the dispatcher's `aboutToBlock`. CPU time is counted from the end of the turn before:
    some dispatchers run timers before they say `awake`, and waiting costs none. Wall time is counted from
    the first `awake`; it holds what other processes took as well.
    """

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self._woken: float | None = None

    def __enter__(self) -> "Turns":
        self._dispatcher = QAbstractEventDispatcher.instance()
        self._dispatcher.awake.connect(self._wake)
        self._dispatcher.aboutToBlock.connect(self._end)
        self._ended = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dispatcher.awake.disconnect(self._wake)
        self._dispatcher.aboutToBlock.disconnect(self._end)

    def _wake(self) -> None:
        if self._woken is None:
            self._woken = time.perf_counter()

    def _end(self) -> None:
        now = time.thread_time()
        self.cpu.append(now - self._ended)
        self._ended = now
        if self._woken is not None:
            self.wall.append(time.perf_counter() - self._woken)
            self._woken = None
