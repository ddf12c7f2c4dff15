"""The jobs dock: what runs, what ran, and what can be done with it."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPoint, QRectF, QSize, Qt, QUrl, Signal
from PySide6.QtGui import QAction, QDesktopServices, QPainter, QPalette
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QStackedLayout,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.jobs import JobBoard, JobRecord
from app.models.jobs import ACTIVE, RECORD, Column, JobsModel, share

ROW_HEIGHT = 24
BAR_HEIGHT = 6
PERCENT_WIDTH = 48
WIDTHS = {Column.JOB: 380, Column.STATE: 112, Column.PROGRESS: 170, Column.RATE: 100, Column.LEFT: 90}


class JobsPanel(QWidget):
    """The buttons act on the `current` job, which is the selected one."""

    show_result = Signal(object)
    show_log = Signal(object)
    resume_requested = Signal(object)
    stop_requested = Signal(object)
    current_changed = Signal()
    """Another job is `current`, or it can do something else now."""

    def __init__(self, board: JobBoard, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._board = board
        self._model = JobsModel(board, self)
        self._make_view()
        self._make_actions()
        self._lay_out()
        self._model.rowsInserted.connect(self._choose_new)
        self._model.dataChanged.connect(self._refresh)
        self.view.selectionModel().currentRowChanged.connect(self._refresh)
        if self._model.rowCount():
            self.view.setCurrentIndex(self._model.index(0, 0))
        self._refresh()

    @property
    def current(self) -> JobRecord | None:
        index = self.view.currentIndex()
        return self._model.record(index.row()) if index.isValid() else None

    def select(self, record: JobRecord) -> None:
        self.view.setCurrentIndex(self._model.index(self._model.row_of(record), 0))

    # ------------------------------------------------------------------------------ its making

    def _make_view(self) -> None:
        view = self.view = QTreeView()
        view.setModel(self._model)
        view.setItemDelegate(RowDelegate(view))
        view.setItemDelegateForColumn(Column.PROGRESS, ProgressDelegate(view))
        view.setRootIsDecorated(False)
        view.setUniformRowHeights(True)
        view.setAllColumnsShowFocus(True)
        view.setFrameShape(QTreeView.Shape.NoFrame)
        view.setFont(theme.figures_font(view.font()))
        view.setIconSize(QSize(16, 16))
        view.setStyleSheet("QTreeView::item { padding: 0 5px; }")  # level with the header's words
        view.setAccessibleName("Jobs, the newest first")
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.customContextMenuRequested.connect(self._show_menu)
        view.activated.connect(self._open_current)  # double click or Enter
        header = view.header()
        header.setStretchLastSection(False)
        for column, width in WIDTHS.items():
            header.resizeSection(column, width)
        header.setSectionResizeMode(Column.DETAIL, QHeaderView.ResizeMode.Stretch)

    def _make_actions(self) -> None:
        self.stop = self._action("Stop", "stop", self.stop_requested.emit)
        self.resume = self._action("Resume", "arrow-clockwise", self.resume_requested.emit)
        self.result = self._action("Show result", "chart-bar", self.show_result.emit)
        self.folder = self._action("Open folder", "folder-open", open_output_folder)
        self.log = self._action("Log", "article", self.show_log.emit)

    def _action(self, text: str, icon: str, act: Callable[[JobRecord], object]) -> QAction:
        action = QAction(theme.icon(icon), text, self)

        def trigger() -> None:
            if self.current is not None:
                act(self.current)

        action.triggered.connect(trigger)
        return action

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setContentsMargins(2 * theme.SPACE, theme.SPACE, 2 * theme.SPACE, theme.SPACE)
        buttons.setSpacing(theme.SPACE)
        for action in self._all_actions():
            button = QToolButton()
            button.setAutoRaise(True)
            button.setDefaultAction(action)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            button.setAccessibleName(f"{action.text()} (selected job)")
            buttons.addWidget(button)
        buttons.addStretch()
        self._empty = QLabel("No jobs yet. Run quantizes the open model; its progress is shown here.")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addLayout(buttons)
        rows.addWidget(self.view, 1)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(page)

    def _all_actions(self) -> list[QAction]:
        return [self.stop, self.resume, self.result, self.folder, self.log]

    # ------------------------------------------------------------------------------ what it does

    def _choose_new(self, parent: QModelIndex, first: int, last: int) -> None:
        """A job that was started here is what one wants to see; old ones from disk are not."""
        if self._model.record(first).state == "starting" or not self.view.currentIndex().isValid():
            self.view.setCurrentIndex(self._model.index(first, 0))
        self._refresh()

    def _refresh(self) -> None:
        self._stack.setCurrentIndex(1 if self._model.rowCount() else 0)
        record = self.current
        here = record is not None and record in self._board.active
        self._offer(self.stop, "Stop the job; what is finished is kept", _stop_refusal(record, here))
        self._offer(self.resume, "Go on behind the last finished part", _resume_refusal(record))
        self._offer(self.result, "Show what came of it", _result_refusal(record))
        self._offer(
            self.folder, "Open the folder of the output", "" if record and record.output else "no job"
        )
        self._offer(
            self.log, "Show what the engine wrote", "" if record and record.log else "it has no log yet"
        )
        self.current_changed.emit()

    def _offer(self, action: QAction, tip: str, refusal: str) -> None:
        tip = f"{tip}: not now, {refusal}" if refusal else tip
        action.setEnabled(not refusal)
        action.setToolTip(tip)
        action.setStatusTip(tip)

    def _open_current(self) -> None:
        (self.result if self.result.isEnabled() else self.log).trigger()

    def _show_menu(self, place: QPoint) -> None:
        if self.view.indexAt(place).isValid():
            self.menu().popup(self.view.viewport().mapToGlobal(place))

    def menu(self) -> QMenu:
        """What can be done with the current job."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setAccessibleName("Job")
        menu.setToolTipsVisible(True)
        menu.addActions(self._all_actions())
        return menu


def open_output_folder(record: JobRecord) -> None:
    """Show the folder of a job's output in the desktop's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(Path(record.output).parent)))


def _stop_refusal(record: JobRecord | None, here: bool) -> str:
    if record is None:
        return "no job is selected"
    if record.state == "stopping":
        return "it is stopping already"
    if here:
        return ""
    return "it runs in another process" if record.state == "running" else "it does not run"


def _resume_refusal(record: JobRecord | None) -> str:
    if record is None:
        return "no job is selected"
    if record.resumable:
        return ""
    if record.state == "replaced":
        return "another job started over on its output"
    return f"it is {record.state}" if record.job or record.state != "failed" else "it had not begun"


def _result_refusal(record: JobRecord | None) -> str:
    if record is None:
        return "no job is selected"
    return "it is still running" if record.state in ACTIVE else ""


class RowDelegate(QStyledItemDelegate):
    """Rows of one height, long texts cut in the middle: names differ at both ends."""

    def initStyleOption(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(super().sizeHint(option, index).width(), ROW_HEIGHT)


class ProgressDelegate(RowDelegate):
    """A bar and its percentage; grey where nothing moves any more."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        self.initStyleOption(option, index)
        text, option.text = option.text, ""
        style = option.widget.style() if option.widget else QApplication.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, option.widget)
        record = index.data(RECORD)
        part = share(record)
        if not text or part is None:
            return
        colors = theme.colors()
        area = option.rect.adjusted(2 * theme.SPACE, 0, -2 * theme.SPACE, 0)
        bar = QRectF(
            area.left(), area.center().y() - BAR_HEIGHT / 2 + 1, area.width() - PERCENT_WIDTH, BAR_HEIGHT
        )
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colors.border)
        painter.drawRoundedRect(bar, BAR_HEIGHT / 2, BAR_HEIGHT / 2)
        painter.setBrush(colors.accent if record.state in ACTIVE else colors.source)
        bar.setWidth(bar.width() * part)
        painter.drawRoundedRect(bar, BAR_HEIGHT / 2, BAR_HEIGHT / 2)
        painter.setPen(option.palette.color(QPalette.ColorRole.Text))
        painter.drawText(area, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)
        painter.restore()
