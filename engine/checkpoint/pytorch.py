"""Reads a pytorch_model.bin: the zip archive that `torch.save` writes since version 1.6.

The archive holds a pickle (`*/data.pkl`) that describes the tensors, and one uncompressed record per storage
(`*/data/KEY`), read later by `pread`. The pickle is hostile until proven otherwise: `pickled` reads it, and
only the names in `_NAMES` exist for it, all of them ours, so nothing of its choosing is ever called.
`torch.load` would take seconds to import and the memory of the whole model.
"""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

from engine.api.wording import named
from engine.checkpoint.errors import (
    BadHeaderError,
    ByteOrderError,
    NotAModelError,
    OversizedHeaderError,
    TensorOffsetsError,
    UnsafePickleError,
)
from engine.checkpoint.files import SourceFile, require, require_name
from engine.checkpoint.pickled import Function, PickleError, Reference, UnknownNameError, load
from engine.checkpoint.stored import PLAIN_BITS, Stored, check_shape, plain_bytes

ZIP_MAGIC = b"PK\x03\x04"
HEADER_LIMIT = 32 << 20  # what describes the experts of the largest models takes 20 MB
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


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as the pickle describes it: `start` and `stride` in values."""

    dtype: str
    key: str
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: Any = None, start: Any = None, shape: Any = None, stride: Any = None, *rest: Any) -> _View:
    """Stands for `torch._utils._rebuild_tensor_v2`, and for `_v3` where the type is the third of `rest`."""
    match storage:
        case Reference((_, _Type(dtype), str(key), _, _)):
            pass
        case _:
            raise PickleError("a tensor in it has no storage")
    if dtype is None and len(rest) > 2 and isinstance(rest[2], _Type):
        dtype = rest[2].name
    sizes = (start, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else ()
    possible = sizes and all(type(size) is int and 0 <= size < 1 << 63 for size in sizes)
    if dtype not in PLAIN_BITS or not possible:
        raise PickleError("a tensor in it has an impossible type, shape or stride")
    return _View(dtype, key, start, shape, stride)


def _parameter(data: Any = None, *_: Any) -> Any:
    """Stands for `torch._utils._rebuild_parameter`."""
    return data


def _dictionary(*_: Any) -> dict:
    """Stands for `collections.OrderedDict`, which is filled later."""
    return {}


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Function(_dictionary),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_view),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_view),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("torch.storage", "UntypedStorage"): _Type(None),
    **{("torch", name): _Type(dtype) for name, dtype in STORAGE_TYPES.items()},
    **{("torch", name): _Type(dtype) for name, dtype in TORCH_TYPES.items()},
}


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
    name = named(record.filename)
    require(record.compress_type == zipfile.ZIP_STORED, file.path, f"{name} is compressed")
    local = file.read(record.header_offset, 30, name)
    require(local[:4] == ZIP_MAGIC, file.path, f"{name} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    offset = record.header_offset + 30 + name_length + extra_length
    if offset + record.file_size > file.size:
        raise file.truncated(name, offset + record.file_size)
    return offset


def _record_bytes(file: SourceFile, records: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    record = records[name]
    if record.file_size > HEADER_LIMIT:
        raise OversizedHeaderError(
            f"{file.path} claims {record.file_size:,} bytes for {named(name)}; it is damaged."
        )
    return file.read(_record_offset(file, record), record.file_size, named(name))


def _unpickle(file: SourceFile, data: bytes) -> Any:
    try:
        return load(data, _NAMES)
    except UnknownNameError as error:
        raise UnsafePickleError(
            f"{file.path} asks to call {named(str(error))} while it is read, which weights have no need of; "
            "nothing was executed. Ask its author for safetensors."
        ) from error
    except PickleError as error:
        raise BadHeaderError(f"{file.path} has a damaged description of its tensors: {error}.") from error


def _stored(
    file: SourceFile, records: dict[str, zipfile.ZipInfo], prefix: str, name: str, view: _View
) -> Stored:
    require_name(name, file.path)
    check_shape(file.path, name, view.shape)
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
