"""Searched encoders: weights to the bytes of a GGUF type, of little weighted squared error.

The search of whole-number codes and of IQ4, block by block (`looks`: at levels of shifts for one of steps):

1. Each group alone, with scales free to be any number: `trials` starts around the scales that cover the
   range, each followed by the least-squares scales for the codes it gives; `rounds` more from the best.
2. The unit that makes the extreme of a block the greatest level, the levels nearest to what was found.
3. Levels up to `reach` away tried for the units, codes rounded to them; then, for `turns` turns, the same
   for the least-squares units of these levels and codes (llama.cpp has none). A turn counts where it helps.
4. `covering`: 2 and 3 again from the scales that just cover the range, for blocks where that ends better.
5. Units are stored larger than what has the least error: quantized for least error, a block comes out shorter
   than it was (sum of w x x' < sum of w x x), by 7 % as Q2_K. Errors of single weights cancel in a product of
   a thousand of them; this one is the same in all blocks, and adds up from layer to layer. See
   `kernels.efforts.RESTORED`, and `engine.methods` for matrices where it is left out.

IQ1 to IQ3 the same without 4, with points of a lattice for codes. MXFP4 and NVFP4, whose steps are of a short
list, try those up to `reach` around the first that covers the range.

A weight's squared error counts its column's importance * sqrt(2 mean + xx), x the weight and the mean of its
block's squares (ggml has such a factor, too, with 1 or 2 means). Half a mean has 9 % more KL divergence than
4 of them as IQ3_XXS, 8 have 2 % more as Q3_K. Without importance all count alike.

These functions check, allocate and launch; the CPU is the one backend so far.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
from gguf import quants
from numba.core.dispatcher import Dispatcher

from kernels.compiled import first_call
from kernels.cpu import lattice_layouts, layouts
from kernels.cpu.encoders import (
    encode_affine,
    encode_in_table,
    encode_lattice,
    encode_stepped,
    encode_symmetric,
)
from kernels.cpu.lattices import EVEN, FREE, UNSIGNED
from kernels.cpu.shapes import LatticeShape, Shape
from kernels.cpu.tables import Table
from kernels.cpu.tiles import BF16, F16, F32
from kernels.efforts import effort_of
from kernels.lattices import lattice

_called: set[Dispatcher] = set()
"""Kernels that are loaded."""

_LARGEST_STEP = np.finfo(np.float32).max / 12
"""Of MXFP4: the largest code must stay finite."""

_NO_WEIGHTS: dict[int, np.ndarray] = {F32: np.empty(0, np.float32), F16: np.empty(0, np.uint16)}


def _shape(layout: int, block_bytes: int, size: int, groups: int, *codes: float, offset: int = 0) -> Shape:
    low, high, bottom, top = map(np.float32, codes)
    return Shape(layout, block_bytes, size, groups, low, high, bottom, top, offset)


_SYMMETRIC = {
    "Q4_0": _shape(layouts.Q4_0, 18, 32, 1, -8, 7, 1, 1, offset=-8),
    "Q5_0": _shape(layouts.Q5_0, 22, 32, 1, -16, 15, 1, 1, offset=-16),
    "Q8_0": _shape(layouts.Q8_0, 34, 32, 1, -127, 127, 1, 1),
    "Q3_K": _shape(layouts.Q3_K, 110, 16, 16, -4, 3, -32, 31, offset=-4),
    "Q6_K": _shape(layouts.Q6_K, 210, 16, 16, -32, 31, -128, 127, offset=-32),
    "TQ1_0": _shape(layouts.TQ1_0, 54, 256, 1, -1, 1, 1, 1, offset=-1),
    "TQ2_0": _shape(layouts.TQ2_0, 66, 256, 1, -1, 1, 1, 1, offset=-1),
}
_AFFINE = {
    "Q4_1": _shape(layouts.Q4_1, 20, 32, 1, 0, 15, 1, 1),
    "Q5_1": _shape(layouts.Q5_1, 24, 32, 1, 0, 31, 1, 1),
    "Q2_K": _shape(layouts.Q2_K, 84, 16, 16, 0, 3, 0, 15),
    "Q4_K": _shape(layouts.Q4_K, 144, 32, 8, 0, 15, 0, 63),
    "Q5_K": _shape(layouts.Q5_K, 176, 32, 8, 0, 31, 0, 63),
}
_IN_TABLE = {
    "IQ4_NL": _shape(layouts.IQ4_NL, 18, 32, 1, -127, 113, 1, 1),
    "IQ4_XS": _shape(layouts.IQ4_XS, 136, 32, 8, -127, 113, -32, 31),
}
_STEPPED = {
    "MXFP4": _shape(0, 17, 32, 1, -12, 12, 0, 0),
    "NVFP4": _shape(0, 36, 16, 4, -12, 12, 0, 0),
}
_LATTICES = {
    "IQ1_S": LatticeShape(lattice_layouts.IQ1_S, 50, 32, 8, 32, 8, np.float32(15), UNSIGNED),
    "IQ1_M": LatticeShape(lattice_layouts.IQ1_M, 56, 16, 16, 8, 8, np.float32(15), UNSIGNED),
    "IQ2_XXS": LatticeShape(lattice_layouts.IQ2_XXS, 66, 32, 8, 0, 8, np.float32(31), EVEN),
    "IQ2_XS": LatticeShape(lattice_layouts.IQ2_XS, 74, 16, 16, 0, 8, np.float32(31), EVEN),
    "IQ2_S": LatticeShape(lattice_layouts.IQ2_S, 82, 16, 16, 0, 8, np.float32(31), FREE),
    "IQ3_XXS": LatticeShape(lattice_layouts.IQ3_XXS, 98, 32, 8, 0, 4, np.float32(31), EVEN),
    "IQ3_S": LatticeShape(lattice_layouts.IQ3_S, 110, 32, 8, 0, 1, np.float32(31), FREE),
}


def encode(
    weights: np.ndarray, name: str, importance: np.ndarray | None, effort: str, *, restored: bool = True
) -> np.ndarray | None:
    """The stored bytes, uint8 [rows, row bytes], of C-contiguous [rows, columns]; None for NaN or Inf in it.

    weights: float32, float16, or uint16 for bfloat16's bits. importance: float32 [columns], positive, of mean
    1. `restored`: with step 5. Rows do not depend on each other. Releases the interpreter lock: to be called
    from many threads.
    Raises ValueError for other types and for columns that blocks do not divide.
    """
    rows, columns = weights.shape
    kernel, shape, tables = _kernel(name)
    if columns % (shape.size * shape.groups) or weights.dtype not in (np.float32, np.float16, np.uint16):
        raise ValueError(f"{weights.dtype} [{rows}, {columns}] cannot be encoded as {name}")
    out = np.empty((rows, columns // (shape.size * shape.groups) * shape.block_bytes), np.uint8)
    matters = _sealed(_NO_WEIGHTS[F32] if importance is None else importance)
    told = effort_of(name, effort, restored=restored)
    arguments = (*_as_stored(weights), matters, shape, told, out.reshape(-1), *tables)
    if kernel in _called:
        finite = kernel(*arguments)
    else:
        finite = first_call(kernel, *arguments)
        _called.add(kernel)
    return out if finite else None


def kernels_of(names: Iterable[str]) -> dict[str, str]:
    """The kernels that encode these types, each with one of the types."""
    return {_kernel(name)[0].py_func.__name__: name for name in names}


@cache
def _kernel(name: str) -> tuple[Dispatcher, Shape | LatticeShape, tuple]:
    """The kernel of a type, what it is told of it, and its tables."""
    if name in _SYMMETRIC:
        return encode_symmetric, _SYMMETRIC[name], ()
    if name in _AFFINE:
        return encode_affine, _AFFINE[name], ()
    if name in _IN_TABLE:
        return encode_in_table, _IN_TABLE[name], (_table(np.array(quants.IQ4_NL.kvalues, np.float32), 0),)
    if name in _STEPPED:
        table = _table(np.array(quants.MXFP4.kvalues[:8], np.float32), 1)
        numbers = np.arange(255 if name == "MXFP4" else 127, dtype=np.uint8)
        decode = quants.MXFP4.e8m0_to_fp32_half if name == "MXFP4" else quants.NVFP4.ue4m3_to_fp32
        steps: np.ndarray = decode(numbers).astype(np.float32)
        return encode_stepped, _STEPPED[name], (table, _sealed(steps[steps <= _LARGEST_STEP]))
    return encode_lattice, _LATTICES[name], (lattice(name),)


def _table(values: np.ndarray, mirrored: int) -> Table:
    rises = np.diff(values)
    return Table(values[0], _sealed(values[:-1] + rises / 2), _sealed(rises), mirrored)


def _as_stored(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    flat = weights.reshape(-1)
    if flat.dtype == np.float32:
        return _sealed(flat), _sealed(_NO_WEIGHTS[F16]), F32
    kind = F16 if flat.dtype == np.float16 else BF16
    return _sealed(_NO_WEIGHTS[F32]), _sealed(flat.view(np.uint16)), kind


def _sealed(array: np.ndarray) -> np.ndarray:
    """Read-only: a kernel is then compiled once, for arrays of either kind."""
    view = array.view()
    view.flags.writeable = False
    return view
