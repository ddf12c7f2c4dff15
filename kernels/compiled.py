"""Where compiled kernels are kept: a folder for each state of their source, compiler and processor.

Numba itself looks at the one file that holds a cached function, not at those it calls into; in a folder named
by all of them nothing stale can be found, and whether a kernel is there shows without loading it.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from platformdirs import user_cache_path

KEPT = 3
"""Folders that stay: of an installed version, a checkout, and the one before."""


@cache
def folder() -> Path:
    """The folder, made if need be; one that goes with the process where the cache cannot be written.

    NUMBA_CACHE_DIR, where it is set, takes the place of the user's cache folder.
    """
    general = Path(os.environ.get("NUMBA_CACHE_DIR") or user_cache_path("bitwright")) / "kernels"
    place = general / _state()
    try:
        place.mkdir(parents=True, exist_ok=True)
        _forget(general, place)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError:
        import atexit

        private = Path(tempfile.mkdtemp(prefix="bitwright-kernels-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return private


def is_compiled(kernel: str) -> bool:
    """Whether a kernel of `kernels.cpu.encoders` lies in the folder, for the one type of its arguments."""
    return any(folder().glob(f"*/encoders.{kernel}-*.nbi"))


def _state() -> str:
    sources = sorted(Path(__file__).parent.glob("**/*.py"))
    parts = [source.read_bytes() for source in sources if "reference" not in source.parts]
    features = get_host_cpu_features().flatten()
    versions = sys.version, numba.__version__, llvmlite.__version__, get_host_cpu_name(), features
    parts.extend(part.encode() for part in versions)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _forget(general: Path, ours: Path) -> None:
    """Remove all folders but the `KEPT` used last."""
    with suppress(OSError):
        os.utime(ours)
        others = sorted(general.iterdir(), key=lambda other: other.stat().st_mtime, reverse=True)
        for other in others[KEPT:]:
            shutil.rmtree(other, ignore_errors=True)
