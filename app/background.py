"""Short work beside the window's thread, of which only the newest answer counts."""

from collections.abc import Callable

from PySide6.QtCore import QObject, QRunnable, QThreadPool, Signal


class Latest(QObject):
    """Runs functions in the background; an answer that a newer question has overtaken is dropped."""

    answered = Signal(object)
    """What the function returned, in the window's thread."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._asked = 0
        self._came = 0
        self._mailbox = _Mailbox()
        self._mailbox.arrived.connect(self._deliver)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._came < self._asked

    def ask(self, work: Callable[[], object]) -> None:
        """Call `work` in a thread of the pool. It must not raise, nor touch widgets."""
        self._asked += 1
        QThreadPool.globalInstance().start(_Work(self._mailbox, work, self._asked))

    def _deliver(self, number: int, answer: object) -> None:
        self._came = max(number, self._came)
        if number == self._asked:
            self.answered.emit(answer)


class _Mailbox(QObject):
    """Outlives its reader while work is under way, so that the work never calls what is gone."""

    arrived = Signal(int, object)


class _Work(QRunnable):
    def __init__(self, mailbox: _Mailbox, work: Callable[[], object], number: int) -> None:
        super().__init__()
        self._mailbox, self._work, self._number = mailbox, work, number

    def run(self) -> None:
        self._mailbox.arrived.emit(self._number, self._work())
