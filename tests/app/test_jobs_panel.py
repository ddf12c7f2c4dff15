"""The jobs panel shows what the board says, and offers what can be done."""

from types import SimpleNamespace

import pytest
from PySide6.QtCore import QObject, Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.jobs import JobRecord
from app.models.jobs import Column, JobsModel, amount, rate
from app.views.jobs import JobsPanel
from engine.api.messages import ProgressMade

PROGRESS = ProgressMade(
    stage="quantize",
    done=32_000_000,
    total=58_000_000,
    unit="bytes",
    item="blk.9.ffn_down.weight",
    rate=41e6,
    eta=41.2,
)


class FakeBoard(QObject):
    """A board without engines."""

    added = Signal(object)
    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.records: list[JobRecord] = []
        self.active: list[JobRecord] = []

    def add(self, **values: object) -> JobRecord:
        record = JobRecord(len(self.records) + 1, **values)
        self.records.append(record)
        self.records.sort(key=lambda one: one.created)
        self.added.emit(record)
        return record

    def change(self, record: JobRecord, **values: object) -> None:
        for name, value in values.items():
            setattr(record, name, value)
        self.changed.emit(record)


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


@pytest.fixture
def panel(qtbot: QtBot, board: FakeBoard) -> JobsPanel:
    panel = JobsPanel(board)
    qtbot.addWidget(panel)
    panel.resize(1000, 140)
    panel.show()
    return panel


def running(board: FakeBoard) -> JobRecord:
    record = board.add(title="quantize tiny", job="1", state="running", progress=PROGRESS, log="/tmp/log")
    board.active.append(record)
    board.change(record)
    return record


def shown(panel: JobsPanel, row: int = 0) -> list[str]:
    model = panel.view.model()
    return [model.index(row, column).data() for column in Column]


def test_the_model_is_one(qtmodeltester: ModelTester, board: FakeBoard):
    model = JobsModel(board)
    board.add(created="2", title="second")
    board.add(created="1", title="first")
    board.add(created="3", title="third", state="running", progress=PROGRESS)
    qtmodeltester.check(model)
    assert [model.record(row).title for row in range(3)] == ["third", "second", "first"]


def test_it_names_the_next_step_when_there_are_none(panel: JobsPanel):
    assert panel._empty.isVisible()
    assert panel.current is None


def test_a_running_job(panel: JobsPanel, board: FakeBoard):
    running(board)
    assert shown(panel) == [
        "quantize tiny",
        "running",
        "55 %",
        "quantize · blk.9.ffn_down.weight",
        "41 MB/s",
        "0:42 left",
    ]
    tip = panel.view.model().index(0, Column.PROGRESS).data(Qt.ItemDataRole.ToolTipRole)
    assert tip == "32 MB of 58 MB"


def test_every_cell_says_what_it_is(panel: JobsPanel, board: FakeBoard):
    running(board)
    model = panel.view.model()
    spoken = [model.index(0, column).data(Qt.ItemDataRole.AccessibleTextRole) for column in Column]
    assert spoken[2:4] == ["Progress: 55 %", "In hand: quantize · blk.9.ffn_down.weight"]


def test_progress_before_anything_is_known(panel: JobsPanel, board: FakeBoard):
    board.add(title="a", state="starting")
    assert shown(panel) == ["a", "starting", "", "", "", ""]


def test_windows_are_counted_as_such():
    progress = ProgressMade(stage="evaluate", done=3, total=16, unit="windows", item="", rate=0.52)
    assert rate(progress) == "0.52 windows/s"
    assert amount(progress) == "3 of 16 windows"


def enabled(panel: JobsPanel) -> set[str]:
    return {action.text() for action in panel._all_actions() if action.isEnabled()}


def test_what_is_offered_for_each_state(panel: JobsPanel, board: FakeBoard):
    record = running(board)
    assert enabled(panel) == {"Stop", "Log"}
    board.change(record, state="stopping")
    assert enabled(panel) == {"Log"}
    board.active.clear()
    board.change(record, state="interrupted", output="/tmp/a.gguf")
    assert enabled(panel) == {"Resume", "Show result", "Open folder", "Log"}
    board.change(record, state="done")
    assert enabled(panel) == {"Show result", "Open folder", "Log"}


def test_a_job_of_another_process_cannot_be_stopped_and_says_why(panel: JobsPanel, board: FakeBoard):
    board.add(title="elsewhere", job="1", state="running")
    assert not panel.stop.isEnabled()
    assert "another process" in panel.stop.toolTip()


def test_every_refusal_has_its_reason(panel: JobsPanel, board: FakeBoard):
    for state in (
        "starting",
        "running",
        "stopping",
        "done",
        "failed",
        "interrupted",
        "replaced",
        "unreadable",
    ):
        panel.select(board.add(title=state, state=state))
        for action in panel._all_actions():
            assert action.isEnabled() or ": not now, " in action.toolTip()


@pytest.mark.parametrize(
    ("button", "signal"),
    [("resume", "resume_requested"), ("result", "show_result"), ("log", "show_log")],
)
def test_buttons_ask_for_the_selected_job(
    qtbot: QtBot, panel: JobsPanel, board: FakeBoard, button: str, signal: str
):
    board.add(title="other", state="done", created="1")
    record = board.add(title="this", job="1", state="failed", log="/tmp/log", created="2")
    panel.select(record)
    with qtbot.waitSignal(getattr(panel, signal)) as asked:
        getattr(panel, button).trigger()
    assert asked.args == [record]


def test_stop_asks_for_it(qtbot: QtBot, panel: JobsPanel, board: FakeBoard):
    record = running(board)
    with qtbot.waitSignal(panel.stop_requested) as asked:
        panel.stop.trigger()
    assert asked.args == [record]


def test_a_double_click_opens_result_or_log(qtbot: QtBot, panel: JobsPanel, board: FakeBoard):
    record = running(board)
    place = panel.view.visualRect(panel.view.currentIndex()).center()

    def double_click() -> None:
        qtbot.mouseClick(panel.view.viewport(), Qt.MouseButton.LeftButton, pos=place)
        qtbot.mouseDClick(panel.view.viewport(), Qt.MouseButton.LeftButton, pos=place)

    with qtbot.waitSignal(panel.show_log):
        double_click()
    board.change(record, state="done")
    with qtbot.waitSignal(panel.show_result):
        double_click()


def test_a_new_run_is_selected_an_old_job_is_not(panel: JobsPanel, board: FakeBoard):
    started = board.add(title="new", state="starting", created="2")
    assert panel.current is started
    board.add(title="old", state="done", created="1")
    assert panel.current is started


def test_the_menu_has_the_same_actions(panel: JobsPanel, board: FakeBoard):
    running(board)
    texts = [action.text() for action in panel.menu().actions()]
    assert texts == ["Stop", "Resume", "Show result", "Open folder", "Log"]


def test_open_folder_is_that_of_the_output(
    panel: JobsPanel, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
):
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    board.add(title="a", state="done", output="/data/out/a.gguf")
    panel.folder.trigger()
    assert opened[0].toLocalFile() == "/data/out"


def test_bars_are_drawn_where_something_moves(panel: JobsPanel, board: FakeBoard):
    record = running(board)

    def colors() -> SimpleNamespace:
        image = panel.view.viewport().grab(panel.view.visualRect(panel.view.model().index(0, 2))).toImage()
        row = image.height() // 2
        return SimpleNamespace(many=len({image.pixel(x, row) for x in range(image.width())}))

    with_bar = colors().many
    board.change(record, state="done")
    assert colors().many < with_bar
