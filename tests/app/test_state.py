"""What is open, without a window."""

from pathlib import Path

from app.state import State
from tests.app.layers import summaries


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
