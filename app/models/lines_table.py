"""What tables of worst channels have in common: lines that sort, are told in words and taken away as CSV."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app import theme
from app.models.importance import ANSWERED, RIGHT
from app.plain import as_tip, printable
from engine.api.tables import csv_text

Index = QModelIndex | QPersistentModelIndex
Cells = tuple[str | float, ...]
Line = TypeVar("Line")


class LinesTable(QAbstractTableModel, Generic[Line]):
    """Lines in the order in which they are given; sorting reorders them here.

    Subclasses say what the columns are, and what is in them of a line.
    """

    titles: Sequence[str] = ()
    tips: Sequence[str] = ()
    widths: Sequence[int] = ()
    worded: Sequence[int] = ()
    """Columns of words, which stand at the left; figures stand at the right."""

    names: Sequence[int] = ()
    """Columns of tensors' names."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.lines: list[Line] = []
        self._given: list[Line] = []
        self._order: tuple[int, bool] = (-1, False)
        self._names_font = theme.names_font()

    def cells(self, line: Line) -> Cells:
        """Everything with all digits."""
        raise NotImplementedError

    def text(self, line: Line, column: int) -> str:
        """What a column shows."""
        raise NotImplementedError

    def sorted_by(self, line: Line) -> Cells:
        return self.cells(line)

    def show(self, lines: list[Line]) -> None:
        self._given = lines
        self._arrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Column -1: the worst first."""
        self._order = (column, order == Qt.SortOrder.DescendingOrder)
        self._arrange()

    def to_csv(self, lines: Sequence[Line]) -> str:
        """Lines as CSV with their head, all digits."""
        return csv_text([title.lower() for title in self.titles], map(self.cells, lines))

    def _arrange(self) -> None:
        column, falling = self._order
        self.beginResetModel()
        self.lines = list(self._given)
        if column >= 0:
            self.lines.sort(key=lambda line: self.sorted_by(line)[column], reverse=falling)
        self.endResetModel()

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.lines)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.titles)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if role not in ANSWERED:  # most of what a view asks for every cell that it draws
            return None
        line, column = self.lines[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.text(line, column)
            case Qt.ItemDataRole.ToolTipRole:
                return as_tip(printable(str(self.cells(line)[column])))
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{self.titles[column]}: {self.text(line, column) or 'none'}"
            case Qt.ItemDataRole.FontRole if column in self.names:
                return self._names_font
            case Qt.ItemDataRole.TextAlignmentRole if column not in self.worded:
                return RIGHT
            case _:
                return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if orientation != Qt.Orientation.Horizontal:
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.titles[section]
            case Qt.ItemDataRole.ToolTipRole:
                return self.tips[section]
            case Qt.ItemDataRole.TextAlignmentRole:
                left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
                return left if section in self.worded else RIGHT
            case _:
                return None
