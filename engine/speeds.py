"""How fast this machine encodes, multiplies, reads and writes: each measured in a moment, once a process."""

import hashlib
import importlib.util
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np

KERNELS = "kernels.cpu.groups"

ROWS, COLUMNS = 128, 2048
"""Weights that each encoder is timed on: some 10 ms of work."""

REPEATS = 3
FILE_BYTES = 16 << 20
SLOW_DISK = 1e8
"""Bytes a second of a disk that cannot be tried."""


def kernels_compiled() -> bool:
    """Whether Numba finds all kernels in its cache: made of this source, by this version, for this processor.

    Seen from the bytes of the cache's index files, without loading them.
    """
    if KERNELS in sys.modules:
        return True
    found = importlib.util.find_spec(KERNELS)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin)
    indices = (index for folder in _cache_folders(source) for index in folder.glob(f"{source.stem}.*.nbi"))
    fresh = sum(_is_fresh(index, source) for index in indices)
    return fresh >= source.read_bytes().count(b"cache=True")


@cache
def encode_speed(name: str, method: str, threads: int | None) -> float:
    """Weights a second."""
    import numba

    from engine.methods import encode, warm_up

    warm_up([name], [method])
    weights = (np.random.default_rng(0).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads or numba.config.NUMBA_NUM_THREADS, numba.config.NUMBA_NUM_THREADS))
    try:
        return weights.size / _seconds(lambda: encode(weights, name, method))
    finally:
        numba.set_num_threads(before)


@cache
def multiply_speed() -> float:
    """Multiplications a second."""
    states, matrix = np.ones((512, 1024), np.float32), np.ones((1024, 1024), np.float32)
    states @ matrix  # the library starts its threads
    return states.size * len(matrix) / _seconds(lambda: states @ matrix)


@cache
def disk_speeds(folder: Path | None) -> tuple[float, float]:
    """Bytes a second, written durably and read, in `folder` or where temporary files lie."""
    content = np.random.default_rng(0).bytes(FILE_BYTES)
    for place in (folder, None):
        with suppress(OSError), tempfile.TemporaryFile(dir=place) as file:
            start = time.perf_counter()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter() - start
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start = time.perf_counter()
            while file.read(1 << 20):
                pass
            return FILE_BYTES / written, FILE_BYTES / (time.perf_counter() - start)
    return SLOW_DISK, SLOW_DISK


def _seconds(work: Callable[[], object]) -> float:
    """Of one of `REPEATS` turns, the middle one."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def _cache_folders(source: Path) -> list[Path]:
    """Where Numba looks for what it compiled of `source`: where it is told, or beside it and in a cache."""
    import numba
    from numba.core.caching import _CacheLocator
    from numba.misc.appdirs import AppDirs

    subpath = _CacheLocator.get_suitable_cache_subpath(str(source))
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / subpath]
    general = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    return [source.parent / "__pycache__", general / subpath]


def _is_fresh(index: Path, source: Path) -> bool:
    """Whether a cache's index is of this Numba, this processor and this source (its digest or its time)."""
    import numba
    from llvmlite.binding import get_host_cpu_name

    try:
        content = index.read_bytes()
    except OSError:
        return False
    stamps = hashlib.sha256(source.read_bytes()).digest(), struct.pack(">d", source.stat().st_mtime)
    ours = all(word.encode() in content for word in (numba.__version__, get_host_cpu_name()))
    return ours and any(stamp in content for stamp in stamps)
