"""The frame: toolbar, tabs, docks, strip, and what shows where. What actions do stands in `app.wiring`."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QDockWidget,
    QFrame,
    QLabel,
    QMainWindow,
    QMenu,
    QScrollArea,
    QStackedWidget,
    QTabBar,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.actions import Actions
from app.job_record import UNFINISHED, JobRecord
from app.models.jobs import share
from app.notice import Notice
from app.session import Session
from app.taskbar import TaskbarProgress
from app.toolbar import MainToolBar
from app.views.banner import BannerArea
from app.views.help import HelpPanel
from app.views.importance import ImportanceView
from app.views.inspecting import InspectingViews
from app.views.inspector import Inspector
from app.views.jobs import JobsPanel
from app.views.layers import LayersView
from app.views.log import LogPanel
from app.views.presets import PresetChooser
from app.views.result import ResultPanel
from app.views.start import StartPage
from app.views.strip import Strip
from app.wiring import Wiring
from engine.api.jobs import ActivationsRequest

MESSAGE_MS = 5000
"""How long a passing sentence stays beside the strip."""

INSPECTOR_WIDTH, JOBS_HEIGHT = 300, 160
RIGHT, BOTTOM = Qt.DockWidgetArea.RightDockWidgetArea, Qt.DockWidgetArea.BottomDockWidgetArea


class MainWindow(QMainWindow):
    """One window over one `Session`."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session, self.state, self.settings = session, session.state, session.settings
        self._leaving = False
        self.setObjectName("main")
        self.setWindowIcon(theme.app_icon())
        self.setAcceptDrops(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        self.setWindowTitle("Bitwright")
        self.resize(1280, 800)
        self.actions_table = Actions(self)
        self.taskbar = TaskbarProgress(self)
        self._build_center()
        self._build_docks()
        self.toolbar = MainToolBar(self.actions_table, self.state, self)
        self.addToolBar(self.toolbar)
        self.actions_table.fill_menus(self.menuBar())
        self.presets = PresetChooser(self.state, session.apply_preset, self)
        self.strip = Strip(self.state, self.settings)
        self.statusBar().addWidget(self.strip, 1)
        self.passing = QLabel(textFormat=Qt.TextFormat.PlainText)
        self.passing.setAccessibleName("Message")
        self.passing.setContentsMargins(0, 0, 4 * theme.SPACE, 0)
        self.statusBar().addPermanentWidget(self.passing)
        self.statusBar().setSizeGripEnabled(False)
        self._passed = QTimer(self, singleShot=True, interval=MESSAGE_MS)
        self._passed.timeout.connect(self.passing.clear)
        self.wiring = Wiring(self)
        self._connect()
        self.settings.restore_layout(self)
        self._inspector_wanted = not self.inspector_dock.isHidden()
        self.actions_table["toggle_inspector"].setChecked(self._inspector_wanted)
        self._refresh()

    # ------------------------------------------------------------------------------- the frame

    def _build_center(self) -> None:
        self.banner = BannerArea()
        self.start_page = StartPage()
        self.layers = LayersView(self.state)
        self.result = ResultPanel(self)
        self.result.hide()
        self.importance = ImportanceView(self.session.importance, self.state, self.actions_table, self)
        self.importance.hide()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setAccessibleName("Views")
        self.tabs.addTab(self.layers, "Layers")
        self.views = InspectingViews(self.session, self.tabs)
        self.pages = QStackedWidget()
        start = QScrollArea()  # a small screen with banners scrolls; the window does not grow
        start.setAccessibleName("Start")
        start.setWidgetResizable(True)
        start.setFrameShape(QFrame.Shape.NoFrame)
        start.setWidget(self.start_page)
        self.pages.addWidget(start)
        self.pages.addWidget(self.tabs)
        center = QWidget()
        column = QVBoxLayout(center)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.banner)
        column.addWidget(self.pages, 1)
        self.setCentralWidget(center)

    def _build_docks(self) -> None:
        self.inspector = Inspector(self.state, self.session.figures, self.session.activations)
        self.jobs = JobsPanel(self.session.board)
        self.log = LogPanel()
        self.help = HelpPanel()
        self.inspector_dock = self._dock("Inspector", self.inspector)
        self.help_dock = self._dock("Help", self.help)
        self.jobs_dock = self._dock("Jobs", self.jobs)
        self.log_dock = self._dock("Log", self.log)
        self._lay_out_docks()

    def _dock(self, title: str, widget: QWidget) -> QDockWidget:
        dock = QDockWidget(title, self)
        dock.setObjectName(title.lower())
        dock.setAccessibleName(title)
        dock.setWidget(widget)
        return dock

    def _lay_out_docks(self) -> None:
        for dock, area, shown in (
            (self.inspector_dock, RIGHT, True),
            (self.help_dock, RIGHT, False),
            (self.jobs_dock, BOTTOM, False),
            (self.log_dock, BOTTOM, False),
        ):
            dock.setFloating(False)
            self.addDockWidget(area, dock)
            dock.setVisible(shown)
        self.tabifyDockWidget(self.inspector_dock, self.help_dock)
        self.tabifyDockWidget(self.jobs_dock, self.log_dock)
        self.resizeDocks([self.inspector_dock], [INSPECTOR_WIDTH], Qt.Orientation.Horizontal)
        self.resizeDocks([self.jobs_dock], [JOBS_HEIGHT], Qt.Orientation.Vertical)

    def reset_layout(self) -> None:
        """Every panel at its first place and size."""
        self.settings.reset_layout()
        self._lay_out_docks()
        self.actions_table["toggle_inspector"].setChecked(True)
        self._show_inspector()

    def _connect(self) -> None:
        session, board = self.session, self.session.board
        session.opened.connect(self.banner.dismiss_all)
        session.opened.connect(self.layers.table.setFocus)
        session.notice.connect(self.show_notice)
        session.said.connect(self.say)
        session.desk.show_result.connect(self.show_result)
        session.desk.show_log.connect(self.show_log)
        session.ended.connect(QGuiApplication.quit)
        page = self.start_page
        page.open_folder.connect(self.wiring.ask_folder)
        page.open_file.connect(self.wiring.ask_file)
        page.open_sample.connect(session.open_sample)
        page.open_recent.connect(lambda path: session.open(Path(path)))
        page.remove_recent.connect(self.settings.remove_recent)
        self.settings.recent_changed.connect(self._fill_recent)
        self.state.model_changed.connect(self._follow_model)
        for signal in (
            self.state.plan_changed,
            self.state.selection_changed,
            self.state.document.saved,
            self.state.document.undo_stack.indexChanged,
            self.jobs.current_changed,
        ):
            signal.connect(self._refresh)
        for view in (self.layers, self.result, self.importance, self.views.outliers, self.views.errors):
            view.message.connect(self.say)
        self.views.layers_wanted.connect(lambda: self.tabs.setCurrentWidget(self.layers))
        desk = session.importance
        desk.changed.connect(self._follow_importance)
        desk.show_view.connect(self.show_importance)
        self.result.use_requested.connect(desk.use)
        self.result.view_requested.connect(desk.view)
        for panel in (self.jobs, self.result):
            panel.resume_requested.connect(session.desk.resume)
            panel.less_memory_requested.connect(session.desk.resume_with_less)
            panel.restart_requested.connect(session.desk.restart)
            panel.show_log.connect(self.show_log)
        self.jobs.stop_requested.connect(board.cancel)
        self.jobs.show_result.connect(self.show_result)
        self.jobs.remove_requested.connect(session.desk.remove)
        self.jobs.remove_finished_requested.connect(session.desk.remove_finished)
        board.added.connect(self._show_jobs)
        board.changed.connect(self._follow_job)
        board.removed.connect(self._forget_jobs)
        board.finished.connect(self._refresh)
        self.tabs.currentChanged.connect(self._refresh)
        self._fill_recent()

    # ---------------------------------------------------------------------------- what it shows

    def show_notice(self, notice: Notice) -> None:
        banner = self.banner.show_message(notice.kind, notice.text, notice.detail, list(notice.actions))
        banner.about = notice.about

    def say(self, text: str) -> None:
        """A passing sentence, at the right of the strip."""
        self.passing.setText(text)
        self._passed.start()

    def show_result(self, record: JobRecord) -> None:
        self.result.show_record(record)
        self._add_tab(self.result, "Result", self._close_result)
        self.tabs.setCurrentWidget(self.result)
        self._refresh()

    def show_importance(self) -> None:
        """The matrix that is looked at."""
        if self.session.importance.files:
            self._follow_importance()
            self.tabs.setCurrentWidget(self.importance)
            self._refresh()

    def _follow_importance(self) -> None:
        """Its tab is there as long as there is a matrix."""
        index = self.tabs.indexOf(self.importance)
        if self.session.importance.files:
            self._add_tab(self.importance, "Importance", self.session.importance.close)
        elif index >= 0:
            self.tabs.removeTab(index)
        self._refresh()

    def _add_tab(self, page: QWidget, title: str, close: Callable[[], None]) -> None:
        """One that can be closed, unless it is there."""
        if self.tabs.indexOf(page) < 0:
            index = self.tabs.addTab(page, title)
            button = _close_button(title)
            button.clicked.connect(lambda: close())
            self.tabs.tabBar().setTabButton(index, QTabBar.ButtonPosition.RightSide, button)

    def _close_result(self) -> None:
        self.tabs.removeTab(self.tabs.indexOf(self.result))
        self._refresh()

    def show_log(self, record: JobRecord) -> None:
        self.log.show_record(record)
        self.log_dock.show()
        self.log_dock.raise_()

    def show_help(self, page: str, anchor: str = "") -> None:
        self.help.show_page(page, anchor)
        self.help_dock.show()
        self.help_dock.raise_()

    def want_inspector(self, wanted: bool) -> None:
        self._inspector_wanted = wanted
        self._show_inspector()

    def _show_inspector(self) -> None:
        """There is nothing to inspect on the start page, so it has the room to itself."""
        self.inspector_dock.setVisible(self._inspector_wanted and self.state.phase != "empty")

    def _follow_model(self) -> None:
        if self.state.phase == "opening":
            self.tabs.setCurrentWidget(self.layers)
        name = self.state.path.name if self.state.path else ""
        self.setWindowTitle(f"{name}[*] · Bitwright" if name else "Bitwright")
        self._show_inspector()
        self.views.follow_model()
        self._refresh()

    def _refresh(self) -> None:
        """Everything that follows from the state: page, presets, what can be done."""
        if not self.session.board.active:
            self._leaving = False
        shown = self.tabs.count() > 1 and self.tabs.currentWidget() is not self.layers
        nothing = self.state.phase == "empty" and not shown
        self.pages.setCurrentIndex(0 if nothing else 1)
        self.setWindowModified(self.state.document.dirty)
        needs = self.wiring.unmet_needs()
        self.actions_table.enable(needs)
        self.toolbar.refresh(needs.get("plan", ""))
        self.presets.refresh(needs.get("plan", ""))
        matrix = self.result.matrix
        if matrix is not None:
            self.result.refuse_use(self.session.importance.use_refusal(matrix))

    def _fill_recent(self) -> None:
        recent = self.settings.recent
        self.start_page.set_recent(recent)
        menu = self.actions_table.recent_menu
        menu.clear()
        for path in recent:
            action = menu.addAction(path.replace("&", "&&"))
            action.triggered.connect(lambda _=False, path=path: self.session.open(Path(path)))
        if not recent:
            menu.addAction("Nothing opened yet").setEnabled(False)

    def _show_jobs(self, record: JobRecord) -> None:
        """A job that is asked for is worth a look at the list; what disk remembers is not.

        Nor is one that gathers activations: the view that asked shows how far it is.
        """
        if record.state != "waiting" or isinstance(record.request, ActivationsRequest):
            return
        if self.jobs_dock.isHidden():
            self.jobs_dock.show()

    def _forget_jobs(self, records: list[JobRecord]) -> None:
        """They are not in the list any more."""
        if self.result.record in records:
            self._close_result()
            self.result.show_record(None)
        self.log.forget(records)
        for record in records:
            self.banner.dismiss_about(record)

    def _follow_job(self, record: JobRecord) -> None:
        self._show_jobs(record)
        if record.state not in UNFINISHED:
            self.banner.dismiss_about(record)
        parts = (share(job) for job in self.session.board.active)
        shares = [part for part in parts if part is not None]
        self.taskbar.set(sum(shares) / len(shares) if shares else None)
        self.result.follow(record)
        self.log.follow(record)

    # ------------------------------------------------------------------------- coming and going

    def event(self, event: QEvent) -> bool:
        """Reasons stand in tool tips; as status tips they would push the strip away at each move."""
        return event.type() == QEvent.Type.StatusTip or super().event(event)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.session.upkeep.watch(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.session.upkeep.watch(False)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def _stay(self) -> None:
        self._leaving = False

    def dropEvent(self, event: QDropEvent) -> None:
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        event.acceptProposedAction()
        self.session.open(paths[0])
        if len(paths) > 1:
            self.say(f"{paths[0].name} is opened; one model at a time.")

    def closeEvent(self, event: QCloseEvent) -> None:
        """The program ends when its jobs have noted where they stand; asked once, if there are any."""
        board = self.session.board
        if board.active and not self._leaving:
            event.ignore()
            self._leaving = True
            text = "1 job is running. Closing stops what runs; it can be resumed at the next start."
            if board.waiting:
                waits = "1 more waits" if len(board.waiting) == 1 else f"{len(board.waiting)} more wait"
                text += f" {waits}; the next start offers to begin what has not begun."
            leave = (("Stop and close", self.close), ("Go on", self._stay))
            self.show_notice(Notice("warning", text, actions=leave))
            return
        for child in self.findChildren(QWidget):
            if child.isWindow() and not isinstance(child, QDockWidget | QMenu):
                child.close()
        self.inspector_dock.setVisible(self._inspector_wanted)
        self.settings.save_layout(self)
        self.session.close()
        event.accept()


def _close_button(title: str) -> QToolButton:
    button = QToolButton()
    button.setAutoRaise(True)
    button.setIcon(theme.icon("x", "muted"))
    button.setToolTip("Close this tab")
    button.setAccessibleName(f"Close the tab {title}")
    return button
