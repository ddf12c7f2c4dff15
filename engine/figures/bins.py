"""Bins of equal width, what is counted into them, and the figure that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.api.figures import Axis, Figure, Mark, Series
from engine.api.statistics import PERCENTS
from engine.figures.drawn import Drawn
from kernels.statistics import Distribution

MOST_BINS = 4000
BINS_IN_DEVIATION = 8
"""So many bins to a standard deviation are wished for: a few outliers must not leave the rest in one bin."""


@dataclass(frozen=True)
class Bins:
    """`count` bins from `low` on, each `width` wide; the last one holds its upper end, too."""

    low: float
    width: float
    count: int

    @classmethod
    def over(cls, minimum: float, maximum: float, wished: int, deviation: float) -> "Bins":
        """From the minimum to the maximum: `wished` bins, or as many more as `BINS_IN_DEVIATION` asks for.

        Values that are all the same stand in the middle of a bin.
        """
        spread = maximum - minimum
        if spread == 0:
            width = max(abs(minimum), 1.0) / wished
            return cls(minimum - width * (wished // 2 + 0.5), width, wished)
        most = BINS_IN_DEVIATION * spread / deviation if deviation > 0 else wished
        count = int(min(max(wished, most), max(wished, MOST_BINS)))
        return cls(minimum, spread / count, count)

    @classmethod
    def of(cls, values: np.ndarray, wished: int, *, few: bool = False) -> "Bins":
        """Over the values, at least one. `few`: no more than are `wished`."""
        deviation = 0.0 if few else float(values.std(dtype=np.float64))
        return cls.over(float(values.min()), float(values.max()), wished, deviation)

    @property
    def edges(self) -> np.ndarray:
        """float64 [count + 1]"""
        return self.low + self.width * np.arange(self.count + 1)

    def beyond(self) -> "Bins":
        """These, and as many again on either side."""
        return Bins(self.low - self.count * self.width, self.width, 3 * self.count)

    def counted(self, values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """How many of the values are in each, float64 [count]; those outside in the outermost.

        `counts`: how often each value is there; None: once.
        """
        places = ((values.reshape(-1) - np.float64(self.low)) / self.width).astype(np.int64)
        places = places.clip(0, self.count - 1)
        return np.bincount(places, counts, minlength=self.count).astype(np.float64)

    def spread(self, found: Distribution) -> np.ndarray:
        """What `found` says that is in each, float64 [count]: exactly where it knows every value."""
        edges = found.edges
        if found.exact:
            held = found.counts.nonzero()[0]
            values = np.where(edges[:-1] >= 0, edges[:-1], edges[1:])  # the end of a bin that is nearer to 0
            return self.counted(values[held], found.counts[held])
        return self.shared(np.clip(edges, found.low, found.high), found.counts)

    def shared(self, edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Of `counts` between ascending `edges` [counts + 1], float64 [count]: each evenly over its width."""
        below = np.concatenate(([0], np.cumsum(counts)))
        inner = np.interp(self.edges[1:-1], edges, below)
        return np.diff(np.concatenate(([0], inner, below[-1:])))

    def series(self, name: str, counts: np.ndarray) -> Series:
        """Without the empty bins at both ends. Estimated counts become whole ones of the same sum."""
        counts = np.diff(np.rint(np.cumsum(counts)), prepend=0)
        held = np.flatnonzero(counts)
        first, stop = (int(held[0]), int(held[-1]) + 1) if held.size else (0, 0)
        edges, inside = self.edges[first:stop].tolist(), counts[first:stop].tolist()
        return Series(name=name, x=edges, y=inside, width=self.width)


def percentile_marks(values: np.ndarray) -> list[Mark]:
    """Those of `PERCENTS`."""
    named = zip(PERCENTS, values.tolist(), strict=True)
    return [Mark(kind="percentile", name=f"{percent:g} %", x=value) for percent, value in named]


def drawn(
    title: str,
    series: list[Series],
    marks: Sequence[Mark],
    done: int,
    total: int,
    *,
    last: bool = False,
    what: str = "weight",
) -> Drawn:
    """A histogram."""
    axes = Axis(name=what), Axis(name="count", counts=True)
    figure = Figure(title=title, x=axes[0], y=axes[1], series=series, marks=list(marks))
    return Drawn(figure, None, done, total, last)
