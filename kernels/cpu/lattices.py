"""Search of scales and points of lattice blocks (IQ1, IQ2, IQ3), sixteen blocks at a time.

weight = sign * value of the point's coordinate * unit * level. A vector of weights is scaled and rounded,
coordinate by coordinate; a table says which lattice points lie nearest to that (`kernels.lattices`), and of
the first few of them the one of least weighted error to the weights themselves is taken.

Weights enter without their signs, negative where a sign cannot be stored (see `strip_signs`). IQ1 has no
signs: its values are moved by +1 or -1 (an eighth of a level), a vector or a whole group at a time.
"""

import numpy as np
from numba import njit

from kernels.cpu.shapes import Effort, LatticeShape
from kernels.cpu.symmetric import INFINITE, ONE, ZERO, finite_or_zero, gain, inverse_of
from kernels.cpu.tiles import Tile, rounded, size_of, storable
from kernels.cpu.vectors import (
    LANES,
    Floats,
    Ints,
    bits,
    gather,
    least,
    load,
    most,
    select,
    splat,
    store,
    to_float,
    to_int,
)
from kernels.lattices import NEIGHBOURS, Lattice

DOWN = 1 << 30  # marks the points of vectors that are moved down
UNSIGNED, FREE, EVEN = range(3)  # how signs are stored: not at all, each, or all but one of eight


@njit(error_model="numpy")
def strip_signs(tile: Tile, count: int, even: int, signs: np.ndarray) -> None:
    """Weights to their sizes, in place; into signs int32 [count / 8, 16] the bits of the negative ones.

    `even`: the number of negative weights of each eight must be even: otherwise the sign of the weight that
    costs least is turned, and its size enters as a negative number.
    """
    for begin in range(0, count, 8):
        mask = parity = splat(np.int32(0))
        least_cost, cheapest = splat(INFINITE), splat(np.int32(0))
        for i in range(8):
            weight = load(tile.x, (begin + i) * LANES)
            negative = (bits(weight) >> 31) & 1
            mask = mask | negative << i
            parity = parity ^ negative
            size = size_of(weight)
            store(tile.x, (begin + i) * LANES, size)
            cost = load(tile.w, (begin + i) * tile.stride) * size
            wins = cost < least_cost
            least_cost = select(wins, cost, least_cost)
            cheapest = select(wins, splat(np.int32(i)), cheapest)
        if even:
            for i in range(8):
                turned = (parity == 1) & (cheapest == i)
                size = load(tile.x, (begin + i) * LANES)
                store(tile.x, (begin + i) * LANES, select(turned, splat(ZERO) - size, size))
                mask = select(turned, mask ^ (1 << i), mask)
        store(signs, begin // 8 * LANES, mask)


@njit(error_model="numpy")
def pattern_of(lattice: Lattice, tile: Tile, begin: int, inverse: Floats, move: Floats) -> Ints:
    """The number whose digits are the levels nearest to each scaled coordinate."""
    highest = np.float32(lattice.levels - 1)
    pattern = splat(ZERO)
    scale = inverse * (np.float32(1) / lattice.slope)
    base = (move + lattice.base) * (np.float32(1) / lattice.slope)
    for i in range(lattice.width):
        level = load(tile.x, (begin + i) * LANES) * scale - base
        level = rounded(least(most(level, splat(ZERO)), splat(highest)))
        pattern = pattern * np.float32(lattice.levels) + level
    return to_int(pattern)


@njit(error_model="numpy")
def sums_of(lattice: Lattice, tile: Tile, begin: int, point: Ints, move: Floats) -> tuple[Floats, Floats]:
    """Sums of w x v and w v v over a vector; v the values of the point."""
    xv = vv = splat(ZERO)
    mask = (1 << lattice.bits) - 1
    base = move + lattice.base
    for i in range(lattice.width):
        level = to_float((point >> (i * lattice.bits)) & mask)
        value = base + level * lattice.slope + most(level - lattice.last, splat(ZERO)) * lattice.knee
        weighed = load(tile.w, (begin + i) * tile.stride) * value
        xv = xv + weighed * load(tile.x, (begin + i) * LANES)
        vv = vv + weighed * value
    return xv, vv


@njit(error_model="numpy")
def best_point(
    lattice: Lattice, tile: Tile, begin: int, step: Floats, inverse: Floats, move: Floats, neighbours: int
) -> tuple[Ints, Floats, Floats, Floats]:
    """The best of the points nearest to a vector, its sums of w x v and w v v, and its cost."""
    pattern = pattern_of(lattice, tile, begin, inverse, move) * NEIGHBOURS
    best = gather(lattice.near, pattern)
    best_xv, best_vv = sums_of(lattice, tile, begin, best, move)
    best_cost = step * (step * best_vv - (best_xv + best_xv))
    for k in range(1, neighbours):
        point = gather(lattice.near, pattern + k)
        xv, vv = sums_of(lattice, tile, begin, point, move)
        cost = step * (step * vv - (xv + xv))
        wins = cost < best_cost
        best = select(wins, point, best)
        best_xv = select(wins, xv, best_xv)
        best_vv = select(wins, vv, best_vv)
        best_cost = select(wins, cost, best_cost)
    return best, best_xv, best_vv, best_cost


@njit(error_model="numpy")
def nearest_points(
    lattice: Lattice,
    tile: Tile,
    begin: int,
    size: int,
    step: Floats,
    move: np.float32,
    neighbours: int,
    points: np.ndarray,
) -> tuple[Floats, Floats, Floats]:
    """best_point of each vector of `size` weights, into points [vectors, 16]; their sums and their cost."""
    inverse = inverse_of(step)
    xv = vv = cost = splat(ZERO)
    for vector in range(size // lattice.width):
        at = begin + vector * lattice.width
        point, more_xv, more_vv, more = best_point(lattice, tile, at, step, inverse, splat(move), neighbours)
        store(points, vector * LANES, point)
        xv = xv + more_xv
        vv = vv + more_vv
        cost = cost + more
    return xv, vv, cost


@njit(error_model="numpy")
def best_points(
    lattice: Lattice,
    span: int,
    tile: Tile,
    begin: int,
    size: int,
    step: Floats,
    neighbours: int,
    points: np.ndarray,
    others: np.ndarray,
) -> tuple[Floats, Floats, Floats]:
    """The best points of a group for a step, into points [vectors, 16]; sums of w x v and w v v; the cost.

    Each `span` weights are moved up or down together, down marked by bit 30 of their points; 0: never moved.
    The cost is the squared error but for the sum of w x x, which is the same for all points.
    """
    if span == 0:
        return nearest_points(lattice, tile, begin, size, step, ZERO, neighbours, points)
    xv = vv = cost = splat(ZERO)
    vectors = span // lattice.width
    for part in range(size // span):
        at = begin + part * span
        up = nearest_points(lattice, tile, at, span, step, ONE, neighbours, others)
        for vector in range(vectors):
            store(points, (part * vectors + vector) * LANES, load(others, vector * LANES))
        down = nearest_points(lattice, tile, at, span, step, -ONE, neighbours, others)
        wins = down[2] < up[2]
        for vector in range(vectors):
            place = (part * vectors + vector) * LANES
            moved = load(others, vector * LANES) | DOWN
            store(points, place, select(wins, moved, load(points, place)))
        xv = xv + select(wins, down[0], up[0])
        vv = vv + select(wins, down[1], up[1])
        cost = cost + select(wins, down[2], up[2])
    return xv, vv, cost


@njit(error_model="numpy")
def free_step(
    lattice: Lattice,
    span: int,
    tile: Tile,
    begin: int,
    size: int,
    cover: Floats,
    effort: Effort,
    points: np.ndarray,
    others: np.ndarray,
) -> Floats:
    """The step of least error found, free to be any number: from `cover` times each factor, refitted."""
    trials = effort.trials
    best, best_cost = cover, splat(INFINITE)
    for trial in range(len(trials) + effort.rounds):
        step, neighbours = best, effort.neighbours[1]
        if trial < len(trials):
            step, neighbours = cover * trials[trial, 0], effort.neighbours[0]
        xv, vv, _ = best_points(lattice, span, tile, begin, size, step, neighbours, points, others)
        refitted = most(finite_or_zero(xv / vv), splat(ZERO))
        cost = splat(ZERO) - refitted * xv
        wins = cost < best_cost
        best = select(wins, refitted, best)
        best_cost = select(wins, cost, best_cost)
    return best


@njit(error_model="numpy")
def split(wished: np.ndarray, shape: LatticeShape, levels: np.ndarray) -> Floats:
    """The unit that makes the extreme of `wished` [groups, 16] the greatest level; the odd levels nearest."""
    extreme = load(wished, 0)
    for group in range(1, shape.groups):
        extreme = most(load(wished, group * LANES), extreme)
    unit = storable(extreme * (np.float32(shape.units) / shape.top)) / np.float32(shape.units)
    for group in range(shape.groups):
        half = (load(wished, group * LANES) / unit - ONE) * np.float32(0.5)
        level = rounded(half) * np.float32(2) + ONE
        level = least(most(level, splat(ONE)), splat(shape.top))
        store(levels, group * LANES, select(unit == ZERO, splat(ONE), level))
    return unit


@njit(error_model="numpy")
def settle(
    lattice: Lattice,
    shape: LatticeShape,
    tile: Tile,
    squares: Floats,
    reach: int,
    neighbours: int,
    unit: Floats,
    levels: np.ndarray,
    points: np.ndarray,
    others: np.ndarray,
) -> tuple[Floats, Floats, Floats]:
    """The best levels up to `reach` places from those given, in place; the cost, and the unit refitted.

    squares: the block's sum of w x x. The last returned is what to store where these levels are kept.
    """
    total = ar = aa = splat(ZERO)
    for group in range(shape.groups):
        start = load(levels, group * LANES)
        best, best_cost = start, splat(INFINITE)
        best_xv = best_vv = splat(ZERO)
        for offset in range(-reach, reach + 1):
            level = least(most(start + np.float32(2 * offset), splat(ONE)), splat(shape.top))
            xv, vv, cost = best_points(
                lattice, shape.span, tile, group * shape.size, shape.size, unit * level, neighbours,
                points, others,
            )  # fmt: skip
            wins = cost < best_cost
            best = select(wins, level, best)
            best_cost = select(wins, cost, best_cost)
            best_xv = select(wins, xv, best_xv)
            best_vv = select(wins, vv, best_vv)
        store(levels, group * LANES, best)
        total = total + best_cost
        ar = ar + best * best_xv
        aa = aa + best * best * best_vv
    wished = most(finite_or_zero(ar / aa), splat(ZERO))
    kept = unit * ar
    larger = unit * gain(tile, squares - kept, kept) * np.float32(shape.units)
    return total, storable(wished * np.float32(shape.units)) / np.float32(shape.units), storable(larger)


@njit(error_model="numpy")
def largest_code(lattice: Lattice) -> np.float32:
    highest = np.float32(lattice.levels - 1)
    return lattice.base + highest * lattice.slope + max(highest - lattice.last, ZERO) * lattice.knee


@njit(error_model="numpy")
def search(
    lattice: Lattice,
    shape: LatticeShape,
    tile: Tile,
    effort: Effort,
    scratch: tuple[np.ndarray, np.ndarray],
    best: np.ndarray,
    points: np.ndarray,
    others: np.ndarray,
) -> Floats:
    """What to store as unit; into best [groups, 16] the levels, into points [vectors, 16] the points.

    scratch: two more of [groups, 16].
    """
    wished, levels = scratch
    for group in range(shape.groups):
        begin = group * shape.size
        extreme = size_of(load(tile.x, begin * LANES))
        for i in range(begin + 1, begin + shape.size):
            extreme = most(size_of(load(tile.x, i * LANES)), extreme)
        cover = extreme / largest_code(lattice)
        step = free_step(lattice, shape.span, tile, begin, shape.size, cover, effort, points, others)
        store(wished, group * LANES, step)
    unit = split(wished, shape, levels)
    best_unit = best_stored = unit
    best_cost = splat(INFINITE)
    squares = splat(ZERO)
    for i in range(shape.groups * shape.size):
        weight = load(tile.x, i * LANES)
        squares = squares + load(tile.w, i * tile.stride) * weight * weight
    for turn in range(1 + effort.turns):
        cost, refitted, stored = settle(
            lattice, shape, tile, squares, effort.reach, effort.neighbours[1], unit, levels, points, others
        )
        wins = cost < best_cost
        if turn == 0:
            wins = unit == unit
        best_cost = select(wins, cost, best_cost)
        best_unit = select(wins, unit, best_unit)
        best_stored = select(wins, stored, best_stored)
        for group in range(shape.groups):
            at = group * LANES
            store(best, at, select(wins, load(levels, at), load(best, at)))
        unit = refitted
    for group in range(shape.groups):
        step = best_unit * load(best, group * LANES)
        first = group * shape.size
        place = first // lattice.width * LANES
        neighbours, here = effort.neighbours[1], points[place:]
        best_points(lattice, shape.span, tile, first, shape.size, step, neighbours, here, others)
    return best_stored
