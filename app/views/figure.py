"""A figure in the window: the plot, and in its place on request the table of the same figures."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
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
from app.background import Latest
from app.dialogs import ask_new_file, save_chunks
from app.models.figure import FigureTable
from app.plain import breakable, printable
from app.plotting import plotting
from app.views import export
from engine.api.figures import Figure, HeatMap

if TYPE_CHECKING:
    import numpy as np

    from app.views.heat_map import HeatMapView
    from app.views.heat_paint import Marked
    from app.views.plot import Plot


def read_out(figure: Figure, x: float, marks: Sequence[tuple[str, float]] = ()) -> str:
    """What the figure holds at `x`: "0.012 to 0.014: 1,234 (original)", then the marks that are near."""
    found = []
    for series in figure.series:
        place = series.bin_at(x)
        if place is not None:
            where = " to ".join(f"{edge:.5g}" for edge in figure.told(series, place))
            where = f"{figure.x.name} {where}" if figure.x.counts else where
            where = f"{figure.x.name} {printable(figure.name_of(place))}" if figure.names else where
            name = f" ({series.name})" if len(figure.series) > 1 else ""
            found.append(f"{where}: {series.y[place]:,.6g}{name}")
    found += [f"{name} {place:.6g}" for name, place in marks]
    return " · ".join(found).replace("-", "−")


class FigureView(QWidget):
    """Shows a figure or a heat map; its menu saves and copies it. Say why there is none with `show_text`."""

    cell_clicked = Signal(int, int)
    """Of a heat map: row and column in the source."""

    cell_pointed = Signal(object)
    """(row, column) in the source under the pointer or the keys, None outside."""

    zoomed = Signal(object)
    """(first row, stop row, first column, stop column) in the source that are visible, None for all."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        """`name` is what a screen reader says of the plot, with the figure's title."""
        super().__init__(parent)
        self.figure: Figure | HeatMap | None = None
        self.values: np.ndarray | None = None
        self._name = name
        self._plot: Plot | None = None
        self._heat_map: HeatMapView | None = None
        self._selected: Marked | None = None
        self._work = Latest(self)
        self._work.answered.connect(self._take_work)
        self._added = 0
        plotting().ready.connect(self._draw)
        self._make_widgets()
        self._make_actions()
        self._lay_out()
        self.show_text("")

    def show_figure(self, figure: Figure | HeatMap, values: "np.ndarray | None" = None) -> None:
        """Draw it; `values` are those of a heat map, float32 [height, width], NaN where none are read yet.

        Another version of the same one (title and axes alike) keeps the zoom. Of a heat map it may be a finer
        one of a part: it is laid over what is there.
        """
        if isinstance(figure, HeatMap) and values is None:
            raise ValueError(f"{figure.title}: a heat map without values")
        if self.figure is None or self.figure.title != figure.title:
            self._selected = None
        self.figure, self.values = figure, values
        self._offer_logarithm(figure)
        self._read_out.clear()
        self._show_controls(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._draw()

    def select(self, row: int | None, column: int) -> None:
        """Mark a cell of the heat map by its numbers in the source, and show it if it is out of sight.

        Without a row all of the column is marked, and of bins the one of this number. What is marked stays
        where it is: who looks elsewhere by now is not called back.
        """
        if self._selected != (row, column):
            self._mark((row, column))

    def deselect(self) -> None:
        """No cell is marked."""
        self._mark(None)

    def _mark(self, place: "Marked | None") -> None:
        self._selected = place
        if self._heat_map is not None and isinstance(self.figure, HeatMap):
            self._heat_map.mark(place)
        elif self._plot is not None and isinstance(self.figure, Figure):
            self._plot.mark(None if place is None else place[1])

    def show_part(self, first_row: int, stop_row: int, first_column: int, stop_column: int) -> None:
        """Zoom the heat map to these rows and columns of the source, as far as it has them."""
        if self._heat_map is not None:
            from app.views.heat_field import Part

            self._heat_map.show_part(Part(first_row, stop_row, first_column, stop_column))

    def _offer_logarithm(self, figure: Figure | HeatMap) -> None:
        if isinstance(figure, HeatMap):
            kind, taken = "scale", figure.takes_log
            why = "some values are negative" if figure.signed else "these are codes"
        else:
            kind, taken = "axis", not any(y < 0 for series in figure.series for y in series.y)
            why = "some values are negative"
        self.logarithmic.setEnabled(taken)
        self.logarithmic.setText(f"Log {kind}")
        tip = f"A logarithmic {kind}, so that single outliers and small values can be seen"
        self.logarithmic.setToolTip(tip if taken else f"{tip}: not here, {why}")

    def show_text(self, text: str) -> None:
        """There is no figure: one sentence instead, and nothing to save."""
        self.figure = self.values = self._selected = None
        if self._heat_map is not None:
            self._heat_map.forget()
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
        """The plot as it stands; the read-out says when it is done, as it does for all that is saved."""
        if (plot := self._drawn()) is not None:
            image = export.picture(plot.paint_to, plot.size())
            self._write(path, lambda: (export.encoded(image),))

    def save_svg(self, path: Path) -> None:
        if (plot := self._drawn()) is not None and self.figure is not None:
            text = export.drawing(plot.paint_to, plot.size(), self.figure.title)
            self._write(path, lambda: (text,))

    def save_csv(self, path: Path) -> None:
        if (chunks := self._csv()) is not None:
            self._write(path, lambda: (chunk.encode() for chunk in chunks()))

    def copy_csv(self) -> None:
        if (chunks := self._csv()) is not None:
            self._work.ask(lambda: _Copied("".join(chunks())))

    def _csv(self) -> Callable[[], Iterable[str]] | None:
        """Makes the table as CSV, in any thread."""
        figure, values = self.figure, self.values
        if isinstance(figure, HeatMap) and values is not None:
            return lambda: figure.csv_chunks(values)
        return (lambda: (figure.to_csv(),)) if isinstance(figure, Figure) else None

    def _write(self, path: Path, content: Callable[[], Iterable[bytes]]) -> None:
        self._work.ask(lambda: save_chunks(path, content()))

    def _take_work(self, done: "str | _Copied") -> None:
        if isinstance(done, _Copied):
            QGuiApplication.clipboard().setText(done.text)
        self._read_out.setText("Copied as CSV." if isinstance(done, _Copied) else done)

    def _copy_picture(self) -> None:
        if (plot := self._drawn()) is not None:
            QGuiApplication.clipboard().setImage(export.picture(plot.paint_to, plot.size()))
            self._read_out.setText("Copied as a picture.")

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
        self.logarithmic.toggled.connect(self._rescale)
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
        self._add("Save SVG…", lambda: self._ask("svg", "Drawings (*.svg)", self.save_svg))
        self._add("Save CSV…", lambda: self._ask("csv", "Tables (*.csv)", self.save_csv))
        self._add("Copy picture", self._copy_picture)
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

    def _take_table(self, model: FigureTable | None) -> None:
        old = self.table.model()
        self.table.setModel(model)
        if old is not None:
            old.deleteLater()

    def _tabulate(self) -> None:
        """Give the table what is shown, once it is looked at."""
        figure, values = self.figure, self.values
        if isinstance(figure, HeatMap) and values is not None:
            cells = figure.height * figure.width
            row = partial(figure.row, values)
            self._take_table(FigureTable(figure.columns(), cells, row, self.table))
        elif isinstance(figure, Figure):
            rows = figure.rows()
            self._take_table(FigureTable(figure.columns(), len(rows), rows.__getitem__, self.table))

    def _reset(self) -> None:
        if (plot := self._drawn()) is not None:
            plot.reset()

    def _drawn(self) -> "Plot | HeatMapView | None":
        """What draws the present figure, if it has."""
        plot = self._heat_map if isinstance(self.figure, HeatMap) else self._plot
        if plot is not None and self.as_table.isChecked():
            plot.resize(self.table.size())  # as large as it would be in its place
        return plot

    # ------------------------------------------------------------------------------ its drawing

    def _draw(self) -> None:
        """Show what there is: a table at once, a plot as soon as pyqtgraph is there."""
        if self.figure is None:
            return
        plot = self._plotted(self.figure)  # behind a table, too: it can be saved
        if self.as_table.isChecked():
            self._tabulate()
            self._stack.setCurrentWidget(self.table)
            return
        self._take_table(None)
        if plot is None:
            self._text.setText("Getting ready to draw…")
            self._stack.setCurrentWidget(self._text)
        else:
            self._stack.setCurrentWidget(plot)

    def _plotted(self, figure: Figure | HeatMap) -> "Plot | HeatMapView | None":
        """What draws it, up to date; None where it cannot yet: `_draw` is called again when it can."""
        if not plotting().loaded:
            plotting().load()
            return None
        plot = self._draw_bins(figure) if isinstance(figure, Figure) else self._draw_cells(figure)
        plot.setAccessibleName(f"{self._name}: {figure.title}")
        return plot

    def _draw_bins(self, figure: Figure) -> "Plot":
        plot = self._plot or self._make_plot()
        plot.show_figure(figure, self._logarithmic)
        plot.mark(None if self._selected is None else self._selected[1])
        return plot

    def _draw_cells(self, figure: HeatMap) -> "HeatMapView":
        assert self.values is not None
        plot = self._heat_map or self._make_heat_map()
        plot.show_figure(figure, self.values, self._logarithmic)
        if plot.marked != self._selected:
            plot.mark(self._selected)
        return plot

    @property
    def _logarithmic(self) -> bool:
        return self.logarithmic.isChecked() and self.logarithmic.isEnabled()

    def _rescale(self) -> None:
        if self._heat_map is not None and isinstance(self.figure, HeatMap):
            self._heat_map.set_logarithmic(self._logarithmic)
        else:
            self._draw()

    def _make_plot(self) -> "Plot":
        from app.views.plot import Plot

        self._plot = Plot(self)
        self._plot.pointed.connect(self._point)
        self._stack.addWidget(self._plot)
        return self._plot

    def _make_heat_map(self) -> "HeatMapView":
        from app.views.heat_map import HeatMapView

        made = self._heat_map = HeatMapView(self)
        made.told.connect(self._read_out.setText)
        made.cell_clicked.connect(self.cell_clicked)
        made.cell_pointed.connect(self.cell_pointed)
        made.zoomed.connect(self.zoomed)
        self._stack.addWidget(made)
        return made

    def _point(self, x: float | None) -> None:
        shown = ""
        if x is not None and isinstance(self.figure, Figure) and self._plot is not None:
            shown = read_out(self.figure, x, self._plot.marks_near(x))
        self._read_out.setText(shown)

    def _ask(self, suffix: str, kind: str, save: Callable[[Path], None]) -> None:
        if self.figure is not None:
            name = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.figure.title)
            ask_new_file(self, f"Save as {suffix.upper()}", Path.home() / f"{name}.{suffix}", [kind], save)


class _Copied:
    """A text for the clipboard."""

    def __init__(self, text: str) -> None:
        self.text = text
