"""The table of layers as a Qt model: block → tensor, sorted and filtered here, on plain lists.

A QSortFilterProxyModel would call Python for every comparison; two thousand rows sorted by `list.sort` take a
few milliseconds. Sorting and filtering reset the model, an edit only says which lines changed.

The tree's structure is that of a QStandardItemModel with items for the groups alone: views ask for parents
hundreds of times for each cell they paint (once for every selected range), and that must not call Python.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import QItemSelection, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication

from app import theme
from app.models.layer_lines import (
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
    group_line,
    tensor_line,
    unit_for,
)
from app.models.layer_order import Group, Order, PatternError, grouped
from app.plain import as_tip
from app.state import Row, State
from engine.api.editing import is_pinned, outcome, outcomes
from engine.api.model import Role
from engine.api.plan import Planner
from engine.api.presets import PRESETS
from engine.api.recipe import Recipe

Index = QModelIndex | QPersistentModelIndex
ItemRole = Qt.ItemDataRole

LINE_ROLE = ItemRole.UserRole
"""The `Line` of an index, for delegates."""

SELECTABLE = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
EDITABLE = SELECTABLE | Qt.ItemFlag.ItemIsEditable  # made once: flags are asked for with every cell
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


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
        self._base: tuple[Planner, Recipe, list[tuple[str, str]]] | None = None
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
        places = sorted(self._places[key] for key in keys if key in self._places)
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
        """Say which lines changed: one range in each group that has any, and one of groups."""
        if len(self._entries) != len(self._state.rows):
            return  # the model is another one already, and will say so
        before, self._entries = self._entries, self._planned_entries()
        waited, self._waited = self._waited, self._waiting()
        every = waited != self._waited  # lines without a plan say what is waited for
        changed = [every or _differ(old, new) for old, new in zip(before, self._entries, strict=True)]
        touched = []
        for place, group in enumerate(self._visible):
            lines = [line for line, row in enumerate(group.shown) if changed[row]]
            if not lines:
                continue
            touched.append(place)
            self._lines.pop((group.number, None), None)
            for line in lines:
                self._lines.pop((group.number, line), None)
            parent = self.index(place, 0)
            first, last = (self.index(line, 0, parent) for line in (lines[0], lines[-1]))
            self.dataChanged.emit(first.siblingAtColumn(Column.METHOD), last.siblingAtColumn(Column.AFTER))
        if touched:
            first, last = self.index(touched[0], Column.METHOD), self.index(touched[-1], Column.AFTER)
            self.dataChanged.emit(first, last)

    def _planned_entries(self) -> list[Entry]:
        recipe, plan, planner = self._state.document.recipe, self._state.plan, self._state.planner
        if recipe is None or plan is None or planner is None:
            return list(map(Entry, self._state.rows))
        begun = self._begun(planner)
        entries = []
        for row in self._state.rows:
            tensor = plan.tensors[row.index] if row.index is not None else None
            if row.index is None or tensor is None or tensor.kept:
                entries.append(Entry(row, tensor))
            else:
                changed = begun[row.index] != outcome(tensor.format, tensor.method)
                entries.append(Entry(row, tensor, is_pinned(recipe, tensor), changed))
        return entries

    def _begun(self, planner: Planner) -> list[tuple[str, str]]:
        """The outcomes of the preset or file that the recipe began with. Pins on a preset are not its own."""
        version = self._state.document.version
        assert version is not None, "there is a plan"
        if self._base is None or self._base[0] is not planner or self._base[1] is not version.base:
            base = version.base
            if version.name in PRESETS:
                rules = [rule for rule in base.rules if not rule.pinned]
                base = base.model_copy(update={"rules": rules})
            self._base = planner, version.base, outcomes(base, planner)
        return self._base[2]

    def _waiting(self) -> Waiting:
        if self._state.phase == "inspect only":
            return Waiting(NOTHING, self._state.refusal)
        if self._state.plan is None:
            return Waiting("…", "What the file will hold is being worked out")
        return Waiting("", "")

    # ----------------------------------------------------------------------- what Qt asks

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        if index.column() in (Column.METHOD, Column.FORMAT):
            line = self._line_at(index)
            if line.bits is not None and not line.quiet:
                return EDITABLE
        return SELECTABLE

    def data(self, index: Index, role: int = ItemRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        column = index.column()
        if role == ItemRole.DisplayRole:
            return self._line_at(index).texts[column]
        if role == ItemRole.TextAlignmentRole:
            return RIGHT if column in FIGURES else None
        if role == ItemRole.FontRole:
            return self._font(index, column)
        if role == ItemRole.ForegroundRole:
            return self._color(index, column)
        if role == LINE_ROLE:
            return self._line_at(index)
        if role == ItemRole.ToolTipRole:
            return as_tip(self._line_at(index).tips[column]) or None
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

    def _font(self, index: Index, column: int) -> QFont | None:
        if column == Column.NAME:
            return self._names_font if index.parent().isValid() else self._group_font
        return self._figures_font if column in FIGURES else None

    def _color(self, index: Index, column: int) -> Any:
        """Quiet where there is nothing to choose, and where a text only describes."""
        describes = column in (Column.ROLE, Column.TYPE)
        if describes or (column == Column.SHAPE and not index.parent().isValid()):
            return theme.colors().muted
        line = self._line_at(index)
        waits = column in PLANNED and line.bits is None
        return theme.colors().muted if waits or line.quiet or line.texts[column] == MIXED else None

    def _spoken(self, index: Index, column: int) -> str:
        """For a screen reader: full names, and in words what is drawn."""
        line = self._line_at(index)
        if column == Column.NAME:
            return line.name
        marks = [", pinned"] * line.pinned + [", changed"] * line.changed if column == Column.FORMAT else []
        return f"{TITLES[column]}: {line.texts[column]}{''.join(marks)}"

    # ------------------------------------------------------------------------------- lines

    def _line_at(self, index: Index) -> Line:
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


def _differ(old: Entry, new: Entry) -> bool:
    """Whether a line about these two would differ; a rule's number is not shown."""
    if (old.pinned, old.changed) != (new.pinned, new.changed):
        return True
    if old.plan is None or new.plan is None:
        return old.plan is not new.plan
    if old.plan is new.plan:
        return False
    shown = (new.plan.method, new.plan.format, new.plan.asked)
    return (old.plan.method, old.plan.format, old.plan.asked) != shown
