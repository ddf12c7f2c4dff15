"""Importance matrices for tests: made by `gguf`'s writer and by hand, read by parsers of their own."""

import struct
from pathlib import Path

import gguf
import numpy as np

from engine.calibration.importance import Entry, Importance


def write_gguf(path: Path, tensors: dict[str, np.ndarray], kind: str = "imatrix", **values: object) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(f"imatrix.{key}", value)
        else:
            writer.add_uint32(f"imatrix.{key}", value)
    for name, array in tensors.items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(name: str, sums: list, counts: list) -> dict[str, np.ndarray]:
    """The two tensors of an entry."""
    return {f"{name}.in_sum2": np.array(sums), f"{name}.counts": np.array(counts).reshape(-1, 1)}


def older_bytes(
    entries: dict[str, tuple[int, list[float]]], chunks: int | None = None, text: str = ""
) -> bytes:
    """A .dat of entries (windows, values); without `chunks` one of the oldest, which end there."""
    content = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        content += struct.pack("<i", len(name)) + name.encode()
        content += struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
    if chunks is not None:
        content += struct.pack("<ii", chunks, len(text)) + text.encode()
    return content


def read_older(path: Path) -> tuple[dict[str, tuple[int, np.ndarray]], int, str]:
    """What a .dat holds, field by field: entries, windows, the text's name."""
    content, at, entries = path.read_bytes(), 4, {}
    for _ in range(*struct.unpack_from("<i", content)):
        (length,) = struct.unpack_from("<i", content, at)
        name = content[at + 4 : at + 4 + length].decode()
        at += 4 + length
        calls, count = struct.unpack_from("<ii", content, at)
        entries[name] = calls, np.frombuffer(content, "<f4", count, at + 8)
        at += 8 + 4 * count
    chunks, length = struct.unpack_from("<ii", content, at)
    assert len(content) == at + 8 + length
    return entries, chunks, content[at + 8 :].decode()


def read_gguf(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """What `gguf`'s own reader finds: arrays by name, metadata."""
    reader = gguf.GGUFReader(path)
    arrays = {tensor.name: tensor.data.reshape(tensor.shape[::-1]) for tensor in reader.tensors}
    return arrays, {key: field.contents() for key, field in reader.fields.items()}


def importance(**entries: tuple[list, list]) -> Importance:
    """Of sums and counts by name; two underscores stand for a dot."""
    made = {
        name.replace("__", "."): Entry(np.array(sums, np.float32), np.array(counts, np.int64))
        for name, (sums, counts) in entries.items()
    }
    return Importance(made, ["a.txt"], 3, 512)
