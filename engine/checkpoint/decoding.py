"""Stored bytes to float32, in pieces of 256 KiB: beside the result only what one piece takes is held.

Plain types, 8-bit floats, and GGML's block types by `gguf.quants.dequantize`.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from engine.checkpoint.errors import UnknownTypeError
from engine.checkpoint.files import SourceFile

PIECE = 256 << 10  # bytes read at a time: the scratch and its float32 stay in a core's cache

_NUMPY_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "U64": "<u8",
    "I32": "<i4",
    "U32": "<u4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
}


@cache
def byte_values(dtype: str) -> np.ndarray:
    """float32 [256]: the value of every byte of an 8-bit float (OCP FP8 and MX specifications).

    E4M3 has no infinity, only NaN at S.1111.111; E5M2 follows IEEE; E8M0 is 2^(byte - 127), NaN at 255.
    """
    byte = np.arange(256)
    if dtype == "F8_E8M0":
        return np.append(np.exp2(byte[:255] - 127.0), np.nan).astype(np.float32)
    if dtype == "F8_E5M2":  # the upper byte of a half
        return (byte.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    exponent, mantissa = byte >> 3 & 15, byte & 7
    size = np.where(exponent, (8 + mantissa) * np.exp2(exponent - 10.0), mantissa * np.exp2(-9.0))
    size[byte & 127 == 127] = np.nan
    return np.where(byte < 128, size, -size).astype(np.float32)


def decode(file: SourceFile, offset: int, values: int, dtype: str, name: str) -> np.ndarray:
    """float32 [values]: the values stored from `offset` of `file` on; whole blocks for GGML's types.

    `name` is the tensor's, for errors. Raises `UnknownTypeError` for a type that cannot be decoded.
    """
    result = np.empty(values, np.float32)
    if dtype == "F32":
        file.read_array(offset, result, name)
        return result
    convert, unit_values, unit_bytes = _converter(dtype, f"In {file.path}, {name}")
    step = max(PIECE // unit_bytes, 1)
    scratch = np.empty(min(step, values // unit_values) * unit_bytes, np.uint8)
    for start in range(0, values // unit_values, step):
        units = min(step, values // unit_values - start)
        piece = scratch[: units * unit_bytes]
        file.read_array(offset + start * unit_bytes, piece, name)
        convert(piece, result[start * unit_values : (start + units) * unit_values])
    return result


def _converter(dtype: str, what: str) -> tuple[Callable[[np.ndarray, np.ndarray], None], int, int]:
    """A function from stored bytes into float32, and the values and bytes of one unit. `what` is decoded."""
    if dtype in _NUMPY_TYPES:
        plain = np.dtype(_NUMPY_TYPES[dtype])
        return lambda piece, out: _plain(piece.view(plain), out, dtype), 1, plain.itemsize
    if dtype in GGMLQuantizationType.__members__:
        kind = GGMLQuantizationType[dtype]
        return lambda piece, out: _blocks(piece, out, kind, what), *GGML_QUANT_SIZES[kind]
    raise UnknownTypeError(f"{what} is stored as {dtype}, which cannot be decoded; use the original model.")


def _plain(stored: np.ndarray, out: np.ndarray, dtype: str) -> None:
    if dtype == "BF16":  # the upper half of a float32
        bits = out.view(np.uint32)
        bits[:] = stored
        bits <<= 16
    elif dtype.startswith("F8"):
        byte_values(dtype).take(stored, out=out, mode="clip")  # "clip" writes into `out` without a copy
    else:
        with np.errstate(all="ignore"):  # NaN, and an F64 beyond the range, are for `check_finite` to say
            out[:] = stored


def _blocks(piece: np.ndarray, out: np.ndarray, kind: GGMLQuantizationType, what: str) -> None:
    try:
        # As one long row: gguf decodes 16 rows at a time, slowly if they are short.
        with np.errstate(all="ignore"):  # a scale may be NaN: that is for `check_finite` to say
            out[:] = quants.dequantize(piece.reshape(1, -1), kind)[0]
    except NotImplementedError:
        raise UnknownTypeError(
            f"{what} is stored as {kind.name}, which cannot be decoded; use the original model."
        ) from None
