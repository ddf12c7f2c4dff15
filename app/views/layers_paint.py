"""How the lines of the table of layers are painted.

Not by delegates: the view would ask for every cell whether it is selected, and go through a range for each
group to know it; the style would ask the model for eight things and the style sheet for its rules. That looks
the same, but takes six times as long: 17 ms for a window of selected lines.
"""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRect, Qt
from PySide6.QtGui import QFont, QPainter, QStaticText, QTransform

from app import theme
from app.models.layer_lines import FIGURES, Column, Line
from app.models.layers import LayersModel

MARGIN = theme.SPACE + 3
"""Left and right of a text."""

MOST_KEPT = 4096
"""Texts of which it is kept how they are laid out."""

BAR_HEIGHT = 6
FULL_BITS = 16.0
"""The bits of a full bar; more do not make it longer."""

FIGURE_WIDTH = 44
"""Of the figure right of the bar."""

MARK = 6
PIN = 14

Cell = tuple[Column, QRect]


class LinePainter:
    """Paints lines of `model`. How texts are laid out in a font and a width is kept: most occur often."""

    def __init__(self, model: LayersModel) -> None:
        self._model = model
        self._laid_out: dict[tuple[str, int, int], tuple[QStaticText, float, int]] = {}

    def paint(
        self, painter: QPainter, line: Line, inside: bool, cells: Sequence[Cell], selected: bool, font: QFont
    ) -> None:
        """The `cells` of the line of a tensor, `inside` a group, or of a group. `font`: where it has none."""
        colors = theme.colors()
        for column, place in cells:
            quiet = not selected and self._model.is_quiet(line, column, inside)
            own = self._model.font(column, inside)
            painter.setFont(own or font)
            painter.setPen(colors.muted if quiet else colors.text)
            room = place.width() - 2 * MARGIN
            text, width, height = self._lay_out(painter, line.texts[column], id(own), room)
            left = place.x() + MARGIN + (room - width if column in FIGURES else 0)
            painter.drawStaticText(QPointF(left, place.y() + place.height() // 2 - height // 2), text)
            if column == Column.FORMAT:
                _paint_marks(painter, line, place)
            elif column == Column.BITS and line.bits is not None:
                _paint_bar(painter, line.bits, line.quiet, place)

    def _lay_out(self, painter: QPainter, text: str, font: int, room: int) -> tuple[QStaticText, float, int]:
        """`text` in the font of `painter`, cut to fit into `room`; its width and height."""
        key = text, font, room
        found = self._laid_out.get(key)
        if found is None:
            if len(self._laid_out) >= MOST_KEPT:
                self._laid_out.clear()
            shown = QStaticText(painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room))
            shown.setTextFormat(Qt.TextFormat.PlainText)
            shown.prepare(QTransform(), painter.font())
            size = shown.size()
            found = self._laid_out[key] = shown, size.width(), int(size.height())
        return found


def _paint_marks(painter: QPainter, line: Line, place: QRect) -> None:
    """A pin, and a dot where something was changed."""
    right, middle = place.right() - theme.SPACE, place.center().y()
    if line.changed:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.colors().accent)
        painter.drawEllipse(QRect(right - MARK, middle - MARK // 2 + 1, MARK, MARK))
        painter.restore()
    if line.pinned:
        inside = QRect(right - MARK - theme.SPACE - PIN, middle - PIN // 2 + 1, PIN, PIN)
        theme.icon("push-pin").paint(painter, inside)


def _paint_bar(painter: QPainter, bits: float, quiet: bool, place: QRect) -> None:
    """Bits as a bar left of their figure; muted where there was nothing to choose."""
    colors = theme.colors()
    room = place.adjusted(2 * theme.SPACE, 0, -FIGURE_WIDTH - theme.SPACE, 0)
    top = place.center().y() - BAR_HEIGHT // 2 + 1
    length = round(room.width() * min(1.0, bits / FULL_BITS))
    painter.fillRect(QRect(room.left(), top, room.width(), BAR_HEIGHT), colors.grid)
    painter.fillRect(QRect(room.left(), top, length, BAR_HEIGHT), colors.border if quiet else colors.accent)
