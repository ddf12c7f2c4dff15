"""An output's files, one or, where it is split, several: their names, and what goes into each.

Sizes are arithmetic of GGUF's layout (gguf.md in ggml: magic, version and counts; keys and values; an entry
for each tensor; padding; the tensors, each padded), so that the window knows them without writing a header.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

START = 24
"""Bytes before the first key."""

SPLIT_KEYS = 82
"""Of the three keys that say which part a file is, the same in all."""

ALIGNMENT_KEY = 33
"""Of the key that every part has where the alignment is not GGUF's usual one."""

USUAL_ALIGNMENT = 32


class Space(NamedTuple):
    """Bytes that a tensor takes: `entry` in the header, `data` behind it, padding included."""

    entry: int
    data: int


def tensor_space(name: str, shape: Sequence[int], size: int, alignment: int) -> Space:
    """`size`: bytes of the values."""
    return Space(24 + len(name.encode()) + 8 * len(shape), padded(size, alignment))


def padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def part_counts(metadata: int, tensors: Sequence[Space], alignment: int, most: int | None) -> list[int]:
    """How many of the tensors, in their order, go to each file: as many as fit, at least one.

    `metadata`: bytes of all keys and values. `most`: bytes of a file; None: one file.
    """
    whole = _size(START + metadata, tensors, alignment)
    if most is None or whole <= most:
        return [len(tensors)]
    counts: list[int] = []
    header = data = 0
    for tensor in tensors:
        if not counts or padded(header + tensor.entry, alignment) + data + tensor.data > most:
            header, data = _part_start(metadata, len(counts), alignment), 0
            counts.append(0)
        counts[-1] += 1
        header, data = header + tensor.entry, data + tensor.data
    return counts


def output_bytes(metadata: int, tensors: Sequence[Space], alignment: int, most: int | None) -> int:
    """The bytes of all files."""
    counts = part_counts(metadata, tensors, alignment, most)
    if len(counts) == 1:
        return _size(START + metadata, tensors, alignment)
    total = first = 0
    for number, count in enumerate(counts):
        start = _part_start(metadata, number, alignment)
        total += _size(start, tensors[first : first + count], alignment)
        first += count
    return total


def _part_start(metadata: int, number: int, alignment: int) -> int:
    """Bytes of a part's header before its tensors' entries; all metadata stand in the first."""
    own = ALIGNMENT_KEY if alignment != USUAL_ALIGNMENT else 0
    return START + SPLIT_KEYS + (metadata if number == 0 else own)


def _size(start: int, tensors: Sequence[Space], alignment: int) -> int:
    header = start + sum(tensor.entry for tensor in tensors)
    return padded(header, alignment) + sum(tensor.data for tensor in tensors)


OTHERS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx"),
    *(".json", ".txt", ".md", ".csv", ".dat"),
)
"""Ends of names that say that a file is something else than GGUF."""


def part_path(output: Path, index: int, count: int) -> Path:
    """The file of part `index` (from 0) of `count`, named as llama.cpp's `gguf-split` names it.

    An output in one part has its own name.
    """
    if count == 1:
        return output
    stem = output.name.removesuffix(".gguf")
    return output.with_name(f"{stem}-{index + 1:05}-of-{count:05}.gguf")


def partial_path(path: Path) -> Path:
    """What a file is called until it is finished and verified."""
    return path.with_name(path.name + ".partial")


def partials_of(output: Path) -> list[Path]:
    """The unfinished files of `output` that are there: of the whole, and of parts in any number."""
    stem = re.escape(output.name.removesuffix(".gguf"))
    part = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}\.gguf\.partial")
    whole = partial_path(output)
    try:
        beside = [path for path in output.parent.iterdir() if part.fullmatch(path.name)]
    except OSError:
        beside = []
    return ([whole] if whole.exists() else []) + sorted(beside)
