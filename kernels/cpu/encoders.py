"""The outermost kernels: rows of weights in, bytes of blocks out, sixteen blocks at a time, in one pass.

Weights are `plain` float32 or 16-bit `stored` (the other is empty), as `kind` says; importance is float32
[columns], or empty where all columns are alike. Each returns False as soon as a weight is NaN or Inf.
The interpreter lock is released; what runs on which thread is for the caller to say.
"""

import numpy as np
from numba import njit

from kernels.cpu import affine, lattice_layouts, lattices, layouts, symmetric, tables
from kernels.cpu.shapes import Effort, LatticeShape, Shape
from kernels.cpu.symmetric import inverse_of, nearest
from kernels.cpu.tables import Table, put_places
from kernels.cpu.tiles import Tile, load_importance, load_tile, rounded, word_count, write_bytes
from kernels.cpu.vectors import LANES, gather, least, load, most, splat, store, to_int
from kernels.lattices import Lattice

_ZERO = np.float32(0)


@njit(error_model="numpy")
def _tiles(shape: Shape | LatticeShape) -> tuple[np.ndarray, ...]:
    """Scratch for a tile: float32 as it is read, x, w (ones); int32 for codes, bytes, and bytes by fours."""
    tile, words = shape.size * shape.groups * LANES, word_count(shape.block_bytes)
    rows, x, w = np.empty(tile, np.float32), np.empty(tile, np.float32), np.ones(tile, np.float32)
    codes, data = np.empty(tile, np.int32), np.empty(shape.block_bytes * LANES, np.int32)
    return rows, x, w, codes, data, np.zeros(words, np.int32), np.empty(words, np.int32)


@njit(error_model="numpy")
def _levels(shape: Shape | LatticeShape) -> np.ndarray:
    return np.empty(shape.groups * LANES, np.float32)


@njit(error_model="numpy")
def _tile(x: np.ndarray, w: np.ndarray, stride: int, effort: Effort) -> Tile:
    return Tile(x, w, stride, np.float32(effort.restored[1] if stride else effort.restored[0]))


@njit(error_model="numpy", nogil=True, cache=True)
def encode_symmetric(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    importance: np.ndarray,
    shape: Shape,
    effort: Effort,
    out: np.ndarray,
) -> bool:
    weights, blocks = shape.size * shape.groups, out.size // shape.block_bytes
    rows, x, w, codes, data, words, turned = _tiles(shape)
    scratch, levels = (_levels(shape), _levels(shape), _levels(shape)), _levels(shape)
    rule = splat(shape.low), splat(shape.high)
    for first in range(0, blocks, LANES):
        if not load_tile(plain, stored, kind, weights, first, blocks, rows, x):
            return False
        stride = load_importance(importance, weights, first, blocks, rows, x, w)
        tile = _tile(x, w, stride, effort)
        unit, stored_unit = symmetric.search(rule, tile, shape, effort, scratch, levels)
        for group in range(shape.groups):
            inverse = inverse_of(unit * load(levels, group * LANES))
            for i in range(group * shape.size, (group + 1) * shape.size):
                code = nearest(load(x, i * LANES) * inverse, rule)
                store(codes, i * LANES, to_int(code) - shape.offset)
        layouts.put_symmetric(shape.layout, codes, stored_unit, levels, data)
        write_bytes(data, shape.block_bytes, first, blocks, words, turned, out)
    return True


@njit(error_model="numpy", nogil=True, cache=True)
def encode_in_table(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    importance: np.ndarray,
    shape: Shape,
    effort: Effort,
    out: np.ndarray,
    table: Table,
) -> bool:
    """As `encode_symmetric`, with the values of a table for codes."""
    weights, blocks = shape.size * shape.groups, out.size // shape.block_bytes
    rows, x, w, codes, data, words, turned = _tiles(shape)
    scratch, levels = (_levels(shape), _levels(shape), _levels(shape)), _levels(shape)
    for first in range(0, blocks, LANES):
        if not load_tile(plain, stored, kind, weights, first, blocks, rows, x):
            return False
        stride = load_importance(importance, weights, first, blocks, rows, x, w)
        tile = _tile(x, w, stride, effort)
        unit, stored_unit = symmetric.search(table, tile, shape, effort, scratch, levels)
        for group in range(shape.groups):
            put_places(table, x, shape, group, unit * load(levels, group * LANES), codes)
        layouts.put_symmetric(shape.layout, codes, stored_unit, levels, data)
        write_bytes(data, shape.block_bytes, first, blocks, words, turned, out)
    return True


@njit(error_model="numpy", nogil=True, cache=True)
def encode_stepped(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    importance: np.ndarray,
    shape: Shape,
    effort: Effort,
    out: np.ndarray,
    table: Table,
    steps: np.ndarray,
) -> bool:
    """As `encode_in_table`, for groups whose step is one of the ascending `steps`."""
    weights, blocks = shape.size * shape.groups, out.size // shape.block_bytes
    rows, x, w, codes, data, words, turned = _tiles(shape)
    places = np.empty(shape.groups * LANES, np.int32)
    for first in range(0, blocks, LANES):
        if not load_tile(plain, stored, kind, weights, first, blocks, rows, x):
            return False
        stride = load_importance(importance, weights, first, blocks, rows, x, w)
        tile = _tile(x, w, stride, effort)
        tables.search(table, steps, tile, shape, effort, places)
        for group in range(shape.groups):
            put_places(table, x, shape, group, gather(steps, load(places, group * LANES)), codes)
        layouts.put_stepped(codes, places, shape.size, shape.groups, data)
        write_bytes(data, shape.block_bytes, first, blocks, words, turned, out)
    return True


@njit(error_model="numpy", nogil=True, cache=True)
def encode_affine(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    importance: np.ndarray,
    shape: Shape,
    effort: Effort,
    out: np.ndarray,
) -> bool:
    weights, blocks = shape.size * shape.groups, out.size // shape.block_bytes
    rows, x, w, codes, data, words, turned = _tiles(shape)
    levels, shift_levels = _levels(shape), _levels(shape)
    scratch = (
        _levels(shape), _levels(shape), _levels(shape), _levels(shape), _levels(shape), _levels(shape)
    )  # fmt: skip
    low, high = splat(_ZERO), splat(shape.high)
    for first in range(0, blocks, LANES):
        if not load_tile(plain, stored, kind, weights, first, blocks, rows, x):
            return False
        stride = load_importance(importance, weights, first, blocks, rows, x, w)
        tile = _tile(x, w, stride, effort)
        units, stored_units = affine.search(tile, shape, effort, scratch, levels, shift_levels)
        for group in range(shape.groups):
            inverse = inverse_of(units[0] * load(levels, group * LANES))
            shift = units[1] * load(shift_levels, group * LANES)
            for i in range(group * shape.size, (group + 1) * shape.size):
                code = rounded(least(most((load(x, i * LANES) - shift) * inverse, low), high))
                store(codes, i * LANES, to_int(code))
        layouts.put_affine(shape.layout, codes, stored_units[0], stored_units[1], levels, shift_levels, data)
        write_bytes(data, shape.block_bytes, first, blocks, words, turned, out)
    return True


@njit(error_model="numpy", nogil=True, cache=True)
def encode_lattice(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    importance: np.ndarray,
    shape: LatticeShape,
    effort: Effort,
    out: np.ndarray,
    lattice: Lattice,
) -> bool:
    weights, blocks = shape.size * shape.groups, out.size // shape.block_bytes
    rows, x, w, points, data, words, turned = _tiles(shape)
    others, signs = (
        np.empty(weights // lattice.width * LANES, np.int32),
        np.empty(weights // 8 * LANES, np.int32),
    )
    scratch, levels = (_levels(shape), _levels(shape)), _levels(shape)
    for first in range(0, blocks, LANES):
        if not load_tile(plain, stored, kind, weights, first, blocks, rows, x):
            return False
        stride = load_importance(importance, weights, first, blocks, rows, x, w)
        tile = _tile(x, w, stride, effort)
        if shape.signs != lattices.UNSIGNED:
            lattices.strip_signs(tile, weights, shape.signs == lattices.EVEN, signs)
        unit = lattices.search(lattice, shape, tile, effort, scratch, levels, points, others)
        lattice_layouts.put_lattice(shape.layout, points, signs, unit, levels, data)
        write_bytes(data, shape.block_bytes, first, blocks, words, turned, out)
    return True
