"""Plain files read by `pread`: nothing is mapped, nothing is kept, and every read is checked to be full."""

import json
import os
import stat
import weakref
from pathlib import Path

import numpy as np

from engine.api.wording import fits, shown
from engine.checkpoint.errors import (
    BadHeaderError,
    ConfigError,
    MissingPathError,
    TruncatedError,
    UnreadableError,
)

JSON_LIMIT = 64 << 20  # the index of a 671B model has 9 MB, a tokenizer.json of 262k tokens 33 MB


def unreadable(path: Path, error: OSError) -> MissingPathError | UnreadableError:
    """The sentence for a failed system call on `path`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if path.is_symlink():
            return MissingPathError(f"{path} links to {path.readlink()}, which does not exist.")
        return MissingPathError(
            f"{path} does not exist; name a model folder or file on this machine "
            "(a model on a hub must be downloaded first)."
        )
    if isinstance(error, PermissionError):
        return UnreadableError(f"{path} cannot be opened: no permission to read it.")
    return UnreadableError(f"{path} cannot be read: {error.strerror or error}.")


class SourceFile:
    """An open file of known size; `bytes_read` counts. Closed at the latest with its last reference.

    `stamp`: what tells it from any other file, and from itself before it was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        try:
            # Before the open: opening a pipe would wait for its writer.
            if not stat.S_ISREG(path.stat().st_mode):
                kind = "a folder" if path.is_dir() else "not a plain file"
                raise UnreadableError(f"{path} is {kind}, where a file was expected.")
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):  # a NUL in the path
                raise MissingPathError(f"{str(path)!r} is not a path.") from error
            raise unreadable(path, error) from error
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        found = os.fstat(self._descriptor)
        self.size = found.st_size
        self.size_and_time = found.st_size, found.st_mtime_ns
        self.stamp = (found.st_dev, found.st_ino, *self.size_and_time, found.st_ctime_ns)

    def close(self) -> None:
        self._finalizer()
        self._descriptor = -1

    def read(self, offset: int, count: int, what: str = "the header") -> bytes:
        """Exactly `count` bytes at `offset`; `what` names them should the file end before."""
        if offset + count > self.size:
            raise self.truncated(what, offset + count)
        buffer = bytearray(count)
        self.read_into(offset, memoryview(buffer), what)
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview, what: str) -> None:
        """Fills `buffer` (bytes) from `offset`, in several calls if need be: one gives at most 2 GiB."""
        if self._descriptor < 0:  # its number may be another file's by now
            raise ValueError(f"{self.path} was closed")
        while buffer:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if count == 0:
                raise self.truncated(what, offset + len(buffer))
            self.bytes_read += count
            offset += count
            buffer = buffer[count:]

    def read_array(self, offset: int, array: np.ndarray, what: str) -> None:
        """Fills a C-contiguous array with the bytes at `offset`."""
        if array.size:
            self.read_into(offset, array.reshape(-1).view(np.uint8).data, what)

    def truncated(self, what: str, needed: int) -> TruncatedError:
        return TruncatedError(
            f"{self.path} ends too early: {what} needs {needed:,} bytes and the file has {self.size:,}; "
            "download or copy it again."
        )


def read_json(path: Path) -> tuple[dict, int]:
    """The JSON object in `path` and the number of bytes read. Raises a `CheckpointError` if there is none."""
    file = SourceFile(path)
    if file.size > JSON_LIMIT:
        raise ConfigError(f"{path} has {file.size:,} bytes; no file of its kind is so large.")
    text = file.read(0, file.size, "the text")
    file.close()
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not JSON from line {error.lineno}, column {error.colno} on; download it again."
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, deep nesting
        raise ConfigError(f"{path} is not JSON that can be read; download it again.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a JSON object; download it again.")
    return content, file.bytes_read


def require(condition: bool, path: Path, problem: str) -> None:
    """Raises `BadHeaderError` naming the file unless `condition` holds."""
    if not condition:
        raise BadHeaderError(f"{path} has a damaged header: {problem}.")


def require_name(name: str, path: Path) -> None:
    """Raises `BadHeaderError` unless `name` can be shown: it will stand in tables, messages and logs."""
    require(fits(name), path, f"the name {shown(name)} is too long, or holds what cannot be shown")
