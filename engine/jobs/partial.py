"""The output while it is being written: `NAME.partial`, filled at known offsets, renamed when verified."""

import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from engine.api.errors import OutputError

PIECE = 8 << 20

REPLACE = "choose another name, or replace it (--overwrite)"
"""What to do about an output that exists, in words that hold in the window and on the command line."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(_sentence(error, path)) from None


def _sentence(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{path}: the disk is full; free some space, then resume the job."
        case errno.EFBIG:
            return (
                f"{path}: the file would pass this system's limit on file sizes; raise the limit (ulimit -f)."
            )
        case errno.EACCES | errno.EPERM:
            return f"{path}: no permission to write there; choose another folder or change its permissions."
        case errno.EROFS:
            return f"{path}: the disk is mounted read-only; choose another folder."
        case errno.ENOENT | errno.ENOTDIR:
            return f"{path}: the folder {path.parent} does not exist; make it first."
        case errno.ENAMETOOLONG:
            return f"{path}: the name is too long for this disk; choose a shorter one."
        case errno.EISDIR:
            return f"{path}: is a folder; give the name of a file."
        case _:
            return f"{path}: cannot be written: {error.strerror}."


def check_output(
    output: Path,
    size: int,
    sources: list[Path],
    overwrite: bool,
    remedy: str = REPLACE,
) -> None:
    """Refuse an output that cannot or must not be written, before any work.

    `size` in bytes; `sources` are the files read; `remedy`: what to do if it exists. Raises `OutputError`.
    """
    check_place(output, sources, overwrite, remedy)
    check_room(output, size)


def check_room(output: Path, size: int) -> int:
    """The bytes that are free for `output`, a part of it that is there already included; at least `size`."""
    with explained(output):
        partial = partial_path(output)
        there = partial.stat().st_blocks * 512 if partial.exists() else 0
        free = shutil.disk_usage(output.parent).free + there
    if free < size:
        raise OutputError(
            f"{output}: needs {size:,} bytes, but {output.parent} has {free:,} free; free some space first."
        )
    return free


def check_place(output: Path, sources: list[Path], overwrite: bool, remedy: str = REPLACE) -> None:
    """The half of `check_output` that is not about room."""
    with explained(output):
        _check_place(output, sources, overwrite, remedy)


def _check_place(output: Path, sources: list[Path], overwrite: bool, remedy: str) -> None:
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; give the name of a file, such as {output / 'model.gguf'}.")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: the folder {output.parent} does not exist; make it first.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission")
    for path in (output, partial_path(output)):
        if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
            raise OutputError(f"{path}: is the input itself; choose another name for the output.")
    if output.exists():
        if not output.is_file():
            raise OutputError(f"{output}: is not a plain file; choose another name for the output.")
        if not overwrite:
            raise OutputError(f"{output}: exists already; {remedy}.")


def partial_path(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


class PartialFile:
    """`NAME.partial` of `size` bytes. One process at a time; `fresh` discards what an earlier one left."""

    def __init__(self, output: Path, size: int, *, fresh: bool) -> None:
        self.output = output
        self.path = partial_path(output)
        self._claim = _claim(output)
        try:
            with explained(self.path):
                self._file = open_partial(self.path, fresh)
                try:
                    os.posix_fallocate(self._file, 0, size)  # a full disk shows here, not after hours
                    os.ftruncate(self._file, size)
                except OSError:
                    os.close(self._file)
                    if fresh:
                        self.path.unlink()
                    raise
        except OutputError:
            self._claim.release()
            raise

    def write(self, data: memoryview, offset: int) -> None:
        """All of `data` (bytes) at `offset`."""
        with explained(self.output):
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Return when everything written is on disk."""
        with explained(self.output):
            os.fsync(self._file)

    def checksum(self, offset: int, size: int) -> int:
        """CRC-32 of `size` bytes at `offset`, as they stand in the file."""
        return checksum(self._file, offset, size)

    def publish(self) -> None:
        """Give the file its final name."""
        self.sync()
        with explained(self.output):
            self.path.replace(self.output)
            sync_folder(self.output.parent)
        self.close()

    def discard(self) -> None:
        """Remove the file: nothing in it is worth resuming."""
        self.path.unlink(missing_ok=True)  # before the claim ends: the next file of this name is another's
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._claim.release()


def open_partial(path: Path, fresh: bool) -> int:
    """A descriptor of `path`, made if need be, emptied if `fresh`."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if fresh else 0), 0o666)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(descriptor: int, offset: int, size: int) -> int:
    """CRC-32 of `size` bytes at `offset` of an open file."""
    crc = 0
    for start in range(offset, offset + size, PIECE):
        crc = zlib.crc32(os.pread(descriptor, min(PIECE, offset + size - start), start), crc)
    return crc


def _claim(output: Path) -> FileLock:
    """The right to write `output`, held until released or the process ends."""
    folder = user_state_path("bitwright") / "locks"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:32]
        claim = FileLock(folder / f"{name}.lock")
        try:
            claim.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"{output}: another job is writing it; choose another name.") from None
    return claim
