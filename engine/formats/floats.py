"""Floating-point numbers, little-endian: nothing to choose, so every method rounds to nearest."""

from dataclasses import dataclass

import numpy as np

from engine.api.errors import ExportError


@dataclass(frozen=True)
class FloatFormat:
    """F32, F16 (IEEE half precision, up to 65504) or BF16 (the upper half of F32)."""

    name: str

    def encode(self, weights: np.ndarray) -> np.ndarray:
        """uint8 [rows, row bytes] of finite float32 [rows, columns], ties to even.

        Raises ExportError for a weight that would become infinite.
        """
        if self.name == "F32":
            stored = np.ascontiguousarray(weights, "<f4")
        elif self.name == "F16":
            with np.errstate(over="ignore"):
                stored = weights.astype("<f2")
            self._refuse_infinite(weights, np.isfinite(stored), "65504; choose BF16 or F32")
        else:
            bits = np.ascontiguousarray(weights).view(np.uint32)
            # Half of the last place that stays is added, or just less where that place is even.
            rounded = bits >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += bits
            rounded >>= 16
            stored = rounded.astype("<u2")
            self._refuse_infinite(weights, stored & 0x7FFF != 0x7F80, "3.39e38; choose F32")
        return stored.view(np.uint8).reshape(len(weights), -1)

    def decode(self, data: np.ndarray) -> np.ndarray:
        """float32 [rows, columns] of uint8 [rows, row bytes]."""
        data = np.ascontiguousarray(data)
        if self.name == "F32":
            return data.view("<f4").astype(np.float32)
        if self.name == "F16":
            return data.view("<f2").astype(np.float32)
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)

    def _refuse_infinite(self, weights: np.ndarray, held: np.ndarray, limit: str) -> None:
        if not held.all():
            raise ExportError(
                f"A weight of {weights[~held][0]:g} does not fit {self.name}, which ends at {limit} for it."
            )


FLOATS = (FloatFormat("F32"), FloatFormat("F16"), FloatFormat("BF16"))
