"""The model of the table of layers: lines, filter, sorting, and what a new plan changes."""

import json
import time
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QModelIndex
from PySide6.QtGui import Qt
from PySide6.QtTest import QAbstractItemModelTester

from app.models.layer_lines import Column
from app.models.layer_order import TOO_SLOW
from app.models.layers import LINE_ROLE, MANY, LayersModel
from app.plain import as_tip, printable
from app.state import State
from engine.api.editing import set_choice, set_pinned
from engine.api.model import Role, TensorSummary
from engine.api.plan import ExportTensor
from engine.api.units import digits
from tests.app.layers import HOSTILE, UNUSED, hostile_model, open_model, summaries

CATASTROPHE = r"^(\w|\w\w|\.)*[!?]$"

FALLING = Qt.SortOrder.DescendingOrder


@pytest.fixture
def state(qtbot) -> Iterator[State]:
    state = State()
    yield state
    state.finish()


@pytest.fixture
def model(state) -> LayersModel:
    """Watched by Qt's own tester, which ends the test where indices and signals do not fit."""
    model = LayersModel(state, state)
    QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal, model)
    return model


@pytest.fixture
def opened(qtbot, state, model) -> LayersModel:
    open_model(state, 3)
    qtbot.waitUntil(lambda: state.plan is not None)
    return model


def texts(model: LayersModel, column: Column) -> dict[str, list[str]]:
    """What is shown in a column: by group."""
    found = {}
    for row in range(model.rowCount()):
        group = model.index(row, Column.NAME)
        lines = [model.index(line, column, group).data() for line in range(model.rowCount(group))]
        found[group.data()] = lines
    return found


def cell(model: LayersModel, key: str, column: Column) -> QModelIndex:
    index = model.index_of(key, column)
    assert index.isValid()
    return index


def choose(qtbot, state: State, keys: list[str], **choice: str) -> None:
    places = [row.index for row in state.rows if row.key in keys]
    with qtbot.waitSignal(state.plan_changed):
        recipe = set_choice(state.document.recipe, state.planner, state.plan, places, **choice)
        state.change_recipe("edit", recipe)


def test_tensors_stand_in_groups_by_block(opened):
    assert list(texts(opened, Column.NAME)) == [
        "Before the blocks",
        "Block 0",
        "Block 1",
        "Block 2",
        "After the blocks",
    ]
    assert texts(opened, Column.NAME)["After the blocks"] == ["model.norm", "lm_head", "vision.tower"]
    assert texts(opened, Column.NAME)["Block 1"][:2] == ["input_layernorm", "self_attn.q_proj"]
    assert opened.total == opened.shown == 25


def test_a_line_says_what_becomes_of_a_tensor(opened):
    key = "blk.1.ffn_down.weight"
    row = [cell(opened, key, column).data() for column in Column]
    assert row[:4] == ["mlp.down_proj", "down", "256 × 172", "BF16"]
    assert row[4:7] == ["—", "F16 for Q4_K", "16.0"]
    assert row[7:] == ["0.0881", "0.0881"]
    tip = cell(opened, key, Column.FORMAT).data(Qt.ItemDataRole.ToolTipRole)
    assert tip.splitlines() == [
        "Q4_K needs rows that 256 divides; 172 columns get F16",
        "16-bit floats: half precision",
    ]
    assert cell(opened, key, Column.NOW).data(Qt.ItemDataRole.ToolTipRole) == "88,064 bytes"
    assert opened.headerData(Column.NOW, Qt.Orientation.Horizontal) == "Now (MB)"


def test_integers_of_a_gguf_file_are_copied(qtbot, state, model):
    summary, export = summaries(1)
    ids = {"name": "blk.0.ids", "shape": (3, 5), "role": Role.OTHER, "block": 0}
    source = TensorSummary(**ids, dtype="I32", bytes=60)
    planned = ExportTensor(**ids, sources=("blk.0.ids",), stored="I32", copyable=True, fixed="I32")
    state.opening("model")
    state.take_summary(summary.model_copy(update={"tensors": [*summary.tensors, source]}))
    state.take_export(export.model_copy(update={"tensors": [*export.tensors, planned]}))
    qtbot.waitUntil(lambda: state.plan is not None)
    row = [cell(model, "blk.0.ids", column).data() for column in Column]
    assert row[1:6] == ["other", "3 × 5", "I32", "copied", "I32"]
    assert cell(model, "blk.0.ids", Column.AFTER).data(Qt.ItemDataRole.ToolTipRole) == "60 bytes, predicted"
    tip = cell(model, "blk.0.ids", Column.FORMAT).data(Qt.ItemDataRole.ToolTipRole)
    assert tip.splitlines() == ["kept in I32, which is not quantized", "32-bit integers: only copied"]


def test_a_tensor_that_is_not_written_says_so(opened):
    assert cell(opened, UNUSED, Column.FORMAT).data() == "—"
    said = cell(opened, UNUSED, Column.FORMAT).data(Qt.ItemDataRole.ToolTipRole)
    assert said == "This tensor has no place in the file."


def test_a_group_adds_up(qtbot, state, opened):
    group = opened.index(1, 0)
    shown = [group.siblingAtColumn(column).data() for column in Column]
    assert shown[:4] == ["Block 0", "", "7 tensors", "BF16"]
    assert shown[Column.FORMAT] == "mixed"
    now = sum(row.bytes for row in state.rows if row.block == 0)
    after = sum(tensor.bytes for tensor in state.plan.tensors if tensor.block == 0)
    tips = [group.siblingAtColumn(c).data(Qt.ItemDataRole.ToolTipRole) for c in (Column.NOW, Column.AFTER)]
    assert tips == [f"{now:,} bytes", f"{after:,} bytes, predicted"]
    choose(qtbot, state, [row.key for row in state.rows if row.block == 0], format="F16")
    assert group.siblingAtColumn(Column.FORMAT).data() == "F16"


def test_before_the_plan_there_are_dots_and_a_refusal_says_why(state, model):
    summary, _ = summaries(1)
    state.opening("model")
    state.take_summary(summary)
    name = summary.tensors[0].name
    assert [cell(model, name, c).data() for c in (Column.METHOD, Column.FORMAT, Column.AFTER)] == ["…"] * 3
    assert cell(model, name, Column.NOW).data() == "0.512"
    state.refuse_export("Nobody runs this architecture.")
    assert cell(model, name, Column.FORMAT).data() == "—"
    tip = cell(model, name, Column.FORMAT).data(Qt.ItemDataRole.ToolTipRole)
    assert tip == "Nobody runs this architecture."


def test_filter_by_names_and_roles(opened):
    assert opened.set_filter("DOWN_proj", frozenset()) == ""
    assert texts(opened, Column.NAME) == {f"Block {block}": ["mlp.down_proj"] for block in range(3)}
    assert opened.set_filter(r"blk\.2.*ffn_(up|down)", frozenset()) == ""
    assert texts(opened, Column.NAME) == {"Block 2": ["mlp.up_proj", "mlp.down_proj"]}
    assert opened.set_filter("", frozenset({Role.OUTPUT, Role.EMBEDDING})) == ""
    assert list(texts(opened, Column.NAME)) == ["Before the blocks", "After the blocks"]
    assert opened.shown == 2
    opened.set_filter("nothing is called so", frozenset())
    assert opened.rowCount() == 0


def test_a_filter_that_is_no_regular_expression_keeps_the_last(opened):
    opened.set_filter("down", frozenset())
    assert opened.set_filter("down(", frozenset()).startswith("not a regular expression: ")
    assert opened.shown == 3


def test_a_filter_that_takes_too_long_keeps_the_last(opened):
    opened.set_filter("down", frozenset())
    start = time.perf_counter()
    assert opened.set_filter(CATASTROPHE, frozenset()) == TOO_SLOW
    assert time.perf_counter() - start < 5, "this would take Python's own engine hours"
    assert opened.shown == 3
    assert opened.set_filter(CATASTROPHE, frozenset({Role.DOWN, Role.UP})) == TOO_SLOW
    assert opened.shown == 3
    assert opened.set_filter("", frozenset()) == ""
    assert opened.shown == 25


def test_all_names_share_the_patience(opened, monkeypatch):
    monkeypatch.setattr("app.models.layer_order.PATIENCE", 0)
    monkeypatch.setattr("app.models.layer_order.PATIENCE_PER_NAME", 0)
    assert opened.set_filter("(down|up)", frozenset()) == TOO_SLOW
    assert opened.set_filter("^model.*" + "[.]", frozenset()) == TOO_SLOW
    assert opened.set_filter("down.proj", frozenset()) == "", "a search without repetition is not watched"


def test_a_filter_that_is_too_slow_for_another_model_is_dropped(opened, state, monkeypatch):
    assert opened.set_filter("down|up", frozenset()) == ""
    monkeypatch.setattr("app.models.layer_order.PATIENCE", 0)
    monkeypatch.setattr("app.models.layer_order.PATIENCE_PER_NAME", 0)
    state.model_changed.emit()
    assert opened.shown == 25
    assert not opened.filtered


def test_sorting_within_blocks_and_of_blocks(opened, state):
    opened.sort(Column.AFTER, FALLING)
    sizes = [
        [opened.rows_at(opened.index(line, 0, group))[0] for line in range(opened.rowCount(group))]
        for group in (opened.index(row, 0) for row in range(opened.rowCount()))
    ]
    taken = [[state.planned(row).bytes for row in rows if row.key != UNUSED] for rows in sizes]
    assert all(group == sorted(group, reverse=True) for group in taken)
    assert [sum(group) for group in taken] == sorted((sum(group) for group in taken), reverse=True)
    opened.sort(Column.NAME, FALLING)
    assert next(iter(texts(opened, Column.NAME))) == "After the blocks"
    opened.sort(-1)
    assert list(texts(opened, Column.NAME))[:2] == ["Before the blocks", "Block 0"]


@pytest.mark.parametrize("column", Column)
@pytest.mark.parametrize("order", Qt.SortOrder)
def test_every_column_sorts(opened, column, order):
    before = sorted(opened.keys_shown())
    opened.sort(column, order)
    assert sorted(opened.keys_shown()) == before
    for key in before:
        assert opened.row_at(opened.index_of(key)).key == key


def test_a_new_plan_changes_only_lines(qtbot, state, opened):
    resets, changes = [], []
    opened.modelReset.connect(lambda: resets.append(1))
    opened.dataChanged.connect(
        lambda first, last: changes.append((first.parent().data(), first.row(), last.row()))
    )
    choose(qtbot, state, ["blk.1.attn_q.weight", "blk.1.attn_v.weight"], format="Q8_0")
    assert not resets
    assert changes == [("Block 1", 1, 3), (None, 2, 2)]
    assert cell(opened, "blk.1.attn_v.weight", Column.FORMAT).data() == "Q8_0"


def test_a_plan_that_changes_many_groups_says_so_once(qtbot, state, model):
    open_model(state, MANY + 1)
    qtbot.waitUntil(lambda: state.plan is not None)
    assert {line for lines in texts(model, Column.METHOD).values() for line in lines} == {"search", "—"}
    changes = []
    model.dataChanged.connect(
        lambda first, last: changes.append((first.parent().isValid(), first.row(), last.row()))
    )
    choose(qtbot, state, [row.key for row in state.rows], method="rtn")
    assert changes == [(False, 0, model.rowCount() - 1)]
    assert {line for lines in texts(model, Column.METHOD).values() for line in lines} == {"rtn", "—"}
    assert model.index(1, Column.METHOD).data() == "rtn"


def test_what_was_changed_and_pinned_is_marked(qtbot, state, opened):
    key = "blk.1.attn_q.weight"
    index = cell(opened, key, Column.FORMAT)
    assert not index.data(LINE_ROLE).changed
    choose(qtbot, state, [key], format="Q8_0")
    assert index.data(LINE_ROLE).changed
    assert index.data(Qt.ItemDataRole.AccessibleTextRole) == "Format: Q8_0, changed"
    place = [row.index for row in state.rows if row.key == key]
    with qtbot.waitSignal(state.plan_changed):
        state.change_recipe("pin", set_pinned(state.document.recipe, state.planner, state.plan, place, True))
    assert index.data(LINE_ROLE).pinned
    for _ in range(2):
        with qtbot.waitSignal(state.plan_changed):
            state.document.undo_stack.undo()
    assert not index.data(LINE_ROLE).changed
    assert not index.data(LINE_ROLE).pinned


def dots(model: LayersModel, state: State) -> list[str]:
    return [row.key for row in state.rows if cell(model, row.key, Column.FORMAT).data(LINE_ROLE).changed]


def preset(qtbot, state: State, name: str) -> None:
    with qtbot.waitSignal(state.plan_changed):
        state.apply_preset(name)


def test_dots_compare_with_the_preset_of_now(qtbot, state, opened):
    key = "blk.1.attn_q.weight"
    choose(qtbot, state, [key], format="Q5_K")
    place = [row.index for row in state.rows if row.key == key]
    with qtbot.waitSignal(state.plan_changed):
        state.change_recipe("pin", set_pinned(state.document.recipe, state.planner, state.plan, place, True))
    assert dots(opened, state) == [key]
    preset(qtbot, state, "Q8_0")
    assert dots(opened, state) == [key]
    choose(qtbot, state, ["blk.0.attn_k.weight"], format="F16")
    assert dots(opened, state) == ["blk.0.attn_k.weight", key]
    with qtbot.waitSignal(state.plan_changed):
        state.document.undo_stack.setIndex(0)
    assert dots(opened, state) == []


def test_a_pin_on_what_the_new_preset_says_has_no_dot(qtbot, state, opened):
    key = "blk.1.attn_q.weight"
    choose(qtbot, state, [key], format="Q8_0")
    place = [row.index for row in state.rows if row.key == key]
    with qtbot.waitSignal(state.plan_changed):
        state.change_recipe("pin", set_pinned(state.document.recipe, state.planner, state.plan, place, True))
    preset(qtbot, state, "Q8_0")
    assert dots(opened, state) == []


def test_the_pins_of_a_recipe_file_are_its_own(qtbot, state, opened, tmp_path):
    rules = [{"match": "v", "format": "Q8_0", "pinned": True}]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"rules": rules, "default": {"format": "Q4_K"}}))
    with qtbot.waitSignal(state.plan_changed):
        state.document.load(path)
    assert dots(opened, state) == []


def test_nothing_of_a_hostile_name_is_markup_or_a_control_character(qtbot, state, opened):
    hostile_model(state)
    qtbot.waitUntil(lambda: state.plan is not None)
    row = next(row for row in state.rows if row.name == HOSTILE)
    for column in Column:
        index = cell(opened, row.key, column)
        assert index.data().isprintable()
        assert index.data(Qt.ItemDataRole.AccessibleTextRole).isprintable()
    name = cell(opened, row.key, Column.NAME)
    assert name.data() == r"<b>x</b>&amp;&\n\u202ey"
    tip = name.data(Qt.ItemDataRole.ToolTipRole)
    assert "<b>" not in tip
    assert r"&lt;b&gt;x&lt;/b&gt;&amp;amp;&amp;\n\u202ey" in tip


def test_a_refusal_is_no_markup(state, model):
    summary, _ = summaries(1)
    state.opening("model")
    state.take_summary(summary)
    state.refuse_export("Nobody runs <b>this</b>.")
    index = cell(model, summary.tensors[0].name, Column.FORMAT)
    tip = index.data(Qt.ItemDataRole.ToolTipRole)
    assert "&lt;b&gt;this&lt;/b&gt;" in tip
    assert Qt.mightBeRichText(tip), "or Qt would show it with its tags"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b<é>", "a b<é>"), ("a\nb\t\x00", r"a\nb\t\x00"), ("\u202e\ud800", r"\u202e\ud800")],
)
def test_names_are_shown_printable(name, shown):
    assert printable(name) == shown


def test_tips_that_look_like_markup_are_escaped_and_others_stay():
    assert as_tip("a < b & c\nd") == "a < b & c\nd"
    assert "&lt;i&gt;" in as_tip("<i>a</i>")


def test_a_mixture_with_a_tensor_an_expert_is_quick(state):
    """46,000 rows while the headers alone are known: half of the limit on two slow cores."""
    summary, _ = summaries(0)
    one = summary.tensors[0].model_copy(update={"role": Role.EXPERT})
    names = (f"model.layers.{block}.mlp.experts.{e}.up" for block in range(60) for e in range(768))
    tensors = [one.model_copy(update={"name": name, "block": int(name.split(".")[2])}) for name in names]
    state.opening("model")
    state.take_summary(summary.model_copy(update={"tensors": tensors}))
    model, took = LayersModel(state, state), []
    for _ in range(4):
        start = time.thread_time()
        state.model_changed.emit()
        took.append(time.thread_time() - start)
    assert model.total == 46080
    assert min(took) < 0.1


def test_only_what_can_be_chosen_can_be_edited(opened):
    def editable(key: str, column: Column) -> bool:
        return bool(cell(opened, key, column).flags() & Qt.ItemFlag.ItemIsEditable)

    assert editable("blk.0.attn_q.weight", Column.FORMAT)
    assert editable("blk.0.attn_q.weight", Column.METHOD)
    assert not editable("blk.0.attn_q.weight", Column.BITS)
    assert not editable("blk.0.attn_norm.weight", Column.FORMAT)
    assert not editable(UNUSED, Column.FORMAT)


def test_closing_empties_the_table(state, opened):
    state.close()
    assert opened.rowCount() == 0
    assert opened.total == 0


def test_a_selection_is_found_by_keys(opened):
    keys = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.2.attn_q.weight"]
    selection = opened.selection_of([*keys, "no such key"])
    assert selection.size() == 2
    assert [row.key for row in opened.rows_in(selection)] == keys


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (16, "16.0"), (4.5, "4.50"), (0.001024, "0.00102"), (1350.4, "1350"), (9.996, "10.0")],
)
def test_three_significant_digits(value, shown):
    assert digits(value) == shown
