"""A heat map in the window. Imported when `app.plotting` is ready, for its colors and NumPy.

Dragging zooms to what was drawn around (a flat stroke: to its columns alone), a double click or Home shows
all; the wheel zooms at the pointer, with Shift it moves, as the middle button does. What is shown is kept in
the source's rows and columns: a finer figure of the part that one looks at is laid over the coarse one.
"""

from math import floor

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAccessible,
    QAccessibleAnnouncementEvent,
    QColor,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from app import theme
from app.views.heat_field import Field, Part, cell_text, same_subject
from app.views.heat_paint import Found, Marked, Room, Shown, paint_around, paint_cells, paint_marked
from app.views.heat_scale import Scale
from app.views.heat_zoom import around, moved, opened, within
from engine.api.figures import HeatMap

SETTLE_MS = 80
DRAG = 4
"""Pixels from which on a press is a drag."""

WHEEL_ZOOM, KEY_ZOOM = 1.25, 1.6
KEYS = {
    Qt.Key.Key_Up: (-1, 0),
    Qt.Key.Key_Down: (1, 0),
    Qt.Key.Key_Left: (0, -1),
    Qt.Key.Key_Right: (0, 1),
}


class HeatMapView(QWidget):
    """One heat map, its axes and its bar."""

    cell_clicked = Signal(int, int)
    """Row and column in the source."""

    cell_pointed = Signal(object)
    """(row, column) under the pointer or the keys, None outside."""

    told = Signal(str)
    """What the cell under the pointer or the keys is, "" outside."""

    zoomed = Signal(object)
    """(first row, stop row, first column, stop column) in the source, None for all; once it stands still."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: Shown | None = None
        self._logarithmic = False
        self._room = Room(self.size(), [], 0)
        self._picture: QPixmap | None = None
        self._pointed: tuple[int, int] | None = None
        self.marked: Marked | None = None
        self._pressed: QPoint | None = None
        self._dragged: QRect | None = None
        self._moving: QPoint | None = None
        self._told_zoom: tuple[int, int, int, int] | None = None
        self._settling = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settling.timeout.connect(self._tell_zoom)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)  # the figure view has the menu
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setMinimumSize(160, 80)
        theme.notifier().changed.connect(self._recolor)

    # ------------------------------------------------------------------------------ what it shows

    def show_figure(self, figure: HeatMap, values: np.ndarray, logarithmic: bool) -> None:
        """Draw it. Of the same subject the zoom stays; a part of what is there is laid over it."""
        field = Field(figure, values)
        before = self._shown
        if before is None or not same_subject(before.whole.figure, figure):
            self._take(field, None, field.extent, logarithmic)
            self._pointed = self.marked = None
            self._told_zoom = None
        elif field.extent != before.whole.extent and field.extent.common(before.whole.extent) == field.extent:
            self._take(before.whole, field, before.part, logarithmic)
        else:
            zoomed = before.part != before.whole.extent
            part = within(before.part, field.extent) if zoomed else field.extent
            self._take(field, None, part, logarithmic)

    def forget(self) -> None:
        """Nothing is shown, and what is shown next is not laid over what was there."""
        self._settling.stop()
        self._shown = self._pointed = self.marked = self._told_zoom = None
        self._lay_out()

    def set_logarithmic(self, logarithmic: bool) -> None:
        """Other colors for the same values."""
        self._logarithmic = logarithmic
        self._recolor()

    def _take(self, whole: Field, detail: Field | None, part: Part, logarithmic: bool) -> None:
        self._logarithmic = logarithmic
        self._shown = Shown(whole, detail, part, self._scale(whole))
        self._lay_out()

    def _scale(self, whole: Field) -> Scale:
        return Scale(
            whole.limits,
            signed=whole.figure.signed,
            logarithmic=self._logarithmic and whole.figure.takes_log,
            dark=theme.colors().dark,
        )

    def _recolor(self) -> None:
        if self._shown is not None:
            before = self._shown
            self._shown = Shown(before.whole, before.detail, before.part, self._scale(before.whole))
        self._renew()

    @property
    def part(self) -> Part | None:
        """What is visible, in the source's numbers."""
        return self._shown.part if self._shown else None

    @property
    def cells(self) -> QRect:
        """Where in the widget the cells lie."""
        return self._room.cells

    def show_part(self, part: Part) -> None:
        """Zoom or move there; `zoomed` follows when it stands still."""
        if self._shown is None:
            return
        before = self._shown
        part = within(part, before.whole.extent)
        if part != before.part:
            self._shown = Shown(before.whole, before.detail, part, before.scale)
            self._renew()
            self._settling.start()

    def reset(self) -> None:
        """Show all of it."""
        if self._shown is not None:
            self.show_part(self._shown.whole.extent)

    def mark(self, place: Marked | None) -> None:
        """Mark the cell of a row and a column in the source, or a column, and move until it is visible."""
        self.marked = place
        if place is not None:
            self._reveal(*place)
        self.update()

    def paint_to(self, painter: QPainter, ratio: float) -> None:
        """As it stands, without what follows the pointer, `ratio` pixels for one of the screen's."""
        painter.fillRect(self.rect(), theme.colors().window)
        if self._shown is not None:
            paint_cells(painter, self._room, self._shown, ratio)
            paint_around(painter, self._room, self._shown)

    def _tell_zoom(self) -> None:
        if self._shown is None:
            return
        part, extent = self._shown.part, self._shown.whole.extent
        told = None if part == extent else part.whole_numbers()
        if told != self._told_zoom:
            self._told_zoom = told
            self.zoomed.emit(told)

    # ------------------------------------------------------------------------------ its painting

    def _lay_out(self) -> None:
        if self._shown is not None:
            figure, extent = self._shown.whole.figure, self._shown.whole.extent
            self._room = Room(self.size(), figure.rows, floor(extent.bottom))
        self._renew()

    def _renew(self) -> None:
        self._picture = None
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._picture is None:
            ratio = self.devicePixelRatioF()
            self._picture = QPixmap(self.size() * ratio)
            self._picture.setDevicePixelRatio(ratio)
            made = QPainter(self._picture)
            self.paint_to(made, ratio)
            made.end()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._picture)
        if self._shown is not None:
            if self.hasFocus():
                painter.setPen(QPen(theme.colors().accent, 1))
                painter.drawRect(self._room.cells.adjusted(-2, -2, 1, 1))
            painter.setClipRect(self._room.cells.adjusted(-1, -1, 1, 1))
            self._paint_pointers(painter, self._shown)
        painter.end()

    def _paint_pointers(self, painter: QPainter, shown: Shown) -> None:
        colors = theme.colors()
        if self.marked is not None:
            paint_marked(painter, self._room, shown, self.marked, colors.accent, 2)
        if self._pointed is not None:
            paint_marked(painter, self._room, shown, self._pointed, colors.text, 1)
        if self._dragged is not None:
            ground = QColor(colors.accent)
            ground.setAlpha(50)
            painter.fillRect(self._dragged, ground)
            painter.setPen(QPen(colors.accent, 1))
            painter.drawRect(self._dragged)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._lay_out()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._lay_out()

    def sizeHint(self) -> QSize:
        return QSize(560, 320)

    # ------------------------------------------------------------------------------ pointer and keys

    def _place(self, at: QPointF) -> tuple[float, float] | None:
        """Row and column in the source under a pixel."""
        cells = self._room.cells
        if self._shown is None or not QRectF(cells).contains(at):
            return None
        part = self._shown.part
        return (
            part.top + (at.y() - cells.top()) / cells.height() * part.height,
            part.left + (at.x() - cells.left()) / cells.width() * part.width,
        )

    def _shown_at(self, at: QPointF) -> Found | None:
        """The cell whose value the pixel there has: of many it is not the one in its middle."""
        cells = self._room.cells
        if self._shown is None or not QRectF(cells).contains(at):
            return None
        part = self._shown.part
        tall, wide = part.height / cells.height(), part.width / cells.width()
        top = part.top + floor(at.y() - cells.top()) * tall
        left = part.left + floor(at.x() - cells.left()) * wide
        return self._shown.strongest(Part(top, top + tall, left, left + wide))

    def _point(self, found: Found | None) -> None:
        """This cell is the current one."""
        self._pointed = found[0].numbers(found[1], found[2]) if found else None
        self.cell_pointed.emit(self._pointed)
        self.told.emit(cell_text(*found) if found else "")
        self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        at = event.position().toPoint()
        if self._moving is not None and self._shown is not None:
            part, cells, by = self._shown.part, self._room.cells, self._moving - at
            self._moving = at
            self.show_part(
                moved(part, by.y() / cells.height() * part.height, by.x() / cells.width() * part.width)
            )
            return
        far = self._pressed is not None and (at - self._pressed).manhattanLength() >= DRAG
        if self._pressed is not None and (far or self._dragged is not None):
            self._dragged = opened(self._pressed, at, self._room.cells)
        self._point(self._shown_at(event.position()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        at = event.position().toPoint()
        if event.button() == Qt.MouseButton.MiddleButton:
            self._moving = at
        elif event.button() == Qt.MouseButton.LeftButton and self._room.cells.contains(at):
            self._pressed = at
        else:
            super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._moving = None
        pressed, dragged = self._pressed, self._dragged
        self._pressed = self._dragged = None
        if event.button() != Qt.MouseButton.LeftButton or pressed is None:
            super().mouseReleaseEvent(event)
        elif dragged is not None:
            top, left = self._place(QPointF(dragged.topLeft())) or (0.0, 0.0)
            bottom, right = self._place(QPointF(dragged.bottomRight())) or (0.0, 0.0)
            self.show_part(Part(top, bottom, left, right))
            self.update()
        elif found := self._shown_at(event.position()):
            self._point(found)
            self._click()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.reset()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._point(None)

    def wheelEvent(self, event: QWheelEvent) -> None:
        place = self._place(event.position())
        if self._shown is None or place is None:
            event.ignore()
            return
        turned = event.angleDelta()
        part, sideways = self._shown.part, event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        if sideways or abs(turned.x()) > abs(turned.y()):
            self.show_part(moved(part, 0.0, -(turned.x() or turned.y()) / 120 * part.width / 10))
        else:
            self._zoom(WHEEL_ZOOM ** (turned.y() / 120), place)
        self._point(self._shown_at(event.position()))
        event.accept()

    def _zoom(self, factor: float, place: tuple[float, float]) -> None:
        assert self._shown is not None
        self.show_part(around(self._shown.part, place, factor, self._room.cells.size()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        if self._shown is None:
            super().keyPressEvent(event)
        elif key in KEYS:
            self._step(*KEYS[key])
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus):
            row, column = self._current()
            factor = 1 / KEY_ZOOM if key == Qt.Key.Key_Minus else KEY_ZOOM
            self._zoom(factor, (row + 0.5, column + 0.5))
        elif key == Qt.Key.Key_Home:
            self.reset()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._click()
        else:
            super().keyPressEvent(event)

    def _current(self) -> tuple[int, int]:
        """The cell under the pointer or the keys, the one that is marked, or the first that is visible."""
        assert self._shown is not None
        part = self._shown.part
        row, column = self._pointed or self.marked or (None, floor(part.left))
        return floor(part.top) if row is None else row, column

    def _step(self, down: int, right: int) -> None:
        """To the next cell."""
        assert self._shown is not None
        row, column = self._current()
        if self._pointed is not None and (found := self._shown.finest(row, column)) is not None:
            figure = found[0].figure
            top, bottom, left, after = self._shown.whole.extent.whole_numbers()
            row = min(max(row + down * figure.row_step, top), bottom - 1)
            column = min(max(column + right * figure.column_step, left), after - 1)
        self._reveal(row, column)
        found = self._shown.finest(row, column)
        self._point(found)
        self._read_out(found)

    def _read_out(self, found: Found | None) -> None:
        """For screen readers."""
        text = cell_text(*found) if found else ""
        self.setAccessibleDescription(text)
        if QAccessible.isActive():
            QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, text))

    def _reveal(self, row: int | None, column: int) -> None:
        if self._shown is None:
            return
        part = self._shown.part
        down = 0.0 if row is None else min(0.0, row - part.top) + max(0.0, row + 1 - part.bottom)
        right = min(0.0, column - part.left) + max(0.0, column + 1 - part.right)
        if down or right:
            self.show_part(moved(part, down, right))

    def _click(self) -> None:
        found = self._shown.finest(*self._current()) if self._shown else None
        if found is not None:
            self.cell_clicked.emit(*found[0].numbers(found[1], found[2]))
