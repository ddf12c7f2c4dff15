"""Model files for the tests of this folder: written field by field, so that every field can be wrong."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType, GGUFWriter

from engine.api.errors import CheckpointError
from engine.checkpoint import open_checkpoint

LARGE = {"hidden": 8192, "keys": 1024, "ff": 28672, "vocabulary": 128_256, "blocks": 80}


def expect_refusal(path: Path, kind: type[CheckpointError], message: str) -> None:
    """Opening fails with exactly this error, in one or two short sentences."""
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 300 + 2 * len(str(path))


def safetensors_bytes(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with the given header (JSON or raw); `length` overrides the one it states."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    """A safetensors file of arrays under the given type names: {"w": ("F8_E4M3", uint8 array)}."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        piece = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(piece)],
        }
        data += piece
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(header, data))
    return path


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def pair(key: str, kind: GGUFValueType, value: bytes) -> bytes:
    """A GGUF metadata pair; `value` as it is stored."""
    return text(key) + struct.pack("<I", kind) + value


def string_pair(key: str, value: str) -> bytes:
    return pair(key, GGUFValueType.STRING, text(value))


def u32_pair(key: str, value: int) -> bytes:
    return pair(key, GGUFValueType.UINT32, struct.pack("<I", value))


def strings_pair(key: str, values: list[str]) -> bytes:
    head = struct.pack("<IQ", GGUFValueType.STRING, len(values))
    return pair(key, GGUFValueType.ARRAY, head + b"".join(map(text, values)))


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """A GGUF tensor's entry; `shape` in NumPy's order."""
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    pairs: list[bytes],
    infos: list[bytes],
    data: bytes = b"",
    *,
    version: int = 3,
    tensor_count: int | None = None,
    value_count: int | None = None,
) -> bytes:
    """A GGUF file of encoded metadata pairs and tensor entries; the counts can be overridden."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(infos) if tensor_count is None else tensor_count,
        len(pairs) if value_count is None else value_count,
    )
    head += b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_split(folder: Path, count: int = 3) -> list[Path]:
    """A model of `count` tensors, one a file."""
    writer = GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=1)
    writer.add_block_count(1)
    for i, name in enumerate(("token_embd.weight", "blk.0.attn_norm.weight", "output_norm.weight")[:count]):
        writer.add_tensor(name, np.full((1, 4), i, np.float32))
    finish(writer)
    return sorted(folder.glob("*.gguf"))


def large_shapes() -> dict[str, tuple[int, ...]]:
    """The 723 tensors of a Llama of 70 billion parameters, under their published names."""
    hidden, keys, ff = LARGE["hidden"], LARGE["keys"], LARGE["ff"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (LARGE["vocabulary"], hidden)}
    for i in range(LARGE["blocks"]):
        block = f"model.layers.{i}."
        shapes |= {
            block + "input_layernorm.weight": (hidden,),
            block + "mlp.down_proj.weight": (hidden, ff),
            block + "mlp.gate_proj.weight": (ff, hidden),
            block + "mlp.up_proj.weight": (ff, hidden),
            block + "post_attention_layernorm.weight": (hidden,),
            block + "self_attn.k_proj.weight": (keys, hidden),
            block + "self_attn.o_proj.weight": (hidden, hidden),
            block + "self_attn.q_proj.weight": (hidden, hidden),
            block + "self_attn.v_proj.weight": (keys, hidden),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (LARGE["vocabulary"], hidden)}


def write_large_folder(folder: Path, shards: int = 30) -> Path:
    """A Hugging Face folder of 70 billion bfloat16 parameters; the data is a hole in each file."""
    folder.mkdir(parents=True)
    names = list(large_shapes().items())
    each = -(-len(names) // shards)
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        header, end = {}, 0
        for name, shape in names[i * each : (i + 1) * each]:
            size = 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
            places[name] = file
        write_sparse(folder / file, safetensors_bytes(header), end)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "llama", "num_hidden_layers": LARGE["blocks"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_large_gguf(path: Path) -> Path:
    """The same in a GGUF file of F16 matrices, with a vocabulary of the real size."""
    size = LARGE["vocabulary"]
    pairs = [
        string_pair("general.architecture", "llama"),
        u32_pair("llama.block_count", LARGE["blocks"]),
        strings_pair("tokenizer.ggml.tokens", [f"token{i}" for i in range(size)]),
        strings_pair("tokenizer.ggml.merges", [f"tok{i} en{i}" for i in range(2 * size)]),
    ]
    infos, end = [], 0
    for name, shape in large_shapes().items():
        infos.append(info(name, shape, 1, end))
        end += 2 * int(np.prod(shape))
    write_sparse(path, gguf_bytes(pairs, infos), end)
    return path


def write_sparse(path: Path, start: bytes, hole: int) -> None:
    """A file of `start` and `hole` bytes of zeros that take no room on the disk."""
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(len(start) + hole)
