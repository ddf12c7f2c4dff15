"""GGUF files: any mix of types, split files, metadata as stored; the oracle is `gguf` itself."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

from engine.api.gguf import GgufValue
from engine.api.model import Role
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import UnknownTypeError
from tests.engine.checkpoint.samples import (
    finish,
    gguf_bytes,
    info,
    pair,
    string_pair,
    strings_pair,
    text,
    u32_pair,
    write_split,
)

WITHOUT_DECODER = {"Q8_1", "Q8_K", "Q1_0"}
INTEGERS = {"I8", "I16", "I32", "I64"}
DECODED = [kind for kind in GGMLQuantizationType if kind.name not in WITHOUT_DECODER | INTEGERS]
DATA = Path("../shared/data/models")


def writer_of(path: Path) -> GGUFWriter:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_file_type(15)
    writer.add_float32("some.float", 0.1)
    writer.add_bool("some.flag", True)
    writer.add_int64("some.large", -(1 << 40))
    writer.add_token_list(["<s>", "été", "▁x", "\n"])
    writer.add_token_scores([0.0, -1.5, -2.25, 1e-3])
    writer.add_token_types([3, 1, 1, 6])
    writer.add_array("empty.list", [])
    return writer


def random_blocks(kind: GGMLQuantizationType, rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, bytes]: any bytes are codes of a block type."""
    values, size = GGML_QUANT_SIZES[kind]
    return np.random.default_rng(int(kind)).integers(0, 256, (rows, columns // values * size), np.uint8)


def test_metadata_and_names_as_gguf_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = writer_of(path)
    writer.add_tensor("token_embd.weight", np.arange(32, dtype=np.float32).reshape(4, 8))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((8, 8), np.float16))
    writer.add_tensor("blk.1.ffn_gate_exps.weight", np.ones((3, 5, 8), np.float32))
    finish(writer)
    reader = GGUFReader(path)
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.kind, checkpoint.architecture, checkpoint.config) == ("gguf", "llama", None)
        assert checkpoint.blocks == 2
        assert checkpoint.tied
        assert checkpoint.quantization is None
        stated = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        assert set(checkpoint.metadata) == set(stated)
        for key, field in stated.items():
            value = checkpoint.metadata[key]
            assert value.type == field.types[0]
            if field.data:
                assert value.value == field.contents()
        assert checkpoint.metadata["tokenizer.ggml.tokens"] == GgufValue(
            GGUFValueType.ARRAY, ["<s>", "été", "▁x", "\n"], GGUFValueType.STRING
        )
        for expected in reader.tensors:
            tensor = checkpoint.tensors[expected.name]
            assert tensor.canonical == expected.name
            assert tensor.shape == tuple(int(size) for size in reversed(expected.shape))
            assert (tensor.offset, tensor.bytes) == (expected.data_offset, expected.n_bytes)
            np.testing.assert_array_equal(
                checkpoint.read(expected.name).reshape(-1), expected.data.astype(np.float32).reshape(-1)
            )
        experts = checkpoint.tensors["blk.1.ffn_gate_exps.weight"]
        assert (experts.role, experts.block, experts.shape) == (Role.EXPERT, 1, (3, 5, 8))


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(3, 512), (7, 2, 256)])
def test_every_type_decodes_as_gguf_decodes_it(
    tmp_path: Path, kind: GGMLQuantizationType, shape: tuple[int, ...]
) -> None:
    data = random_blocks(kind, int(np.prod(shape[:-1])), shape[-1])
    with np.errstate(all="ignore"):
        if kind == GGMLQuantizationType.F64:
            expected = data.view(np.float64).astype(np.float32)
        else:
            expected = quants.dequantize(data, kind)
    expected = expected.reshape(shape)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([], [info("w", shape, kind, 0)], data.tobytes()))
    with open_checkpoint(path) as checkpoint, np.errstate(all="ignore"):
        assert checkpoint.tensors["w"].dtype == kind.name
        np.testing.assert_array_equal(checkpoint.read("w"), expected, strict=True)
        np.testing.assert_array_equal(checkpoint.read("w", slice(1, 3)), expected[1:3], strict=True)


def test_large_quantized_tensors_are_decoded_in_pieces(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q6_K
    data = random_blocks(kind, 101, 5120)  # 424 KB: two pieces, the second odd
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([], [info("w", (101, 5120), kind, 0)], data.tobytes()))
    with open_checkpoint(path) as checkpoint, np.errstate(all="ignore"):
        np.testing.assert_array_equal(checkpoint.read("w"), quants.dequantize(data, kind))


def test_the_mix_of_types_is_named(tmp_path: Path) -> None:
    infos = [
        info("token_embd.weight", (2, 256), GGMLQuantizationType.Q6_K, 0),
        info("blk.0.attn_q.weight", (1, 256), GGMLQuantizationType.Q4_K, 448),
        info("blk.0.attn_k.weight", (1, 256), GGMLQuantizationType.Q4_K, 608),
        info("blk.0.attn_norm.weight", (8,), GGMLQuantizationType.F32, 768),
    ]
    pairs = [string_pair("general.architecture", "llama"), u32_pair("general.file_type", 15)]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(pairs, infos, bytes(800)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.quantization == "Q4_K_M (2 Q4_K, 1 Q6_K, 1 F32)"
        assert checkpoint.summary().parameters == 4 * 256 + 8


def test_a_type_without_decoder_opens_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([], [info("w", (1, 128), GGMLQuantizationType.Q1_0, 0)], bytes(18)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["w"].bytes == 18
        with pytest.raises(UnknownTypeError, match="w is stored as Q1_0, which cannot be decoded"):
            checkpoint.read("w")


def test_version_2_and_another_alignment(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    infos = [info("a", (3,), 0, 0), info("b", (2,), 0, 64)]
    content = gguf_bytes([u32_pair("general.alignment", 64)], infos, version=2)
    content += bytes(-len(content) % 64)
    data = np.zeros(32, np.float32)
    data[:3], data[16:18] = [1, 2, 3], [4, 5]
    path.write_bytes(content + data.tobytes())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("a").tolist() == [1, 2, 3]
        assert checkpoint.read("b").tolist() == [4, 5]


def test_long_vocabularies_cross_the_reading_window(tmp_path: Path) -> None:
    tokens = [f"tøken{i}" * (i % 7) for i in range(40_000)]
    path = tmp_path / "model.gguf"
    pairs = [strings_pair("tokens", tokens), string_pair("long", "x" * 600_000), u32_pair("last", 7)]
    path.write_bytes(gguf_bytes(pairs, [info("w", (2,), 0, 0)], bytes(8)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["tokens"].value == tokens
        assert len(checkpoint.metadata["long"].value) == 600_000
        assert checkpoint.metadata["last"].value == 7
        assert checkpoint.bytes_read < path.stat().st_size + (1 << 20)


def test_a_split_model_opens_by_any_of_its_parts(tmp_path: Path) -> None:
    files = write_split(tmp_path)
    assert files[0].name == "model-00001-of-00003.gguf"
    for path in (*files, tmp_path):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.files == files
            assert checkpoint.architecture == "llama"
            assert not any(key.startswith("split.") for key in checkpoint.metadata)
            assert [checkpoint.read(name)[0, 0] for name in checkpoint.tensors] == [0, 1, 2]


def test_an_old_mixtral_has_its_experts_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([], [info("blk.3.ffn_down.5.weight", (2,), 0, 0)], bytes(8)))
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensors["blk.3.ffn_down.5.weight"]
    assert (tensor.role, tensor.block, tensor.expert) == (Role.EXPERT, 3, 5)
    assert tensor.canonical == "blk.3.ffn_down_exps.weight"


def test_gate_and_up_in_one_matrix_are_told_by_size(tmp_path: Path) -> None:
    pairs = [string_pair("general.architecture", "phi3"), u32_pair("phi3.feed_forward_length", 6)]
    infos = [info("blk.0.ffn_up.weight", (12, 1), 0, 0), info("blk.1.ffn_up.weight", (6, 1), 0, 64)]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(pairs, infos, bytes(88)))
    with open_checkpoint(path) as checkpoint:
        roles = [tensor.role for tensor in checkpoint.tensors.values()]
    assert roles == [Role.GATE_UP, Role.UP]


def test_strings_that_are_no_text_survive(tmp_path: Path) -> None:
    """Vocabularies hold pieces of characters."""
    path = tmp_path / "model.gguf"
    pairs = [pair("k", GGUFValueType.STRING, text(b"\xe2\x96"))]
    path.write_bytes(gguf_bytes([*pairs, strings_pair("list", ["a"])], [info("w", (8,), 0, 0)], bytes(32)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["k"].value.encode("utf-8", "surrogateescape") == b"\xe2\x96"


@pytest.mark.skipif(not DATA.exists(), reason="needs the models of the shared data")
def test_files_written_by_llama_cpp() -> None:
    for path in sorted(DATA.glob("*/*.gguf")):
        reader = GGUFReader(path)
        with open_checkpoint(path) as checkpoint:
            for expected in reader.tensors:
                values = quants.dequantize(expected.data, expected.tensor_type)
                np.testing.assert_array_equal(
                    checkpoint.read(expected.name).reshape(-1), np.asarray(values).reshape(-1)
                )
