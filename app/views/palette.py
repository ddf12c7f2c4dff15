"""The command palette: type some letters of any command, Enter runs it."""

from collections.abc import Iterable

from PySide6.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QSize,
    Qt,
)
from PySide6.QtGui import QAction, QFocusEvent, QIcon, QKeyEvent, QKeySequence, QPainter
from PySide6.QtWidgets import (
    QFrame,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.theme import ICON_SIZE, SPACE

WIDTH, ROW_HEIGHT, MOST_ROWS = 600, 32, 12
MOVES = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown)
ActionRole = Qt.ItemDataRole.UserRole


class CommandPalette(QFrame):
    """Stands over the window until a command is run, Escape, or a click elsewhere."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent.window())
        self.setAutoFillBackground(True)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAccessibleName("Commands")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._actions: list[QAction] = []
        self._model = _Commands(self)
        self.field = QLineEdit(placeholderText="Type a command", clearButtonEnabled=True)
        self.field.setAccessibleName("Filter commands")
        self.field.textChanged.connect(self._filter)
        self.field.installEventFilter(self)
        self.list = QListView(uniformItemSizes=True)
        self.list.setAccessibleName("Commands that match")
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setModel(self._model)
        self.list.setItemDelegate(_CommandRow(self.list))
        self.list.clicked.connect(self._run)
        column = QVBoxLayout(self)
        column.setContentsMargins(*[2 * SPACE] * 4)
        column.setSpacing(2 * SPACE)
        column.addWidget(self.field)
        column.addWidget(self.list)
        self.resize(WIDTH, (MOST_ROWS + 1) * ROW_HEIGHT + 7 * SPACE)

    def open(self, actions: Iterable[QAction]) -> None:
        """List `actions`; the disabled ones too, with the reason in their status tip."""
        self._actions = list(actions)
        self.field.clear()
        self._filter("")
        self.move((self.window().width() - self.width()) // 2, 16 * SPACE)
        self.show()
        self.raise_()
        self.field.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.field and isinstance(event, QFocusEvent) and event.lostFocus():
            if event.reason() != Qt.FocusReason.PopupFocusReason:  # the field's own menu
                self.close()
            return False
        if watched is self.field and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() in MOVES:
                self.list.event(event)
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run(self.list.currentIndex())
                return True
            if event.key() == Qt.Key.Key_Escape:
                self.close()
                return True
        return super().eventFilter(watched, event)

    def _filter(self, typed: str) -> None:
        self._model.show(_matching(self._actions, typed))
        self.list.setCurrentIndex(self._model.index(0))

    def _run(self, index: QModelIndex) -> None:
        action = index.data(ActionRole)
        if action is not None and action.isEnabled():
            self.close()
            action.trigger()


def words(action: QAction) -> str:
    """The text of an action without mnemonic and dots, behind that of its submenu: "Theme: Dark"."""
    text = action.text().replace("&&", "\0").replace("&", "").replace("\0", "&").rstrip("…")
    submenu = action.property("submenu")
    return f"{submenu}: {text}" if submenu else text


def _matching(actions: list[QAction], typed: str) -> list[QAction]:
    """Those in which every typed word is found, by letters in order; the best first, then as they came."""
    scored = []
    for action in actions:
        scores = [_score(part, words(action).lower()) for part in typed.lower().split()]
        if None not in scores:
            scored.append((sum(score or 0 for score in scores), action))
    return [action for _, action in sorted(scored, key=lambda pair: pair[0])]


def _score(part: str, text: str) -> int | None:
    """0: begins a word of `text`, 1: stands in it, 2 and more: its letters do, so many apart; None: no."""
    if any(word.startswith(part) for word in text.split()):
        return 0
    if part in text:
        return 1
    first = place = text.find(part[0])
    for letter in part[1:]:
        place = text.find(letter, place + 1) if place >= 0 else -1
    return 2 + place - first if place >= 0 else None


class _Commands(QAbstractListModel):
    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._actions: list[QAction] = []

    def show(self, actions: list[QAction]) -> None:
        self.beginResetModel()
        self._actions = actions
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._actions)

    def data(
        self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        action = self._actions[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return words(action)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return words(action) if action.isEnabled() else f"{words(action)}. {action.statusTip()}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return action.toolTip()
        return action if role == ActionRole else None


class _CommandRow(QStyledItemDelegate):
    """Icon and name on the left; on the right keys or what it is or, for a disabled action, the reason."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        action: QAction = index.data(ActionRole)
        usable, of = action.isEnabled(), theme.colors()
        painter.save()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, of.selection)
        rect = option.rect.adjusted(2 * SPACE, 0, -2 * SPACE, 0)
        mode = QIcon.Mode.Normal if usable else QIcon.Mode.Disabled
        action.icon().paint(painter, QRect(rect.topLeft(), QSize(ICON_SIZE, rect.height())), mode=mode)
        rect.adjust(ICON_SIZE + 2 * SPACE, 0, 0, 0)
        painter.setPen(of.text if usable else of.disabled)
        middle, name = Qt.AlignmentFlag.AlignVCenter, words(action)
        painter.drawText(rect, middle, name)
        keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        metrics = option.fontMetrics
        rect.adjust(metrics.horizontalAdvance(name) + 6 * SPACE, 0, 0, 0)
        painter.setPen(of.muted)
        beside = (keys or action.property("beside") or "") if usable else action.statusTip()
        beside = metrics.elidedText(beside, Qt.TextElideMode.ElideRight, rect.width())
        painter.drawText(rect, middle | Qt.AlignmentFlag.AlignRight, beside)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(WIDTH // 2, ROW_HEIGHT)
