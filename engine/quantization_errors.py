"""What a recipe loses of one source tensor: squared errors as a whole, by channel, and by group.

Reads and encodes each weight once, in pieces of lines on several threads. The pieces depend on the tensor
alone, and their sums are added in the order of the tensor: any number of threads gives the same numbers.
"""

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from math import log10, sqrt

import numpy as np

from engine.api.statistics import QuantizationError
from engine.parallel import in_order
from engine.quantized_weights import Applied, Piece, Quantized, quantized

__all__ = ["Applied", "Errors", "Piece", "Quantized", "measure_errors", "quantized"]


@dataclass(frozen=True)
class Errors:
    """Sums of squared errors over sums of squared weights: of the tensor, of each output and input channel,
    float64, and of each group, float32 [output channels, groups of one] (None where not asked for).

    Where all weights are 0: 0 if they stay so, else NaN. Output channels are the rows of the source, input
    channels its columns; the other way round where it is transposed (`Quantized.transposed`).
    `clip`: the lowest and highest value that any group can hold; None where each weight is a float.
    """

    whole: QuantizationError
    by_output: np.ndarray
    by_input: np.ndarray
    by_group: np.ndarray | None
    clip: tuple[float, float] | None


@dataclass(frozen=True)
class _Sums:
    """Of one piece, in float64.

    lost, there: squared errors and weights by group, [lines, groups], and by input channel, [width].
    stored, products: of the squared stored values, and of weights times stored values.
    used: int64 [256], weights by the byte of their code; saturated: those at an end of the grid.
    """

    lost: np.ndarray
    there: np.ndarray
    lost_by_input: np.ndarray
    there_by_input: np.ndarray
    stored: float
    products: float
    used: np.ndarray
    saturated: int
    clip: tuple[float, float] | None


@dataclass
class _Total:
    """What pieces add up to."""

    lost_by_input: np.ndarray
    there_by_input: np.ndarray
    stored: float = 0.0
    products: float = 0.0
    used: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    saturated: int = 0
    clips: list[tuple[float, float]] = field(default_factory=list)

    def add(self, sums: _Sums) -> None:
        self.lost_by_input += sums.lost_by_input
        self.there_by_input += sums.there_by_input
        self.stored += sums.stored
        self.products += sums.products
        self.used += sums.used
        self.saturated += sums.saturated
        if sums.clip is not None:
            self.clips.append(sums.clip)


def measure_errors(
    quantized: Quantized,
    wanted: Callable[[], bool] = lambda: True,
    *,
    groups: bool = True,
    threads: int | None = None,
) -> Errors | None:
    """The errors of all weights; None when they are no longer `wanted`, asked between pieces.

    `groups`: also those of each group, a number for each. `threads`: None for all cores.
    Raises what `Quantized.piece` raises.
    """
    lines = quantized.lines
    by_group = np.empty((lines, quantized.width // quantized.group), np.float32) if groups else None
    lost, there = np.empty(lines), np.empty(lines)
    total = _Total(np.zeros(quantized.width), np.zeros(quantized.width))
    with closing(_summed(quantized, threads)) as pieces:
        for (start, stop), sums in pieces:
            if not wanted():
                return None
            total.add(sums)
            lost[start:stop], there[start:stop] = sums.lost.sum(axis=1), sums.there.sum(axis=1)
            if by_group is not None:
                by_group[start:stop] = _relative(sums.lost, sums.there)
    whole = _whole(quantized, float(lost.sum()), float(there.sum()), total)
    by_input = _relative(total.lost_by_input, total.there_by_input)
    ends = (min(low for low, _ in total.clips), max(high for _, high in total.clips)) if total.clips else None
    return Errors(whole, _relative(lost, there), by_input, by_group, ends)


def _summed(
    quantized: Quantized, threads: int | None
) -> Generator[tuple[tuple[int, int], _Sums], None, None]:
    """The sums of each piece and which lines it is, in their order."""

    def work(bounds: tuple[int, int]) -> tuple[tuple[int, int], _Sums]:
        return bounds, _sums(quantized.piece(*bounds), quantized.group)

    return in_order(work, quantized.bounds(), threads or len(os.sched_getaffinity(0)))


def _sums(piece: Piece, group: int) -> _Sums:
    weights = piece.weights.astype(np.float64)
    values = piece.values.astype(np.float64)
    shape = (len(weights), -1, group)
    squares = weights * weights
    errors = values - weights
    errors *= errors
    used, saturated, clip = np.zeros(256, np.int64), 0, None
    if piece.coded is not None:
        used = np.bincount(piece.coded.codes.view(np.uint8).reshape(-1), minlength=256)
        grid = piece.coded.grid.codes
        saturated = int(used[[grid.low % 256, grid.high % 256]].sum())
        lowest, highest = piece.coded.ends()
        clip = float(lowest.min()), float(highest.max())
    return _Sums(
        lost=errors.reshape(shape).sum(axis=-1),
        there=squares.reshape(shape).sum(axis=-1),
        lost_by_input=errors.sum(axis=0),
        there_by_input=squares.sum(axis=0),
        stored=float(np.square(values).sum()),
        products=float((weights * values).sum()),
        used=used,
        saturated=saturated,
        clip=clip,
    )


def _relative(lost: np.ndarray, there: np.ndarray) -> np.ndarray:
    """`lost` over `there`: where nothing is there, 0 for nothing lost, else NaN."""
    nothing = np.where(lost == 0, 0.0, np.nan)
    return np.divide(lost, there, out=nothing, where=there > 0)


def _whole(quantized: Quantized, lost: float, there: float, total: _Total) -> QuantizationError:
    count = quantized.lines * quantized.width
    coded = int(total.used.sum())
    squared = lost / there if there else 0.0  # a tensor of zeros stays so in every format
    both = there * total.stored
    return QuantizationError(
        format=quantized.format,
        method=quantized.method,
        squared=squared,
        mean_squared=lost / count,
        snr=-10 * log10(squared) if squared else None,
        cosine=total.products / sqrt(both) if both else float(there == total.stored),
        saturation=total.saturated / coded if coded else None,
        levels_used=int(np.count_nonzero(total.used)) if coded else None,
        levels=quantized.levels if coded else None,
    )
