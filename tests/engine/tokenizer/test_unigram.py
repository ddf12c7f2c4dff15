"""SentencePiece's unigram: ours against the libraries, what is told, and damaged tables and vocabularies."""

import base64
import json
import struct
from pathlib import Path

import pytest
import sentencepiece
from gguf import Keys, TokenType
from tokenizers import Tokenizer as Library

from engine.tokenizer import load_tokenizer, tokenizer_metadata
from engine.tokenizer.folder import TokenizerFileError
from engine.tokenizer.sentencepiece_model import SentencePieceFileError, read_sentencepiece
from engine.tokenizer.unigram import CharacterMap, CharacterMapError
from tests.engine.tokenizer.samples import (
    TEXTS,
    change_json,
    opened_folder,
    opened_gguf,
    train_sentencepiece,
    write_unigram_json,
)

KINDS = {
    "as T5": {},
    "no prefix": {"add_dummy_prefix": False, "normalization_rule_name": "nfkc"},
    "all spaces": {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    "whole lines": {"split_by_whitespace": False, "remove_extra_whitespaces": False},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("unigram") for name in KINDS}
    for name, options in KINDS.items():
        train_sentencepiece(folders[name], model_type="unigram", **options)
    return folders


def metadata(folder: Path, notes: list[str] | None = None) -> dict:
    return {key: entry.value for key, entry in tokenizer_metadata(folder, None, {}, notes=notes).items()}


@pytest.mark.parametrize("name", [name for name in KINDS if name != "no prefix"])
def test_agrees_with_the_sentencepiece_library(trained: dict[str, Path], name: str) -> None:
    ours = load_tokenizer(opened_folder(trained[name]))
    library = sentencepiece.SentencePieceProcessor(model_file=str(trained[name] / "tokenizer.model"))
    for text in TEXTS.values():
        if text.strip(" "):  # of spaces alone llama.cpp makes no prefix
            assert ours.encode(text) == library.encode(text)


@pytest.mark.parametrize("name", KINDS)
def test_tokenizer_json_gives_the_same(trained: dict[str, Path], tmp_path: Path, name: str) -> None:
    write_unigram_json(tmp_path, trained[name] / "tokenizer.model")
    change_json(tmp_path / "tokenizer_config.json", bos_token="<s>", eos_token="</s>")
    notes: list[str] = []
    assert metadata(tmp_path, notes) == metadata(trained[name])
    assert not notes


def test_tokenizer_json_in_its_own_library(trained: dict[str, Path], tmp_path: Path) -> None:
    write_unigram_json(tmp_path, trained["as T5"] / "tokenizer.model")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    library = Library.from_str(json.dumps(content | {"added_tokens": []}))
    ours = load_tokenizer(opened_folder(tmp_path))
    for name in ("prose", "languages", "scripts", "marks", "numbers"):
        assert ours.encode(TEXTS[name]) == library.encode(TEXTS[name], add_special_tokens=False).ids


def test_metadata_and_back(trained: dict[str, Path]) -> None:
    folder = trained["as T5"]
    found = metadata(folder)
    assert found[Keys.Tokenizer.MODEL] == "t5"
    assert found[Keys.Tokenizer.REMOVE_EXTRA_WS] is True
    assert found[Keys.Tokenizer.ADD_PREFIX] is True
    # llama.cpp adds EOS for this kind where the file says nothing.
    assert found[Keys.Tokenizer.ADD_EOS] is False
    assert found[Keys.Tokenizer.UNK_ID] == 0
    assert Keys.Tokenizer.MERGES not in found
    table = bytes(found[Keys.Tokenizer.PRECOMPILED_CHARSMAP])
    assert table == read_sentencepiece(folder / "tokenizer.model").charsmap
    back = load_tokenizer(opened_gguf(tokenizer_metadata(folder, None, {})))
    ours = load_tokenizer(opened_folder(folder))
    assert all(ours.encode(text) == back.encode(text) for text in TEXTS.values())
    assert Keys.Tokenizer.PRECOMPILED_CHARSMAP not in metadata(trained["all spaces"])


def test_the_settings_matter(trained: dict[str, Path]) -> None:
    """Each key that is written changes ids; else the comparisons above would prove nothing of it."""
    written = tokenizer_metadata(trained["as T5"], None, {})
    ours = load_tokenizer(opened_gguf(written))
    for key in ("PRECOMPILED_CHARSMAP", "REMOVE_EXTRA_WS", "SCORES"):
        changed = {name: value for name, value in written.items() if name != getattr(Keys.Tokenizer, key)}
        other = load_tokenizer(opened_gguf(changed))
        assert any(other.encode(text) != ours.encode(text) for text in TEXTS.values()), key


def test_bytes_that_llama_cpp_does_not_use_are_said(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, model_type="unigram", byte_fallback=True, vocab_size=700)
    notes: list[str] = []
    found = metadata(tmp_path, notes)
    assert TokenType.BYTE in found[Keys.Tokenizer.TOKEN_TYPE]
    assert len(notes) == 1
    assert "tokenizer.model is a unigram with bytes" in notes[0]


def test_bpe_that_normalizes_is_said(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, model_type="bpe")
    notes: list[str] = []
    assert metadata(tmp_path, notes)[Keys.Tokenizer.MODEL] == "llama"
    assert len(notes) == 1
    assert "normalizes text before it is split" in notes[0]


def test_spaces_behind_words_are_refused(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, model_type="unigram", treat_whitespace_as_suffix=True)
    with pytest.raises(SentencePieceFileError, match="marks spaces behind words"):
        metadata(tmp_path)


def test_a_step_that_is_left_out_is_said(trained: dict[str, Path], tmp_path: Path) -> None:
    write_unigram_json(tmp_path, trained["as T5"] / "tokenizer.model")
    change_json(tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"})
    notes: list[str] = []
    metadata(tmp_path, notes)
    assert len(notes) == 1
    assert "'Lowercase'" in notes[0]


@pytest.mark.parametrize(
    "vocab", [{"a": 0}, [["a"]], [["a", "b"]], [["a", True]], [["a", float("nan")]], [[1, 2.0]], None, 3]
)
def test_damaged_vocabulary(trained: dict[str, Path], tmp_path: Path, vocab: object) -> None:
    write_unigram_json(tmp_path, trained["as T5"] / "tokenizer.model")
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    change_json(tmp_path / "tokenizer.json", model=model | {"vocab": vocab})
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json"):
        metadata(tmp_path)


def test_a_table_that_is_no_base64(trained: dict[str, Path], tmp_path: Path) -> None:
    write_unigram_json(tmp_path, trained["as T5"] / "tokenizer.model")
    step = {"type": "Precompiled", "precompiled_charsmap": "§"}
    change_json(tmp_path / "tokenizer.json", normalizer=step)
    with pytest.raises(TokenizerFileError, match="precompiled_charsmap"):
        metadata(tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\1",
        struct.pack("<I", 400) + bytes(8),
        struct.pack("<I", 6) + bytes(20),
        struct.pack("<II", 4, 1 << 20) + b"x\0\0\0\0\0",
    ],
)
def test_a_damaged_table_is_an_error(table: bytes) -> None:
    with pytest.raises(CharacterMapError, match=r"model\.gguf.*download"):
        CharacterMap(table, "model.gguf").replace("a")


def test_a_damaged_table_in_a_folder_is_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    write_unigram_json(tmp_path, trained["as T5"] / "tokenizer.model")
    step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"short").decode()}
    change_json(tmp_path / "tokenizer.json", normalizer=step)
    with pytest.raises(CharacterMapError, match="damaged"):
        metadata(tmp_path)


def test_runs_of_unknown_characters_are_one_token(trained: dict[str, Path]) -> None:
    ours = load_tokenizer(opened_folder(trained["as T5"]))
    unknown = [i for i in ours.encode("a 𓀀𓀁𓀂 a") if i == 0]
    assert unknown == [0]
