"""The lattices of GGUF's IQ1, IQ2 and IQ3 types, and which of their points lie near any others.

Points come from the `gguf` package. A point's coordinates are levels 0 .. n - 1, and
value = base + slope * level + knee * max(level - last, 0). Tables hold a point as one int32: its index in the
format's grid << 16 | its levels, lowest coordinate first, 2 bits each (vectors of 8) or 3 bits (of 4).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from gguf import quants

NEIGHBOURS = 16
_ROWS = 512  # patterns that are compared with all points at a time


class Lattice(NamedTuple):
    """Vectors of `width` coordinates with `levels` levels of `bits` bits; values as the module says.

    near: int32 [levels ** width * 16]: for each vector of levels, taken as digits of a number with the first
    coordinate as the highest, its 16 nearest points, nearest first.
    """

    width: int
    levels: int
    bits: int
    base: np.float32
    slope: np.float32
    knee: np.float32
    last: np.float32
    near: np.ndarray


@cache
def lattice(name: str) -> Lattice:
    """Of one of the types IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S. Takes some tenths of a second."""
    kind = getattr(quants, "IQ1_S" if name == "IQ1_M" else name)
    kind.init_grid()
    grid = np.asarray(kind.grid, np.float32).reshape(kind.grid_shape)
    width = grid.shape[1]
    values = np.array(kind.grid_map, np.float32) * (8 if name.startswith("IQ1") else 1)
    grid = grid * (8 if name.startswith("IQ1") else 1)
    bits = 16 // width if width == 8 else 3
    slopes = np.diff(values)
    codes = np.searchsorted(values, grid)
    packed = (codes << (bits * np.arange(width))).sum(axis=1) | np.arange(len(grid)) << 16
    near = _nearest(values, width, grid, packed)
    return Lattice(
        width, len(values), bits, values[0], slopes[0], slopes[-1] - slopes[0], np.float32(len(values) - 2), near
    )


def _nearest(values: np.ndarray, width: int, grid: np.ndarray, packed: np.ndarray) -> np.ndarray:
    digits = len(values) ** np.arange(width - 1, -1, -1)
    patterns = np.arange(len(values) ** width)[:, None] // digits % len(values)
    norms = (grid**2).sum(axis=1)
    near = np.empty((len(patterns), NEIGHBOURS), np.int32)
    for start in range(0, len(patterns), _ROWS):
        distances = norms - 2 * values[patterns[start : start + _ROWS]] @ grid.T
        order = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        near[start : start + _ROWS] = packed[order]
    near.flags.writeable = False
    return near.reshape(-1)
