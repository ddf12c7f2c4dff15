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
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from engine.tokenizer.tokenizer import value_of
from tests.engine.tokenizer.samples import SAMPLE_MODEL, SHARED, TEXTS, change_json, write_converted
from tests.peers.llama import tokenize
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
    for text in (*TEXTS.values(), *TEXT, mixture(3000, seed=0), *more):
        assert ours.encode(text) == tokenize(path, text)


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
    for sample in ("\n".join([*TEXTS.values(), *TEXT]), mixture(6000, seed=1_000_000), mixture(7, seed=3)):
        assert ours.encode(sample) == tokenize(path, sample)
