"""The jobs dock: what runs, what ran, and what can be done with it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRectF,
    QSize,
    Qt,
    QTimer,
    QUrl,
    Signal,
)
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
from app.job_record import ACTIVE, JobRecord
from app.jobs import JobBoard
from app.machine import memory_available
from app.models.job_offers import (
    folder_refusal,
    less_memory_refusal,
    log_refusal,
    remove_finished_refusal,
    remove_refusal,
    restart_refusal,
    result_refusal,
    resume_refusal,
    stop_refusal,
)
from app.models.jobs import RECORD, Column, JobsModel, share

ROW_HEIGHT = 24
BAR_HEIGHT = 6
PERCENT_WIDTH = 48
CELL_MARGINS = 28
LONGEST = {Column.RATE: "9.99 windows/s", Column.LEFT: "99:59:59 left"}
WIDTHS = {
    Column.JOB: 320,
    Column.STATE: 112,
    Column.PROGRESS: 150,
    Column.SAVED: 184,
}

Offer = Literal[
    "stop", "resume", "less memory", "restart", "result", "folder", "log", "remove", "remove finished"
]
OFFERS: dict[Offer, tuple[str, str, str]] = {
    "stop": ("Stop", "stop", "Stop the job; what is finished is kept"),
    "resume": ("Resume", "arrow-clockwise", "Go on behind the last finished part"),
    "less memory": ("Resume with less memory", "gauge", "Go on, slower, under a limit of memory"),
    "restart": ("Start again", "arrow-counter-clockwise", "Begin the job anew; what it has saved is lost"),
    "result": ("Show result", "chart-bar", "Show what came of it"),
    "folder": ("Open folder", "folder-open", "Open the folder of the output"),
    "log": ("Log", "article", "Show what the engine wrote"),
    "remove": ("Remove", "trash", "Take the job off the list; the file that it has finished stays"),
    "remove finished": ("Remove finished", "trash-simple", "Take all that are over off the list; files stay"),
}
"""Text, icon and tip of what can be done with the current job."""

BUTTONS: tuple[tuple[Offer, ...], ...] = (
    ("stop",),
    ("resume", "less memory", "restart"),
    ("result",),
    ("folder",),
    ("log",),
    ("remove",),
    ("remove finished",),
)
"""Each with those that lie in its menu. The button does the first of them that can be done."""


class JobsPanel(QWidget):
    """The buttons act on the `current` job, which is the selected one; signals ask for what they do."""

    show_result = Signal(object)
    show_log = Signal(object)
    resume_requested = Signal(object)
    less_memory_requested = Signal(object)
    restart_requested = Signal(object)
    stop_requested = Signal(object)
    remove_requested = Signal(object)
    remove_finished_requested = Signal()
    current_changed = Signal()
    """Another job is `current`, or it (or the list) can do something else now."""

    def __init__(self, board: JobBoard, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._board = board
        self._chosen: JobRecord | None = None
        self._model = JobsModel(board, self)
        self._actions: dict[Offer, QAction] = {}
        self._make_view()
        self._make_actions()
        self._lay_out()
        self._connect()
        if self._model.rowCount():
            self.view.setCurrentIndex(self._model.index(0, 0))
        self._refresh()

    def __getitem__(self, offer: Offer) -> QAction:
        return self._actions[offer]

    @property
    def current(self) -> JobRecord | None:
        index = self.view.currentIndex()
        return self._model.record(index.row()) if index.isValid() else None

    def select(self, record: JobRecord) -> None:
        self.view.setCurrentIndex(self._model.index(self._model.row_of(record), 0))

    def refusals(self) -> dict[Offer, str]:
        """Why something cannot be done with the current job now; empty where it can."""
        record = self.current
        here = record is not None and (record.state == "waiting" or record in self._board.active)
        return {
            "stop": stop_refusal(record, here),
            "resume": resume_refusal(record),
            "less memory": less_memory_refusal(record, memory_available()),
            "restart": restart_refusal(record),
            "result": result_refusal(record),
            "folder": folder_refusal(record),
            "log": log_refusal(record),
            "remove": remove_refusal(record),
            "remove finished": remove_finished_refusal(self._board.records),
        }

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
        header = view.header()
        header.setStretchLastSection(False)
        for column, width in WIDTHS.items():
            header.resizeSection(column, width)
        for column, text in LONGEST.items():
            header.resizeSection(column, view.fontMetrics().horizontalAdvance(text) + CELL_MARGINS)
        header.setSectionResizeMode(Column.DETAIL, QHeaderView.ResizeMode.Stretch)

    def _make_actions(self) -> None:
        acts: dict[Offer, Callable[[JobRecord], object]] = {
            "stop": self.stop_requested.emit,
            "resume": self.resume_requested.emit,
            "less memory": self.less_memory_requested.emit,
            "restart": self.restart_requested.emit,
            "result": self.show_result.emit,
            "folder": open_output_folder,
            "log": self.show_log.emit,
            "remove": self.remove_requested.emit,
        }
        for offer, (text, icon, _) in OFFERS.items():
            self._actions[offer] = QAction(theme.icon(icon), text, self)
        for offer, act in acts.items():
            self._actions[offer].triggered.connect(partial(self._act, act))
        self._actions["remove finished"].triggered.connect(lambda _: self.remove_finished_requested.emit())

    def _act(self, act: Callable[[JobRecord], object], checked: bool = False) -> None:
        if self.current is not None:
            act(self.current)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setContentsMargins(2 * theme.SPACE, theme.SPACE, 2 * theme.SPACE, theme.SPACE)
        buttons.setSpacing(2 * theme.SPACE)
        self._buttons = [self._button(offers) for offers in BUTTONS]
        for button in self._buttons:
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

    def _button(self, offers: tuple[Offer, ...]) -> QToolButton:
        """The first of `offers`; the others in a menu behind its arrow."""
        button = QToolButton()
        button.setAutoRaise(True)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        if len(offers) > 1:
            menu = QMenu(button)
            menu.setToolTipsVisible(True)
            menu.addActions([self[offer] for offer in offers])
            button.setMenu(menu)
            button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        button.setDefaultAction(self[offers[0]])
        button.setAccessibleName(f"{self[offers[0]].text()} (selected job)")
        return button

    def _connect(self) -> None:
        self._soon = QTimer(self, singleShot=True, interval=0)  # once for all rows that come or go in a turn
        self._soon.timeout.connect(self._refresh)
        self._model.rowsInserted.connect(self._choose_new)
        self._model.rowsRemoved.connect(self._soon.start)
        self._model.modelAboutToBeReset.connect(self._remember)
        self._model.modelReset.connect(self._recall)
        self._model.dataChanged.connect(self._follow)
        self._board.finished.connect(self._refresh)
        self.view.selectionModel().currentRowChanged.connect(self._refresh)
        self.view.customContextMenuRequested.connect(self._show_menu)
        self.view.activated.connect(self._open_current)  # double click or Enter

    # ------------------------------------------------------------------------------ what it does

    def _choose_new(self, parent: QModelIndex, first: int, last: int) -> None:
        """A job that was started here is what one wants to see; old ones from disk are not."""
        self._stack.setCurrentIndex(1)
        if self._model.record(first).state == "waiting" or not self.view.currentIndex().isValid():
            self.view.setCurrentIndex(self._model.index(first, 0))
        self._soon.start()

    def _remember(self) -> None:
        self._chosen = self.current

    def _recall(self) -> None:
        """Where many went, the chosen one stays chosen; else the newest is."""
        chosen, self._chosen = self._chosen, None
        if chosen is not None and chosen in self._board.records:
            self.select(chosen)
        elif self._model.rowCount():
            self.view.setCurrentIndex(self._model.index(0, 0))
        self._soon.start()

    def _follow(self, first: QModelIndex, last: QModelIndex) -> None:
        if first.row() <= self.view.currentIndex().row() <= last.row():
            self._refresh()
        else:
            self._soon.start()

    def _refresh(self) -> None:
        """Offer what can be done now."""
        self._stack.setCurrentIndex(1 if self._model.rowCount() else 0)
        record = self.current
        self["resume"].setText("Start" if record is not None and record.state == "kept" else "Resume")
        for offer, refusal in self.refusals().items():
            action, tip = self[offer], OFFERS[offer][2]
            tip = f"{tip}: not now, {refusal}" if refusal else tip
            if tip != action.toolTip():
                action.setEnabled(not refusal)
                action.setToolTip(tip)
                action.setStatusTip(tip)
        for button, offers in zip(self._buttons, BUTTONS, strict=True):
            best = next((offer for offer in offers if self[offer].isEnabled()), offers[0])
            if button.defaultAction() is not self[best]:
                button.setDefaultAction(self[best])
            button.setAccessibleName(f"{self[best].text()} (selected job)")
        self.current_changed.emit()

    def _open_current(self) -> None:
        self["result" if self["result"].isEnabled() else "log"].trigger()

    def _show_menu(self, place: QPoint) -> None:
        if self.view.indexAt(place).isValid():
            self.menu().popup(self.view.viewport().mapToGlobal(place))

    def menu(self) -> QMenu:
        """What can be done with the current job."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setAccessibleName("Job")
        menu.setToolTipsVisible(True)
        menu.addActions(list(self._actions.values()))
        return menu


def open_output_folder(record: JobRecord) -> None:
    """Show the folder of a job's output in the desktop's file manager; its own where it writes no file."""
    folder = Path(record.output).parent if record.output else Path(record.folder)
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


class RowDelegate(QStyledItemDelegate):
    """Rows of one height. Names are cut in the middle, for they differ at both ends; sentences are not."""

    def initStyleOption(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().initStyleOption(option, index)
        sentence = index.column() == Column.DETAIL and index.data(RECORD).state not in ACTIVE
        option.textElideMode = Qt.TextElideMode.ElideRight if sentence else Qt.TextElideMode.ElideMiddle

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
