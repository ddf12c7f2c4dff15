"""The start page by mouse and keys."""

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLabel, QMenu

from app.views.start import STEPS, StartPage


@pytest.fixture
def page(qtbot):
    page = StartPage()
    qtbot.addWidget(page)
    page.resize(1280, 700)
    page.show()
    return page


@pytest.mark.parametrize("name", ["folder", "file", "sample"])
def test_the_buttons_ask(page, qtbot, name):
    with qtbot.waitSignal(getattr(page, f"open_{name}")):
        qtbot.mouseClick(getattr(page, f"{name}_button"), Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(getattr(page, f"open_{name}")):
        qtbot.keyClick(getattr(page, f"{name}_button"), Qt.Key.Key_Space)


def test_it_names_what_one_can_do(page):
    said = [label.text() for label in page.findChildren(QLabel)]
    assert all(title in said for title, _ in STEPS)
    assert any("drop" in text for text in said)


def test_nothing_recent_says_so(page):
    page.set_recent([])
    assert not page.recent.isVisible()
    assert any("listed here" in label.text() for label in page.findChildren(QLabel) if label.isVisible())


def test_recent_models_open_by_click_and_key(page, qtbot):
    page.set_recent(["/models/one", "/models/two"])
    model, view = page.recent.model(), page.recent
    with qtbot.waitSignal(page.open_recent) as opened:
        where = view.visualRect(model.index(1, 0)).center()
        qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert opened.args == ["/models/two"]
    qtbot.keyClick(view, Qt.Key.Key_Up)
    with qtbot.waitSignal(page.open_recent) as opened:
        qtbot.keyClick(view, Qt.Key.Key_Return)
    assert opened.args == ["/models/one"]


def test_a_double_click_opens_once(page, qtbot):
    page.set_recent(["/models/one"])
    opened = []
    page.open_recent.connect(opened.append)
    where = page.recent.visualRect(page.recent.model().index(0, 0)).center()
    qtbot.mouseClick(page.recent.viewport(), Qt.MouseButton.LeftButton, pos=where)
    qtbot.mouseDClick(page.recent.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert opened == ["/models/one"]


def test_delete_takes_one_off_the_list(page, qtbot):
    page.set_recent(["/models/one", "/models/two"])
    page.activateWindow()
    page.recent.setFocus()
    qtbot.waitUntil(page.recent.hasFocus)
    qtbot.keyClick(page.recent, Qt.Key.Key_Down)
    with qtbot.waitSignal(page.remove_recent) as removed:
        qtbot.keyClick(page.recent, Qt.Key.Key_Delete)
    assert removed.args == ["/models/two"]


def test_the_context_menu_opens_and_removes(page, qtbot):
    page.set_recent(["/models/one"])
    where = page.recent.visualRect(page.recent.model().index(0, 0)).center()
    page.recent.customContextMenuRequested.emit(where)
    menu = QApplication.activePopupWidget()
    assert isinstance(menu, QMenu)
    assert [action.text() for action in menu.actions()] == ["&Open", "&Remove from the list"]
    with qtbot.waitSignal(page.remove_recent):
        menu.actions()[1].trigger()
    menu.close()


def test_what_is_gone_is_marked(page, qtbot, tmp_path):
    gone = str(tmp_path / "gone")
    page.set_recent([str(tmp_path), gone])
    qtbot.waitUntil(lambda: page.recent.missing() == [gone])
    assert "not there any more" in page.recent.model().index(1, 0).data(Qt.ItemDataRole.ToolTipRole)
    page.grab()
