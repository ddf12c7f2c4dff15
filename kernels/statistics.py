"""Statistics of weights: of each row, each column and the whole of a matrix, from one reading of it.

`Sweep` adds up pieces of rows; `channels` makes figures of the sums. Sums are of powers around a pivot, in a
unit that gives them a usual size: `frame_of` takes both from some of the weights. They are exact to six
digits, but for channels whose mean is many standard deviations away from the pivot: ten cost the kurtosis
three of them, and beyond `FARTHEST` none are left.

These functions check, allocate and launch; the CPU is the one backend so far.
"""

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from kernels.compiled import first_call, is_compiled
from kernels.cpu.statistics import BINS, POWERS, TABLES, Sums, Weights
from kernels.cpu.statistics import sweep as _sweep
from kernels.cpu.tiles import BF16, F16, F32

_called: list[bool] = []
"""Not empty once the kernel is loaded."""

_NO_WEIGHTS = np.empty(0, np.float32)
_SAMPLE = 1 << 14
"""Weights that the pivot and the unit are taken from."""

_FAR = 0.5
"""Weights whose mean is nearer to 0, in standard deviations, are taken around 0: what is tiny stays exact."""

FARTHEST = 32.0
"""Of channels whose mean is farther from the pivot, in standard deviations, the kurtosis is not known."""

_NEGATIVE = BINS // 2


@dataclass(frozen=True)
class Channels:
    """Statistics of n channels: float64 [n], or 0-d of a whole tensor.

    `std`: of the weights themselves, not of a population that they are drawn from. `kurtosis`: the fourth
    standardized moment, 3 for a normal distribution; 0 where all weights are equal, or nearly so beside how
    far they are from the others (`FARTHEST`). `zeros`: the share of 0.
    """

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    absmax: np.ndarray
    kurtosis: np.ndarray
    zeros: np.ndarray

    def rounded(self) -> "Channels":
        """The same with figures as float32 holds them: half as much to store."""
        return Channels(*(getattr(self, each.name).astype(np.float32).astype(float) for each in fields(self)))


@dataclass(frozen=True)
class Distribution:
    """How many weights lie in each of 65,536 bins: those with the same upper 16 bits as float32.

    counts: int64 [65536], in ascending order of values: the bins of -0 and 0 are 32767 and 32768. `low`,
    `high`: the least and the largest weight. `exact`: each bin holds one value only (BF16); else values are
    taken to be spread evenly over their bin, which is 2^-7 of them wide.
    """

    counts: np.ndarray
    low: float
    high: float
    exact: bool = field(default=False)

    @property
    def edges(self) -> np.ndarray:
        """float64 [65537], ascending: bin i reaches from edges[i] to edges[i + 1]."""
        return _EDGES

    @cached_property
    def _upper(self) -> np.ndarray:
        """int64 [65536]: the weights up to the end of each bin."""
        return np.cumsum(self.counts)

    @property
    def total(self) -> int:
        return int(self._upper[-1])

    def percentiles(self, percents: np.ndarray | tuple[float, ...]) -> np.ndarray:
        """float64: values below which so many percent lie, between ranks as `numpy.percentile` does it."""
        ranks = np.asarray(percents, float) / 100 * (self.total - 1)
        below = np.floor(ranks)
        first, second = self._at_ranks(below), self._at_ranks(np.ceil(ranks))
        return first + (second - first) * (ranks - below)

    def _at_ranks(self, ranks: np.ndarray) -> np.ndarray:
        """The values of these whole numbers in the order of all values."""
        places = np.searchsorted(self._upper, ranks, side="right")
        if self.exact:
            return _VALUES[places]
        inside = ranks - (self._upper[places] - self.counts[places])
        width = _EDGES[places + 1] - _EDGES[places]
        found = _EDGES[places] + width * (inside + 0.5) / self.counts[places]
        found = np.where(ranks == 0, self.low, np.where(ranks == self.total - 1, self.high, found))
        return np.clip(found, self.low, self.high)

    def up_to(self, x: float) -> float:
        """How many weights are `x` or less."""
        if x >= self.high:
            return float(self.total)
        if x < self.low:
            return 0.0
        if self.exact:
            return float(self._upper[np.searchsorted(_VALUES, x, side="right") - 1])
        place = int(np.searchsorted(_EDGES, x, side="right")) - 1
        # What lies in the bin, lies between the least and the largest weight.
        low, high = max(_EDGES[place], self.low), min(_EDGES[place + 1], self.high)
        part = (x - low) / (high - low) if high > low else 1.0
        return float(self._upper[place] - self.counts[place] * (1 - part))

    def outside(self, low: float, high: float) -> float:
        """How many weights are less than `low` or more than `high`."""
        below = self.up_to(float(np.nextafter(low, -np.inf)))
        return below + self.total - self.up_to(high)


def _bin_values() -> np.ndarray:
    """float64 [65536], ascending: the number of each bin that is nearest to 0; 2^128 for Inf, NaN."""
    finite = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32).astype(float)
    sizes = np.append(finite, np.full(_NEGATIVE - finite.size, 2.0**128))
    return np.concatenate([-sizes[::-1], sizes])


_VALUES = _bin_values()
_EDGES = np.concatenate([_VALUES[:1], _VALUES[:_NEGATIVE], _VALUES[_NEGATIVE + 1 :], _VALUES[-1:]]) + 0.0


@dataclass(frozen=True)
class Frame:
    """Around what and in which unit powers are summed: y = (x - pivot) * scale."""

    pivot: np.float32
    scale: np.float32


@dataclass(frozen=True)
class Swept:
    """What a piece of rows adds up to; `counts` int64 [65536] as a `Distribution` has them."""

    rows: Sums
    columns: Sums
    counts: np.ndarray


def frame_of(weights: np.ndarray) -> Frame:
    """A frame for a matrix of which these weights are a part (as for `Sweep.add`), NaN and Inf aside."""
    flat = weights.reshape(-1)
    some = _as_float32(flat[:: max(1, flat.size // _SAMPLE)]).astype(float)
    some = some[np.isfinite(some)]
    mean, spread = (float(some.mean()), float(some.std())) if some.size else (0.0, 0.0)
    if abs(mean) < _FAR * spread:
        mean, spread = 0.0, float(np.sqrt(np.square(some).mean()))
    unit = spread or abs(mean)
    scale = 2.0 ** np.clip(-np.round(np.log2(unit)), -126, 126) if unit else 1.0
    return Frame(np.float32(mean), np.float32(scale))


class Sweep:
    """Gathers one piece of a matrix of `columns`: `add` rows one after the other, then take what was `swept`.

    However a matrix is cut into `add`s of one sweep, figures differ in their last digits at most; sweeps of
    the same pieces give the same to the bit, in whatever threads they run.
    """

    def __init__(self, columns: int, frame: Frame) -> None:
        self._columns, self._frame = no_sums(columns), frame
        self._rows: list[Sums] = []
        self._counts = np.zeros(TABLES * BINS, np.uint32)

    def add(self, weights: np.ndarray) -> bool:
        """C-contiguous [rows, columns], float32, float16, or uint16 for bfloat16's bits; not 2^32 in all.

        False, and all is void, where one is NaN or Inf. Releases the interpreter lock.
        """
        rows = no_sums(len(weights))
        given = (_described(weights, self._frame), rows, self._columns, self._counts)
        if _called:
            finite = _sweep(*given)
        else:
            finite = first_call(_sweep, *given)
            _called.append(True)
        self._rows.append(rows)
        return bool(finite)

    def swept(self) -> Swept:
        counts = self._counts.reshape(TABLES, BINS).sum(axis=0, dtype=np.int64)
        ascending = np.concatenate([counts[_NEGATIVE:][::-1], counts[:_NEGATIVE]])
        return Swept(chained(self._rows), self._columns, ascending)


def is_ready() -> bool:
    """Whether nothing must be compiled, which takes seconds."""
    return bool(_called) or is_compiled("sweep", "statistics")


def warm_up() -> None:
    """Compile what is not compiled yet."""
    Sweep(1, Frame(np.float32(0), np.float32(1))).add(np.ones((1, 1), np.float32))


def no_sums(count: int) -> Sums:
    """Of so many rows or columns, nothing gathered yet."""
    nothing = np.float32(np.inf)
    ranges = np.full(count, nothing), np.full(count, -nothing)
    return Sums(np.zeros((POWERS, count)), *ranges, np.zeros(count, np.int64))


def chained(parts: list[Sums]) -> Sums:
    """Those of several parts, one behind the other."""
    powers, low, high, zeros = zip(*parts, strict=True)
    return Sums(np.concatenate(powers, axis=1), *map(np.concatenate, (low, high, zeros)))


def add_sums(total: Sums, part: Sums) -> None:
    """What a part has gathered of the same columns, to `total`."""
    np.add(total.powers, part.powers, out=total.powers)
    np.minimum(total.low, part.low, out=total.low)
    np.maximum(total.high, part.high, out=total.high)
    np.add(total.zeros, part.zeros, out=total.zeros)


def whole(rows: Sums) -> Sums:
    """All rows as one: [1]."""
    powers = rows.powers.sum(axis=1, keepdims=True)
    return Sums(powers, *(np.array([x]) for x in (rows.low.min(), rows.high.max(), rows.zeros.sum())))


def channels(sums: Sums, count: int, frame: Frame) -> Channels:
    """Statistics of channels of `count` weights each, of what was gathered of them in that frame."""
    first, second, third, fourth = sums.powers / count
    squares = np.square(first)
    spread = np.maximum(second - squares, 0)
    central = fourth - 4 * first * third + 6 * squares * second - 3 * squares * squares
    scale, pivot = float(frame.scale), float(frame.pivot)
    low, high = sums.low.astype(float), sums.high.astype(float)
    alike = low == high
    known = ~alike & (squares < FARTHEST**2 * spread)
    kurtosis = np.divide(central, np.square(spread), out=np.zeros_like(spread), where=known)
    return Channels(
        min=low,
        max=high,
        mean=np.where(alike, low, pivot + first / scale),
        std=np.where(alike, 0.0, np.sqrt(spread) / scale),
        absmax=np.maximum(-low, high),
        kurtosis=np.where(known, np.maximum(kurtosis, 1.0), 0.0),  # less there is not, but by rounding
        zeros=sums.zeros / count,
    )


def _described(weights: np.ndarray, frame: Frame) -> Weights:
    flat, columns = weights.reshape(-1), weights.shape[1]
    if flat.dtype != np.float32:
        kind, halves = F16 if flat.dtype == np.float16 else BF16, flat.view(np.uint16)
        return Weights(_sealed(_NO_WEIGHTS), _sealed(halves), kind, columns, frame.pivot, frame.scale)
    return Weights(_sealed(flat), _sealed(flat.view(np.uint16)), F32, columns, frame.pivot, frame.scale)


def _as_float32(weights: np.ndarray) -> np.ndarray:
    if weights.dtype == np.uint16:
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return weights.astype(np.float32)


def _sealed(array: np.ndarray) -> np.ndarray:
    """Read-only: the kernel is then compiled once, for arrays of either kind."""
    view = array.view()
    view.flags.writeable = False
    return view
