"""What is open, without a window."""

from pathlib import Path

from app.planner import MEASURED_WINDOWS
from app.state import State
from engine.api.editing import set_pinned
from engine.api.needs import measure_memory, quantize_memory
from engine.api.recipe import GgufOptions, Rule
from tests.app.layers import open_model, summaries


def test_the_selection_goes_on_when_the_output_is_known(qtbot):
    state = State()
    summary, export = summaries(2)
    state.opening(Path("model"))
    state.take_summary(summary)
    source = export.tensors[3].sources[0]
    state.select((source,))
    with qtbot.waitSignal(state.plan_changed):
        state.take_export(export)
    assert state.selection == (export.tensors[3].name,)
    state.finish()


def test_the_outlook_is_that_of_the_plan(qtbot):
    state = State()
    open_model(state, 2)
    qtbot.waitUntil(lambda: state.plan is not None)
    outlook, plan, export = state.outlook, state.plan, state.export
    assert (outlook.file_bytes, outlook.bits_per_weight) == (
        export.file_bytes(plan, GgufOptions()),
        plan.bits_per_weight,
    )
    assert outlook.quantize_memory == quantize_memory(export, 0)
    assert outlook.measure_memory == measure_memory(export, MEASURED_WINDOWS)
    assert not any(outlook.pinned + outlook.changed)
    places = [place for place, tensor in enumerate(plan.tensors) if tensor.block == 1]
    with qtbot.waitSignal(state.plan_changed):
        state.change_recipe("pin", set_pinned(state.document.recipe, state.planner, plan, places, True))
    kept = [tensor.kept for tensor in plan.tensors]
    assert [place for place, pinned in enumerate(state.outlook.pinned) if pinned] == [
        place for place in places if not kept[place]
    ]
    state.finish()


def test_a_recipe_that_cannot_be_planned_is_taken_back(qtbot):
    """Its pattern would take longer than anybody waits."""
    state = State()
    open_model(state, 2)
    qtbot.waitUntil(lambda: state.plan is not None)
    before = state.document.recipe
    rule = Rule(match="(.|..)+[!?]$", format="Q8_0")
    with qtbot.waitSignal(state.recipe_refused, timeout=20_000) as refused:
        state.change_recipe("hang", before.model_copy(update={"rules": [rule]}))
    assert "takes too long" in refused.args[0]
    assert state.document.recipe == before
    with qtbot.waitSignal(state.plan_changed):
        state.apply_preset("Q8_0")
    state.finish()


def make(qtbot, preset: str) -> State:
    state = State()
    open_model(state, 4)
    state.apply_preset(preset)
    qtbot.waitUntil(lambda: state.plan is not None)
    return state


def mixture(state: State):
    return state.document.recipe.default, state.document.recipe.rules


def test_a_matrix_lays_an_unedited_preset_anew_in_one_step(qtbot):
    state = make(qtbot, "IQ3_XXS")
    places = [place for place, tensor in enumerate(state.plan.tensors) if tensor.block == 1]
    state.change_recipe("pin", set_pinned(state.document.recipe, state.planner, state.plan, places, True))
    without, steps = mixture(state), state.document.undo_stack.count()
    assert state.set_importance("/m/some.gguf") is True
    assert mixture(state) != without
    assert state.document.undo_stack.count() == steps + 1
    used = state.document.recipe
    state.apply_preset("IQ3_XXS")
    assert state.document.recipe == used  # what the preset itself gives, with what was pinned
    assert sum(bool(rule.pinned) for rule in used.rules) == sum(bool(rule.pinned) for rule in without[1])
    assert state.set_importance("/m/other.gguf") is None
    assert mixture(state) == (used.default, used.rules)
    state.document.undo_stack.undo()
    assert state.set_importance(None) is True
    assert mixture(state) == without
    assert not state.document.version.edited
    state.document.undo_stack.undo()
    assert state.document.recipe == used
    state.finish()


def test_a_matrix_leaves_what_was_edited_and_what_mixes_the_same(qtbot):
    state = make(qtbot, "IQ3_XXS")
    edited = [*state.document.recipe.rules, Rule(match="blk.0.attn_q", format="Q8_0")]
    state.change_recipe("edit", state.document.recipe.model_copy(update={"rules": edited}))
    assert state.set_importance("/m/some.gguf") is False
    assert (state.document.recipe.rules, state.document.recipe.imatrix) == (edited, "/m/some.gguf")
    state.apply_preset("Q8_0")
    assert state.set_importance(None) is None
    assert state.document.version.name == "Q8_0"
    state.finish()


def test_closing_leaves_nothing(qtbot):
    state = State()
    summary, export = summaries(2)
    state.opening(Path("model"))
    state.take_summary(summary)
    with qtbot.waitSignal(state.plan_changed):
        state.take_export(export)
    state.close()
    assert (state.phase, state.path, state.plan, state.rows) == ("empty", None, None, [])
    assert state.document.recipe is None
    state.finish()
