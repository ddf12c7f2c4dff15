"""The output of a quantize job: its tensors encoded and written, its files verified and published.

Weights are read, transformed and encoded in pieces of some megabytes, on several threads, while finished
pieces are written in their order: so the peak of memory does not grow with the model. A finished tensor is
at its final offset in `NAME.partial`, synced, before the journal names it; every row is encoded by itself,
so a resumed file is the undisturbed one, byte for byte.
"""

import logging
import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from engine.api.errors import ExportError, RecipeError
from engine.api.jobs import Saved
from engine.api.plan import Plan, TensorPlan
from engine.api.progress import Listener, Progress
from engine.api.units import size
from engine.checkpoint import check_finite
from engine.export.gguf import OutputTensor, VerificationError
from engine.jobs.limits import out_of_memory
from engine.jobs.running import Running
from engine.output_files import OutputFiles
from engine.parallel import AHEAD, in_order
from engine.preparation import Prepared, header_unit

PIECE = 4 << 20
LEAST_PIECE = 256 << 10
"""Bytes of float32 weights encoded at a time, and where memory is short."""

IN_FLIGHT = 16 << 20
"""Of all pieces that are encoded or waited for at a time: many threads get smaller ones."""

log = logging.getLogger(__name__)


def load_kernels(plan: Plan, listener: Listener) -> None:
    """Load the encoders that search; they are compiled on the first use on a machine."""
    from engine.methods import warm_up

    searched = (tensor for tensor in plan.tensors if tensor.method == "search" and not tensor.copied)
    warm_up({tensor.format for tensor in searched}, listener)


def write(work: Running, prepared: Prepared, output: Path, threads: int, *, overwrite: bool) -> None:
    """Encode what the journal does not name yet, verify the files, give them their names."""
    journal = work.job.journal
    if not journal.units():
        check_finite(prepared.checkpoint, work.listener)
    files = OutputFiles(prepared, output, journal, work.listener)
    try:
        checksums = _write_units(work, prepared, files, threads)
        files.publish(checksums, overwrite=overwrite, listener=work.listener)
    except (ExportError, RecipeError, VerificationError):  # resuming would end here again
        journal.clear()
        files.discard()
        raise
    except BaseException:
        if journal.units():
            files.close()
        else:
            files.discard()
        raise


def _write_units(work: Running, prepared: Prepared, files: OutputFiles, threads: int) -> dict[str, int]:
    """Each unit's CRC-32, once all are in the files."""
    finished, checksums = files.finished, dict(files.finished)
    if finished:
        total = len(prepared.plan.tensors) + len(prepared.parts)
        log.info("%d of %d parts are finished already", len(finished), total)
    blocks = _Blocks(prepared, set(finished))
    for index in files.unfinished_parts():
        unit = header_unit(index)
        if unit not in finished:
            files.part(unit).write(unit, 0, iter([memoryview(prepared.parts[index].header)]))
            files.part(unit).commit(blocks.saved)
    offsets = {name: offset for part in prepared.parts for name, offset in part.offsets.items()}
    pieces = _pieces(work, prepared, finished, threads)
    encoded = in_order(lambda piece: (piece, _encode(work, prepared, piece)), pieces, threads)
    written = _Written(work, prepared, finished)
    with closing(encoded):
        for tensor in prepared.plan.tensors:
            if tensor.name in finished:
                continue
            began = time.monotonic()
            file = files.part(tensor.name)
            bytes_of = written.pieces_of(tensor, encoded)
            checksums[tensor.name] = file.write(tensor.name, offsets[tensor.name], bytes_of)
            work.sources.check()
            blocks.add(tensor)
            file.commit(blocks.saved)
            work.note(blocks.saved)
            log.info(
                "%s: %s, %s in %.2f s",
                tensor.name, tensor.format, size(tensor.bytes), time.monotonic() - began,
            )  # fmt: skip
    return checksums


@dataclass(frozen=True)
class _Piece:
    """Rows start .. stop of a tensor seen as a matrix, all of one expert. matters: float32 [columns]."""

    source: OutputTensor
    tensor: TensorPlan
    start: int
    stop: int
    matters: np.ndarray | None


class _Written:
    """Counts the bytes that are written, and tells of them."""

    def __init__(self, work: Running, prepared: Prepared, finished: Container[str]) -> None:
        tensors = prepared.plan.tensors
        self._work, self._total = work, sum(tensor.bytes for tensor in tensors)
        self._done = sum(tensor.bytes for tensor in tensors if tensor.name in finished)

    def pieces_of(
        self, tensor: TensorPlan, encoded: Iterator[tuple[_Piece, np.ndarray]]
    ) -> Iterator[memoryview]:
        """The bytes of the tensor, which is the next one of `encoded`."""
        stop, rows = 0, prod(tensor.shape[:-1]) if tensor.bytes else 0
        while stop < rows:
            piece, data = next(encoded)
            stop = piece.stop
            yield data.data.cast("B")
            self._done += data.nbytes
            self._work.listener(Progress("quantize", self._done, self._total, "bytes", tensor.name))
            self._work.check()


class _Blocks:
    """Counts the blocks of which all is written; tensors, where the model has no blocks."""

    def __init__(self, prepared: Prepared, finished: set[str]) -> None:
        tensors = prepared.plan.tensors
        blocked = any(tensor.block is not None for tensor in tensors)
        self._unit = "blocks" if blocked else "tensors"
        counted = [tensor for tensor in tensors if not blocked or tensor.block is not None]
        self._total = len({_block(tensor) for tensor in counted})
        self._left = Counter(_block(tensor) for tensor in counted if tensor.name not in finished)

    def add(self, tensor: TensorPlan) -> None:
        """It is written."""
        self._left -= Counter([_block(tensor)])

    @property
    def saved(self) -> Saved:
        return Saved(done=self._total - len(self._left), total=self._total, unit=self._unit)


def _block(tensor: TensorPlan) -> int | str:
    return tensor.name if tensor.block is None else tensor.block


def _pieces(work: Running, prepared: Prepared, finished: Container[str], threads: int) -> Iterator[_Piece]:
    """All that is not finished, in the order of the file: pieces of rows of about `PIECE` bytes in float32,
    or fewer where memory is short: rows do not depend on each other, so the bytes are the same."""
    for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
        if tensor.name in finished or not tensor.bytes:
            continue
        rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1]
        importance = prepared.importance.get(tensor.name)
        height = rows // (1 if importance is None else len(importance.sums))
        start = 0
        while start < rows:
            wanted = max(LEAST_PIECE, min(PIECE, IN_FLIGHT // (threads + AHEAD + 1)))
            step = max(1, work.guard.share(wanted, LEAST_PIECE) // (4 * columns))
            stop = min(start + step, (start // height + 1) * height, rows)  # not beyond this expert
            matters = None if importance is None else importance.means_of(start // height)
            yield _Piece(source, tensor, start, stop, matters)
            start = stop


def _encode(work: Running, prepared: Prepared, piece: _Piece) -> np.ndarray:
    """The bytes of a piece, uint8 [rows, row bytes]; in halves where the system refuses it memory.

    What the source has in this very format is taken as it is: no encoder can come closer.
    """
    from engine.methods import encode_as_planned

    tensor = piece.tensor
    try:
        if tensor.copied:
            return piece.source.read_stored(prepared.checkpoint, piece.start, piece.stop)
        weights = piece.source.read(prepared.checkpoint, piece.start, piece.stop, halves=True)
        return encode_as_planned(weights, tensor, piece.matters, prepared.plan.effort)
    except Exception as error:
        rows = piece.stop - piece.start
        if not out_of_memory(error) or rows < 2 or 4 * rows * tensor.shape[-1] <= LEAST_PIECE:
            raise
        work.guard.shrink()  # pieces to come
        log.warning("%s: out of memory; going on in smaller pieces", tensor.name)
    middle = (piece.start + piece.stop) // 2
    halves = replace(piece, stop=middle), replace(piece, start=middle)
    return np.concatenate([_encode(work, prepared, half) for half in halves])
