"""llama.cpp itself must give the ids that we give, on the metadata that we write."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType, Keys, TokenType
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from engine.api.gguf import GgufValue
from engine.tokenizer import Tokenizer, tokenizer_metadata
from engine.tokenizer.pretokenizers import BY_NAME, PRE_TOKENIZERS, PUNCTUATION_RUNS
from engine.tokenizer.tokenizer import value_of
from tests.engine.tokenizer.samples import (
    SAMPLE_MODEL,
    SHARED,
    TEXTS,
    change_json,
    train_sentencepiece,
    write_converted,
    write_unigram_json,
)
from tests.peers.llama import end_tokens, tokenize
from tests.tiny import TEXT, write_bpe, write_sentencepiece

HIDDEN = 32
MIXTURE = [
    *" \n\t\r'.,!?-_~$+<>|()/@#%&*:\"[]{}09aZsTéÉßñ",
    *"你好かカ한ㄱабВΩأब٣½Ⅳ🙂🏽\u200d\u0301\u3000\u00a0\u2003ǅª،…。“”«€×",
    *("'s", "'LL", "'Re", " the", "123", "4567", "  ", "\n\n", "\r\n", "hello", "WORLD", "<s>", "</s>", "▁"),
]


def mixture(count: int, seed: int, parts: list[str] = MIXTURE) -> str:
    return "".join(random.Random(seed).choices(parts, k=count))


def write_model(path: Path, metadata: Mapping[str, GgufValue]) -> Path:
    """The smallest Llama that llama.cpp loads, with this tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, entry in metadata.items():
        writer.add_key_value(key, entry.value, entry.type, entry.item_type)
    writer.add_tensor("token_embd.weight", zeros(len(metadata[Keys.Tokenizer.LIST].value), HIDDEN))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", zeros(HIDDEN))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", zeros(HIDDEN, HIDDEN))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def assert_same_ids(path: Path, metadata: Mapping[str, GgufValue], *more: str) -> None:
    ours = Tokenizer(metadata, path.name)
    write_model(path, metadata)
    texts = (*TEXTS.values(), *TEXT, mixture(3000, seed=0), *more)
    for text, theirs in zip(texts, tokenize(path, texts), strict=True):
        assert ours.encode(text) == theirs


def test_byte_level(tmp_path: Path) -> None:
    write_bpe(tmp_path, 600)
    assert_same_ids(tmp_path / "model.gguf", tokenizer_metadata(tmp_path, 600, {}))


def test_sample_model(tmp_path: Path) -> None:
    metadata = tokenizer_metadata(SAMPLE_MODEL, 4096, {"bos_token_id": 0, "eos_token_id": 1})
    text = SHARED / "text" / "multilingual.utf8"
    more = [text.read_text(encoding="utf-8")] if text.exists() else []
    assert_same_ids(tmp_path / "model.gguf", metadata, *more)


def test_sentencepiece(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path, 600)
    assert_same_ids(tmp_path / "model.gguf", tokenizer_metadata(tmp_path, 600, {}))
    (tmp_path / "hf").mkdir()
    write_converted(tmp_path / "hf", tmp_path / "tokenizer.model")
    assert_same_ids(tmp_path / "converted.gguf", tokenizer_metadata(tmp_path / "hf", 600, {}))


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_added_tokens_are_found_where_llama_cpp_finds_them(tmp_path: Path, kind: str) -> None:
    (write_bpe if kind == "bpe" else write_sentencepiece)(tmp_path, 600)
    words = ["boats", "boat", "    ", "<tool>", "né", "<|steer|>", "<|channel|>", "<|im_end|>"]
    added = {str(600 + i): {"content": word, "special": False} for i, word in enumerate(words)}
    change_json(tmp_path / "tokenizer_config.json", added_tokens_decoder=added)
    metadata = tokenizer_metadata(tmp_path, 610, {})
    text = mixture(2000, 1, [*words, *MIXTURE])
    assert_same_ids(tmp_path / "model.gguf", metadata, text, " boats", "boats boats  <tool>x")
    found = set(Tokenizer(metadata, "").encode(text))
    assert {600, 601, 602, 603, 604, 606} <= found
    assert not {605, 607} & found


@pytest.mark.parametrize("folder", ["stories260K", "babyllama-tok361"])
def test_public_models(tmp_path: Path, folder: str) -> None:
    source = SHARED / "models" / folder / "hf"
    if not source.exists():
        pytest.skip("the shared models are not here")
    metadata = tokenizer_metadata(source, None, json.loads((source / "config.json").read_text()))
    text = (SHARED / "text" / "multilingual.utf8").read_text(encoding="utf-8")[:50_000]
    assert_same_ids(tmp_path / "model.gguf", metadata, text)
    # The file that others made of the same model.
    theirs = gguf.GGUFReader(SHARED / "models" / folder / f"{folder}-F32.gguf")
    read = {
        key: GgufValue(entry.types[0], entry.contents(), entry.types[1] if len(entry.types) > 1 else None)
        for key, entry in theirs.fields.items()
    }
    ours = Tokenizer(metadata, folder)
    assert Tokenizer(read, folder).encode(text) == ours.encode(text)


@pytest.fixture(scope="module")
def unsplit() -> tuple[list[str], list[str]]:
    """Tokens and merges learned from unsplit text: they cross every border, so that each split shows."""
    tokenizer = Library(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    runs = [char * count for char in " \n\t-=~!7" for count in range(1, 20)] * 10
    tokenizer.train_from_iterator(
        [*TEXT, *TEXTS.values(), *runs, *(mixture(200, i) for i in range(300))], trainer
    )
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), [" ".join(m) for m in model["merges"]]


@pytest.mark.parametrize("name", [name for entry in PRE_TOKENIZERS for name in entry.names])
def test_every_way_of_splitting(tmp_path: Path, unsplit: tuple[list[str], list[str]], name: str) -> None:
    tokens, merges = unsplit
    text, number = GGUFValueType.STRING, GGUFValueType.UINT32
    metadata = {
        Keys.Tokenizer.MODEL: value_of(text, "gpt2"),
        Keys.Tokenizer.PRE: value_of(text, name),
        Keys.Tokenizer.LIST: value_of(text, tokens),
        Keys.Tokenizer.TOKEN_TYPE: value_of(GGUFValueType.INT32, [int(TokenType.NORMAL)] * len(tokens)),
        Keys.Tokenizer.MERGES: value_of(text, merges),
        Keys.Tokenizer.BOS_ID: value_of(number, 0),
        Keys.Tokenizer.EOS_ID: value_of(number, 0),
        Keys.Tokenizer.SEP_ID: value_of(number, 0),
    }
    path = write_model(tmp_path / "model.gguf", metadata)
    ours = Tokenizer(metadata, name)
    texts = ("\n".join([*TEXTS.values(), *TEXT]), mixture(6000, seed=1_000_000), mixture(7, seed=3))
    for sample, theirs in zip(texts, tokenize(path, texts), strict=True):
        assert ours.encode(sample) == theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False, "normalization_rule_name": "nfkc"},
        {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
        {"remove_extra_whitespaces": False, "user_defined_symbols": ["<tool>", "▁▁"], "byte_fallback": True},
    ],
    ids=["as T5", "no prefix", "all spaces", "added and bytes"],
)
def test_unigram(tmp_path: Path, options: dict) -> None:
    model = train_sentencepiece(tmp_path, model_type="unigram", **({"vocab_size": 900} | options))
    assert_same_ids(tmp_path / "model.gguf", tokenizer_metadata(tmp_path, None, {}))
    (tmp_path / "hf").mkdir()
    write_unigram_json(tmp_path / "hf", model)
    assert_same_ids(tmp_path / "converted.gguf", tokenizer_metadata(tmp_path / "hf", 1000, {}))


def library_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    """What the `tokenizers` library makes of texts with special tokens in them, without BOS and EOS."""
    library = Library.from_file(str(folder / "tokenizer.json"))
    return [library.encode(text, add_special_tokens=False).ids for text in texts]


GEMMA_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
GEMMA_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def test_gemma(tmp_path: Path) -> None:
    """No space in front, runs of line breaks and spaces and tags as tokens, bytes for the rest."""
    runs = ["\n" * n for n in (1, 2, 3)] + ["▁" * n for n in (2, 3, 4)] + ["<table>", "</b>"]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    source = train_sentencepiece(
        tmp_path,
        **{"model_type": "bpe", "byte_fallback": True, "vocab_size": 900, "split_digits": True},
        **{
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity",
        },
        **{"user_defined_symbols": runs, "control_symbols": turns},
    )
    metadata = tokenizer_metadata(tmp_path, None, {})
    assert metadata[Keys.Tokenizer.ADD_PREFIX].value is False
    assert_same_ids(tmp_path / "model.gguf", metadata, "a\n\n\n\nb     c <table></b>")

    folder = tmp_path / "hf"
    folder.mkdir()
    write_converted(folder, source)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = ["<unk>", "<s>", "</s>", *turns]
    added = [
        flags | {"id": vocab[text], "content": text, "special": text in special}
        for text in sorted([*special, *runs], key=vocab.__getitem__)
    ]
    normal = {"normalizer": GEMMA_SPACES, "pre_tokenizer": GEMMA_SPLIT, "added_tokens": added}
    change_json(folder / "tokenizer.json", **normal)
    converted = tokenizer_metadata(folder, None, {})
    for key in (Keys.Tokenizer.LIST, Keys.Tokenizer.TOKEN_TYPE, Keys.Tokenizer.ADD_PREFIX):
        assert converted[key] == metadata[key]
    assert_same_ids(tmp_path / "converted.gguf", converted)
    # Tokens of spaces are looked for as they are written, here as "▁", there as spaces.
    plain = [text for text in TEXTS.values() if "▁" not in text]
    texts = ["<start_of_turn>user\nHi,  you\n\n<end_of_turn>\n<start_of_turn>model\n", *plain]
    assert tokenize(tmp_path / "converted.gguf", texts, parse=True) == library_ids(folder, texts)


def test_phi_3(tmp_path: Path) -> None:
    """Added tokens that take white space along, which llama.cpp does for files of this name."""
    write_sentencepiece(tmp_path, 600)
    folder = tmp_path / "phi-3-mini"
    folder.mkdir()
    write_converted(folder, tmp_path / "tokenizer.model")
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    flags = {"single_word": False, "lstrip": False, "normalized": False, "special": True}
    for i, text in enumerate(["<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"]):
        added.append(flags | {"id": 600 + i, "content": text, "rstrip": text != "<|endoftext|>"})
    added[2]["rstrip"] = True
    change_json(folder / "tokenizer.json", added_tokens=added)
    notes: list[str] = []
    metadata = tokenizer_metadata(folder, 608, {}, notes=notes)
    assert not notes
    name = {Keys.General.NAME: value_of(GGUFValueType.STRING, "Phi-3-mini")}
    write_model(tmp_path / "model.gguf", metadata | name)
    texts = ["<|user|>\nHow are you?<|end|>\n<|assistant|>\n Well.</s>\n<|endoftext|>\n\nx", *TEXTS.values()]
    theirs = tokenize(tmp_path / "model.gguf", texts, parse=True)
    # The library normalizes an empty text to "▁".
    assert theirs == [
        ids if text else [] for ids, text in zip(library_ids(folder, texts), texts, strict=True)
    ]
    write_model(tmp_path / "other.gguf", metadata)
    assert tokenize(tmp_path / "other.gguf", texts[:1], parse=True) != theirs[:1]
    # Of another name, it is said.
    tokenizer_metadata(folder.rename(tmp_path / "mine"), 608, {}, notes=notes)
    assert len(notes) == 1
    assert "'</s>'" in notes[0]


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken", "smollm", "deepseek-v3"])
def test_special_tokens_in_byte_level_text(tmp_path: Path, name: str) -> None:
    write_bpe(tmp_path, 600)
    chain = BY_NAME[name].chains[0]
    regexes = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False}
        if one != PUNCTUATION_RUNS
        else {"type": "Punctuation", "behavior": "Contiguous"}
        for one in chain
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [*regexes, level]}
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    model["ignore_merges"] = BY_NAME[name].ignore_merges
    change_json(tmp_path / "tokenizer.json", pre_tokenizer=steps, model=model)
    metadata = tokenizer_metadata(tmp_path, 600, {})
    assert metadata[Keys.Tokenizer.PRE].value == name
    write_model(tmp_path / "model.gguf", metadata)
    texts = [
        "<|begin|>It's 1234 boats,  né?\n\n<|end|> <|pad|>x",
        TEXTS["prose"],
        TEXTS["emoji"],
        TEXTS["code"],
    ]
    assert tokenize(tmp_path / "model.gguf", texts, parse=True) == library_ids(tmp_path, texts)


def test_all_ends_of_a_text_are_known(tmp_path: Path) -> None:
    write_bpe(tmp_path, 600)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 590, 591]}))
    metadata = tokenizer_metadata(tmp_path, 600, {"eos_token_id": 2})
    path = write_model(tmp_path / "model.gguf", metadata)
    assert end_tokens(path) == {2, 590, 591}
