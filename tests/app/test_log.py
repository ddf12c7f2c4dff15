"""The log panel reads what grows, follows its end, finds and copies."""

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from app.job_record import JobRecord
from app.views.log import LogPanel


@pytest.fixture
def panel(qtbot: QtBot) -> LogPanel:
    panel = LogPanel()
    qtbot.addWidget(panel)
    panel.resize(800, 200)
    panel.show()
    return panel


@pytest.fixture
def record(tmp_path: Path) -> JobRecord:
    log = tmp_path / "engine.log"
    log.write_text("first line\nsecond line — ü\n", encoding="utf-8")
    return JobRecord(1, title="quantize tiny", log=str(log), state="running")


def shows(panel: LogPanel, text: str) -> bool:
    return text in panel.text.toPlainText()


def append(record: JobRecord, data: bytes) -> None:
    with Path(record.log).open("ab") as file:
        file.write(data)


def test_it_names_the_next_step_when_empty(panel: LogPanel):
    assert panel._title.text() == "Select a job to read its log."
    assert not panel._tick.isActive()


def test_it_grows_with_the_file(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    panel.show_record(record)
    qtbot.waitUntil(lambda: shows(panel, "second line — ü"))
    append(record, b"third line\n")
    qtbot.waitUntil(lambda: shows(panel, "third line"))
    assert panel.text.toPlainText() == "first line\nsecond line — ü\nthird line\n"


def test_a_letter_cut_between_two_reads_is_whole(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    panel.show_record(record)
    append(record, "ä".encode()[:1])
    qtbot.waitUntil(lambda: shows(panel, "second"))
    append(record, "ä".encode()[1:])
    qtbot.waitUntil(lambda: shows(panel, "ä"))
    assert "\N{REPLACEMENT CHARACTER}" not in panel.text.toPlainText()


def test_a_log_that_comes_later(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    path, record.log = record.log, ""
    panel.show_record(record)
    qtbot.wait(0)
    record.log = path
    qtbot.waitUntil(lambda: shows(panel, "first line"))


def test_a_finished_job_is_read_to_its_end_and_no_more_watched(
    qtbot: QtBot, panel: LogPanel, record: JobRecord
):
    append(record, b"x" * 100_000 + b"\nend\n")
    record.state, record.message, record.trace = "failed", "It crashed.", "Fatal Python error"
    panel.show_record(record)
    qtbot.waitUntil(lambda: shows(panel, "Fatal Python error"))
    assert shows(panel, "end\n\nIt crashed.")
    assert not panel._tick.isActive()


def test_hidden_it_does_not_read(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    panel.hide()
    panel.show_record(record)
    assert not panel._tick.isActive()
    panel.show()
    qtbot.waitUntil(lambda: shows(panel, "first line"))


def test_it_follows_the_end_unless_scrolled_up(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    append(record, b"line\n" * 200)
    panel.show_record(record)
    bar = panel.text.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 100 and bar.value() == bar.maximum())
    bar.setValue(3)
    append(record, b"news\n")
    qtbot.waitUntil(lambda: shows(panel, "news"))
    assert bar.value() == 3


def test_another_job_begins_anew(qtbot: QtBot, panel: LogPanel, record: JobRecord, tmp_path: Path):
    panel.show_record(record)
    qtbot.waitUntil(lambda: shows(panel, "first line"))
    other = tmp_path / "other.log"
    other.write_text("of another job\n")
    panel.show_record(JobRecord(2, title="another", log=str(other), state="done"))
    qtbot.waitUntil(lambda: shows(panel, "of another job"))
    assert panel.text.toPlainText() == "of another job\n"


def test_find_goes_round_and_says_when_there_is_none(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    panel.show_record(record)
    qtbot.waitUntil(lambda: shows(panel, "second line"))
    qtbot.keyClicks(panel.find_field, "line")
    places = []
    for _ in range(3):
        qtbot.keyClick(panel.find_field, Qt.Key.Key_Return)
        places.append(panel.text.textCursor().blockNumber())
    assert places == [0, 1, 0]
    qtbot.keyClick(panel.find_field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    assert panel.text.textCursor().blockNumber() == 1
    panel.find_field.setText("nowhere")
    qtbot.keyClick(panel.find_field, Qt.Key.Key_Return)
    assert panel._found.text() == "Not found"


def test_copy_all(qtbot: QtBot, panel: LogPanel, record: JobRecord):
    panel.show_record(record)
    qtbot.waitUntil(lambda: shows(panel, "second line"))
    qtbot.mouseClick(panel.findChild(QPushButton), Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == Path(record.log).read_text(encoding="utf-8")
