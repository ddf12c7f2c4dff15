"""Draws a figure with pyqtgraph. Imported by `app.plotting` alone, when the first figure is to be drawn."""

from math import ceil, floor, log10

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from app.views.marks import Marks
from app.views.ticks import compact
from engine.api.figures import Figure, Series

MORE_COLORS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7")
"""Okabe and Ito's, behind grey for the original and the accent for the quantized."""

REACH = 5
"""Pixels from the pointer within which marks are told."""

END = 16
"""Pixels by which numbers of an axis may stand out at its lower end."""

MARGIN = 8
"""Pixels over a plot and at its right: by these they may at its upper end."""

NUDGE = 5
"""Pixels by which pyqtgraph moves the labels of axes out of these."""

LEGEND_SHARE = 0.4
"""Of a plot's width and height a legend takes no more."""

LINES = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
    Qt.PenStyle.DashDotDotLine,
    Qt.PenStyle.SolidLine,
)


class CompactAxis(pg.AxisItem):
    """An axis whose numbers are short; on a logarithmic one only powers of ten are named, if there are two.

    Where it `counts`, only whole numbers.
    """

    counts = False

    def boundingRect(self) -> QRectF:
        """A number at an end, such as 0, may stand out a little: pyqtgraph leaves out what does not fit."""
        left = self.orientation == "left"
        rect = super().boundingRect()
        return rect.adjusted(0, -MARGIN, 0, END) if left else rect.adjusted(-END, 0, MARGIN, 0)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        if self.counts:
            return [f"{value:,.0f}" if float(value).is_integer() else "" for value in values]
        if not self.logMode:
            return [compact(value * scale) for value in values]
        low, high = sorted(self.range)
        powers = floor(high) - ceil(low) + 1
        named = (1, 10) if powers > 1 else (1, 2, 5, 10) if high - low > 0.5 else range(1, 11)
        return [compact(10.0**value) if round(10.0 ** (value % 1), 6) in named else "" for value in values]


class Plot(pg.GraphicsView):
    """One figure. Dragging zooms, a double click shows all of it again.

    Axes around a box, not pyqtgraph's `PlotItem`: that one brings menus of its own which outlive it.
    """

    pointed = Signal(object)
    """The place on the x axis under the pointer, None outside."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._figure: Figure | None = None
        self._logarithmic = False
        self._whole: list[list[float]] = []
        self.box = pg.ViewBox(enableMenu=False)
        self.box.setMouseMode(self.box.RectMode)
        self._axes = {side: CompactAxis(side) for side in ("left", "bottom")}
        layout = pg.GraphicsLayout()
        layout.setContentsMargins(NUDGE, MARGIN, MARGIN, NUDGE)
        layout.setSpacing(0)
        layout.addItem(self._axes["left"], 0, 0)
        layout.addItem(self.box, 0, 1)
        layout.addItem(self._axes["bottom"], 1, 1)
        self.setCentralItem(layout)
        for axis in self._axes.values():
            axis.linkToView(self.box)
            axis.enableAutoSIPrefix(False)
            axis.setGrid(round(0.15 * 255))
        self._pointer = pg.InfiniteLine(angle=90, movable=False)
        self._pointer.hide()
        self._marked = pg.InfiniteLine(angle=90, movable=False)
        self._marked.hide()
        self._marks = Marks(self.box)
        self._legend = pg.LegendItem(offset=(-8, 8))
        self._legend.setParentItem(self.box)
        self.box.sigResized.connect(self._fit_legend)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)  # the figure view has the menu
        theme.notifier().changed.connect(self._draw)

    def show_figure(self, figure: Figure, logarithmic: bool) -> None:
        """Draw `figure`, its values on a logarithmic axis or not; zeros lie on the ground either way.

        Where one has zoomed into an earlier version of it, the zoom stays.
        """
        before = self._figure
        same = before is not None and (before.title, before.x, before.y) == (figure.title, figure.x, figure.y)
        zoom = self.box.viewRange() if same and self.box.viewRange() != self._whole else None
        rescaled = logarithmic != self._logarithmic
        self._figure, self._logarithmic = figure, logarithmic
        self._draw()
        self.reset()
        if zoom is not None:
            self.box.setXRange(*zoom[0], padding=0)
            if not rescaled:
                self.box.setYRange(*zoom[1], padding=0)

    def marks_near(self, x: float) -> list[tuple[str, float]]:
        """Names and places of the marks at most some pixels from `x`."""
        return self._marks.near(x - self._half, REACH * self.box.viewPixelSize()[0])

    def mark(self, number: int | None) -> None:
        """Point out the bin of a whole number by a line, or none."""
        self._marked.setVisible(number is not None)
        if number is not None:
            self._marked.setPos(number)

    def reset(self) -> None:
        """Show all of the figure."""
        series = self._figure.series if self._figure else []
        edges = [(one.x[0] - self._half, one.x[-1] + one.width - self._half) for one in series if one.x]
        if not edges:
            return
        top = max(self._height(one)[-1] for one in series if one.x)
        self.box.setXRange(min(low for low, _ in edges), max(high for _, high in edges), padding=0.02)
        self.box.setYRange(self._ground(), top + (top - self._ground()) * 0.04, padding=0)
        self._whole = self.box.viewRange()

    def paint_to(self, painter: QPainter, ratio: float) -> None:
        """As it stands; lines and letters need not know the `ratio`."""
        self._pointer.hide()
        self.render(painter)

    def _draw(self) -> None:
        colors = theme.colors()
        self.setBackground(colors.window)
        self.box.clear()
        self._legend.clear()
        self._legend.setLabelTextColor(colors.text)
        for axis in self._axes.values():
            axis.setPen(colors.muted)
            axis.setTextPen(colors.muted)
            axis.setTickFont(theme.figures_font(QApplication.font()))
        self._axes["left"].setLogMode(x=False, y=self._logarithmic)
        self._pointer.setPen(pg.mkPen(colors.text, style=Qt.PenStyle.DotLine))
        self.box.addItem(self._pointer, ignoreBounds=True)
        self._marked.setPen(pg.mkPen(colors.accent, width=2, style=Qt.PenStyle.DashLine))
        self.box.addItem(self._marked, ignoreBounds=True)
        if self._figure is None:
            return
        self._axes["bottom"].counts = self._figure.x.counts
        self._axes["bottom"].setLabel(self._figure.x.label, color=colors.muted.name())
        self._axes["left"].setLabel(self._figure.y.label, color=colors.muted.name())
        self._marks.show_marks(self._figure.marks)
        for place, series in enumerate(self._figure.series):
            curve = self._curve(place, series)
            self.box.addItem(curve)
            if len(self._figure.series) > 1:
                self._legend.addItem(curve, series.name)
        self._fit_legend()

    def _fit_legend(self) -> None:
        """It is there where it takes little of the room: in a small plot it would lie on the bars."""
        room, legend = self.box.rect(), self._legend.boundingRect()
        wide, high = LEGEND_SHARE * room.width(), LEGEND_SHARE * room.height()
        self._legend.setVisible(legend.width() <= wide and legend.height() <= high)

    def _curve(self, place: int, series: Series) -> pg.PlotCurveItem:
        colors = theme.colors()
        line = [colors.source, colors.accent, *map(QColor, MORE_COLORS)][place]
        fill = QColor(line)
        fill.setAlpha(90 if len(self._figure.series) == 1 else 40)  # type: ignore[union-attr]
        edges, heights = self._steps(series)
        return pg.PlotCurveItem(
            edges,
            heights,
            stepMode="center",
            fillLevel=self._ground(),
            brush=fill,
            pen=pg.mkPen(line, width=1, style=LINES[place]),
        )

    def _steps(self, series: Series) -> tuple[np.ndarray, np.ndarray]:
        """Edges float64 [steps + 1] and heights [steps] of a series: on the ground where it has no bin."""
        if not series.x:
            return np.zeros(1), np.zeros(0)
        low, heights = np.array(series.x), self._height(series)[:-1]
        high = low + series.width
        gaps = np.flatnonzero(low[1:] - high[:-1] > 0.01 * series.width)
        edges = np.append(np.insert(low, gaps + 1, high[gaps]), high[-1])
        return edges - self._half, np.insert(heights, gaps + 1, self._ground())

    @property
    def _half(self) -> float:
        """How far bins are moved to the left: those of whole numbers stand over their numbers."""
        return 0.5 if self._figure is not None and self._figure.x.counts else 0.0

    def _height(self, series: Series) -> np.ndarray:
        """The values as they are drawn, float64 [bins + 1]; the last one is the highest of them."""
        values = np.array([*series.y, max(series.y, default=0.0)])
        if not self._logarithmic:
            return values
        return np.log10(np.maximum(values, 10.0 ** self._ground()))

    def _ground(self) -> float:
        """Where bars begin: 0, or half of the least that is not 0 on a logarithmic axis."""
        if not self._logarithmic or self._figure is None:
            return 0.0
        least = min((y for series in self._figure.series for y in series.y if y > 0), default=1.0)
        return log10(least / 2)

    # --------------------------------------------------------------------------------- the pointer

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        place = self.box.mapSceneToView(QPointF(self.mapToScene(event.position().toPoint()))).x()
        self._pointer.setPos(place)
        self._pointer.show()
        self.pointed.emit(place + self._half)

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._pointer.hide()
        self.pointed.emit(None)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        super().mouseDoubleClickEvent(event)
        self.reset()

    def sizeHint(self) -> QSize:
        return QSize(280, 180)
