"""The boxes in which the table of layers offers choices; lines are painted in `app.views.layers_paint`."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QAbstractItemModel, QObject, QSize, QTimer
from PySide6.QtWidgets import QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app import theme
from app.models.layers import LINE_ROLE, Index
from app.models.offers import Offer, OfferModel
from app.views.offers import OfferView

ROW_HEIGHT = 24


class RowDelegate(QStyledItemDelegate):
    """Rows of one height."""

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
        offers = OfferModel({"": self._offers(index)}, marked=False, parent=box)
        view = OfferView(self._name, offers)
        box.setModel(offers)
        box.setView(view)
        box.setMaxVisibleItems(offers.rowCount())
        view.setMinimumWidth(view.fit_columns() + 2 * theme.SPACE)
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
