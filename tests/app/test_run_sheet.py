"""The run sheet: what it proposes, what it refuses, and that only what passed its checks runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.models.run_request import (
    Written,
    file_name,
    proposed_folder,
    proposed_name,
    refusal,
    something_there,
    split_size,
    split_text,
    text_label,
    text_windows,
    written,
)
from app.plain import BREAK
from app.settings import Settings
from app.state import State
from app.views.metadata_sheet import MetadataSheet
from app.views.run_sheet import RunSheet
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.jobs import Check, PresetStart, QuantizeRequest
from engine.api.metadata import PRE_TOKENIZER, entry_of
from engine.api.outputs import part_path
from engine.api.recipe import CalibrationText, GgufOptions, Rule, parse_recipe
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.app.small_state import make_state

PASSED = [
    Check(name="disk", passed=True, message="1 MB of 53 GB free"),
    Check(name="weights", passed=None, message="NaN is looked for"),
]
FAILED = [Check(name="disk", passed=False, message="No room: 1 MB is needed, 12 kB are free.")]


class FakeInspection:
    """Keeps what was asked; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[QuantizeRequest, Callable, Callable]] = []

    def check(self, request: QuantizeRequest, then: Callable, failed: Callable) -> None:
        self.asked.append((request, then, failed))

    def answer(self, checks: list[Check]) -> None:
        self.asked[-1][1](checks)


class Sheet:
    """A shown sheet and what stands around it."""

    def __init__(self, qtbot: QtBot, folder: Path, change: Callable[[State], None] = lambda state: None):
        self.qtbot, self.state, self.inspection = qtbot, make_state(), FakeInspection()
        qtbot.waitUntil(lambda: self.state.plan is not None)
        change(self.state)
        self.settings = Settings(QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat))
        self.settings.output_folder = str(folder)
        self.sheet = RunSheet(self.state, self.settings, self.inspection)
        qtbot.addWidget(self.sheet)
        self.sheet.open()
        self.wait_asked(1)

    def wait_asked(self, count: int) -> None:
        self.qtbot.waitUntil(lambda: len(self.inspection.asked) == count)

    def lines(self) -> list[str]:
        labels = self.sheet.checks.findChildren(QLabel)
        return [label.text() for label in labels if label.text() and label.isVisible()]


@pytest.fixture
def shown(qtbot: QtBot, tmp_path: Path):
    made = Sheet(qtbot, tmp_path)
    yield made
    made.state.finish()


def test_it_is_modal_and_waits_for_the_checks(shown: Sheet):
    assert shown.sheet.isModal()
    assert shown.lines() == ["Checking…"]
    assert not shown.sheet.run.isEnabled()
    assert "being made" in shown.sheet.run.toolTip()


def test_enter_runs_once_all_passed(shown: Sheet):
    shown.inspection.answer(PASSED)
    assert shown.lines() == [
        "Disk: 1 MB of 53 GB free",
        "Weights: NaN is looked for",
    ]
    assert shown.sheet.focusWidget() is shown.sheet.run
    with shown.qtbot.waitSignal(shown.sheet.accepted):
        shown.qtbot.keyClick(shown.sheet, Qt.Key.Key_Return)
    assert shown.settings.output_folder == shown.sheet.folder.text()


def test_escape_writes_nothing(shown: Sheet):
    shown.inspection.answer(PASSED)
    with shown.qtbot.waitSignal(shown.sheet.rejected):
        shown.qtbot.keyClick(shown.sheet, Qt.Key.Key_Escape)


def test_a_failed_check_says_what_to_do_and_holds_the_run(shown: Sheet):
    shown.inspection.answer(FAILED)
    assert "No room" in shown.lines()[0]
    assert not shown.sheet.run.isEnabled()
    assert "disk" in shown.sheet.run.toolTip()
    assert "disk" in shown.sheet.reason.text()
    shown.qtbot.keyClick(shown.sheet, Qt.Key.Key_Return)
    assert shown.sheet.isVisible()


def test_long_lines_are_shown_whole(shown: Sheet):
    long = Check(name="output", passed=False, message="a sentence that goes on and on " * 12)
    shown.inspection.answer([long, *PASSED])
    for label in shown.sheet.checks.findChildren(QLabel):
        if label.text() and label.isVisible():
            assert label.height() >= label.heightForWidth(label.width())


def test_a_late_answer_to_an_older_question_is_dropped(shown: Sheet):
    shown.sheet.name.setText("other")
    shown.inspection.answer(PASSED)
    assert not shown.sheet.run.isEnabled()
    shown.wait_asked(2)
    shown.inspection.asked[0][1](PASSED)
    shown.inspection.asked[0][2]("too late")
    assert shown.lines() == ["Checking…"]
    shown.inspection.answer(PASSED)
    assert shown.sheet.run.isEnabled()
    assert shown.sheet.request.output.endswith("/other.gguf")


def test_an_answer_behind_the_closing_does_nothing(shown: Sheet):
    shown.sheet.reject()
    shown.inspection.answer(PASSED)
    assert not shown.sheet.run.isEnabled()


def test_checks_that_cannot_be_made_can_be_made_again(shown: Sheet):
    shown.inspection.asked[0][2]("The engine ended.")
    assert shown.lines() == ["The engine ended."]
    shown.qtbot.mouseClick(shown.sheet.again, Qt.MouseButton.LeftButton)
    assert len(shown.inspection.asked) == 2
    shown.inspection.answer(PASSED)
    assert shown.sheet.run.isEnabled()
    assert not shown.sheet.again.isVisible()


def test_quick_typing_asks_once(shown: Sheet):
    shown.qtbot.keyClicks(shown.sheet.name, "abc")  # the whole name is selected
    shown.wait_asked(2)
    assert Path(shown.inspection.asked[1][0].output).name == "abc.gguf"


def test_an_illegal_name_is_refused_without_a_question(shown: Sheet):
    shown.sheet.name.setText("a/b")
    assert "“/”" in shown.sheet.reason.text()
    assert shown.lines() == []
    assert not shown.sheet._settle.isActive()


def test_replacing_is_offered_only_where_the_file_is(shown: Sheet, tmp_path: Path):
    assert not shown.sheet.replace.isVisible()
    (tmp_path / "there.gguf").touch()
    shown.sheet.name.setText("there")
    shown.qtbot.waitUntil(shown.sheet.replace.isVisible)
    assert not shown.sheet.request.overwrite
    shown.sheet.replace.setChecked(True)
    assert shown.sheet.request.overwrite
    shown.sheet.name.setText("elsewhere")
    assert not shown.sheet.request.overwrite


def test_what_is_written_is_said_to_the_byte(shown: Sheet):
    shown.qtbot.waitUntil(lambda: bool(shown.sheet.written.text()))
    assert f"{shown.state.file_bytes:,} bytes" in shown.sheet.written.toolTip()
    assert "tiny-Q4_K_M.gguf" in shown.sheet.written.text()
    assert "1 F32" in shown.sheet.written.text()


def test_measuring_is_asked_for_and_remembered(shown: Sheet, tmp_path: Path):
    assert shown.sheet.request.measure.text == str(EVALUATION_TEXT)
    assert shown.sheet.request.measure.windows == 16
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    shown.sheet._take_text(short)
    assert shown.sheet.windows.text() == "all"
    assert shown.sheet.request.measure.windows is None
    shown.sheet.measure.setChecked(False)
    assert shown.sheet.request.measure is None
    assert "measuring is off" in shown.sheet.windows.toolTip()
    shown.wait_asked(2)
    shown.inspection.answer(PASSED)
    shown.sheet.accept()
    assert shown.settings.measure is False


def test_a_limit_of_memory_is_taken_or_refused(shown: Sheet):
    assert shown.sheet.request.memory_limit is None
    shown.sheet.memory.setText("8 GB")
    assert shown.sheet.request.memory_limit == 8_000_000_000
    shown.wait_asked(2)
    assert shown.inspection.asked[1][0].memory_limit == 8_000_000_000
    for text in ("much", "100 MB", "-3 GB", "nan", "1e99 GB e", "2 XB", "1.2.3 GB"):
        shown.sheet.memory.setText(text)
        assert shown.sheet.reason.text().startswith("Memory limit: "), text
        assert shown.sheet.request.memory_limit is None
        assert not shown.sheet.run.isEnabled()
    shown.sheet.memory.setText(" ")
    shown.wait_asked(3)
    shown.inspection.answer(PASSED)
    assert shown.sheet.run.isEnabled()


def test_the_options_are_folded_away_and_say_what_is_chosen(shown: Sheet):
    options = shown.sheet.options
    assert options.fold.text() == "one file · metadata: as in the source"
    assert not options.split.isVisible()
    shown.qtbot.mouseClick(options.fold, Qt.MouseButton.LeftButton)
    assert options.split.isVisible()
    assert shown.sheet.frameGeometry().height() <= shown.sheet.screen().availableGeometry().height()


def test_a_split_output_names_its_files(shown: Sheet, tmp_path: Path):
    options = shown.sheet.options
    shown.qtbot.mouseClick(options.fold, Qt.MouseButton.LeftButton)
    assert [options.split.itemText(row) for row in range(5)] == ["one file", "2 GB", "4 GB", "16 GB", "50 GB"]
    options.split.lineEdit().selectAll()
    shown.qtbot.keyClicks(options.split.lineEdit(), "2GB")
    assert shown.sheet.request.recipe.output.options.split_max_size == 2_000_000_000
    assert options.fold.text().startswith("files of at most 2 GB")
    assert shown.state.document.recipe.output.options.split_max_size is None, "it is no edit of the recipe"
    output = tmp_path / shown.sheet.name.text()
    shown.sheet._take_written(Written(3, 5_000_000_000, False, output))
    first, last = options.files.text().replace(BREAK, "").splitlines()
    assert (first, last) == ("tiny-Q4_K_M-00001-of-00003.gguf …", "tiny-Q4_K_M-00003-of-00003.gguf")
    assert len(options.files.toolTip().splitlines()) == 3
    assert "in 3 files" in shown.sheet.written.text()
    assert not something_there(output, 3)
    part_path(output, 1, 3).touch()
    assert something_there(output, 3)
    shown.sheet._take_written(Written(3, 5_000_000_000, True, output))
    assert shown.sheet.replace.isVisible()


@pytest.mark.parametrize(
    ("text", "word"), [("much", "is no size"), ("10 kB", "at least 1 MB"), ("-1", "no size")]
)
def test_a_size_of_files_that_is_none(shown: Sheet, text: str, word: str):
    shown.sheet.options.split.setCurrentText(text)
    assert shown.sheet.reason.text().startswith("Split: ")
    assert word in shown.sheet.reason.text()
    assert not shown.sheet.run.isEnabled()
    shown.sheet.options.split.setCurrentText("one file")
    shown.wait_asked(2)
    assert shown.inspection.asked[1][0].recipe.output.options.split_max_size is None


def test_the_pre_tokenizer_is_a_step_of_the_recipe(shown: Sheet):
    options, document = shown.sheet.options, shown.state.document
    shown.qtbot.mouseClick(options.fold, Qt.MouseButton.LeftButton)
    assert not options.pre_tokenizer.isVisible(), "this model has no byte-level BPE"
    export = shown.state.export
    pre = entry_of(PRE_TOKENIZER, GgufValue(GGUFValueType.STRING, "llama-bpe"))
    update = {"metadata": [*export.metadata, pre], "pre_tokenizers": ["gpt-2", "llama-bpe"]}
    shown.state.export = export.model_copy(update=update)
    shown.sheet.close()
    sheet = RunSheet(shown.state, shown.settings, shown.inspection)
    shown.qtbot.addWidget(sheet)
    sheet.open()
    shown.qtbot.mouseClick(sheet.options.fold, Qt.MouseButton.LeftButton)
    choice = sheet.options.pre_tokenizer
    assert choice.isVisible()
    texts = [choice.itemText(row) for row in range(choice.count())]
    assert texts == ["recognised (llama-bpe)", "gpt-2", "llama-bpe"]
    choice.setFocus()
    shown.qtbot.keyClicks(choice, "g")
    assert document.recipe.output.options.pre_tokenizer == "gpt-2"
    assert sheet.request.recipe.output.options.pre_tokenizer == "gpt-2"
    assert "pre-tokenizer: gpt-2" in sheet.options.fold.text()
    assert document.undo_stack.undoText() == "Pre-tokenizer gpt-2"
    assert parse_recipe(document.recipe.to_json(), "it").output.options.pre_tokenizer == "gpt-2"
    document.undo_stack.undo()
    assert choice.currentData() is None
    assert "pre-tokenizer" not in sheet.options.fold.text()
    document.change("Another", document.recipe.with_options(pre_tokenizer="of-a-newer-llama"))
    assert choice.currentText() == "of-a-newer-llama"


@pytest.mark.parametrize("most", [None, 2_000_000_000, 2_147_483_648, 1_234_567])
def test_a_size_of_files_reads_back(most: int | None):
    assert split_size(split_text(most)) == most


def test_the_number_of_files_and_their_bytes(shown: Sheet):
    state = shown.state
    whole = written(state.export, state.plan, GgufOptions(), None)
    assert whole == (1, state.file_bytes, False, None)
    # Arithmetic alone: no real size of files is so small.
    parts = written(state.export, state.plan, GgufOptions.model_construct(split_max_size=20_000), None)
    assert parts.files > 1
    assert parts.bytes > whole.bytes


def test_lm_studio_is_offered_where_it_is(shown: Sheet, qtbot: QtBot, tmp_path: Path):
    assert not shown.sheet.lm_studio.isEnabled()
    assert "start it once" in shown.sheet.lm_studio.toolTip()
    (Path.home() / ".lmstudio").mkdir()
    sheet = RunSheet(shown.state, shown.settings, shown.inspection)
    qtbot.addWidget(sheet)
    sheet.open()
    qtbot.mouseClick(sheet.lm_studio, Qt.MouseButton.LeftButton)
    models = Path.home() / ".lmstudio" / "models"
    request = sheet.request
    assert request.output == str(models / "bitwright" / "tiny-GGUF" / "tiny-Q4_K_M.gguf")
    assert request.make_folders
    assert not models.exists(), "the run makes it"
    qtbot.waitUntil(lambda: shown.inspection.asked[-1][0].make_folders)
    shown.inspection.answer(PASSED)
    sheet.accept()
    assert shown.settings.output_folder == str(tmp_path), "LM Studio's folder is this model's alone"


def test_metadata_is_edited_from_the_sheet(shown: Sheet):
    shown.qtbot.mouseClick(shown.sheet.options.fold, Qt.MouseButton.LeftButton)
    shown.qtbot.mouseClick(shown.sheet.options.edit, Qt.MouseButton.LeftButton)
    opened = shown.sheet.findChild(MetadataSheet)
    author = opened.form.fields["general.author"].field
    shown.qtbot.keyClicks(author, "Ada")
    shown.qtbot.keyClick(author, Qt.Key.Key_Return)
    opened.close()
    assert shown.sheet.request.recipe.output.options.metadata == {"general.author": "Ada"}
    assert shown.sheet.options.metadata.text() == "1 edit"
    shown.qtbot.waitUntil(lambda: f"{shown.state.file_bytes:,} bytes" in shown.sheet.written.toolTip())
    assert shown.state.document.undo_stack.undoText() == "Metadata Author"


def test_the_effort_goes_with_the_run_and_is_remembered(shown: Sheet):
    effort = shown.sheet.effort
    assert effort.currentText() == "best: the least loss"
    assert shown.sheet.request.recipe.effort == "best"
    effort.setCurrentIndex(effort.findData("fast"))
    assert shown.sheet.request.recipe.effort == "fast"
    shown.wait_asked(2)
    assert shown.inspection.asked[1][0].recipe.effort == "fast"
    shown.inspection.answer(PASSED)
    shown.sheet.accept()
    assert shown.settings.effort == "fast"
    assert not shown.state.document.undo_stack.count(), "it is no edit of the recipe"
    again = RunSheet(shown.state, shown.settings, shown.inspection)
    shown.qtbot.addWidget(again)
    assert again.request.recipe.effort == "fast"


def edit_first_rule(state: State) -> None:
    recipe = state.document.recipe
    first, *others = recipe.rules
    other = first.model_copy(update={"format": "Q2_K"})
    state.change_recipe("edit", recipe.model_copy(update={"rules": [other, *others]}))


def add_pin(state: State) -> None:
    recipe, pin = state.document.recipe, Rule(match="ffn_gate", format="Q8_0", pinned=True)
    state.change_recipe("pin", recipe.model_copy(update={"rules": [*recipe.rules, pin]}))


@pytest.mark.parametrize(
    ("change", "named"), [(lambda state: None, True), (add_pin, True), (edit_first_rule, False)]
)
def test_the_run_says_on_which_preset_its_recipe_stands(qtbot: QtBot, tmp_path: Path, change, named: bool):
    made = Sheet(qtbot, tmp_path, change)
    count = len(made.state.document.version.base.rules)
    assert count
    made.inspection.answer(PASSED)
    with qtbot.waitSignal(made.sheet.accepted):
        made.sheet.accept()
    expected = PresetStart(name="Q4_K_M", rules=count) if named else None
    assert made.sheet.request.preset == expected
    made.state.finish()


def test_the_effort_that_a_recipe_says_comes_first(qtbot: QtBot, tmp_path: Path):
    def say(state: State) -> None:
        said = state.document.recipe.model_copy(update={"effort": "fast"})
        state.change_recipe("Effort", said)

    sheet = Sheet(qtbot, tmp_path, say).sheet
    assert sheet.request.recipe.effort == "fast"


def test_calibration_says_that_it_is_not_used(qtbot: QtBot, tmp_path: Path):
    def calibrate(state: State) -> None:
        recipe = state.document.recipe
        update = {"calibration": CalibrationText(), "imatrix": "/data/some.imatrix.gguf"}
        state.change_recipe("calibrate", recipe.model_copy(update=update))

    made = Sheet(qtbot, tmp_path, calibrate)
    texts = [label.text() for label in made.sheet.findChildren(QLabel)]
    assert any("none of its methods uses it" in text for text in texts)
    assert "some.imatrix.gguf" in texts
    made.state.finish()


def test_a_matrix_that_comes_under_the_sheet_is_told(shown: Sheet):
    """A calibration that was under way is done, and the recipe uses what it made."""
    assert shown.sheet.importance.text() == "none"
    shown.state.set_importance("/data/<b>new.gguf")
    assert shown.sheet.importance.text() == "<b>new.gguf"
    assert shown.sheet.request.recipe.imatrix == "/data/<b>new.gguf"


def test_a_matrix_that_is_being_read_holds_the_run(shown: Sheet):
    shown.inspection.answer(PASSED)
    shown.state.await_importance(Path("/data/new.gguf"))
    assert shown.sheet.importance.text() == "new.gguf, being read"
    assert shown.sheet.reason.text() == "new.gguf is being read: wait until the recipe uses it."
    assert not shown.sheet.run.isEnabled()
    shown.state.await_importance(None)
    assert shown.sheet.importance.text() == "none"
    shown.wait_asked(2)
    shown.inspection.answer(PASSED)
    assert shown.sheet.run.isEnabled()


@pytest.mark.parametrize(
    ("typed", "name"),
    [("a", "a.gguf"), (" a.gguf ", "a.gguf"), ("a.GGUF", "a.GGUF"), ("", ""), ("v1.2", "v1.2.gguf")],
)
def test_the_suffix_is_added_where_it_lacks(typed: str, name: str):
    assert file_name(typed) == name


@pytest.mark.parametrize(
    ("name", "word"),
    [("", "name"), (".gguf", "name"), ("a/b.gguf", "“/”"), ("a\x00.gguf", "control"), ("a" * 250, "long")],
)
def test_names_that_no_file_can_have(tmp_path: Path, name: str, word: str):
    assert word in refusal(name, str(tmp_path))


def test_folders_that_are_none(tmp_path: Path):
    assert refusal("a.gguf", str(tmp_path)) == ""
    assert refusal("a.gguf", " ") == "Choose a folder."
    assert "There is no folder" in refusal("a.gguf", str(tmp_path / "none"))


def test_the_folder_is_the_last_one_or_beside_the_model_or_home(tmp_path: Path):
    model, last = tmp_path / "models" / "tiny", tmp_path / "last"
    model.mkdir(parents=True)
    last.mkdir()
    assert proposed_folder(model, str(last)) == last
    assert proposed_folder(model, str(tmp_path / "gone")) == model.parent
    assert proposed_folder(tmp_path / "gone" / "tiny", "") == Path.home()
    assert proposed_folder(SAMPLE_MODEL, "") == Path.home()


def test_the_name_says_model_and_recipe(qtbot: QtBot, tmp_path: Path):
    state = make_state()
    qtbot.waitUntil(lambda: state.plan is not None)
    state.path = tmp_path
    assert proposed_name(state) == f"{tmp_path.name}-Q4_K_M.gguf"
    recipe = state.document.recipe
    state.change_recipe("edit", recipe.model_copy(update={"rules": []}))
    state.path = tmp_path / "llama-f16.gguf"
    assert proposed_name(state) == "llama-f16-custom.gguf"
    state.path = tmp_path / "model.safetensors"
    state.path.touch()
    assert proposed_name(state) == f"{tmp_path.name}-custom.gguf"
    state.finish()


def test_the_length_of_a_text(tmp_path: Path):
    text = tmp_path / "long.txt"
    text.write_bytes(b"x" * 4 * 512 * 3)
    assert text_label(text) == "long.txt, about 3 windows of 512 tokens"
    assert text_windows(tmp_path / "none") is None
    assert "built-in" in text_label(EVALUATION_TEXT)
