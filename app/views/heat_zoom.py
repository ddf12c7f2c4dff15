"""Where zooming and moving in a heat map lead."""

from PySide6.QtCore import QPoint, QRect, QSize

from app.views.heat_field import Part

LEAST_ROWS, LEAST_COLUMNS = 2.0, 4.0
LARGE_ROW, LARGE_COLUMN = 32, 64
"""Pixels of one row, of one column: zooming in at a place goes on with the other axis alone from here on."""

FLAT = 8
"""A stroke of fewer pixels in height is meant for its columns (in width: for its rows) alone."""


def within(part: Part, extent: Part) -> Part:
    """`part` as near as it can lie in `extent`: not smaller than a few cells, not outside."""
    top, bottom = _within(part.top, part.bottom, extent.top, extent.bottom, LEAST_ROWS)
    left, right = _within(part.left, part.right, extent.left, extent.right, LEAST_COLUMNS)
    return Part(top, bottom, left, right)


def _within(low: float, high: float, least: float, most: float, shortest: float) -> tuple[float, float]:
    span = min(max(high - low, shortest), most - least)
    low = (low + high - span) / 2
    low = min(max(low, least), most - span)
    return (least, most) if span == most - least else (low, low + span)


def moved(part: Part, down: float, right: float) -> Part:
    """The same size, elsewhere."""
    return Part(part.top + down, part.bottom + down, part.left + right, part.right + right)


def around(part: Part, place: tuple[float, float], factor: float, size: QSize) -> Part:
    """`part` on `size` pixels enlarged `factor` times, with what is at `place` left where it is.

    Maps have far more columns than rows: an axis whose cells are large enough is not enlarged further.
    """
    row, column = place
    tall, wide = part.height / factor, part.width / factor
    if factor > 1:
        tall = max(tall, min(part.height, size.height() / LARGE_ROW))
        wide = max(wide, min(part.width, size.width() / LARGE_COLUMN))
    up, left = (row - part.top) / part.height * tall, (column - part.left) / part.width * wide
    return Part(row - up, row - up + tall, column - left, column - left + wide)


def opened(start: QPoint, end: QPoint, cells: QRect) -> QRect:
    """The rectangle that a stroke opens within `cells`; a flat one takes all of the other axis."""
    box = QRect(start, end).normalized() & cells
    if box.height() < FLAT and box.width() >= FLAT:
        return QRect(box.left(), cells.top(), box.width(), cells.height())
    if box.width() < FLAT and box.height() >= FLAT:
        return QRect(cells.left(), box.top(), cells.width(), box.height())
    return box
