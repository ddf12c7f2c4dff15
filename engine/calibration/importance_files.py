"""Files of importance matrices, in both of llama.cpp's formats; what a file is, its content says.

GGUF: `general.type` = "imatrix", `imatrix.datasets` (strings), `imatrix.chunk_count`, `imatrix.chunk_size`
(u32); for each tensor NAME `NAME.in_sum2` float32 [matrices, columns] and `NAME.counts` float32
[matrices, 1]. Other tensors are not read, as by llama.cpp.

The older one (.dat), all little-endian: number of entries i32; for each entry the length of its name i32, the
name, windows n i32, number of values i32, float32 values: n times the mean square of each column, the experts
of a stack one behind the other, and n in all columns of one that saw no token; then the number of windows
i32, and the length i32 and name of the text. The oldest files end behind the entries. The length of a window
is not told: 512 is llama-imatrix's default.
"""

import os
import struct
from contextlib import suppress
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from gguf.gguf_writer import WriterState

from engine.api.errors import CalibrationError, CheckpointError, OutputError
from engine.api.gguf import GgufValue
from engine.api.outputs import partial_path
from engine.api.wording import NAME_LIMIT, fits, named
from engine.calibration.importance import CHUNK, Entry, Importance
from engine.checkpoint.decoding import decode
from engine.checkpoint.errors import TruncatedError
from engine.checkpoint.files import SourceFile
from engine.checkpoint.gguf import MAGIC, read_header
from engine.jobs.errors import explained
from engine.jobs.partial import REPLACE
from engine.jobs.units import sync_folder

SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, CHUNKS, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
MOST_TOKENS = 1 << 62
"""No count is larger."""


def read_importance(path: Path) -> Importance:
    """The matrix in a file of either format.

    Raises `CheckpointError` where the file cannot be read, `CalibrationError` where it holds something else,
    or values that no text can give.
    """
    if not os.path.lexists(path):
        raise CalibrationError(
            f"{named(str(path))}: there is no such importance matrix; name a file in GGUF or .dat "
            "(`bitwright calibrate` makes one)."
        )
    file = SourceFile(path)
    try:
        is_gguf = file.read(0, min(4, file.size)) == MAGIC
        found = _read_gguf(file) if is_gguf else _read_older(file)
    finally:
        file.close()
    if not found.entries:
        raise CalibrationError(f"{path}: the importance matrix holds no tensor; make the file anew.")
    for name, entry in found.entries.items():
        _check(path, name, entry)
    return found


def is_importance(path: Path) -> bool:
    """Whether there is an importance matrix, by its content; in GGUF also where its values are not sound."""
    if not path.is_file():
        return False
    file = SourceFile(path)
    try:
        if file.read(0, min(4, file.size)) == MAGIC:
            kind = read_header(file)[0].get("general.type")
            return kind is not None and kind.value == "imatrix"
        return bool(_read_older(file).entries)
    except (CalibrationError, CheckpointError):
        return False
    finally:
        file.close()


def write_importance(path: Path, importance: Importance, *, overwrite: bool) -> int:
    """Write the matrix into `path`: the older format for a name in .dat, else GGUF. The answer is its bytes.

    Under a partial name first, read back and compared; a file of the same content that has the name already
    stays. Raises `OutputError`.
    """
    content = _older_bytes(importance) if path.suffix.lower() == ".dat" else _gguf_bytes(importance)
    partial = partial_path(path)
    with explained(path):
        if not overwrite and path.exists():
            if path.read_bytes() == content:
                return len(content)
            raise OutputError(f"{path}: exists already; {REPLACE}.")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if partial.read_bytes() != content or read_importance(partial).entries.keys() != (
                importance.entries.keys()
            ):
                raise OutputError(f"{path}: what was read back is not what was written; check the disk.")
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(path.parent)
    return len(content)


def losses(path: Path, importance: Importance) -> list[str]:
    """A sentence for what a file of this name cannot hold of the matrix."""
    if path.suffix.lower() != ".dat":
        return []
    lost = []
    if len(importance.datasets) > 1:
        lost.append(f"all names of its {len(importance.datasets)} texts, only the last one's")
    if importance.chunk_size != CHUNK:
        lost.append(f"that windows have {importance.chunk_size} tokens ({CHUNK} is assumed)")
    if any(len(entry.counts) > 1 for entry in importance.entries.values()):
        lost.append("how many tokens each expert saw")
    told = ", nor ".join(lost)
    return [f"{path}: the older format (.dat) does not keep {told}; GGUF does"] if lost else []


def _check(path: Path, name: str, entry: Entry) -> None:
    if not entry.sums.size:
        raise CalibrationError(f"{path}: {name} has no sums; make the file anew.")
    if not (np.isfinite(entry.sums).all() and (entry.sums >= 0).all() and (entry.counts >= 0).all()):
        raise CalibrationError(
            f"{path}: {name} holds negative or not finite values; make the file anew, with another text or "
            "from the original model."
        )


def _read_gguf(file: SourceFile) -> Importance:
    metadata, stored = read_header(file)
    kind = metadata.get("general.type")
    if kind is None or kind.value != "imatrix":
        raise CalibrationError(f"{file.path}: is a GGUF file, but no importance matrix.")
    arrays = {
        tensor.name: decode(file, tensor.offset, prod(tensor.shape), tensor.dtype, tensor.name).reshape(
            tensor.shape
        )
        for tensor in stored
        if tensor.name.endswith((SUMS, COUNTS))
    }
    names = [name.removesuffix(SUMS) for name in arrays if name.endswith(SUMS)]
    datasets = metadata.get(DATASETS)
    texts = datasets.value if datasets is not None and isinstance(datasets.value, list) else []
    return Importance(
        {name: _gguf_entry(file.path, name, arrays) for name in names},
        [text for text in texts if isinstance(text, str) and fits(text)],
        _number(metadata, CHUNKS, 0),
        _number(metadata, CHUNK_SIZE, CHUNK),
    )


def _number(metadata: dict[str, GgufValue], key: str, default: int) -> int:
    value = metadata[key].value if key in metadata else default
    return value if type(value) is int and value >= 0 else default


def _gguf_entry(path: Path, name: str, arrays: dict[str, np.ndarray]) -> Entry:
    if name + COUNTS not in arrays:
        raise CalibrationError(f"{path}: {name} has sums but no counts; the file is incomplete.")
    sums = arrays[name + SUMS]
    sums = sums.reshape(-1, sums.shape[-1] if sums.shape else 1) if sums.size else np.zeros((1, 0), "f4")
    counts = arrays[name + COUNTS].reshape(-1)
    if len(counts) == 1:  # of a stack that every token passes
        counts = np.repeat(counts, len(sums))
    if len(counts) != len(sums):
        raise CalibrationError(f"{path}: {name} has {len(sums)} rows of sums and {len(counts)} counts.")
    if not (np.isfinite(counts).all() and (np.abs(counts) < MOST_TOKENS).all()):
        raise CalibrationError(f"{path}: {name} has counts that are not finite; make the file anew.")
    return Entry(sums, np.rint(counts).astype(np.int64))


class _Cursor:
    """Goes through a file of the older format."""

    def __init__(self, file: SourceFile) -> None:
        self.file, self.at = file, 0

    @property
    def left(self) -> int:
        return self.file.size - self.at

    def take(self, count: int, what: str) -> bytes:
        self.at += count
        return self.file.read(self.at - count, count, what)

    def i32(self, what: str) -> int:
        return int(struct.unpack("<i", self.take(4, what))[0])


def _read_older(file: SourceFile) -> Importance:
    cursor = _Cursor(file)
    entries: dict[str, Entry] = {}
    name, chunks, datasets = "", 0, []
    try:
        count = cursor.i32("the number of entries")
        if count < 1:
            raise _not_one(file)
        for _ in range(count):
            name = _name(cursor, "an entry's name")
            calls, values = cursor.i32(name), cursor.i32(name)
            if name in entries or values < 1 or calls < 0:
                raise _not_one(file)
            means = np.frombuffer(cursor.take(4 * values, name), "<f4")[None]
            with np.errstate(over="ignore", invalid="ignore"):  # `_check` finds what is not finite
                entries[name] = Entry(means * np.float32(CHUNK), np.array([max(calls, 1) * CHUNK]))
        if cursor.left:
            chunks = cursor.i32("the number of windows")
        if cursor.left:
            datasets = _text_name(cursor)
    except TruncatedError:
        if entries or name.endswith(".weight"):  # plainly one of these, cut off
            raise
        raise _not_one(file) from None
    return Importance(entries, datasets, max(0, chunks))


def _text_name(cursor: _Cursor) -> list[str]:
    """The text's name where a line can hold it: the sums are as good without."""
    what = "the name of the text"
    length = cursor.i32(what)
    if length < 0:
        raise _not_one(cursor.file)
    name = cursor.take(length, what).decode("utf-8", "replace").rstrip("\0")
    return [name] if name and fits(name) else []


def _name(cursor: _Cursor, what: str) -> str:
    length = cursor.i32(what)
    if not 1 <= length <= 4 * NAME_LIMIT:
        raise _not_one(cursor.file)
    name = cursor.take(length, what).decode("utf-8", "replace").rstrip("\0")
    if not fits(name):
        raise _not_one(cursor.file)
    return name


def _not_one(file: SourceFile) -> CalibrationError:
    return CalibrationError(
        f"{file.path}: is not an importance matrix, neither in GGUF nor in llama.cpp's older format (.dat) "
        "(`bitwright calibrate` makes one)."
    )


def _gguf_bytes(importance: Importance) -> bytes:
    writer = GGUFWriter(None, "imatrix")
    writer.kv_data[0].clear()  # llama-imatrix names no architecture
    writer.add_type("imatrix")
    writer.add_array(DATASETS, importance.datasets or [""])
    writer.add_uint32(CHUNKS, importance.chunks)
    writer.add_uint32(CHUNK_SIZE, importance.chunk_size)
    tensors: dict[str, np.ndarray] = {}
    for name, entry in sorted(importance.entries.items()):
        tensors[name + SUMS] = np.ascontiguousarray(entry.sums, "<f4")
        tensors[name + COUNTS] = entry.counts.astype("<f4")[:, None]
    for name, values in tensors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    buffer = BytesIO()
    writer.fout, writer.state = [buffer], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data in (b"", *(values.tobytes() for values in tensors.values())):
        buffer.write(data)
        writer.write_padding(buffer, buffer.tell())
    return buffer.getvalue()


def _older_bytes(importance: Importance) -> bytes:
    """A matrix that saw no token has the value of its windows in all columns, as llama-imatrix writes it."""
    size = importance.chunk_size
    parts = [struct.pack("<i", len(importance.entries))]
    for name, entry in sorted(importance.entries.items()):
        calls = max(1, -(-int(entry.counts.max()) // size))  # not 0 for less than a window
        means = (entry.means() * np.float32(calls)).astype("<f4")
        text = name.encode()
        parts += [struct.pack("<i", len(text)), text, struct.pack("<ii", calls, means.size), means.tobytes()]
    text = (importance.datasets[-1] if importance.datasets else "").encode()
    parts += [struct.pack("<ii", importance.chunks, len(text)), text]
    return b"".join(parts)
