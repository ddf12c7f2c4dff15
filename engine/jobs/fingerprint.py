"""What a resumed job must find unchanged: sources, recipe, versions, threads, instruction set."""

import hashlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from engine import __version__
from engine.api.errors import ChangedError, CheckpointError

LIBRARIES = ("numpy", "numba", "llvmlite", "gguf")
"""What quantizing computes with."""

SWITCHES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
)
"""What in the environment chooses other instructions, and so other last bits."""

MOST_TOLD = 48
"""Characters of a value that a reader can make something of: versions, but no digests."""

SAMPLES = 64
SAMPLE_BYTES = 4096


def fingerprint(
    files: Iterable[Path], facts: dict[str, str], threads: int, libraries: Iterable[str] = LIBRARIES
) -> dict[str, str]:
    """A flat dictionary, so that a difference can be named. `facts`: what else the work stands on.

    `files` count by path, size, time and samples of their bytes: a change that keeps size and time and misses
    all samples would pass, but reading a whole checkpoint would take longer than many jobs. Raises
    `CheckpointError` where one cannot be read.
    """
    known = {f"file {path}": _identity(path) for path in files} | facts
    known["bitwright"] = __version__
    known |= {library: version(library) for library in libraries}
    known["threads"] = str(threads)
    known["processor"] = _processor()
    return known | {name: os.environ[name] for name in SWITCHES if name in os.environ}


def digest(content: str | bytes) -> str:
    """SHA-256, for what a fingerprint holds whole."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


class Unchanged:
    """Notes `files` as they are now; `check` says whether they still are, as far as the system knows."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._stamps = {path: _stamp(path) for path in files}

    def check(self) -> None:
        """Raise `ChangedError` for a file that is another by now: what was read of it may be of both."""
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise ChangedError(
                    f"{path} was changed or removed while the job was reading it, so its output would mix "
                    "two states: put the file back as it was and resume, or start the job again."
                )


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What differs, in words: "numpy was 2.0.1, is 2.1.0"."""
    said = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if before != after:
            file = key.startswith("file ")
            told = len(before) < MOST_TOLD and len(after) < MOST_TOLD and not file
            what = "has changed (size, time or content)" if file else "has changed"
            said.append(f"{key} was {before}, is {after}" if told else f"{key} {what}")
    return said


def _identity(path: Path) -> str:
    stamp = _stamp(path)
    if stamp is None:
        return "missing"
    size, changed = stamp
    return f"{size} bytes, {changed}, {_samples(path, size)}"


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change in nanoseconds; None: there is no such file.

    Not the file's number: some network file systems hand out new ones.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _samples(path: Path, size: int) -> str:
    """A digest of pieces of the file, evenly spread, its beginning and its end among them."""
    found = hashlib.sha256()
    last = max(0, size - SAMPLE_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            for sample in range(SAMPLES):
                found.update(os.pread(file.fileno(), SAMPLE_BYTES, last * sample // (SAMPLES - 1)))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    return found.hexdigest()[:16]


def _processor() -> str:
    """Architecture and a digest of the vector extensions that Numba compiles for."""
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    features = str(get_host_cpu_features().flatten())
    return f"{platform.machine()} {get_host_cpu_name()} {hashlib.sha256(features.encode()).hexdigest()[:8]}"
