"""Messages at the top of the window: what happened, what it means, what to do. Nothing modal."""

from collections.abc import Callable, Sequence
from typing import Literal

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from app import theme
from app.theme import ICON_SIZE, SPACE

Kind = Literal["error", "warning", "info"]
Action = tuple[str, Callable[[], object]]
"""The text of a button, and what it does; the message goes with it."""

ICONS: dict[Kind, tuple[str, theme.Tint]] = {
    "error": ("warning-octagon", "error"),
    "warning": ("warning", "warning"),
    "info": ("info", "accent"),
}
WORDS: dict[Kind, str] = {"error": "Error", "warning": "Warning", "info": "Note"}
MOST = 3
"""Messages that stand at a time; an older one makes room for a newer."""


class Banner(QFrame):
    """One message. Its text can be selected; Copy takes the detail (a trace) along."""

    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.about: object = None
        self._kind: Kind = "info"
        self._detail = ""
        self._action_buttons: list[QPushButton] = []
        self._icon = QLabel()
        self._text = QLabel(wordWrap=True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(2 * SPACE)
        self.copy_button = QPushButton("Copy details")
        self.copy_button.setToolTip("Copy the message and its details, for a report")
        self.copy_button.setAccessibleName("Copy the message and its details")
        self.copy_button.clicked.connect(self._copy)
        self.close_button = QToolButton(autoRaise=True)
        self.close_button.setIcon(theme.icon("x"))
        self.close_button.setToolTip("Dismiss")
        self.close_button.setAccessibleName("Dismiss the message")
        self.close_button.clicked.connect(self.dismiss)
        row = QHBoxLayout(self)
        row.setContentsMargins(4 * SPACE, 2 * SPACE, 2 * SPACE, 2 * SPACE)
        row.setSpacing(2 * SPACE)
        row.addWidget(self._icon)
        row.addWidget(self._text, 1)
        row.addLayout(self._buttons)
        row.addWidget(self.copy_button)
        row.addWidget(self.close_button)
        theme.notifier().changed.connect(self._tint)
        self.hide()

    @property
    def text(self) -> str:
        return self._text.text()

    def show_message(self, kind: Kind, text: str, detail: str = "", actions: Sequence[Action] = ()) -> None:
        """Show `text`; `detail` is for copying only; a button each for `actions`."""
        self._kind, self._detail = kind, detail
        self._text.setText(text)
        self._text.setAccessibleName(f"{WORDS[kind]}: {text}")
        self.setAccessibleName(f"{WORDS[kind]}: {text}")
        self.copy_button.setVisible(bool(detail))
        for button in self._action_buttons:
            button.deleteLater()
        self._action_buttons = [self._button(label, run) for label, run in actions]
        for button in self._action_buttons:
            self._buttons.addWidget(button)
        self._tint()
        self.show()

    def dismiss(self) -> None:
        self.hide()
        self.dismissed.emit()

    def _button(self, label: str, run: Callable[[], object]) -> QPushButton:
        button = QPushButton(label)
        button.setAccessibleName(label)

        def clicked() -> None:
            self.dismiss()
            run()

        button.clicked.connect(clicked)
        return button

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(f"{self.text}\n\n{self._detail}\n")

    def _tint(self) -> None:
        name, tint = ICONS[self._kind]
        of = theme.colors()
        color = getattr(of, tint)
        self._icon.setPixmap(theme.icon(name, tint).pixmap(ICON_SIZE, ICON_SIZE))
        self.setStyleSheet(
            f"Banner {{ background: {of.base.name()}; border-left: 4px solid {color.name()};"
            f" border-bottom: 1px solid {of.border.name()}; }}"
        )


class BannerArea(QWidget):
    """A stack of messages; `banners` are those shown, the newest first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(0)
        self.banners: list[Banner] = []
        self.hide()

    def show_message(self, kind: Kind, text: str, detail: str = "", actions: Sequence[Action] = ()) -> Banner:
        """As `Banner.show_message`; one that says the same already moves to the top."""
        for old in [banner for banner in self.banners if banner.text == text] + self.banners[MOST - 1 :]:
            self._remove(old)
        banner = Banner(self)
        self.banners.insert(0, banner)
        banner.dismissed.connect(lambda: self._remove(banner))
        self._column.insertWidget(0, banner)
        self.show()
        banner.show_message(kind, text, detail, actions)
        return banner

    def dismiss_about(self, subject: object) -> None:
        """What was said of `subject` is past."""
        for banner in [banner for banner in self.banners if banner.about is subject]:
            self._remove(banner)

    def dismiss_all(self) -> None:
        for banner in list(self.banners):
            self._remove(banner)

    def _remove(self, banner: Banner) -> None:
        if banner not in self.banners:
            return
        self.banners.remove(banner)
        self._column.removeWidget(banner)
        banner.hide()
        banner.deleteLater()
        self.setVisible(bool(self.banners))
