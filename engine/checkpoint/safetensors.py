"""Reads the header of a .safetensors file.

Layout: 8 bytes, the length N of the header (unsigned, little-endian); N bytes of JSON
`{name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {text: text}}`; then the data, which the
offsets (counted from the end of the header) cover without overlap or hole.
https://huggingface.co/docs/safetensors
"""

import json
from collections import Counter

from engine.api.wording import shown
from engine.checkpoint.errors import (
    DuplicateTensorError,
    OversizedHeaderError,
    TensorOffsetsError,
    UnknownTypeError,
)
from engine.checkpoint.files import SourceFile, require, require_name
from engine.checkpoint.stored import AXES_LIMIT, PLAIN_BITS, Stored, check_apart, check_shape, plain_bytes

HEADER_LIMIT = 100_000_000  # as in the format's own library


def looks_like(start: bytes) -> bool:
    """Whether a file that begins with these 9 bytes can be safetensors: a length, then a JSON object."""
    return len(start) >= 9 and start[8:9] == b"{"


def read_header(file: SourceFile) -> list[Stored]:
    """The tensors of the file, in the order of the header. Raises a `CheckpointError` for a damaged file."""
    length = int.from_bytes(file.read(0, 8), "little")
    if length > HEADER_LIMIT:
        raise OversizedHeaderError(
            f"{file.path} claims a header of {length:,} bytes, where safetensors allows {HEADER_LIMIT:,}; "
            "it is damaged or of another kind."
        )
    entries = _parse(file, file.read(8, length))
    entries.pop("__metadata__", None)
    data = 8 + length
    tensors = [_tensor(file, data, name, entry) for name, entry in entries.items()]
    check_apart(tensors, contiguous=True)
    end = max((tensor.offset + tensor.bytes for tensor in tensors), default=data)
    start = min((tensor.offset for tensor in tensors), default=data)
    if start != data or end != file.size:
        raise TensorOffsetsError(
            f"{file.path} has a damaged header: its tensors cover bytes {start:,} to {end:,} "
            f"and the data lies from {data:,} to {file.size:,}."
        )
    return tensors


def read_about(file: SourceFile) -> dict[str, str]:
    """What the header says of the whole file, of one whose tensors `read_header` has read."""
    said = _parse(file, file.read(8, int.from_bytes(file.read(0, 8), "little"))).get("__metadata__")
    entries = said.items() if isinstance(said, dict) else ()
    return {key: text for key, text in entries if isinstance(text, str)}


def _parse(file: SourceFile, text: bytes) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content = dict(pairs)
        if len(content) < len(pairs):
            ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise DuplicateTensorError(f"{file.path} names {shown(twice)} twice in its header.")
        return content

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        content = None
    require(isinstance(content, dict), file.path, "it is not a JSON object")
    assert isinstance(content, dict)
    return content


def _tensor(file: SourceFile, data: int, name: str, entry: object) -> Stored:
    """The entry of one tensor, checked; `data` is where the data starts."""
    require_name(name, file.path)
    require(
        isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= set(entry),
        file.path,
        f"the entry of {name!r} lacks its type, shape or offsets",
    )
    assert isinstance(entry, dict)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    require(
        _counts(shape) and _counts(offsets) and len(offsets) == 2 and len(shape) <= AXES_LIMIT,
        file.path,
        f"the shape or the offsets of {name!r} are not lists of whole numbers, or far too long",
    )
    if not isinstance(dtype, str) or dtype not in PLAIN_BITS:
        raise UnknownTypeError(f"{file.path} stores {name} as {shown(dtype)}, a type that is not known.")
    begin, end = offsets
    if plain_bytes(dtype, shape) != end - begin:
        raise TensorOffsetsError(
            f"{file.path} has a damaged header: {name} of type {dtype} and shape {shown(shape)} "
            f"does not take the {end - begin:,} bytes between its offsets."
        )
    if data + end > file.size:
        raise file.truncated(name, data + end)
    check_shape(file.path, name, tuple(shape))
    return Stored(name, tuple(shape), dtype, file, data + begin, end - begin)


def _counts(values: object) -> bool:
    """Whether it is a list of numbers from 0 on, of 64 bits at most."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 64 for value in values)
