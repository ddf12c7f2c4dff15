"""GGUF files made to do harm: lengths, counts, names and arrays that are not what they should be."""

import struct

import numpy as np
import pytest
from gguf import GGUFValueType

from engine.checkpoint import errors
from engine.checkpoint.gguf import TENSOR_LIMIT
from tests.engine.checkpoint.samples import (
    expect_refusal,
    gguf_bytes,
    info,
    pair,
    string_pair,
    strings_pair,
    text,
    u32_pair,
    write_sparse,
)
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check

test_damage = no_damage("gguf", 800)
test_bytes = no_bytes("gguf")

WEIGHT = info("w", (8,), 0, 0)
HOSTILE = {
    "a newline in a key": (gguf_bytes([u32_pair("a\nb", 1)], [WEIGHT], bytes(32)), "cannot be shown"),
    "a key that is no text": (
        gguf_bytes([text(b"\xff") + struct.pack("<II", 4, 1)], [WEIGHT], bytes(32)),
        "cannot be shown",
    ),
    "a key of 3,000 letters": (gguf_bytes([u32_pair("k" * 3000, 1)], [WEIGHT], bytes(32)), "too long"),
    "a NUL in a tensor's name": (gguf_bytes([], [info("a\0b", (8,), 0, 0)], bytes(32)), "cannot be shown"),
    "an empty tensor larger than any array": (
        gguf_bytes([], [info("w", (0, 1 << 63), 0, 0)], bytes(32)),
        "no array can have the shape",
    ),
    "an alignment of a thousand letters": (
        gguf_bytes([string_pair("general.alignment", "x" * 1000)], [WEIGHT], bytes(32)),
        "an alignment of 'xxx",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_as_damaged(tmp_path, case):
    content, message = HOSTILE[case]
    assert check(READERS["gguf"], content)
    (tmp_path / "model.gguf").write_bytes(content)
    expect_refusal(tmp_path / "model.gguf", errors.BadHeaderError, message)


def test_more_tensors_than_any_model_has(tmp_path):
    path = tmp_path / "model.gguf"
    write_sparse(path, gguf_bytes([], [], tensor_count=TENSOR_LIMIT + 1), 1 << 26)
    expect_refusal(path, errors.OversizedHeaderError, "1,048,577 tensors: no model has so many")


@pytest.mark.parametrize("letter", "bBhHiIqQfd?")
def test_memory_for_arrays_of_numbers(letter):
    """Read as a list, a byte from -128 to -6 took 40 bytes."""
    kinds = dict(zip("BbHhIif?", range(8), strict=True)) | dict(zip("QqdA", range(10, 13), strict=False))
    values = np.arange(200_000 // struct.calcsize(letter)).astype(letter)
    array = struct.pack("<IQ", kinds[letter], values.size) + values.tobytes()
    (said,) = check(READERS["gguf"], gguf_bytes([pair("k", GGUFValueType.ARRAY, array)], []))
    assert "no tokenizer" in said


@pytest.mark.parametrize("item", ["", "a", "aé", "𝄞"])
def test_memory_for_arrays_of_texts(item):
    check(READERS["gguf"], gguf_bytes([strings_pair("k", [item] * 30_000)], []))


def test_memory_for_many_tensors_and_values():
    infos = [info(f"{number:x}", (0,), 0, 0) for number in range(5_000)]
    pairs = [pair(f"{number:x}", GGUFValueType.UINT8, b"\xff") for number in range(5_000)]
    check(READERS["gguf"], gguf_bytes(pairs, infos, bytes(32)))


def test_an_architecture_that_is_no_word_counts_as_none(tmp_path):
    """The summary is written as JSON, which has no half characters."""
    for name in (b"\xff", b"a\nb", b"x" * 1000):
        content = gguf_bytes(
            [pair("general.architecture", GGUFValueType.STRING, text(name))], [WEIGHT], bytes(32)
        )
        assert all("no tokenizer" in said for said in check(READERS["gguf"], content))
