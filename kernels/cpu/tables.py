"""Codes that are places in a short table of values: IQ4's sixteen, and the 4-bit floats of MXFP4 and NVFP4.

As rules of `kernels.cpu.symmetric` for the nearest code, with integers in the place of a float's halves.
MXFP4 and NVFP4 store no unit: each group's step is one of a list, the same for all.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from kernels.cpu.shapes import Effort, Shape
from kernels.cpu.symmetric import INFINITE, ZERO, inverse_of, measure, nearest
from kernels.cpu.tiles import Tile, size_of
from kernels.cpu.vectors import LANES, Floats, Ints, bits, from_bits, gather, load, select, splat, store


class Table(NamedTuple):
    """Ascending values; `middles` lie between neighbours, `rises` lead from each value to the next.

    `mirrored`: the table holds the values from 0 up, and the negative ones are theirs.
    """

    first: np.float32
    middles: np.ndarray
    rises: np.ndarray
    mirrored: int


@overload(nearest)
def _nearest_in_table(scaled: Any, rule: Any) -> Any:
    if not (isinstance(rule, types.NamedTuple) and rule.instance_class is Table):
        return None

    def find(scaled: Any, rule: Any) -> Any:
        size = size_of(scaled) if rule.mirrored else scaled
        value = splat(rule.first)
        for k in range(len(rule.middles)):
            value = value + select(size > rule.middles[k], splat(rule.rises[k]), splat(ZERO))
        if rule.mirrored:
            value = from_bits(bits(value) | (bits(scaled) & -0x80000000))
        return value

    return find


@njit(error_model="numpy")
def place_of(value: Floats, table: Table) -> Ints:
    """The place of a value of the table, int32x16; those below 0 of a mirrored table come 8 later."""
    size = size_of(value) if table.mirrored else value
    place = splat(np.int32(0))
    for k in range(len(table.middles)):
        place = place + select(size > table.middles[k], splat(np.int32(1)), splat(np.int32(0)))
    if table.mirrored:
        negative = (value < ZERO) & (place > 0)
        place = place + select(negative, splat(np.int32(8)), splat(np.int32(0)))
    return place


@njit(error_model="numpy")
def put_places(
    table: Table, x: np.ndarray, shape: Shape, group: int, step: Floats, codes: np.ndarray
) -> None:
    """Into codes int32 [size of the block, 16] the places of the values nearest to a group's weights."""
    inverse = inverse_of(step)
    for i in range(group * shape.size, (group + 1) * shape.size):
        store(codes, i * LANES, place_of(load(x, i * LANES) * inverse, table))


@njit(error_model="numpy")
def first_reaching(steps: np.ndarray, wished: Floats) -> Ints:
    """The place of the first of the ascending steps that is not smaller than wished, or of the last one."""
    place = splat(np.int32(-1))
    jump = 128
    while jump:
        further = place + jump
        inside = further < len(steps) - 1
        smaller = gather(steps, select(inside, further, splat(np.int32(0)))) < wished
        place = select(inside & smaller, further, place)
        jump >>= 1
    return place + 1


@njit(error_model="numpy")
def search(
    table: Table, steps: np.ndarray, tile: Tile, shape: Shape, effort: Effort, best: np.ndarray
) -> None:
    """Into best int32 [groups, 16] the place of each group's step: the best near the covering one."""
    for group in range(shape.groups):
        begin = group * shape.size
        extreme = size_of(load(tile.x, begin * LANES))
        for i in range(begin + 1, begin + shape.size):
            size = size_of(load(tile.x, i * LANES))
            extreme = select(size > extreme, size, extreme)
        cover = first_reaching(steps, extreme / shape.high)
        found, found_error = cover, splat(INFINITE)
        for trial in range(2 * effort.reach + 1):  # the covering one first: squares of the tiniest vanish
            place = cover + (trial + 1) // 2 * (2 * (trial % 2) - 1)
            place = select(place < 0, splat(np.int32(0)), place)
            place = select(place > len(steps) - 1, splat(np.int32(len(steps) - 1)), place)
            error, _, _ = measure(table, tile, begin, shape.size, gather(steps, place))
            wins = error < found_error
            found = select(wins, place, found)
            found_error = select(wins, error, found_error)
        store(best, group * LANES, found)
