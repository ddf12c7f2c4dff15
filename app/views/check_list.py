"""The lines of checks on the run sheet: each an icon and words."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.views.icon_label import IconLabel
from engine.api.jobs import Check

MARKS: dict[bool | None, tuple[str, theme.Tint, str]] = {
    True: ("check", "accent", ""),
    False: ("x", "error", " failed"),
    None: ("clock", "muted", ""),
}
"""What a check says -> icon, its color, the word."""

WARNING: tuple[str, theme.Tint, str] = ("warning", "warning", "")


class CheckList(QWidget):
    """Shows the newest checks; there are about ten."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Checks")
        self._lines = QVBoxLayout(self)
        self._lines.setContentsMargins(0, 0, 0, 0)
        self._lines.setSpacing(theme.SPACE)
        self._lines.setAlignment(Qt.AlignmentFlag.AlignTop)

    def show_waiting(self) -> None:
        """Old lines would say what holds no more; the height stays, so that nothing jumps."""
        self.setMinimumHeight(self.height() if self.isVisible() else 0)
        self.clear()
        self._add("clock", "muted", "Checking…")

    def show_failure(self, sentence: str) -> None:
        """The checks could not be made."""
        self.clear()
        self._add("x", "error", sentence)

    def show_checks(self, checks: list[Check]) -> None:
        self.clear()
        self.setMinimumHeight(0)
        for check in checks:
            icon, tint, word = WARNING if check.warning else MARKS[check.passed]
            name = check.name[0].upper() + check.name[1:]
            self._add(icon, tint, f"{name}{word}: {check.message}")

    def clear(self) -> None:
        while (item := self._lines.takeAt(0)) is not None:
            line = item.widget()
            assert line is not None, "there are only lines"
            line.hide()
            line.deleteLater()

    def _add(self, icon: str, tint: theme.Tint, text: str) -> None:
        line = QWidget(self)
        picture = IconLabel(icon, tint, text)
        words = QLabel(text, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        words.setAccessibleName(text)
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(words, 1)
        self._lines.addWidget(line)
        line.show()  # at once: a layout leaves out what is still to be shown
