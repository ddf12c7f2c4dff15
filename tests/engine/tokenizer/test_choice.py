"""A way of splitting that is unknown, or that the user names: what is written, said and refused."""

import json
from pathlib import Path

import pytest
from gguf import GGUFValueType, Keys

from engine.api.errors import RecipeError
from engine.api.recipe import parse_recipe
from engine.checkpoint import open_checkpoint
from engine.preparation import prepare
from engine.recipes import with_options
from engine.subjects import prepare as prepare_measuring
from engine.tokenizer import load_tokenizer
from engine.tokenizer.tokenizer import value_of
from tests.engine.export.models import write_gguf
from tests.engine.tokenizer.samples import change_json, opened_gguf
from tests.tiny import TEXT, write_llama

RECIPE = parse_recipe('{"default": {"format": "F16"}}', "recipe")
STRANGE = {"type": "Split", "pattern": {"Regex": r"\w+q?|\W"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    folder = write_llama(tmp_path / "strange")
    steps = {"type": "Sequence", "pretokenizers": [STRANGE, BYTES]}
    change_json(folder / "tokenizer.json", pre_tokenizer=steps)
    return folder


def test_an_unknown_way_is_a_warning_of_the_export(strange: Path) -> None:
    with open_checkpoint(strange) as checkpoint:
        prepared = prepare(checkpoint, RECIPE)
        assert prepared.export.metadata[Keys.Tokenizer.PRE].value == "default"
        said = [warning for warning in prepared.plan.warnings if "--pre-tokenizer" in warning]
        assert len(said) == 1
        assert load_tokenizer(checkpoint).notes == said


def test_a_named_way_is_written_without_a_warning(strange: Path) -> None:
    with open_checkpoint(strange) as checkpoint:
        prepared = prepare(checkpoint, with_options(RECIPE, pre_tokenizer="llama3"))
    assert prepared.export.metadata[Keys.Tokenizer.PRE].value == "llama3"
    assert not any("pre-tokenizer" in warning for warning in prepared.plan.warnings)


def test_the_choice_stands_in_the_recipe() -> None:
    text = with_options(RECIPE, pre_tokenizer="qwen2").to_json()
    assert json.loads(text)["output"]["options"] == {"pre_tokenizer": "qwen2"}
    assert parse_recipe(text, "again").output.options.pre_tokenizer == "qwen2"


def test_a_gguf_source_can_be_mended(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "model")
    with open_checkpoint(folder) as checkpoint:
        export = prepare(checkpoint, RECIPE).export
        export.metadata[Keys.Tokenizer.PRE] = value_of(GGUFValueType.STRING, "default")
        write_gguf(checkpoint, export, tmp_path / "old.gguf")
    with open_checkpoint(tmp_path / "old.gguf") as source:
        mended = prepare(source, with_options(RECIPE, pre_tokenizer="gpt-2")).export.metadata
        assert mended[Keys.Tokenizer.PRE].value == "gpt-2"
        with open_checkpoint(folder) as original:
            text = "It's 12345 boats"
            assert load_tokenizer(opened_gguf(mended)).encode(text) == load_tokenizer(original).encode(text)
        with pytest.raises(RecipeError, match="knows no pre-tokenizer 'gpt2'"):
            prepare(source, with_options(RECIPE, pre_tokenizer="gpt2"))


def test_the_original_is_measured_as_the_output_was_written(strange: Path, tmp_path: Path) -> None:
    with open_checkpoint(strange) as checkpoint:
        export = prepare(checkpoint, with_options(RECIPE, pre_tokenizer="gpt-2")).export
        write_gguf(checkpoint, export, tmp_path / "out.gguf")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXT) * 20)
    with prepare_measuring(
        tmp_path / "out.gguf", text, strange, windows=1, pre_tokenizer="gpt-2"
    ) as measuring:
        assert not any("--pre-tokenizer" in note for note in measuring.notes)


@pytest.mark.parametrize("name", ["qwen2", "nonsense"])
def test_sentencepiece_has_no_pre_tokenizer(tmp_path: Path, name: str) -> None:
    folder = write_llama(tmp_path / "spm", tokenizer="spm")
    with (
        open_checkpoint(folder) as checkpoint,
        pytest.raises(RecipeError, match=r"tokenizer is SentencePiece's and has none; leave"),
    ):
        prepare(checkpoint, with_options(RECIPE, pre_tokenizer=name))
