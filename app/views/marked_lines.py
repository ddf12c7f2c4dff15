"""Lines that say something each: an icon for its kind, and words."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app import theme
from app.plain import breakable
from app.views.icon_label import IconLabel
from app.views.parts import marked, named


class MarkedLines(QWidget):
    """There are about ten."""

    def __init__(self, name: str, space: int = theme.SPACE, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self._lines = QVBoxLayout(self)
        self._lines.setContentsMargins(0, 0, 0, 0)
        self._lines.setSpacing(space)
        self._lines.setAlignment(Qt.AlignmentFlag.AlignTop)

    def add(self, icon: str, tint: theme.Tint, text: str, kind: str = "") -> None:
        """`kind` is what a screen reader says for the icon; by default the words."""
        line = QWidget(self)
        words = named(QLabel(breakable(text), wordWrap=True, textFormat=Qt.TextFormat.PlainText), text)
        words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        line.setLayout(marked(IconLabel(icon, tint, kind or text), words))
        self._lines.addWidget(line)
        line.show()  # at once: a layout leaves out what is still to be shown

    def clear(self) -> None:
        while (item := self._lines.takeAt(0)) is not None:
            line = item.widget()
            assert line is not None, "there are only lines"
            line.hide()
            line.deleteLater()
