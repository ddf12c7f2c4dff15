"""llama.cpp's own encoders, reached inside the `xllamacpp` wheel: the peer that ours are measured against."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType


@cache
def _library() -> ctypes.CDLL:
    wheel = pytest.importorskip("xllamacpp", reason="the peer's encoders come with xllamacpp (extra: test)")
    library = ctypes.CDLL(str(next(Path(wheel.__file__).parent.glob("xllamacpp*.so"))))
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,  # type
        ctypes.c_void_p,  # weights, float32 [rows, columns]
        ctypes.c_void_p,  # the bytes that come out
        ctypes.c_int64,  # first weight
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # columns
        ctypes.c_void_p,  # importance, float32 [columns], or null
    ]
    return library


def ggml_encode(weights: np.ndarray, format_name: str, importance: np.ndarray | None = None) -> np.ndarray:
    """The bytes that llama.cpp stores for float32 [rows, columns]: uint8 [rows, row bytes], on this thread.

    importance: float32 [columns] or None. Skips the test where the wheel is absent.
    """
    library = _library()
    kind = GGMLQuantizationType[format_name]
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    weights = np.ascontiguousarray(weights, np.float32)
    rows, columns = weights.shape
    data = np.empty((rows, columns // block_values * block_bytes), np.uint8)
    library.ggml_quantize_init(kind)
    matters = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = library.ggml_quantize_chunk(
        kind,
        weights.ctypes.data,
        data.ctypes.data,
        0,
        rows,
        columns,
        None if matters is None else matters.ctypes.data,
    )
    assert written == data.nbytes
    return data
