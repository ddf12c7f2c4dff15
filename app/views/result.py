"""What came of a job, as a page to read: before and after, what was measured on what, and what to do next."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.document import replace_file
from app.job_record import JobRecord
from app.machine import memory_available
from app.models.command import command_of, recipe_file
from app.models.job_offers import folder_refusal, less_memory_refusal, standing
from app.models.jobs import ICONS
from app.models.result import TABLE_HEAD, Line, csv_of, headline, outputs, story, table_of, traces
from app.plain import as_tip
from app.views.icon_label import IconLabel
from app.views.jobs import open_output_folder
from app.views.parts import marked
from engine.api.errors import OutputError
from engine.api.jobs import CalibrateResult, EvaluateResult, JobResult, QuantizeRequest, QuantizeResult
from engine.api.wording import for_window

HEADING_ICON = 24
PAGE_WIDTH = 760
ROW_HEIGHT = 28
COLUMN_WIDTH = 150

NOT_MEASURED = (
    "What was lost is not measured. Check “Measure what was lost” when you run: perplexity, KL divergence "
    "and how often both models would say the same then stand here."
)


class ResultPanel(QScrollArea):
    """Shows one job; where it did not end well, why, and what can be done."""

    resume_requested = Signal(object)
    less_memory_requested = Signal(object)
    restart_requested = Signal(object)
    show_log = Signal(object)
    use_requested = Signal(object)
    view_requested = Signal(object)
    """The path of an importance matrix."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.record: JobRecord | None = None
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setAccessibleName("Result")
        self.show_record(None)

    def show_record(self, record: JobRecord | None) -> None:
        """Make the page anew."""
        self.record = record
        self._use: QPushButton | None = None
        self._state = record.state if record else None
        page = QWidget()
        page.setMaximumWidth(PAGE_WIDTH)
        layout = QVBoxLayout(page)
        layout.setContentsMargins(*[4 * theme.SPACE] * 4)
        layout.setSpacing(4 * theme.SPACE)
        if record is None:
            layout.addWidget(_text("Select a finished job to see what came of it."))
        else:
            self._fill(layout, record)
        layout.addStretch()
        self.setWidget(page)

    def follow(self, record: JobRecord) -> None:
        """Make the page anew where it shows this job and the job stands otherwise now."""
        if record is self.record and record.state != self._state:
            self.show_record(record)

    @property
    def matrix(self) -> Path | None:
        """The importance matrix that the job has made."""
        result = self.record.result if self.record and self.record.state == "done" else None
        return Path(result.output) if isinstance(result, CalibrateResult) else None

    def refuse_use(self, reason: str) -> None:
        """Why the matrix cannot be used for the recipe now; empty where it can."""
        if self._use is not None:
            tip = "Weigh errors by it: one step, which undo takes back"
            self._use.setEnabled(not reason)
            self._use.setToolTip(f"{tip}\n{reason}" if reason else tip)

    def _fill(self, layout: QVBoxLayout, record: JobRecord) -> None:
        layout.addLayout(_heading(record))
        layout.addWidget(_text(story(record)))
        for path in outputs(record):
            output = _text(path)
            output.setFont(theme.names_font())
            output.setAccessibleName(f"Output: {path}")
            layout.addWidget(output)
        result = record.result if record.state == "done" else None
        lines = [] if result is None else table_of(result)
        if lines:
            layout.addWidget(_table(lines))
        layout.addLayout(self._buttons(record, result))
        for warning in record.warnings:
            layout.addLayout(_noted("warning", "warning", for_window(warning)))
        if isinstance(result, QuantizeResult | EvaluateResult):
            self._fill_measured(layout, result)
        command = command_of(record)
        if command:
            layout.addWidget(_caption("The command that does this"))
            shown = _text(command)
            shown.setFont(theme.names_font())
            shown.setAccessibleName(f"Command: {command}")
            layout.addWidget(shown)
        needed = recipe_file(record)
        if needed is not None:
            layout.addWidget(_text(f"It reads the recipe from {needed}; Save recipe writes it there."))

    def _fill_measured(self, layout: QVBoxLayout, result: QuantizeResult | EvaluateResult) -> None:
        report = result.report
        if report is None:
            layout.addLayout(_noted("info", "muted", NOT_MEASURED))
            return
        for note in report.notes:
            layout.addLayout(_noted("info", "muted", note))
        layout.addWidget(_caption("Measured on"))
        form = QFormLayout()
        form.setHorizontalSpacing(4 * theme.SPACE)
        form.setVerticalSpacing(theme.SPACE)
        for name, shown, exact in traces(report):
            label, value = _text(name), _text(shown)
            label.setForegroundRole(label.palette().ColorRole.PlaceholderText)
            value.setToolTip(as_tip(exact))
            form.addRow(label, value)
        layout.addLayout(form)

    def _buttons(self, record: JobRecord, result: JobResult | None) -> QHBoxLayout:
        """Only those that can be used: the others would say nothing here."""
        row = QHBoxLayout()
        row.setSpacing(2 * theme.SPACE)
        if record.resumable:
            row.addWidget(_button("Resume", "arrow-clockwise", lambda: self.resume_requested.emit(record)))
        if record.remedy == "less memory" and not less_memory_refusal(record, memory_available()):
            row.addWidget(
                _button("Resume with less memory", "gauge", lambda: self.less_memory_requested.emit(record))
            )
        if record.restartable and not record.resumable:
            row.addWidget(
                _button("Start again", "arrow-counter-clockwise", lambda: self.restart_requested.emit(record))
            )
        matrix = self.matrix
        if matrix is not None:
            self._use = _button("Use for this recipe", "scales", lambda: self.use_requested.emit(matrix))
            row.addWidget(self._use)
            row.addWidget(_button("View", "chart-bar", lambda: self.view_requested.emit(matrix)))
        if not folder_refusal(record):
            row.addWidget(_button("Open folder", "folder-open", partial(open_output_folder, record)))
        if command_of(record):
            row.addWidget(
                _button("Copy command", "terminal", lambda: self._copy("command", command_of(record)))
            )
        if recipe_file(record) is not None:
            row.addWidget(_button("Save recipe", "floppy-disk", partial(self._save_recipe, record)))
        if result is not None and table_of(result):
            row.addWidget(_button("Copy table", "table", lambda: self._copy("table", csv_of(result))))
        if record.trace:
            row.addWidget(
                _button(
                    "Copy report", "copy", partial(self._copy, "report", f"{record.message}\n{record.trace}")
                )
            )
        if record.log:
            row.addWidget(_button("Log", "article", lambda: self.show_log.emit(record)))
        row.addStretch()
        return row

    def _save_recipe(self, record: JobRecord) -> None:
        """For the command; a file that is there and says something else is left alone."""
        path, request = recipe_file(record), record.request
        assert path is not None, "there is no button else"
        assert isinstance(request, QuantizeRequest), "no other has a recipe"
        text = request.recipe.to_json()
        try:
            if not path.exists():
                replace_file(path, text)
            elif not _says(path, text.encode()):
                self.message.emit(f"{path.name} says something else already: move it away first.")
                return
        except OutputError as error:
            self.message.emit(str(error))
        except OSError as error:
            self.message.emit(f"{path}: cannot be read: {error.strerror}.")
        else:
            self.message.emit(f"The recipe is in {path}.")

    def _copy(self, what: str, text: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.message.emit(f"The {what} is copied.")


def _says(path: Path, content: bytes) -> bool:
    """Whether a file, which may be any and of any size, holds just this."""
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def _heading(record: JobRecord) -> QHBoxLayout:
    words = _text(headline(record))
    font = words.font()
    font.setPointSizeF(font.pointSizeF() * 1.4)
    font.setWeight(font.Weight.DemiBold)
    words.setFont(font)
    return marked(IconLabel(*ICONS[record.state], f"State: {standing(record)}", HEADING_ICON), words)


def _table(lines: list[Line]) -> QTableWidget:
    """All of it, without bars to scroll: there are a few lines."""
    table = QTableWidget(len(lines), len(TABLE_HEAD))
    table.setHorizontalHeaderLabels(TABLE_HEAD)
    table.setAccessibleName("Before and after, measured")
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setFrameShape(QFrame.Shape.NoFrame)
    table.setShowGrid(False)
    table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
    table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    table.setStyleSheet("QTableView::item { padding: 0 8px; }")  # as the header has it
    table.setFont(theme.figures_font(table.font()))
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
    header = table.horizontalHeader()
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    header.setDefaultSectionSize(COLUMN_WIDTH)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for row, line in enumerate(lines):
        before, after = line.exact
        tips = ("", "" if before is None else f"{before:,}", f"{after:,}, measured", "")
        for column, text in enumerate((line.name, line.before, line.after, line.change)):
            item = QTableWidgetItem(text)
            item.setToolTip(as_tip(tips[column]))
            side = Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            table.setItem(row, column, item)
    table.setFixedHeight(header.sizeHint().height() + ROW_HEIGHT * len(lines) + 2)
    table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return table


def _noted(icon: str, tint: theme.Tint, text: str) -> QHBoxLayout:
    return marked(IconLabel(icon, tint, "Warning" if icon == "warning" else "Note"), _text(text))


def _caption(text: str) -> QLabel:
    label = _text(text)
    font = label.font()
    font.setWeight(font.Weight.DemiBold)
    label.setFont(font)
    return label


def _text(text: str) -> QLabel:
    label = QLabel(text, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
    label.setAccessibleName(text)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _button(text: str, icon: str, act: Callable[[], None]) -> QPushButton:
    button = QPushButton(theme.icon(icon), text)
    button.setAccessibleName(text)
    button.clicked.connect(lambda: act())
    return button
