"""A figure in the window: the plot, and in its place on request the table of the same figures."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QStackedLayout,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import ask_new_file, save_text
from app.plain import as_tip, breakable
from app.plotting import plotting
from engine.api.figures import Figure

if TYPE_CHECKING:
    from app.views.plot import Plot


def read_out(figure: Figure, x: float) -> str:
    """What the figure holds at `x`: "0.012 to 0.014: 1,234 (original)"."""
    found = []
    for series in figure.series:
        place = series.bin_at(x)
        if place is not None:
            where = " to ".join(f"{edge:.5g}" for edge in figure.told(series, place))
            where = f"{figure.x.name} {where}" if figure.x.counts else where
            name = f" ({series.name})" if len(figure.series) > 1 else ""
            found.append(f"{where}: {series.y[place]:,.6g}{name}")
    return " · ".join(found).replace("-", "−")


class FigureView(QWidget):
    """Shows a `Figure`; its menu saves and copies it. Say why there is none with `show_text`."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        """`name` is what a screen reader says of the plot, with the figure's title."""
        super().__init__(parent)
        self.figure: Figure | None = None
        self._name = name
        self._plot: Plot | None = None
        self._added = 0
        plotting().ready.connect(self._draw)
        self._make_widgets()
        self._make_actions()
        self._lay_out()
        self.show_text("")

    def show_figure(self, figure: Figure) -> None:
        self.figure = figure
        self._offer_logarithm(figure)
        self._take_table(FigureTable(figure, self.table))
        self._show_controls(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._draw()

    def _offer_logarithm(self, figure: Figure) -> None:
        signed = any(y < 0 for series in figure.series for y in series.y)
        self.logarithmic.setEnabled(not signed)
        tip = "A logarithmic axis, so that single outliers and small values can be seen"
        self.logarithmic.setToolTip(f"{tip}: not here, some values are negative" if signed else tip)

    def show_text(self, text: str) -> None:
        """There is no figure: one sentence instead, and nothing to save."""
        self.figure = None
        self._take_table(None)
        self._text.setText(breakable(text))
        self._stack.setCurrentWidget(self._text)
        self._show_controls(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)

    def add_control(self, widget: QWidget) -> None:
        """At the left of the line over the plot, behind those that were added before; it is always there."""
        self._controls_row.insertWidget(self._added, widget)
        self._added += 1
        self._show_controls(self.figure is not None)

    def _show_controls(self, drawn: bool) -> None:
        for own in self._own_controls:
            own.setVisible(drawn)
        self._controls.setVisible(drawn or self._added > 0)

    def save_png(self, path: Path) -> None:
        if self._plot is not None:
            saved = self._plot.image().save(str(path), "PNG")  # type: ignore[call-overload]
            self._read_out.setText(f"Saved {path.name}." if saved else f"{path}: cannot be written.")

    def save_csv(self, path: Path) -> None:
        if self.figure is not None:
            self._read_out.setText(save_text(path, self.figure.to_csv()))

    def copy_csv(self) -> None:
        if self.figure is not None:
            QGuiApplication.clipboard().setText(self.figure.to_csv())
            self._read_out.setText("Copied as CSV.")

    # ------------------------------------------------------------------------------ its making

    def _make_widgets(self) -> None:
        self._text = QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setAccessibleName(f"{self._name}: state")
        self.table = QTableView()
        self.table.setAccessibleName(f"{self._name}: table")
        self.table.setAlternatingRowColors(True)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(24)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.logarithmic = QCheckBox("Log axis")
        self.logarithmic.setChecked(True)
        self.logarithmic.toggled.connect(self._draw)
        self._read_out = QLabel(textFormat=Qt.TextFormat.PlainText)
        self._read_out.setAccessibleName(f"{self._name}: values under the pointer")
        self._read_out.setFont(theme.figures_font(self._read_out.font()))
        self._read_out.setMinimumWidth(1)  # a long path must not widen the view

    def _make_actions(self) -> None:
        self.as_table = QAction(theme.icon("table"), "Show table", self, checkable=True)
        self.as_table.setToolTip("Show the figures as a table")
        self.as_table.toggled.connect(self._draw)
        self.menu = QMenu(self)
        self.menu.setAccessibleName(f"{self._name}: menu")
        self._add("Save PNG…", lambda: self._ask("png", "Pictures (*.png)", self.save_png))
        self._add("Save CSV…", lambda: self._ask("csv", "Tables (*.csv)", self.save_csv))
        self._add("Copy CSV", self.copy_csv)
        self.menu.addAction(self.as_table)
        self._add("Show all of it", self._reset)
        self.addActions(self.menu.actions())  # the right button's menu is the same

    def _add(self, text: str, slot: Callable[[], None]) -> None:
        self.menu.addAction(text).triggered.connect(slot)

    def _lay_out(self) -> None:
        table = QToolButton(autoRaise=True)
        table.setDefaultAction(self.as_table)
        table.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        table.setAccessibleName(f"{self._name}: show table")
        more = QToolButton(autoRaise=True, popupMode=QToolButton.ToolButtonPopupMode.InstantPopup)
        more.setIcon(theme.icon("dots-three"))
        more.setMenu(self.menu)
        more.setToolTip("Save the picture, save or copy the figures")
        more.setAccessibleName(f"{self._name}: save or copy")
        more.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self._controls = QWidget()
        controls = self._controls_row = QHBoxLayout(self._controls)
        controls.setContentsMargins(0, 0, 0, 0)
        controls.setSpacing(2 * theme.SPACE)
        controls.addWidget(self.logarithmic)
        controls.addStretch()
        controls.addWidget(table)
        controls.addWidget(more)
        self._own_controls = (self.logarithmic, table, more)
        self._stack = QStackedLayout()
        self._stack.addWidget(self._text)
        self._stack.addWidget(self.table)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(self._controls)
        layout.addLayout(self._stack, 1)
        layout.addWidget(self._read_out)

    def _take_table(self, model: "FigureTable | None") -> None:
        old = self.table.model()
        self.table.setModel(model)
        if old is not None:
            old.deleteLater()
        self._read_out.clear()

    def _reset(self) -> None:
        if self._plot is not None:
            self._plot.reset()

    # ------------------------------------------------------------------------------ its drawing

    def _draw(self) -> None:
        """Show what there is: a table at once, a plot as soon as pyqtgraph is there."""
        if self.figure is None:
            return
        if self.as_table.isChecked():
            self._stack.setCurrentWidget(self.table)
            return
        if not plotting().loaded:
            self._text.setText("Getting ready to draw…")
            self._stack.setCurrentWidget(self._text)
            plotting().load()
            return
        plot = self._plot or self._make_plot()
        plot.setAccessibleName(f"{self._name}: {self.figure.title}")
        plot.show_figure(self.figure, self.logarithmic.isChecked() and self.logarithmic.isEnabled())
        self._stack.setCurrentWidget(plot)

    def _make_plot(self) -> "Plot":
        from app.views.plot import Plot

        self._plot = Plot(self)
        self._plot.pointed.connect(self._point)
        self._stack.addWidget(self._plot)
        return self._plot

    def _point(self, x: float | None) -> None:
        shown = "" if x is None or self.figure is None else read_out(self.figure, x)
        self._read_out.setText(shown)

    def _ask(self, suffix: str, kind: str, save: Callable[[Path], None]) -> None:
        if self.figure is not None:
            name = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.figure.title)
            ask_new_file(self, f"Save as {suffix.upper()}", Path.home() / f"{name}.{suffix}", [kind], save)


class FigureTable(QAbstractTableModel):
    """The rows of a figure, numbers to the right."""

    def __init__(self, figure: Figure, parent: QTableView) -> None:
        super().__init__(parent)
        self._columns, self._rows = figure.columns(), figure.rows()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def data(
        self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        value = self._rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return value if isinstance(value, str) else f"{value:,.5g}".replace("-", "−")
        if role == Qt.ItemDataRole.ToolTipRole:
            return as_tip(str(value))
        if role == Qt.ItemDataRole.TextAlignmentRole and not isinstance(value, str):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._columns[section]
        return None
