"""How fast this machine encodes, multiplies, reads and writes: each measured in a moment, once a process."""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np

from engine.parallel import in_order

ROWS, COLUMNS = 64, 2048
"""Weights for each thread that an encoder is timed on: some 1 to 10 ms of work."""

REPEATS = 3
ENOUGH = 0.01
"""Seconds of work that need no repeating."""

FILE_BYTES = 16 << 20
SLOW_DISK = 1e8
"""Bytes a second of a disk that cannot be tried."""


@cache
def encode_speed(name: str, method: str, effort: str, threads: int | None) -> float:
    """Weights a second, on so many threads (None: all cores)."""
    from engine.methods import encode

    count = threads or len(os.sched_getaffinity(0))
    if method == "rtn":  # holds the interpreter's lock for the most part
        count = 1
    weights = (np.random.default_rng(0).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    encode(weights[:1], name, method, effort=effort)  # loads the encoder

    def work(_: int) -> None:
        encode(weights, name, method, effort=effort)

    return count * weights.size / _seconds(lambda: deque(in_order(work, range(count), count), maxlen=0))


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
    """Of one of `REPEATS` turns, the middle one; of fewer where they take long."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < ENOUGH:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
