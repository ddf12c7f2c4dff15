"""A figure is data: drawn in the window and in reports, and always a table and a CSV as well."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, model_validator

from engine.api.tables import csv_text

if TYPE_CHECKING:
    import numpy as np

NOT_READ = "not read yet"
"""What is said of a cell without a value."""

CSV_CELLS = 2048
"""So many cells are written at once: in the window's process no other thread runs meanwhile."""


class Axis(BaseModel):
    """`unit` is empty for pure numbers. `counts`: they are whole numbers, such as those of blocks."""

    name: str
    unit: str = ""
    counts: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


class Series(BaseModel):
    """Bins: `x` are their lower edges, ascending, `y` what each holds; every bin is `width` wide."""

    name: str
    x: list[float]
    y: list[float]
    width: float

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r} has {len(self.x)} edges and {len(self.y)} values")
        return self

    def bin_at(self, x: float) -> int | None:
        """The place of the bin that holds `x`."""
        place = bisect_right(self.x, x) - 1
        return place if place >= 0 and x < self.x[place] + self.width else None


class Mark(BaseModel):
    """A named place on the x axis: a percentile, an end of the clip range, a level of the grid."""

    kind: Literal["percentile", "clip", "level"]
    name: str
    x: float


class Figure(BaseModel):
    """`series` share the axes. What tells them apart is their names (the legend), never color alone.

    `names`: what the numbers of the x axis are called, from 0 (tokens); none where they are but numbers.
    """

    kind: Literal["bins"] = "bins"
    title: str
    x: Axis
    y: Axis
    series: list[Series]
    marks: list[Mark] = []
    names: list[str] = []

    def columns(self) -> list[str]:
        """The head of the table."""
        name = ["series"] if self._named else []
        places = [f"{self.x.label} from", f"{self.x.label} to"]
        named = ["name"] if self.names else []
        return [*name, *([self.x.label] if self._counted else places), *named, self.y.label]

    def name_of(self, place: int) -> str:
        """What the bin at `place` is called, or those from the first to the last of it; "" without names."""
        if not self.names:
            return ""
        run = [self.names[int(number)] for number in self.told(self.series[0], place)]
        return " to ".join(run)

    @property
    def _named(self) -> bool:
        """Whether rows of the table say of what they are."""
        return len(self.series) > 1 or bool(self.marks)

    @property
    def _counted(self) -> bool:
        """Whether each bin is one whole number."""
        return self.x.counts and all(series.width == 1 for series in self.series)

    def told(self, series: Series, place: int) -> tuple[float, ...]:
        """Where a bin lies: its edges, both whole numbers of a run, or the one that it is."""
        low, width = series.x[place], series.width
        if not self.x.counts:
            return low, low + width
        low, width = int(low), int(width)
        return (low,) if width == 1 else (low, low + width - 1)

    def rows(self) -> list[tuple[str | float, ...]]:
        """One row a bin, series behind series, then one a mark; every figure as it is, not rounded."""
        number = int if self.y.counts else float
        bins: list[tuple[str | float, ...]] = [
            (
                *([series.name] if self._named else []),
                *self.told(series, place),
                *([self.name_of(place)] if self.names else []),
                number(value),
            )
            for series in self.series
            for place, value in enumerate(series.y)
        ]
        return bins + [(mark.name, *[mark.x] * (1 if self._counted else 2), "") for mark in self.marks]

    def to_csv(self) -> str:
        """The table as CSV with its head; floats are written so that reading gives the same ones."""
        return csv_text(self.columns(), self.rows())


class HeatMap(BaseModel):
    """Cells of `height` rows and `width` columns; their values lie beside it, float32, NaN where nothing is.

    `rows` are the names of its rows (none: they are numbers). The cell [i, j] stands for `row_step` rows from
    `first_row + i * row_step` on and `column_step` columns alike: the value farthest from zero among them.
    Those of the last cells end before `stop_row` and `stop_column` (None: they are as many as in others).
    `signed`: values have two sides of zero. `row_borders`, `column_borders`: each so many rows or columns
    belong together (a block, a group), 0: none do.
    """

    kind: Literal["heat map"] = "heat map"
    title: str
    x: Axis
    y: Axis
    z: Axis
    height: int
    width: int
    rows: list[str] = []
    signed: bool = False
    first_row: int = 0
    stop_row: int | None = None
    first_column: int = 0
    stop_column: int | None = None
    row_step: int = 1
    column_step: int = 1
    row_borders: int = 0
    column_borders: int = 0

    def columns(self) -> list[str]:
        """The head of the table."""
        value = f"{self.z.label} (farthest from zero)" if self.is_pooled else self.z.label
        return [*_heads(self.y, self.row_step), *_heads(self.x, self.column_step), value]

    @property
    def is_pooled(self) -> bool:
        """Whether a cell stands for several values."""
        return self.row_step > 1 or self.column_step > 1

    @property
    def takes_log(self) -> bool:
        """Whether its values are magnitudes: codes are not, nor is what has two sides of zero."""
        return not self.signed and not self.z.counts

    def rows_of(self, cell: int) -> tuple[str | int, ...]:
        """What the cells [cell, :] stand for: a row's name or number, or the first and last of several."""
        if self.rows:
            return (self.rows[cell],)
        return _run(self.first_row, cell, self.row_step, self.stop_row)

    def columns_of(self, cell: int) -> tuple[int, ...]:
        """What the cells [:, cell] stand for: the number of a column, or the first and last of several."""
        return _run(self.first_column, cell, self.column_step, self.stop_column)

    def row(self, values: "np.ndarray", place: int) -> tuple[str | float, ...]:
        """The row of the table at `place`, cells counted row by row."""
        i, j = divmod(place, self.width)
        value = float(values[i, j])
        told = NOT_READ if value != value else int(value) if self.z.counts else value
        return (*self.rows_of(i), *self.columns_of(j), told)

    def csv_chunks(self, values: "np.ndarray") -> Iterator[str]:
        """The table as CSV with its head, in pieces; `values` float32 [height, width], NaN as nothing.

        The shortest digits that give the same float32 when they are read.
        """
        yield csv_text(self.columns(), [])
        for i in range(self.height):
            name = csv_text([str(part) for part in self.rows_of(i)], [])[:-1]
            for start in range(0, self.width, CSV_CELLS):
                texts = values[i, start : start + CSV_CELLS].astype(str).tolist()
                if self.z.counts:
                    texts = [text.removesuffix(".0") for text in texts]
                columns = [",".join(map(str, self.columns_of(start + j))) for j in range(len(texts))]
                yield "".join(
                    f"{name},{column},{'' if text == 'nan' else text}\n"
                    for column, text in zip(columns, texts, strict=True)
                )

    def to_csv(self, values: "np.ndarray") -> str:
        """The same in one piece."""
        return "".join(self.csv_chunks(values))


def _heads(axis: Axis, step: int) -> list[str]:
    return [axis.label] if step == 1 else [f"{axis.label} from", f"{axis.label} to"]


def _run(first: int, cell: int, step: int, stop: int | None) -> tuple[int, ...]:
    """The number that a cell stands for, or the first and last of `step` numbers."""
    low = first + cell * step
    high = low + step - 1
    return (low,) if step == 1 else (low, high if stop is None else min(high, stop - 1))
