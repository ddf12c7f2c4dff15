"""The table of the worst channels: chosen, sorted, copied."""

from PySide6.QtCore import QItemSelectionModel, Qt, Signal
from PySide6.QtGui import QAction, QGuiApplication, QKeySequence
from PySide6.QtWidgets import QAbstractItemView, QFrame, QHeaderView, QTableView

from app import theme
from app.models.outliers import WIDTHS, Channel, WorstChannels

ROW_HEIGHT = 24


class OutlierLines(QTableView):
    """Says which channel the user has chosen."""

    chosen = Signal(object)
    """A `Channel`."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, lines: WorstChannels) -> None:
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
        for column, width in enumerate(WIDTHS):
            header.resizeSection(column, width)
        self.selectionModel().selectionChanged.connect(self._tell)
        copy = QAction("Copy lines", self)
        copy.setShortcut(QKeySequence.StandardKey.Copy)
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        copy.triggered.connect(self.copy)
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def selected(self) -> list[Channel]:
        """In the order of the table."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        return [self._model.lines[row] for row in rows]

    def choose(self, key: str, channel: int) -> None:
        """Select this one without a word, if it is here."""
        row = self._model.row_of(key, channel)
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
