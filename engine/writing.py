"""The file of a quantize job: its tensors encoded, written, verified, and published under its name.

Weights are read, transformed and encoded in pieces of some megabytes, so the peak of memory does not
grow with the model. A finished tensor is at its final offset in `NAME.partial`, synced, before the
journal names it; every row is encoded by itself, so a resumed file is the undisturbed one, byte for byte.
"""

import logging
import time
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

from engine.api.errors import ExportError, RecipeError
from engine.api.formats import FORMATS
from engine.api.plan import TensorPlan
from engine.api.progress import Listener, Progress
from engine.api.units import size
from engine.checkpoint import check_finite
from engine.export.gguf import OutputTensor, VerificationError, verify
from engine.jobs.folder import Job
from engine.jobs.journal import Unit
from engine.jobs.partial import PartialFile, checksum, explained, partial_path
from engine.preparation import HEADER, Prepared

PIECE = 4 << 20
"""Bytes of float32 weights encoded at a time."""

log = logging.getLogger(__name__)


def published(job: Job, prepared: Prepared, output: Path) -> bool:
    """Whether the output has its name already: the job was killed just before it could say so."""
    units = _planned_units(job, prepared)
    if len(units) < len(prepared.places) or partial_path(output).exists() or not output.is_file():
        return False
    with output.open("rb") as file:
        return output.stat().st_size == prepared.size and all(
            checksum(file.fileno(), unit.offset, unit.bytes) == unit.crc32 for unit in units.values()
        )


def load_kernels(prepared: Prepared, threads: int, listener: Listener) -> None:
    """Load the encoders (compiled on the first use on a machine) and give them their threads."""
    import numba

    listener(Progress("compile or load encoders", 0, 1, "steps"))
    from engine.methods import warm_up

    warm_up({tensor.format for tensor in prepared.plan.tensors})
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    listener(Progress("compile or load encoders", 1, 1, "steps"))


def write(job: Job, prepared: Prepared, output: Path, listener: Listener) -> None:
    """Encode what the journal does not name yet, verify the file, give it its name."""
    if not job.journal.units():
        check_finite(prepared.checkpoint, listener)
    partial = PartialFile(output, prepared.size, fresh=not job.journal.units())
    try:
        _write_units(job, prepared, partial, listener)
        formats = {tensor.name: tensor.format for tensor in prepared.plan.tensors}
        checksums = {name: unit.crc32 for name, unit in job.journal.units().items()}
        verify(partial.path, prepared.export, formats, checksums, listener)
        partial.publish()
    except (ExportError, RecipeError, VerificationError):  # resuming would end here again
        job.journal.clear()
        partial.discard()
        raise
    except BaseException:
        if job.journal.units():
            partial.close()
        else:
            partial.discard()
        raise


def _write_units(job: Job, prepared: Prepared, partial: PartialFile, listener: Listener) -> None:
    finished = _still_there(_planned_units(job, prepared), partial, listener)
    if HEADER not in finished:
        _write_unit(job, partial, HEADER, 0, iter([memoryview(prepared.header)]))
    total = sum(tensor.bytes for tensor in prepared.plan.tensors)
    done = sum(tensor.bytes for tensor in prepared.plan.tensors if tensor.name in finished)
    if finished:
        log.info("%d of %d parts are finished already", len(finished), len(prepared.places))
    for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
        if tensor.name in finished:
            continue
        began = time.monotonic()
        pieces = _encode(prepared, source, tensor, done, total, listener)
        _write_unit(job, partial, tensor.name, prepared.offsets[tensor.name], pieces)
        done += tensor.bytes
        listener(Progress("quantize", done, total, "bytes", tensor.name))
        log.info(
            "%s: %s, %s in %.2f s", tensor.name, tensor.format, size(tensor.bytes), time.monotonic() - began
        )


def _planned_units(job: Job, prepared: Prepared) -> dict[str, Unit]:
    """The journal's units that lie where the plan puts them; a damaged journal's others count as not done."""
    units = job.journal.units()
    return {
        name: units[name]
        for name, place in prepared.places.items()
        if name in units and (units[name].offset, units[name].bytes) == place
    }


def _still_there(units: dict[str, Unit], partial: PartialFile, listener: Listener) -> set[str]:
    """The names of those units whose bytes stand in the file as noted."""
    done, total, found = 0, sum(unit.bytes for unit in units.values()), set()
    for name, unit in units.items():
        listener(Progress("check finished", done, total, "bytes", name))
        if partial.checksum(unit.offset, unit.bytes) == unit.crc32:
            found.add(name)
        done += unit.bytes
    return found


def _write_unit(job: Job, partial: PartialFile, name: str, offset: int, pieces: Iterator[memoryview]) -> None:
    """Write `pieces` one behind the other from `offset`, make them durable, then note the unit."""
    crc, size = 0, 0
    for piece in pieces:
        partial.write(piece, offset + size)
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    partial.sync()
    with explained(job.journal.path):
        job.journal.append(Unit(unit=name, offset=offset, bytes=size, crc32=crc))


def _encode(
    prepared: Prepared, source: OutputTensor, tensor: TensorPlan, before: int, total: int, listener: Listener
) -> Iterator[memoryview]:
    """The bytes of one tensor, in pieces of rows that take about `PIECE` bytes in float32."""
    from engine.methods import encode

    rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1]
    step = max(1, PIECE // (4 * columns))
    importance = prepared.importance.get(tensor.name)
    matrices = 1 if importance is None else len(importance)
    height = rows // matrices
    for start, stop in _spans(rows, height, step):
        weights = source.read(prepared.checkpoint, start, stop)
        matters = None if importance is None else importance[start // height]
        data = encode(weights, tensor.format, tensor.method, matters, tensor.params)
        yield data.data.cast("B")
        done = before + stop * FORMATS[tensor.format].row_bytes(columns)
        listener(Progress("quantize", done, total, "bytes", tensor.name))


def _spans(rows: int, height: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `step` of `rows` rows; none crosses a multiple of `height` (the next expert)."""
    start = 0
    while start < rows:
        stop = min(start + step, (start // height + 1) * height, rows)
        yield start, stop
        start = stop
