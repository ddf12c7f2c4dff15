"""The marks of a figure, drawn over its bars: percentiles, the clip range, the levels of the grid.

One item in the pixels of the box, so that lines stay thin and names stand still at any zoom. However many
levels there are, no more than one a pixel is drawn.
"""

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QFont, QFontMetricsF, QPainter, QPen
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from engine.api.figures import Mark

LEVEL_TICK = 6
NAME_POINTS = 0.85
"""Names of marks beside the size of other text."""

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

    def _paint_levels(self, painter: QPainter, rect: QRectF) -> None:
        if not self._levels.size:
            return
        pixels = np.unique(np.round(self._pixels(self._levels)))
        pixels = pixels[(pixels >= 0) & (pixels <= rect.width())]
        painter.setPen(QPen(theme.colors().text, 1))
        bottom = rect.bottom()
        painter.drawLines([QLineF(x, bottom - LEVEL_TICK, x, bottom) for x in pixels.tolist()])

    def _paint_lines(self, painter: QPainter, rect: QRectF) -> None:
        colors = theme.colors()
        font = QFont(QApplication.font())
        font.setPointSizeF(font.pointSizeF() * NAME_POINTS)
        metrics = QFontMetricsF(font)
        painter.setFont(font)
        pixels = self._pixels(np.array([mark.x for mark in self._marks])).tolist()
        taken: list[tuple[float, float]] = []
        for mark, x in sorted(zip(self._marks, pixels, strict=True), key=lambda one: one[0].kind):
            if not 0 <= x <= rect.width():
                continue
            clip = mark.kind == "clip"
            style = Qt.PenStyle.DashLine if clip else Qt.PenStyle.DotLine
            painter.setPen(QPen(colors.warning if clip else colors.muted, 1, style))
            width = metrics.horizontalAdvance(mark.name)
            left = min(max(x - width / 2, 0.0), rect.width() - width)
            free = all(left > end + GAP or left + width < start - GAP for start, end in taken)
            top = metrics.height() if free else 0.0
            painter.drawLine(QLineF(round(x), top, round(x), rect.height()))
            if free:
                taken.append((left, left + width))
                painter.setPen(colors.warning if clip else colors.muted)
                painter.drawText(QPointF(left, metrics.ascent()), mark.name)
