"""Blocks of 256 weights of -1, 0 or 1 times one F16 step (GGUF's TQ types). Codes are stored + 1.

TQ1_0, 54 bytes: 5 codes a byte, in base 3.
    0   48 bytes: a run of 160 codes in 32 bytes, then one of 80 in 16; byte i of a run of n bytes has the
        codes i, i + n ... i + 4 n as the digits of a number below 243, the first the most significant
    48  4 bytes: the last 16 codes, byte i with codes i, i + 4, i + 8, i + 12 and a fifth digit 0
    52  step
    A byte b is that number times 256 / 243, rounded up: then the first digit is the upper 8 bits of 3 b, and
    b times 3, without what goes beyond 8 bits, has the next digit first.

TQ2_0, 66 bytes: 2 bits a code; a stored 3 reads as code 2, which is never written for a weight.
    0   2 runs of 32 bytes, byte i with the codes i, i + 32, i + 64 and i + 96 of its half, lowest bits first
    64  step
"""

from dataclasses import dataclass

import numpy as np

from engine.formats import bits
from engine.formats.codes import Codes
from engine.formats.grid import Grid, Scales

_TQ1_0 = np.dtype([("first", "u1", 32), ("second", "u1", 16), ("last", "u1", 4), ("step", "<f2")])
_TQ2_0 = np.dtype([("codes", "u1", (2, 32)), ("step", "<f2")])
_FIELDS = {"first": slice(0, 160), "second": slice(160, 240), "last": slice(240, 256)}


@dataclass(frozen=True)
class TernaryGrid(Grid):
    """One group a block; its step is the unit."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        stored = (codes - np.int8(self.codes.low)).view(np.uint8).reshape(*scales.unit_steps.shape, 256)
        if self.name == "TQ1_0":
            blocks = np.empty(stored.shape[:2], _TQ1_0)
            for field, run in _FIELDS.items():
                blocks[field] = _to_base_3(stored[..., run], blocks[field].shape[-1])
        else:
            blocks = np.empty(stored.shape[:2], _TQ2_0)
            blocks["codes"] = bits.join(stored.reshape(*blocks.shape, 2, 4, 32), 2)
        blocks["step"] = scales.unit_steps
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        data = np.ascontiguousarray(data)
        if self.name == "TQ1_0":
            blocks = data.view(_TQ1_0)
            runs = [_from_base_3(blocks[field], run.stop - run.start) for field, run in _FIELDS.items()]
            stored = np.concatenate(runs, axis=-1)
        else:
            blocks = data.view(_TQ2_0)
            stored = bits.split(blocks["codes"], 2)
        codes = stored.view(np.int8) + np.int8(self.codes.low)
        steps = blocks["step"].astype(np.float32)
        return codes.reshape(len(data), -1), Scales.symmetric(steps, np.ones((*steps.shape, 1), np.float32))


def _to_base_3(stored: np.ndarray, width: int) -> np.ndarray:
    """uint8 [..., width] of stored codes uint8 [..., codes]."""
    number = np.zeros((*stored.shape[:-1], width), np.uint16)
    for place, start in enumerate(range(0, stored.shape[-1], width)):
        number += stored[..., start : start + width].astype(np.uint16) * np.uint16(3 ** (4 - place))
    return ((number * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)


def _from_base_3(packed: np.ndarray, count: int) -> np.ndarray:
    """Stored codes uint8 [..., count] of uint8 [..., width]."""
    digits, left = [], packed
    for _ in range(count // packed.shape[-1]):
        digits.append((left.astype(np.uint16) * np.uint16(3) >> 8).astype(np.uint8))
        left = left * np.uint8(3)
    return np.concatenate(digits, axis=-1)


TERNARY = (TernaryGrid("TQ1_0", Codes(-1, 1), group=256), TernaryGrid("TQ2_0", Codes(-1, 1), group=256))
