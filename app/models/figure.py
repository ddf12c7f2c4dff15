"""The table of a figure, made row by row when a row is looked at: a heat map has a million of them."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.plain import as_tip

Cell = str | float
Index = QModelIndex | QPersistentModelIndex


class FigureTable(QAbstractTableModel):
    """Numbers to the right, five digits of them; the tool tip has all."""

    def __init__(
        self, columns: list[str], count: int, row: Callable[[int], Sequence[Cell]], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._columns, self._count, self._row = columns, count, row

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else self._count

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if role == Qt.ItemDataRole.DisplayRole:
            value = self._value(index)
            return value if isinstance(value, str) else _short(value)
        if role == Qt.ItemDataRole.ToolTipRole:
            return as_tip(str(self._value(index)))
        if role == Qt.ItemDataRole.TextAlignmentRole and not isinstance(self._value(index), str):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def _value(self, index: Index) -> Cell:
        return self._row(index.row())[index.column()]

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._columns[section]
        return None


def _short(value: float) -> str:
    """Five digits; all of a whole number, such as that of a channel."""
    return (f"{value}" if isinstance(value, int) else f"{value:,.5g}").replace("-", "−")
