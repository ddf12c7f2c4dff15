"""Searched scales: little squared error, each weight's counted by the importance of its column.

`kernels.encoders` says how. This method knows its formats by name: scales, codes and bytes of sixteen blocks
at a time are made in one pass by one kernel, and a method of parts, each for any grid, took eight times as
long (its grids' `unpack` says which scales were found).
"""

import numpy as np

from kernels import encoders


def encode(
    weights: np.ndarray, name: str, importance: np.ndarray | None, effort: str, *, restored: bool
) -> np.ndarray | None:
    """The bytes in the format, uint8 [rows, row bytes]; None where a weight is NaN or Inf.

    weights: [rows, columns] of float32, float16, or uint16 for the bits of bfloat16. importance: float32
    [columns], how much a squared error in each column matters; None where all are alike. restored: whether
    blocks are stored longer than the least squared error leaves them.
    """
    matters = _relative(importance)
    return encoders.encode(np.ascontiguousarray(weights), name, matters, effort, restored=restored)


def _relative(importance: np.ndarray | None) -> np.ndarray | None:
    """Importance with mean 1; columns that calibration never saw count a little."""
    if importance is None or not importance.any():
        return None
    relative = importance / importance.mean(dtype=np.float64)
    return np.maximum(relative, 1e-6).astype(np.float32)
