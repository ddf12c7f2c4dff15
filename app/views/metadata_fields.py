"""A field for one value of the metadata: what it says counts when it is left, if it can."""

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QLineEdit,
    QPlainTextEdit,
    QToolButton,
    QWidget,
)

from app import theme
from app.models.metadata import KeyLine, text_of
from app.plain import as_tip
from app.views.parts import Fault
from engine.api.metadata import Edit

Refusal = Callable[[str, Edit], str]
"""(key, value) -> why it cannot be, a sentence, or empty."""

ABSENT = "not in the file"
LEFT_OUT = "left out of the file"


class ValueEditor(QPlainTextEdit):
    """Several lines. `left`: the focus goes elsewhere, or Ctrl+Return."""

    left = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFont(theme.names_font())
        self.setTabChangesFocus(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        if event.reason() not in (Qt.FocusReason.PopupFocusReason, Qt.FocusReason.ActiveWindowFocusReason):
            self.left.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.left.emit()
        else:
            super().keyPressEvent(event)


class Field(QWidget):
    """A value with a button that resets it and, below, why it cannot be."""

    edited = Signal(str, object)
    """A key and a value that is not refused, "" to leave the key out."""

    reset = Signal(str)

    def __init__(
        self, key: str, name: str, refusal: Refusal, parent: QWidget, *, lines: bool = False
    ) -> None:
        """`name` is for screen readers; `lines`: it may have several."""
        super().__init__(parent)
        self.key, self.name, self._refusal = key, name, refusal
        self.text = ""
        self._line: tuple[KeyLine | None] | None = None
        self._fault: Fault | None = None
        self.field: QLineEdit | ValueEditor = ValueEditor(self) if lines else QLineEdit(self)
        self.field.setAccessibleName(name)
        self.field.textChanged.connect(self._check)
        (self.field.left if isinstance(self.field, ValueEditor) else self.field.editingFinished).connect(
            self.commit
        )
        self.setFocusProxy(self.field)
        self.back = QToolButton(self, autoRaise=True)
        self.back.setIcon(theme.icon("arrow-counter-clockwise", "accent"))
        self.back.setAccessibleName(f"Reset {name}")
        self.back.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.back.clicked.connect(lambda: self.reset.emit(self.key))
        kept = self.back.sizePolicy()
        kept.setRetainSizeWhenHidden(True)
        self.back.setSizePolicy(kept)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(theme.SPACE)
        self._grid.addWidget(self.field, 0, 0)
        self._grid.addWidget(self.back, 0, 1, Qt.AlignmentFlag.AlignTop)

    @property
    def wrong(self) -> str:
        """Why it cannot be what is typed; empty where it can."""
        return self._fault.text if self._fault else ""

    def show_line(self, line: KeyLine | None) -> None:
        """Show what the file gets; None: it has no such key."""
        if self._line == (line,):
            return  # what is typed and cannot be stays, whatever else is edited
        self._line = (line,)
        self.text = "" if line is None or line.now is None else text_of(line.now)
        self._fill(self.text)
        fixed = line.fixed if line else ""
        self.field.setReadOnly(bool(fixed))
        self.field.setToolTip(as_tip(fixed))
        self.field.setAccessibleDescription(fixed)
        self.field.setPlaceholderText(LEFT_OUT if line and line.now is None else ABSENT)
        self.back.setVisible(bool(line and line.standing))
        before = text_of(line.before) if line and line.before else ""
        source = f"what the source says: {before[:200]}" if before else "the source, which has none"
        self.back.setToolTip(as_tip(f"Back to {source}"))

    def commit(self) -> None:
        """Take what the field says, where it says something else now and that can be."""
        typed = self._typed()
        if typed != self.text and not self._refusal(self.key, typed):
            self.text = typed
            self.edited.emit(self.key, typed)

    def _typed(self) -> str:
        return self.field.toPlainText() if isinstance(self.field, ValueEditor) else self.field.text()

    def _fill(self, text: str) -> None:
        if text == self._typed():
            return
        if isinstance(self.field, ValueEditor):
            self.field.setPlainText(text)
        else:
            self.field.setText(text)
            self.field.setCursorPosition(0)

    def _check(self) -> None:
        typed = self._typed()
        sentence = "" if typed == self.text else self._refusal(self.key, typed)
        if self._fault is None and sentence:  # most fields never need one, and making it takes a while
            self._fault = Fault(self)
            self._grid.addWidget(self._fault, 1, 0)
        if self._fault is not None:
            self._fault.say(sentence)
