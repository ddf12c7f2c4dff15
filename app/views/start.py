"""The start page: what the program is, what one can do with it, and the models opened last."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPoint, QSize, Qt, Signal, SignalInstance
from PySide6.QtGui import QAction, QFont, QKeyEvent, QKeySequence, QPainter, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListView,
    QMenu,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.background import Latest
from app.plain import as_tip
from app.theme import SPACE

SENTENCE = "See what quantization does to a language model, choose the bits, write a file that runtimes load."
STEPS = (
    ("Open a model", "A Hugging Face folder, or a .gguf or .safetensors file."),
    ("Look at its layers, choose the bits", "A preset to start from; then any tensor by itself."),
    ("Run", "The GGUF is written, read back, compared, and measured against the original."),
)
PathRole, MissingRole = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
COLUMN_WIDTH = 440
ROW_HEIGHT = 48
LARGE, MIDDLE = 2.2, 1.2
"""Sizes of text beside the system's."""


class StartPage(QWidget):
    """Says by signals what is asked for; knows no dialogs."""

    open_folder = Signal()
    open_file = Signal()
    open_sample = Signal()
    open_recent = Signal(str)
    remove_recent = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Start page")
        self.recent = RecentList()
        self.recent.chosen.connect(self.open_recent)
        self.recent.removed.connect(self.remove_recent)
        columns = QHBoxLayout()
        columns.setSpacing(20 * SPACE)
        columns.addStretch(1)
        columns.addWidget(self._left())
        columns.addWidget(self._right())
        columns.addStretch(1)
        self._hint = _Muted("…or drop a folder or a file anywhere in the window.")
        page = QVBoxLayout(self)
        page.setContentsMargins(*[4 * SPACE] * 4)
        page.addStretch(2)
        page.addLayout(columns)
        page.addStretch(3)
        page.addWidget(self._hint, 0, Qt.AlignmentFlag.AlignHCenter)
        theme.notifier().changed.connect(self._tint)
        self._tint()

    def set_recent(self, paths: Sequence[str]) -> None:
        """The models opened last, the newest first."""
        self.recent.show_paths(list(paths))
        self._none.setVisible(not paths)
        self.recent.setVisible(bool(paths))

    def _left(self) -> QWidget:
        side = QWidget()
        side.setFixedWidth(COLUMN_WIDTH)
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(_title())
        column.addSpacing(3 * SPACE)
        column.addWidget(_wrapped(SENTENCE))
        column.addSpacing(8 * SPACE)
        column.addLayout(_steps())
        column.addSpacing(8 * SPACE)
        column.addLayout(self._buttons())
        column.addStretch(1)
        return side

    def _buttons(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(3 * SPACE)
        grid.setVerticalSpacing(2 * SPACE)
        grid.setColumnStretch(1, 1)
        keys = QKeySequence(QKeySequence.StandardKey.Open).toString(QKeySequence.SequenceFormat.NativeText)
        self.folder_button = self._button("Open &folder…", "folder-open", self.open_folder)
        self.folder_button.setDefault(True)
        self.folder_button.setIcon(theme.icon("folder-open", "on_accent"))
        self.file_button = self._button("Open f&ile…", "file", self.open_file)
        self.sample_button = self._button("&Try the sample model", "flask", self.open_sample)
        beside = (keys, "Ctrl+Shift+O", "small, at once, nothing to download")
        for row, button in enumerate((self.folder_button, self.file_button, self.sample_button)):
            grid.addWidget(button, row, 0)
            grid.addWidget(_Muted(beside[row]), row, 1)
        return grid

    def _button(self, text: str, icon: str, asked: SignalInstance) -> QPushButton:
        button = QPushButton(theme.icon(icon), text)
        button.setAccessibleName(text.replace("&", ""))
        button.setIconSize(QSize(theme.ICON_SIZE, theme.ICON_SIZE))
        button.setMinimumSize(52 * SPACE, 10 * SPACE)
        button.clicked.connect(lambda _checked=False: asked.emit())
        return button

    def _right(self) -> QWidget:
        side = QWidget()
        side.setFixedWidth(COLUMN_WIDTH)
        self._none = _Muted("Models that you open are listed here.")
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 4 * SPACE, 0, 0)
        column.setSpacing(2 * SPACE)
        heading = _scaled(QLabel("Recent"), MIDDLE)
        heading.setBuddy(self.recent)
        for label in (heading, self._none):
            label.setIndent(2 * SPACE)  # in line with the rows of the list
        column.addWidget(heading)
        column.addWidget(self._none)
        column.addWidget(self.recent, 1)
        column.addStretch(0)
        self.recent.hide()
        return side

    def _tint(self) -> None:
        for label in self.findChildren(_Muted):
            label.tint()


class RecentList(QListView):
    """Models by name and folder. Enter or a click opens, Delete or the context menu takes one off."""

    chosen = Signal(str)
    removed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._paths = QStandardItemModel(self)
        self._finder = Latest(self)
        self._finder.answered.connect(self._mark_missing)
        self.setModel(self._paths)
        self.setItemDelegate(_RecentRow(self))
        self.setAccessibleName("Recent models")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.viewport().setAutoFillBackground(False)
        self.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.clicked.connect(self._choose)
        self._remove = QAction("&Remove from the list", self)
        self._remove.setShortcut(QKeySequence(Qt.Key.Key_Delete))
        self._remove.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        self._remove.triggered.connect(self._remove_current)
        self.addAction(self._remove)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._show_menu)

    def show_paths(self, paths: list[str]) -> None:
        self._paths.clear()
        for path in paths:
            item = QStandardItem(Path(path).name or path)
            item.setData(path, PathRole)
            item.setToolTip(as_tip(path))
            item.setAccessibleText(f"{item.text()} in {Path(path).parent}")
            self._paths.appendRow(item)
        self.setMinimumHeight(min(len(paths), 8) * ROW_HEIGHT)
        if paths:
            self.setCurrentIndex(self._paths.index(0, 0))
        self._finder.ask(partial(_missing, paths))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self._choose(self.currentIndex())
        else:
            super().keyPressEvent(event)

    def missing(self) -> list[str]:
        """Those that are known not to be there any more."""
        items = [self._paths.item(row) for row in range(self._paths.rowCount())]
        return [item.data(PathRole) for item in items if item.data(MissingRole)]

    def _mark_missing(self, missing: frozenset[str]) -> None:
        for row in range(self._paths.rowCount()):
            item = self._paths.item(row)
            if item.data(PathRole) in missing:
                item.setData(True, MissingRole)
                gone = "It is not there any more, or its disk is not."
                item.setToolTip(as_tip(f"{item.data(PathRole)}\n{gone}"))
                item.setAccessibleText(f"{item.text()}, not there any more")

    def _choose(self, index: QModelIndex) -> None:
        self.chosen.emit(index.data(PathRole))

    def _remove_current(self) -> None:
        if self.currentIndex().isValid():
            self.removed.emit(self.currentIndex().data(PathRole))

    def _show_menu(self, where: QPoint) -> None:
        index = self.indexAt(where)
        if index.isValid():
            self.setCurrentIndex(index)
            menu = QMenu(self)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.addAction("&Open").triggered.connect(lambda _checked=False: self._choose(index))
            menu.addAction(self._remove)
            menu.popup(self.viewport().mapToGlobal(where))


def _missing(paths: list[str]) -> frozenset[str]:
    return frozenset(path for path in paths if not _exists(path))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long a name, a folder that may not be read
        return False


class _RecentRow(QStyledItemDelegate):
    """Name above, folder below; a missing one in grey with the reason."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        of, missing = theme.colors(), bool(index.data(MissingRole))
        painter.save()
        shown = QStyle.StateFlag.State_MouseOver
        if option.widget.hasFocus():
            shown |= QStyle.StateFlag.State_Selected
        if option.state & shown:
            painter.fillRect(option.rect, of.selection)
        rect = option.rect.adjusted(2 * SPACE, SPACE, -2 * SPACE, -SPACE)
        half = rect.height() // 2
        folder = str(Path(index.data(PathRole)).parent)
        below = f"not there any more · {folder}" if missing else folder
        for text, top, color in (
            (index.data(), 0, of.disabled if missing else of.text),
            (below, half, of.muted),
        ):
            line = rect.adjusted(0, top, 0, top - half)
            elided = option.fontMetrics.elidedText(text, Qt.TextElideMode.ElideMiddle, line.width())
            painter.setPen(color)
            painter.drawText(line, Qt.AlignmentFlag.AlignVCenter, elided)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(COLUMN_WIDTH // 2, ROW_HEIGHT)


class _Muted(QLabel):
    """Text of less importance, in the color of the moment."""

    def tint(self) -> None:
        palette = self.palette()
        palette.setColor(self.foregroundRole(), theme.colors().muted)
        self.setPalette(palette)


def _title() -> QHBoxLayout:
    picture = QLabel()
    picture.setPixmap(theme.app_icon().pixmap(56, 56))
    picture.setAccessibleName("Bitwright's icon")
    row = QHBoxLayout()
    row.setSpacing(4 * SPACE)
    row.addWidget(picture)
    row.addWidget(_scaled(QLabel("Bitwright"), LARGE), 1)
    return row


def _steps() -> QGridLayout:
    grid = QGridLayout()
    grid.setHorizontalSpacing(4 * SPACE)
    grid.setVerticalSpacing(0)
    grid.setColumnStretch(1, 1)
    for number, (title, text) in enumerate(STEPS):
        figure = _scaled(_Muted(str(number + 1)), MIDDLE)
        grid.addWidget(figure, 3 * number, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(_scaled(QLabel(title), 1.0, bold=True), 3 * number, 1)
        grid.addWidget(_wrapped(text, _Muted()), 3 * number + 1, 1)
        grid.setRowMinimumHeight(3 * number + 2, 3 * SPACE)
    return grid


def _scaled(label: QLabel, scale: float, bold: bool | None = None) -> QLabel:
    font = QFont(label.font())
    font.setPointSizeF(font.pointSizeF() * scale)
    font.setWeight(QFont.Weight.DemiBold if bold or scale > 1 else QFont.Weight.Normal)
    label.setFont(font)
    return label


def _wrapped(text: str, label: QLabel | None = None) -> QLabel:
    label = label or QLabel()
    label.setText(text)
    label.setWordWrap(True)
    return label
