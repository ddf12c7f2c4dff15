"""The whole way by clicks and keys, as a user goes it: from the start page to a verified file on disk."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import (
    QApplication,
    QFileDialog,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.job_record import JobRecord
from app.main_window import MainWindow
from app.views.run_sheet import RunSheet
from resources import EVALUATION_TEXT
from tests.peers import llama
from tests.tiny import write_llama

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "resources" / "sample-model"
LOAD, WORK = 60_000, 240_000
"""Milliseconds: what opening (with imports) and a job (with compiling) may take on a slow machine."""


def click(qtbot: QtBot, widget: QWidget | None) -> None:
    assert widget is not None
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def press(qtbot: QtBot, window: MainWindow, key, modifiers=Qt.KeyboardModifier.ControlModifier) -> None:
    """A shortcut of the window, with Ctrl; shortcuts count in the active window only."""
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, key, modifiers)


def wait_for_plan(qtbot: QtBot, window: MainWindow) -> None:
    qtbot.waitUntil(lambda: window.state.phase == "ready" and window.state.plan is not None, timeout=LOAD)


def open_model(qtbot: QtBot, window: MainWindow, path: Path) -> None:
    window.session.open(path)
    qtbot.waitUntil(lambda: window.state.path == path, timeout=LOAD)
    wait_for_plan(qtbot, window)


def click_row(qtbot: QtBot, window: MainWindow, key: str) -> None:
    """Click the line of a tensor."""
    table = window.layers.table
    index = window.layers.model.index_of(key)
    table.scrollTo(index)
    where = table.visualRect(index).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert key in window.state.selection


def press_and_replan(qtbot: QtBot, window: MainWindow, *keys) -> None:
    """Press a key (with modifiers) in the table and wait for the plan it leads to."""
    with qtbot.waitSignal(window.state.plan_changed):
        qtbot.keyClick(window.layers.table, *keys)


def format_of(window: MainWindow, key: str) -> str:
    return next(tensor.format for tensor in window.state.plan.tensors if tensor.name == key)


def open_sheet(qtbot: QtBot, window: MainWindow, folder: Path, measure: bool = True) -> RunSheet:
    press(qtbot, window, Qt.Key.Key_R)
    sheet = QApplication.activeModalWidget()
    assert isinstance(sheet, RunSheet)
    sheet.folder.selectAll()
    qtbot.keyClicks(sheet.folder, str(folder))
    sheet.measure.setChecked(measure)
    qtbot.waitUntil(sheet.run.isEnabled, timeout=LOAD)
    return sheet


def run(qtbot: QtBot, window: MainWindow, folder: Path, measure: bool = True) -> JobRecord:
    """Confirm the sheet by its button; the job that it starts."""
    sheet = open_sheet(qtbot, window, folder, measure)
    click(qtbot, sheet.run)
    qtbot.waitUntil(lambda: bool(window.session.board.active))
    return window.session.board.active[-1]


def texts(widget: QWidget) -> str:
    """Everything a widget says in labels and tables."""
    said = [label.text() for label in widget.findChildren(QLabel)]
    for table in widget.findChildren(QTableWidget):
        cells = (table.item(row, column) for row in range(table.rowCount()) for column in range(3))
        said += [cell.text() for cell in cells if cell is not None]
    return " | ".join(said)


def banner_button(window: MainWindow, text: str) -> QPushButton | None:
    found = [button for button in window.banner.findChildren(QPushButton) if button.text() == text]
    return found[-1] if found else None


def drop(window: MainWindow, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    action, buttons = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    keys = Qt.KeyboardModifier.NoModifier
    entering = QDragEnterEvent(QPoint(200, 200), action, data, buttons, keys)
    QApplication.sendEvent(window, entering)
    assert entering.isAccepted()
    QApplication.sendEvent(window, QDropEvent(QPointF(200, 200), action, data, buttons, keys))


def test_from_nothing_to_a_verified_file(qtbot, window, tmp_path):
    click(qtbot, window.start_page.sample_button)
    wait_for_plan(qtbot, window)
    assert window.tabs.isVisible()
    assert "29.4 MB" in window.strip.text

    click_row(qtbot, window, "blk.0.ffn_down.weight")
    assert format_of(window, "blk.0.ffn_down.weight") == "Q4_K"
    press_and_replan(qtbot, window, Qt.Key.Key_6)
    assert format_of(window, "blk.0.ffn_down.weight") == "Q6_K"
    assert format_of(window, "blk.1.ffn_down.weight") == "Q4_K"
    press_and_replan(qtbot, window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert {format_of(window, f"blk.{block}.ffn_down.weight") for block in range(4)} == {"Q6_K"}
    with qtbot.waitSignal(window.state.plan_changed):
        press(qtbot, window, Qt.Key.Key_Z)
    assert format_of(window, "blk.1.ffn_down.weight") == "Q4_K"
    predicted = window.state.file_bytes

    record = run(qtbot, window, tmp_path)
    qtbot.waitUntil(lambda: "%" in window.windowTitle(), timeout=WORK)
    qtbot.waitUntil(lambda: record.state == "done", timeout=WORK)

    output = Path(record.output)
    assert output.parent == tmp_path
    assert output.stat().st_size == predicted
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(output).tensors}
    assert types == {tensor.name: tensor.format for tensor in window.state.plan.tensors}
    assert window.tabs.currentWidget() is window.result
    shown, report = texts(window.result), record.result.report
    assert f"{report.reference_perplexity:.3g} ±" in shown
    assert f"{report.kl_mean:.3g} ±" in shown
    assert f"{100 * report.top1_agreement:.1f} %" in shown
    assert "%" not in window.windowTitle()
    measured = llama.perplexity(output, EVALUATION_TEXT.read_text(), report.windows)
    assert measured == pytest.approx(report.perplexity, rel=0.02)  # llama.cpp rounds activations as well

    modifiers = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    press(qtbot, window, Qt.Key.Key_C, modifiers)
    command = shlex.split(QGuiApplication.clipboard().text())
    assert (Path(command[0]).name, command[1]) == ("bitwright", "quantize")
    buttons = {button.text(): button for button in window.result.findChildren(QPushButton)}
    buttons["Save recipe"].click()  # the command reads it: no options can say this one
    again = tmp_path / "again.gguf"
    command[command.index("--out") + 1] = str(again)
    done = subprocess.run(
        [sys.executable, "-m", "engine", *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == output.read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("tiny") / "tiny-model")


def test_a_model_without_output_can_be_looked_at(qtbot, window, tiny, tmp_path):
    folder = tmp_path / "unknown"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((tiny / "config.json").read_text()) | {"model_type": "wonder"}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    drop(window, folder)
    qtbot.waitUntil(lambda: window.state.phase == "inspect only", timeout=LOAD)
    assert window.layers.model.rowCount() > 0
    run_action = window.actions_table["run"]
    assert not run_action.isEnabled()
    assert window.state.refusal in run_action.toolTip()
    assert "wonder" in texts(window.banner)


def test_what_cannot_be_opened_is_said_in_the_window(qtbot, window, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 40)
    drop(window, broken)
    qtbot.waitUntil(lambda: "broken.gguf" in texts(window.banner), timeout=LOAD)
    assert window.state.phase == "empty"
    assert "Traceback" not in texts(window.banner)
    drop(window, tmp_path / "recipe.json")
    assert "Open the model" in texts(window.banner)


def test_unsaved_recipe_is_offered_when_the_model_is_opened_again(qtbot, window, tiny):
    open_model(qtbot, window, tiny)
    click_row(qtbot, window, "blk.0.ffn_gate.weight")
    press_and_replan(qtbot, window, Qt.Key.Key_8)
    edited = window.state.document.recipe
    window.session.open(SAMPLE)
    qtbot.waitUntil(lambda: "unsaved recipe" in texts(window.banner), timeout=LOAD)
    assert window.state.path == SAMPLE
    wait_for_plan(qtbot, window)
    open_model(qtbot, window, tiny)
    assert window.state.document.recipe != edited
    with qtbot.waitSignal(window.state.plan_changed):
        click(qtbot, banner_button(window, "Restore"))
    assert window.state.document.recipe == edited
    assert format_of(window, "blk.0.ffn_gate.weight") == "Q8_0"


def test_recipe_is_saved_and_loaded(qtbot, window, tiny, tmp_path):
    open_model(qtbot, window, tiny)
    click_row(qtbot, window, "blk.0.ffn_gate.weight")
    press_and_replan(qtbot, window, Qt.Key.Key_8)
    path = tmp_path / "mine.json"
    window.session.save_recipe(path)
    assert not window.isWindowModified()
    saved = window.state.document.recipe
    with qtbot.waitSignal(window.state.plan_changed):
        window.presets.actions["F32"].trigger()
    assert window.state.document.recipe != saved
    with qtbot.waitSignal(window.state.plan_changed):
        drop(window, path)
    assert window.state.document.recipe == saved
    assert "mine.json" in window.toolbar.preset_button.text()
    path.write_text('{"default": {"format": "Q9"}}')
    drop(window, path)
    assert "Q9" in texts(window.banner)
    assert window.state.document.recipe == saved


def test_pinned_tensors_outlive_a_preset(qtbot, window, tiny):
    open_model(qtbot, window, tiny)
    click_row(qtbot, window, "blk.1.attn_q.weight")
    press_and_replan(qtbot, window, Qt.Key.Key_8)
    press_and_replan(qtbot, window, Qt.Key.Key_P)
    with qtbot.waitSignal(window.state.plan_changed):
        window.state.apply_preset("F16")
    assert format_of(window, "blk.1.attn_q.weight") == "Q8_0"
    assert format_of(window, "blk.0.attn_q.weight") == "F16"


def test_started_with_a_model(qtbot, tiny, tmp_path):
    """`python -m app MODEL` as a process of its own: it opens the model and leaves without a word."""
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    code = (
        "import sys, runpy\n"
        "from PySide6.QtCore import QTimer\n"
        "from PySide6.QtWidgets import QApplication\n"
        "from app import main_window\n"
        "class Window(main_window.MainWindow):\n"
        "    def __init__(self, session):\n"
        "        super().__init__(session)\n"
        "        session.state.plan_changed.connect(self.leave)\n"
        "    def leave(self):\n"
        "        if self.state.plan:\n"
        "            print(len(self.state.plan.tensors), self.windowTitle())\n"
        "            self.close()\n"
        "main_window.MainWindow = Window\n"
        f"sys.argv[1:] = [{str(tiny)!r}]\n"
        "runpy.run_module('app', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["tiny-model[*]", "·", "Bitwright"]
    assert "Traceback" not in done.stderr
    assert "QProcess" not in done.stderr


def test_a_model_stays_open_where_the_next_cannot_be_opened(qtbot, window, tiny, tmp_path):
    open_model(qtbot, window, tiny)
    click_row(qtbot, window, "blk.0.ffn_gate.weight")
    press_and_replan(qtbot, window, Qt.Key.Key_8)
    recipe = window.state.document.recipe
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    drop(window, broken)
    qtbot.waitUntil(lambda: "broken.safetensors" in texts(window.banner), timeout=LOAD)
    assert (window.state.path, window.state.phase) == (tiny, "ready")
    assert window.state.document.recipe == recipe
    assert window.state.selection == ("blk.0.ffn_gate.weight",)


def test_an_importance_matrix_is_taken_in_and_out(qtbot, window):
    open_model(qtbot, window, SAMPLE)
    assert not window.actions_table["no_importance"].isEnabled()
    window.session.importance.use(SAMPLE / "imatrix.gguf")
    qtbot.waitUntil(lambda: window.state.document.recipe.imatrix is not None, timeout=WORK)
    assert window.state.document.recipe.imatrix == str(SAMPLE / "imatrix.gguf")
    assert "imatrix" in window.toolbar.preset_button.text()
    window.actions_table["no_importance"].trigger()
    assert window.state.document.recipe.imatrix is None


def answer(qtbot: QtBot, window: MainWindow, key: str, path: Path) -> None:
    """Trigger an action that asks for a file or folder, and choose `path` in its dialog."""
    window.actions_table[key].trigger()
    qtbot.waitUntil(lambda: window.findChild(QFileDialog) is not None)
    dialog = window.findChild(QFileDialog)
    dialog.setDirectory(str(path.parent))
    (field,) = dialog.findChildren(QLineEdit, "fileNameEdit")
    field.setText(str(path))
    dialog.accept()
    qtbot.waitUntil(lambda: window.findChild(QFileDialog) is None)


def test_the_file_dialogs_lead_where_they_say(qtbot, window, tiny, wide, tmp_path):
    answer(qtbot, window, "open_file", wide)
    qtbot.waitUntil(lambda: window.state.path == wide, timeout=LOAD)
    answer(qtbot, window, "open_folder", SAMPLE)
    qtbot.waitUntil(lambda: window.state.path == SAMPLE, timeout=LOAD)
    wait_for_plan(qtbot, window)
    answer(qtbot, window, "importance", SAMPLE / "imatrix.gguf")
    qtbot.waitUntil(lambda: window.state.document.recipe.imatrix is not None, timeout=WORK)
    assert window.state.document.recipe.imatrix == str(SAMPLE / "imatrix.gguf")
    saved = tmp_path / "mine.json"
    answer(qtbot, window, "save_recipe_as", saved)
    assert saved.exists()
    assert window.state.document.path == saved
    before = saved.read_text()
    window.state.apply_preset("F16")
    answer(qtbot, window, "open_recipe", saved)
    assert window.state.document.recipe.default.format == "Q4_K"
    window.state.document.undo_stack.undo()
    window.state.document.undo_stack.undo()
    assert saved.read_text() == before


def test_the_sheet_runs_what_it_shows(qtbot, window, tiny, wide, tmp_path):
    open_model(qtbot, window, tiny)
    sheet = open_sheet(qtbot, window, tmp_path, measure=False)
    window.session.open(wide)
    qtbot.waitUntil(lambda: window.state.path == wide, timeout=LOAD)
    assert sheet.request.model == str(tiny)
    sheet.folder.setText("~nobody-of-this-name/x")
    assert not sheet.run.isEnabled()
    sheet.reject()
