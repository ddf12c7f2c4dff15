"""Cells of the table of layers that are more than text: choices, marks, and bits as a bar."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QAbstractItemModel, QObject, QRect, QSize, Qt, QTimer
from PySide6.QtGui import QPainter, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app import theme
from app.models.layers import LINE_ROLE, Index
from app.plain import as_tip
from app.views.layers_edits import Offer

ROW_HEIGHT = 24
BAR_HEIGHT = 6
FULL_BITS = 16.0
"""The bits of a full bar; more do not make it longer."""

MARK = 6
PIN = 14


class RowDelegate(QStyledItemDelegate):
    """Text, in rows of one height."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(super().sizeHint(option, index).width(), ROW_HEIGHT)


class ChoiceDelegate(RowDelegate):
    """Offers the choices for a cell in a box; `choose(index, name)` is what becomes of it."""

    def __init__(
        self,
        name: str,
        offers: Callable[[Index], list[Offer]],
        choose: Callable[[Index, str], None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._name, self._offers, self._choose = name, offers, choose

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        box = QComboBox(parent)
        box.setAccessibleName(self._name)
        items = QStandardItemModel(box)
        for offer in self._offers(index):
            item = QStandardItem(offer.text)
            item.setData(offer.name, Qt.ItemDataRole.UserRole)
            item.setToolTip(as_tip(offer.reason))
            item.setEnabled(offer.possible)
            items.appendRow(item)
        box.setModel(items)
        box.activated.connect(lambda: self._take(box))
        QTimer.singleShot(0, box, box.showPopup)
        return box

    def _take(self, box: QWidget) -> None:
        self.commitData.emit(box)
        self.closeEditor.emit(box, self.EndEditHint.NoHint)

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        asked = index.data(LINE_ROLE).texts[index.column()].rpartition(" ")[2]
        editor.setCurrentIndex(editor.findData(asked))

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        name = editor.currentData()
        if name is not None:
            self._choose(index, name)

    def updateEditorGeometry(self, editor: QWidget, option: Any, index: Index) -> None:
        editor.setGeometry(option.rect.adjusted(0, 0, 24, 0))


class FormatDelegate(ChoiceDelegate):
    """Marks what the line says: a pin, and a dot where it was changed."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        super().paint(painter, option, index)
        line = index.data(LINE_ROLE)
        right, middle = option.rect.right() - theme.SPACE, option.rect.center().y()
        if line.changed:
            painter.save()
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.colors().accent)
            painter.drawEllipse(QRect(right - MARK, middle - MARK // 2 + 1, MARK, MARK))
            painter.restore()
        if line.pinned:
            place = QRect(right - MARK - theme.SPACE - PIN, middle - PIN // 2 + 1, PIN, PIN)
            theme.icon("push-pin").paint(painter, place)


class BitsDelegate(RowDelegate):
    """Bits as a bar on the left and a figure on the right; muted where there was nothing to choose."""

    FIGURE_WIDTH = 44

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        super().paint(painter, option, index)
        line = index.data(LINE_ROLE)
        if line.bits is None:
            return
        colors = theme.colors()
        room = option.rect.adjusted(2 * theme.SPACE, 0, -self.FIGURE_WIDTH - theme.SPACE, 0)
        top = option.rect.center().y() - BAR_HEIGHT // 2 + 1
        length = round(room.width() * min(1.0, line.bits / FULL_BITS))
        painter.fillRect(QRect(room.left(), top, room.width(), BAR_HEIGHT), colors.grid)
        painter.fillRect(
            QRect(room.left(), top, length, BAR_HEIGHT), colors.border if line.quiet else colors.accent
        )
