"""Reads the header of a .gguf file, versions 2 and 3, little-endian.

Layout: "GGUF", version u32, number of tensors u64, number of values u64; then the metadata: key (string),
type u32, value; then per tensor: name (string), number of dimensions u32, dimensions u64 (fastest first),
type u32, offset u64 counted from the start of the data, which is the end of the header rounded up to
`general.alignment` (32). A string is its length u64 and its UTF-8 bytes; an array is the type of its items
u32, their number u64 and the items. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

Not `gguf.GGUFReader`: it maps the file, takes seconds for a large vocabulary, and believes every length.
"""

import struct
from math import prod

import numpy as np
from gguf import GGMLQuantizationType

from engine.api.formats import LAYOUTS
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import shown
from engine.checkpoint.errors import (
    BadHeaderError,
    ByteOrderError,
    DuplicateTensorError,
    NotAModelError,
    OversizedHeaderError,
    TensorOffsetsError,
    UnknownTypeError,
)
from engine.checkpoint.files import SourceFile, require, require_name
from engine.checkpoint.stored import Stored, check_apart, check_shape

MAGIC = b"GGUF"
HEADER_LIMIT = 128 << 20  # the largest vocabularies take 20 MB
TENSOR_LIMIT = 1 << 20  # the largest mixtures of experts have some 100,000
WINDOW = 256 << 10
ITEM_TYPES: dict[GGUFValueType, np.dtype] = {
    GGUFValueType.UINT8: np.dtype("u1"),
    GGUFValueType.INT8: np.dtype("i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
    GGUFValueType.BOOL: np.dtype("?"),
}
NUMBERS = {kind.name: int(kind) for kind in GGMLQuantizationType} | {"Q2_0": 42}
"""ggml's number of each type (ggml.h, ggml_type); the library does not know the newest."""

_NAMES = {number: name for name, number in NUMBERS.items()}
_SIGNED_BYTES = [*range(128), *range(-128, 0)]


class Cursor:
    """Goes through a header of unknown length, window by window; never past the file or `HEADER_LIMIT`."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._window = b""
        self._start = 0  # offset of the window in the file
        self._at = 0  # position in the window

    @property
    def offset(self) -> int:
        return self._start + self._at

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes; `what` names them in an error."""
        if count > len(self._window) - self._at:
            self._advance(count, what)
        piece = self._window[self._at : self._at + count]
        self._at += count
        return piece

    def _advance(self, count: int, what: str) -> None:
        start = self.offset
        if start + count > HEADER_LIMIT:
            raise OversizedHeaderError(
                f"{self.file.path} claims {count:,} bytes for {what}: more than any header has."
            )
        if start + count > self.file.size:
            raise self.file.truncated(what, start + count)
        self._window = self.file.read(start, min(max(count, WINDOW), self.file.size - start), what)
        self._start, self._at = start, 0

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def string(self, what: str) -> str:
        # A piece of a word may be cut inside of a character; it must survive a round trip.
        return self.take(self.u64(what), what).decode("utf-8", "surrogateescape")

    def name(self, what: str) -> str:
        """A string that names something."""
        name = self.string(what)
        require_name(name, self.file.path)
        return name

    def strings(self, number: int, what: str) -> list[str]:
        """The next `number` strings; vocabularies have hundreds of thousands, hence the loop of its own."""
        items: list[str] = []
        length_at = struct.Struct("<Q").unpack_from
        while len(items) < number:
            window, at = self._window, self._at
            for _ in range(number - len(items)):
                start = at + 8
                if start > len(window) or (end := start + length_at(window, at)[0]) > len(window):
                    break
                items.append(window[start:end].decode("utf-8", "surrogateescape"))
                at = end
            self._at = at
            if len(items) < number:  # the next one crosses the end of the window
                items.append(self.string(what))
        return items

    def count(self, each: int, what: str) -> int:
        """A number of things of at least `each` bytes, refused if they cannot fit before memory is spent."""
        number = self.u64(what)
        if number * each > min(HEADER_LIMIT, self.file.size):
            raise OversizedHeaderError(
                f"{self.file.path} claims {number:,} {what} in {self.file.size:,} bytes: it is damaged."
            )
        return number


def read_header(file: SourceFile) -> tuple[dict[str, GgufValue], list[Stored]]:
    """Metadata and tensors in the order of the file. Raises a `CheckpointError` for a damaged file."""
    cursor = Cursor(file)
    cursor.take(4, "the header")
    version = cursor.u32("the header")
    if version & 0xFFFF == 0 and version:
        raise ByteOrderError(f"{file.path} is a big-endian GGUF, made for other machines; convert it first.")
    if version not in (2, 3):
        raise NotAModelError(f"{file.path} is GGUF version {version}; versions 2 and 3 are supported.")
    tensor_count = cursor.count(24, "tensors")
    if tensor_count > TENSOR_LIMIT:
        raise OversizedHeaderError(f"{file.path} claims {tensor_count:,} tensors: no model has so many.")
    value_count = cursor.count(13, "metadata values")
    metadata: dict[str, GgufValue] = {}
    for _ in range(value_count):
        key = cursor.name("a metadata key")
        require(key not in metadata, file.path, f"it has two values for {key!r}")
        metadata[key] = _value(cursor, key)
    infos = [_info(cursor) for _ in range(tensor_count)]
    return metadata, _place(file, cursor.offset, _alignment(file, metadata), infos)


def _value(cursor: Cursor, key: str) -> GgufValue:
    kind = _value_type(cursor, key)
    if kind != GGUFValueType.ARRAY:
        return GgufValue(kind, _scalar(cursor, kind, key))
    item = _value_type(cursor, key)
    if item == GGUFValueType.ARRAY:
        raise BadHeaderError(
            f"{cursor.file.path} has an array of arrays under {key!r}, which is not supported."
        )
    if item == GGUFValueType.STRING:
        number = cursor.count(8, f"strings under {key!r}")
        return GgufValue(kind, cursor.strings(number, key), item)
    dtype = ITEM_TYPES[item]
    number = cursor.count(dtype.itemsize, f"values under {key!r}")
    stored = cursor.take(number * dtype.itemsize, key)
    if item == GGUFValueType.INT8:  # one object for each value, not for each item
        return GgufValue(kind, [_SIGNED_BYTES[byte] for byte in stored], item)
    return GgufValue(kind, np.frombuffer(stored, dtype).tolist(), item)


def _value_type(cursor: Cursor, key: str) -> GGUFValueType:
    number = cursor.u32(key)
    if number not in list(GGUFValueType):
        raise BadHeaderError(f"{cursor.file.path} has a damaged header: {key!r} is of type {number}.")
    return GGUFValueType(number)


def _scalar(cursor: Cursor, kind: GGUFValueType, key: str) -> object:
    if kind == GGUFValueType.STRING:
        return cursor.string(key)
    dtype = ITEM_TYPES[kind]
    return np.frombuffer(cursor.take(dtype.itemsize, key), dtype)[0].item()


def _info(cursor: Cursor) -> tuple[str, tuple[int, ...], str, int]:
    """Name, shape in NumPy's order, type, and offset in the data of the next tensor."""
    name = cursor.name("a tensor's name")
    dimensions = cursor.u32(name)
    require(dimensions <= 4, cursor.file.path, f"{name!r} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions, name))[::-1]
    number = cursor.u32(name)
    kind = _NAMES.get(number)
    if kind not in LAYOUTS:
        raise UnknownTypeError(
            f"{cursor.file.path} stores {name} as GGML type {number}, which is not known, nor is its size; "
            "convert the original model with a current llama.cpp."
        )
    return name, shape, kind, cursor.u64(name)


def _alignment(file: SourceFile, metadata: dict[str, GgufValue]) -> int:
    alignment = metadata["general.alignment"].value if "general.alignment" in metadata else 32
    good = type(alignment) is int and 0 < alignment <= 1 << 20 and alignment & (alignment - 1) == 0
    require(good, file.path, f"an alignment of {shown(alignment)} is not a power of two")
    return alignment


def _place(
    file: SourceFile,
    header_end: int,
    alignment: int,
    infos: list[tuple[str, tuple[int, ...], str, int]],
) -> list[Stored]:
    data = -(-header_end // alignment) * alignment
    tensors = []
    names = set()
    for name, shape, kind, offset in infos:
        if name in names:
            raise DuplicateTensorError(f"{file.path} names {name!r} twice in its header.")
        names.add(name)
        layout = LAYOUTS[kind]
        if offset % alignment or not layout.fits(shape[-1] if shape else 1):
            raise TensorOffsetsError(
                f"{file.path} has a damaged header: {name} of type {kind} and shape {list(shape)} "
                f"at offset {offset:,} breaks the blocks of its type or the alignment."
            )
        size = prod(shape) // layout.block_values * layout.block_bytes
        if data + offset + size > file.size:
            raise file.truncated(name, data + offset + size)
        check_shape(file.path, name, shape)
        tensors.append(Stored(name, shape, kind, file, data + offset, size))
    check_apart(tensors, contiguous=False)
    return tensors
