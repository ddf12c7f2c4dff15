"""What the disk refuses, in sentences that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.api.errors import OutputError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(_sentence(error, path)) from None


@contextmanager
def explained_job(folder: Path) -> Iterator[None]:
    """The same for a job's own `folder`, which nobody has chosen."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                said = f"{folder}: the job's folder was removed while it was in use; start the job again."
            case errno.EACCES | errno.EPERM:
                said = f"{folder}: no permission to write there; change its permissions, then resume the job."
            case errno.EROFS:
                said = f"{folder}: the disk is mounted read-only; mount it writable, then resume the job."
            case _:
                said = _sentence(error, folder)
        raise OutputError(said) from None


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
            return f"{path}: the disk is mounted read-only; choose another folder, or mount it writable."
        case errno.ENOENT | errno.ENOTDIR:
            return f"{path}: the folder {path.parent} does not exist; make it first."
        case errno.ENAMETOOLONG:
            return f"{path}: the name is too long for this disk; choose a shorter one."
        case errno.EISDIR:
            return f"{path}: is a folder; give the name of a file."
        case _:
            return f"{path}: cannot be used ({error.strerror}); check its disk, then resume the job."
