"""What a recipe loses of one source tensor: squared errors as a whole, by channel, and by group.

Reads and encodes each weight once, in pieces of lines on several threads. The pieces depend on the tensor
alone, and their sums are added in the order of the tensor: any number of threads gives the same numbers.
"""

import os
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import log10, sqrt

import numpy as np

from engine.api.progress import Listener, Progress, silent
from engine.api.recipe import Recipe
from engine.api.statistics import QuantizationError, WeightStatistics
from engine.checkpoint import Checkpoint
from engine.parallel import in_order
from engine.quantized_weights import NotInOutputError, Piece, Quantized, applied, quantized
from engine.writing import load_kernels

__all__ = [
    "Errors",
    "NotInOutputError",
    "Piece",
    "Quantized",
    "applied",
    "error_of",
    "errors_of",
    "measure_errors",
    "quantized",
    "with_errors",
]

STRIP = 1 << 14
"""Weights that are summed at a time: their float64 stay in the cache, and in memory that is there already.
Fresh pages for a whole piece took five times as long as its sums."""

NOTHING = 1e-12
"""Of the squares of weights: what is stored has been rounded to 0 where its squares are less."""

REMEMBERED = 64
"""Tensors whose errors stay in memory: some hundred kilobytes each."""

_remembered: dict[Hashable, "Errors"] = {}


@dataclass(frozen=True)
class Errors:
    """Squared errors of each output and input channel, float64, and of each group, float32 [output channels,
    groups of one] (None where not asked for), over what one of them has on average of the squared weights.

    So their mean is the relative squared error of the whole, and a channel stands out that adds much to it:
    over its own squares a channel of next to nothing would.
    `clip`: the lowest and highest value that any group can hold; None where each weight is a float.
    """

    whole: QuantizationError
    by_output: np.ndarray
    by_input: np.ndarray
    by_group: np.ndarray | None
    clip: tuple[float, float] | None


@dataclass
class _Sums:
    """Of one piece or of several, in float64.

    lost_by_input: squared errors [width]; products: of weights times errors.
    used: int64 [256], weights by the byte of their code; saturated: those at an end of the grid.
    """

    lost_by_input: np.ndarray
    products: float = 0.0
    used: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    saturated: int = 0
    clips: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, width: int) -> "_Sums":
        """Of nothing yet."""
        return cls(np.zeros(width))

    def add(self, other: "_Sums") -> None:
        self.lost_by_input += other.lost_by_input
        self.products += other.products
        self.used += other.used
        self.saturated += other.saturated
        self.clips += other.clips


@dataclass(frozen=True)
class _Summed:
    """A piece: `lost` and `there`, its squared errors and weights by group, float64 [lines, groups]."""

    lines: slice
    lost: np.ndarray
    there: np.ndarray
    sums: _Sums


def measure_errors(
    quantized: Quantized,
    wanted: Callable[[], bool] = lambda: True,
    *,
    groups: bool = True,
    threads: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Errors | None:
    """The errors of all weights; None when they are no longer `wanted`, asked between pieces.

    `groups`: also those of each group, a number for each. `threads`: None for all cores. `told`: after each
    piece, how many lines are done, of how many.
    Raises what `Quantized.piece` raises.
    """
    lines = quantized.lines
    by_group = np.empty((lines, quantized.width // quantized.group), np.float32) if groups else None
    lost, there = np.empty(lines), np.empty(lines)
    total = _Sums.of(quantized.width)
    with closing(_pieces(quantized, threads)) as pieces:
        for piece in pieces:
            told(piece.lines.stop, lines)
            if not wanted():
                return None
            total.add(piece.sums)
            lost[piece.lines], there[piece.lines] = piece.lost.sum(axis=1), piece.there.sum(axis=1)
            if by_group is not None:
                by_group[piece.lines] = piece.lost
    weight = float(there.sum())
    by_input = _over_mean(total.lost_by_input, weight)
    whole = _whole(quantized, float(lost.sum()), weight, total, by_input)
    by_group = None if by_group is None else _over_mean(by_group, weight)
    ends = (min(low for low, _ in total.clips), max(high for _, high in total.clips)) if total.clips else None
    return Errors(whole, _over_mean(lost, weight), by_input, by_group, ends)


def errors_of(quantized: Quantized, wanted: Callable[[], bool] = lambda: True) -> Errors | None:
    """`measure_errors` without groups, remembered: going back to one of the last tensors costs nothing."""
    errors = _remembered.pop(quantized.identity, None) or measure_errors(quantized, wanted, groups=False)
    if errors is not None:
        _remembered[quantized.identity] = errors
        for older in list(_remembered)[:-REMEMBERED]:
            _remembered.pop(older, None)
    return errors


def error_of(
    checkpoint: Checkpoint, recipe: Recipe, tensor: str, wanted: Callable[[], bool] = lambda: True
) -> QuantizationError | None:
    """What `recipe` loses of a source tensor, by `errors_of`; None where the tensor is not in the output, or
    where it is no longer `wanted`."""
    try:
        errors = errors_of(quantized(checkpoint, recipe, tensor), wanted)
    except NotInOutputError:
        return None
    return None if errors is None else errors.whole


def with_errors(
    found: Sequence[WeightStatistics],
    checkpoint: Checkpoint,
    recipe: Recipe,
    threads: int | None = None,
    listener: Listener = silent,
) -> tuple[list[WeightStatistics], dict[str, str]]:
    """`found` with what `recipe` loses of each; and by name of a tensor why nothing can be said of it."""
    made_of = applied(checkpoint, recipe)
    load_kernels(made_of.plan, listener)
    told, without = [], {}
    total, before = sum(one.count for one in found), 0
    for one in found:

        def progress(lines: int, height: int) -> None:
            done = before + one.count * lines // height  # noqa: B023 - it is called within this turn
            listener(Progress("quantize", done, total, "weights", one.tensor))  # noqa: B023

        progress(0, 1)
        error = None
        try:
            made = made_of.quantized(one.tensor)
            errors = measure_errors(made, groups=False, threads=threads, told=progress)
            error = None if errors is None else errors.whole
        except NotInOutputError as reason:
            without[one.tensor] = str(reason)
        told.append(one.model_copy(update={"error": error}))
        before += one.count
    listener(Progress("quantize", total, total, "weights"))
    return told, without


def _pieces(quantized: Quantized, threads: int | None) -> Generator[_Summed, None, None]:
    """Each piece summed, in their order."""
    return in_order(
        lambda bounds: _summed(quantized.piece(*bounds), quantized.group),
        quantized.bounds(),
        threads or len(os.sched_getaffinity(0)),
    )


def _summed(piece: Piece, group: int) -> _Summed:
    lines, width = piece.weights.shape
    lost, there = np.empty((lines, width // group)), np.empty((lines, width // group))
    sums = _Sums.of(width)
    step = max(1, STRIP // width)
    weights, errors = np.empty((step, width)), np.empty((step, width))
    for start in range(0, lines, step):
        strip = slice(start, min(start + step, lines))
        height = strip.stop - start
        wide, wrong = weights[:height], errors[:height]
        np.copyto(wide, piece.weights[strip])
        np.subtract(piece.values[strip], wide, out=wrong)
        there[strip] = _squared(wide.reshape(height, -1, group), "ijk, ijk -> ij")
        lost[strip] = _squared(wrong.reshape(height, -1, group), "ijk, ijk -> ij")
        sums.lost_by_input += _squared(wrong, "ij, ij -> j")
        sums.products += float(np.einsum("ij, ij ->", wide, wrong))
    if piece.coded is not None:
        sums.used = np.bincount(piece.coded.codes.view(np.uint8).reshape(-1), minlength=256)
        grid = piece.coded.grid.codes
        sums.saturated = int(sums.used[[grid.low % 256, grid.high % 256]].sum())
        lowest, highest = piece.coded.ends()
        sums.clips = [(float(lowest.min()), float(highest.max()))]
    return _Summed(slice(piece.start, piece.stop), lost, there, sums)


def _squared(values: np.ndarray, axes: str) -> np.ndarray:
    """Sums of squares, without an array of squares."""
    return np.einsum(axes, values, values)


def _over_mean(lost: np.ndarray, there: float) -> np.ndarray:
    """Squared errors by channel or group over the mean of their squared weights, `there` all together."""
    return lost * lost.dtype.type(lost.size / there if there else 0.0)


def _whole(
    quantized: Quantized, lost: float, there: float, total: _Sums, by_input: np.ndarray
) -> QuantizationError:
    count = quantized.lines * quantized.width
    coded = int(total.used.sum())
    squared = lost / there if there else 0.0  # a tensor of zeros stays so in every format
    stored = there + 2 * total.products + lost  # of weights with their errors, squared
    norms = sqrt(there * stored) if stored > NOTHING * there else 0.0
    worst, worst_error = _worst(quantized, by_input)
    return QuantizationError(
        format=quantized.format,
        method=quantized.method,
        squared=squared,
        mean_squared=lost / count,
        snr=-10 * log10(squared) + 0.0 if squared else None,  # no -0
        cosine=(there + total.products) / norms if norms else float(there == lost == 0),
        saturation=total.saturated / coded if coded else None,
        levels_used=int(np.count_nonzero(total.used)) if coded else None,
        levels=quantized.levels if coded else None,
        worst_channel=worst,
        worst_channel_error=worst_error,
    )


def _worst(quantized: Quantized, by_input: np.ndarray) -> tuple[int | None, float | None]:
    """The input channel of which most is lost, and how much."""
    if not quantized.is_matrix or not by_input.any():
        return None, None
    worst = int(by_input.argmax())
    return worst, float(by_input[worst])
