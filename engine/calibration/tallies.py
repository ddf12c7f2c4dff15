"""What is gathered of the rows that pass a place of a model: moments, range, distribution, samples, peaks.

Moments, ranges and the distribution come from one sweep over each batch (kernels/statistics.py), and add up.
Percentiles are those of a sample: every row gets a random number of its own, by the seed and its place in the
order of rows, and the rows with the smallest numbers are kept. So each row has the same chance, nothing must
be known of how many will come, and the sample does not depend on where a job was broken off. Where no more
rows come than are kept, percentiles are exact.

Batches come in their order, so that the same batches give the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.api.statistics import LARGE, PERCENTS
from engine.calibration.array_files import Array
from kernels.cpu.statistics import BINS, Sums
from kernels.statistics import (
    Channels,
    Distribution,
    Frame,
    Sweep,
    add_sums,
    channels,
    frame_of,
    no_sums,
)

PEAKS = 16
"""Tokens with the largest values that are kept."""

PIECE = 256
"""Rows, and columns, that are looked at at a time: what is made of them on the way takes little memory."""

NOWHERE = -1
"""Window and position of a token whose place in the text cannot be seen."""


@dataclass
class Tally:
    """Of `rows` rows so far. `numbers` and `sample` have room for those that are kept for percentiles.

    `frame` float32 [2]: the pivot and the unit of the powers. `powers` float64 [4, columns]: their sums.
    `low`, `high` float32 [columns]; `zeros`, `beyond` int64 [columns]; `counts` int64 [65536]. `numbers`
    uint64 [room] and `sample` float32 [room, columns], of which as many count as there are rows. `peaks`
    float64 [n, 4], largest magnitude first: value, window, position, channel. `batches` float64 [n, 2]: the
    range of each batch. `places` int64 [room, 3]: window, position and matrix of each row of the sample.
    """

    seed: int
    rows: int
    frame: np.ndarray
    powers: np.ndarray
    low: np.ndarray
    high: np.ndarray
    zeros: np.ndarray
    beyond: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray
    sample: np.ndarray
    places: np.ndarray
    peaks: np.ndarray
    batches: np.ndarray

    @classmethod
    def empty(cls, columns: int, room: int, seed: int) -> "Tally":
        sums = no_sums(columns)
        return cls(
            seed=seed,
            rows=0,
            frame=np.ones(2, np.float32),
            powers=sums.powers,
            low=sums.low,
            high=sums.high,
            zeros=sums.zeros,
            beyond=np.zeros(columns, np.int64),
            counts=np.zeros(BINS, np.int64),
            numbers=np.empty(room, np.uint64),
            sample=np.empty((room, columns), np.float32),  # takes no memory before it is filled
            places=np.empty((room, 3), np.int64),
            peaks=np.empty((0, 4)),
            batches=np.empty((0, 2)),
        )

    @property
    def sampled(self) -> int:
        return min(self.rows, len(self.numbers))

    def begin_batch(self) -> None:
        """What is added from now on belongs to one batch."""
        self.batches = np.concatenate([self.batches, [[np.inf, -np.inf]]])

    def add(self, rows: np.ndarray, places: np.ndarray, matrix: int = 0) -> None:
        """`rows` float32 [n, columns] of the tokens at `places` int64 [n, 2]: window and position.

        `matrix`: the one of a stack that they are multiplied with.

        Raises `FloatingPointError` for a value that is not finite.
        """
        if not self.rows:
            self.frame = np.array([0, frame_of(rows).scale], np.float32)
        sweep = Sweep(rows.shape[1], self._frame)
        if not sweep.add(rows):
            raise FloatingPointError
        swept = sweep.swept()
        add_sums(self._sums, swept.columns)
        self.counts += swept.counts
        low, high = swept.rows.low, swept.rows.high
        self.batches[-1] = min(self.batches[-1, 0], low.min()), max(self.batches[-1, 1], high.max())
        magnitudes = np.maximum(-low, high)
        self._count_large(rows[magnitudes >= LARGE])
        self._note_peaks(rows, magnitudes, places)
        self._keep(rows, np.column_stack([places, np.full(len(rows), matrix)]))
        self.rows += len(rows)

    @property
    def _frame(self) -> Frame:
        return Frame(self.frame[0], self.frame[1])

    @property
    def _sums(self) -> Sums:
        return Sums(self.powers, self.low, self.high, self.zeros)

    def _count_large(self, rows: np.ndarray) -> None:
        for at in range(0, len(rows), PIECE):
            self.beyond += (np.abs(rows[at : at + PIECE]) >= LARGE).sum(axis=0)

    def _note_peaks(self, rows: np.ndarray, magnitudes: np.ndarray, places: np.ndarray) -> None:
        at = np.argsort(-magnitudes, kind="stable")[:PEAKS]
        worst = np.abs(rows[at]).argmax(axis=1)
        both = np.concatenate([self.peaks, np.column_stack([rows[at, worst], places[at], worst])])
        order = np.lexsort((both[:, 2], both[:, 1], -np.abs(both[:, 0])))
        self.peaks = both[order[:PEAKS]]

    def _keep(self, rows: np.ndarray, places: np.ndarray) -> None:
        """Put those of the rows that belong to it into the sample, in their order as long as all do."""
        numbers = random_numbers(self.seed, self.rows, len(rows))
        held, room = self.sampled, len(self.numbers)
        free = min(len(rows), room - held)
        new = slice(held, held + free)
        self.numbers[new], self.sample[new], self.places[new] = numbers[:free], rows[:free], places[:free]
        if free == len(rows):
            return
        smallest = np.argpartition(np.concatenate([self.numbers, numbers[free:]]), room - 1)[:room]
        come = np.sort(smallest[smallest >= room]) - room + free
        gone = np.setdiff1d(np.arange(room), smallest)
        self.numbers[gone], self.sample[gone], self.places[gone] = numbers[come], rows[come], places[come]

    @property
    def channels(self) -> Channels:
        return channels(self._sums, self.rows, self._frame)

    @property
    def distribution(self) -> Distribution:
        return Distribution(self.counts, float(self.low.min()), float(self.high.max()))

    @property
    def percentiles(self) -> np.ndarray:
        """float32 [percents, columns]."""
        found = np.empty((len(PERCENTS), self.beyond.size), np.float32)
        for at in range(0, self.beyond.size, PIECE):
            piece = self.sample[: self.sampled, at : at + PIECE]
            found[:, at : at + PIECE] = np.percentile(piece, PERCENTS, axis=0)
        return found

    def arrays(self, prefix: str) -> dict[str, Array]:
        """All that it knows, for a file."""
        numbers = np.array([self.seed, self.rows, len(self.numbers)])
        named = {name: getattr(self, name) for name in _ARRAYS}
        named |= {name: named[name][: self.sampled] for name in _OF_SAMPLE}
        return {f"{prefix}{name}": array for name, array in {"state": numbers, **named}.items()}

    @classmethod
    def from_arrays(cls, prefix: str, read: Callable[[str], np.ndarray]) -> "Tally":
        """The same again, of what `arrays` gave."""
        seed, rows, room = (int(number) for number in read(f"{prefix}state"))
        named = {name: read(prefix + name) for name in _ARRAYS}
        tally = cls.empty(named["zeros"].size, room, seed)
        for name in _OF_SAMPLE:
            held = named.pop(name)
            getattr(tally, name)[: len(held)] = held
        for name, array in named.items():
            setattr(tally, name, array)
        tally.rows = rows
        return tally


_OF_SAMPLE = ("numbers", "sample", "places")
_ARRAYS = (
    "frame", "powers", "low", "high", "zeros", "beyond", "counts", *_OF_SAMPLE, "peaks", "batches"
)  # fmt: skip


def no_range(*shape: int) -> np.ndarray:
    """float64 [2, *shape]: least and largest of nothing."""
    return np.stack([np.full(shape, np.inf), np.full(shape, -np.inf)])


def random_numbers(seed: int, first: int, count: int) -> np.ndarray:
    """uint64 [count]: those of the rows from `first` on, each by itself (SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state += np.uint64(seed) << np.uint64(32)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
