"""The command palette, by keys alone."""

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMainWindow

from app.actions import Actions
from app.views.palette import CommandPalette, words


@pytest.fixture
def window(qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    window.resize(1000, 700)
    window.show()
    qtbot.waitActive(window).__enter__()
    return window


@pytest.fixture
def actions(window):
    return Actions(window)


@pytest.fixture
def palette(window, actions):
    palette = CommandPalette(window)
    palette.open(actions.all())
    return palette


def listed(palette: CommandPalette) -> list[str]:
    model = palette.list.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def test_it_lists_every_action_and_has_the_focus(palette, actions, qtbot):
    qtbot.waitUntil(palette.field.hasFocus)
    assert listed(palette) == [words(action) for action in actions.all()]
    palette.grab()


def test_typing_filters_by_words(palette, qtbot):
    qtbot.keyClicks(palette.field, "fold op")
    assert set(listed(palette)) == {"Open folder", "Open output folder"}
    palette.field.setText("zzz")
    assert listed(palette) == []


def test_whole_words_come_before_scattered_letters(palette):
    palette.field.setText("run")
    assert listed(palette)[0] == "Run"
    palette.field.setText("svrcp")
    assert "Save recipe" in listed(palette)


def test_enter_runs_what_is_chosen_and_closes(palette, actions, qtbot):
    done = []
    actions.connect("open_file", lambda: done.append("file"))
    qtbot.keyClicks(palette.field, "open f")
    assert listed(palette)[:2] == ["Open folder", "Open file"]
    qtbot.keyClick(palette.field, Qt.Key.Key_Down)
    qtbot.keyClick(palette.field, Qt.Key.Key_Return)
    assert done == ["file"]


def test_escape_closes_and_runs_nothing(window, palette, qtbot):
    qtbot.keyClick(palette.field, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.findChildren(CommandPalette))


def test_a_disabled_command_says_why_and_does_not_run(window, palette, actions, qtbot):
    done = []
    actions.connect("run", lambda: done.append("run"))
    actions.enable({"plan": "Open a model first."})
    palette.field.setText("run")
    index = palette.list.model().index(0, 0)
    assert index.data(Qt.ItemDataRole.AccessibleTextRole) == "Run. Open a model first."
    qtbot.keyClick(palette.field, Qt.Key.Key_Return)
    assert done == []
    assert palette.isVisible()
    palette.grab()


def test_a_click_runs(palette, actions, qtbot):
    done = []
    actions.connect("about", lambda: done.append("about"))
    palette.field.setText("about")
    where = palette.list.visualRect(palette.list.model().index(0, 0)).center()
    qtbot.mouseClick(palette.list.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert done == ["about"]


def test_it_goes_when_the_focus_goes(window, palette, qtbot):
    qtbot.waitUntil(palette.field.hasFocus)
    window.setFocus()
    qtbot.waitUntil(lambda: not window.findChildren(CommandPalette))


def test_words_are_plain(qapp):
    assert words(QAction("Save recipe &as…")) == "Save recipe as"
    assert words(QAction("Q&&A")) == "Q&A"
