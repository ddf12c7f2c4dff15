"""Statistics of weights on disk: the next look at a model need not read it again.

A file a tensor, in the user's cache folder, under a digest of what it was made from: the files as the system
knows them (Checkpoint.stamp), the tensor's place in them, and `VERSION`. They are NumPy's .npz without
pickles; what is damaged, or of another shape, counts as not there. Nothing that fails here stops a reading.
"""

import hashlib
import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from engine.checkpoint import Checkpoint, Tensor
from kernels.statistics import Channels

VERSION = 2
"""To be raised with whatever changes the figures or how they are stored."""

LIMIT = 1 << 30
"""Bytes of all files. Of a 70B model it is 250 MB."""

_SPARE = 16
"""Where files are removed, this part of the limit is freed beside."""

_LOOKED = 1000
"""Files that are added between two looks at all of them."""

_held: dict[Path, tuple[int, int]] = {}
"""By folder: files added since it was looked through, bytes in it as far as this process knows."""

_lock = threading.Lock()

_FIGURES = ("min", "max", "mean", "std", "kurtosis", "zeros")
"""By channel, float32; the largest magnitude follows from the range."""

_BINS = 1 << 16

Found = tuple[Channels, Channels, Channels, np.ndarray]
"""Of rows, columns and all weights; counts int64 [65536] of their distribution."""

log = logging.getLogger(__name__)


def folder() -> Path:
    """Where the files lie; it may not be there."""
    return user_cache_path("bitwright") / "statistics"


def load(checkpoint: Checkpoint, tensor: Tensor, rows: int, columns: int) -> Found | None:
    """What was stored of this tensor, of so many rows and columns; None where nothing useful is."""
    path = _path(checkpoint, tensor)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = _read(stored, rows, columns)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can raise anything
        log.warning("%s: not used: %s", path, error)
        return None
    with suppress(OSError):  # the folder may be another's
        os.utime(path)  # those that are used stay longest
    return found


def store(checkpoint: Checkpoint, tensor: Tensor, found: Found) -> None:
    """Keep this for `load`; rows and columns as float32 holds them."""
    rows, columns, whole, counts = found
    occupied = np.flatnonzero(counts)
    arrays = {
        "rows": _packed(rows, np.float32),
        "columns": _packed(columns, np.float32),
        "whole": _packed(whole, np.float64),
        "occupied": occupied.astype(np.uint16),
        "counts": counts[occupied],
    }
    path = _path(checkpoint, tensor)
    partial = path.with_name(f"{path.stem}-{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(sum(array.nbytes for array in arrays.values()))
        try:
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        log.warning("statistics are not kept: %s", error)


def _path(checkpoint: Checkpoint, tensor: Tensor) -> Path:
    scaling = (checkpoint.config or {}).get("quantization_config")  # how FP8 is multiplied
    place = str(tensor.file), tensor.offset, tensor.name, tensor.shape, tensor.dtype
    made_from = VERSION, checkpoint.stamp, *place, repr(scaling)
    return folder() / f"{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]}.npz"


def _packed(channels: Channels, dtype: type) -> np.ndarray:
    """[6, n]"""
    return np.stack([getattr(channels, figure).astype(dtype) for figure in _FIGURES])


def _read(stored: np.lib.npyio.NpzFile, rows: int, columns: int) -> Found:
    """Raises ValueError or KeyError for anything but what `store` writes."""
    occupied, counts = stored["occupied"], np.zeros(_BINS, np.int64)
    given = stored["counts"]
    if occupied.dtype != np.uint16 or given.dtype != np.int64 or given.shape != occupied.shape:
        raise ValueError("counts of another kind")
    counts[occupied] = given
    if (given.size and given.min() < 0) or counts.sum() != rows * columns:
        raise ValueError("counts that do not add up")
    return (
        _unpacked(stored["rows"], np.float32, (rows,)),
        _unpacked(stored["columns"], np.float32, (columns,)),
        _unpacked(stored["whole"], np.float64, ()),
        counts,
    )


def _unpacked(array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> Channels:
    if array.dtype != dtype or array.shape != (len(_FIGURES), *shape) or not np.isfinite(array).all():
        raise ValueError("figures of another kind")
    figures = dict(zip(_FIGURES, array.astype(float), strict=True))
    return Channels(**figures, absmax=np.maximum(-figures["min"], figures["max"]))


def _make_room(wanted: int) -> None:
    """Have room for `wanted` more bytes within the limit.

    The folder is looked through only when `_LOOKED` files have been added since, or the limit is near: a
    model may have a hundred thousand tensors.
    """
    with _lock:
        added, total = _held.get(folder(), (_LOOKED, 0))
        if added >= _LOOKED or total + wanted > LIMIT:
            added, total = 0, _clear(wanted)
        _held[folder()] = added + 1, total + wanted


def _clear(wanted: int) -> int:
    """Remove the files used least lately, so that some room beyond `wanted` is there; what was broken off
    while it was written, too. The answer is the bytes that stay."""
    files = [(path, path.stat()) for path in folder().iterdir() if path.suffix in (".npz", ".partial")]
    total = sum(state.st_size for _, state in files)
    most = LIMIT if total + wanted <= LIMIT else LIMIT - LIMIT // _SPARE
    for path, state in sorted(files, key=lambda file: file[1].st_mtime):
        if total + wanted <= most:
            break
        with suppress(OSError):
            path.unlink()
            total -= state.st_size
    return total
