"""The table of actions: complete, without clashes, and every disabled one says why."""

from collections import Counter
from typing import get_args

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMainWindow, QMenu

from app.action_specs import Need
from app.action_table import ACTIONS, MENUS
from app.actions import Actions
from app.theme import icon

KEYS = [spec.key for spec in ACTIONS]


@pytest.fixture
def window(qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    return window


@pytest.fixture
def actions(window):
    return Actions(window)


def test_every_key_is_there_once():
    assert len(set(KEYS)) == len(KEYS)


def test_no_shortcut_is_used_twice(actions):
    used = Counter(key.toString() for action in actions.all() for key in action.shortcuts())
    assert [key for key, count in used.items() if count > 1] == []
    assert "Ctrl+R" in used
    assert "" not in used


@pytest.mark.parametrize("spec", ACTIONS, ids=lambda spec: spec.key)
def test_every_action_says_what_it_is(actions, spec):
    action = actions[spec.key]
    assert action.text()
    assert action.toolTip().startswith(spec.tip)
    assert action.statusTip() == f"{spec.tip}."
    assert action.whatsThis() == f"{spec.tip}."
    assert not spec.tip.endswith(".")
    assert not spec.shortcuts or action.shortcuts()


def mnemonic(text: str) -> str:
    return text[text.index("&") + 1].lower()


def test_mnemonics_are_unique_in_every_menu(window, actions):
    actions.fill_menus(window.menuBar())
    holders: list[list[QAction]] = [window.menuBar().actions()]
    holders += [menu.actions() for menu in window.findChildren(QMenu)]
    for held in holders:
        used = [mnemonic(action.text()) for action in held if not action.isSeparator()]
        assert len(set(used)) == len(used), used


def test_the_menu_bar_holds_every_action(window, actions):
    actions.fill_menus(window.menuBar())
    assert [action.text().replace("&", "") for action in window.menuBar().actions()] == [
        "File",
        "Edit",
        "Recipe",
        "View",
        "Run",
        "Help",
    ]

    def held(menu: QMenu) -> set[str]:
        below = [held(action.menu()) for action in menu.actions() if action.menu()]
        return {action.objectName() for action in menu.actions() if not action.menu()}.union(*below)

    found = set().union(*(held(action.menu()) for action in window.menuBar().actions()))
    assert set(KEYS) <= found


def test_submenus_stand_where_the_table_says(actions):
    names = [action.text() or "-" for action in actions.menu("File").actions()]
    assert names[3:5] == ["Open re&cent", "C&lose model"]
    assert all(menu.inside in MENUS for menu in MENUS.values() if menu.inside)


@pytest.mark.parametrize("need", [need for need in get_args(Need) if need])
def test_an_unmet_need_disables_with_its_reason(actions, need):
    reason = "There is none yet."
    actions.enable({need: reason})
    concerned = [spec.key for spec in ACTIONS if spec.needs == need]
    assert concerned
    for spec in ACTIONS:
        action = actions[spec.key]
        assert action.isEnabled() == (spec.key not in concerned)
        assert action.toolTip().endswith(reason) == (spec.key in concerned)
        assert (action.statusTip() == reason) == (spec.key in concerned)
    actions.enable({})
    assert all(action.isEnabled() and reason not in action.toolTip() for action in actions.all())


def test_what_stays_as_it_is_tells_no_menu_and_no_button(actions):
    actions.enable({"selection": "Select tensors first."})
    changes = []
    for action in actions.all():
        action.changed.connect(lambda: changes.append(1))
    actions.enable({"selection": "Select tensors first."})
    assert not changes
    actions.enable({})
    assert changes


def test_a_menu_of_disabled_actions_is_disabled_too(actions):
    actions.enable({"selection": "Select tensors first."})
    assert not actions.menu("Bits").menuAction().isEnabled()
    assert "Select tensors first." in actions.menu("Bits").menuAction().toolTip()


def test_triggering_calls_what_is_connected(actions):
    called = []
    actions.connect("run", lambda: called.append("run"))
    actions["run"].trigger()
    assert called == ["run"]


def test_one_theme_is_checked(actions):
    actions["theme_dark"].trigger()
    actions["theme_light"].trigger()
    assert [key for key in KEYS if key.startswith("theme") and actions[key].isChecked()] == ["theme_light"]


def test_letters_count_only_in_their_view(window, actions):
    assert actions["bits_4"] not in window.actions()
    assert actions["run"] in window.actions()


@pytest.mark.parametrize("name", sorted({spec.icon for spec in ACTIONS if spec.icon}))
def test_every_icon_can_be_painted(qapp, name):
    assert not icon(name).pixmap(18, 18).toImage().isNull()
