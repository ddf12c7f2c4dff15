"""The table of an importance matrix: one line a tensor, selected, sorted, copied."""

from collections.abc import Sequence

from PySide6.QtCore import QItemSelection, QItemSelectionModel, Qt, Signal
from PySide6.QtGui import QAction, QGuiApplication, QKeySequence
from PySide6.QtWidgets import QAbstractItemView, QFrame, QHeaderView, QTableView, QWidget

from app import theme
from app.models.importance import EXPERTS, FIELDS, UNSEEN, ImportanceTable
from engine.api.importance import ImportanceSummary, TensorStatistics

ROW_HEIGHT = 24


class ImportanceLines(QTableView):
    """`lines` are shown in the order of its model, which filters and sorts."""

    chosen = Signal()
    """The user has selected other lines."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, lines: ImportanceTable, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = lines
        self._choosing = False
        self.setModel(lines)
        self.setAccessibleName("Importance by tensor")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSortingEnabled(True)
        self.setTabKeyNavigation(False)
        self.setFont(theme.figures_font(self.font()))
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self._make_header()
        self.selectionModel().selectionChanged.connect(self._tell)
        copy = QAction("Copy lines", self)
        copy.setShortcut(QKeySequence.StandardKey.Copy)
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        copy.triggered.connect(self.copy)
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def _make_header(self) -> None:
        header = self.horizontalHeader()
        header.setAccessibleName("Columns of the table of importance")
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setHighlightSections(False)
        # Of the table's own it would ask, cell by cell, whether a whole column is selected.
        header.setSelectionModel(QItemSelectionModel(self._model, self))
        for column, field in enumerate(FIELDS):
            header.resizeSection(column, field.width)

    def show_summary(self, summary: ImportanceSummary | None) -> None:
        self._model.set_summary(summary)
        for column in (EXPERTS, UNSEEN):
            self.setColumnHidden(column, not self._model.mixture)

    def selected(self) -> list[TensorStatistics]:
        """The selected lines; the current one is the last."""
        current = self.currentIndex().row()
        ranges = self.selectionModel().selection()  # `selectedRows` asks every cell
        rows = [row for one in ranges.toList() for row in range(one.top(), one.bottom() + 1)]
        if current in rows:
            rows.remove(current)
            rows.append(current)
        return [self._model.tensor(row) for row in rows]

    def choose(self, tensors: Sequence[str]) -> None:
        """Select these, as far as they are shown, without a word; the last is the current one."""
        rows = [row for row in map(self._model.row_of, tensors) if row is not None]
        self._choosing = True
        selection = QItemSelection()
        for first, last in _runs(sorted(rows)):
            selection.select(self._model.index(first, 0), self._model.index(last, len(FIELDS) - 1))
        model = self.selectionModel()
        model.select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if rows:
            current = self._model.index(rows[-1], 0)
            model.setCurrentIndex(current, QItemSelectionModel.SelectionFlag.NoUpdate)
            self.scrollTo(current)
        self._choosing = False

    def _tell(self) -> None:
        if not self._choosing:
            self.chosen.emit()

    def copy(self) -> None:
        """The selected lines, or all that are shown, as CSV."""
        tensors = self.selected() or self._model.shown
        if tensors:
            QGuiApplication.clipboard().setText(self._model.csv_of(tensors))
            lines = "1 line" if len(tensors) == 1 else f"{len(tensors):,} lines"
            self.message.emit(f"Copied {lines} as CSV.")


def _runs(rows: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of rows side by side: a view asks every range for every line."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and row == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], row)
        else:
            runs.append((row, row))
    return runs
