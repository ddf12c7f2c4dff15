"""The cells of a heat map, and what each pixel shows of them: the value farthest from zero that it touches.

A picture scaled down, or one pixel drawn from one cell, loses single spikes: of 20 it shows 1. So pixels are
pooled here. To be quick, halves of halves of the cells are kept: level (i, j) holds the largest of 2^i x 2^j
cells. They are made when first needed, and `KEPT` cells or more are left for a pixel to choose from, so what
a level adds at the edge of a pixel is less than one pixel wide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, log2

import numpy as np

from engine.api.figures import NOT_READ, HeatMap

KEPT = 2


@dataclass(frozen=True)
class Part:
    """A rectangle of rows and columns in the source's numbers, its ends where a pixel begins or ends."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left

    def common(self, other: "Part") -> "Part | None":
        """What lies in both."""
        both = Part(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )
        return both if both.height > 0 and both.width > 0 else None

    def whole_numbers(self) -> tuple[int, int, int, int]:
        """First row, the row behind the last, first column, the column behind the last: all it touches."""
        return floor(self.top), ceil(self.bottom), floor(self.left), ceil(self.right)


class Field:
    """A heat map with its values float32 [height, width], NaN where none are read yet."""

    def __init__(self, figure: HeatMap, values: np.ndarray) -> None:
        """`limits`: the lowest value, the highest, and the least above zero; zeros where nothing is read."""
        if values.shape != (figure.height, figure.width):
            raise ValueError(f"{figure.title}: values {values.shape} for {figure.height} x {figure.width}")
        self.figure, self.values = figure, values
        self.extent = Part(
            figure.first_row,
            _end(figure.first_row + figure.height * figure.row_step, figure.stop_row),
            figure.first_column,
            _end(figure.first_column + figure.width * figure.column_step, figure.stop_column),
        )
        self.limits = self._limits()
        absent = np.isnan(values)
        self.complete = not absent.any()
        below, above = (
            (values, values)
            if self.complete
            else (np.where(absent, -np.inf, values), np.where(absent, np.inf, values))
        )
        self._highs = Levels(below, np.maximum)
        self._lows = Levels(above, np.minimum) if figure.signed else None

    def cell(self, row: float, column: float) -> tuple[int, int] | None:
        """The cell that stands for a row and a column of the source, if there is one."""
        figure = self.figure
        i = floor((row - figure.first_row) / figure.row_step)
        j = floor((column - figure.first_column) / figure.column_step)
        return (i, j) if 0 <= i < figure.height and 0 <= j < figure.width else None

    def numbers(self, i: int, j: int) -> tuple[int, int]:
        """The first row and the first column of the source that a cell stands for."""
        figure = self.figure
        return figure.first_row + i * figure.row_step, figure.first_column + j * figure.column_step

    def part_of(self, i: int, j: int) -> Part:
        """Where a cell lies."""
        row, column = self.numbers(i, j)
        return Part(
            row,
            min(row + self.figure.row_step, self.extent.bottom),
            column,
            min(column + self.figure.column_step, self.extent.right),
        )

    def strongest(self, pixel: Part) -> tuple[int, int]:
        """Of the cells that a pixel touches, the one whose value `picture` gives it."""
        figure = self.figure
        rows = _touched(
            (pixel.top - figure.first_row) / figure.row_step,
            (pixel.bottom - figure.first_row) / figure.row_step,
            figure.height,
        )
        columns = _touched(
            (pixel.left - figure.first_column) / figure.column_step,
            (pixel.right - figure.first_column) / figure.column_step,
            figure.width,
        )
        sizes = np.abs(self.values[rows.start : rows.stop, columns.start : columns.stop])
        i, j = divmod(int(np.nan_to_num(sizes, nan=-1.0).argmax()), len(columns))
        return rows[i], columns[j]

    def _limits(self) -> tuple[float, float, float]:
        values = self.values
        lowest, highest = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        if np.isnan(lowest):
            return 0.0, 0.0, 0.0
        least = lowest if lowest > 0 or highest <= 0 else values.min(where=values > 0, initial=highest)
        return float(lowest), float(highest), float(max(least, 0))

    def picture(
        self, part: Part, height: int, width: int, colors: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """`part` as [height, width] pixels; `colors` is called with float32 [some, some], NaN for nothing."""
        figure = self.figure
        rows = Pixels.over(
            (part.top - figure.first_row) / figure.row_step,
            (part.bottom - figure.first_row) / figure.row_step,
            height,
            figure.height,
        )
        columns = Pixels.over(
            (part.left - figure.first_column) / figure.column_step,
            (part.right - figure.first_column) / figure.column_step,
            width,
            figure.width,
        )
        painted = colors(self._pooled(rows, columns))
        if rows.repeats is not None:
            painted = painted[rows.repeats]
        return painted if columns.repeats is None else painted[:, columns.repeats]

    def _pooled(self, rows: "Pixels", columns: "Pixels") -> np.ndarray:
        high = self._highs.pooled(rows, columns)
        if self._lows is not None:
            low = self._lows.pooled(rows, columns)
            high = np.where(-low > high, low, high)
        return np.where(np.isinf(high), np.float32(np.nan), high)


def cell_text(field: Field, i: int, j: int) -> str:
    """What there is to say of a cell: "blk.3 · channel 1024: 7.25", all digits of the value."""
    figure = field.figure
    row = _run(figure.rows_of(i))
    where = row if figure.rows else f"{figure.y.name} {row}"
    where = f"{where} · {figure.x.name} {_run(figure.columns_of(j))}"
    value = float(field.values[i, j])
    unit = f" {figure.z.unit}" if figure.z.unit else ""
    told = NOT_READ if np.isnan(value) else f"{value:,.6g}{unit}".replace("-", "−")
    return f"{where}: {told}"


def _run(ends: tuple[str | int, ...]) -> str:
    return " to ".join(dict.fromkeys(map(str, ends)))


def _end(full: int, stop: int | None) -> int:
    """Where cells end that end at `full` if none is cut short."""
    return full if stop is None else min(full, stop)


def _touched(low: float, high: float, cells: int) -> range:
    """Of `cells` cells those that a pixel from `low` to `high` shows one of: as `Pixels.over` has it."""
    if high - low <= 0.5:
        middle = min(max(floor((low + high) / 2), 0), cells - 1)
        return range(middle, middle + 1)
    start = min(max(floor(low + 1e-6), 0), cells - 1)
    return range(start, max(start + 1, min(ceil(high - 1e-6), cells)))


def same_subject(one: HeatMap, other: HeatMap) -> bool:
    """Whether the second is another drawing of the first: finer, further read, or of a part of it."""
    return (one.title, one.x, one.y, one.z) == (other.title, other.x, other.y, other.z)


@dataclass(frozen=True)
class Pixels:
    """Which cells each pixel of a line touches.

    Of level `level` pixel p touches those from `starts[p]` to `lasts[p]`, both included. Where a cell is wide
    these are single cells, and `repeats` [pixels] says which of them a pixel shows.
    """

    level: int
    starts: np.ndarray
    lasts: np.ndarray
    repeats: np.ndarray | None

    @classmethod
    def over(cls, first: float, stop: float, pixels: int, cells: int) -> "Pixels":
        """`pixels` pixels lie over the places `first` to `stop` of `cells` cells."""
        each = (stop - first) / pixels
        if each <= 0.5:
            shown = np.floor(first + (np.arange(pixels) + 0.5) * each).astype(np.int64)
            shown[0], shown[-1] = floor(first + 1e-6), ceil(stop - 1e-6) - 1  # slivers at the ends, too
            shown = np.clip(shown, 0, cells - 1)
            single = np.arange(shown[0], shown[-1] + 1)
            return cls(0, single, single, shown - shown[0])
        level = max(0, floor(log2(each / KEPT)))
        edges = (first + np.arange(pixels + 1) * each) / 2**level
        held = -(-cells // 2**level)
        starts = np.clip(np.floor(edges[:-1] + 1e-6).astype(np.int64), 0, held - 1)
        lasts = np.clip(np.ceil(edges[1:] - 1e-6).astype(np.int64) - 1, starts, held - 1)
        return cls(level, starts, lasts, None)


class Levels:
    """Cells float32 [height, width] pooled by `pool` (maximum, minimum) to half as many, again and again."""

    def __init__(self, cells: np.ndarray, pool: np.ufunc) -> None:
        self._pool = pool
        self._levels = {(0, 0): cells}

    def pooled(self, rows: Pixels, columns: Pixels) -> np.ndarray:
        """One value a pixel, or a cell where cells are repeated."""
        top, left = rows.starts[0], columns.starts[0]
        cells = self._level(rows.level, columns.level)[top : rows.lasts[-1] + 1, left : columns.lasts[-1] + 1]
        return self._across(self._down(cells, rows), columns)

    def _down(self, cells: np.ndarray, rows: Pixels) -> np.ndarray:
        """Row by row of pixels: along the first axis `reduceat` is ten times slower."""
        if rows.repeats is not None:
            return cells
        made = np.empty((len(rows.starts), cells.shape[1]), cells.dtype)
        top = rows.starts[0]
        for pixel, (start, last) in enumerate(zip(rows.starts - top, rows.lasts - top, strict=True)):
            self._pool.reduce(cells[start : last + 1], axis=0, out=made[pixel])
        return made

    def _across(self, cells: np.ndarray, columns: Pixels) -> np.ndarray:
        if columns.repeats is not None:
            return cells
        # A pixel's last cell is the next one's first where both touch it: reduceat leaves it to the next.
        runs = self._pool.reduceat(cells, columns.starts - columns.starts[0], axis=1)
        return self._pool(runs, cells.take(columns.lasts - columns.starts[0], axis=1))

    def _level(self, i: int, j: int) -> np.ndarray:
        if (i, j) not in self._levels:
            finer = self._level(i, j - 1) if j else self._level(i - 1, 0)
            self._levels[i, j] = self._halved(finer, 1 if j else 0)
        return self._levels[i, j]

    def _halved(self, cells: np.ndarray, axis: int) -> np.ndarray:
        even, odd = (cells[::2], cells[1::2]) if axis == 0 else (cells[:, ::2], cells[:, 1::2])
        made = even.copy()
        pairs = made[: len(odd)] if axis == 0 else made[:, : odd.shape[1]]
        self._pool(pairs, odd, out=pairs)
        return made
