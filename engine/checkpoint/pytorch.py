"""Reads a pytorch_model.bin: the zip archive that `torch.save` writes since version 1.6.

The archive holds a pickle (`*/data.pkl`) that describes the tensors, and one uncompressed record per storage
(`*/data/KEY`), read later by `pread`. The pickle is hostile until proven otherwise: it is scanned first, and
then only the names in `_allowed` exist for it, all of them ours, so nothing of its choosing is ever called.
`torch.load` would take seconds to import and the memory of the whole model.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from engine.checkpoint.errors import (
    BadHeaderError,
    ByteOrderError,
    NotAModelError,
    OversizedHeaderError,
    TensorOffsetsError,
    UnsafePickleError,
)
from engine.checkpoint.files import SourceFile, require
from engine.checkpoint.stored import PLAIN_BITS, Stored, plain_bytes

ZIP_MAGIC = b"PK\x03\x04"
HEADER_LIMIT = 100_000_000
WRAPPERS = ("state_dict", "model", "module")  # keys under which trainers put the weights

STORAGE_TYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
TORCH_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "int8": "I8",
}


@dataclass(frozen=True)
class _Type:
    name: str | None  # None: a storage without a type


@dataclass(frozen=True)
class _Storage:
    dtype: str | None
    key: str


@dataclass(frozen=True)
class _View:
    """A tensor as the pickle describes it: `start` and `stride` in values."""

    dtype: str
    key: str
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: _Storage, start: int, shape: Any, stride: Any, *rest: Any) -> _View:
    """Stands for `torch._utils._rebuild_tensor_v2`, and for `_v3` where the type is the third of `rest`."""
    dtype = storage.dtype or rest[2].name
    sizes = (start, *shape, *stride)
    if dtype not in PLAIN_BITS or not all(type(size) is int and size >= 0 for size in sizes):
        raise pickle.UnpicklingError("a tensor has an impossible type, shape or stride")
    return _View(dtype, storage.key, start, tuple(shape), tuple(stride))


def _parameter(data: _View, *_: Any) -> _View:
    """Stands for `torch._utils._rebuild_parameter`."""
    return data


_allowed: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_tensor_v3"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "UntypedStorage"): _Type(None),
    **{("torch", name): _Type(dtype) for name, dtype in STORAGE_TYPES.items()},
    **{("torch", name): _Type(dtype) for name, dtype in TORCH_TYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _allowed:
            raise UnsafePickleError(f"{module}.{name}")
        return _allowed[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        _, kind, key, _, _ = identifier
        return _Storage(kind.name, key)


def read_header(file: SourceFile) -> list[Stored]:
    """The tensors of the file. Raises a `CheckpointError` for a damaged or unsafe file."""
    records = _records(file)
    pickled = next((name for name in records if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise NotAModelError(f"{file.path} is a zip archive without PyTorch tensors.")
    prefix = pickled.removesuffix("data.pkl")
    order = (
        _record_bytes(file, records, f"{prefix}byteorder") if f"{prefix}byteorder" in records else b"little"
    )
    if order != b"little":
        raise ByteOrderError(
            f"{file.path} was saved on a big-endian machine; convert it to safetensors first."
        )
    content = _unpickle(file, _record_bytes(file, records, pickled))
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    views = {}
    if isinstance(content, dict):
        views = {
            name: view for name, view in content.items() if isinstance(view, _View) and isinstance(name, str)
        }
    if not views:
        raise NotAModelError(f"{file.path} holds no dictionary of tensors (a state dict).")
    return [_stored(file, records, f"{prefix}data/", name, view) for name, view in views.items()]


class _ZipView(io.RawIOBase):
    """What `zipfile` needs of a file, by way of `SourceFile.read`."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._file.size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        count = left if size < 0 else min(size, left)
        if count > HEADER_LIMIT:  # the list of records may claim to be the whole file
            raise OversizedHeaderError(f"{self._file.path} claims a list of records of {count:,} bytes.")
        data = self._file.read(self._at, count)
        self._at += len(data)
        return data


def _records(file: SourceFile) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_ZipView(file)) as archive:
            return {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise BadHeaderError(
            f"{file.path} is a damaged or truncated zip archive; download it again."
        ) from error


def _record_offset(file: SourceFile, record: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed record start; its local header has a length of its own."""
    require(record.compress_type == zipfile.ZIP_STORED, file.path, f"{record.filename} is compressed")
    local = file.read(record.header_offset, 30, record.filename)
    require(local[:4] == ZIP_MAGIC, file.path, f"{record.filename} is not where the archive says")
    name, extra = struct.unpack("<HH", local[26:30])
    offset = record.header_offset + 30 + name + extra
    if offset + record.file_size > file.size:
        raise file.truncated(record.filename, offset + record.file_size)
    return offset


def _record_bytes(file: SourceFile, records: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    record = records[name]
    if record.file_size > HEADER_LIMIT:
        raise OversizedHeaderError(
            f"{file.path} claims {record.file_size:,} bytes for {name}; it is damaged."
        )
    return file.read(_record_offset(file, record), record.file_size, name)


def _unpickle(file: SourceFile, data: bytes) -> object:
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # The memo is an array that grows to the largest index, so a few bytes could claim all memory.
            if opcode.name.endswith("PUT") and int(str(argument)) > len(data):
                raise pickle.UnpicklingError("an impossible memo index")
        return _Unpickler(io.BytesIO(data)).load()
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{file.path} asks to call {error} while it is read, which weights have no need of; nothing was "
            "executed. Ask its author for safetensors."
        ) from error
    except Exception as error:  # a hostile pickle can make the loader raise anything
        raise BadHeaderError(f"{file.path} has a damaged description of its tensors: {error}.") from error


def _stored(
    file: SourceFile, records: dict[str, zipfile.ZipInfo], prefix: str, name: str, view: _View
) -> Stored:
    size = plain_bytes(view.dtype, view.shape)
    record = records.get(f"{prefix}{view.key}")
    require(record is not None and size is not None, file.path, f"the record of {name} is missing")
    assert record is not None
    assert size is not None
    if size and not _contiguous(view):
        raise NotAModelError(
            f"{file.path} stores {name} as a transposed or strided view, which is not supported; "
            "save the model as safetensors."
        )
    start = view.start * PLAIN_BITS[view.dtype] // 8
    if start + size > record.file_size:
        raise TensorOffsetsError(f"{file.path} has a damaged header: {name} reaches beyond its storage.")
    return Stored(name, view.shape, view.dtype, file, _record_offset(file, record) + start, size)


def _contiguous(view: _View) -> bool:
    expected = 1
    if len(view.stride) != len(view.shape):
        return False
    for size, stride in zip(reversed(view.shape), reversed(view.stride), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
