"""The table of the worst channels: chosen, sorted, copied, saved."""

from pathlib import Path
from typing import Any

from PySide6.QtCore import QItemSelectionModel, Qt, Signal
from PySide6.QtGui import QAction, QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import ask_new_file, save_text
from app.models.lines_table import LinesTable
from app.views.parts import button, named

ROW_HEIGHT = 24
LEAST_WIDTH = 110


class OutlierLines(QTableView):
    """Says which line the user has chosen."""

    chosen = Signal(object)
    """A line of the model."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, lines: LinesTable[Any]) -> None:
        super().__init__()
        self._model = lines
        self._choosing = False
        self.setModel(lines)
        self.setAccessibleName("Worst channels")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSortingEnabled(True)
        self.setTabKeyNavigation(False)
        self.setFont(theme.figures_font(self.font()))
        self.setWordWrap(False)
        self.setStyleSheet("QTableView::item { padding: 0 8px; }")  # as the header has it
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setAccessibleName("Columns of the table of channels")
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setHighlightSections(False)
        header.setStretchLastSection(True)
        # Of the table's own it would ask, cell by cell, whether a whole column is selected.
        header.setSelectionModel(QItemSelectionModel(lines, self))
        for column, width in enumerate(lines.widths):
            header.resizeSection(column, width)
        self.selectionModel().selectionChanged.connect(self._tell)
        copy = QAction("Copy lines", self)
        copy.setShortcut(QKeySequence.StandardKey.Copy)
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        copy.triggered.connect(self.copy)
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def fit_columns(self) -> None:
        """As wide as their titles, none stretched: for lines whose columns are not the same ones always."""
        header = self.horizontalHeader()
        header.setStretchLastSection(False)
        for column in range(header.count()):
            header.resizeSection(column, max(LEAST_WIDTH, header.sectionSizeHint(column)))

    def selected(self) -> list[Any]:
        """In the order of the table."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        return [self._model.lines[row] for row in rows]

    def choose(self, row: int | None) -> None:
        """Select this line without a word, or none."""
        self._choosing = True
        if row is None:
            self.clearSelection()
        else:
            self.selectRow(row)
        self._choosing = False

    def copy(self) -> None:
        """The selected lines, or all, as CSV."""
        lines = self.selected() or self._model.lines
        if lines:
            QGuiApplication.clipboard().setText(self._model.to_csv(lines))
            self.message.emit(f"Copied {len(lines):,} line{'s' * (len(lines) > 1)} as CSV.")

    def _tell(self) -> None:
        row = self.currentIndex().row()
        if not self._choosing and self.selectionModel().hasSelection() and 0 <= row < len(self._model.lines):
            self.chosen.emit(self._model.lines[row])


class WorstLines(QWidget):
    """The table under a picture: its caption, and ways to take it away. `file_name` proposes one for it."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, lines: LinesTable[Any], caption: str) -> None:
        super().__init__()
        self._model = lines
        self.file_name = "worst"
        self.table = OutlierLines(lines)
        self.table.message.connect(self.message)
        save = QAction("Save CSV…", self)
        save.triggered.connect(self._ask_csv)
        self.table.addAction(save)
        self.csv = QPushButton(theme.icon("table"), "Save CSV…")
        self.csv.setToolTip("Save the table with all digits")
        self.csv.setAccessibleName("Save the table of channels as CSV")
        self.csv.clicked.connect(self._ask_csv)
        self.copy = button("Copy", "Copy the selected lines, or all, as CSV")
        self.copy.setAccessibleName("Copy the table of channels")
        self.copy.clicked.connect(self.table.copy)
        self.caption = named(QLabel(caption), caption)
        row = QHBoxLayout()
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(self.caption, 1)
        row.addWidget(self.copy)
        row.addWidget(self.csv)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, theme.SPACE, 0, 0)
        column.setSpacing(theme.SPACE)
        column.addLayout(row)
        column.addWidget(self.table, 1)

    def _ask_csv(self) -> None:
        proposed = Path.home() / f"{self.file_name}.csv"
        ask_new_file(self, "Save the table", proposed, ["Tables (*.csv)"], self.save_csv)

    def save_csv(self, path: Path) -> None:
        self.message.emit(save_text(path, self._model.to_csv(self._model.lines)))
