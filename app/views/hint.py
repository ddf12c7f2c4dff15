"""The page of a view that has nothing to show: one sentence, and the buttons that lead on."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.plain import breakable
from app.views.parts import named

WIDTH = 560
"""Pixels of a sentence at most: longer lines are hard to read."""


class Hint(QWidget):
    """Says `say`'s sentence over those of its buttons that are offered; `below` is for more."""

    def __init__(self, name: str, buttons: list[QPushButton], below: QWidget | None = None) -> None:
        super().__init__()
        self._buttons = buttons
        self._words = named(QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter), f"{name}: state")
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        self._words.setMaximumWidth(WIDTH)
        words, row = QHBoxLayout(), QHBoxLayout()
        words.addStretch(1)
        words.addWidget(self._words, WIDTH)  # in a row it is as high as its lines are
        words.addStretch(1)
        row.setSpacing(2 * theme.SPACE)
        row.addStretch()
        for one in buttons:
            row.addWidget(one)
        row.addStretch()
        column = QVBoxLayout(self)
        column.setSpacing(3 * theme.SPACE)
        column.addStretch(2)
        column.addLayout(words)
        column.addLayout(row)
        if below is not None:
            column.addWidget(below, alignment=Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)

    @property
    def text(self) -> str:
        return self._words.text()

    def say(self, sentence: str, *offered: QPushButton) -> None:
        """Only the buttons `offered` are there."""
        self._words.setText(breakable(sentence))
        for one in self._buttons:
            one.setVisible(one in offered)
