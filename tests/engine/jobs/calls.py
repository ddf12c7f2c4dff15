"""Every call by which a job touches the disk, numbered, so that a test can strike at any one of them.

`Calls` wraps the functions of `os` (and `io.open` with its `flush`) that the job's code reaches the disk by.
Only calls on files below the watched folders count, so what libraries do elsewhere is left alone. A write is
three moments: before it, in its middle (`torn`: a part of the bytes is there), and, as the moment before the
next call, behind it.
"""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGING = ("open", "pwrite", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate", "posix_fallocate")
READING = ("pread", "preadv")

JOB = re.compile(r"\d{8}-\d{6}-\d{6}(-\d+)?")
CLAIM = re.compile(r"[0-9a-f]{32}\.lock")

Strike = Callable[[str, Callable[[], None] | None], None]
"""Called at each moment with its name ("fsync journal.jsonl"); may raise or not return.

For a write's middle it is given what writes a part of the bytes.
"""

Behind = Callable[[str, Path], None]
"""Called behind each successful call, with its function's name and the path."""


class Calls:
    """Within the `with` block each call below `folders` is a moment for `strike`."""

    def __init__(
        self, folders: list[Path], strike: Strike, behind: Behind | None = None, *, reads: bool = False
    ):
        self._folders = [str(folder) for folder in folders]
        self._strike, self._behind = strike, behind
        self._names = CHANGING + (READING if reads else ())
        self._real: dict[str, Any] = {}

    def __enter__(self) -> "Calls":
        for name in self._names:
            self._real[name] = getattr(os, name)
            setattr(os, name, self._wrapped(name))
        self._real_open, io.open = io.open, self._open_text  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = self._real_open

    def _wrapped(self, name: str) -> Callable:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            path = self._watched(arguments[0])
            if path is None or (name == "open" and not arguments[1] & os.O_CREAT):
                return real(*arguments, **options)
            said = f"{name} {kind_of(path)}"
            self._strike(said, None)
            if name in ("pwrite", "write") and len(arguments[1]) > 1:
                half = arguments[1][: len(arguments[1]) // 2]
                self._strike(f"torn {said}", lambda: real(arguments[0], half, *arguments[2:]))
            result = real(*arguments, **options)
            if self._behind:
                self._behind(name, path)
                if name == "replace":
                    self._behind(name, Path(arguments[1]))
            return result

        return call

    def _open_text(self, path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        """A small file that is written through a buffer: `flush` is where its bytes go to the system."""
        found = self._watched(path)
        if found is None or "w" not in mode or found.is_dir():  # a file without a name is opened so
            return self._real_open(path, mode, *rest, **options)
        said = kind_of(found)
        self._strike(f"open {said}", None)
        file = self._real_open(path, mode, *rest, **options)
        flush = file.flush

        def flushed() -> None:
            file.flush = flush
            self._strike(f"flush {said}", None)
            flush()

            def tear() -> None:
                os.truncate(found, found.stat().st_size // 2)

            self._strike(f"torn flush {said}", tear)

        file.flush = flushed
        return file

    def _watched(self, where: Any) -> Path | None:
        """The path of a descriptor or name, if it is below a watched folder.

        Files without a name (the disk's speed is measured by one) are gone with the process.
        """
        try:
            path = str(Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else Path(where))
        except OSError:
            return None
        inside = any(path.startswith(folder) for folder in self._folders)
        return Path(path) if inside and not path.endswith(" (deleted)") else None


def kind_of(path: Path) -> str:
    """The file's name, the same for every job."""
    return CLAIM.sub("CLAIM", JOB.sub("JOB", path.name))
