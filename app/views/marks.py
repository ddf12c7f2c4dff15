"""The marks of a figure, drawn over its bars: percentiles, the clip range, the levels of the grid.

One item in the pixels of the box, so that lines stay thin and names stand still at any zoom. However many
levels there are, no more than one a pixel is drawn.
"""

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from engine.api.figures import Mark

LEVEL_TICK = 6
FEW_LEVELS = 32
"""No more levels than these have lines as high as the figure."""

LINE_ALPHA = 110
"""Of such lines: they lie over the bars."""

NAME_SIZE = 0.85
"""Of the names of marks, as a share of that of other text."""

GAP = 4
"""Pixels between two names at least."""


class Marks(pg.GraphicsObject):
    """Lies in `box`, a ViewBox, and follows what that shows."""

    def __init__(self, box: pg.ViewBox) -> None:
        super().__init__()
        self._box = box
        self._marks: list[Mark] = []
        self._levels = np.zeros(0)
        self._level_names: list[str] = []
        self.setParentItem(box)
        self.setAcceptedMouseButtons(Qt.MouseButton.NoButton)
        self.setZValue(10)
        box.sigRangeChanged.connect(self._renew)
        box.sigResized.connect(self._renew)

    def show_marks(self, marks: Sequence[Mark]) -> None:
        self._marks = [mark for mark in marks if mark.kind != "level"]
        levels = sorted((mark for mark in marks if mark.kind == "level"), key=lambda mark: mark.x)
        self._levels = np.array([mark.x for mark in levels])
        self._level_names = [mark.name for mark in levels]
        self._renew()

    def near(self, x: float, reach: float) -> list[tuple[str, float]]:
        """Names and places of the marks within `reach` of `x`, nearest first; of the levels the nearest."""
        found = [(mark.name, mark.x) for mark in self._marks if abs(mark.x - x) <= reach]
        if self._levels.size:
            place = int(np.abs(self._levels - x).argmin())
            if abs(self._levels[place] - x) <= reach:
                found.append((self._level_names[place], float(self._levels[place])))
        return sorted(found, key=lambda one: abs(one[1] - x))

    def boundingRect(self) -> QRectF:
        return QRectF(self._box.rect())

    def _renew(self) -> None:
        self.prepareGeometryChange()
        self.update()

    def paint(self, painter: QPainter, option: object, widget: QWidget | None = None) -> None:
        rect = self.boundingRect()
        painter.setClipRect(rect)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        self._paint_levels(painter, rect)
        self._paint_lines(painter, rect)

    def _pixels(self, places: np.ndarray) -> np.ndarray:
        low, high = self._box.viewRange()[0]
        return (places - low) / (high - low) * self._box.rect().width()

    def ticks(self) -> list[float]:
        """Where in the box the levels have their ticks, in pixels: one a pixel at most."""
        pixels = np.unique(np.round(self._pixels(self._levels)))
        return pixels[(pixels >= 0) & (pixels <= self._box.rect().width())].tolist()

    def names(self) -> list[tuple[str, float, float]]:
        """The names there is room for, with their left and right ends; the clip range goes first."""
        metrics, most = QFontMetricsF(_font()), self._box.rect().width()
        placed: list[tuple[str, float, float]] = []
        for mark, x in self._visible():
            width = metrics.horizontalAdvance(mark.name)
            left = min(max(x - width / 2, 0.0), most - width)
            if all(left > end + GAP or left + width < start - GAP for _, start, end in placed):
                placed.append((mark.name, left, left + width))
        return placed

    def _visible(self) -> list[tuple[Mark, float]]:
        """Marks but levels with their pixels, the clip range first."""
        pixels = self._pixels(np.array([mark.x for mark in self._marks])).tolist()
        most = self._box.rect().width()
        seen = [(mark, x) for mark, x in zip(self._marks, pixels, strict=True) if 0 <= x <= most]
        return sorted(seen, key=lambda one: one[0].kind)

    def _paint_levels(self, painter: QPainter, rect: QRectF) -> None:
        """Through all of the figure where they are few, else short ticks at its ground."""
        colors, bottom, top = theme.colors(), rect.bottom(), self.level_top()
        line = QColor(colors.text)
        line.setAlpha(LINE_ALPHA if top == rect.top() else 255)
        painter.setPen(QPen(line, 1))
        painter.drawLines([QLineF(x, top, x, bottom) for x in self.ticks()])

    def level_top(self) -> float:
        """Where the lines of levels begin, in pixels."""
        rect = self.boundingRect()
        return rect.top() if self._levels.size <= FEW_LEVELS else rect.bottom() - LEVEL_TICK

    def _paint_lines(self, painter: QPainter, rect: QRectF) -> None:
        colors, font = theme.colors(), _font()
        metrics = QFontMetricsF(font)
        for mark, x in self._visible():
            clip = mark.kind == "clip"
            style = Qt.PenStyle.DashLine if clip else Qt.PenStyle.DotLine
            painter.setPen(QPen(colors.warning if clip else colors.muted, 1, style))
            painter.drawLine(QLineF(round(x), metrics.height(), round(x), rect.height()))
        painter.setFont(font)
        painter.setPen(colors.muted)
        for name, left, _ in self.names():
            painter.drawText(QPointF(left, metrics.ascent()), name)


def _font() -> QFont:
    font = QFont(QApplication.font())
    font.setPointSizeF(font.pointSizeF() * NAME_SIZE)
    return font
