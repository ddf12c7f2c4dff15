"""Small parts of sheets: labels, buttons, rows, each with what a screen reader says of it."""

from typing import TypeVar

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QPalette
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QLabel, QPushButton, QWidget

from app import theme
from app.views.icon_label import IconLabel

Control = TypeVar("Control", bound=QWidget)


def named(control: Control, name: str) -> Control:
    control.setAccessibleName(name)
    return control


def value_label(name: str) -> QLabel:
    """A text that may be long."""
    label = named(QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText), name)
    label.setFont(theme.figures_font(label.font()))
    return label


def top_label(text: str) -> QLabel:
    """The label of something that takes several lines: level with the first."""
    return QLabel(text, alignment=Qt.AlignmentFlag.AlignTop)


def button(text: str, tip: str) -> QPushButton:
    made = named(QPushButton(text), text.replace("&", ""))
    made.setToolTip(tip)
    made.setAutoDefault(False)
    return made


def side_by_side(*widgets: QWidget, stretch: bool = False) -> QHBoxLayout:
    """Side by side; the first takes the room, unless `stretch` leaves it behind the last."""
    row = QHBoxLayout()
    row.setSpacing(2 * theme.SPACE)
    for place, widget in enumerate(widgets):
        row.addWidget(widget, 1 if place == 0 and not stretch else 0)
    if stretch:
        row.addStretch()
    return row


def marked(picture: IconLabel, words: QLabel) -> QHBoxLayout:
    """Words behind the icon that says of which kind they are, which is level with their first line."""
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(2 * theme.SPACE)
    row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
    row.addWidget(words, 1)
    return row


def follow_action(button: QAbstractButton, action: QAction) -> None:
    """The button does what the action does, as long as that can be done."""
    button.clicked.connect(lambda: action.trigger())

    def follow() -> None:
        button.setEnabled(action.isEnabled())
        button.setToolTip(action.toolTip())

    action.changed.connect(follow)
    follow()


class Fault(QWidget):
    """What is wrong with a field, in words with an icon; hidden while nothing is."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._words = value_label("")
        self.setLayout(marked(IconLabel("warning-circle", "error", "Wrong"), self._words))
        theme.notifier().changed.connect(self._tint)
        self._tint()
        self.hide()

    @property
    def text(self) -> str:
        return self._words.text()

    def say(self, sentence: str) -> None:
        self._words.setText(sentence)
        self._words.setAccessibleName(sentence)
        self.setVisible(bool(sentence))

    def _tint(self) -> None:
        palette = self._words.palette()
        palette.setColor(QPalette.ColorRole.WindowText, theme.colors().error)
        self._words.setPalette(palette)
