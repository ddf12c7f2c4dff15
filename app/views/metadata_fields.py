"""A field for one value of the metadata: what it says counts when it is left, if it can."""

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QLineEdit,
    QPlainTextEdit,
    QToolButton,
    QWidget,
)

from app import theme
from app.background import Latest
from app.models.metadata import KeyLine, text_of
from app.plain import as_tip
from app.views.parts import Fault
from engine.api.chat_template import template_fault
from engine.api.metadata import Edit, is_template

Refusal = Callable[[str, Edit], str]
"""(key, value) -> why it cannot be, a sentence, or empty."""

ABSENT = "not in the file"
LEFT_OUT = "left out of the file"

SETTLE_MS = 300
"""How long a chat template must stand still before it is parsed."""


def parse_template(owner: QObject, key: str, text: str, then: Callable[[str], None]) -> None:
    """Parse a chat template beside the window's thread, for a long one takes long.

    `then` takes why it cannot be, a sentence, or an empty text; nobody hears of it once `owner` is gone.
    """
    work = Latest(owner)

    def take(fault: str | None) -> None:
        work.deleteLater()
        then(f"{key} is no chat template that programs can read: {fault}." if fault else "")

    work.answered.connect(take)
    work.ask(partial(template_fault, text))


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

    refused = Signal(str)
    """Why a value that was left cannot be, where the field shows another key by now."""

    reset = Signal(str)

    faulted = Signal()
    """A sentence below says why it cannot be."""

    def __init__(
        self, key: str, name: str, refusal: Refusal, parent: QWidget, *, lines: bool = False
    ) -> None:
        """`name` is for screen readers; `lines`: it may have several."""
        super().__init__(parent)
        self.key, self.name, self._refusal = key, name, refusal
        self.text = ""
        self._line: tuple[KeyLine | None] | None = None
        self._fault: Fault | None = None
        self._parsed = ("", "")  # the chat template that was parsed last, and why it cannot be
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._parse)
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

    def commit(self, *, waits: bool = True) -> None:
        """Take what the field says, where it says something else now and that can be.

        A chat template counts once it is parsed; without `waits` at once, unless it is known to be faulty:
        the engine looks, too, before a run.
        """
        typed = self._typed()
        self._settle.stop()
        if typed == self.text or self._refusal(self.key, typed):
            return
        parsed, fault = self._parsed
        if not (typed and is_template(self.key)) or (parsed != typed and not waits):
            self._take(typed)
        elif parsed != typed:
            self._take_parsed(self.key, typed)
        elif not fault:
            self._take(typed)

    def _take(self, typed: str) -> None:
        self.text = typed
        self.edited.emit(self.key, typed)

    def _take_parsed(self, key: str, typed: str) -> None:
        """What has been typed on by the time of the answer counts in its place when it is left."""
        self._say("")

        def take(fault: str) -> None:
            if key == self.key:
                self._take_fault(typed, fault)
                if typed == self._typed():
                    self.commit()
            elif fault:
                self.refused.emit(fault)
            else:
                self.edited.emit(key, typed)

        parse_template(self, key, typed, take)

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
        """A chat template keeps the fault that is known until the changed one is parsed."""
        typed = self._typed()
        self._settle.stop()
        sentence = "" if typed == self.text else self._refusal(self.key, typed)
        if sentence or typed in ("", self.text) or not is_template(self.key):
            self._say(sentence)
        else:
            self._settle.start()

    def _parse(self) -> None:
        parse_template(self, self.key, self._typed(), partial(self._take_fault, self._typed()))

    def _take_fault(self, typed: str, fault: str) -> None:
        if typed == self._typed() != self.text:
            self._parsed = (typed, fault)
            self._say(fault)

    def _say(self, sentence: str) -> None:
        if self._fault is None and sentence:  # most fields never need one, and making it takes a while
            self._fault = Fault(self)
            self._grid.addWidget(self._fault, 1, 0)
        if self._fault is not None:
            self._fault.say(sentence)
        if sentence:
            self.faulted.emit()
