"""Fonts for letters that the system's own font lacks, found without a pause.

The first letter of a script makes Qt search the installed fonts and load some, which takes 10 ms for Chinese
or Korean: a text of several scripts that is shown at once would hold the window up.
"""

from collections.abc import Iterable
from time import perf_counter

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QFont, QFontMetrics

TURN = 0.004
"""Seconds of one turn of the event loop; the letter that is being looked for is finished."""


class Letters(QObject):
    """Looks for letters after `find`; `ready` follows, at once where all are ASCII."""

    ready = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._left: list[tuple[QFontMetrics, str]] = []
        self._next = QTimer(self, singleShot=True, interval=0)
        self._next.timeout.connect(self._go_on)

    def find(self, texts: Iterable[tuple[QFont, str]]) -> None:
        """The letters of texts, each as its font is to show it; they replace those of an earlier call."""
        wanted: dict[QFont, set[str]] = {}
        for font, text in texts:
            if not text.isascii():
                wanted.setdefault(font, set()).update(text)
        self._left = [
            (QFontMetrics(font), letter)
            for font, letters in wanted.items()
            for letter in sorted(letters)
            if not letter.isascii()
        ]
        if self._left:
            self._next.start()
        else:
            self.ready.emit()

    def _go_on(self) -> None:
        began = perf_counter()
        while self._left:
            metrics, letter = self._left.pop()
            metrics.horizontalAdvance(letter)
            if perf_counter() - began > TURN:  # behind the last letter, too: who waits has work to do
                self._next.start()
                return
        self.ready.emit()
