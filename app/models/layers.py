"""The table of layers as a Qt model: block → tensor, sorted and filtered here, on plain lists.

A QSortFilterProxyModel would call Python for every comparison; two thousand rows sorted by `list.sort` take a
few milliseconds. Sorting and filtering reset the model, an edit only says which lines changed.

The tree's structure is that of a QStandardItemModel with items for the groups alone: views ask for parents
hundreds of times for each line they paint (once for every selected range), and that must not call Python.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import QItemSelection, QModelIndex, QObject, QPersistentModelIndex, Qt, QThreadPool
from PySide6.QtGui import QFont, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication

from app import theme
from app.models.layer_lines import (
    CHOSEN,
    DESCRIBING,
    FIGURES,
    MIXED,
    NOTHING,
    PLANNED,
    TIPS,
    TITLES,
    Column,
    Entry,
    Line,
    Unit,
    Waiting,
    differ,
    group_line,
    tensor_line,
    unit_for,
)
from app.models.layer_order import Group, Order, PatternError, grouped, load_search
from app.plain import as_tip
from app.state import Row, State
from engine.api.model import Role

Index = QModelIndex | QPersistentModelIndex
ItemRole = Qt.ItemDataRole

LINE_ROLE = ItemRole.UserRole
"""The `Line` of an index, for delegates."""

NO_FLAGS = Qt.ItemFlag.NoItemFlags
SELECTABLE = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
EDITABLE = SELECTABLE | Qt.ItemFlag.ItemIsEditable  # made once: flags are asked for with every cell
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter

NOWHERE = QModelIndex()
"""The parent of groups."""

MANY = 8
"""Groups; when a plan changes more of them, all of them are said to have changed."""


class LayersModel(QStandardItemModel):
    """See the module. Rows of the top are the groups in `_visible`, below them what each shows."""

    def __init__(self, state: State, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._entries: list[Entry] = []
        self._groups: list[Group] = []
        self._visible: list[Group] = []
        self._roles: dict[Role, int] = {}
        self._found_places: dict[str, tuple[int, int]] | None = None
        self._lines: dict[tuple[int, int | None], Line] = {}
        self._waited = Waiting("", "")
        self._unit = Unit("MB", 10**6)
        self._order = Order()
        self._names_font = theme.names_font()
        self._figures_font = theme.figures_font(QApplication.font())
        self._group_font = QFont(QApplication.font())
        self._group_font.setWeight(QFont.Weight.DemiBold)
        state.model_changed.connect(self._take_model)
        state.plan_changed.connect(self._take_plan)
        self._take_model()

    # ------------------------------------------------------------------------- what others ask

    @property
    def shown(self) -> int:
        """How many tensors pass the filter."""
        return sum(len(group.shown) for group in self._visible)

    @property
    def total(self) -> int:
        return len(self._entries)

    @property
    def filtered(self) -> bool:
        return self._order.filters

    @property
    def roles(self) -> dict[Role, int]:
        """The roles of this model and how many tensors have each, in the order of the table."""
        return self._roles

    def rows_in(self, selection: QItemSelection) -> list[Row]:
        """The tensors of a selection, each once, in the table's order; a group stands for all it shows."""
        found: dict[int, None] = {}
        for place in range(selection.size()):
            span = selection.at(place)
            parent, top, bottom = span.parent(), span.top(), span.bottom()
            if parent.isValid():
                found |= dict.fromkeys(self._visible[parent.row()].shown[top : bottom + 1])
            else:
                for group in self._visible[top : bottom + 1]:
                    found |= dict.fromkeys(group.shown)
        return [self._entries[row].row for row in found]

    def rows_at(self, index: Index) -> list[Row]:
        """The tensor of an index, or those of a group."""
        if not index.isValid():
            return []
        parent = index.parent()
        if parent.isValid():
            return [self._entries[self._visible[parent.row()].shown[index.row()]].row]
        return [self._entries[row].row for row in self._visible[index.row()].shown]

    def row_at(self, index: Index) -> Row | None:
        """The tensor of an index; None for a group."""
        return self.rows_at(index)[0] if index.isValid() and index.parent().isValid() else None

    def index_of(self, key: str, column: int = Column.NAME) -> QModelIndex:
        """The index of the tensor with this `Row.key`; invalid where the filter hides it."""
        place = self._places.get(key)
        if place is None:
            return QModelIndex()
        return self.index(place[1], column, self.index(place[0], 0))

    def selection_of(self, keys: Iterable[str]) -> QItemSelection:
        """The lines of these tensors, neighbors in one range."""
        selection, keys = QItemSelection(), tuple(keys)
        if not keys:
            return selection
        there = self._places
        places = sorted(there[key] for key in keys if key in there)
        first = 0
        for end in range(1, len(places) + 1):
            group, row = places[end - 1]
            if end == len(places) or places[end] != (group, row + 1):
                parent = self.index(group, 0)
                last = self.index(row, len(Column) - 1, parent)
                selection.select(self.index(places[first][1], 0, parent), last)
                first = end
        return selection

    def keys_shown(self) -> list[str]:
        return [self._entries[row].row.key for group in self._visible for row in group.shown]

    @property
    def labels(self) -> list[str]:
        """The names of all groups of the open model; their numbers are their places here."""
        return [group.label for group in self._groups]

    def first_open(self, few: int) -> list[int]:
        """The numbers of the groups to open at first: all of a small model, else those outside of blocks."""
        outside = [group.number for group in self._groups if self._entries[group.rows[0]].row.block is None]
        return list(range(len(self._groups))) if self.total <= few else outside

    def group_number(self, index: Index) -> int:
        """What names the group of an index for as long as the model is open."""
        parent = index.parent()
        return self._visible[(parent if parent.isValid() else index).row()].number

    def group_indices(self) -> list[tuple[int, QModelIndex]]:
        """(number, index) of the groups that are shown."""
        return [(group.number, self.index(row, 0)) for row, group in enumerate(self._visible)]

    # --------------------------------------------------------------------- filter and sorting

    def set_filter(self, pattern: str, roles: frozenset[Role]) -> str:
        """Show tensors whose names `pattern` is found in, of these roles (none: all).

        The answer is why `pattern` cannot filter, or "". Then the last one that could stays.
        """
        order, reason = self._order, ""
        before = (order.pattern, order.roles)
        if pattern != order.pattern:
            try:
                order.look_for(pattern, self._state.rows)
            except PatternError as error:
                reason = str(error)
        order.roles = roles
        if (order.pattern, roles) != before:
            self._rearrange()
        return reason

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort groups and the tensors in each; column -1 is the order of the file."""
        wanted = Column(column) if column >= 0 else None
        falling = order == Qt.SortOrder.DescendingOrder
        if (wanted, falling) != (self._order.column, self._order.falling):
            self._order.column, self._order.falling = wanted, falling
            self._rearrange()

    def _rearrange(self) -> None:
        self.beginResetModel()
        self._arrange()
        self.endResetModel()

    def _arrange(self) -> None:
        self._visible = self._order.arrange(self._groups, self._entries)
        self._found_places = None
        self.blockSignals(True)  # all of this is one reset
        self.setRowCount(0)
        self.setColumnCount(len(Column))
        items = [QStandardItem(len(group.shown), len(Column)) for group in self._visible]
        self.invisibleRootItem().appendRows(items)
        self.blockSignals(False)
        self._lines.clear()

    @property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Where each shown tensor stands, by key: place of its group, place in it. Made when asked for."""
        if self._found_places is None:
            self._found_places = {
                self._entries[row].row.key: (position, place)
                for position, group in enumerate(self._visible)
                for place, row in enumerate(group.shown)
            }
        return self._found_places

    # --------------------------------------------------------------------- what the state says

    def _take_model(self) -> None:
        self.beginResetModel()
        rows = self._state.rows
        if rows:
            QThreadPool.globalInstance().start(load_search)
        self._unit = unit_for(rows)
        self._waited = self._waiting()
        self._entries = self._planned_entries()
        self._roles = dict(Counter(row.role for row in rows))
        self._groups = grouped(rows)
        try:
            self._order.look_for(self._order.pattern, rows)
        except PatternError:  # too slow for these names
            self._order.look_for("", rows)
        self._arrange()
        self.endResetModel()
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(Column) - 1)

    def _take_plan(self) -> None:
        """Say which lines changed: one range in each group that has any, and one of groups.

        Where it is many groups, that of groups alone: a view paints itself anew for any range, and each takes
        it time to find. The texts of all lines are made anew then.
        """
        if len(self._entries) != len(self._state.rows):
            return  # the model is another one already, and will say so
        before, self._entries = self._entries, self._planned_entries()
        waited, self._waited = self._waited, self._waiting()
        every = waited != self._waited  # lines without a plan say what is waited for
        touched: list[tuple[int, list[int]]] = []
        for place, group in enumerate(self._visible):
            rows = group.shown
            lines = [n for n, row in enumerate(rows) if every or differ(before[row], self._entries[row])]
            if lines:
                touched.append((place, lines))
            if len(touched) > MANY:
                self._lines.clear()
                self._say_changed(0, len(self._visible) - 1)
                return
        for place, lines in touched:
            for line in (None, *lines):
                self._lines.pop((self._visible[place].number, line), None)
            self._say_changed(lines[0], lines[-1], self.index(place, 0))
        if touched:
            self._say_changed(touched[0][0], touched[-1][0])

    def _say_changed(self, first: int, last: int, parent: Index = NOWHERE) -> None:
        """The planned columns of these lines are others now."""
        self.dataChanged.emit(
            self.index(first, Column.METHOD, parent), self.index(last, Column.AFTER, parent)
        )

    def _planned_entries(self) -> list[Entry]:
        rows, outlook = self._state.rows, self._state.outlook
        if outlook is None:
            return list(map(Entry, rows))
        planned = map(Entry, rows, outlook.plan.tensors, outlook.pinned, outlook.changed)
        return [*planned, *map(Entry, rows[len(outlook.pinned) :])]  # what is not written stands behind

    def _waiting(self) -> Waiting:
        if self._state.phase == "inspect only":
            return Waiting(NOTHING, self._state.refusal)
        if self._state.plan is None:
            return Waiting("…", "What the file will hold is being worked out")
        return Waiting("", "")

    # ----------------------------------------------------------------------- what Qt asks

    def flags(self, index: Index) -> Qt.ItemFlag:
        if index.column() in CHOSEN:
            line = self.line_at(index)
            if line.bits is not None and not line.quiet:
                return EDITABLE
        return SELECTABLE if index.isValid() else NO_FLAGS

    def data(self, index: Index, role: int = ItemRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        column = index.column()
        if role == ItemRole.DisplayRole:
            return self.line_at(index).texts[column]
        if role == ItemRole.TextAlignmentRole:
            return RIGHT if column in FIGURES else None
        if role == ItemRole.FontRole:
            return self.font(column, index.parent().isValid())
        if role == ItemRole.ForegroundRole:
            quiet = self.is_quiet(self.line_at(index), column, index.parent().isValid())
            return theme.colors().muted if quiet else None
        if role == LINE_ROLE:
            return self.line_at(index)
        if role == ItemRole.ToolTipRole:
            return as_tip(self.line_at(index).tips[column]) or None
        if role == ItemRole.AccessibleTextRole:
            return self._spoken(index, column)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = ItemRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(Column):
            return None
        if role == ItemRole.DisplayRole:
            title = TITLES[section]
            if section in (Column.NOW, Column.AFTER):
                title += f" ({self._unit.name})"
            if section == self._order.column:
                title += " ↓" if self._order.falling else " ↑"
            return title
        if role == ItemRole.ToolTipRole:
            return TIPS[section]
        if role == ItemRole.TextAlignmentRole:
            return RIGHT if section in FIGURES else Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def font(self, column: int, inside: bool) -> QFont | None:
        """The font of a column for tensors, `inside` a group, or for groups; None: the view's."""
        if column == Column.NAME:
            return self._names_font if inside else self._group_font
        return self._figures_font if column in FIGURES else None

    def is_quiet(self, line: Line, column: int, inside: bool) -> bool:
        """Whether there is nothing to choose, or the text only describes."""
        if column in DESCRIBING or (column == Column.SHAPE and not inside):
            return True
        waits = column in PLANNED and line.bits is None
        return waits or line.quiet or line.texts[column] == MIXED

    def _spoken(self, index: Index, column: int) -> str:
        """For a screen reader: full names, and in words what is drawn."""
        line = self.line_at(index)
        if column == Column.NAME:
            return line.name
        marks = [", pinned"] * line.pinned + [", changed"] * line.changed if column == Column.FORMAT else []
        return f"{TITLES[column]}: {line.texts[column]}{''.join(marks)}"

    # ------------------------------------------------------------------------------- lines

    def line_at(self, index: Index) -> Line:
        parent = index.parent()
        if parent.isValid():
            return self._line(self._visible[parent.row()], index.row())
        return self._line(self._visible[index.row()], None)

    def _line(self, group: Group, place: int | None) -> Line:
        """The line of a group (None), or of its tensor at `place`."""
        key = (group.number, place)
        line = self._lines.get(key)
        if line is None:
            waiting = self._waiting()
            if place is None:
                line = group_line(group.label, group.entries(self._entries), self._unit, waiting)
            else:
                line = tensor_line(self._entries[group.shown[place]], self._unit, waiting)
            self._lines[key] = line
        return line
