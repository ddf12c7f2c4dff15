"""The tab of outliers: the worst channels of what is read, and what a click selects."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from app.activations import ActivationsDesk
from app.job_desk import JobDesk
from app.jobs import JobBoard
from app.models.outliers import MOST, Layer, WorstChannels, runs, worst_channels
from app.models.roles import matrices_by_role
from app.plotting import plotting
from app.state import State
from app.views.figure_slot import SETTLE_MS
from app.views.outliers import OutliersView
from engine.api.recipe import Rule
from tests.app.layers import summaries
from tests.app.reading import FakeReader, heat

BLOCKS = 4
ROWS = QItemSelectionModel.SelectionFlag.Rows
LAYERS = {
    block: Layer(f"blk.{block}.ffn_down.weight", f"layers.{block}.down", block) for block in range(BLOCKS)
}


def planted() -> np.ndarray:
    """float32 [4, 50]: channel 7 stands out in blocks 0, 1 and 3, channel 40 in block 2."""
    values = np.ones((BLOCKS, 50), np.float32)
    values[[0, 1, 3], 7] = [10, 8, 3]
    values[2, 40] = 5
    return values


def test_the_worst_channels_are_those_planted_worst_first():
    worst = worst_channels(planted(), LAYERS)
    told = [(one.layer.block, one.channel, one.ratio, one.shared) for one in worst[:4]]
    assert told == [(0, 7, 10, (1, 3)), (1, 7, 8, (0, 3)), (2, 40, 5, ()), (3, 7, 3, (0, 1))]
    assert worst[4].ratio == 1


def test_rows_that_are_not_read_yet_say_nothing():
    values = planted()
    values[0] = np.nan
    assert [one.layer.block for one in worst_channels(values, LAYERS)[:2]] == [1, 2]
    assert worst_channels(np.full((BLOCKS, 50), np.nan, np.float32), LAYERS) == []


def test_one_broken_layer_does_not_hide_the_others():
    values = np.ones((BLOCKS, 1000), np.float32)
    values[0, :400] = 100
    values[3, 5] = 4
    worst = worst_channels(values, LAYERS)
    assert len(worst) <= MOST
    assert (3, 5) in {(one.layer.block, one.channel) for one in worst}


def test_runs_of_blocks_are_short():
    assert runs([0, 1, 2, 3, 7]) == "0-3, 7"
    assert runs([5]) == "5"
    assert runs([]) == ""


def test_the_table_sorts_and_gives_csv(qtmodeltester):
    model = WorstChannels()
    model.show(worst_channels(planted(), LAYERS))
    qtmodeltester.check(model)
    model.sort(2, Qt.SortOrder.DescendingOrder)
    assert model.lines[0].channel == 49
    model.sort(-1)
    rows = list(csv.DictReader(io.StringIO(model.to_csv(model.lines[:1]))))
    assert rows == [
        {
            "block": "0",
            "tensor": "layers.0.down",
            "channel": "7",
            "value": "10.0",
            "× median": "10.0",
            "shared with blocks": "1, 3",
        }
    ]


@pytest.fixture
def parts(qtbot: QtBot) -> Iterator[tuple[State, FakeReader, OutliersView]]:
    plotting().load()
    qtbot.waitUntil(lambda: plotting().loaded)
    state, board, reader = State(), JobBoard(command=["/nowhere/engine"]), FakeReader()
    summary, export = summaries(BLOCKS)
    state.opening(Path(summary.path))
    state.take_summary(summary)
    state.take_export(export)
    view = OutliersView(state, reader, ActivationsDesk(state, board, JobDesk(board, None, None)))
    qtbot.addWidget(view)
    view.resize(900, 700)
    view.show()
    qtbot.waitUntil(lambda: state.plan is not None)
    yield state, reader, view
    with qtbot.waitSignal(board.all_ended):
        board.close()
    state.finish()


def show(qtbot: QtBot, reader: FakeReader, values: np.ndarray, view: OutliersView) -> None:
    """Answer the newest question."""
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[-1].take(heat(values.tolist(), done=len(values)))
    qtbot.waitUntil(lambda: not view._finding.busy)


def test_it_asks_for_the_down_projections_first_and_has_every_role(qtbot, parts):
    state, reader, view = parts
    qtbot.waitUntil(lambda: bool(reader.figures))
    asked = reader.figures[0].view
    assert (asked.role, asked.source, asked.metric) == ("ffn_down", "weights", "absmax")
    roles = [view.role.itemData(place) for place in range(view.role.count())]
    assert roles == [*matrices_by_role(state.rows)]
    assert {"attn_q", "ffn_down"} <= set(roles)
    view.measure.setCurrentIndex(view.measure.findData("kurtosis"))
    qtbot.waitUntil(lambda: len(reader.figures) == 2)
    assert reader.figures[1].view.metric == "kurtosis"


def test_another_role_leaves_no_lines_of_the_one_before(qtbot, parts):
    _, reader, view = parts
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(heat([[1.0] * 160]))
    qtbot.waitUntil(lambda: bool(view.model.lines))
    view.role.setCurrentIndex((view.role.currentIndex() + 1) % view.role.count())
    assert view.model.lines == []


def test_errors_of_the_recipe_follow_what_it_makes_of_these_tensors(qtbot, parts):
    state, reader, view = parts
    qtbot.waitUntil(lambda: bool(reader.figures))
    view.measure.setCurrentIndex(view.measure.findData("error"))
    view.role.setCurrentIndex(view.role.findData("ffn_gate"))
    qtbot.waitUntil(lambda: len(reader.figures) == 2)
    asked = reader.figures[1].view
    assert (asked.metric, asked.recipe) == ("error", state.document.recipe)
    for count, match in ((2, "attn_k"), (3, "gate")):
        recipe = state.document.recipe
        rules = [*recipe.rules, Rule(match=match, format="Q8_0")]
        with qtbot.waitSignal(state.plan_changed):
            state.change_recipe(match, recipe.model_copy(update={"rules": rules}))
        qtbot.wait(2 * SETTLE_MS)
        assert len(reader.figures) == count
    assert reader.figures[-1].view.recipe == state.document.recipe
    view.source.setCurrentIndex(view.source.findData("activations"))
    assert view.measure.currentData() == "absmax"  # activations are not quantized


def test_of_errors_layers_that_break_as_a_whole_come_first():
    values = planted()
    values[2] = 50
    worst = worst_channels(values, LAYERS, by_value=True)
    assert {one.layer.block for one in worst[:50]} == {2}
    assert (worst[50].layer.block, worst[50].channel) == (0, 7)


def test_progress_names_the_block(qtbot, parts):
    _, reader, view = parts
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(heat(planted().tolist(), last=False, done=2))
    assert view.slot.progress.text() == "block 2 of 4"
    qtbot.waitUntil(lambda: not view._finding.busy)


def test_a_click_on_a_cell_selects_the_tensor_and_marks_the_channel(qtbot, parts):
    state, reader, view = parts
    show(qtbot, reader, planted(), view)
    view.figure.cell_clicked.emit(2, 40)
    assert state.selection == ("blk.2.ffn_down.weight",)
    assert state.channel == 40
    assert [line.channel for line in view.table.selected()] == [40]


def test_a_tensor_of_another_role_marks_no_cell_of_this_one(qtbot, parts):
    state, reader, view = parts
    show(qtbot, reader, np.ones((2, 160), np.float32), view)
    layer = view._layers[0]
    state.select((layer.key,))
    state.mark_channel(5)
    assert view.figure._selected == (0, 5)
    other = next(row for row in state.rows if row.block == 0 and row.key != layer.key)
    state.select((other.key,))
    assert view.figure._selected is None


def test_a_line_does_the_same(qtbot, parts):
    state, reader, view = parts
    show(qtbot, reader, planted(), view)
    view.table.selectionModel().setCurrentIndex(
        view.model.index(1, 0), QItemSelectionModel.SelectionFlag.SelectCurrent | ROWS
    )
    assert state.selection == ("blk.1.ffn_down.weight",)
    assert state.channel == 7


def test_lines_are_copied_and_saved(qtbot, parts, tmp_path):
    _, reader, view = parts
    show(qtbot, reader, planted(), view)
    view.lines.copy.click()
    copied = QGuiApplication.clipboard().text()
    assert copied.splitlines()[1].startswith("0,")
    view.lines.save_csv(tmp_path / "worst.csv")
    assert (tmp_path / "worst.csv").read_text(encoding="utf-8") == copied
    view.table.selectRow(0)
    view.lines.copy.click()
    assert len(QGuiApplication.clipboard().text().splitlines()) == 2


def test_what_cannot_be_drawn_says_why(qtbot, parts):
    _, reader, view = parts
    show(qtbot, reader, planted(), view)
    view.measure.setCurrentIndex(1)
    qtbot.waitUntil(lambda: len(reader.figures) == 2)
    reader.figures[1].fail("The file is gone.")
    assert view.hint.text == "The file is gone."
    assert view.model.lines == []
    view.again.click()
    qtbot.waitUntil(lambda: len(reader.figures) == 3)


def test_activations_have_the_outputs_of_blocks_too(qtbot, parts):
    _, _, view = parts
    view.source.setCurrentIndex(1)
    assert view.role.findData("output") >= 0
    assert "No activations" in view.hint.text
    assert view.offer.isVisible()
