"""Small fields that share a byte, the first in its lowest bits."""

import numpy as np


def join(fields: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [..., n] of fields uint8 [..., 8 // bits, n], each below 2 ** bits."""
    joined = fields[..., 0, :].copy()
    for place in range(1, 8 // bits):
        joined |= fields[..., place, :] << bits * place
    return joined


def split(joined: np.ndarray, bits: int) -> np.ndarray:
    """Fields uint8 [..., 8 // bits, n] of uint8 [..., n]."""
    mask = (1 << bits) - 1
    return np.stack([joined >> shift & mask for shift in range(0, 8, bits)], axis=-2)
