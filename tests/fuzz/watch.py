"""Watches a piece of work: its memory, its time, the files it opens, and whatever else it reaches for."""

import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

OPENING = "open"
FORBIDDEN = (
    *("socket.", "subprocess.", "urllib.Request", "pickle.find_class", "ctypes.dlopen", "shutil."),
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir"),
)
"""Beginnings of audit events that no reader has a reason for."""

_SOURCES = (".py", ".pyc")


@dataclass
class Seen:
    """`peak` in bytes beyond what was there before; `seconds` of this thread's work."""

    opened: list[Path] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0


_watching: Seen | None = None
_hooked = False


def _hook(event: str, arguments: tuple) -> None:
    if _watching is None:
        return
    if event == OPENING:
        path = arguments[0]
        # Imports, and source lines for a traceback, are Python's.
        if isinstance(path, str | bytes) and not str(path).endswith(_SOURCES):
            _watching.opened.append(Path(path.decode() if isinstance(path, bytes) else path))
    elif event.startswith(FORBIDDEN):
        _watching.forbidden.append(f"{event}{arguments!r}")


@contextmanager
def watched() -> Iterator[Seen]:
    """Fills the `Seen` at the end. Warnings are errors meanwhile."""
    global _watching, _hooked
    if not _hooked:  # a hook cannot be taken away again
        sys.addaudithook(_hook)
        _hooked = True
    seen = Seen()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)  # of doubtful regular expressions
        tracemalloc.start()
        start = time.thread_time()
        _watching = seen
        try:
            yield seen
        finally:
            _watching = None
            seen.seconds = time.thread_time() - start
            seen.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
