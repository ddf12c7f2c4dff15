"""Keeps a `FigureView` at what is wanted of it: asked when that has settled and somebody can see it."""

from collections.abc import Callable

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QLabel

from app.figure_reader import Drawn, FigureReader
from app.views.figure import FigureView
from app.views.parts import named
from engine.api.views import View

SETTLE_MS = 120
"""How long what is wanted must stand still before it is asked for."""


class FigureSlot(QObject):
    """One place for figures. `progress` is a label that says how far a figure is, empty when it is complete.

    A figure is asked for only while its view is visible: whoever shows it says again what is wanted.
    """

    drawn = Signal(object)
    """A `Drawn` that is shown now."""

    failed = Signal(str)
    """Why there is no figure, a sentence."""

    def __init__(
        self,
        view: FigureView,
        reader: FigureReader,
        place: str,
        told: Callable[[Drawn], str],
        parent: QObject,
    ) -> None:
        """`told` says how far an answer that is not the last one is: "block 12 of 32"."""
        super().__init__(parent)
        self._view, self._reader, self._place, self._told = view, reader, place, told
        self._wanted: View | None = None
        self.shown: Drawn | None = None
        self.dress: Callable[[Drawn], Drawn] = lambda drawn: drawn
        self.progress = named(QLabel(textFormat=Qt.TextFormat.PlainText), f"{place}: progress")
        self.progress.setForegroundRole(view.palette().ColorRole.PlaceholderText)
        self.progress.hide()
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        reader.dropped.connect(self.forget)

    def want(self, view: View, *, keep: bool = False) -> None:
        """Show this; nothing happens where it is shown or under way. `keep` what is shown until it comes."""
        if view == self._wanted:
            return
        self._stop()
        self._wanted = view
        if not keep or self.shown is None:
            self.shown = None
            self._view.show_text("Reading…")
        self._settle.start()

    def forget(self) -> None:
        """Nothing is wanted, and what was shown is gone."""
        self._stop()
        self._wanted = self.shown = None
        self._view.show_text("")

    def draw(self) -> None:
        """What is shown, dressed anew."""
        if self.shown is not None:
            dressed = self.dress(self.shown)
            self._view.show_figure(dressed.figure, dressed.values)

    def _stop(self) -> None:
        self._settle.stop()
        self._reader.drop(self._place)
        self._say("")

    def _say(self, progress: str) -> None:
        self.progress.setText(progress)
        self.progress.setVisible(bool(progress))

    def _ask(self) -> None:
        if self._wanted is None:
            return
        if not self._view.isVisible():
            self._wanted = None
            return
        self._reader.figure(self._place, self._wanted, self._take, self._fail)

    def _take(self, drawn: Drawn) -> None:
        self.shown = drawn
        self._say("" if drawn.last else self._told(drawn))
        self.draw()
        self.drawn.emit(drawn)

    def _fail(self, sentence: str) -> None:
        self.forget()
        self.failed.emit(sentence)
