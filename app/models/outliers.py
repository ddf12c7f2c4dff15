"""The worst channels of a heat map of layers x channels: found, and as lines of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.models.importance import short
from app.models.lines_table import Cells, LinesTable
from app.plain import printable
from engine.api.statistics import OUTLIER_RATIO

if TYPE_CHECKING:
    import numpy as np

MOST = 200
"""Lines of the table."""

MOST_IN_A_ROW = 50
"""Of one layer, so that one broken layer does not hide the others."""


@dataclass(frozen=True)
class Layer:
    """A row of the heat map: a block's tensor, by `Row.key` and as it is called."""

    key: str
    name: str
    block: int


@dataclass(frozen=True)
class Channel:
    """A channel of a layer: its value, that over the layer's median, and blocks in which it is one, too."""

    layer: Layer
    channel: int
    value: float
    ratio: float
    shared: tuple[int, ...]


def worst_channels(
    values: np.ndarray, layers: Mapping[int, Layer], *, by_value: bool = False
) -> list[Channel]:
    """The channels that stand out most of `values` float32 [blocks, channels], by value over the median.

    One stands out in a layer where that is `OUTLIER_RATIO` or more. NaN: not read yet, or nothing there.
    `layers`: by block. `by_value`: those of the largest values, for errors: a layer whose channels break all
    alike has none that stands out.
    """
    import numpy as np

    known = [row for row in np.flatnonzero(~np.isnan(values).all(axis=1)).tolist() if row in layers]
    found: list[tuple[float, int, int, float]] = []
    outliers = np.zeros(values.shape, bool)
    for row in known:
        size = np.abs(values[row])
        median = float(np.nanmedian(size))
        ratio = size / median if median > 0 else size * 0
        outliers[row] = ratio >= OUTLIER_RATIO
        few = min(MOST_IN_A_ROW, len(ratio))
        badness = np.nan_to_num(size if by_value else ratio, nan=-1.0)
        for channel in np.argpartition(-badness, few - 1)[:few].tolist():
            found.append((float(badness[channel]), row, channel, float(ratio[channel])))
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    return [
        Channel(
            layers[row],
            channel,
            float(values[row, channel]),
            ratio,
            tuple(block for block in np.flatnonzero(outliers[:, channel]).tolist() if block != row),
        )
        for badness, row, channel, ratio in found[:MOST]
        if badness >= 0
    ]


def runs(numbers: Sequence[int]) -> str:
    """ "0-3, 7" of 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


TITLES = ("Block", "Tensor", "Channel", "Value", "× median", "Shared with blocks")
TIPS = (
    "The transformer block",
    "The tensor by its name in the source",
    "The input channel, from 0",
    "What the picture shows of it",
    "The value over that of the layer's median channel",
    f"Other blocks in which the same channel is {OUTLIER_RATIO:g} times the median or more",
)
TENSOR, SHARED = 1, 5


class WorstChannels(LinesTable[Channel]):
    """Lines in the order of `worst_channels`."""

    titles, tips = TITLES, TIPS
    widths = (56, 330, 80, 90, 80, 180)
    worded, names = (TENSOR, SHARED), (TENSOR,)

    def row_of(self, key: str, channel: int) -> int | None:
        places = (
            place
            for place, line in enumerate(self.lines)
            if line.layer.key == key and line.channel == channel
        )
        return next(places, None)

    def cells(self, line: Channel) -> Cells:
        return line.layer.block, line.layer.name, line.channel, line.value, line.ratio, runs(line.shared)

    def sorted_by(self, line: Channel) -> Cells:
        return (*self.cells(line)[:SHARED], len(line.shared))

    def text(self, line: Channel, column: int) -> str:
        return TEXTS[column](line)


TEXTS: tuple[Callable[[Channel], str], ...] = (
    lambda line: str(line.layer.block),
    lambda line: printable(line.layer.name),
    lambda line: f"{line.channel:,}",
    lambda line: short(line.value),
    lambda line: short(line.ratio),
    lambda line: runs(line.shared),
)
"""What the columns show."""
