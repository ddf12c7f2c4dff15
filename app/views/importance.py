"""The view of an importance matrix: what it is, its table of tensors, and a plot of the chosen one."""

from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.actions import Actions
from app.dialogs import ask_new_file, save_text
from app.importance import ImportanceDesk
from app.models.importance import (
    BY_BLOCK,
    COLUMNS,
    ImportanceTable,
    block_figure,
    columns_figure,
    kind_of,
)
from app.plain import as_tip, breakable, printable
from app.state import State
from app.views.figure import FigureView
from app.views.importance_lines import ImportanceLines
from app.views.marked_lines import MarkedLines
from app.views.parts import button, follow_action, named
from engine.api.importance import ImportanceColumns, ImportanceSummary, TensorStatistics, unseen_named

SETTLE_MS = 120
"""How long the selection must stand still before a tensor's columns are read."""

TABLE_SHARE, PLOT_SHARE = 3, 2


class ImportanceView(QWidget):
    """Shows what `desk` looks at. Selecting a line selects its tensor everywhere."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(
        self, desk: ImportanceDesk, state: State, actions: Actions, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._desk, self._state, self._actions = desk, state, actions
        self._current: TensorStatistics | None = None
        self._drawn: tuple[object, ...] = ()
        self._publishing = False
        self.model = ImportanceTable(self)
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._read_columns)
        self._make_head()
        self._make_filter()
        self._make_table()
        self._make_plot()
        self._lay_out()
        desk.changed.connect(self._take)
        state.selection_changed.connect(self._follow)
        self._take()

    # ------------------------------------------------------------------------------ its making

    def _make_head(self) -> None:
        self.title = named(QLabel(textFormat=Qt.TextFormat.PlainText), "Importance matrix")
        font = self.title.font()
        font.setWeight(font.Weight.DemiBold)
        self.title.setFont(font)
        self.facts = named(QLabel(textFormat=Qt.TextFormat.PlainText), "What it was made from")
        self.facts.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        for label in (self.title, self.facts):
            label.setMinimumWidth(1)  # a long name must not widen the view
        self.use = _action_button(self._actions["use_importance"], "Use for this recipe")
        self.merge = _action_button(self._actions["merge_importance"], "Merge…")
        self.save = _action_button(self._actions["save_importance"], "Save as…")
        self._notes = MarkedLines("Notes on the importance matrix", 2 * theme.SPACE)

    def _make_filter(self) -> None:
        self.field = named(QLineEdit(), "Filter tensors by a regular expression")
        self.field.setPlaceholderText("filter names, e.g. ffn_down")
        self.field.setToolTip("A regular expression, searched in the names")
        self.field.setClearButtonEnabled(True)
        self.field.addAction(theme.icon("funnel", "muted"), QLineEdit.ActionPosition.LeadingPosition)
        self.field.textChanged.connect(self._filter)
        self.reason = named(QLabel(textFormat=Qt.TextFormat.PlainText), "Why the filter is not applied")
        self.reason.setMinimumWidth(1)  # a long pattern must not widen the view
        self.count = named(QLabel(), "Tensors shown")
        self.csv = QPushButton(theme.icon("table"), "Save CSV…")
        self.csv.setToolTip("Save the table with all digits")
        self.csv.setAccessibleName("Save the table as CSV")
        self.csv.clicked.connect(self._ask_csv)

    def _make_table(self) -> None:
        self.table = ImportanceLines(self.model)
        self.table.chosen.connect(self._publish)
        self.table.message.connect(self.message)
        self.model.modelReset.connect(self._choose)
        save = QAction("Save CSV…", self)
        save.triggered.connect(self._ask_csv)
        self.table.addAction(save)

    def _make_plot(self) -> None:
        self.plots = named(QComboBox(), "What is plotted")
        self.plots.addItem(COLUMNS, None)
        for plot in BY_BLOCK:
            self.plots.addItem(plot.title, plot)
        self.plots.setToolTip("Of the selected tensor, or of all of its kind block by block")
        self.plots.currentIndexChanged.connect(self._draw)
        self.plotted = named(QLabel(textFormat=Qt.TextFormat.PlainText), "Plotted tensor")
        self.plotted.setFont(theme.names_font())
        self.figure = FigureView("Importance")

    def _lay_out(self) -> None:
        self._text = named(QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter), "State")
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self.other = _action_button(self._actions["look_importance"], "Choose another file…")
        self.again = button("Try again", "Read the importance matrix again")
        self.again.clicked.connect(self._desk.read_again)
        waiting = QWidget()
        middle = QVBoxLayout(waiting)
        middle.setSpacing(2 * theme.SPACE)
        middle.addStretch(2)
        middle.addWidget(self._text)
        for offer in (self.again, self.other):
            middle.addWidget(offer, alignment=Qt.AlignmentFlag.AlignHCenter)
        middle.addStretch(3)
        self._pages = QStackedWidget()
        self._pages.addWidget(waiting)
        self._pages.addWidget(self._page())
        top = QHBoxLayout()
        top.setSpacing(2 * theme.SPACE)
        words = QVBoxLayout()
        words.setSpacing(0)
        words.addWidget(self.title)
        words.addWidget(self.facts)
        top.addLayout(words, 1)
        for act in (self.use, self.merge, self.save):
            top.addWidget(act)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * theme.SPACE, 2 * theme.SPACE, 2 * theme.SPACE, 0)
        layout.setSpacing(2 * theme.SPACE)
        layout.addLayout(top)
        layout.addWidget(self._notes)
        layout.addWidget(self._pages, 1)

    def _page(self) -> QWidget:
        row = QHBoxLayout()
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(self.field, 1)
        row.addWidget(self.reason)
        row.addWidget(self.count)
        row.addWidget(self.csv)
        upper, lower = QWidget(), QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2 * theme.SPACE)
        column.addLayout(row)
        column.addWidget(self.table, 1)
        column = QVBoxLayout(lower)
        column.setContentsMargins(0, 2 * theme.SPACE, 0, theme.SPACE)
        column.setSpacing(theme.SPACE)
        self.figure.add_control(self.plots)
        self.figure.add_control(self.plotted)
        column.addWidget(self.figure, 1)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.setAccessibleName("Table and plot")
        parts.setChildrenCollapsible(False)
        parts.addWidget(upper)
        parts.addWidget(lower)
        parts.setStretchFactor(0, TABLE_SHARE)
        parts.setStretchFactor(1, PLOT_SHARE)
        return parts

    def select_all(self) -> None:
        """All lines that the filter shows."""
        self.table.selectAll()

    def focus_filter(self) -> None:
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()

    # ---------------------------------------------------------------------------- what it shows

    def _take(self) -> None:
        """What is looked at is another one, or more is known of it."""
        desk = self._desk
        name = " + ".join(printable(file.name) for file in desk.files)
        self.title.setText(f"{name}, merged, not saved" if len(desk.files) > 1 else name)
        self.title.setToolTip(as_tip("\n".join(map(str, desk.files))))
        self.facts.setText(_facts(desk.summary) if desk.summary else "")
        self.facts.setToolTip(as_tip("\n".join(desk.summary.datasets)) if desk.summary else "")
        self._note(desk)
        if desk.summary is None:
            self._text.setText(breakable(desk.problem) if desk.problem else "Reading the importance matrix…")
            self.again.setVisible(desk.lost)
            self.other.setVisible(bool(desk.problem))
        self._pages.setCurrentIndex(0 if desk.summary is None else 1)
        if desk.summary is not self.model.summary:
            self._drawn = ()
            self.table.show_summary(desk.summary)
            self._count()

    def _note(self, desk: ImportanceDesk) -> None:
        """Sentences: what does not fit the model, which experts saw nothing."""
        self._notes.clear()
        summary = desk.summary
        if summary is None:
            return
        said = [desk.problem] if desk.problem else [_sentence(text) for text in summary.warnings]
        for text in map(_sentence, unseen_named(summary.unseen)):
            if not any(line.startswith(text.partition(":")[0]) for line in said):
                said.append(text)
        for text in said:
            self._notes.add("warning", "warning", text, "Warning")

    def _filter(self, pattern: str) -> None:
        reason = self.model.set_filter(pattern)
        self.reason.setText(reason)
        self.reason.setToolTip(as_tip(reason))
        self._count()

    def _count(self) -> None:
        shown, total = len(self.model.shown), self.model.total
        self.count.setText(_tensors(total) if shown == total else f"{shown:,} of {_tensors(total)}")

    # ----------------------------------------------------------------------------- the selection

    def _publish(self) -> None:
        """What is selected here is selected everywhere; a tensor of another model only here."""
        tensors = self.table.selected()
        self._current = tensors[-1] if tensors else None
        known = {row.key for row in self._state.rows}
        keys = tuple(tensor.tensor for tensor in tensors if tensor.tensor in known)
        if keys:
            self._publishing = True
            self._state.select(keys)
            self._publishing = False
        self._draw()

    def _follow(self) -> None:
        if not self._publishing:
            self._choose()

    def _choose(self) -> None:
        """Select what is selected elsewhere; the first line where that is nothing of this matrix."""
        wanted = self._state.selection or ((self._current.tensor,) if self._current else ())
        summary = self._desk.summary
        if summary is None:
            self._current = None
            return
        self.table.choose(wanted)
        by_name = {tensor.tensor: tensor for tensor in summary.tensors}
        found = [by_name[name] for name in wanted if name in by_name]
        self._current = found[-1] if found else next(iter(self.model.shown), None)
        self._draw()

    # ---------------------------------------------------------------------------------- the plot

    def _draw(self) -> None:
        summary, tensor, plot = self._desk.summary, self._current, self.plots.currentData()
        drawn = (self._desk.files, summary is not None, tensor, plot)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        self.plotted.setText(
            "" if tensor is None else printable(tensor.tensor if plot is None else kind_of(tensor))
        )
        self._settle.stop()
        if summary is None or tensor is None:
            self.figure.show_text("Select a tensor in the table: its importance is plotted here.")
        elif plot is None:
            self.figure.show_text("Reading the columns…")
            self._settle.start()
        else:
            figure = block_figure(summary, tensor, plot)
            if figure is None:
                self.figure.show_text("This tensor lies in no block: choose one that does.")
            else:
                self.figure.show_figure(figure)

    def _read_columns(self) -> None:
        asked, tensor = self._drawn, self._current
        if tensor is None:
            return

        def take(read: ImportanceColumns) -> None:
            if asked == self._drawn:
                self.figure.show_figure(columns_figure(read))

        def fail(sentence: str) -> None:
            if asked == self._drawn:
                self.figure.show_text(sentence)

        self._desk.reader.columns(self._desk.files, tensor.tensor, take, fail)

    # ------------------------------------------------------------------------------- taken away

    def _ask_csv(self) -> None:
        if self._desk.files:
            proposed = self._desk.files[0].with_suffix(".csv")
            ask_new_file(self, "Save the table", proposed, ["Tables (*.csv)"], self.save_csv)

    def save_csv(self, path: Path) -> None:
        """What the table shows, with all digits."""
        self.message.emit(save_text(path, self.model.csv_of(self.model.shown)))


def _facts(summary: ImportanceSummary) -> str:
    parts = [_tensors(len(summary.tensors))]
    if summary.windows:
        parts.append(f"{summary.windows:,} windows of {summary.window:,} tokens")
    texts = [printable(text) for text in summary.datasets if text]
    if texts:
        parts.append(f"texts: {', '.join(texts)}")
    return " · ".join(parts)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count:,} tensors"


def _sentence(half: str) -> str:
    text = half[0].upper() + half[1:]
    return text if text.endswith(".") else f"{text}."


def _action_button(action: QAction, text: str) -> QPushButton:
    """Does what the action does, as long as that can be done."""
    made = QPushButton(action.icon(), text)
    made.setAccessibleName(text.removesuffix("…"))
    follow_action(made, action)
    return made
