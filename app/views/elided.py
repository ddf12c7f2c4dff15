"""A line of text that is cut where there is no room for it, instead of widening what it stands in."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy


class Elided(QLabel):
    """One line of plain text, cut with an ellipsis at its end or where `mode` says."""

    def __init__(self, text: str = "", mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> None:
        super().__init__(text)
        self._mode = mode
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    @property
    def shown(self) -> str:
        return self.fontMetrics().elidedText(self.text(), self._mode, self.width())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        flags = Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
        self.style().drawItemText(
            painter, self.rect(), flags, self.palette(), True, self.shown, self.foregroundRole()
        )
        painter.end()
