"""What a job's engine wrote, as it grows: to read, to search, to copy."""

import codecs

from PySide6.QtCore import QFile, QIODevice, Qt, QTimer
from PySide6.QtGui import (
    QGuiApplication,
    QHideEvent,
    QKeySequence,
    QShortcut,
    QShowEvent,
    QTextCursor,
    QTextDocument,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.job_record import ACTIVE, JobRecord
from app.plain import printable

PIECE = 16 << 10
"""Bytes read a tick: laying them out takes the window some milliseconds."""

CATCH_UP_MS = 20
FOLLOW_MS = 500
MOST_LINES = 50_000
"""Older lines are let go; the file has them all."""


class LogPanel(QWidget):
    """Follows the end of the log, unless one has scrolled up. Reads only while it is seen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._record: JobRecord | None = None
        self._file = QFile(self)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._trace_shown = ""
        self._tick = QTimer(self)
        self._tick.setSingleShot(True)
        self._tick.timeout.connect(self._read)
        self._make_widgets()
        self.show_record(None)

    def show_record(self, record: JobRecord | None) -> None:
        """Show the log of another job, or go on with the same one."""
        if record is not self._record or record is None:
            self._record = record
            self._file.close()
            self._decoder.reset()
            self._trace_shown = ""
            self.text.clear()
            self._title.setText(printable(record.title) if record else "Select a job to read its log.")
        self._follow()

    def follow(self, record: JobRecord) -> None:
        """Go on reading where this job is shown and runs (again)."""
        if record is self._record and record.state in ACTIVE and not self._tick.isActive():
            self._follow()

    def forget(self, records: list[JobRecord]) -> None:
        """These jobs are not in the list any more."""
        if self._record in records:
            self.show_record(None)

    def _make_widgets(self) -> None:
        self._title = QLabel(textFormat=Qt.TextFormat.PlainText)
        self._title.setMinimumWidth(1)  # a long name must not widen the window
        self._title.setAccessibleName("The job whose log this is")
        self.find_field = QLineEdit(placeholderText="Find", clearButtonEnabled=True)
        self.find_field.setAccessibleName("Find in the log")
        self.find_field.setToolTip("Enter: the next place. Shift+Enter: the one before")
        self.find_field.setMaximumWidth(240)
        self.find_field.returnPressed.connect(lambda: self.find_next())
        back = QShortcut(QKeySequence("Shift+Return"), self.find_field)
        back.setContext(Qt.ShortcutContext.WidgetShortcut)
        back.activated.connect(lambda: self.find_next(backward=True))
        self._found = QLabel(textFormat=Qt.TextFormat.PlainText)
        self._found.setAccessibleName("Result of the search")
        self.text = QPlainTextEdit(readOnly=True, lineWrapMode=QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setMaximumBlockCount(MOST_LINES)
        self.text.setUndoRedoEnabled(False)
        self.text.setFont(theme.names_font())
        self.text.setFrameShape(QPlainTextEdit.Shape.NoFrame)
        self.text.setAccessibleName("Log of the job")
        copy = QPushButton(theme.icon("copy"), "Copy all")
        copy.setToolTip("Copy the whole log that is shown")
        copy.setAccessibleName("Copy the log")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text.toPlainText()))
        line = QHBoxLayout()
        line.setContentsMargins(2 * theme.SPACE, theme.SPACE, 2 * theme.SPACE, theme.SPACE)
        line.setSpacing(2 * theme.SPACE)
        line.addWidget(self._title, 1)
        line.addWidget(self._found)
        line.addWidget(self.find_field)
        line.addWidget(copy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(line)
        layout.addWidget(self.text, 1)

    # ------------------------------------------------------------------------------ the search

    def find_next(self, *, backward: bool = False) -> None:
        """Mark the next place of what the field says, from the other end where there is none."""
        wanted = self.find_field.text()
        if not wanted:
            return
        flags = QTextDocument.FindFlag.FindBackward if backward else QTextDocument.FindFlag(0)
        found = self.text.find(wanted, flags)
        if not found:
            start = self.text.textCursor()
            self.text.moveCursor(
                QTextCursor.MoveOperation.End if backward else QTextCursor.MoveOperation.Start
            )
            found = self.text.find(wanted, flags)
            if not found:
                self.text.setTextCursor(start)
        self._found.setText("" if found else "Not found")

    # ------------------------------------------------------------------------------ the reading

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._follow()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._tick.stop()

    def _follow(self) -> None:
        if self._record is not None and self.isVisible():
            self._tick.start(0)

    def _read(self) -> None:
        """A piece of what is new; then again soon, later, or never."""
        record = self._record
        if record is None:
            return
        active = record.state in ACTIVE  # before reading: what comes behind the last look is not missed
        piece = self._next_piece(record.log)
        if piece:
            self._append(self._decoder.decode(piece))
            self._tick.start(CATCH_UP_MS)
        elif active:
            self._tick.start(FOLLOW_MS)
        elif record.trace and record.trace != self._trace_shown:
            self._trace_shown = record.trace
            self._append(f"\n{record.message}\n{record.trace}\n")

    def _next_piece(self, path: str) -> bytes:
        if not path:
            return b""
        if not self._file.isOpen():
            self._file.setFileName(path)
            if not self._file.open(QIODevice.OpenModeFlag.ReadOnly):
                return b""
        return bytes(self._file.read(PIECE).data())

    def _append(self, text: str) -> None:
        bar = self.text.verticalScrollBar()
        at_end = bar.value() >= bar.maximum()
        cursor = QTextCursor(self.text.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(text)
        if at_end:
            bar.setValue(bar.maximum())
