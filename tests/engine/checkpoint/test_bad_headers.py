"""Each way in which a header can be wrong has its own error, and one sentence that names the file."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType

from engine.api.errors import CheckpointError
from engine.checkpoint import errors, open_checkpoint
from tests.engine.checkpoint.samples import (
    expect_refusal,
    gguf_bytes,
    info,
    pair,
    safetensors_bytes,
    string_pair,
    strings_pair,
    text,
    u32_pair,
)

HUGE = 1 << 60


def entry(dtype: object, shape: object, begin: object, end: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "empty file": (b"", errors.TruncatedError, "is empty"),
    "cut in the length": (b"\x10\0\0", errors.TruncatedError, "ends too early"),
    "cut in the header": (
        safetensors_bytes({"w": entry("F32", [2], 0, 8)}, bytes(8))[:20],
        errors.TruncatedError,
        "the header needs",
    ),
    "cut in the data": (
        safetensors_bytes({"w": entry("F32", [2], 0, 8)}, bytes(7)),
        errors.TruncatedError,
        "w needs .* bytes and the file has",
    ),
    "claims 2^60 bytes of header": (
        safetensors_bytes({}, bytes(64), length=HUGE),
        errors.OversizedHeaderError,
        "claims a header of 1,152,921,504,606,846,976 bytes",
    ),
    "claims 2^60 bytes of data": (
        safetensors_bytes({"w": entry("U8", [HUGE], 0, HUGE)}),
        errors.TruncatedError,
        "w needs",
    ),
    "overlapping": (
        safetensors_bytes({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)),
        errors.TensorOffsetsError,
        "bytes of a and b overlap",
    ),
    "one inside of another": (
        safetensors_bytes({"a": entry("F32", [4], 0, 16), "b": entry("F32", [1], 4, 8)}, bytes(16)),
        errors.TensorOffsetsError,
        "bytes of a and b overlap",
    ),
    "a hole": (
        safetensors_bytes({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, bytes(12)),
        errors.TensorOffsetsError,
        "leave a hole",
    ),
    "bytes before the first": (
        safetensors_bytes({"a": entry("F32", [1], 4, 8)}, bytes(8)),
        errors.TensorOffsetsError,
        "cover bytes",
    ),
    "bytes behind the last": (
        safetensors_bytes({"a": entry("F32", [1], 0, 4)}, bytes(5)),
        errors.TensorOffsetsError,
        "cover bytes",
    ),
    "shape against offsets": (
        safetensors_bytes({"a": entry("F32", [3], 0, 8)}, bytes(8)),
        errors.TensorOffsetsError,
        r"a of type F32 and shape \[3\]",
    ),
    "end before begin": (
        safetensors_bytes({"a": entry("F32", [1], 8, 4)}, bytes(8)),
        errors.TensorOffsetsError,
        "does not take the -4 bytes",
    ),
    "negative shape": (
        safetensors_bytes({"a": entry("F32", [-1, -2], 0, 8)}, bytes(8)),
        errors.BadHeaderError,
        "not lists of whole numbers",
    ),
    "shape of fractions": (
        safetensors_bytes({"a": entry("F32", [2.0], 0, 8)}, bytes(8)),
        errors.BadHeaderError,
        "not lists of whole numbers",
    ),
    "unknown type": (
        safetensors_bytes({"a": entry("F7", [1], 0, 4)}, bytes(4)),
        errors.UnknownTypeError,
        "stores a as 'F7'",
    ),
    "type is no text": (
        safetensors_bytes({"a": entry([], [1], 0, 4)}, bytes(4)),
        errors.UnknownTypeError,
        "a type that is not known",
    ),
    "values that do not end on a byte": (
        safetensors_bytes({"a": entry("F4", [3], 0, 1)}, bytes(1)),
        errors.TensorOffsetsError,
        "a of type F4",
    ),
    "an entry without offsets": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": []}}),
        errors.BadHeaderError,
        "lacks its type, shape or offsets",
    ),
    "half a character in a name": (
        safetensors_bytes(b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
        errors.BadHeaderError,
        r"the name '.ud800' is too long, or holds what cannot be shown",
    ),
    "a name twice": (
        safetensors_bytes(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        errors.DuplicateTensorError,
        "names 'a' twice",
    ),
    "no JSON": (safetensors_bytes(b"{nonsense"), errors.BadHeaderError, "not a JSON object"),
    "no text": (safetensors_bytes(b"{\xff\xfe\xfd}"), errors.BadHeaderError, "not a JSON object"),
    "deep nesting": (
        safetensors_bytes(b'{"a":' + b"[" * 200_000),
        errors.BadHeaderError,
        "not a JSON object",
    ),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(tmp_path: Path, case: str) -> None:
    content, kind, message = SAFETENSORS[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    expect_refusal(path, kind, message)
    if content:
        expect_refusal(tmp_path, kind, message)


WEIGHT = info("w", (8,), 0, 0)
GGUF = {
    "cut in the counts": (b"GGUF\x03\0\0\0\x01", errors.TruncatedError, "ends too early"),
    "cut in the metadata": (
        gguf_bytes([string_pair("general.name", "x" * 100)], [WEIGHT], bytes(32))[:90],
        errors.TruncatedError,
        "general.name needs",
    ),
    "cut in the tensors' entries": (
        gguf_bytes([string_pair("key", "value" * 20)], [WEIGHT])[:170],
        errors.TruncatedError,
        "ends too early",
    ),
    "cut in the data": (gguf_bytes([], [WEIGHT], bytes(31)), errors.TruncatedError, "w needs"),
    "2^60 tensors": (
        gguf_bytes([], [], bytes(64), tensor_count=HUGE),
        errors.OversizedHeaderError,
        "claims 1,152,921,504,606,846,976 tensors",
    ),
    "2^60 values": (
        gguf_bytes([], [], bytes(64), value_count=HUGE),
        errors.OversizedHeaderError,
        "metadata values",
    ),
    "a key of 2^60 bytes": (
        gguf_bytes([struct.pack("<Q", HUGE)], [], bytes(64)),
        errors.OversizedHeaderError,
        "bytes for a metadata key",
    ),
    "a text of 2^60 bytes": (
        gguf_bytes([pair("k", GGUFValueType.STRING, struct.pack("<Q", HUGE))], [], bytes(64)),
        errors.OversizedHeaderError,
        "bytes for k",
    ),
    "2^60 numbers": (
        gguf_bytes([pair("k", GGUFValueType.ARRAY, struct.pack("<IQ", 4, HUGE))], [], bytes(64)),
        errors.OversizedHeaderError,
        "values under 'k'",
    ),
    "2^60 texts": (
        gguf_bytes([pair("k", GGUFValueType.ARRAY, struct.pack("<IQ", 8, HUGE))], [], bytes(64)),
        errors.OversizedHeaderError,
        "strings under 'k'",
    ),
    "sizes whose product overflows": (
        gguf_bytes([], [info("w", (1 << 32, 1 << 32, 1 << 32), 0, 0)], bytes(64)),
        errors.TruncatedError,
        "w needs",
    ),
    "an offset of 2^63": (
        gguf_bytes([], [info("w", (8,), 0, 1 << 63)], bytes(64)),
        errors.TruncatedError,
        "w needs",
    ),
    "overlapping": (
        gguf_bytes([], [info("a", (16,), 0, 0), info("b", (8,), 0, 32)], bytes(64)),
        errors.TensorOffsetsError,
        "bytes of a and b overlap",
    ),
    "an offset against the alignment": (
        gguf_bytes([], [info("a", (8,), 0, 4)], bytes(64)),
        errors.TensorOffsetsError,
        "breaks the blocks of its type or the alignment",
    ),
    "half a block": (
        gguf_bytes([], [info("a", (48,), 8, 0)], bytes(64)),
        errors.TensorOffsetsError,
        "a of type Q8_0",
    ),
    "five dimensions": (
        gguf_bytes([], [info("a", (1, 1, 1, 1, 1), 0, 0)], bytes(64)),
        errors.BadHeaderError,
        "5 dimensions",
    ),
    "an unknown type": (
        gguf_bytes([], [info("a", (8,), 31, 0)], bytes(64)),
        errors.UnknownTypeError,
        "GGML type 31",
    ),
    "an unknown type of value": (
        gguf_bytes([text("k") + struct.pack("<I", 13)], [], bytes(64)),
        errors.BadHeaderError,
        "'k' is of type 13",
    ),
    "an array of arrays": (
        gguf_bytes([pair("k", GGUFValueType.ARRAY, struct.pack("<IQ", 9, 1))], [], bytes(64)),
        errors.BadHeaderError,
        "array of arrays",
    ),
    "an alignment of 0": (
        gguf_bytes([u32_pair("general.alignment", 0)], [WEIGHT], bytes(64)),
        errors.BadHeaderError,
        "alignment of 0",
    ),
    "an alignment that is a text": (
        gguf_bytes([string_pair("general.alignment", "32")], [WEIGHT], bytes(64)),
        errors.BadHeaderError,
        "alignment of '32'",
    ),
    "a name twice": (
        gguf_bytes([], [WEIGHT, info("w", (8,), 0, 32)], bytes(64)),
        errors.DuplicateTensorError,
        "names 'w' twice",
    ),
    "a key twice": (
        gguf_bytes([u32_pair("k", 1), u32_pair("k", 2)], [], bytes(64)),
        errors.BadHeaderError,
        "two values for 'k'",
    ),
    "version 1": (gguf_bytes([], [], version=1), errors.NotAModelError, "GGUF version 1"),
    "big-endian": (gguf_bytes([], [], version=3 << 24), errors.ByteOrderError, "big-endian"),
    "an importance matrix": (
        gguf_bytes([string_pair("general.type", "imatrix")], [WEIGHT], bytes(32)),
        errors.NotAModelError,
        "of type 'imatrix', not a model",
    ),
}


@pytest.mark.parametrize("case", GGUF)
def test_gguf(tmp_path: Path, case: str) -> None:
    content, kind, message = GGUF[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    expect_refusal(path, kind, message)


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_random_damage_never_ends_in_another_error(tmp_path: Path, kind: str) -> None:
    if kind == "gguf":
        pairs = [string_pair("general.architecture", "llama"), strings_pair("t", ["a", "bc"])]
        content = gguf_bytes(pairs, [WEIGHT, info("blk.0.attn_q.weight", (2, 32), 8, 32)], bytes(100))
    else:
        header = {"w": entry("F32", [2, 2], 0, 16), "v": entry("BF16", [3], 16, 22)}
        content = safetensors_bytes(header, bytes(22))
    path = tmp_path / f"model.{kind}"
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content) - 100 if kind == "gguf" else 150, 2):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(
            damaged[: generator.integers(8, len(damaged))] if generator.random() < 0.3 else damaged
        )
        try:
            with open_checkpoint(path) as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.read(name)
        except CheckpointError:
            refused += 1
    assert refused > 200
