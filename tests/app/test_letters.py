"""Letters of other scripts are looked for a few a turn, before they are shown."""

import pytest
from PySide6.QtGui import QFont, QFontMetrics

from app import letters
from app.letters import Letters


@pytest.fixture
def sought(monkeypatch):
    """The letters that were looked for, in their order."""
    found = []

    class Metrics:
        def __init__(self, font: QFont) -> None:
            self._known = QFontMetrics(font)

        def horizontalAdvance(self, letter: str) -> int:
            found.append(letter)
            return self._known.horizontalAdvance(letter)

    monkeypatch.setattr(letters, "QFontMetrics", Metrics)
    return found


def test_plain_text_is_ready_at_once(qtbot, sought):
    finder = Letters()
    with qtbot.waitSignal(finder.ready, timeout=0):
        finder.find([(QFont(), "plain text")])
    assert sought == []


def test_each_other_letter_is_sought_once_in_a_turn_of_its_own(qtbot, sought, monkeypatch):
    monkeypatch.setattr(letters, "TURN", 0.0)
    finder = Letters()
    turns = []
    finder._next.timeout.connect(lambda: turns.append(len(sought)))
    with qtbot.waitSignal(finder.ready):
        finder.find([(QFont(), "\u6f22 and \u6f22\ud55c"), (QFont(), "\u0441\u6f22")])
        assert sought == [], "nothing is sought before the window can be drawn"
    assert sorted(sought) == ["\u0441", "\u6f22", "\ud55c"]
    assert turns == [1, 2, 3, 3], "what is ready has a turn of its own"


def test_a_newer_search_replaces_one_that_goes_on(qtbot, sought):
    finder = Letters()
    finder.find([(QFont(), "\u6f22")])
    with qtbot.waitSignal(finder.ready):
        finder.find([(QFont(), "\ud55c")])
    assert sought == ["\ud55c"]
