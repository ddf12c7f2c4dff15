"""The metadata sheet by keys and clicks: fields, table, and edits as steps of the recipe."""

import csv
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QScrollArea, QWidget
from pytestqt.qtbot import QtBot

from app.letters import Letters
from app.models.metadata import BYTES, KEY, STANDING, VALUE, KeysModel, edits_label, lines_of
from app.state import State
from app.views import metadata_fields
from app.views.metadata_fields import Fault, Field
from app.views.metadata_sheet import MetadataSheet
from engine.api.gguf import GgufValue
from engine.api.gguf import GGUFValueType as Type
from engine.api.importance import importance_facts
from engine.api.metadata import COMMON, entries_of
from tests.app.layers import open_model, summaries

LEFT = Qt.MouseButton.LeftButton
SOURCE = {
    "general.architecture": GgufValue(Type.STRING, "llama"),
    "general.name": GgufValue(Type.STRING, "Old"),
    "general.tags": GgufValue(Type.ARRAY, [f"tag {number}" for number in range(12)], Type.STRING),
    "llama.context_length": GgufValue(Type.UINT32, 512),
    "tokenizer.ggml.tokens": GgufValue(Type.ARRAY, ["a"] * 150_000, Type.STRING),
    "tokenizer.chat_template": GgufValue(Type.STRING, "{% for m in messages %}\n{{ m }}\n{% endfor %}"),
}
TEMPLATE = "tokenizer.chat_template"


def open_source(state: State) -> None:
    summary, export = summaries(1)
    state.opening(Path("model"))
    state.take_summary(summary)
    state.take_export(export.model_copy(update={"metadata": entries_of(SOURCE)}))


class Shown:
    """A sheet over a model with the metadata of `SOURCE`."""

    def __init__(self, qtbot: QtBot) -> None:
        self.qtbot, self.state = qtbot, State()
        open_source(self.state)
        qtbot.waitUntil(lambda: self.state.plan is not None)
        self.window = QWidget()
        qtbot.addWidget(self.window)
        self.window.show()
        self.sheet = MetadataSheet(self.state, self.window)
        self.sheet.show()
        qtbot.waitActive(self.sheet).__enter__()

    @property
    def edits(self) -> dict:
        return self.state.document.recipe.output.options.metadata

    def field(self, key: str) -> Field:
        return self.sheet.form.fields[key]

    def type(self, key: str, text: str) -> Field:
        """Replace what a field says and leave it by the tabulator."""
        field = self.field(key)
        field.field.setFocus()
        field.field.selectAll()
        self.qtbot.keyClick(field.field, Qt.Key.Key_Delete)
        self.qtbot.keyClicks(field.field, text)
        self.qtbot.keyClick(field.field, Qt.Key.Key_Tab)
        return field

    def select(self, key: str) -> None:
        """Click the line of a key."""
        keys = self.sheet.keys
        self.sheet.tabs.setCurrentIndex(1)
        index = keys.model.index(keys.model.row_of(key), KEY)
        keys.table.scrollTo(index)
        place = keys.table.visualRect(index).center()
        self.qtbot.mouseClick(keys.table.viewport(), LEFT, pos=place)

    def cell(self, key: str, column: int) -> str:
        model = self.sheet.keys.model
        return model.index(model.row_of(key), column).data()


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator[Shown]:
    made = Shown(qtbot)
    yield made
    made.state.finish()


def test_it_begins_behind_the_first_value_with_nothing_selected(shown):
    field = shown.field("general.name").field
    assert field.hasFocus()
    assert (field.cursorPosition(), field.selectedText()) == (len("Old"), "")


def test_the_window_system_moves_no_cursor(shown: Shown):
    """Its own showing again (another workspace, a window that was minimized) is no opening."""

    class Spontaneous(QShowEvent):
        def spontaneous(self) -> bool:
            return True

    author = shown.field("general.author").field
    author.setFocus()
    shown.sheet.showEvent(Spontaneous())
    assert author.hasFocus()


def test_nothing_is_typed_before_the_values_are_there(shown: Shown, qtbot: QtBot, monkeypatch):
    """They would be written over."""
    begin: list = []
    monkeypatch.setattr(Letters, "find", lambda letters, texts: begin.append(letters.ready.emit))
    sheet = MetadataSheet(shown.state, shown.window)
    sheet.show()
    parts = (sheet.tabs, sheet.copy, sheet.reset)
    assert [part.isEnabled() for part in parts] == [False] * 3
    qtbot.keyClicks(sheet.form.fields["general.name"].field, "New")
    begin[0]()
    assert [part.isEnabled() for part in parts] == [True, True, False]
    assert sheet.form.fields["general.name"].field.text() == "Old"
    assert sheet.focusWidget() is sheet.form.fields["general.name"].field
    sheet.close()
    assert shown.edits == {}


def test_common_fields_come_first_with_plain_names(shown: Shown):
    assert shown.sheet.tabs.currentWidget() is shown.sheet.form
    assert [field.name for field in shown.sheet.form.fields.values()] == list(COMMON.values())
    assert shown.field("general.name").field.text() == "Old"
    assert shown.field("general.tags").field.text().endswith("tag 10, tag 11"), "whole, not shortened"
    assert shown.field(TEMPLATE).field.toPlainText() == SOURCE[TEMPLATE].value
    assert shown.field("general.author").field.placeholderText() == "not in the file"
    assert "as in the source" in shown.sheet.status.text()


def test_an_edit_is_one_step_and_counts_to_the_byte(shown: Shown, qtbot: QtBot):
    before = shown.state.file_bytes
    with qtbot.waitSignal(shown.state.plan_changed):
        shown.type("general.name", "N" * 500)
    assert shown.edits == {"general.name": "N" * 500}
    stack = shown.state.document.undo_stack
    assert (stack.count(), stack.undoText()) == (1, "Metadata Name")
    export, recipe = shown.state.export, shown.state.document.recipe
    assert shown.state.file_bytes == export.file_bytes(shown.state.plan, recipe.output.options)
    assert 0 < shown.state.file_bytes - before - 497 < 32, "the header is padded"
    assert f"{shown.state.file_bytes:,}" in shown.sheet.status.toolTip()
    with qtbot.waitSignal(shown.state.plan_changed):
        stack.undo()
    assert shown.field("general.name").field.text() == "Old"
    assert shown.state.file_bytes == before


def test_plain_names_of_a_recipe_are_edits_of_their_keys(shown: Shown):
    recipe = shown.state.document.recipe.with_options(metadata={"author": "Me", "name": "New"})
    shown.state.change_recipe("Open recipe", recipe)
    assert shown.field("general.author").field.text() == "Me"
    assert shown.field("general.name").field.text() == "New"
    assert "2 edits" in shown.sheet.status.text()
    shown.type("general.author", "You")
    assert shown.edits == {"general.author": "You", "general.name": "New"}


def test_what_is_told_of_the_importance_matrix_can_be_edited(shown: Shown, qtbot: QtBot):
    state, key = shown.state, "quantize.imatrix.chunks_count"
    state.set_importance("/data/im.gguf")
    with qtbot.waitSignal(state.plan_changed):
        state.take_importance(importance_facts("/data/im.gguf", ["output.weight"], [], 9, 34))
    shown.sheet.tabs.setCurrentIndex(1)
    assert (shown.cell(key, VALUE), shown.cell(key, STANDING)) == ("34", "")
    with qtbot.waitSignal(state.plan_changed):
        shown.sheet._edit(key, "35")
    assert (shown.cell(key, VALUE), shown.cell(key, STANDING)) == ("35", "edited")
    edits = state.document.recipe.output.options
    assert state.file_bytes == state.export.file_bytes(state.plan, edits)
    with qtbot.waitSignal(state.plan_changed):
        state.set_importance(None)
    assert shown.cell(key, STANDING) == "added"


def test_what_cannot_be_is_said_at_the_field(shown: Shown):
    field = shown.type("general.tags", "a,,b")
    assert field._fault.isVisible()
    assert field.wrong == "general.tags is a list of texts, and 'a,,b' is none."
    assert shown.edits == {}
    shown.type("general.author", "Ada")
    assert field.field.text() == "a,,b", "it waits to be mended"
    shown.type("general.author", "")
    shown.type("general.tags", "a, b")
    assert not field.wrong
    assert shown.edits == {"general.tags": ["a", "b"]}


def test_emptied_is_left_out_and_reset_brings_it_back(shown: Shown, qtbot: QtBot):
    field = shown.type("general.name", "")
    assert shown.edits == {"general.name": ""}
    assert shown.state.document.undo_stack.undoText() == "Leave out Name"
    assert field.field.placeholderText() == "left out of the file"
    qtbot.mouseClick(field.back, LEFT)
    assert shown.edits == {}
    assert field.field.text() == "Old"
    assert not field.back.isVisible()


def test_the_same_as_the_source_is_no_edit(shown: Shown):
    shown.type("general.name", "New")
    shown.type("general.name", "Old")
    assert shown.edits == {}
    shown.type("general.author", "Ada")
    shown.type("general.author", "")
    assert shown.edits == {}


def test_the_chat_template_keeps_its_lines(shown: Shown, qtbot: QtBot):
    field = shown.field(TEMPLATE).field
    field.setFocus()
    field.selectAll()
    qtbot.keyClicks(field, "one")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    qtbot.keyClicks(field, "two")
    qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: shown.edits == {TEMPLATE: "one\ntwo"})
    assert field.toPlainText() == "one\ntwo"


@pytest.fixture
def parsed(monkeypatch) -> list[tuple[str, bool]]:
    """Chat templates that were parsed, and whether in the window's thread."""
    found, parse = [], metadata_fields.template_fault

    def note(text: str) -> str | None:
        found.append((text, threading.get_ident() == threading.main_thread().ident))
        return parse(text)

    monkeypatch.setattr(metadata_fields, "template_fault", note)
    monkeypatch.setattr("engine.api.metadata.template_fault", lambda text: None, raising=False)
    return found


FAULT = f"{TEMPLATE} is no chat template that programs can read: line 1: "


def type_template(shown: Shown, text: str) -> Field:
    """In place of what it says; the cursor stays."""
    field = shown.field(TEMPLATE)
    field.field.setFocus()
    field.field.selectAll()
    shown.qtbot.keyClicks(field.field, text)
    return field


def test_a_chat_template_is_parsed_in_the_background_once_typing_rests(shown: Shown, qtbot: QtBot, parsed):
    field = type_template(shown, "{% if x %}a")
    assert not parsed
    qtbot.waitUntil(lambda: field.wrong.startswith(FAULT))
    assert parsed == [("{% if x %}a", False)]
    qtbot.keyClick(field.field, Qt.Key.Key_Tab)
    assert shown.edits == {}, "a known fault holds it back"
    assert field.wrong
    type_template(shown, "{% if x %}a{% endif %}")
    assert field.wrong, "until the new text is parsed"
    qtbot.waitUntil(lambda: not field.wrong)
    qtbot.keyClick(field.field, Qt.Key.Key_Tab)
    assert shown.edits == {TEMPLATE: "{% if x %}a{% endif %}"}
    assert [text for text, _ in parsed] == ["{% if x %}a", "{% if x %}a{% endif %}"]


def test_a_chat_template_that_is_left_counts_once_it_is_parsed(shown: Shown, qtbot: QtBot, parsed):
    field = type_template(shown, "{{ a")
    qtbot.keyClick(field.field, Qt.Key.Key_Tab)
    assert shown.edits == {}
    qtbot.waitUntil(lambda: field.wrong.startswith(FAULT))
    assert shown.edits == {}
    type_template(shown, "{{ a }}")
    qtbot.keyClick(field.field, Qt.Key.Key_Tab)
    qtbot.waitUntil(lambda: shown.edits == {TEMPLATE: "{{ a }}"})
    assert not any(inside for _, inside in parsed)


def test_a_chat_template_of_the_table_counts_after_another_line_is_chosen(shown: Shown, qtbot: QtBot, parsed):
    keys = shown.sheet.keys
    for text in ("{{ b", "{{ b }}"):
        shown.select(TEMPLATE)
        keys.field.field.setFocus()
        keys.field.field.selectAll()
        qtbot.keyClicks(keys.field.field, text)
        shown.select("general.name")
        if text == "{{ b":
            qtbot.waitUntil(lambda: keys.wrong.text.startswith(f"Not changed: {FAULT}"))
            assert shown.edits == {}
    qtbot.waitUntil(lambda: shown.edits == {TEMPLATE: "{{ b }}"})
    assert keys.field.key == "general.name"


def test_a_new_chat_template_is_added_once_it_is_parsed(shown: Shown, qtbot: QtBot, parsed):
    keys, name = shown.sheet.keys, f"{TEMPLATE}.tool"
    shown.sheet.tabs.setCurrentIndex(1)
    qtbot.keyClicks(keys.new_key, name)
    qtbot.keyClicks(keys.new_value, "{{ a")
    qtbot.mouseClick(keys.add, LEFT)
    qtbot.waitUntil(lambda: "is no chat template that programs can read" in keys.wrong.text)
    qtbot.keyClicks(keys.new_value, " }}")
    qtbot.mouseClick(keys.add, LEFT)
    qtbot.waitUntil(lambda: shown.edits == {name: "{{ a }}"})
    assert parsed == [("{{ a", False), ("{{ a }}", False)]


def test_fixed_keys_say_why(shown: Shown):
    shown.select("tokenizer.ggml.tokens")
    keys = shown.sheet.keys
    assert "it is a list that the tokenizer or the tensors belong to" in keys.about.text()
    assert keys.field.field.isReadOnly()
    assert not keys.leave_out.isEnabled()
    assert "belong to" in keys.leave_out.toolTip()
    assert shown.cell("tokenizer.ggml.tokens", STANDING) == "fixed"
    assert shown.cell("tokenizer.ggml.tokens", VALUE).endswith("(150,000 in all)")


def test_any_other_key_can_be_edited_and_left_out(shown: Shown, qtbot: QtBot):
    shown.select("llama.context_length")
    keys = shown.sheet.keys
    keys.field.field.setFocus()
    keys.field.field.selectAll()
    qtbot.keyClicks(keys.field.field, "many")
    assert keys.field.wrong == "llama.context_length holds a whole number, and 'many' is none that fits."
    shown.select("general.name")
    assert keys.wrong.text.startswith("Not changed: llama.context_length")
    shown.select("llama.context_length")
    assert keys.field.field.toPlainText() == "512"
    keys.field.field.setFocus()
    keys.field.field.selectAll()
    qtbot.keyClicks(keys.field.field, "4096")
    shown.select("general.name")
    assert shown.edits == {"llama.context_length": 4096}
    assert shown.cell("llama.context_length", STANDING) == "edited"
    shown.select("llama.context_length")
    qtbot.mouseClick(keys.leave_out, LEFT)
    assert shown.edits == {"llama.context_length": ""}
    assert (shown.cell("llama.context_length", STANDING), shown.cell("llama.context_length", BYTES)) == (
        "left out",
        "0",
    )
    qtbot.mouseClick(keys.field.back, LEFT)
    assert shown.edits == {}


@pytest.mark.parametrize(
    ("key", "kind", "value", "found"),
    [
        ("x.count", "whole number", "12", 12),
        ("x.share", "number", "0.5", 0.5),
        ("x.flag", "true or false", "true", True),
        ("general.languages", "text", "en, de", ["en", "de"]),
    ],
)
def test_a_key_is_added(shown: Shown, qtbot: QtBot, key, kind, value, found):
    shown.sheet.tabs.setCurrentIndex(1)
    keys = shown.sheet.keys
    keys.kind.setCurrentText(kind)
    qtbot.keyClicks(keys.new_key, key)
    qtbot.keyClicks(keys.new_value, value)
    qtbot.mouseClick(keys.add, LEFT)
    assert shown.edits == {key: found}
    assert shown.cell(key, STANDING) == "added"
    assert keys.table.currentIndex().row() == keys.model.row_of(key)


@pytest.mark.parametrize(
    ("key", "kind", "value", "said"),
    [
        ("a key", "text", "x", "'a key' is no key"),
        ("x.count", "whole number", "x", "“x” is no whole number."),
        ("x.count", "whole number", str(1 << 70), "none that fits"),
        ("x.flag", "true or false", "", "Give a value."),
        ("general.name", "text", "x", "is there already"),
        ("split.count", "text", "x", "it follows from the size of the files"),
    ],
)
def test_a_key_that_cannot_be_added_says_why(shown: Shown, qtbot: QtBot, key, kind, value, said):
    shown.sheet.tabs.setCurrentIndex(1)
    keys = shown.sheet.keys
    keys.kind.setCurrentText(kind)
    qtbot.keyClicks(keys.new_key, key)
    qtbot.keyClicks(keys.new_value, value)
    qtbot.keyClick(keys.new_value, Qt.Key.Key_Return)
    assert said in keys.wrong.text
    assert shown.edits == {}


def test_the_filter_finds_keys_and_values(shown: Shown, qtbot: QtBot):
    keys = shown.sheet.keys
    shown.sheet.tabs.setCurrentIndex(1)
    qtbot.keyClicks(keys.filter, "chat_t")
    assert [line.key for line in keys.model.shown] == [TEMPLATE]
    assert keys.count.text() == "1 of 6 keys"
    keys.filter.setText("old")
    assert [line.key for line in keys.model.shown] == ["general.name"]
    keys.filter.setText("zzz")
    assert keys.about.text() == "No key matches the filter."
    keys.filter.clear()
    assert len(keys.model.shown) == 6


def test_the_table_is_copied(shown: Shown, qtbot: QtBot):
    shown.type("general.author", "Ada, L.")
    qtbot.mouseClick(shown.sheet.copy, LEFT)
    rows = list(csv.reader(io.StringIO(QGuiApplication.clipboard().text())))
    assert rows[0] == ["key", "type", "value", "bytes", "change", "fixed"]
    assert [row[0] for row in rows[1:]] == [*SOURCE, "general.author"]
    assert rows[-1][2:5] == ["Ada, L.", "41", "added"]
    assert rows[1][5] == "it says how all others are read"


def test_all_are_reset_in_one_step(shown: Shown, qtbot: QtBot):
    shown.type("general.author", "Ada")
    shown.type("general.name", "New")
    assert "2 edits" in shown.sheet.status.text()
    qtbot.mouseClick(shown.sheet.reset, LEFT)
    assert shown.edits == {}
    shown.state.document.undo_stack.undo()
    assert shown.edits == {"general.author": "Ada", "general.name": "New"}


def test_closing_counts_what_is_typed_and_a_new_model_closes_it(shown: Shown, qtbot: QtBot):
    field = shown.field("general.author").field
    field.setFocus()
    qtbot.keyClicks(field, "Ada")
    qtbot.keyClick(shown.sheet, Qt.Key.Key_Escape)
    assert shown.edits == {"general.author": "Ada"}
    again = MetadataSheet(shown.state, shown.window)
    again.show()
    open_model(shown.state, 1)
    assert not again.isVisible()


def test_what_cannot_be_keeps_the_sheet_open_once_and_is_seen(shown: Shown, qtbot: QtBot, parsed):
    shown.sheet.resize(shown.sheet.width(), 300)
    field = type_template(shown, "{{ m")
    qtbot.waitUntil(lambda: bool(field.wrong))
    fault = field.findChild(Fault)
    viewport = shown.sheet.form.findChild(QScrollArea).viewport()
    qtbot.waitUntil(lambda: viewport.rect().contains(fault.mapTo(viewport, fault.rect().center())))
    qtbot.mouseClick(shown.sheet.leave, LEFT)
    assert shown.sheet.isVisible()
    assert "Chat template cannot be so: mend it, or close again" in shown.sheet.status.text()
    qtbot.mouseClick(shown.sheet.leave, LEFT)
    qtbot.waitUntil(lambda: not shown.window.findChildren(MetadataSheet))
    assert shown.edits == {}


def test_the_model_of_the_table_is_sound():
    model = KeysModel()
    QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal, model)
    model.show(lines_of(entries_of(SOURCE), {}))
    model.show(lines_of(entries_of(SOURCE), {"general.name": "x", "x.y": "z"}))
    model.filter("name")
    assert [line.standing for line in model.shown] == ["edited"]


def test_the_number_of_edits_in_words():
    said = [edits_label(dict.fromkeys("abc"[:count], "")) for count in range(3)]
    assert said == ["as in the source", "1 edit", "2 edits"]
