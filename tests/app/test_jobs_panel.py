"""The jobs panel shows what the board says, and offers what can be done."""

from types import SimpleNamespace
from typing import get_args

import pytest
from PySide6.QtCore import QObject, Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.job_record import JobRecord, State
from app.models.jobs import Column, JobsModel, amount, rate
from app.views.jobs import OFFERS, RECORD, JobsPanel
from engine.api.events import ProgressMade
from engine.api.jobs import Measure, QuantizeRequest, Saved
from engine.api.recipe import Choice, Recipe

PROGRESS = ProgressMade(
    stage="quantize",
    done=32_000_000,
    total=58_000_000,
    unit="bytes",
    item="blk.9.ffn_down.weight",
    rate=41e6,
    eta=41.2,
    share=0.555,
)


class FakeBoard(QObject):
    """A board without engines."""

    added = Signal(object)
    changed = Signal(object)
    removed = Signal(object)
    finished = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.records: list[JobRecord] = []
        self.active: list[JobRecord] = []

    @property
    def waiting(self) -> list[JobRecord]:
        return [record for record in self.records if record.state == "waiting"]

    def add(self, **values: object) -> JobRecord:
        record = JobRecord(len(self.records) + 1, **values)
        self.records.append(record)
        self.records.sort(key=lambda one: one.created)
        self.added.emit(record)
        return record

    def remove(self, *records: JobRecord) -> None:
        for record in records:
            self.records.remove(record)
        self.removed.emit(list(records))

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
        "",
        "quantize · blk.9.ffn_down.weight",
        "41.0 MB/s",
        "0:42 left",
    ]
    tip = panel.view.model().index(0, Column.PROGRESS).data(Qt.ItemDataRole.ToolTipRole)
    assert tip == "32 MB of 58 MB"


def test_every_cell_says_what_it_is(panel: JobsPanel, board: FakeBoard):
    running(board)
    model = panel.view.model()
    spoken = [model.index(0, column).data(Qt.ItemDataRole.AccessibleTextRole) for column in Column]
    assert spoken[2:5] == ["Progress: 55 %", "Saved: none", "Details: quantize · blk.9.ffn_down.weight"]


def test_progress_before_anything_is_known(panel: JobsPanel, board: FakeBoard):
    board.add(title="a", state="starting")
    assert shown(panel) == ["a", "starting", "", "", "", "", ""]


def test_a_broken_off_job_shows_what_is_saved(panel: JobsPanel, board: FakeBoard):
    saved = Saved(done=17, total=32, unit="blocks")
    board.add(title="a", job="1", state="interrupted", saved=saved, progress=PROGRESS, message="Stopped.")
    assert shown(panel) == ["a", "interrupted", "53 %", "17 of 32 blocks", "Stopped.", "", ""]
    tip = panel.view.model().index(0, Column.SAVED).data(Qt.ItemDataRole.ToolTipRole)
    assert tip.startswith("17 of 32 blocks: ")


def test_jobs_that_wait(panel: JobsPanel, board: FakeBoard):
    record = board.add(title="a", state="waiting")
    assert shown(panel)[1] == "waiting"
    assert shown(panel)[Column.DETAIL] == "next in line"
    assert enabled(panel) == {"Stop"}
    board.change(record, state="kept")
    assert (shown(panel)[1], shown(panel)[Column.DETAIL]) == ("waiting", "not begun; Start begins it")
    assert enabled(panel) == {"Start", "Remove"}


def test_the_line_says_who_is_next(panel: JobsPanel, board: FakeBoard):
    first, second, third = (board.add(title=name, created=name, state="waiting") for name in "abc")
    places = {third: "number 3 in line", second: "number 2 in line", first: "next in line"}

    def said() -> dict[JobRecord, str]:
        model = panel.view.model()
        rows = range(model.rowCount())
        return {model.index(row, 0).data(RECORD): model.index(row, Column.DETAIL).data() for row in rows}

    assert said() == places
    heard = []
    panel.view.model().dataChanged.connect(lambda begin, end: heard.append((begin.row(), end.row())))
    board.change(first, state="running", progress=PROGRESS)
    assert said() == {first: said()[first], second: "next in line", third: "number 2 in line"}
    assert (0, 2) in heard
    board.remove(second)
    assert said()[third] == "next in line"


def test_a_bar_is_of_the_whole_job_and_never_full_before_its_end(panel: JobsPanel, board: FakeBoard):
    asked = QuantizeRequest(
        model="m", output="o.gguf", recipe=Recipe(default=Choice(format="Q8_0")), measure=Measure(text="t")
    )
    record = running(board)
    assert (shown(panel)[Column.PROGRESS], shown(panel)[Column.LEFT]) == ("55 %", "0:42 left")
    loading = PROGRESS.model_copy(update={"stage": "load model code", "done": 1, "total": 1})
    board.change(record, progress=loading)
    assert (shown(panel)[Column.PROGRESS], shown(panel)[Column.LEFT]) == ("55 %", "0:42 left")
    board.change(record, progress=loading.model_copy(update={"share": None}))
    assert (shown(panel)[Column.PROGRESS], shown(panel)[Column.LEFT]) == ("", "")
    blocks = Saved(done=4, total=4, unit="blocks")
    board.change(record, state="interrupted", progress=None, saved=blocks, request=asked)
    assert shown(panel)[Column.PROGRESS] == ""
    board.change(record, request=asked.model_copy(update={"measure": None}))
    assert shown(panel)[Column.PROGRESS] == "99 %"


def test_what_changed_offers_to_start_again_in_the_place_of_resume(panel: JobsPanel, board: FakeBoard):
    record = board.add(title="a", job="1", state="failed", remedy="start again")
    button = panel._buttons[1]
    assert (button.text(), button.isEnabled()) == ("Start again", True)
    assert not panel["resume"].isEnabled()
    board.change(record, remedy="")
    assert button.text() == "Resume"


def test_a_job_that_goes_leaves_the_selection_where_it_is(qtbot: QtBot, panel: JobsPanel, board: FakeBoard):
    records = [board.add(title=str(number), state="done", created=str(number)) for number in range(5)]
    panel.select(records[2])
    board.remove(records[4])
    board.remove(records[0])
    assert panel.current is records[2]
    assert panel.view.model().rowCount() == 3
    board.remove(records[1], records[3])
    assert panel.current is records[2]
    board.remove(records[2])
    assert panel.current is None
    qtbot.waitUntil(panel._empty.isVisible)
    assert not panel["remove"].isEnabled()


def test_finished_jobs_can_be_removed_while_another_is_selected(
    qtbot: QtBot, panel: JobsPanel, board: FakeBoard
):
    running(board)
    board.add(title="old", state="running", created="1")
    old = board.add(title="older", state="running", created="0")
    assert not panel["remove finished"].isEnabled()
    board.change(old, state="done")
    qtbot.waitUntil(panel["remove finished"].isEnabled)
    with qtbot.waitSignal(panel.remove_finished_requested):
        panel["remove finished"].trigger()


def test_windows_are_counted_as_such():
    progress = ProgressMade(stage="evaluate", done=3, total=16, unit="windows", item="", rate=0.52)
    assert rate(progress) == "0.520 windows/s"
    assert amount(progress) == "3 of 16 windows"


def enabled(panel: JobsPanel) -> set[str]:
    return {panel[offer].text() for offer in OFFERS if panel[offer].isEnabled()}


def test_what_is_offered_for_each_state(panel: JobsPanel, board: FakeBoard):
    record = running(board)
    assert enabled(panel) == {"Stop", "Log"}
    board.change(record, state="stopping")
    assert enabled(panel) == {"Log"}
    board.active.clear()
    board.change(record, state="interrupted", output="/tmp/a.gguf")
    unfinished = {"Resume", "Resume with less memory", "Start again", "Remove"}
    assert enabled(panel) == unfinished | {"Show result", "Open folder", "Log"}
    board.change(record, state="done")
    assert enabled(panel) == {"Show result", "Open folder", "Log", "Remove", "Remove finished"}
    board.change(record, state="removing")
    assert enabled(panel) == {"Open folder", "Log"}


def test_a_job_of_another_process_cannot_be_stopped_and_says_why(panel: JobsPanel, board: FakeBoard):
    board.add(title="elsewhere", job="1", state="running")
    for offer in ("stop", "remove"):
        assert not panel[offer].isEnabled()
    assert "another process" in panel["stop"].toolTip()


def test_every_refusal_has_its_reason(panel: JobsPanel, board: FakeBoard):
    for state in get_args(State):
        panel.select(board.add(title=state, state=state))
        assert not panel["stop"].isEnabled() or state == "waiting"
        for offer in OFFERS:
            assert panel[offer].isEnabled() or ": not now, " in panel[offer].toolTip()


@pytest.mark.parametrize(
    ("button", "signal"),
    [
        ("resume", "resume_requested"),
        ("less memory", "less_memory_requested"),
        ("restart", "restart_requested"),
        ("result", "show_result"),
        ("log", "show_log"),
        ("remove", "remove_requested"),
    ],
)
def test_buttons_ask_for_the_selected_job(
    qtbot: QtBot, panel: JobsPanel, board: FakeBoard, button: str, signal: str
):
    board.add(title="other", state="done", created="1")
    record = board.add(title="this", job="1", state="failed", log="/tmp/log", created="2")
    panel.select(record)
    with qtbot.waitSignal(getattr(panel, signal)) as asked:
        panel[button].trigger()
    assert asked.args == [record]


def test_stop_asks_for_it(qtbot: QtBot, panel: JobsPanel, board: FakeBoard):
    record = running(board)
    with qtbot.waitSignal(panel.stop_requested) as asked:
        panel["stop"].trigger()
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
    started = board.add(title="new", state="waiting", created="2")
    assert panel.current is started
    board.add(title="old", state="done", created="1")
    assert panel.current is started


def test_the_menu_has_the_same_actions(panel: JobsPanel, board: FakeBoard):
    running(board)
    texts = [action.text() for action in panel.menu().actions()]
    assert texts == [text for text, _, _ in OFFERS.values()]


def test_open_folder_is_that_of_the_output(
    panel: JobsPanel, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
):
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    board.add(title="a", state="done", output="/data/out/a.gguf")
    panel["folder"].trigger()
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
