"""What a kernel is told of a format, and how hard it looks; plain tuples, so that Numba takes them."""

from typing import NamedTuple

import numpy as np

MOST_LOST = 0.35
"""Of what is kept; what a block loses beyond that is not given back. Gaussian weights lose 0.3 as IQ1_S."""

LEVEL = 2.0
"""How many times the mean of squares a weight's own is added to, in what its error counts."""


class Shape(NamedTuple):
    """Blocks of `groups` groups of `size` weights, with codes low .. high and levels bottom .. top of steps.

    A code is stored as code - offset; `layout` is one of `kernels.cpu.layouts`, `block_bytes` its length.
    Affine codes begin at 0; their levels of shifts run from `bottom` to `top`, too.
    """

    layout: int
    block_bytes: int
    size: int
    groups: int
    low: np.float32
    high: np.float32
    bottom: np.float32
    top: np.float32
    offset: int


class LatticeShape(NamedTuple):
    """Blocks of lattice vectors: levels of steps are odd, 1 .. top; stored is `units` times the unit.

    `span` weights are moved up or down together (0: none are). `signs`: see `kernels.cpu.lattices`.
    """

    layout: int
    block_bytes: int
    size: int
    groups: int
    span: int
    units: int
    top: np.float32
    signs: int


class Effort(NamedTuple):
    """How long to search: see the steps in `kernels.encoders`.

    trials: float32 [trials, 2], starts (a, b): step times a, shift plus step times b (unused if symmetric).
    looks: at shift levels for one step level. neighbours: lattice points compared for a vector, in the first
    step and after it. restored: how much of what a block loses along itself its stored scales give back,
    without importance and with it.
    """

    trials: np.ndarray
    rounds: int
    turns: int
    reach: int
    looks: int
    covering: int
    neighbours: tuple[int, int]
    restored: tuple[float, float]
