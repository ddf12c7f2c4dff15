"""A file that units of work fill at known offsets, with the journal that says which of them are done.

The order makes it safe against a kill and a power loss alike: bytes into the file, fsync, then the journal's
line, fsync. A unit without a line is done again; one whose bytes are not those of its line, too.
"""

import errno
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.api.errors import OutputError
from engine.api.jobs import Saved
from engine.api.progress import Listener, Progress, silent
from engine.jobs.errors import explained, explained_job
from engine.jobs.journal import Journal, Unit

PIECE = 1 << 20
"""Bytes read at a time for a checksum."""


class UnitFile:
    """`path` of `size` bytes, reserved on the disk at once. `fresh` discards what an earlier run left there.

    `name` is what the journal calls it (see `Unit.file`). Every method raises `OutputError` where the disk
    does not do what is asked.
    """

    def __init__(self, path: Path, size: int, journal: Journal, name: str, *, fresh: bool = False) -> None:
        self.path, self.journal, self.name = path, journal, name
        self._pending: list[Unit] = []
        with explained(path):
            new = fresh or not path.exists()
            self._file = open_file(path, fresh)
            try:
                os.posix_fallocate(self._file, 0, size)  # a full disk shows here, not after hours
                os.ftruncate(self._file, size)
                sync_folder(path.parent)
            except OSError:
                os.close(self._file)
                if new:  # what it took of the disk is needed to say so
                    path.unlink(missing_ok=True)
                raise
            self._identity = _identity(os.fstat(self._file))

    def write(self, unit: str, offset: int, pieces: Iterable[memoryview]) -> int:
        """`pieces` (bytes) one behind the other from `offset`. They count with the next `commit`.

        The answer is their CRC-32.
        """
        crc, size = 0, 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            with explained(self.path):
                _write_at(self._file, piece, offset + size)
            size += len(piece)
        self._pending.append(Unit(unit=unit, file=self.name, offset=offset, bytes=size, crc32=crc))
        return crc

    def commit(self, saved: Saved | None = None) -> None:
        """Make what was written durable and note it. `saved`: how much of the job is done by that."""
        if not self._pending:
            return
        self.check_in_place()
        self.sync()
        self._pending[-1].saved = saved
        with explained_job(self.journal.path.parent):
            self.journal.append(self._pending)
        self._pending = []

    def finished(self, places: Mapping[str, tuple[int, int]], listener: Listener = silent) -> dict[str, Unit]:
        """The journal's units of this file that lie where `places` (offset, bytes) puts them, whole.

        The bytes are read and compared: a damaged journal's or file's units count as not done.
        """
        noted = planned(self.journal, self.name, places)
        done, total, found = 0, sum(unit.bytes for unit in noted.values()), {}
        for name, unit in noted.items():
            listener(Progress("check finished", done, total, "bytes", name))
            if self._holds(unit):
                found[name] = unit
            done += unit.bytes
        return found

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (bytes) from `offset`, which was written before."""
        with explained(self.path):
            while buffer:
                count = os.preadv(self._file, [buffer], offset)
                if count == 0:
                    raise OutputError(f"{self.path} was cut short by someone; resume the job to mend it.")
                buffer, offset = buffer[count:], offset + count

    def sync(self) -> None:
        """Return when everything written is on disk."""
        with explained(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _holds(self, unit: Unit) -> bool:
        with explained(self.path):
            return checksum(self._file, unit.offset, unit.bytes) == unit.crc32

    def check_in_place(self) -> None:
        """What is written into a file that was moved or deleted would be lost with a cheerful word."""
        try:
            there = _identity(self.path.stat()) == self._identity
        except OSError:
            there = False
        if not there:
            raise OutputError(
                f"{self.path} was moved, deleted or replaced while it was being written; "
                "put it back, or just resume the job: what is missing is made again."
            )


def planned(journal: Journal, file: str, places: Mapping[str, tuple[int, int]]) -> dict[str, Unit]:
    """The journal's units of `file` that lie where `places` puts them; their bytes are not looked at."""
    units = journal.units()
    return {
        name: units[name]
        for name, place in places.items()
        if name in units and units[name].file == file and (units[name].offset, units[name].bytes) == place
    }


def open_file(path: Path, fresh: bool) -> int:
    """A descriptor of `path`, made if need be, emptied if `fresh`."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if fresh else 0), 0o666)


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` durable, where its file system knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # names can be made in a folder that must not be read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, for the user alone; they outlive a power loss."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def checksum(descriptor: int, offset: int, size: int) -> int:
    """CRC-32 of `size` bytes at `offset` of an open file."""
    crc = 0
    for start in range(offset, offset + size, PIECE):
        crc = zlib.crc32(os.pread(descriptor, min(PIECE, offset + size - start), start), crc)
    return crc


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
