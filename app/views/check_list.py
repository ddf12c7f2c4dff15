"""The lines of checks on the run sheet: each an icon and words."""

from PySide6.QtWidgets import QWidget

from app import theme
from app.views.marked_lines import MarkedLines
from engine.api.jobs import Check

MARKS: dict[bool | None, tuple[str, theme.Tint, str]] = {
    True: ("check", "accent", ""),
    False: ("x", "error", " failed"),
    None: ("clock", "muted", ""),
}
"""What a check says -> icon, its color, the word."""

WARNING: tuple[str, theme.Tint, str] = ("warning", "warning", "")


class CheckList(MarkedLines):
    """Shows the newest checks."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Checks", parent=parent)

    def show_waiting(self) -> None:
        """Old lines would say what holds no more; the height stays, so that nothing jumps."""
        self.setMinimumHeight(self.height() if self.isVisible() else 0)
        self.clear()
        self.add("clock", "muted", "Checking…")

    def show_failure(self, sentence: str) -> None:
        """The checks could not be made."""
        self.clear()
        self.add("x", "error", sentence)

    def show_checks(self, checks: list[Check]) -> None:
        self.clear()
        self.setMinimumHeight(0)
        for check in checks:
            icon, tint, word = WARNING if check.warning else MARKS[check.passed]
            name = check.name[0].upper() + check.name[1:]
            self.add(icon, tint, f"{name}{word}: {check.message}")
