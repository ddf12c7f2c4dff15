"""Names out of files are shown letter by letter, never as markup, and never widen the window."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtGui import Qt as GuiQt
from PySide6.QtWidgets import QLabel, QMainWindow, QWidget
from pytestqt.qtbot import QtBot

from app.action_table import ACTIONS
from app.actions import Actions
from app.models.layer_lines import Column
from app.plain import BREAK, as_tip, breakable, printable, shortened
from app.state import State
from app.toolbar import MainToolBar
from app.views.figure import FigureView
from app.views.help import HelpPanel
from app.views.inspector import Inspector
from app.views.layers import LayersView
from app.views.start import RecentList
from app.views.strip import Fact
from tests.app.layers import UNUSED, summaries
from tests.app.reading import FakeDesk

HOSTILE = ("<img src='x'>", "<b>bold</b>", "a" * 5000, "1" * 5000)
IDS = ("image", "bold", "long", "digits")
MOST_WIDTH = 1000
TIP = Qt.ItemDataRole.ToolTipRole


class NoReader(QObject):
    """Never answers."""

    dropped = Signal()

    def figure(self, *_: object) -> None: ...
    def statistics(self, *_: object) -> None: ...
    def drop(self, place: str) -> None: ...


@pytest.fixture(params=HOSTILE, ids=IDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def state(qtbot: QtBot) -> Iterator[State]:
    state = State()
    yield state
    state.finish()


def open_named(state: State, name: str) -> None:
    """One block, its query and what is not written named by `name`, types too."""
    summary, export = summaries(1)

    def renamed(source: str) -> str:
        query = source.endswith("q_proj.weight")
        return name if query else f"{name}." if source == UNUSED else source

    tensors = [
        tensor.model_copy(update={"name": renamed(tensor.name), "dtype": name}) for tensor in summary.tensors
    ]
    outputs = [
        tensor.model_copy(update={"sources": tuple(map(renamed, tensor.sources))})
        for tensor in export.tensors
    ]
    state.opening(Path("model"))
    state.take_summary(summary.model_copy(update={"tensors": tensors}))
    state.take_export(export.model_copy(update={"tensors": outputs}))


def check_plain(widget: QWidget) -> None:
    for label in (widget, *widget.findChildren(QLabel)):
        if isinstance(label, QLabel):
            plain = label.textFormat() == Qt.TextFormat.PlainText
            assert plain or not GuiQt.mightBeRichText(label.text())
    for part in (widget, *widget.findChildren(QWidget), *widget.findChildren(QAction)):
        check_tip(part.toolTip())


def check_tip(tip: str) -> None:
    """Letter by letter: not taken for markup, or escaped."""
    if GuiQt.mightBeRichText(tip):
        assert "<img" not in tip
        assert "<b>" not in tip


def test_a_tip_shows_what_looks_like_markup_letter_by_letter(qapp):
    assert as_tip("a < b & c\nd") == "a < b & c\nd"
    tip = as_tip("<img src='x'>")
    assert "<img" not in tip
    assert "&lt;img" in tip


@pytest.mark.parametrize(
    ("text", "shown"), [("a.b_c", "a.b_c"), ("a\nb\x1b", "a\\nb\\x1b"), ("\u202ea", "\\u202ea")]
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_a_long_text_is_cut_in_its_middle():
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdefgh", 5) == "ab…gh"
    assert shortened("abcdefgh", 6) == "abc…gh"
    assert len(shortened("a" * 5000)) == 200


def test_only_long_words_break():
    text = f"short words {'a' * 100}"
    assert breakable("short words") == "short words"
    assert breakable(text).replace(BREAK, "") == text
    assert max(map(len, breakable(text).replace(BREAK, " ").split())) < 10


def test_the_inspector_shows_any_name(qtbot: QtBot, state: State, name: str):
    inspector = Inspector(state, NoReader(), FakeDesk())
    qtbot.addWidget(inspector)
    inspector.show()
    open_named(state, name)
    qtbot.waitUntil(lambda: state.plan is not None)
    recipe = state.document.recipe
    rule = recipe.rules[0].model_copy(update={"match": name}) if recipe.rules else None
    if rule is not None:
        state.change_recipe("Hostile", recipe.model_copy(update={"rules": [rule, *recipe.rules]}))
    for row in state.rows:
        state.select((row.key,))
        check_plain(inspector)
        assert inspector.minimumSizeHint().width() < MOST_WIDTH
        assert len(inspector._name.toolTip()) < 4000
    inspector.figure.show_text(f"{name}: cannot be read.")
    check_plain(inspector)
    assert inspector.minimumSizeHint().width() < MOST_WIDTH


def test_the_table_shows_and_sorts_any_name(qtbot: QtBot, state: State, name: str):
    view = LayersView(state)
    qtbot.addWidget(view)
    view.show()
    open_named(state, name)
    qtbot.waitUntil(lambda: state.plan is not None)
    for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
        view.model.sort(Column.NAME, order)
        assert set(view.model.keys_shown()) == {row.key for row in state.rows}
    for row in state.rows:
        for column in Column:
            check_tip(view.model.index_of(row.key, column).data(TIP) or "")
    check_plain(view)
    assert view.minimumSizeHint().width() < MOST_WIDTH


def test_what_is_not_written_does_not_wait_for_ever(qtbot: QtBot, state: State):
    view = LayersView(state)
    qtbot.addWidget(view)
    open_named(state, "query")
    index = view.model.index_of("query.", Column.FORMAT)
    assert index.data() == "…"
    qtbot.waitUntil(lambda: state.plan is not None)
    assert view.model.index_of("query.", Column.FORMAT).data() == "—"


def test_actions_and_toolbar_say_any_reason(qtbot: QtBot, state: State, name: str):
    window = QMainWindow()
    qtbot.addWidget(window)
    actions = Actions(window)
    toolbar = MainToolBar(actions, state, window)
    window.addToolBar(toolbar)
    actions.enable({spec.needs: f"{name}: refused." for spec in ACTIONS if spec.needs})
    toolbar.refresh(f"{name}: refused.")
    check_plain(window)
    assert toolbar.preset_button.minimumSizeHint().width() < MOST_WIDTH


def test_other_views_show_any_text(qtbot: QtBot, name: str):
    fact, figure, recent, pages = Fact("size"), FigureView("Weights"), RecentList(), HelpPanel()
    for widget in (fact, figure, recent, pages):
        qtbot.addWidget(widget)
    fact.show_text(name, name, "info")
    figure.show_text(name)
    recent.show_paths([name])
    qtbot.waitUntil(lambda: not recent._finder.busy)
    pages.search.setText(name)
    for widget in (fact, figure, recent, pages):
        check_plain(widget)
        assert widget.minimumSizeHint().width() < MOST_WIDTH
    check_tip(recent.model().index(0, 0).data(TIP))
