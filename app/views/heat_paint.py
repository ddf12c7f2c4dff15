"""Paints a part of a heat map with its axes and its color bar: on the screen, into pictures and drawings."""

from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from PySide6.QtCore import QLineF, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QFontMetrics, QImage, QPainter, QPen
from PySide6.QtWidgets import QApplication

from app import theme
from app.views.heat_field import Field, Part
from app.views.heat_scale import Scale
from app.views.ticks import compact, whole_ticks

BAR_WIDTH = 12
TICK = 4
MOST_NAME_SHARE = 0.3
"""Row names take no more than this of the width."""

CELL_WITH_VALUE = (34, 14)
"""Cells of so many pixels have their values written in them."""

CELL_WITH_BORDER = 12
RUN_WITH_BORDER, CELL_BESIDE_BORDER = 24, 4
"""Pixels from which on borders are drawn between cells, and between the groups they form."""

SMALL_CELL = 5
"""Pixels below which a marked cell is pointed out by lines through the map."""

Align = Qt.AlignmentFlag


Found = tuple[Field, int, int]
"""A cell of a field."""

Marked = tuple[int | None, int]
"""Row and column in the source of a cell that is marked; no row: all of the column."""


@dataclass(frozen=True)
class Shown:
    """What is painted: `part` of `whole`, with `detail`, a finer one of some of it, laid over."""

    whole: Field
    detail: Field | None
    part: Part
    scale: Scale

    def finest(self, row: float, column: float) -> Found | None:
        """The cell at a place, of the finest field that has one."""
        for field in (self.detail, self.whole):
            if field is not None and (cell := field.cell(row, column)) is not None:
                return field, *cell
        return None

    def strongest(self, pixel: Part) -> Found | None:
        """The cell whose value a pixel has, of the finest field that has one there."""
        found = self.finest((pixel.top + pixel.bottom) / 2, (pixel.left + pixel.right) / 2)
        return (found[0], *found[0].strongest(pixel)) if found else None


class Room:
    """Where everything lies in a picture of `size`."""

    def __init__(self, size: QSize, names: list[str], stop_row: int) -> None:
        """`names` of the rows; without them numbers below `stop_row` are written."""
        self.font = theme.figures_font(QApplication.font())
        metrics = self.metrics = QFontMetrics(self.font)
        self.line = metrics.height()
        widest = max(map(metrics.horizontalAdvance, names or [f"{stop_row}"]))
        self.names = min(widest, round(size.width() * MOST_NAME_SHARE))
        left = self.line + theme.SPACE + self.names + TICK + theme.SPACE
        numbers = metrics.horizontalAdvance("−0.0005")
        right = 4 * theme.SPACE + BAR_WIDTH + TICK + theme.SPACE + numbers + theme.SPACE + self.line
        below = TICK + 2 * self.line + 2 * theme.SPACE
        above = 2 * theme.SPACE
        self.cells = QRect(
            left, above, max(1, size.width() - left - right), max(1, size.height() - above - below)
        )
        self.bar = QRect(self.cells.right() + 4 * theme.SPACE, above, BAR_WIDTH, self.cells.height())
        self.size = size


def place_of(room: Room, part: Part, row: float, column: float) -> QPointF:
    """The pixel of a place in the source."""
    return QPointF(
        room.cells.left() + (column - part.left) / part.width * room.cells.width(),
        room.cells.top() + (row - part.top) / part.height * room.cells.height(),
    )


def rect_of(room: Room, part: Part, inner: Part) -> QRectF:
    """The pixels of a part of `part`."""
    return QRectF(
        place_of(room, part, inner.top, inner.left), place_of(room, part, inner.bottom, inner.right)
    )


def paint_cells(painter: QPainter, room: Room, shown: Shown, ratio: float) -> None:
    """The cells with borders and values, `ratio` pixels of the picture for one of `room`."""
    colors = theme.colors()
    painter.save()
    painter.setClipRect(room.cells)
    if not shown.whole.complete:
        painter.fillRect(room.cells, colors.base)
        painter.fillRect(room.cells, QBrush(colors.border, Qt.BrushStyle.BDiagPattern))
    height, width = round(room.cells.height() * ratio), round(room.cells.width() * ratio)
    painter.drawImage(QRectF(room.cells), _image(shown, height, width))
    _paint_borders(painter, room, shown)
    _paint_values(painter, room, shown)
    painter.restore()


def _image(shown: Shown, height: int, width: int) -> QImage:
    part, scale = shown.part, shown.scale
    pixels = shown.whole.picture(part, height, width, scale.colors)
    detail = shown.detail
    if detail is not None and (common := detail.extent.common(part)) is not None:
        tall, wide = part.height / height, part.width / width
        top, bottom = floor((common.top - part.top) / tall), ceil((common.bottom - part.top) / tall - 1e-6)
        left, right = floor((common.left - part.left) / wide), ceil((common.right - part.left) / wide - 1e-6)
        inner = Part(
            part.top + top * tall, part.top + bottom * tall, part.left + left * wide, part.left + right * wide
        )
        finer = detail.picture(inner, bottom - top, right - left, scale.colors)
        below = pixels[top:bottom, left:right]
        pixels[top:bottom, left:right] = finer if detail.complete else np.where(finer, finer, below)
    pixels = np.ascontiguousarray(pixels)
    return QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def _paint_borders(painter: QPainter, room: Room, shown: Shown) -> None:
    """Lines between cells where these are large, stronger ones between groups of rows and of columns."""
    finest = shown.detail or shown.whole
    figure, part = finest.figure, shown.part
    line = QColor(theme.colors().window)
    cell_wide = room.cells.width() / part.width * figure.column_step
    cell_high = room.cells.height() / part.height * figure.row_step
    if min(cell_wide, cell_high) >= CELL_WITH_BORDER:
        line.setAlpha(110)
        painter.setPen(QPen(line, 1))
        _draw_lines(
            painter,
            room,
            part,
            (figure.first_row, figure.row_step),
            (figure.first_column, figure.column_step),
        )
    run_high = cell_high / figure.row_step * figure.row_borders
    run_wide = cell_wide / figure.column_step * figure.column_borders
    # Smaller cells would be hidden by the line.
    rows = figure.row_borders if run_high >= RUN_WITH_BORDER and cell_high >= CELL_BESIDE_BORDER else 0
    columns = figure.column_borders if run_wide >= RUN_WITH_BORDER and cell_wide >= CELL_BESIDE_BORDER else 0
    for pen in (QPen(theme.colors().window, 3), QPen(theme.colors().text, 1)):
        painter.setPen(pen)
        _draw_lines(painter, room, part, (0, rows), (0, columns))


def _draw_lines(
    painter: QPainter, room: Room, part: Part, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    """Between rows and between columns, each from a first one on in steps; none where the step is 0."""
    cells = room.cells
    lines = []
    for row in _steps(part.top, part.bottom, *rows):
        y = round(place_of(room, part, row, part.left).y())
        lines.append(QLineF(cells.left(), y, cells.right() + 1, y))
    for column in _steps(part.left, part.right, *columns):
        x = round(place_of(room, part, part.top, column).x())
        lines.append(QLineF(x, cells.top(), x, cells.bottom() + 1))
    painter.drawLines(lines)


def _steps(low: float, high: float, first: int, step: int) -> range:
    """first + n step from `low` to `high`; none where `step` is 0."""
    return range(first + ceil((low - first) / step) * step, ceil(high), step) if step else range(0)


def _paint_values(painter: QPainter, room: Room, shown: Shown) -> None:
    """Every value in its cell, where there is room in all of them."""
    field = shown.detail or shown.whole
    figure, part = field.figure, shown.part
    wide = room.cells.width() / part.width * figure.column_step
    high = room.cells.height() / part.height * figure.row_step
    if wide < CELL_WITH_VALUE[0] or high < CELL_WITH_VALUE[1]:
        return
    common = field.extent.common(part)
    if common is None:
        return
    (top, left), (bottom, right) = (
        field.cell(common.top, common.left) or (0, 0),
        field.cell(common.bottom - 1e-6, common.right - 1e-6) or (figure.height - 1, figure.width - 1),
    )
    values = field.values[top : bottom + 1, left : right + 1]
    bright = shown.scale.bright(values)
    font = QFont(room.font)
    font.setPixelSize(min(11, room.line - 3))
    painter.setFont(font)
    start = place_of(
        room, part, figure.first_row + top * figure.row_step, figure.first_column + left * figure.column_step
    )
    for dark_text in (True, False):
        painter.setPen(QColor("#101316") if dark_text else QColor("#F7F8F9"))
        for i, j in np.argwhere((bright == dark_text) & ~np.isnan(values)).tolist():
            cell = QRectF(start.x() + j * wide, start.y() + i * high, wide, high)
            painter.drawText(cell, Align.AlignCenter, short(float(values[i, j])))


def short(value: float) -> str:
    """At most six letters, mostly five, as a cell has room for: no zero before the point."""
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 10000:
        digits = 2 - floor(log10(abs(value)))  # three of them, at most three behind the point
        text = f"{value:.{min(max(digits, 0), 3)}f}"
        if abs(value) < 1:
            text = text.replace("0.", ".")
    else:
        text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return text.replace("-", "−")


def paint_marked(
    painter: QPainter, room: Room, shown: Shown, place: Marked, color: QColor, width: int
) -> None:
    """A cell's outline on a ground of its own; lines through the map where it is too small for one."""
    row, column = place
    if row is None:
        _paint_marked_column(painter, room, shown, column, color, width)
        return
    found = shown.finest(row + 0.5, column + 0.5)
    if found is None:
        return
    field, i, j = found
    box, cells = rect_of(room, shown.part, field.part_of(i, j)), room.cells
    if min(box.width(), box.height()) < SMALL_CELL:
        faint = QColor(color)
        faint.setAlpha(150)
        painter.setPen(QPen(faint, 1, Qt.PenStyle.DotLine))
        x, y = box.center().x(), box.center().y()
        painter.drawLine(QLineF(x, cells.top(), x, cells.bottom()))
        painter.drawLine(QLineF(cells.left(), y, cells.right(), y))
        wider, higher = (max(0.0, (SMALL_CELL - side) / 2) for side in (box.width(), box.height()))
        box = box.adjusted(-wider, -higher, wider, higher)
    _outline(painter, box, color, width)


def _paint_marked_column(
    painter: QPainter, room: Room, shown: Shown, column: int, color: QColor, width: int
) -> None:
    """A frame from the first visible row to the last, never over what it frames."""
    part = shown.part
    box = rect_of(room, part, Part(part.top, part.bottom, column, column + 1))
    wider = max(0.0, (SMALL_CELL - box.width()) / 2) + width
    _outline(painter, box.adjusted(-wider, 0, wider, 0), color, width)


def _outline(painter: QPainter, box: QRectF, color: QColor, width: int) -> None:
    for pen in (QPen(theme.colors().window, width + 2), QPen(color, width)):
        painter.setPen(pen)
        painter.drawRect(box)


def paint_around(painter: QPainter, room: Room, shown: Shown) -> None:
    """Axes with their names, and the bar."""
    painter.save()
    painter.setFont(room.font)
    painter.setPen(theme.colors().muted)
    _paint_rows(painter, room, shown)
    _paint_columns(painter, room, shown)
    _paint_bar(painter, room, shown.scale, shown.whole.figure.z.label)
    painter.restore()


def _paint_rows(painter: QPainter, room: Room, shown: Shown) -> None:
    figure, part, cells = shown.whole.figure, shown.part, room.cells
    first, stop, _, _ = part.whole_numbers()
    names = figure.rows
    right = cells.left() - TICK - theme.SPACE
    for row in whole_ticks(first, stop, max(1, cells.height() // (room.line + 2))):
        y = place_of(room, part, row + 0.5, part.left).y()
        if not cells.top() <= y <= cells.bottom():
            continue
        cell = shown.whole.cell(row, part.left)
        name = names[cell[0]] if names and cell else f"{row}"
        name = room.metrics.elidedText(name, Qt.TextElideMode.ElideLeft, room.names)
        painter.drawLine(QLineF(cells.left() - TICK, y, cells.left() - 1, y))
        box = QRectF(right - room.names, y - room.line / 2, room.names, room.line)
        painter.drawText(box, Align.AlignRight | Align.AlignVCenter, name)
    _paint_upright(painter, room, 0, figure.y.label)


def _paint_columns(painter: QPainter, room: Room, shown: Shown) -> None:
    figure, part, cells = shown.whole.figure, shown.part, room.cells
    _, _, first, stop = part.whole_numbers()
    room_each = room.metrics.horizontalAdvance(f"{stop}") + 4 * theme.SPACE
    y = cells.bottom() + 1
    for column in whole_ticks(first, stop, max(1, cells.width() // room_each)):
        x = place_of(room, part, part.top, column + 0.5).x()
        if not cells.left() <= x <= cells.right():
            continue
        painter.drawLine(QLineF(x, y, x, y + TICK))
        box = QRectF(x - room_each / 2, y + TICK, room_each, room.line)
        painter.drawText(box, Align.AlignCenter, f"{column}")
    below = QRectF(cells.left(), y + TICK + room.line + theme.SPACE, cells.width(), room.line)
    painter.drawText(below, Align.AlignCenter, figure.x.label)


def _paint_upright(painter: QPainter, room: Room, left: int, text: str) -> None:
    """Text that reads upwards, in the middle of the cells' height."""
    painter.save()
    painter.translate(left, room.cells.center().y() + room.cells.height() / 2)
    painter.rotate(-90)
    box = QRectF(0, 0, room.cells.height(), room.line)
    painter.drawText(
        box,
        Align.AlignCenter,
        room.metrics.elidedText(text, Qt.TextElideMode.ElideRight, room.cells.height()),
    )
    painter.restore()


def _paint_bar(painter: QPainter, room: Room, scale: Scale, name: str) -> None:
    bar = room.bar
    ramp = np.ascontiguousarray(scale.ramp(bar.height()))
    painter.drawImage(QRectF(bar), QImage(ramp.data, 1, len(ramp), 4, QImage.Format.Format_RGB32).copy())
    for value, place in scale.ticks(max(2, bar.height() // (3 * room.line))):
        y = bar.bottom() - place * (bar.height() - 1)
        painter.drawLine(QLineF(bar.right() + 1, y, bar.right() + TICK, y))
        box = QRectF(bar.right() + TICK + theme.SPACE, y - room.line / 2, room.size.width(), room.line)
        painter.drawText(box, Align.AlignLeft | Align.AlignVCenter, compact(value))
    _paint_upright(painter, room, room.size.width() - room.line, name)
