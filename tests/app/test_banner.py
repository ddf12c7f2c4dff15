"""Messages at the top: read, copied, acted on, sent away."""

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QPushButton

from app.views.banner import BannerArea


@pytest.fixture
def area(qtbot):
    area = BannerArea()
    qtbot.addWidget(area)
    return area


def test_nothing_to_say_takes_no_room(area):
    assert area.isHidden()
    assert area.banners == []


@pytest.mark.parametrize(("kind", "word"), [("error", "Error"), ("warning", "Warning"), ("info", "Note")])
def test_a_message_has_words_and_a_name(area, kind, word):
    banner = area.show_message(kind, "What happened. What to do.")
    assert area.isVisible()
    assert banner.text == "What happened. What to do."
    assert banner.accessibleName() == f"{word}: What happened. What to do."
    assert banner.copy_button.isHidden()


def test_the_newest_is_on_top_and_three_are_enough(area):
    for number in range(5):
        area.show_message("info", f"message {number}")
    assert [banner.text for banner in area.banners] == ["message 4", "message 3", "message 2"]


def test_the_same_message_stands_once(area):
    area.show_message("error", "same")
    area.show_message("info", "other")
    area.show_message("error", "same")
    assert [banner.text for banner in area.banners] == ["same", "other"]


def test_copy_takes_the_details_along(area, qtbot):
    banner = area.show_message("error", "It broke.", "Traceback: line 1")
    qtbot.mouseClick(banner.copy_button, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == "It broke.\n\nTraceback: line 1\n"


def test_an_action_runs_and_the_message_goes(area, qtbot):
    done = []
    banner = area.show_message("error", "Stopped.", actions=[("Resume", lambda: done.append("resumed"))])
    button = next(found for found in banner.findChildren(QPushButton) if found.text() == "Resume")
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert done == ["resumed"]
    assert area.isHidden()


def test_dismissed_by_its_cross(area, qtbot):
    area.show_message("info", "below")
    banner = area.show_message("info", "above")
    qtbot.mouseClick(banner.close_button, Qt.MouseButton.LeftButton)
    assert [left.text for left in area.banners] == ["below"]
    area.dismiss_all()
    assert area.isHidden()


def test_what_is_past_goes(area):
    one, other = object(), object()
    for text, subject in (("a", one), ("b", other), ("c", None)):
        area.show_message("error", text).about = subject
    area.dismiss_about(one)
    assert [left.text for left in area.banners] == ["c", "b"]


def test_markup_in_a_message_is_text(area):
    banner = area.show_message("error", "<b>no</b> <img src='x'>")
    assert banner._text.textFormat() == Qt.TextFormat.PlainText
