"""The help in the window: every page opens, every link leads somewhere, every key is listed."""

import re

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QGuiApplication, QKeySequence, QTextTable

from app.action_table import ACTIONS
from app.actions import Actions
from app.views.help import PAGES, HelpPanel, slug, titles

NAMES = sorted(path.stem for path in PAGES.glob("*.md"))


@pytest.fixture
def panel(qtbot):
    panel = HelpPanel()
    qtbot.addWidget(panel)
    panel.resize(360, 600)
    panel.show()
    return panel


def text(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_the_list_has_every_page_the_window_first(panel):
    assert sorted(titles()) == NAMES
    assert panel.pages.itemText(0) == "The window"
    assert panel.page == "window"


@pytest.mark.parametrize("name", NAMES)
def test_every_page_opens(panel, name):
    panel.show_page(name)
    assert panel.browser.toPlainText().startswith(titles()[name])
    assert panel.pages.currentData() == name


@pytest.mark.parametrize("name", NAMES)
def test_every_link_between_pages_resolves(name):
    for target in re.findall(r"\]\(([^)]+)\)", text(name)):
        if "://" not in target:
            page, _, anchor = target.partition("#")
            page = page.removesuffix(".md") or name
            assert page in NAMES, target
            headings = {slug(line.lstrip("# ")) for line in text(page).splitlines() if line.startswith("#")}
            assert not anchor or anchor in headings, target


def test_a_link_leads_to_its_page_and_heading(panel):
    panel.browser.anchorClicked.emit(QUrl("recipes.md#methods"))
    assert panel.page == "recipes"
    bar = panel.browser.verticalScrollBar()
    assert bar.value() > 0
    panel.browser.anchorClicked.emit(QUrl("jobs.md"))
    assert (panel.page, bar.value()) == ("jobs", 0)


def test_a_link_to_the_web_is_copied_not_opened(panel):
    panel.browser.anchorClicked.emit(QUrl("https://example.org/paper"))
    assert QGuiApplication.clipboard().text() == "https://example.org/paper"
    assert "copied" in panel.note.text()
    assert panel.page == "window"


def test_searching_finds_and_says_where_else(panel, qtbot):
    qtbot.keyClicks(panel.search, "Preset")
    assert panel.browser.textCursor().selectedText().lower() == "preset"
    panel.search.setText("SentencePiece")
    assert "What can be opened" in panel.note.text()
    panel.search.clear()
    assert panel.note.isHidden()


def test_tables_are_tables(panel):
    panel.show_page("window", "keys")
    frames = panel.browser.document().rootFrame().childFrames()
    assert any(isinstance(frame, QTextTable) for frame in frames)
    assert panel.browser.verticalScrollBar().value() > 0


def test_every_key_of_the_table_of_actions_is_on_the_page(qtbot):
    from PySide6.QtWidgets import QMainWindow

    window = QMainWindow()
    qtbot.addWidget(window)
    actions = Actions(window)
    listed = re.findall(r"^\| `([^`]+)`", text("window"), re.MULTILINE)
    known = {
        key.toString(QKeySequence.SequenceFormat.PortableText) for a in actions.all() for key in a.shortcuts()
    }
    assert [key for key in listed if key != "2" and key not in known] == []
    missing = []
    for spec in ACTIONS:
        keys = {key.toString() for key in actions[spec.key].shortcuts()}
        if keys and not spec.key.startswith("bits_") and not keys & set(listed):
            missing.append(spec.key)
    assert missing == []
