"""The oracle of every test: encoders and decoders of all formats, slow and plain, in NumPy alone.

Nothing here is shared with the code it judges, but for the points of the IQ formats, which are gguf's.
Blocks are packed and unpacked one byte at a time, as llama.cpp's ggml-common.h and ggml-quants.c describe
them. Arithmetic is float32 in the order of the weights, so that the fast encoders, which do the same in
another arrangement, must give the same bytes; but for lattices, where the oracle searches harder.
"""

from typing import Any

import numpy as np

from kernels.reference import blocks, lattice_search, lattices, rtn, search
from kernels.reference.shapes import F32, SHAPES, Block, Effort

__all__ = ["SHAPES", "decode", "encode", "relative"]


def relative(importance: np.ndarray) -> np.ndarray:
    """float32 [columns] of mean 1, columns that were never seen a little: what `encode` wants."""
    return np.maximum(importance / importance.mean(dtype=np.float64), 1e-6).astype(F32)


def encode(
    weights: np.ndarray,
    format_name: str,
    method: str,
    importance: np.ndarray | None = None,
    effort: tuple[Any, ...] = (),
) -> np.ndarray:
    """uint8 [rows, row bytes] of finite float32 [rows, columns]; method "rtn" or "search".

    importance: float32 [columns], positive; `effort` as `kernels.efforts` has it: both for "search" only.
    """
    if format_name == "F32":
        return weights.astype("<f4").view(np.uint8)
    if format_name == "F16":
        return weights.astype("<f2").view(np.uint8)
    if format_name == "BF16":
        return np.array([[_bf16(value) for value in row] for row in weights], "<u2").view(np.uint8)
    shape = SHAPES[format_name]
    x = weights.reshape(-1, shape.groups, shape.size)
    w = np.ones_like(x) if importance is None else _weighing(x, importance)
    with np.errstate(all="ignore"):
        if method == "rtn":
            (units, levels), codes = rtn.covered(x, shape)
        else:
            searched = lattice_search.searched if shape.points else search.searched
            told = Effort(*effort)
            (units, levels), codes = searched(x, w, shape, told, told.restored[importance is not None])
    pack = lattices.pack if shape.points else blocks.pack
    packed = [
        pack(
            format_name,
            Block(
                units[0][place] / F32(shape.fraction),
                units[1][place],
                levels[0][place].tolist(),
                levels[1][place].tolist(),
                [int(code) for code in codes[place].ravel()],
            ),
        )
        for place in range(len(x))
    ]
    return np.frombuffer(b"".join(packed), np.uint8).reshape(len(weights), -1)


def _weighing(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """What squared errors of weights x [blocks, groups, size] count: importance * sqrt(2 mean + xx).

    x and the mean of xx are in parts of the block's largest.
    """
    blocks = x.reshape(len(x), -1)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    part = blocks / np.where(largest == 0, F32(1), largest)
    mean = (part * part).cumsum(axis=1, dtype=F32)[:, -1:] * F32(2 / blocks.shape[1])
    factor = np.sqrt(np.where(largest == 0, F32(1), mean) + part * part)
    columns = np.resize(importance, x.size).reshape(blocks.shape)
    return (columns * factor).reshape(x.shape)


def decode(data: np.ndarray, format_name: str) -> np.ndarray:
    """float32 [rows, columns] of uint8 [rows, row bytes]."""
    if format_name == "F32":
        return data.view("<f4")
    if format_name == "F16":
        return data.view("<f2").astype(F32)
    if format_name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(F32)
    read = lattices.values if SHAPES[format_name].points else blocks.values
    stored = data.reshape(-1, SHAPES[format_name].bytes)
    values = [value for block in stored for value in read(format_name, block.tobytes())]
    return np.array(values, F32).reshape(len(data), -1)


def _bf16(value: np.float32) -> int:
    """The nearer of the two neighbours whose lower 16 bits are 0, the even one between them."""
    bits = int(np.array(value, "<f4").view("<u4"))
    upper, lower = divmod(bits, 1 << 16)
    return upper + (lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1))
