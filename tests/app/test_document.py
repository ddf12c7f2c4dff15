"""The recipe being worked on: steps, file, and the copy that survives."""

from pathlib import Path

import pytest

from app.document import RecipeDocument
from engine.api.errors import OutputError, RecipeError
from engine.api.recipe import Choice, Recipe, Rule

MODEL = Path("/models/some")
BASE = Recipe(default=Choice(format="Q4_K"))
EDITED = Recipe(rules=[Rule(match="down", format="Q6_K")], default=Choice(format="Q4_K"))
OTHER = Recipe(default=Choice(format="Q8_0"))


@pytest.fixture
def document(qapp):
    made = RecipeDocument()
    made.begin(MODEL, "Q4_K_M", BASE)
    return made


def test_steps_are_undone_and_redone_with_their_base(document):
    document.change("edit", EDITED)
    document.start_from("preset", "Q8_0", OTHER)
    assert (document.version.name, document.version.edited) == ("Q8_0", False)
    document.undo_stack.undo()
    assert (document.recipe, document.version.name, document.version.edited) == (EDITED, "Q4_K_M", True)
    document.undo_stack.undo()
    assert (document.recipe, document.dirty) == (BASE, False)
    document.undo_stack.redo()
    assert document.recipe == EDITED


def test_the_same_recipe_is_no_step(document):
    document.change("nothing", BASE)
    assert document.undo_stack.count() == 0


def test_every_change_is_kept_soon(document, qtbot):
    document.change("edit", EDITED)
    later = RecipeDocument()
    later.begin(MODEL, "Q4_K_M", BASE)
    qtbot.waitUntil(lambda: later.autosaved() == EDITED)
    document.undo_stack.undo()
    qtbot.waitUntil(lambda: later.autosaved() is None)


def test_closing_keeps_what_is_not_saved(document):
    document.change("edit", EDITED)
    document.close()
    document.begin(MODEL, "Q4_K_M", BASE)
    assert document.autosaved() == EDITED
    document.discard_autosaved()
    assert document.autosaved() is None


def test_saving_leaves_no_copy(document, tmp_path):
    document.change("edit", EDITED)
    document.save(tmp_path / "mine.json")
    assert not document.dirty
    document.close()
    document.begin(MODEL, "Q4_K_M", BASE)
    assert document.autosaved() is None
    document.load(tmp_path / "mine.json")
    assert (document.recipe, document.version.name) == (EDITED, "mine.json")


def test_faults_are_sentences_and_change_nothing(document, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        document.save(tmp_path / "missing" / "mine.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RecipeError, match="not valid JSON"):
        document.load(tmp_path / "bad.json")
    assert document.recipe == BASE


def test_a_damaged_copy_is_passed_over(document):
    document.change("edit", EDITED)
    document.close()
    document.begin(MODEL, "Q4_K_M", BASE)
    document._autosave_path().write_text("{")
    assert document.autosaved() is None


def test_saving_behind_undo_does_not_write_over_the_file_that_was_opened(document, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(EDITED.to_json())
    document.load(path)
    assert document.path == path
    document.undo_stack.undo()
    assert document.path is None


def test_what_is_offered_is_not_written_over(document):
    document.change("edit", EDITED)
    document.close()
    document.begin(MODEL, "Q4_K_M", BASE)
    document.set_autosaved_aside()
    document.change("other", OTHER)
    document.undo_stack.undo()
    document.close()
    document.begin(MODEL, "Q4_K_M", BASE)
    assert document.autosaved() == EDITED
