"""Statistics of a stored tensor's weights: of all, of each output and each input channel.

A tensor is read once, in pieces of rows on several threads: beside the sums only these pieces are held. What
a chunk of rows adds up to does not depend on the threads, and chunks are joined in their order: nor do the
figures. What was gathered is kept on disk: see `engine.statistics_cache`.
"""

import difflib
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import closing
from dataclasses import dataclass
from math import prod

import numpy as np

from engine import statistics_cache
from engine.api.errors import CheckpointError
from engine.api.model import Role
from engine.api.progress import Listener, Progress, silent
from engine.api.statistics import LARGE, OUTLIER_RATIO, PERCENTS, SIGMAS, WeightStatistics
from engine.checkpoint import Checkpoint, Tensor
from engine.checkpoint.errors import PackedTensorError, UnknownTypeError
from engine.checkpoint.names import identify, is_buffer
from engine.checkpoint.stored import PLAIN_BITS
from engine.matrices import canonical_parts, is_transposed, matrix_shape, not_finite, pieces, read_rows
from engine.parallel import in_order
from kernels.statistics import (
    Channels,
    Distribution,
    Frame,
    Sweep,
    Swept,
    add_sums,
    chained,
    channels,
    frame_of,
    is_ready,
    no_sums,
    warm_up,
    whole,
)

CHUNK = 1 << 22
"""Weights that are summed by themselves, then joined to the others: the last digits of figures hang on it."""

CLOSE = 3
"""Names that are offered in the place of an unknown one, at most."""

SAMPLED_ROWS = 8
"""That the frame of a tensor is taken from, evenly spread."""


WAIT = 0.2
"""Seconds between two questions whether what another gathers is still wanted."""

_gathering: set[Hashable] = set()
_changed = threading.Condition()
"""Which tensors of which files are being gathered, and that one of them no longer is."""


@dataclass(frozen=True)
class Gathered:
    """Statistics of one tensor: of its output channels (of all experts where it is a stack), its input
    channels, and all weights. One axis is one output channel. See `engine.matrices`."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    outputs: Channels
    inputs: Channels
    whole: Channels
    distribution: Distribution


def source_name(checkpoint: Checkpoint, name: str) -> str:
    """The source's name of the tensor that has it there, or in GGUF, or holds it; ".weight" may lack.

    Raises `CheckpointError`.
    """
    names = (name, f"{name}.weight")
    stored = [one for one in names if one in checkpoint.tensors]
    found = stored or [
        one.name
        for one in checkpoint.tensors.values()
        if one.canonical in names
        or (one.canonical is None and set(names) & set(canonical_parts(checkpoint, one)))
    ]
    if not found:
        close = _alike(checkpoint, name)
        hint = f"did you mean {' or '.join(close)}?" if close else "its list of tensors says what it has."
        raise CheckpointError(f"{checkpoint.path} has no tensor {name}; {hint}")
    if len(found) > 1 and not stored:
        raise CheckpointError(
            f"{name} is {len(found)} tensors of {checkpoint.path}; name one of them, such as {found[0]}."
        )
    return found[0]


def _alike(checkpoint: Checkpoint, name: str) -> list[str]:
    """Names of tensors that may be meant: of the same role in the same block, or spelled alike."""
    tensors = checkpoint.tensors.values()
    meant = identify(name, None)
    if meant.role is not Role.OTHER:
        where = meant.role, meant.block, meant.expert
        same = [one.name for one in tensors if (one.role, one.block, one.expert) == where]
        if same and len(same) <= CLOSE:
            return same
    known = [*checkpoint.tensors, *(one.canonical for one in tensors if one.canonical)]
    return difflib.get_close_matches(name, known, CLOSE)


def without_statistics(checkpoint: Checkpoint, name: str) -> str | None:
    """Why there are no statistics of the tensor `name`, as a sentence; None where there are."""
    tensor = checkpoint.tensors[name]
    if not prod(tensor.shape):
        return f"{name} of {checkpoint.path} holds no weights."
    if tensor.role is Role.SCALE:
        return f"{name} of {checkpoint.path} only says how another tensor is to be read."
    if is_buffer(name):
        return f"{name} of {checkpoint.path} is a table that follows from the config, no weights."
    if tensor.dtype == "BOOL":
        return f"{name} of {checkpoint.path} holds yes and no (BOOL), no weights."
    if tensor.dtype in PLAIN_BITS and not tensor.dtype.startswith(("F", "BF")):
        return f"{name} of {checkpoint.path} holds whole numbers ({tensor.dtype}), no weights."
    return None


def gather(
    checkpoint: Checkpoint,
    name: str,
    *,
    threads: int | None = None,
    wanted: Callable[[], bool] = lambda: True,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Gathered | None:
    """Statistics of the tensor `name`, in the source or in GGUF; from the cache where they lie there.

    Who asks for what is just being gathered waits for it: views of one tensor read it once. None when they
    are no longer `wanted`, asked after each chunk; then, too, `told` how many rows are done, of how many.
    Raises `CheckpointError` where there is no such tensor, it holds no weights, or they cannot be read or are
    not finite.
    """
    name = source_name(checkpoint, name)
    known = cached(checkpoint, name)
    if known is not None:
        return known
    reason = without_statistics(checkpoint, name)
    if reason is not None:
        raise CheckpointError(reason)
    asked = checkpoint.stamp, name
    with _changed:
        while asked in _gathering:
            _changed.wait(WAIT)
            if not wanted():
                return None
        _gathering.add(asked)
    try:
        known = cached(checkpoint, name)
        return known or _gather(checkpoint, checkpoint.tensors[name], threads, wanted, told)
    finally:
        with _changed:
            _gathering.remove(asked)
            _changed.notify_all()


def _gather(
    checkpoint: Checkpoint,
    tensor: Tensor,
    threads: int | None,
    wanted: Callable[[], bool],
    told: Callable[[int, int], None],
) -> Gathered | None:
    height, width = matrix_shape(tensor)
    frame = _frame(checkpoint, tensor)
    step = max(1, CHUNK // width)
    starts = range(0, height, step)
    work = in_order(
        lambda start: _swept(checkpoint, tensor, frame, start, min(start + step, height)),
        starts,
        threads or len(os.sched_getaffinity(0)),
    )
    rows, columns, counts = [], no_sums(width), np.zeros(1 << 16, np.int64)
    with closing(work):
        for start, part in zip(starts, work, strict=True):
            rows.append(part.rows)
            add_sums(columns, part.columns)
            counts += part.counts
            told(min(start + step, height), height)
            if not wanted():
                return None
    sums = chained(rows)
    of_all = channels(whole(sums), height * width, frame)
    found = (
        channels(sums, width, frame).rounded(),
        channels(columns, height, frame).rounded(),
        Channels(*(np.array(value[0]) for value in vars(of_all).values())),
        counts,
    )
    statistics_cache.store(checkpoint, tensor, found)
    return _gathered(checkpoint, tensor, found)


def cached(checkpoint: Checkpoint, name: str) -> Gathered | None:
    """As `gather`, from the cache alone; None where it is not there."""
    tensor = checkpoint.tensors[source_name(checkpoint, name)]
    found = statistics_cache.load(checkpoint, tensor, *matrix_shape(tensor))
    return None if found is None else _gathered(checkpoint, tensor, found)


def all_statistics(
    checkpoint: Checkpoint, threads: int | None, listener: Listener = silent
) -> tuple[list[WeightStatistics], dict[str, str]]:
    """Of all tensors of the text part; and by name of a tensor, or of another part, why it is left out.

    Raises `NonFiniteError`, or what the system's refusal to read a file is.
    """
    if not is_ready():
        listener(Progress("compile", 0, 1, "kernels, once on this machine"))
        warm_up()
        listener(Progress("compile", 1, 1, "kernels, once on this machine"))
    found: list[WeightStatistics] = []
    left_out: dict[str, str] = {}
    total, before = sum(tensor.bytes for tensor in checkpoint.tensors.values()), 0
    for name, tensor in checkpoint.tensors.items():

        def told(rows: int, height: int) -> None:
            done = before + tensor.bytes * rows // height  # noqa: B023 - it is called within this turn
            listener(Progress("read weights", done, total, "bytes", name))  # noqa: B023

        told(0, 1)
        try:
            reason = without_statistics(checkpoint, name)
            gathered = None if reason else gather(checkpoint, name, threads=threads, told=told)
        except (PackedTensorError, UnknownTypeError) as error:
            reason, gathered = str(error), None
        if gathered is not None:
            found.append(statistics_of(checkpoint, gathered))
        elif reason is not None:
            left_out[name] = reason
        before += tensor.bytes
    listener(Progress("read weights", total, total, "bytes"))
    for part, count in checkpoint.summary().others.items():
        left_out[part] = f"{part} of {checkpoint.path}, {count} tensors outside of the text part."
    return found, left_out


def statistics_of(checkpoint: Checkpoint, gathered: Gathered) -> WeightStatistics:
    """What a table shows of a tensor, without what a recipe makes of it."""
    tensor, whole = checkpoint.tensors[gathered.tensor], gathered.whole
    worst, ratios = outlier_channels(gathered.inputs.absmax)
    if len(tensor.shape) < 2:  # no matrix: it has no inputs
        worst, ratios = worst[:0], np.zeros(1)
    mean, reach = float(whole.mean), SIGMAS * float(whole.std)
    just_below = float(np.nextafter(LARGE, 0))
    distribution = gathered.distribution
    return WeightStatistics(
        tensor=tensor.name,
        canonical=tensor.canonical or "",
        role=tensor.role,
        block=tensor.block,
        shape=tensor.shape,
        dtype=tensor.dtype,
        count=prod(tensor.shape),
        min=float(whole.min),
        max=float(whole.max),
        mean=mean,
        std=float(whole.std),
        absmax=float(whole.absmax),
        kurtosis=float(whole.kurtosis),
        zeros=float(whole.zeros),
        percentiles=distribution.percentiles(PERCENTS).tolist(),
        beyond_sigmas=round(distribution.outside(mean - reach, mean + reach)) if reach else 0,
        large=round(distribution.outside(-just_below, just_below)),
        outlier_channels=worst.tolist(),
        outlier_ratio=float(ratios.max()),
    )


def outlier_channels(absmax: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outliers' indices from the worst on, and for all channels the abs-max over the median channel's.

    Where most channels are all zeros, over the median of the others.
    """
    middle = float(np.median(absmax))
    if middle == 0 and absmax.any():
        middle = float(np.median(absmax[absmax > 0]))
    ratios = absmax / (middle or 1.0)
    order = np.argsort(-ratios, kind="stable")
    return order[ratios[order] >= OUTLIER_RATIO], ratios


def _gathered(checkpoint: Checkpoint, tensor: Tensor, found: statistics_cache.Found) -> Gathered:
    rows, columns, whole, counts = found
    outputs, inputs = (columns, rows) if is_transposed(checkpoint, tensor) else (rows, columns)
    distribution = Distribution(counts, float(whole.min), float(whole.max), exact=tensor.dtype == "BF16")
    return Gathered(tensor.name, tensor.shape, tensor.dtype, outputs, inputs, whole, distribution)


def _frame(checkpoint: Checkpoint, tensor: Tensor) -> Frame:
    height, _ = matrix_shape(tensor)
    some = np.unique(np.linspace(0, height - 1, SAMPLED_ROWS).astype(int))
    rows = [read_rows(checkpoint, tensor, row, row + 1, halves=True) for row in some.tolist()]
    return frame_of(np.concatenate(rows))


def _swept(checkpoint: Checkpoint, tensor: Tensor, frame: Frame, start: int, stop: int) -> Swept:
    sweep = Sweep(matrix_shape(tensor)[1], frame)
    for _, weights in pieces(checkpoint, tensor, start, stop, halves=True):
        if not sweep.add(np.ascontiguousarray(weights)):
            raise not_finite(checkpoint, tensor)
    return sweep.swept()
