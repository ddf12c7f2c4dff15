"""The output while it is being written: `NAME.partial`, filled at known offsets, renamed when verified."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from engine.api.errors import OutputError
from engine.api.outputs import partial_path, partials_of
from engine.jobs.errors import explained
from engine.jobs.journal import Journal
from engine.jobs.units import UnitFile, make_folder, sync_folder

REPLACE = "choose another name, or replace what is there (--overwrite)"
"""What to do about an output that exists, in words that hold in the window and on the command line."""


def check_room(output: Path, size: int) -> int:
    """The bytes that are free for `output`, a part of it that is there already included; at least `size`."""
    with explained(output):
        there = sum(partial.stat().st_blocks * 512 for partial in partials_of(output))
        free = shutil.disk_usage(_nearest(output.parent)).free + there
    if free < size:
        raise OutputError(
            f"{output}: needs {size:,} bytes, but {output.parent} has {free:,} free; free some space first."
        )
    return free


def check_place(
    output: Path,
    sources: list[Path],
    overwrite: bool,
    remedy: str = REPLACE,
    *,
    make_folders: bool = False,
) -> None:
    """Refuse a file that cannot or must not be written, before any work.

    `sources` are the files read; `remedy`: what to do if it exists. `make_folders`: its folder will be made
    where it is not there. Raises `OutputError`.
    """
    with explained(output):
        _check_folder(output, make_folders)
        _check_file(output, sources, overwrite, remedy)


def _check_folder(output: Path, make_folders: bool) -> None:
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; give the name of a file, such as {output / 'model.gguf'}.")
    nearest = _nearest(output.parent)
    if nearest.exists() and not nearest.is_dir():
        raise OutputError(f"{output}: {nearest} is a file, no folder; choose another one.")
    folder = nearest if make_folders else output.parent
    if not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist; make it first.")
    room = os.statvfs(folder)
    if room.f_blocks == room.f_files == 0:  # /proc and the like: the system's own, without a disk
        raise OutputError(f"{output}: no file can be written in {folder}; choose another folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)


def _check_file(output: Path, sources: list[Path], overwrite: bool, remedy: str) -> None:
    for path in (output, partial_path(output)):
        if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
            raise OutputError(f"{path}: is the input itself; choose another name for the output.")
    if output.exists():
        if not output.is_file():
            raise OutputError(f"{output}: is not a plain file; choose another name for the output.")
        if not overwrite:
            raise OutputError(f"{output}: exists already; {remedy}.")


class PartialFile(UnitFile):
    """`NAME.partial` of `size` bytes. One process at a time; `fresh` discards what an earlier one left.

    `name` is what the journal calls it (see `Unit.file`).
    """

    def __init__(self, output: Path, size: int, journal: Journal, name: str, *, fresh: bool) -> None:
        self.output = output
        self._claim = _claim(output)
        try:
            super().__init__(partial_path(output), size, journal, name, fresh=fresh)
        except OutputError:
            self._claim.release()
            raise

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its final name."""
        self.sync()
        self.check_in_place()
        if not overwrite and os.path.lexists(self.output):
            raise OutputError(
                f"{self.output}: was made by something else meanwhile; move it away, then resume the job."
            )
        with explained(self.output):
            self.path.replace(self.output)
            sync_folder(self.output.parent)
        self.close()

    def discard(self) -> None:
        """Remove the file: nothing in it is worth resuming."""
        with suppress(OSError):  # it is in nobody's way
            self.path.unlink()  # before the claim ends: the next file of this name is another's
        self.close()

    def close(self) -> None:
        super().close()
        self._claim.release()


def discard_partials(output: Path) -> None:
    """Remove what an unfinished job has written of `output`, unless another one is at it just now."""
    for partial in partials_of(output):
        with suppress(OutputError):
            claim = _claim(partial.with_suffix(""))
            partial.unlink(missing_ok=True)
            claim.release()


@contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """A partial name to write under; it becomes `output` once what it holds is on the disk.

    Without a job: nothing of it stays where it fails. Raises `OutputError`.
    """
    partial = partial_path(output)
    with explained(output):
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(output)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(output.parent)


def _claim(output: Path) -> FileLock:
    """The right to write `output`, held until released or the process ends."""
    folder = user_state_path("bitwright") / "locks"
    with explained(folder):
        make_folder(folder)
        name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:32]
        claim = FileLock(folder / f"{name}.lock")
        try:
            claim.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"{output}: another job is writing it; choose another name.") from None
    return claim
