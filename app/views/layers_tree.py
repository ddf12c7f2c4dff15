"""The tree of layers: what is expanded, selected and in sight survives filters, sorting and new plans."""

from collections.abc import Sequence

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QRect, Qt, Signal
from PySide6.QtGui import QPainter, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QStyle,
    QStyleOptionFocusRect,
    QStyleOptionViewItem,
    QTreeView,
    QWidget,
)

from app import theme
from app.models.layer_lines import Column
from app.models.layers import Index, LayersModel
from app.state import Row
from app.views.layer_delegates import ChoiceDelegate, RowDelegate
from app.views.layers_edits import LayerEdits
from app.views.layers_paint import LinePainter

WIDTHS = {
    Column.ROLE: 80,
    Column.SHAPE: 108,
    Column.TYPE: 56,
    Column.METHOD: 72,
    Column.FORMAT: 116,
    Column.BITS: 108,
    Column.NOW: 88,
    Column.AFTER: 92,
}
"""In pixels, besides the name, which takes what is left."""

NAME_WIDTHS = (160, 480)
"""The least and the most: on a wide screen figures must not be far from their names."""

# The arrow of a sorted column stands in its title: drawn by the style it lies on the text.
LOOKS = f"""
QTreeView::item {{ padding: 0 {theme.SPACE}px; border: 0; }}
QTreeView::item:selected {{ background: palette(highlight); color: palette(highlighted-text); }}
QHeaderView::up-arrow, QHeaderView::down-arrow {{ width: 0; height: 0; }}
"""

FEW = 60
"""With so many tensors all groups are open at first; with more, an overview of groups reads better."""


class LayersTree(QTreeView):
    """The table itself. `chosen` are the tensors selected in it, in the order of the table."""

    chosen_changed = Signal(object)
    """Their keys, as `chosen_keys` gives them."""

    def __init__(self, model: LayersModel, edits: LayerEdits, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._open: set[int] = set()
        self._labels: list[str] = []
        self._keys: tuple[str, ...] = ()
        self._scrolled = 0
        self._filtered = False
        self._restoring = False
        self._painter = LinePainter(model)
        self.setAccessibleName("Layers")
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setAllColumnsShowFocus(True)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setExpandsOnDoubleClick(False)
        self.setFrameShape(QTreeView.Shape.NoFrame)
        self.setIndentation(16)
        self.setStyleSheet(LOOKS)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setModel(model)
        self._build_header()
        self._delegates = self._build_delegates(edits)
        model.modelAboutToBeReset.connect(self._remember)
        model.modelReset.connect(self._restore)
        self.expanded.connect(lambda index: self._note(index, True))
        self.collapsed.connect(lambda index: self._note(index, False))
        self.selectionModel().selectionChanged.connect(self._publish)
        self._restore()

    def _build_header(self) -> None:
        header = self.header()
        header.setAccessibleName("Columns of the table of layers")
        header.setStretchLastSection(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setSectionsMovable(False)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(48)
        for column, width in WIDTHS.items():
            header.resizeSection(column, width)
        self.setSortingEnabled(True)

    def _build_delegates(self, edits: LayerEdits) -> list[RowDelegate]:
        """One delegate a kind of column; the view does not own them."""
        method = ChoiceDelegate(
            "Method",
            lambda index: edits.methods(self.rows_for(index)),
            lambda index, name: edits.set_method(self.rows_for(index), name),
            self,
        )
        format = ChoiceDelegate(
            "Format",
            lambda index: edits.formats(self.rows_for(index)),
            lambda index, name: edits.set_format(self.rows_for(index), name),
            self,
        )
        plain = RowDelegate(self)
        self.setItemDelegate(plain)
        self.setItemDelegateForColumn(Column.METHOD, method)
        self.setItemDelegateForColumn(Column.FORMAT, format)
        return [plain, method, format]

    def drawRow(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """See `app.views.layers_paint`."""
        header, inside = self.header(), index.parent().isValid()
        top, height = option.rect.y(), option.rect.height()
        line = QRect(-header.offset(), top, header.length(), height)
        selected = self.selectionModel().isSelected(index)
        if selected:
            painter.fillRect(line, theme.colors().selection)
        cells = [
            (column, QRect(header.sectionViewportPosition(column), top, header.sectionSize(column), height))
            for column in Column
        ]
        name, indent = cells[Column.NAME][1], self.indentation() * (2 if inside else 1)
        if not inside:
            self.drawBranches(painter, QRect(name.x(), top, indent, height), index)
        name.setLeft(name.x() + indent)
        self._painter.paint(painter, self._model.line_at(index), inside, cells, selected, option.font)
        current = self.currentIndex()
        if self.hasFocus() and current.row() == index.row() and current.parent() == index.parent():
            self._draw_focus(painter, line, selected)

    def _draw_focus(self, painter: QPainter, line: QRect, selected: bool) -> None:
        option, role = QStyleOptionFocusRect(), self.palette().ColorRole
        option.initFrom(self)
        option.state |= QStyle.StateFlag.State_KeyboardFocusChange
        option.backgroundColor = self.palette().color(role.Highlight if selected else role.Window)
        option.rect = line
        self.style().drawPrimitive(QStyle.PrimitiveElement.PE_FrameFocusRect, option, painter)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        least, most = NAME_WIDTHS
        others = sum(self.header().sectionSize(column) for column in WIDTHS)
        self.header().resizeSection(Column.NAME, min(max(self.viewport().width() - others, least), most))

    def dataChanged(self, first: Index, last: Index, roles: Sequence[int] = ()) -> None:
        """A change of groups is one of all that stands in them: a box that is open there shows it, too."""
        super().dataChanged(first, last, roles)
        current = self.currentIndex()
        box = self.indexWidget(current)
        if box is not None and not first.parent().isValid():
            self.itemDelegateForIndex(current).setEditorData(box, current)

    # ------------------------------------------------------------------------------ selection

    @property
    def chosen(self) -> list[Row]:
        return self._model.rows_in(self.selectionModel().selection())

    def rows_for(self, index: Index) -> list[Row]:
        """What an edit of this cell is about: the selection if the cell is in it, or else its line."""
        inside = self.selectionModel().isRowSelected(index.row(), index.parent())
        return self.chosen if inside else self._model.rows_at(index)

    def chosen_keys(self) -> tuple[str, ...]:
        """The keys of `chosen`, that of the current line last."""
        keys = [row.key for row in self.chosen]
        current = self._model.row_at(self.currentIndex())
        if current is not None and current.key in keys:
            keys.remove(current.key)
            keys.append(current.key)
        return tuple(keys)

    def choose(self, keys: tuple[str, ...]) -> None:
        """Select these tensors, the last one current and in sight."""
        self._keys = keys
        self._select(keys)
        index = self._model.index_of(keys[-1]) if keys else QModelIndex()
        if index.isValid():
            self.scrollTo(index)

    def choose_all(self) -> None:
        """Select every tensor that passes the filter."""
        self._select(tuple(self._model.keys_shown()))
        self._publish()

    def _select(self, keys: tuple[str, ...]) -> None:
        model = self.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        before, self._restoring = self._restoring, True
        model.select(self._model.selection_of(keys), flags.ClearAndSelect)
        current = self._model.index_of(keys[-1]) if keys else QModelIndex()
        if current.isValid():
            model.setCurrentIndex(current, flags.NoUpdate)
        self._restoring = before

    def _publish(self) -> None:
        if not self._restoring:
            self._keys = self.chosen_keys()
            self.chosen_changed.emit(self._keys)

    # --------------------------------------------------------------------- what outlives a reset

    def _note(self, index: QModelIndex, opened: bool) -> None:
        """Remember what the user opens and closes; under a filter everything is open."""
        if not self._restoring and not self._model.filtered:
            number = self._model.group_number(index)
            (self._open.add if opened else self._open.discard)(number)

    def open_all(self) -> None:
        self._open = set(range(len(self._labels)))
        self._expand()
        self.executeDelayedItemsLayout()

    def _expand(self) -> None:
        """Expand the groups that are to be open, in one layout; `expandAll` looks at every tensor as well."""
        before, self._restoring = self._restoring, True
        self.scheduleDelayedItemsLayout()
        for number, index in self._model.group_indices():
            self.setExpanded(index, self._model.filtered or number in self._open)
        self._restoring = before

    def close_all(self) -> None:
        self._open = set()
        self.collapseAll()

    def _remember(self) -> None:
        if not self._filtered:
            self._scrolled = self.verticalScrollBar().value()

    def _restore(self) -> None:
        model = self._model
        self._restoring = True
        if model.labels != self._labels:
            self._labels = model.labels
            self._open = set(model.first_open(FEW))
            self._scrolled = 0
        self._expand()
        self._select(self._keys)
        self._scroll_back()
        self._restoring = False
        self._filtered = model.filtered

    def _scroll_back(self) -> None:
        """Without a filter to where the user was; with one to the current tensor."""
        self.executeDelayedItemsLayout()
        current = self._model.index_of(self._keys[-1]) if self._keys else QModelIndex()
        if not self._model.filtered:
            self.verticalScrollBar().setValue(self._scrolled)
        elif current.isValid():
            self.scrollTo(current)
