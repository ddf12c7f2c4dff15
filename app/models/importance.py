"""The table of an importance matrix: a line a tensor, filtered and sorted here, on plain lists.

A QSortFilterProxyModel would call Python for every comparison.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app import theme
from app.models.layer_order import PatternError, search
from app.plain import as_tip, printable
from engine.api.figures import Axis, Figure, Series
from engine.api.importance import ImportanceColumns, ImportanceSummary, TensorStatistics, numbers
from engine.api.units import digits

Index = QModelIndex | QPersistentModelIndex
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
MINUS = "−"


@dataclass(frozen=True)
class Line:
    """A tensor, and which of its experts saw no token."""

    tensor: TensorStatistics
    unseen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Field:
    """A column: `value` sorts and is told to the last digit, `text` is shown."""

    title: str
    tip: str
    width: int
    value: Callable[[Line], str | float | None]
    text: Callable[[Line], str]


def _of_tensor(title: str, tip: str, name: str, width: int, show: Callable[[float], str]) -> Field:
    """A statistic of the tensor by its attribute's `name`; empty where it is None."""

    def value(line: Line) -> float | None:
        found: float | None = getattr(line.tensor, name)
        return found

    def text(line: Line) -> str:
        found = value(line)
        return "" if found is None else show(found)

    return Field(title, tip, width, value, text)


def _figure(title: str, tip: str, name: str, width: int = 76) -> Field:
    return _of_tensor(title, tip, name, width, short)


def _count(title: str, tip: str, name: str, width: int = 76) -> Field:
    return _of_tensor(title, tip, name, width, lambda count: f"{count:,}")


def _share(title: str, tip: str, name: str, width: int = 76) -> Field:
    return _of_tensor(title, tip, name, width, lambda share: digits(100 * share))


def short(value: float) -> str:
    """Three significant digits: "0.0125", "0.700", "19,800", "1.20e+07"."""
    magnitude = abs(value)
    if 1e3 <= magnitude < 1e6:
        text = f"{float(f'{value:.3g}'):,.0f}"
    else:
        text = digits(value) if value == 0 or 1e-4 <= magnitude < 1e3 else f"{value:.2e}"
    return text.replace("-", MINUS)


def _unseen(line: Line) -> str:
    if line.unseen and line.tensor.matrices == 1:
        return "only zeros"
    return f"{len(line.unseen)} of {line.tensor.matrices}" if line.unseen else ""


FIELDS = (
    Field(
        "Tensor", "Its name in a GGUF file", 210, lambda line: line.tensor.tensor, lambda line: named(line)
    ),
    _count("Experts", "Matrices of a stack; 1 for a plain matrix", "matrices", 64),
    Field(
        "Not seen",
        "Experts that no token reached, and experts and matrices whose inputs were all zero",
        72,
        lambda line: len(line.unseen),
        lambda line: _unseen(line),
    ),
    _count("Tokens", "Summed over all matrices", "tokens"),
    _figure("Sum", "Sum of the columns' mean squares", "sum", 66),
    _figure("Min", "Least mean square of a column", "minimum"),
    _figure("Max", "Greatest mean square of a column", "maximum", 60),
    _figure("Mean", "Mean of the columns' mean squares", "mean", 60),
    _figure("σ", "Their standard deviation", "deviation", 60),
    _share("Active (%)", "Share of columns with a mean square above 0.00001", "active"),
    _count("Columns", "How many the figures are taken over", "columns", 70),
    _figure("Entropy (bit)", "Of the columns' shares of the sum", "entropy", 96),
    _share("Entropy (% of max)", "Of the most that so many columns can have", "entropy_share", 128),
    _share("z > 1 (%)", "Share of columns more than one deviation above the mean", "z_density", 72),
    _figure("Cosine", "Similarity to the same tensor in the block before", "cosine", 64),
)
NAME, EXPERTS, UNSEEN = 0, 1, 2


def named(line: Line) -> str:
    return printable(line.tensor.tensor.removesuffix(".weight"))


ANSWERED = {
    Qt.ItemDataRole.DisplayRole,
    Qt.ItemDataRole.ToolTipRole,
    Qt.ItemDataRole.AccessibleTextRole,
    Qt.ItemDataRole.FontRole,
    Qt.ItemDataRole.DecorationRole,
    Qt.ItemDataRole.TextAlignmentRole,
}


class ImportanceTable(QAbstractTableModel):
    """Sorting and filtering reset it."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.summary: ImportanceSummary | None = None
        self.mixture = False
        """Whether there are experts."""
        self._lines: list[Line] = []
        self._sorted: list[Line] = []
        self._shown: list[Line] = []
        self._places: dict[str, int] = {}
        self._pattern = ""
        self._column: int | None = None
        self._falling = False
        self._names_font = theme.names_font()

    @property
    def total(self) -> int:
        return len(self._lines)

    @property
    def shown(self) -> list[TensorStatistics]:
        """In the order of the table."""
        return [line.tensor for line in self._shown]

    def set_summary(self, summary: ImportanceSummary | None) -> None:
        unseen = {stack.tensor: tuple(stack.experts) for stack in summary.unseen} if summary else {}
        self.summary = summary
        self._lines = (
            [Line(tensor, unseen.get(tensor.tensor, ())) for tensor in summary.tensors] if summary else []
        )
        self.mixture = any(line.tensor.matrices > 1 or line.unseen for line in self._lines)
        self._sort()

    def set_filter(self, pattern: str) -> str:
        """Show tensors in whose names `pattern` is found; why it cannot be searched, or ""."""
        before, self._pattern = self._pattern, pattern
        try:
            self._rearrange()
        except PatternError as error:
            self._pattern = before
            return str(error)
        return ""

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Column -1 is the order of the model."""
        self._column = column if column >= 0 else None
        self._falling = order == Qt.SortOrder.DescendingOrder
        self._sort()

    def tensor(self, row: int) -> TensorStatistics:
        return self._shown[row].tensor

    def row_of(self, tensor: str) -> int | None:
        """Where a tensor stands, None where the filter hides it."""
        return self._places.get(tensor)

    def csv_of(self, tensors: Sequence[TensorStatistics]) -> str:
        """Lines of the table as CSV with their head, as `bitwright imatrix` writes them."""
        assert self.summary is not None, "there are lines"
        return self.summary.model_copy(update={"tensors": list(tensors)}).to_csv()

    def _sort(self) -> None:
        self._sorted = self._lines
        if self._column is not None:
            value = FIELDS[self._column].value
            values = [(value(line), line) for line in self._lines]
            known = [pair for pair in values if pair[0] is not None]
            known.sort(key=itemgetter(0), reverse=self._falling)
            rest = [line for found, line in values if found is None]  # at the end, rising or falling
            self._sorted = [*(line for _, line in known), *rest]
        self._rearrange()

    def _rearrange(self) -> None:
        shown = self._sorted
        if self._pattern:
            found = search(self._pattern, [(line.tensor.tensor,) for line in shown])
            shown = [line for line, there in zip(shown, found, strict=True) if there]
        self.beginResetModel()
        self._shown = shown
        self._places = {line.tensor.tensor: row for row, line in enumerate(shown)}
        self.endResetModel()

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(FIELDS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if role not in ANSWERED:  # most of what a view asks for every cell that it draws
            return None
        line, field = self._shown[index.row()], FIELDS[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return field.text(line)
            case Qt.ItemDataRole.ToolTipRole:
                return as_tip(_tip(line, index.column()))
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{field.title}: {field.text(line) or 'none'}"
            case Qt.ItemDataRole.FontRole if index.column() == NAME:
                return self._names_font
            case Qt.ItemDataRole.DecorationRole if index.column() == UNSEEN and line.unseen:
                return theme.icon("warning", "warning")
            case Qt.ItemDataRole.TextAlignmentRole if index.column() != NAME:
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
                return FIELDS[section].title
            case Qt.ItemDataRole.ToolTipRole:
                return FIELDS[section].tip
            case Qt.ItemDataRole.TextAlignmentRole:
                return (
                    RIGHT if section != NAME else Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
                )
            case _:
                return None


def _tip(line: Line, column: int) -> str:
    if column == UNSEEN:
        if not line.unseen:
            return ""
        found = f"No token, or nothing but zeros, reached the experts {numbers(list(line.unseen), most=200)}"
        if line.tensor.matrices == 1:
            found = "Nothing but zeros reached this matrix"
        return f"{found}: quantized without importance"
    value = FIELDS[column].value(line)
    return "" if value is None else str(value)


@dataclass(frozen=True)
class ByBlock:
    """A plot of one figure of a kind of tensor over the blocks; `name` is that of the figure's attribute.

    Shares are drawn in %, as the table has them.
    """

    title: str
    name: str
    unit: str = ""


COLUMNS = "Columns, the largest first"
BY_BLOCK = (
    ByBlock("Sum by block", "sum"),
    ByBlock("Mean by block", "mean"),
    ByBlock("Maximum by block", "maximum"),
    ByBlock("σ by block", "deviation"),
    ByBlock("Active share by block", "active", "%"),
    ByBlock("Entropy by block", "entropy", "bit"),
    ByBlock("z > 1 by block", "z_density", "%"),
    ByBlock("Cosine by block", "cosine"),
)


def kind_of(tensor: TensorStatistics) -> str:
    """ "ffn_down" of blk.3.ffn_down.weight: what it has in common with those of other blocks."""
    name = tensor.tensor.removesuffix(".weight")
    return name if tensor.block is None else name.removeprefix(f"blk.{tensor.block}.")


def block_figure(summary: ImportanceSummary, chosen: TensorStatistics, plot: ByBlock) -> Figure | None:
    """One figure of all tensors of the chosen one's kind, block by block; None where it lies in none."""
    if chosen.block is None:
        return None
    kind = kind_of(chosen)
    named = [tensor for tensor in summary.tensors if tensor.block is not None and kind in tensor.tensor]
    alike = [tensor for tensor in named if kind_of(tensor) == kind]
    points = {tensor.block: getattr(tensor, plot.name) for tensor in alike if tensor.block is not None}
    blocks = [block for block in sorted(points) if points[block] is not None]
    scale = 100 if plot.unit == "%" else 1
    series = [Series(name=kind, x=blocks, y=[scale * points[block] for block in blocks], width=1.0)]
    name = plot.title.removesuffix(" by block").lower()
    title = f"{plot.title}, {kind}"
    return Figure(
        title=title, x=Axis(name="block", counts=True), y=Axis(name=name, unit=plot.unit), series=series
    )


def columns_figure(read: ImportanceColumns) -> Figure:
    """The mean squares of a tensor's columns, the largest first."""
    places = [1.0 + place * read.width for place in range(len(read.values))]
    axis = Axis(name="column by rank", counts=True)
    y = Axis(name="mean square" if read.width == 1 else f"greatest mean square of {read.width} columns")
    series = Series(name=read.tensor, x=places, y=read.values, width=float(read.width))
    return Figure(title=f"Columns of {read.tensor}", x=axis, y=y, series=[series])
