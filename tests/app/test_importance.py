"""The importance matrix in the window by clicks and keys: computed, loaded, looked at, merged, saved."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QFileDialog,
    QPushButton,
    QTabBar,
    QToolButton,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app import theme
from app.main_window import MainWindow
from app.models.importance import FIELDS
from app.session import Session
from app.settings import Settings
from app.views.calibrate_sheet import CalibrateSheet
from engine.api.jobs import LEAST_MEMORY
from engine.checkpoint import open_checkpoint
from engine.preparation import prepare
from tests.app.conftest import close
from tests.app.listening import FAKE
from tests.app.test_window import WORK, banner_button, click, drop, open_model, press, texts
from tests.tiny import write_llama

GOOD = Path("/good")
BOTH = """import runpy, sys
sys.path.insert(0, {folder!r})
import fake_engine
original = fake_engine.read
def read():
    asked = original()
    if asked["request"] in ("quantize", "calibrate", "resume"):
        fake_engine.read = lambda: asked
        fake_engine.hello = lambda: None
        fake_engine.job("calibrated")
        sys.exit(0)
    return asked
fake_engine.read = read
fake_engine.inspect()
"""
"""An engine that inspects, or does a job, whichever it is asked for first."""


@pytest.fixture
def faked(qtbot: QtBot, qapp: QApplication, settings: Settings, tmp_path: Path) -> Iterator[MainWindow]:
    """The window over fake engines, with a model open."""
    import sys

    engine = tmp_path / "engine.py"
    engine.write_text(BOTH.format(folder=str(FAKE.parent)))
    theme.apply_theme(qapp, "light")
    window = MainWindow(Session(settings, command=[sys.executable, "-S", str(engine)]))
    window.show()
    qtbot.waitExposed(window)
    window.session.start()
    open_model(qtbot, window, GOOD)
    yield window
    close(qtbot, window)


def loaded(qtbot: QtBot, window: MainWindow, path: str = "/m/some.gguf") -> None:
    """A matrix in the recipe, its view in front."""
    window.session.importance.use(Path(path))
    qtbot.waitUntil(lambda: window.session.importance.summary is not None)
    window.actions_table["view_importance"].trigger()
    assert window.tabs.currentWidget() is window.importance


def tabs(window: MainWindow) -> list[str]:
    """Those beside the ones that look into a model."""
    titles = [window.tabs.tabText(index) for index in range(window.tabs.count())]
    return [title for title in titles if title not in window.views.titles.values()]


def names(window: MainWindow) -> list[str]:
    return [tensor.tensor for tensor in window.importance.model.shown]


def name(block: int) -> str:
    return f"blk.{block}.ffn_down.weight"


def choose(path: str) -> None:
    """Answer the file dialog that is open."""
    dialog = QApplication.activeModalWidget()
    assert isinstance(dialog, QFileDialog)
    dialog.fileSelected.emit(path)
    dialog.reject()


def click_line(qtbot: QtBot, window: MainWindow, row: int, keys=Qt.KeyboardModifier.NoModifier) -> None:
    table = window.importance.table
    where = table.visualRect(window.importance.model.index(row, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, keys, where)


# ------------------------------------------------------------------------------- loaded and let go


def test_a_matrix_is_dropped_used_and_taken_out_again(qtbot, faked):
    assert tabs(faked) == ["Layers"]
    assert "load one, or compute it" in faked.actions_table["view_importance"].toolTip()
    assert not faked.actions_table["view_importance"].isEnabled()
    drop(faked, Path("/data/some.dat"))
    qtbot.waitUntil(lambda: faked.state.document.recipe.imatrix == "/data/some.dat")
    assert faked.state.path == GOOD
    assert tabs(faked) == ["Layers", "Importance"]
    assert faked.tabs.currentWidget() is faked.layers
    assert "some.dat" in faked.passing.text()
    assert faked.state.document.undo_stack.undoText() == "Importance matrix some.dat"
    faked.actions_table["no_importance"].trigger()
    assert faked.state.document.recipe.imatrix is None
    assert tabs(faked) == ["Layers"]
    press(qtbot, faked, Qt.Key.Key_Z)
    assert tabs(faked) == ["Layers", "Importance"]
    press(qtbot, faked, Qt.Key.Key_Z)
    assert (tabs(faked), faked.state.document.dirty) == (["Layers"], False)


def test_without_a_model_a_matrix_is_looked_at(qtbot, faked):
    faked.actions_table["close_model"].trigger()
    drop(faked, Path("/data/some.dat"))
    qtbot.waitUntil(lambda: faked.session.importance.summary is not None)
    assert faked.importance.isVisible()
    assert names(faked) == [name(0), name(1), name(2)]
    assert not faked.importance.use.isEnabled()
    assert "Open the model" in faked.importance.use.toolTip()
    tab = faked.tabs.tabBar().tabButton(
        faked.tabs.indexOf(faked.importance), QTabBar.ButtonPosition.RightSide
    )
    assert isinstance(tab, QToolButton)
    click(qtbot, tab)
    assert tabs(faked) == ["Layers"]
    assert faked.start_page.isVisible()


def test_a_matrix_of_another_model_leaves_the_recipe_as_it_is(qtbot, faked):
    loaded(qtbot, faked)
    before = faked.state.document.recipe
    drop(faked, Path("/m/other.dat"))
    qtbot.waitUntil(lambda: bool(faked.banner.banners))
    said = texts(faked.banner)
    assert "made for another model" in said
    assert "It is not used: the recipe keeps some.gguf." in said
    assert faked.state.document.recipe is before
    assert faked.session.importance.files == (Path("/m/some.gguf"),)
    assert "weighs" not in faked.passing.text()
    click(qtbot, banner_button(faked, "View"))
    qtbot.waitUntil(lambda: faked.session.importance.problem != "")
    assert "made for another model" in texts(faked.importance)
    assert faked.state.document.recipe is before


def test_of_matrices_that_are_asked_for_at_once_the_last_counts(qtbot, faked):
    faked.session.importance.use(Path("/m/first.gguf"))
    faked.session.importance.use(Path("/m/second.gguf"))
    faked.session.importance.use(Path("/m/other.gguf"))
    qtbot.waitUntil(lambda: bool(faked.banner.banners))
    assert faked.state.document.recipe.imatrix is None
    faked.session.importance.use(Path("/m/first.gguf"))
    faked.session.importance.use(None)
    faked.session.importance.use(Path("/m/second.gguf"))
    qtbot.waitUntil(lambda: faked.state.document.recipe.imatrix is not None)
    assert faked.state.document.recipe.imatrix == "/m/second.gguf"


def test_a_recipe_with_a_matrix_of_another_model_is_told_before_any_run(qtbot, faked):
    faked.state.set_importance("/m/other.gguf")
    qtbot.waitUntil(lambda: bool(faked.banner.banners))
    assert "made for another model" in texts(faked.banner)
    click(qtbot, banner_button(faked, "View"))
    assert names(faked)  # looked at all the same
    assert "made for another model" in texts(faked.importance)
    click(qtbot, banner_button(faked, "Take it out"))
    assert faked.state.document.recipe.imatrix is None


def test_what_cannot_be_read_says_why_and_offers_another(qtbot, faked):
    faked.session.importance.view(Path("/m/broken.gguf"))
    qtbot.waitUntil(lambda: faked.session.importance.problem != "")
    assert "is no importance matrix" in texts(faked.importance)
    assert faked.importance.other.isVisible()
    click(qtbot, faked.importance.other)
    choose("/m/fine.gguf")
    qtbot.waitUntil(lambda: faked.session.importance.summary is not None)
    assert faked.importance.title.text() == "fine.gguf"


def test_an_engine_that_dies_over_a_matrix_offers_to_try_again(qtbot, faked):
    view = faked.importance
    faked.session.importance.view(Path("/m/deadly.gguf"))
    qtbot.waitUntil(view.again.isVisible)
    assert "stopped by the system" in texts(view)
    click(qtbot, view.again)
    assert not view.again.isVisible()
    qtbot.waitUntil(view.again.isVisible)
    faked.session.importance.view(Path("/m/broken.gguf"))
    qtbot.waitUntil(view.other.isVisible)
    assert not view.again.isVisible()


# ------------------------------------------------------------------------------------- looked at


def test_the_table_has_all_figures_and_selects_everywhere(qtbot, faked):
    loaded(qtbot, faked)
    header = faked.importance.table.horizontalHeader()
    for field in FIELDS:
        assert header.fontMetrics().horizontalAdvance(field.title) <= field.width - 8, field.title
    titles = {field.title: field.tip for field in FIELDS}
    assert "Entropy (% of max)" in titles
    assert (
        titles["Not seen"]
        == "Experts that no token reached, and experts and matrices whose inputs were all zero"
    )
    model = faked.importance.model
    shown = [model.index(1, column).data() for column in range(model.columnCount())]
    assert shown[:5] == ["blk.1.ffn_down", "8", "", "512", "1,230"]
    assert shown[-1] == "0.750"
    assert model.index(2, len(FIELDS) - 1).data() == "−0.500"
    assert model.index(1, 4).data(Qt.ItemDataRole.ToolTipRole) == "1234.5"
    click_line(qtbot, faked, 1)
    assert faked.state.selection == (name(1),)
    assert faked.inspector.isVisible()
    faked.state.select((name(2), name(0)))
    chosen = [tensor.tensor for tensor in faked.importance.table.selected()]
    assert chosen == [name(2), name(0)]


def test_the_table_is_made_once_for_what_is_read(qtbot, faked):
    resets = []
    faked.importance.model.modelReset.connect(lambda: resets.append(faked.importance.model.total))
    loaded(qtbot, faked)
    faked.session.importance.changed.emit()
    assert resets == [3]
    faked.session.importance.read_again()
    qtbot.waitUntil(lambda: faked.session.importance.summary is not None)
    assert resets == [3, 0, 3]


def test_sorted_and_filtered(qtbot, faked):
    loaded(qtbot, faked)
    view = faked.importance
    header = view.table.horizontalHeader()
    place = QPoint(header.sectionViewportPosition(4) + 20, 8)
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
    first = names(faked)
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert {tuple(first), tuple(names(faked))} == {
        (name(2), name(0), name(1)),
        (name(1), name(0), name(2)),
    }
    view.model.sort(len(FIELDS) - 1, Qt.SortOrder.DescendingOrder)
    assert names(faked) == [name(1), name(2), name(0)]  # what is not known stands at the end
    view.field.setFocus()
    qtbot.keyClicks(view.field, "[02].ffn")
    assert names(faked) == [name(2), name(0)]
    assert view.count.text() == "2 of 3 tensors"
    qtbot.keyClicks(view.field, "(")
    assert "regular expression" in view.reason.text()
    assert names(faked) == [name(2), name(0)]
    view.field.clear()
    assert view.count.text() == "3 tensors"


def test_lines_are_copied_and_the_table_saved_with_all_digits(qtbot, faked, tmp_path):
    loaded(qtbot, faked)
    click_line(qtbot, faked, 0)
    click_line(qtbot, faked, 2, Qt.KeyboardModifier.ControlModifier)
    faked.activateWindow()
    qtbot.keyClick(faked.importance.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    rows = list(csv.DictReader(io.StringIO(QGuiApplication.clipboard().text())))
    assert {row["tensor"] for row in rows} == {name(0), name(2)}
    click(qtbot, faked.importance.csv)
    choose(str(tmp_path / "all.csv"))
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert [float(row["sum"]) for row in rows] == [30.0, 1234.5, 2.0]
    assert rows[0]["cosine"] == ""
    faked.importance.save_csv(tmp_path / "nowhere" / "all.csv")
    assert "cannot be written" in faked.passing.text()


def test_a_plot_of_columns_and_of_blocks(qtbot, faked):
    loaded(qtbot, faked)
    view = faked.importance
    click_line(qtbot, faked, 1)
    qtbot.waitUntil(lambda: view.figure.figure is not None)
    figure = view.figure.figure
    assert figure.title == f"Columns of {name(1)}"
    assert figure.rows() == [(1.0, 2.0, 4.0), (3.0, 4.0, 2.0), (5.0, 6.0, 1.0)]
    assert view.plotted.text() == name(1)
    view.plots.setFocus()
    qtbot.keyClick(view.plots, Qt.Key.Key_Down)
    assert view.figure.figure.columns() == ["block", "sum"]
    assert view.figure.figure.rows() == [(0.0, 30.0), (1.0, 1234.5), (2.0, 2.0)]
    assert view.plots.hasFocus()
    assert view.figure.logarithmic.isEnabled()
    view.plots.setCurrentText("Active share by block")
    assert view.figure.figure.columns() == ["block", "active share (%)"]
    assert view.figure.figure.rows() == [(0.0, 50.0), (1.0, 50.0), (2.0, 50.0)]
    qtbot.keyClick(view.plots, Qt.Key.Key_End)
    assert view.figure.figure.rows() == [(1.0, 0.75), (2.0, -0.5)]
    assert not view.figure.logarithmic.isEnabled()
    assert "negative" in view.figure.logarithmic.toolTip()
    qtbot.waitUntil(lambda: view.figure._plot is not None and view.figure._plot.isVisible())
    view.figure._plot.pointed.emit(1.5)
    assert "block 1: 0.75" in texts(view.figure)


def test_experts_without_tokens_are_named(qtbot, faked):
    loaded(qtbot, faked, "/m/experts.gguf")
    said = texts(faked.importance)
    assert "The importance matrix says nothing of 1 tensor (x): quantized without it." in said
    reached = "No token of the calibration text, or nothing but zeros, reached these experts"
    assert f"{reached}: blk.1.ffn_down (3, 5 of 8)." in said
    model = faked.importance.model
    assert [model.index(row, 2).data() for row in range(3)] == ["", "2 of 8", ""]
    assert "experts 3, 5" in model.index(1, 2).data(Qt.ItemDataRole.ToolTipRole)


def test_a_plain_matrix_that_saw_nothing_is_no_expert(qtbot, faked):
    loaded(qtbot, faked, "/m/zeros.gguf")
    assert "Nothing but zeros reached these matrices: blk.2.ffn_down." in texts(faked.importance)
    index = faked.importance.model.index(2, 2)
    assert index.data() == "only zeros"
    assert "expert" not in index.data(Qt.ItemDataRole.ToolTipRole)


def test_the_size_counts_what_the_file_tells_of_the_matrix(qtbot, faked):
    """Known once the matrix is read; presets that cannot use it have no such keys."""
    export, before = faked.state.export, faked.state.file_bytes
    loaded(qtbot, faked, "/m/some.gguf")
    qtbot.waitUntil(lambda: faked.state.file_bytes != before)
    keys = {entry.key: entry for entry in faked.state.metadata if entry.key.startswith("quantize.imatrix.")}
    assert {key.rpartition(".")[2]: entry.text for key, entry in keys.items()} == {
        "file": "some.gguf",
        "dataset": "text.txt",
        "entries_count": "3",
        "chunks_count": "7",
    }
    plain = sum(entry.bytes for entry in export.metadata)
    assert sum(entry.bytes for entry in faked.state.metadata) == plain + sum(
        entry.bytes for entry in keys.values()
    )
    with qtbot.waitSignal(faked.state.plan_changed):
        faked.state.apply_preset("F16")
    assert faked.state.metadata == export.metadata
    assert "the importance matrix is not used" in " ".join(faked.state.plan.warnings)


# -------------------------------------------------------------------------------- merged and saved


def test_merged_saved_and_used(qtbot, faked):
    loaded(qtbot, faked)
    desk = faked.session.importance
    click(qtbot, faked.importance.merge)
    choose("/m/second.dat")
    qtbot.waitUntil(lambda: len(desk.files) == 2 and desk.summary is not None)
    assert "merged, not saved" in faked.importance.title.text()
    assert desk.summary.tensors[0].tokens == 1024
    assert "Save the merged matrix first" in faked.importance.use.toolTip()
    click(qtbot, faked.importance.save)
    choose("/nowhere/all.gguf")
    qtbot.waitUntil(lambda: "There is no folder" in texts(faked.banner))
    assert len(desk.files) == 2
    click(qtbot, faked.importance.save)
    choose("/m/all.gguf")
    qtbot.waitUntil(lambda: desk.files == (Path("/m/all.gguf"),))
    assert faked.state.document.recipe.imatrix == "/m/some.gguf"
    click(qtbot, faked.importance.use)
    qtbot.waitUntil(lambda: faked.state.document.recipe.imatrix == "/m/all.gguf")  # read before
    qtbot.waitUntil(lambda: not faked.importance.use.isEnabled())


def test_what_cannot_be_merged_leaves_the_view_as_it_is(qtbot, faked):
    loaded(qtbot, faked)
    click(qtbot, faked.importance.merge)
    choose("/m/broken.gguf")
    qtbot.waitUntil(lambda: "is no importance matrix" in texts(faked.banner))
    assert faked.importance.title.text() == "some.gguf"
    assert names(faked) == [name(0), name(1), name(2)]


def test_the_open_model_is_never_written_over(qtbot, faked):
    loaded(qtbot, faked)
    faked.session.importance.save(GOOD)
    qtbot.waitUntil(lambda: "/good: is the input itself" in texts(faked.banner))
    assert faked.session.importance.files == (Path("/m/some.gguf"),)


def test_a_single_matrix_is_saved_in_the_other_format(qtbot, faked):
    """Over itself it could not be; what the format does not keep is said."""
    loaded(qtbot, faked, "/m/some.imatrix.gguf")
    for proposed in ("some.imatrix.dat", "some.imatrix.gguf"):
        click(qtbot, faked.importance.save)
        [chosen] = QApplication.activeModalWidget().selectedFiles()
        assert Path(chosen).name == proposed
        choose(f"/m/{proposed}")
        qtbot.waitUntil(lambda name=proposed: faked.importance.title.text() == name)
    assert texts(faked.banner).count("the older format does not keep all.") == 1


# -------------------------------------------------------------------------------------- computed


def open_sheet(qtbot: QtBot, window: MainWindow) -> CalibrateSheet:
    keys = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    press(qtbot, window, Qt.Key.Key_M, keys)
    sheet = QApplication.activeModalWidget()
    assert isinstance(sheet, CalibrateSheet)
    return sheet


def test_the_sheet_asks_checks_and_remembers(qtbot, faked, tmp_path):
    for text in ("one.txt", "two.txt"):
        (tmp_path / text).write_text("words")
    sheet = open_sheet(qtbot, faked)
    assert "Include" in texts(sheet)
    assert sheet.name.text() == "good.imatrix.gguf"
    assert sheet.request.texts == []
    click(qtbot, sheet.texts.add_file)
    choose(str(tmp_path / "one.txt"))
    drop(sheet.texts, tmp_path / "two.txt")
    assert [Path(text).name for text in sheet.request.texts] == ["one.txt", "two.txt"]
    click(qtbot, sheet.merge.add_file)
    choose("/m/old.dat")
    sheet.windows.setValue(12)
    sheet.length.setValue(256)
    qtbot.mouseClick(sheet.output_tensor, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    sheet.folder.setText(str(tmp_path))
    sheet.name.setText("refused")
    qtbot.waitUntil(lambda: "Not passed: texts" in sheet.reason.text())
    assert not sheet.run.isEnabled()
    assert "12 windows" in texts(sheet.checks)
    sheet.name.setText("mine.dat")
    qtbot.waitUntil(sheet.run.isEnabled)
    request = sheet.request
    assert (request.windows, request.length, request.output_tensor) == (12, 256, True)
    assert (request.merge, request.output) == (["/m/old.dat"], str(tmp_path / "mine.dat"))
    (tmp_path / "mine.dat").touch()
    sheet.name.setText("mine2.dat")
    sheet.name.setText("mine.dat")
    assert sheet.replace.isVisible()
    assert not sheet.request.overwrite
    sheet.replace.setChecked(True)
    assert sheet.request.overwrite
    (tmp_path / "mine3.dat").touch()
    sheet.name.setText("mine3.dat")
    assert sheet.replace.isVisible()
    assert not sheet.request.overwrite, "that file was not looked at"
    sheet.memory.setText("1 MB")
    assert sheet.reason.text().startswith("Memory limit: ")
    sheet.memory.setText(str(LEAST_MEMORY))
    qtbot.waitUntil(sheet.run.isEnabled)
    sheet.name.setText("fresh.dat")
    qtbot.waitUntil(sheet.run.isEnabled)
    click(qtbot, sheet.run)
    again = open_sheet(qtbot, faked)
    assert [Path(text).name for text in again.texts.paths] == ["one.txt", "two.txt"]
    assert (again.windows.value(), again.output_tensor.isChecked()) == (12, True)
    again.texts.list.setCurrentRow(0)
    qtbot.keyClick(again.texts.list, Qt.Key.Key_Delete)
    assert [Path(text).name for text in again.texts.paths] == ["two.txt"]
    qtbot.keyClick(again, Qt.Key.Key_Escape)


def run_sheet(qtbot: QtBot, window: MainWindow, folder: Path, file: str = "mine.gguf"):
    sheet = open_sheet(qtbot, window)
    sheet.folder.setText(str(folder))
    sheet.name.setText(file)
    qtbot.waitUntil(sheet.run.isEnabled)
    click(qtbot, sheet.run)
    [record] = window.session.board.records[-1:]
    return record


def test_a_computed_matrix_is_used_when_it_is_done(qtbot, faked, tmp_path):
    record = run_sheet(qtbot, faked, tmp_path)
    qtbot.waitUntil(lambda: record.state == "done")
    qtbot.waitUntil(lambda: faked.state.document.recipe.imatrix == str(tmp_path / "mine.gguf"))
    assert faked.state.document.undo_stack.count() == 1
    assert "the importance of 3 tensors" in texts(faked.result)
    assert not button(faked.result, "Use for this recipe").isEnabled()
    click(qtbot, button(faked.result, "View"))
    assert faked.tabs.currentWidget() is faked.importance


def test_its_result_offers_it_where_it_was_not_to_be_used(qtbot, faked, tmp_path):
    faked.settings.use_importance = False
    record = run_sheet(qtbot, faked, tmp_path)
    qtbot.waitUntil(lambda: record.state == "done")
    assert faked.state.document.recipe.imatrix is None
    click(qtbot, button(faked.result, "Use for this recipe"))
    qtbot.waitUntil(lambda: faked.state.document.recipe.imatrix == str(tmp_path / "mine.gguf"))
    assert "uses it already" in button(faked.result, "Use for this recipe").toolTip()


def test_a_matrix_for_a_model_that_is_closed_by_then_is_told(qtbot, faked, tmp_path):
    record = run_sheet(qtbot, faked, tmp_path)
    faked.actions_table["close_model"].trigger()
    qtbot.waitUntil(lambda: record.state == "done")
    assert "Open good again" in texts(faked.banner)


def test_a_matrix_goes_to_the_model_that_it_was_made_for(qtbot, faked, tmp_path):
    """Another one may be opened under the sheet."""
    sheet = open_sheet(qtbot, faked)
    open_model(qtbot, faked, Path("/another"))
    sheet.folder.setText(str(tmp_path))
    qtbot.waitUntil(sheet.run.isEnabled)
    click(qtbot, sheet.run)
    qtbot.waitUntil(lambda: "Open good again" in texts(faked.banner))
    assert faked.state.document.recipe.imatrix is None


def test_a_calibration_that_waits_outlives_the_window(qtbot, faked, tmp_path):
    board = faked.session.board
    record = run_sheet(qtbot, faked, tmp_path)
    record.state = "waiting"  # as it is behind another job
    assert record.pending is not None
    board._keep()
    [file] = (tmp_path / "xdg_state_home").rglob("waiting/*.json")
    assert json.loads(file.read_text())[0]["request"]["kind"] == "calibrate"
    qtbot.waitUntil(lambda: record.state == "done")


def button(widget: QWidget, text: str) -> QPushButton:
    return next(found for found in widget.findChildren(QPushButton) if found.text() == text)


def test_every_control_has_a_name_and_every_grey_one_a_reason(qtbot, faked):
    loaded(qtbot, faked)
    sheet = open_sheet(qtbot, faked)
    for holder in (faked.importance, sheet):
        for widget in holder.findChildren(QWidget):
            inside = isinstance(widget.parent(), QAbstractSpinBox)
            if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisible() and not inside:
                assert widget.accessibleName(), widget
            if isinstance(widget, QPushButton) and not widget.isEnabled():
                assert widget.toolTip(), widget.text()
    qtbot.keyClick(sheet, Qt.Key.Key_Escape)


# --------------------------------------------------------------------------------- the real engine


def test_the_whole_way_with_the_real_engine(qtbot, window, tmp_path):
    model = write_llama(tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 400)
    open_model(qtbot, window, model)
    sheet = open_sheet(qtbot, window)
    sheet.texts.add([text])
    sheet.windows.setValue(3)
    sheet.length.setValue(32)
    sheet.folder.setText(str(tmp_path))
    qtbot.waitUntil(sheet.run.isEnabled, timeout=WORK)
    assert "3 windows of 32 tokens, 96 tokens in all" in texts(sheet.checks)
    assert "Memory: about" in texts(sheet.checks)
    click(qtbot, sheet.run)
    [record] = window.session.board.active
    qtbot.waitUntil(lambda: record.state not in ("starting", "running"), timeout=WORK)
    assert record.state == "done", record.message
    made = tmp_path / "tiny.imatrix.gguf"
    qtbot.waitUntil(lambda: window.state.document.recipe.imatrix == str(made))
    qtbot.waitUntil(lambda: window.session.importance.summary is not None, timeout=WORK)
    assert window.session.importance.problem == ""
    click(qtbot, button(window.result, "View"))
    qtbot.waitUntil(lambda: window.importance.figure.figure is not None, timeout=WORK)
    older = tmp_path / "older.dat"
    window.session.importance.save(older)
    qtbot.waitUntil(lambda: window.session.importance.files == (older,), timeout=WORK)
    assert older.is_file()
    moved = tmp_path / "moved.gguf"  # an importance matrix by its content alone
    shutil.copy(made, moved)
    drop(window, moved)
    qtbot.waitUntil(lambda: window.state.document.recipe.imatrix == str(moved), timeout=WORK)
    qtbot.waitUntil(lambda: "moved.gguf" in [entry.text for entry in window.state.metadata], timeout=WORK)
    with open_checkpoint(model) as checkpoint:
        assert prepare(checkpoint, window.state.document.recipe).size == window.state.file_bytes
    assert window.state.path == model
