"""How the weights are distributed that a recipe makes of a tensor, better with each piece that is encoded."""

import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from engine.api.figures import Mark, Series
from engine.figures.bins import Bins
from engine.figures.drawn import Refresh, Wanted
from engine.parallel import in_order
from engine.quantization_errors import Piece, Quantized

STRIDE = 16
"""First 1 piece in so many is encoded: few of them tell about the whole tensor."""


def quantized_name(made: Quantized) -> str:
    return f"quantized ({made.format})"


def quantized_series(made: Quantized, bins: Bins, wanted: Wanted) -> Iterator[tuple[Series, list[Mark], int]]:
    """The series with the clip range so far, and how many of the lines are in it; the last one is exact.

    Before that counts are estimated for all lines, and the name says so.
    """
    cuts = list(made.bounds())
    order = [cut for phase in range(STRIDE) for cut in cuts[phase::STRIDE]]
    counts, lines, clips = np.zeros(bins.count), 0, []

    def work(cut: tuple[int, int]) -> tuple[int, np.ndarray, tuple[float, float] | None]:
        piece = made.piece(*cut)
        return cut[1] - cut[0], bins.counted(piece.values), clip_range(piece)

    refresh = Refresh()
    with closing(in_order(work, order, len(os.sched_getaffinity(0)))) as found:
        for count, piece_counts, clip in found:
            if not wanted():
                return
            counts += piece_counts
            lines += count
            clips += [clip] if clip else []
            last = lines == made.lines
            if last or refresh.due():
                estimated = "" if last else f", estimated from {lines / made.lines:.0%} of it"
                series = bins.series(quantized_name(made) + estimated, counts * (made.lines / lines))
                yield series, clip_marks(clips), lines


def clip_range(piece: Piece) -> tuple[float, float] | None:
    """The lowest and the highest value that a group of the piece can hold; None for floats one by one."""
    if piece.coded is None:
        return None
    lowest, highest = piece.coded.ends()
    return float(lowest.min()), float(highest.max())


def clip_marks(clips: list[tuple[float, float]]) -> list[Mark]:
    """The ends of them all."""
    if not clips:
        return []
    lowest, highest = min(low for low, _ in clips), max(high for _, high in clips)
    return [
        Mark(kind="clip", name="lowest value of the grid", x=lowest),
        Mark(kind="clip", name="highest value of the grid", x=highest),
    ]
