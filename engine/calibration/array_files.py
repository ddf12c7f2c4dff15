"""Named arrays and a text in one file, laid out as safetensors: what is gathered, on the disk.

The text is the entry "about" of the header's `__metadata__`. Wide types lie before narrow ones, so that every
array begins at a multiple of its item's size.
"""

import filecmp
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.api.errors import CalibrationError, OutputError
from engine.api.outputs import partial_path
from engine.checkpoint.files import SourceFile
from engine.checkpoint.safetensors import looks_like, read_about, read_header
from engine.jobs.errors import explained
from engine.jobs.partial import REPLACE
from engine.jobs.units import sync_folder

TYPES = {"F64": "<f8", "I64": "<i8", "U64": "<u8", "F32": "<f4"}
NAMES = {np.dtype(numpy): name for name, numpy in TYPES.items()}


@dataclass(frozen=True)
class Stored:
    """An array of a file, which is read when it is asked for."""

    file: SourceFile
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def fits(self, dtype: str, shape: tuple[int | None, ...]) -> bool:
        """Whether it is of that type ("F64") and shape, where None stands for any number."""
        same = len(shape) == len(self.shape) and all(
            a in (None, b) for a, b in zip(shape, self.shape, strict=True)
        )
        return same and self.dtype == np.dtype(TYPES[dtype])

    def read(self) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        self.file.read_array(self.offset, array, "an array")
        return array


Array = np.ndarray | Stored


class ArrayFile:
    """A file of arrays, open until it is closed. Raises `CheckpointError`s for a damaged one."""

    def __init__(self, path: Path) -> None:
        self.file = SourceFile(path)
        if not looks_like(self.file.read(0, min(9, self.file.size))):
            raise CalibrationError(
                f"{path}: is no file of activations; name one that `bitwright stats` wrote."
            )
        self.arrays: dict[str, Stored] = {}
        for tensor in read_header(self.file):
            if tensor.dtype not in TYPES:
                raise CalibrationError(f"{path}: {tensor.name} is of type {tensor.dtype}; make it anew.")
            dtype = np.dtype(TYPES[tensor.dtype])
            self.arrays[tensor.name] = Stored(self.file, tensor.offset, dtype, tensor.shape)
        self.about = read_about(self.file).get("about", "")

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_arrays(path: Path, about: str, arrays: dict[str, Array], *, overwrite: bool) -> int:
    """Write a file, under a partial name first, and read its header back. The answer is its bytes.

    A file of the same content may have the name already. Raises `OutputError`.
    """
    partial = partial_path(path)
    size, pieces = packed(about, arrays)
    with explained(path):
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            with ArrayFile(partial) as written:
                if written.about != about or written.file.size != size:
                    raise OutputError(f"{path}: what was read back is not what was written; check the disk.")
            if not overwrite and path.exists() and not filecmp.cmp(partial, path, shallow=False):
                raise OutputError(f"{path}: exists already; {REPLACE}.")
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(path.parent)
    return size


def packed(about: str, arrays: dict[str, Array]) -> tuple[int, Iterator[memoryview]]:
    """The bytes of a file, and how many they are; stored arrays are read one by one as they come."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    entries: dict[str, object] = {"__metadata__": {"about": about}}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        dtype = NAMES[np.dtype(array.dtype)]
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return 8 + len(header) + end, _pieces(header, [array for _, array in ordered])


def _pieces(header: bytes, arrays: Iterable[Array]) -> Iterator[memoryview]:
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for array in arrays:
        values = array.read() if isinstance(array, Stored) else array
        yield np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
