"""Tokenizer files made to do harm."""

import json
import struct

import pytest

from engine.tokenizer.folder import TokenizerFileError
from engine.tokenizer.gguf import TEMPLATE_LIMIT, tokenizer_metadata
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check
from tests.fuzz.seeds import SEEDS, as_json

test_tokenizer_damage = no_damage("tokenizer", 500)
test_tokenizer_bytes = no_bytes("tokenizer", 40)
test_config_damage = no_damage("tokenizer_config", 150)
test_config_bytes = no_bytes("tokenizer_config", 40)
test_sentencepiece_damage = no_damage("sentencepiece", 200)
test_sentencepiece_bytes = no_bytes("sentencepiece", 40)

BYTEWISE, SPACED = (json.loads(SEEDS["tokenizer"]()[name]) for name in ("bytewise", "spaced"))
CONFIG = json.loads(SEEDS["tokenizer_config"]()["whole"])
PIECES = SEEDS["sentencepiece"]()["bpe"]


def said(reader: str, content: dict) -> str:
    return " ".join(check(READERS[reader], as_json(content)))


@pytest.mark.parametrize("token_id", [4_000_000, 1 << 40, 10**4000])
def test_an_id_far_beyond_the_others(token_id):
    """A file of 400 bytes made four million tokens."""
    model = BYTEWISE["model"] | {"vocab": BYTEWISE["model"]["vocab"] | {"z": token_id}}
    assert "for 4000001 ids" in said("tokenizer", BYTEWISE | {"model": model}) or token_id > 4_000_000
    assert said("tokenizer", BYTEWISE | {"model": model})
    added = CONFIG["added_tokens_decoder"] | {str(token_id): {"content": "z"}}
    said("tokenizer_config", CONFIG | {"added_tokens_decoder": added})


@pytest.mark.parametrize("token_id", ["1e999", "NaN", "-1", '"x"', "null", "[]", "1" * 4300])
def test_an_added_token_without_a_usable_id(token_id):
    content = as_json(BYTEWISE).replace(b'"id": 1', b'"id": ' + token_id.encode())
    check(READERS["tokenizer"], content)


def test_a_long_token_takes_no_long_time():
    """Every place in it was a place to cut it: minutes for a file of 300 KB."""
    model = SPACED["model"] | {"vocab": SPACED["model"]["vocab"] | {"a" * 300_000: 6}}
    check(READERS["tokenizer"], as_json(SPACED | {"model": model}))


@pytest.mark.parametrize("key", ["normalizers", "pretokenizers"])
def test_steps_within_steps(key):
    step: dict = {"type": "Sequence"}
    for _ in range(300):
        step = {"type": "Sequence", key: [step]}
    said("tokenizer", SPACED | {"normalizer": step})
    said("tokenizer", BYTEWISE | {"pre_tokenizer": step})


def test_a_type_within_types():
    assert said("tokenizer", BYTEWISE | {"normalizer": {"type": json.loads("[" * 800 + "]" * 800)}})


@pytest.mark.parametrize("kind", [float("inf"), float("nan"), 1e30, 7.5])
def test_a_piece_of_a_kind_that_is_no_number(kind):
    piece = b"\x0a\x01a\x1d" + struct.pack("<f", kind)
    (one, other) = check(READERS["sentencepiece"], b"\x0a" + bytes([len(piece)]) + piece + PIECES)
    assert "not a SentencePiece model, or is damaged" in one
    assert one == other


def test_pieces_without_a_text():
    assert check(READERS["sentencepiece"], b"\x0a\0" * 100_000 + PIECES)


def test_a_template_s_link_gives_no_other_file_away(tmp_path):
    """Its text is written into the output: a link to a private key would publish it."""
    (tmp_path / "secret").write_text("private")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(as_json(BYTEWISE))
    template = folder / "chat_template.jinja"
    template.symlink_to("../secret")
    with pytest.raises(TokenizerFileError, match=r"links to another file, .*/secret, whose text"):
        tokenizer_metadata(folder, None, {})

    blob = tmp_path / "blobs" / "0123abcd"
    copy = tmp_path / "other" / template.name
    for target in (blob, copy):  # Hugging Face's cache; a folder of links to a model elsewhere
        target.parent.mkdir()
        target.write_text("{{ x }}")
        template.unlink()
        template.symlink_to(target)
        assert tokenizer_metadata(folder, None, {})["tokenizer.chat_template"].value == "{{ x }}"


def test_a_template_without_end(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(as_json(BYTEWISE))
    with (tmp_path / "chat_template.jinja").open("wb") as file:
        file.truncate(TEMPLATE_LIMIT + 1)
    with pytest.raises(TokenizerFileError, match="no template is so large"):
        tokenizer_metadata(tmp_path, None, {})
