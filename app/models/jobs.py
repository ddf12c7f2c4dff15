"""The list of jobs for a table, the newest on top."""

from enum import IntEnum
from pathlib import Path

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app import theme
from app.job_record import ACTIVE, JobRecord
from app.jobs import JobBoard
from app.models.job_offers import standing
from app.plain import as_tip
from engine.api.events import ProgressMade
from engine.api.jobs import (
    ActivationsResult,
    CalibrateResult,
    EvaluateResult,
    JobResult,
    QuantizeRequest,
    QuantizeResult,
)
from engine.api.units import digits, done_of, duration, size

Index = QModelIndex | QPersistentModelIndex


class Column(IntEnum):
    JOB = 0
    STATE = 1
    PROGRESS = 2
    SAVED = 3
    DETAIL = 4
    RATE = 5
    LEFT = 6


HEADERS = ("Job", "State", "Progress", "Saved", "Details", "Rate", "Left")
MOST_SHARE = 0.99
"""Of a job that is not done."""

RIGHT = (Column.RATE, Column.LEFT)

ICONS: dict[str, tuple[str, theme.Tint]] = {
    "waiting": ("clock", "muted"),
    "kept": ("clock", "muted"),
    "starting": ("hourglass", "muted"),
    "running": ("play", "accent"),
    "stopping": ("hourglass", "muted"),
    "removing": ("trash", "muted"),
    "done": ("check-circle", "accent"),
    "failed": ("x-circle", "error"),
    "interrupted": ("pause-circle", "warning"),
    "replaced": ("minus-circle", "muted"),
    "unreadable": ("warning-circle", "error"),
}
"""State -> icon and its color; the state is always named beside it."""

IN_WORDS = {
    "kept": "not begun; Start begins it",
}
"""What is said in place of what is in hand."""

RECORD = Qt.ItemDataRole.UserRole
"""The role under which every cell gives its `JobRecord`."""


def share(record: JobRecord) -> float | None:
    """How much of a job that is not done is finished, all its stages together: below 1; None: not known."""
    saved, request = record.saved, record.request
    measures = isinstance(request, QuantizeRequest) and request.measure is not None
    if record.state in ACTIVE or measures:  # then what is saved is that of one stage
        return record.progress.share if record.progress else None
    return min(saved.done / saved.total, MOST_SHARE) if saved and saved.total else None


def rate(progress: ProgressMade | None) -> str:
    """ "41 MB/s", "3.2 windows/s"; empty where not known."""
    if progress is None or not progress.rate:
        return ""
    if progress.unit == "bytes":
        return f"{size(progress.rate, column=True)}/s"
    return f"{digits(progress.rate)} {progress.unit}/s"


def left(record: JobRecord) -> str:
    """ "0:42 left", of the whole job; empty where not known."""
    progress = record.progress
    if progress is None or progress.eta is None or progress.share is None:
        return ""
    return f"{duration(progress.eta)} left"


def amount(progress: ProgressMade | None) -> str:
    """ "32 MB of 58 MB", "17 of 32 windows"; empty where not known."""
    if progress is None or not progress.total:
        return ""
    return done_of(progress.done, progress.total, progress.unit)


def detail(record: JobRecord) -> str:
    """What is in hand; or what came of it."""
    progress = record.progress
    if record.state in ACTIVE and progress:
        counted = "" if progress.share is not None else amount(progress)  # no bar says it
        return " · ".join(part for part in (progress.stage, progress.item, counted) if part)
    if record.state == "done":
        return outcome(record.result) if record.result else ""
    return IN_WORDS.get(record.state, record.message)


def outcome(result: JobResult) -> str:
    """ "58 MB, 4.83 bits per weight", "perplexity 20.4"."""
    if isinstance(result, EvaluateResult):
        return f"perplexity {result.report.perplexity:.3g}"
    if isinstance(result, ActivationsResult):
        return f"{size(result.bytes)}, {result.layers} layers on {result.ran.tokens:,} tokens"
    if isinstance(result, CalibrateResult):
        return f"{size(result.bytes)}, from {result.tokens:,} tokens"
    return f"{size(result.bytes)}, {result.bpw:.3g} bits per weight"


class JobsModel(QAbstractTableModel):
    """Follows a board; it holds no state of its own but the order."""

    def __init__(self, board: JobBoard, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._board = board
        self._records = list(reversed(board.records))
        self._line: list[JobRecord] = []
        board.added.connect(self._add)
        board.removed.connect(self._remove)
        board.changed.connect(self._change)

    def record(self, row: int) -> JobRecord:
        return self._records[row]

    def row_of(self, record: JobRecord) -> int:
        return self._records.index(record)

    def _add(self, record: JobRecord) -> None:
        row = len(self._records) - self._board.records.index(record)
        self.beginInsertRows(QModelIndex(), row, row)
        self._records.insert(row, record)
        self.endInsertRows()
        self._follow_line()

    def _remove(self, records: list[JobRecord]) -> None:
        """Row by row, many would take long: a view makes room for each."""
        if len(records) > 1:
            self.beginResetModel()
            self._records = list(reversed(self._board.records))
            self._line = self._board.waiting
            self.endResetModel()
            return
        row = self.row_of(records[0])
        self.beginRemoveRows(QModelIndex(), row, row)
        del self._records[row]
        self.endRemoveRows()
        self._follow_line()

    def _change(self, record: JobRecord) -> None:
        row = self.row_of(record)
        self.dataChanged.emit(self.index(row, 0), self.index(row, len(Column) - 1))
        self._follow_line()

    def _follow_line(self) -> None:
        """Who waits may have moved up."""
        line = self._board.waiting
        if line == self._line:
            return
        self._line = line
        if self._records:
            last = len(self._records) - 1
            self.dataChanged.emit(self.index(0, Column.DETAIL), self.index(last, Column.DETAIL))

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._records)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(Column)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        record, column = self._records[index.row()], Column(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(record, column)
            case Qt.ItemDataRole.ToolTipRole:
                return as_tip(self._tip(record, column))
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{HEADERS[column]}: {self._text(record, column) or 'none'}"
            case Qt.ItemDataRole.DecorationRole if column == Column.STATE:
                return theme.icon(*ICONS[record.state])
            case Qt.ItemDataRole.TextAlignmentRole if column in RIGHT:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case _ if role == RECORD:
                return record
            case _:
                return None

    def _text(self, record: JobRecord, column: Column) -> str:
        if column == Column.DETAIL and record in self._line:
            place = self._line.index(record)
            return "next in line" if place == 0 else f"number {place + 1} in line"
        return _text(record, column)

    def _tip(self, record: JobRecord, column: Column) -> str:
        return _tip(record, column, self._text(record, column))

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return HEADERS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if section in RIGHT else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None


def _text(record: JobRecord, column: Column) -> str:
    active = record.state in ACTIVE
    match column:
        case Column.JOB:
            return record.title
        case Column.STATE:
            return standing(record)
        case Column.PROGRESS:
            part = None if record.state == "done" else share(record)
            return "" if part is None else f"{int(100 * part)} %"
        case Column.SAVED:
            return "" if record.saved is None or record.state == "done" else str(record.saved)
        case Column.DETAIL:
            return detail(record)
        case Column.RATE:
            return rate(record.progress) if active else ""
        case Column.LEFT:
            return left(record) if active else ""


def _tip(record: JobRecord, column: Column, text: str) -> str:
    active = record.state in ACTIVE
    match column:
        case Column.JOB:
            return f"{record.title}\n{Path(record.output)}" if record.output else record.title
        case Column.PROGRESS:
            return amount(record.progress) if active else ""
        case Column.SAVED if record.saved:
            return f"{record.saved}: what is safely on disk, whatever happens now"
        case Column.DETAIL if record.state == "done" and isinstance(record.result, QuantizeResult):
            return f"{record.result.bytes:,} bytes"
        case _:
            return text
