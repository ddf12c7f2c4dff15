"""The list in which formats and presets are chosen: by mouse, by keys, by the first letters of a name."""

from PySide6.QtCore import QModelIndex, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFrame, QLabel, QTreeView, QVBoxLayout, QWidget

from app import theme
from app.models.offers import FIGURE, NAME, NAME_ROLE, SUMMARY, OfferModel

ROW_HEIGHT = 23
GAP = 16
"""Pixels between columns."""

MOST_SUMMARY = 560
SCREEN_MARGIN = 24

LOOKS = f"""
QTreeView::item {{ padding: 0 {theme.SPACE}px; border: 0; height: {ROW_HEIGHT}px; }}
QTreeView::item:selected {{ background: palette(highlight); color: palette(highlighted-text); }}
"""


class OfferView(QTreeView):
    """Shows an `OfferModel`, without a header: the lines explain themselves."""

    def __init__(self, name: str, model: OfferModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setIndentation(0)
        self.setUniformRowHeights(True)
        self.setAllColumnsShowFocus(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setIconSize(QSize(theme.ICON_SIZE - 4, theme.ICON_SIZE - 4))
        self.setStyleSheet(LOOKS)
        self.setModel(model)
        for row in model.headings:
            self.setFirstColumnSpanned(row, QModelIndex(), True)

    def fit_columns(self, figure: str = "") -> int:
        """Make columns as wide as their texts, room for `figure` included; the width of all."""
        header = self.header()
        header.setStretchLastSection(True)
        header.setMinimumSectionSize(1)
        widths = [self.sizeHintForColumn(column) + GAP for column in (NAME, FIGURE, SUMMARY)]
        widths[FIGURE] = max(widths[FIGURE], self.fontMetrics().horizontalAdvance(figure) + 2 * GAP)
        widths[SUMMARY] = min(widths[SUMMARY], MOST_SUMMARY)
        for column in (NAME, FIGURE):
            header.resizeSection(column, widths[column])
        return sum(widths)


class OfferPopup(QFrame):
    """The list over the window until one is chosen, Escape, or a click elsewhere."""

    chosen = Signal(str)
    """The name of an offer."""

    def __init__(self, name: str, model: OfferModel, parent: QWidget, figure: str, note: str) -> None:
        """`figure`: the widest there may be, also of those that are still to come. `note`: a last line."""
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAccessibleName(name)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.model = model
        model.setParent(self)
        self.view = OfferView(name, model)
        self.view.setMouseTracking(True)
        self.view.entered.connect(self._follow_mouse)
        self.view.clicked.connect(self._choose)
        self.setFocusProxy(self.view)
        column = QVBoxLayout(self)
        column.setContentsMargins(*[theme.SPACE] * 4)
        column.setSpacing(theme.SPACE)
        column.addWidget(self.view)
        self._note = QLabel(note, textFormat=Qt.TextFormat.PlainText)
        self._note.setMargin(theme.SPACE)
        self._note.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        column.addWidget(self._note)
        bar = self.view.verticalScrollBar().sizeHint().width()
        self._width = self.view.fit_columns(figure) + 2 * theme.SPACE + bar + 2

    def open_at(self, where: QPoint, present: str = "") -> None:
        """Below `where` (of the screen), moved so far that it stands on the screen; `present` in sight."""
        room = self.screen().availableGeometry()
        frame = self._note.sizeHint().height() + 3 * theme.SPACE + 4
        wanted = self.model.rowCount() * ROW_HEIGHT + frame
        height = min(wanted, room.height() - 4 * SCREEN_MARGIN)
        place = QRect(where, QSize(min(self._width, room.width()), height))
        place.moveRight(min(place.right(), room.right() - theme.SPACE))
        place.moveBottom(min(place.bottom(), room.bottom() - theme.SPACE))
        place.moveLeft(max(place.left(), room.left()))
        self.setGeometry(place)
        self.show()
        self.view.setFocus(Qt.FocusReason.PopupFocusReason)
        if present:
            index = self.model.index(self.model.row_of(present), NAME)
            self.view.setCurrentIndex(index)
            self.view.scrollTo(index, QTreeView.ScrollHint.PositionAtCenter)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """What the list leaves: it takes arrows and letters itself."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._choose(self.view.currentIndex())
        elif event.key() == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    def _follow_mouse(self, index: QModelIndex) -> None:
        if index.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.view.setCurrentIndex(index.siblingAtColumn(NAME))

    def _choose(self, index: QModelIndex) -> None:
        if index.isValid() and index.flags() & Qt.ItemFlag.ItemIsEnabled:
            name = index.siblingAtColumn(NAME).data(NAME_ROLE)
            self.close()
            self.chosen.emit(name)
