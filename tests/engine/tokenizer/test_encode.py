"""Text to ids: ours from a folder and from GGUF metadata, against the libraries on the original files."""

import time
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from gguf import GGUFValueType, Keys, TokenType
from safetensors.numpy import save_file

from engine.api.errors import TokenizerError
from engine.checkpoint import open_checkpoint
from engine.tokenizer import Tokenizer, load_tokenizer, tokenizer_metadata
from engine.tokenizer.spm import SpmEncoder
from engine.tokenizer.tokenizer import TokenizerMetadataError, UnknownTokenizerKindError, value_of
from tests.engine.tokenizer.samples import (
    SAMPLE_MODEL,
    SHARED,
    TEXTS,
    library_tokenizer,
    opened_folder,
    opened_gguf,
    write_converted,
)
from tests.tiny import write_bpe, write_sentencepiece


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bpe")
    write_bpe(folder, 512)
    return folder


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spm")
    write_sentencepiece(folder, 512)
    return folder


@pytest.mark.parametrize("name", TEXTS)
def test_byte_level_agrees_with_the_tokenizers_library(bpe: Path, name: str) -> None:
    for folder in (bpe, SAMPLE_MODEL):
        ours = load_tokenizer(opened_folder(folder))
        expected = library_tokenizer(folder).encode(TEXTS[name], add_special_tokens=False).ids
        assert ours.encode(TEXTS[name]) == expected


@pytest.mark.parametrize("name", TEXTS)
def test_tokenizer_model_agrees_with_the_sentencepiece_library(spm: Path, name: str) -> None:
    ours = load_tokenizer(opened_folder(spm))
    library = sentencepiece.SentencePieceProcessor(model_file=str(spm / "tokenizer.model"))
    assert ours.encode(TEXTS[name]) == library.encode(TEXTS[name])


@pytest.mark.parametrize("metaspace", [False, True], ids=["normalizer", "metaspace"])
def test_scores_come_back_from_the_merges(tmp_path: Path, spm: Path, metaspace: bool) -> None:
    write_converted(tmp_path, spm / "tokenizer.model", metaspace=metaspace)
    ours = load_tokenizer(opened_folder(tmp_path))
    library = sentencepiece.SentencePieceProcessor(model_file=str(spm / "tokenizer.model"))
    for text in TEXTS.values():
        assert ours.encode(text) == library.encode(text)


def test_metadata_give_the_same_tokenizer_as_the_folder(bpe: Path, spm: Path) -> None:
    for folder in (bpe, spm, SAMPLE_MODEL):
        from_folder = load_tokenizer(opened_folder(folder))
        from_gguf = load_tokenizer(opened_gguf(tokenizer_metadata(folder, None, {})))
        for attribute in ("size", "bos", "eos", "add_bos"):
            assert getattr(from_folder, attribute) == getattr(from_gguf, attribute)
        assert all(from_folder.encode(text) == from_gguf.encode(text) for text in TEXTS.values())


def test_a_lone_weight_file_takes_the_tokenizer_beside_it(bpe: Path) -> None:
    save_file({"w": np.ones(1, np.float32)}, bpe / "model.safetensors")
    with open_checkpoint(bpe / "model.safetensors") as lone:
        assert load_tokenizer(lone).encode("boats") == load_tokenizer(opened_folder(bpe)).encode("boats")


def test_special_tokens_in_a_text_are_text(bpe: Path) -> None:
    ours = load_tokenizer(opened_folder(bpe))
    assert (ours.bos, ours.eos, ours.add_bos) == (1, 2, True)
    assert not {0, 1, 2} & set(ours.encode("<|pad|><|begin|>word<|end|>"))


@pytest.mark.parametrize("kind", ["huggingface", "gguf"])
@pytest.mark.parametrize("folder", ["stories260K", "babyllama-tok361"])
def test_public_models(folder: str, kind: str) -> None:
    source = SHARED / "models" / folder / "hf"
    if not source.exists():
        pytest.skip("the shared models are not here")
    checkpoint = opened_folder(source)
    if kind == "gguf":
        checkpoint = opened_gguf(tokenizer_metadata(source, None, {}))
    ours, library = load_tokenizer(checkpoint), library_tokenizer(source)
    text = (SHARED / "text" / "multilingual.utf8").read_text(encoding="utf-8")[:100_000]
    for sample in (*TEXTS.values(), text):
        # The library normalizes an empty text to "▁"; SentencePiece, and llama.cpp, to nothing.
        expected = library.encode(sample, add_special_tokens=False).ids if sample else []
        assert ours.encode(sample) == expected


def small_spm(tokens: dict[str, tuple[float, int]], **more: object) -> Tokenizer:
    metadata = {
        Keys.Tokenizer.MODEL: value_of(GGUFValueType.STRING, "llama"),
        Keys.Tokenizer.LIST: value_of(GGUFValueType.STRING, list(tokens)),
        Keys.Tokenizer.SCORES: value_of(GGUFValueType.FLOAT32, [score for score, _ in tokens.values()]),
        Keys.Tokenizer.TOKEN_TYPE: value_of(GGUFValueType.INT32, [kind for _, kind in tokens.values()]),
        Keys.Tokenizer.ADD_PREFIX: value_of(GGUFValueType.BOOL, False),
    }
    return Tokenizer(metadata | more, "model.gguf")


UNKNOWN, CONTROL = (0.0, TokenType.UNKNOWN), (0.0, TokenType.CONTROL)


def normal(score: float) -> tuple[float, int]:
    return score, TokenType.NORMAL


def test_the_best_score_joins_first_and_the_leftmost_of_equals() -> None:
    base = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
    letters = {letter: normal(-9) for letter in "abc"}
    better = small_spm(base | letters | {"ab": normal(-2), "bc": normal(-1)})
    assert better.encode("abc") == [3, 7]
    equal = small_spm(base | letters | {"aa": normal(-1)})
    assert equal.encode("aaa") == [6, 3]


def test_longest_user_defined_token_comes_before_everything() -> None:
    tokens = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL} | {c: normal(-9) for c in "ab▁"}
    tokens |= {"aab": (0.0, TokenType.USER_DEFINED), "aa": (0.0, TokenType.USER_DEFINED)}
    # The first match of the longest, although "aa" begins earlier.
    assert small_spm(tokens).encode("aaab b") == [3, 6, 5, 4]
    # llama.cpp takes a text of this name for a control token whatever its type.
    tokens["<|im_end|>"] = (0.0, TokenType.USER_DEFINED)
    assert 8 not in small_spm(tokens).encode("<|im_end|>")


def test_space_prefix_comes_after_each_user_defined_token() -> None:
    tokens = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL} | {c: normal(-9) for c in "ab▁"}
    tokens["+"] = (0.0, TokenType.USER_DEFINED)
    prefix = {Keys.Tokenizer.ADD_PREFIX: value_of(GGUFValueType.BOOL, True)}
    assert small_spm(tokens, **prefix).encode("a+b") == [5, 3, 6, 5, 4]
    assert small_spm(tokens).encode("a+b") == [3, 6, 4]


def test_characters_without_a_token_become_bytes_or_unknown() -> None:
    base = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
    assert small_spm(base).encode("é") == [0]
    both = base | {"<0xC3>": (0.0, TokenType.BYTE), "<0xA9>": (0.0, TokenType.BYTE)}
    assert small_spm(both).encode("é") == [3, 4]


def test_cutting_a_text_does_not_change_its_ids(spm: Path) -> None:
    """The parts between cuts are encoded alone; joining the whole text at once must give the same."""
    metadata = tokenizer_metadata(spm, None, {})
    encoder = SpmEncoder(metadata[Keys.Tokenizer.LIST].value, metadata[Keys.Tokenizer.SCORES].value, 0)
    for text in TEXTS.values():
        marked = text.replace(" ", "▁")
        assert encoder.encode(marked) == list(encoder._encode_part(marked))


def test_lone_surrogates_are_read_as_replacement_characters(bpe: Path, spm: Path) -> None:
    for folder in (bpe, spm):
        ours = load_tokenizer(opened_folder(folder))
        assert ours.encode("a\ud800b") == ours.encode("a\ufffdb")


@pytest.mark.parametrize("text", ["the boats lay at the wall; 数字は 3.14 です。 ", "a", " "])
def test_a_megabyte_takes_seconds(bpe: Path, spm: Path, text: str) -> None:
    long = text * (1_000_000 // len(text))
    for folder in (bpe, spm):
        ours = load_tokenizer(opened_folder(folder))
        start = time.perf_counter()
        assert ours.encode(long)
        assert time.perf_counter() - start < 10  # about 0.3 s on an idle machine


@pytest.mark.parametrize("kind", ["bert", "rwkv", "plamo2", "gemma4", "none"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnknownTokenizerKindError, match=f"model.gguf.*'{kind}'"):
        small_spm({"a": normal(0)}, **{Keys.Tokenizer.MODEL: value_of(GGUFValueType.STRING, kind)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (Keys.Tokenizer.MODEL, None, r"no tokenizer\.ggml\.model"),
        (Keys.Tokenizer.LIST, None, r"no tokenizer\.ggml\.tokens"),
        (Keys.Tokenizer.LIST, value_of(GGUFValueType.INT32, [1, 2]), "items of a wrong type"),
        (Keys.Tokenizer.SCORES, value_of(GGUFValueType.FLOAT32, [1.0]), "3 tokens, but 1 values"),
        (Keys.Tokenizer.ADD_PREFIX, value_of(GGUFValueType.INT32, 3), "wrong type"),
    ],
)
def test_damaged_metadata(key: str, value: object, message: str) -> None:
    metadata = {
        Keys.Tokenizer.MODEL: value_of(GGUFValueType.STRING, "llama"),
        Keys.Tokenizer.LIST: value_of(GGUFValueType.STRING, ["a", "b", "c"]),
    }
    changed = {k: v for k, v in (metadata | {key: value}).items() if v is not None}
    with pytest.raises(TokenizerMetadataError, match=message):
        Tokenizer(changed, "model.gguf")


def test_bos_must_exist_where_it_is_added() -> None:
    with pytest.raises(TokenizerMetadataError, match="begins with BOS"):
        small_spm({"a": normal(0)})


def test_merges_of_unknown_tokens_are_an_error_not_a_crash(bpe: Path) -> None:
    metadata = tokenizer_metadata(bpe, None, {})
    for merge in ("nowhere nothing", "nospace"):
        metadata[Keys.Tokenizer.MERGES] = value_of(GGUFValueType.STRING, [merge])
        with pytest.raises(TokenizerError, match="merges"):
            Tokenizer(metadata, "model.gguf")
