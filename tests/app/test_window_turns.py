"""The window never waits: while a job runs and the table is scrolled and edited, no turn takes long."""

from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from app.plotting import plotting
from app.views.metadata_sheet import MetadataSheet
from engine.api.presets import PRESETS
from tests.app.models import write_matrix, write_wide_gguf
from tests.app.test_window import LOAD, WORK, click, open_sheet, wait_for_plan
from tests.app.turns import Turns

LIMIT = 0.05
"""Seconds of the window's CPU time in one turn of its event loop."""


def wheel(table, notches: int) -> None:
    """Turn the mouse wheel over the table."""
    middle = QPointF(table.viewport().rect().center())
    event = QWheelEvent(
        middle,
        QPointF(table.viewport().mapToGlobal(middle.toPoint())),
        QPoint(),
        QPoint(0, -120 * notches),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(table.viewport(), event)


def test_no_turn_is_long_while_a_job_runs_and_the_table_is_worked_on(qtbot, window, tmp_path: Path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=222)  # 1,999 tensors
    window.session.open(model)
    wait_for_plan(qtbot, window)
    window.layers.expand_all()
    sheet = open_sheet(qtbot, window, tmp_path, measure=False)
    click(qtbot, sheet.run)
    qtbot.waitUntil(lambda: bool(window.session.board.active))
    record = window.session.board.active[0]
    qtbot.waitUntil(lambda: record.progress is not None and record.progress.stage == "quantize", timeout=WORK)
    table = window.layers.table
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    table.setFocus()
    first = window.layers.model.index_of("blk.0.attn_q.weight")
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualRect(first).center())
    edits = window.state.document.undo_stack.count()
    with Turns() as turns:
        for step in range(40):
            wheel(table, 5)
            qtbot.wait(5)
            qtbot.keyClick(table, Qt.Key.Key_Down)
            qtbot.keyClick(table, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
            qtbot.wait(5)
            qtbot.keyClick(table, (Qt.Key.Key_8, Qt.Key.Key_4)[step % 2])
            qtbot.wait(5)
        assert record.state == "running", "the job ended before the table was worked on"
    assert window.state.document.undo_stack.count() >= edits + 20
    assert len(turns.cpu) >= 100
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]
    qtbot.waitUntil(lambda: record.state == "done", timeout=WORK)


@pytest.mark.parametrize("gesture", ["presets", "formats", "metadata"])
def test_what_is_opened_over_a_large_model_does_not_hold_it_up(qtbot, window, tmp_path: Path, gesture):
    window.session.open(write_wide_gguf(tmp_path / "wide.gguf", blocks=222, tokens=150_000))
    wait_for_plan(qtbot, window)
    window.layers.select_all()
    qtbot.wait(400)
    with Turns() as turns:
        if gesture == "presets":
            window.actions_table["preset"].trigger()
            sizes = window.presets._sizes
            qtbot.waitUntil(lambda: len(sizes.ask()) == len(PRESETS) + 1, timeout=LOAD)
        elif gesture == "formats":
            window.layers.choose_format()
        else:
            window.actions_table["metadata"].trigger()
            sheet = window.findChild(MetadataSheet)
            qtbot.waitUntil(sheet.isVisible)
            qtbot.wait(50)
            sheet.tabs.setCurrentIndex(1)
            qtbot.wait(50)
            qtbot.keyClicks(sheet.keys.filter, "tok")
        qtbot.wait(100)
    if popup := QApplication.activePopupWidget():
        popup.close()
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]


@pytest.mark.parametrize("gesture", ["preset", "filter", "sort", "all", "undo"])
def test_no_gesture_on_all_of_a_large_model_is_long(qtbot, window, tmp_path: Path, gesture):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=222)
    window.session.open(model)
    wait_for_plan(qtbot, window)
    table = window.layers.table
    qtbot.wait(400)
    with Turns() as turns:
        if gesture == "preset":
            with qtbot.waitSignal(window.state.plan_changed, timeout=LOAD):
                window.state.apply_preset("Q6_K")
        elif gesture in ("all", "undo"):
            window.layers.expand_all()
            qtbot.wait(20)
            table.setFocus()
            qtbot.keyClick(table, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
            qtbot.wait(20)
            with qtbot.waitSignal(window.state.plan_changed, timeout=LOAD):
                qtbot.keyClick(table, Qt.Key.Key_8)
            if gesture == "undo":
                qtbot.wait(20)
                with qtbot.waitSignal(window.state.plan_changed, timeout=LOAD):
                    window.state.document.undo_stack.undo()
        elif gesture == "filter":
            for letter in "ffn_":
                qtbot.keyClick(window.layers.filter.field, letter)
                qtbot.wait(20)
        else:
            header = table.header()
            where = QPoint(header.sectionViewportPosition(6) + 20, header.height() // 2)
            qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=where)
        qtbot.wait(100)
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]


def test_no_turn_is_long_over_the_importance_of_a_large_model(qtbot, window, tmp_path: Path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=222)
    window.session.open(model)
    wait_for_plan(qtbot, window)
    window.state.apply_preset("IQ3_XXS")  # mixes other formats with a matrix
    qtbot.wait(400)
    matrix = write_matrix(tmp_path / "wide.dat", blocks=222)
    view, desk = window.importance, window.session.importance
    with Turns() as turns:
        desk.use(matrix)
        qtbot.waitUntil(lambda: desk.summary is not None, timeout=LOAD)
        desk.show_view.emit()
        qtbot.waitUntil(lambda: view.figure.figure is not None, timeout=LOAD)
        qtbot.wait(50)
        header = view.table.horizontalHeader()
        where = QPoint(header.sectionViewportPosition(4) + 20, header.height() // 2)
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=where)
        qtbot.wait(20)
        for letter in "ffn_":
            qtbot.keyClick(view.field, letter)
            qtbot.wait(20)
        view.table.setFocus()
        qtbot.keyClick(view.table, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        qtbot.wait(20)
        view.plots.setCurrentIndex(1)
        qtbot.wait(100)
    assert len(view.model.shown) == 3 * 222
    assert len(window.state.selection) == 3 * 222
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]


def test_no_turn_is_long_in_the_tabs_that_look_into_a_large_model(qtbot, window, tmp_path: Path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=222)
    window.session.open(model)
    wait_for_plan(qtbot, window)
    window.state.select(("blk.100.ffn_up.weight",))
    views = window.views
    plotting().load()
    qtbot.waitUntil(lambda: plotting().loaded, timeout=LOAD)
    qtbot.wait(400)
    with Turns() as turns:
        for view in views.titles:
            window.tabs.setCurrentWidget(view)
            wait_until_drawn(qtbot, view)
        window.tabs.setCurrentWidget(views.outliers)
        qtbot.waitUntil(lambda: bool(views.outliers.model.lines), timeout=LOAD)
        qtbot.wait(50)
        views.outliers.table.selectRow(3)
        qtbot.wait(50)
        for view in (views.histograms, views.picture, views.errors):
            window.tabs.setCurrentWidget(view)
            wait_until_drawn(qtbot, view)
        views.picture.channel.click()
        for block in range(5):
            window.state.select((f"blk.{block}.attn_q.weight",))
            qtbot.wait(30)
        wait_until_drawn(qtbot, views.picture)
        window.tabs.setCurrentWidget(views.histograms)
        qtbot.wait(50)
        views.histograms.quantized.click()
        wait_until_drawn(qtbot, views.histograms)
        views.histograms.pin.click()
        qtbot.wait(50)
        window.state.apply_preset("Q3_K_M")
        qtbot.wait(300)
        wait_until_drawn(qtbot, views.histograms)
        qtbot.waitUntil(lambda: window.inspector.statistics.statistics is not None, timeout=LOAD)
    assert window.state.channel is not None
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]


def wait_until_drawn(qtbot, view) -> None:
    """Until the last answer to what a tab asks is shown."""
    qtbot.waitUntil(lambda: view.slot.shown is not None and view.slot.shown.last, timeout=LOAD)
    qtbot.wait(50)
