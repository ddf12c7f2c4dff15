"""The layers view: filter, table, and the gestures on what is selected in it."""

from collections.abc import Sequence

from PySide6.QtCore import QPoint, Qt, QTimer, Signal
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.models.layer_lines import Column
from app.models.layers import LayersModel
from app.models.offers import Offer, OfferModel
from app.state import Row, State
from app.views.layers_edits import LayerEdits
from app.views.layers_filter import FilterRow
from app.views.layers_menu import context_menu
from app.views.layers_tree import LayersTree
from app.views.offers import OfferPopup
from engine.api.plan import TensorPlan

FORMATS_NOTE = "Bits per weight, scales and all."


def formats_note(offers: Sequence[Offer], plans: Sequence[TensorPlan]) -> str:
    """What the list of formats for `plans` says below itself: why some cannot be chosen."""
    if all(offer.possible for offer in offers):
        return FORMATS_NOTE
    if any(offer.possible for offer in offers):
        return f"{FORMATS_NOTE} Grey: their rows do not divide."
    return f"{FORMATS_NOTE} These tensors stay in {' and '.join(sorted({plan.format for plan in plans}))}."


class LayersView(QWidget):
    """Shows the tensors of `state` and changes its recipe. One gesture is one undo step."""

    message = Signal(str)
    """A short sentence for the status line."""

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.model = LayersModel(state, self)
        self.edits = LayerEdits(state, self)
        self.edits.message.connect(self.message)
        self.filter = FilterRow(self.model)
        self.table = LayersTree(self.model, self.edits)
        self.table.customContextMenuRequested.connect(self._show_menu)
        self.table.chosen_changed.connect(self._publish)
        self._publishing = False
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self._catch_up)
        state.selection_changed.connect(self._follow)
        state.model_changed.connect(self._take_model)
        self._path = state.path
        self.nothing = self._build_nothing()
        self.pages = QStackedWidget()
        self.pages.addWidget(self.table)
        self.pages.addWidget(self.nothing)
        self.model.modelReset.connect(self._turn_page)
        self.filter.leave.connect(self._enter_table)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.NoFrame)
        line.setFixedHeight(1)
        line.setBackgroundRole(self.palette().ColorRole.Mid)
        line.setAutoFillBackground(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.filter)
        column.addWidget(line)
        column.addWidget(self.pages, 1)
        QWidget.setTabOrder(self.filter.field, self.filter.roles)
        QWidget.setTabOrder(self.filter.roles, self.table)

    def _build_nothing(self) -> QWidget:
        page = QWidget()
        sentence = QLabel("No tensor matches the filter.")
        sentence.setAccessibleName("Empty table")
        clear = QPushButton("&Clear filter")
        clear.setAccessibleName("Clear filter")
        clear.clicked.connect(self.filter.clear)
        column = QVBoxLayout(page)
        column.setSpacing(2 * theme.SPACE)
        column.addStretch(2)
        column.addWidget(sentence, alignment=Qt.AlignmentFlag.AlignHCenter)
        column.addWidget(clear, alignment=Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)
        return page

    # ---------------------------------------------------------------------------------- gestures

    def focus_filter(self) -> None:
        self.filter.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.filter.field.selectAll()

    def set_bits(self, bits: int) -> None:
        """Give the selection the best format of so many bits."""
        self.edits.set_bits(self.table.chosen, bits)

    def choose_format(self) -> None:
        """Offer all formats for the selection, at the current line."""
        rows = self.table.chosen
        refusal = self.edits.refusal(rows)
        if refusal:
            self.message.emit(refusal)
            return
        current = self.table.currentIndex()
        cell = self.table.visualRect(current.siblingAtColumn(Column.FORMAT))
        inside = cell.isValid() and self.table.viewport().rect().contains(cell.center())
        corner = cell.bottomLeft() if inside else QPoint(0, 0)
        self._offer_formats(rows, self.table.viewport().mapToGlobal(corner))

    def _offer_formats(self, rows: list[Row], where: QPoint) -> None:
        """The list of formats for `rows`, at a place of the screen."""
        offers = self.edits.formats(rows)
        plans = [plan for row in rows if (plan := self._state.planned(row)) is not None]
        note = formats_note(offers, plans)
        popup = OfferPopup("Formats", OfferModel({"": offers}, marked=True), self, "", note)
        popup.chosen.connect(lambda name: self.edits.set_format(rows, name))
        popup.open_at(where, next((offer.name for offer in offers if offer.present), ""))

    def toggle_pin(self) -> None:
        """Pin the selection, or let go of it where all of it is pinned."""
        self.edits.toggle_pin(self.table.chosen)

    def apply_to_role(self) -> None:
        """Give all tensors of the current one's role what it has."""
        current = self._current(self.table.chosen)
        if current is None:
            self.message.emit("Select a tensor first")
        else:
            self.edits.apply_to_role(current)

    def select_all(self) -> None:
        self.table.choose_all()

    def expand_all(self) -> None:
        self.table.open_all()

    def collapse_all(self) -> None:
        self.table.close_all()

    # ------------------------------------------------------------------------------------ inside

    def _current(self, rows: list[Row]) -> Row | None:
        """The current tensor if it is among `rows`, or else the first of them."""
        current = self.model.row_at(self.table.currentIndex())
        return current if current in rows else next(iter(rows), None)

    def _show_menu(self, where: QPoint) -> None:
        rows = self.table.chosen
        current = self.model.row_at(self.table.indexAt(where)) or self._current(rows)
        if current is None:
            return
        rows, place = rows or [current], self.table.viewport().mapToGlobal(where)

        def choose_format() -> None:
            self._offer_formats(rows, place)

        context_menu(self, self.edits, rows, current, choose_format, self._select_role).popup(place)

    def _select_role(self, row: Row) -> None:
        """Select all tensors of a role, in all that the filter shows."""
        shown = set(self.model.keys_shown())
        keys = [other.key for other in self._state.rows if other.role == row.role and other.key in shown]
        self._state.select(tuple(keys))

    def _publish(self, keys: tuple[str, ...]) -> None:
        self._publishing = True
        self._state.select(keys)
        self._publishing = False

    def _follow(self) -> None:
        if self._publishing:
            return
        if self.isVisible():
            self._catch_up()
        else:
            self._later.start()  # the view in front is drawn first: thousands of lines take a while

    def _catch_up(self) -> None:
        self._later.stop()
        if self._state.selection != self.table.chosen_keys():
            self.table.choose(self._state.selection)

    def _take_model(self) -> None:
        """Another model has other roles to filter by; the table of the same one goes on as it is."""
        if self._state.path != self._path or list(self.model.roles) != self.filter.offered:
            self._path = self._state.path
            self.filter.fill()
        else:
            self.filter.apply()  # it may be too slow for the names that came

    def _turn_page(self) -> None:
        nothing = self.model.filtered and not self.model.shown
        self.pages.setCurrentWidget(self.nothing if nothing else self.table)

    def _enter_table(self) -> None:
        self.table.setFocus(Qt.FocusReason.OtherFocusReason)
