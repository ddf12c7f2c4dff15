"""The filter of the layers view: what it shows, what it says, and that it guards what it hides."""

from collections.abc import Callable, Iterator

import pytest
from PySide6.QtCore import QPoint, Qt

from app.models.layer_lines import Column
from app.models.layers import LINE_ROLE
from app.state import State
from app.views.layers import LayersView
from engine.api.model import Role
from tests.app.layers import open_model

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def state(qtbot) -> Iterator[State]:
    state = State()
    yield state
    state.finish()


@pytest.fixture
def view(qtbot, state) -> LayersView:
    view = LayersView(state)
    qtbot.addWidget(view)
    view.resize(1000, 600)
    view.show()
    qtbot.waitExposed(view)
    return view


@pytest.fixture
def opened(qtbot, state, view) -> LayersView:
    open_model(state, 4)
    qtbot.waitUntil(lambda: state.plan is not None)
    return view


def key(part: str, block: int) -> str:
    return f"blk.{block}.{part}.weight"


def planned(qtbot, state: State, gesture: Callable[[], None]) -> None:
    with qtbot.waitSignal(state.plan_changed):
        gesture()


def formats(state: State, *keys: str) -> list[str]:
    by_name = {tensor.name: tensor.format for tensor in state.plan.tensors}
    return [by_name[name] for name in keys]


def test_the_filter_by_keys(qtbot, state, opened):
    opened.focus_filter()
    qtbot.keyClicks(opened.filter.field, "down")
    assert opened.filter.count.text() == "4 of 32 tensors"
    qtbot.keyClicks(opened.filter.field, "(")
    assert opened.filter.reason.text().startswith("not a regular expression")
    assert opened.model.shown == 4
    opened.filter.field.setText("no tensor has this name")
    assert opened.pages.currentWidget() is opened.nothing
    button = next(child for child in opened.nothing.children() if child.inherits("QPushButton"))
    qtbot.mouseClick(button, LEFT)
    assert opened.pages.currentWidget() is opened.table
    assert opened.filter.count.text() == "32 tensors"


def test_several_roles_are_checked_while_the_menu_stays(qtbot, opened):
    menu = opened.filter.menu
    menu.popup(QPoint(10, 10))
    qtbot.waitUntil(menu.isVisible)
    for role in (Role.DOWN, Role.UP):
        action = next(a for a in menu.actions() if a.text().startswith(f"{role.value}\t"))
        qtbot.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())
        assert menu.isVisible()
    assert opened.filter.roles.text() == "up, down"
    assert opened.model.shown == 8
    menu.close()


@pytest.mark.parametrize("roles", [frozenset({Role.DOWN}), frozenset()])
def test_a_key_leaves_alone_what_the_filter_hides(qtbot, state, opened, roles):
    state.select((key("ffn_gate", 0), key("ffn_down", 0)))
    before = formats(state, key("ffn_gate", 0))
    for role in roles:
        next(a for a in opened.filter.menu.actions() if a.text().startswith(f"{role.value}\t")).trigger()
    if not roles:
        opened.filter.field.setText("down")
    planned(qtbot, state, lambda: opened.edits.set_format(opened.table.chosen, "BF16"))
    planned(qtbot, state, lambda: opened.set_bits(8))
    planned(qtbot, state, opened.toggle_pin)
    assert formats(state, key("ffn_gate", 0)) == before
    assert {rule.format for rule in state.document.recipe.rules if rule.pinned} == {"Q8_0"}
    opened.filter.clear()
    texts = [opened.model.index_of(key(part, 0), Column.FORMAT) for part in ("ffn_gate", "ffn_down")]
    assert [index.data(LINE_ROLE).pinned for index in texts] == [False, True]


def test_a_key_changes_nothing_where_all_that_is_selected_is_hidden(state, opened):
    state.select((key("ffn_gate", 0),))
    opened.filter.field.setText("down")
    opened.set_bits(8)
    assert state.document.undo_stack.count() == 0


def test_escape_clears_the_filter_then_leaves_it(qtbot, opened):
    opened.focus_filter()
    qtbot.waitUntil(opened.filter.field.hasFocus)
    qtbot.keyClicks(opened.filter.field, "down")
    qtbot.keyClick(opened.filter.field, Qt.Key.Key_Escape)
    assert opened.filter.field.text() == ""
    assert opened.model.shown == 32
    assert opened.filter.field.hasFocus()
    qtbot.keyClick(opened.filter.field, Qt.Key.Key_Escape)
    assert opened.table.hasFocus()


def test_why_a_filter_is_not_applied_is_cut_with_an_ellipsis_and_whole_as_a_tip(qtbot, opened):
    opened.filter.field.setText("(?P<b>x)(?P=c)")
    reason = opened.filter.reason
    assert reason.text().startswith("not a regular expression: ")
    assert reason.shown == reason.text()
    opened.resize(500, 600)
    qtbot.waitUntil(lambda: reason.shown != reason.text())
    assert reason.shown.endswith("…")
    assert reason.fontMetrics().horizontalAdvance(reason.shown) <= reason.width()
    assert reason.toolTip() == reason.text()


def test_a_pattern_that_takes_too_long_says_so(opened):
    opened.filter.field.setText("down")
    opened.filter.field.setText(r"^(\w|\w\w|\.)*[!?]$")
    assert opened.filter.reason.text() == "This pattern takes too long; make it simpler."
    assert opened.model.shown == 4


def test_tab_goes_from_filter_to_roles_to_table(qtbot, opened):
    opened.focus_filter()
    qtbot.waitUntil(opened.filter.field.hasFocus)
    qtbot.keyClick(opened.filter.field, Qt.Key.Key_Tab)
    assert opened.filter.roles.hasFocus()
    qtbot.keyClick(opened.filter.roles, Qt.Key.Key_Tab)
    assert opened.table.hasFocus()
