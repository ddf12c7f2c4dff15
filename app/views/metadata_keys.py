"""All keys of the file as a table with a filter; below it the value of the current one, and a new key."""

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.metadata import BYTES, KEY, KINDS, STANDING, TYPE, VALUE, KeyLine, KeysModel, value_of
from app.plain import as_tip, breakable, printable, shortened
from app.views.metadata_fields import Field, Refusal, parse_template
from app.views.parts import Fault
from engine.api.errors import RecipeError
from engine.api.metadata import COMMON, Edit, full_key, is_template

ROW_HEIGHT = 24
EDITOR_HEIGHT = 88
WIDTHS = {KEY: 280, TYPE: 72, BYTES: 84, STANDING: 84}


class MetadataKeys(QWidget):
    """Shows lines; edits of the current one, and added ones, come by signals."""

    edited = Signal(str, object)
    reset = Signal(str)

    def __init__(self, refusal: Refusal, parent: QWidget) -> None:
        super().__init__(parent)
        self._refusal = refusal
        self.model = KeysModel(self)
        self._make_table()
        self._make_editor()
        self._make_adding()
        self._lay_out()
        self._show_current()

    # ------------------------------------------------------------------------------ its making

    def _make_table(self) -> None:
        self.filter = QLineEdit(self, placeholderText="filter keys and values", clearButtonEnabled=True)
        self.filter.setAccessibleName("Filter keys and values")
        self.filter.addAction(theme.icon("funnel", "muted"), QLineEdit.ActionPosition.LeadingPosition)
        self.filter.textChanged.connect(self._apply_filter)
        self.count = QLabel(self)
        self.count.setAccessibleName("Keys shown")
        self.count.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        self.table = QTableView(self)
        self.table.setAccessibleName("All keys")
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setShowGrid(False)
        self.table.setStyleSheet(f"QTableView::item {{ padding: 0 {2 * theme.SPACE}px; border: 0; }}")
        self.table.setTabKeyNavigation(False)
        self.table.setFrameShape(QFrame.Shape.NoFrame)
        self.table.setWordWrap(False)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self.table.horizontalHeader()
        header.setAccessibleName("Columns of the table of keys")
        header.setHighlightSections(False)
        for column, width in WIDTHS.items():
            header.resizeSection(column, width)
        header.setSectionResizeMode(VALUE, QHeaderView.ResizeMode.Stretch)
        self.table.selectionModel().currentRowChanged.connect(self._show_current)
        self.table.doubleClicked.connect(lambda: self.field.setFocus())

    def _make_editor(self) -> None:
        self.about = QLabel(self, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.about.setAccessibleName("The current key")
        self.field = Field("", "Value of the current key", self._refusal, self, lines=True)
        self.field.field.setFixedHeight(EDITOR_HEIGHT)
        self.field.edited.connect(self.edited)
        self.field.refused.connect(self._say_lost)
        self.field.reset.connect(self.reset)
        self.leave_out = QPushButton("&Leave out", self)
        self.leave_out.setAccessibleName("Leave out")
        self.leave_out.setAutoDefault(False)
        self.leave_out.clicked.connect(self._leave_out)

    def _make_adding(self) -> None:
        self.new_key = QLineEdit(self, placeholderText="a new key, such as general.finetune")
        self.new_key.setAccessibleName("New key")
        self.kind = QComboBox(self)
        self.kind.setAccessibleName("Type of the new key")
        self.kind.addItems(list(KINDS))
        self.new_value = QLineEdit(self, placeholderText="its value")
        self.new_value.setAccessibleName("Value of the new key")
        self.add = QPushButton("A&dd", self)
        self.add.setAccessibleName("Add the key")
        self.add.setToolTip("Add this key to the file")
        self.add.setAutoDefault(False)
        self.wrong = Fault(self)
        self.add.clicked.connect(self._add)
        for field in (self.new_key, self.new_value):
            field.returnPressed.connect(self._add)
            field.textChanged.connect(lambda: self.wrong.say(""))

    def _lay_out(self) -> None:
        top, current, adding = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        top.addWidget(self.filter, 1)
        top.addWidget(self.count)
        current.addWidget(self.about, 1)
        current.addWidget(self.leave_out)
        adding.addWidget(self.new_key, 3)
        adding.addWidget(self.kind)
        adding.addWidget(self.new_value, 2)
        adding.addWidget(self.add)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 3 * theme.SPACE, 0, 0)
        layout.setSpacing(2 * theme.SPACE)
        layout.addLayout(top)
        layout.addWidget(self.table, 1)
        layout.addLayout(current)
        layout.addWidget(self.field)
        layout.addLayout(adding)
        layout.addWidget(self.wrong)

    # ------------------------------------------------------------------------------ what it shows

    def show_lines(self, lines: list[KeyLine]) -> None:
        current = self._current()
        self.model.show(lines)
        self._go_to(current.key if current else "")
        self._count()

    def commit(self) -> None:
        """What is being typed counts now."""
        self.field.commit(waits=False)

    def _current(self) -> KeyLine | None:
        row = self.table.currentIndex().row()
        return self.model.shown[row] if 0 <= row < len(self.model.shown) else None

    def _go_to(self, key: str) -> None:
        """Make a key current, the first one where it is not shown."""
        row = max(0, self.model.row_of(key))
        if self.model.shown and self.table.currentIndex().row() != row:
            self.table.selectRow(row)
        self._show_current()

    def _apply_filter(self, text: str) -> None:
        current = self._current()
        self.model.filter(text)
        self._go_to(current.key if current else "")
        self._count()

    def _count(self) -> None:
        shown, every = len(self.model.shown), len(self.model.lines)
        self.count.setText(f"{every:,} keys" if shown == every else f"{shown:,} of {every:,} keys")

    def _show_current(self) -> None:
        line = self._current()
        lost = self.field.wrong
        if lost and (line is None or line.key != self.field.key):
            self._say_lost(lost)
        self.field.key = line.key if line else ""
        self.field.show_line(line)
        self.field.setEnabled(line is not None)
        if line is None:
            self.about.setText("No key matches the filter.")
        else:
            name = f" ({COMMON[line.key]})" if line.key in COMMON else ""
            why = f" · cannot be edited: {line.before.fixed}" if line.fixed and line.before else ""
            key = breakable(shortened(printable(line.key)))
            self.about.setText(f"{key}{name} · {line.entry.type.lower()}{why}")
        reason = "" if line is None else line.fixed or ("It is left out already." if line.now is None else "")
        self.leave_out.setEnabled(line is not None and not reason)
        self.leave_out.setToolTip(as_tip(reason or "Leave this key out of the file"))

    def _say_lost(self, why: str) -> None:
        self.wrong.say(f"Not changed: {why}")

    # ---------------------------------------------------------------------------------- edits

    def _leave_out(self) -> None:
        line = self._current()
        if line is not None:
            self.edited.emit(line.key, "")

    def _add(self) -> None:
        known = {line.key for line in self.model.lines}
        key = full_key(self.new_key.text().strip(), known)
        if key in known:
            self.wrong.say(f"{key} is there already: edit it above.")
            self.filter.clear()
            self._go_to(key)
            return
        try:
            value = value_of(self.new_value.text(), self.kind.currentText())
        except RecipeError as error:
            self.wrong.say(str(error))
            return
        sentence = self._refusal(key, value)
        if not sentence and isinstance(value, str) and is_template(key):
            parse_template(self, key, value, partial(self._take_new, key, value))
        else:
            self._take_new(key, value, sentence)

    def _take_new(self, key: str, value: Edit, refusal: str) -> None:
        if refusal:
            self.wrong.say(refusal)
            return
        self.new_key.clear()
        self.new_value.clear()
        self.filter.clear()
        self.edited.emit(key, value)
        self._go_to(key)
