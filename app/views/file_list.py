"""A list of files and folders to choose, with its buttons."""

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.dialogs import ask_file, ask_folder
from app.plain import as_tip, printable
from app.views.parts import button, named

LINES = 3


class FileList(QWidget):
    """Files by name, each with its path as tip; they can be dropped here, too."""

    changed = Signal()

    def __init__(
        self, name: str, empty: str, filters: Sequence[str], *, folders: bool, parent: QWidget | None = None
    ) -> None:
        """`name` is what a screen reader says, `empty` what an empty list means."""
        super().__init__(parent)
        self._name, self._filters = name, list(filters)
        self.setAcceptDrops(True)
        self.list = named(_Lines(empty), name)
        self.list.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self.list.setFixedHeight(LINES * (self.list.fontMetrics().height() + theme.SPACE) + 2 * theme.SPACE)
        self.list.itemSelectionChanged.connect(self._refresh)
        self.list.removal.connect(self.remove_selected)
        self.add_file = named(button("Add file…", f"{name}: add a file"), f"{name}: add a file")
        self.add_folder = named(button("Add folder…", f"{name}: add a folder"), f"{name}: add a folder")
        self.remove = named(button("Remove", ""), f"{name}: remove")
        self.add_file.clicked.connect(self._ask_file)
        self.add_folder.clicked.connect(self._ask_folder)
        self.add_folder.setVisible(folders)
        self.remove.clicked.connect(self.remove_selected)
        buttons = QVBoxLayout()
        buttons.setSpacing(theme.SPACE)
        for one in (self.add_file, self.add_folder, self.remove):
            buttons.addWidget(one)
        buttons.addStretch()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(self.list, 1, Qt.AlignmentFlag.AlignTop)
        row.addLayout(buttons)
        self._refresh()

    @property
    def paths(self) -> list[str]:
        return [self.list.item(row).data(Qt.ItemDataRole.UserRole) for row in range(self.list.count())]

    def add(self, paths: Sequence[str | Path]) -> None:
        """Those that are not in the list yet."""
        before = self.paths
        for path in dict.fromkeys(map(str, paths)):
            if path not in before:
                item = QListWidgetItem(printable(Path(path).name or path))
                item.setData(Qt.ItemDataRole.UserRole, path)
                item.setToolTip(as_tip(path))
                self.list.addItem(item)
        if self.paths != before:
            self.changed.emit()

    def remove_selected(self) -> None:
        for item in self.list.selectedItems():
            self.list.takeItem(self.list.row(item))
            self.changed.emit()

    def _refresh(self) -> None:
        some = bool(self.list.selectedItems())
        self.remove.setEnabled(some)
        tip = f"{self._name}: take what is selected off the list"
        self.remove.setToolTip(tip if some else f"{tip}: nothing is selected")

    def _start(self) -> str:
        paths = self.paths
        return str(Path(paths[-1]).parent if paths else Path.home())

    def _ask_file(self) -> None:
        ask_file(self, self._name, self._start(), self._filters, lambda path: self.add([path]))

    def _ask_folder(self) -> None:
        ask_folder(self, self._name, self._start(), lambda path: self.add([path]))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.add([url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()])
        event.acceptProposedAction()


class _Lines(QListWidget):
    """Says what it means to be empty, and when Del is pressed."""

    removal = Signal()

    def __init__(self, empty: str) -> None:
        super().__init__()
        self._empty = empty
        self.setAccessibleDescription(f"Empty: {empty}")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Delete:
            self.removal.emit()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        event.ignore()  # the whole of it takes drops

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        event.ignore()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self.count():
            return
        painter = QPainter(self.viewport())
        painter.setPen(theme.colors().muted)
        area = self.viewport().rect().adjusted(theme.SPACE, theme.SPACE, -theme.SPACE, -theme.SPACE)
        painter.drawText(area, Qt.AlignmentFlag.AlignLeft | Qt.TextFlag.TextWordWrap, self._empty)
        painter.end()
