"""Where compiled kernels are kept: a folder for each state of their source, compiler and processor.

Numba itself looks at the one file that holds a cached function, not at those it calls into; in a folder named
by all of them nothing stale can be found, and whether a kernel is there shows without loading it.
"""

import atexit
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba.core.caching import NullCache
from numba.core.errors import NumbaError
from platformdirs import user_cache_path

FOLDER = "bitwright-kernels"
KEPT_SECONDS = 30 * 24 * 3600
"""How long a folder stays that no process has used: those of other versions, other checkouts."""

log = logging.getLogger(__name__)


@cache
def folder() -> Path:
    """The folder, made if need be; one that goes with the process where the cache cannot be written, or where
    others could write into it: compiled code is run as it is found.

    NUMBA_CACHE_DIR, where it is set, takes the place of the user's cache folder.
    """
    general = Path(os.environ.get("NUMBA_CACHE_DIR") or user_cache_path("bitwright")) / FOLDER
    place = general / _state()
    try:
        general.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        if not (_is_ours(general) and _is_ours(place)):
            raise PermissionError(f"{general} could be written by others")
        with tempfile.TemporaryFile(dir=place):
            _forget(general, place)
            return place
    except OSError as error:
        log.warning("compiled kernels are not kept: %s", error)
        private = Path(tempfile.mkdtemp(prefix="bitwright-kernels-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return private


def is_lasting() -> bool:
    """Whether what is compiled stays for the next process."""
    return folder().parent.name == FOLDER


def is_compiled(kernel: str, module: str = "encoders") -> bool:
    """Whether a kernel of that module of `kernels.cpu` lies in the folder: its index and its code."""
    return all(any(folder().glob(f"*/{module}.{kernel}-*.{kind}")) for kind in ("nbi", "nbc"))


def first_call(kernel: Any, *arguments: object) -> bool:
    """kernel(*arguments) for the first time in this process, whatever state its cache is in.

    Where it cannot be read or written, what there is of it is removed, and the kernel compiled without it.
    """
    try:
        return bool(kernel(*arguments))
    except (MemoryError, NumbaError):
        raise
    except Exception as error:  # a damaged file can raise anything
        log.warning("%s: its cache cannot be used: %s", kernel.__name__, error)
    kernel._cache = NullCache()
    module = kernel.py_func.__module__.rpartition(".")[2]
    for file in folder().glob(f"*/{module}.{kernel.__name__}-*.nb*"):
        with suppress(OSError):
            file.unlink()
    return bool(kernel(*arguments))


@cache
def source_digest() -> str:
    """Of all that decides about the bytes that encoders make, as hexadecimal digits."""
    sources = sorted(Path(__file__).parent.glob("**/*.py"))
    parts = [source.read_bytes() for source in sources if "reference" not in source.parts]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _state() -> str:
    compiler = sys.version, numba.__version__, llvmlite.__version__
    processor = get_host_cpu_name(), get_host_cpu_features().flatten()
    parts = (
        source_digest(),
        str(Path(__file__).parent),
        *compiler,
        *processor,
    )  # Numba's names hold the path
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _is_ours(place: Path) -> bool:
    state = place.stat()
    return os.name != "posix" or (state.st_uid == os.getuid() and not state.st_mode & 0o022)


def _forget(general: Path, ours: Path) -> None:
    """Remove folders that nobody has used for long; nothing that is not named as ours are."""
    with suppress(OSError):
        os.utime(ours)
        for other in general.iterdir():
            named = re.fullmatch("[0-9a-f]{16}", other.name) and not other.is_symlink()
            if named and other.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
