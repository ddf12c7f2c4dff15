"""Where most of one tensor is lost: worst channels or groups of a figure of errors, as lines of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.models.importance import short
from app.models.lines_table import Cells, LinesTable
from app.plain import printable
from engine.api.figures import Figure, HeatMap

if TYPE_CHECKING:
    import numpy as np

MOST = 200
"""Lines of the table."""


@dataclass(frozen=True)
class Loss:
    """What is lost of a run of channels, or of a group in a run of rows, and that over the median one's.

    `places` are whole numbers in the source: (first, last) by each column of `WorstErrors.titles` that says
    where. `cell`: row (None: of a figure without rows) and place to mark. `name`: what it is called.
    """

    places: tuple[tuple[int, int], ...]
    error: float
    ratio: float
    cell: tuple[int | None, int]
    name: str = ""


def worst_errors(figure: Figure | HeatMap, values: np.ndarray | None) -> list[Loss]:
    """The largest errors first; `values` float32 [rows, groups] of a heat map, NaN where nothing is."""
    import numpy as np

    errors = np.array(figure.series[0].y) if isinstance(figure, Figure) else values
    assert errors is not None, "a heat map has values"
    errors = errors.reshape(-1)
    known = np.flatnonzero(~np.isnan(errors))
    if not known.size:
        return []
    median = float(np.median(errors[known]))
    few = min(MOST, known.size)
    worst = known[np.argpartition(-errors[known], few - 1)[:few]]
    worst = worst[np.lexsort((worst, -errors[worst]))]
    found = []
    for place in worst.tolist():
        error = float(errors[place])
        places, cell = _places(figure, place)
        name = printable(figure.name_of(place)) if isinstance(figure, Figure) else ""
        found.append(Loss(places, error, error / median if median > 0 else 0.0, cell, name))
    return found


def _places(
    figure: Figure | HeatMap, place: int
) -> tuple[tuple[tuple[int, int], ...], tuple[int | None, int]]:
    """Of a cell, counted row by row: where it is, and what to mark for it."""
    if isinstance(figure, Figure):
        run = [int(number) for number in figure.told(figure.series[0], place)]
        return ((run[0], run[-1]),), (None, run[0])
    i, j = divmod(place, figure.width)
    rows, columns = [int(number) for number in figure.rows_of(i)], figure.columns_of(j)
    return ((rows[0], rows[-1]), (columns[0], columns[-1])), (rows[0], columns[0])


class WorstErrors(LinesTable[Loss]):
    """Lines in the order of `worst_errors`."""

    def show_of(self, axes: Sequence[str], lost: str, lines: list[Loss]) -> None:
        """`axes`: what the places of the lines are called; `lost`: what the errors are."""
        self.beginResetModel()
        self.titles = [*(f"{name[0].upper()}{name[1:]}" for name in axes), "Error", "× median"]
        self.tips = [
            *(f"The {name}, from 0" for name in axes),
            f"{lost[0].upper()}{lost[1:]}",
            "The error over that of the median line of the picture",
        ]
        self.endResetModel()
        self.show(lines)

    def row_of(self, cell: tuple[int | None, int]) -> int | None:
        """Where the line of a marked cell is."""
        row, place = cell

        def holds(line: Loss) -> bool:
            first, last = line.places[-1]
            return first <= place <= last and (row is None or line.places[0][0] <= row <= line.places[0][1])

        return next((number for number, line in enumerate(self.lines) if holds(line)), None)

    def cells(self, line: Loss) -> Cells:
        places = [first if first == last else f"{first}-{last}" for first, last in line.places]
        places = [line.name] if line.name else places
        return *places, line.error, line.ratio

    def sorted_by(self, line: Loss) -> Cells:
        return *(first for first, _ in line.places), line.error, line.ratio

    def text(self, line: Loss, column: int) -> str:
        if column < len(line.places):
            if line.name:
                return line.name
            first, last = line.places[column]
            return f"{first:,}" if first == last else f"{first:,}-{last:,}"
        return short((line.error, line.ratio)[column - len(line.places)])
