"""What formats are like, in the words of the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

F32 = np.float32
TINY = F32(1e-30)
MOST_LOST = 0.35


@dataclass(frozen=True)
class Shape:
    """`bytes` of a block: `groups` of `size` weights; codes low .. high; bounds of the integer levels.

    table: the code of each stored index, where codes are not all of low .. high.
    points: the class of gguf.quants with the points that codes must form; signs: "free", "even" or "none";
    delta: weights that share a shift of the points; resolution: inputs are rounded to parts of 1.
    odd: levels of steps are odd. fraction: what the unit of steps is of the stored number.
    own: the steps that can be stored for a group, where they are no levels of a unit.
    """

    bytes: int
    low: int
    high: int
    affine: bool = False
    size: int = 32
    groups: int = 1
    step_levels: tuple[int, int] = (1, 1)
    shift_levels: tuple[int, int] = (1, 1)
    table: tuple[int, ...] = ()
    points: str = ""
    signs: str = "none"
    delta: int = 0
    resolution: int = 0
    odd: bool = False
    fraction: float = 1.0
    own: tuple[float, ...] = ()


class Block(NamedTuple):
    """Codes are integers as decoded. Levels are those of steps and of shifts, one for each group.

    Where steps are a format's own, the unit is 1 and the levels are the steps.
    """

    unit_step: np.float32
    unit_shift: np.float32
    step_levels: Sequence[float]
    shift_levels: Sequence[float]
    codes: list[int]


class Effort(NamedTuple):
    """How long to search: see the steps in `kernels.encoders`, and `kernels.efforts` for the numbers.

    trials: float32 [trials, 2]; neighbours: of no use here, where all points of a lattice are compared.
    """

    trials: np.ndarray
    rounds: int
    turns: int
    reach: int
    looks: int
    covering: int
    neighbours: tuple[int, int]
    restored: tuple[float, float]


IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # doubled


def ue4m3(byte: int) -> float:
    """Half the number: 4 bits of exponent (bias 7), 3 of fraction."""
    exponent, fraction = byte >> 3 & 15, byte & 7
    if byte == 0x7F:
        return 0.0
    number = fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    return number / 2


_E8M0 = tuple(2.0 ** (exponent - 128) for exponent in range(253))
_UE4M3 = tuple(ue4m3(byte) for byte in range(1, 0x7F))
_SIX_BITS = (0, 63)

SHAPES = {
    "Q8_0": Shape(34, -127, 127),
    "Q4_0": Shape(18, -8, 7),
    "Q4_1": Shape(20, 0, 15, affine=True),
    "Q5_0": Shape(22, -16, 15),
    "Q5_1": Shape(24, 0, 31, affine=True),
    "Q2_K": Shape(84, 0, 3, True, 16, 16, (0, 15), (0, 15)),
    "Q3_K": Shape(110, -4, 3, False, 16, 16, (-32, 31)),
    "Q4_K": Shape(144, 0, 15, True, 32, 8, _SIX_BITS, _SIX_BITS),
    "Q5_K": Shape(176, 0, 31, True, 32, 8, _SIX_BITS, _SIX_BITS),
    "Q6_K": Shape(210, -32, 31, False, 16, 16, (-128, 127)),
    "TQ1_0": Shape(54, -1, 1, size=256),
    "TQ2_0": Shape(66, -1, 1, size=256),
    "IQ4_NL": Shape(18, -127, 113, table=IQ4),
    "IQ4_XS": Shape(136, -127, 113, groups=8, step_levels=(-32, 31), table=IQ4),
    "MXFP4": Shape(17, -12, 12, table=E2M1, own=_E8M0),
    "NVFP4": Shape(36, -12, 12, size=16, groups=4, table=E2M1, own=_UE4M3),
}


def _add_lattices() -> None:
    for name, size, high, fraction, resolution, signs in (
        ("IQ2_XXS", 66, 43, 1 / 8, 256, "even"),
        ("IQ2_XS", 74, 43, 1 / 8, 256, "even"),
        ("IQ2_S", 82, 43, 1 / 8, 256, "free"),
        ("IQ3_XXS", 98, 62, 1 / 4, 256, "even"),
        ("IQ3_S", 110, 15, 1.0, 4096, "free"),
        ("IQ1_S", 50, 9, 1 / 8, 4096, "none"),
        ("IQ1_M", 56, 9, 1 / 8, 4096, "none"),
    ):
        group = 16 if name in ("IQ2_XS", "IQ2_S", "IQ1_M") else 32
        SHAPES[name] = Shape(
            size,
            -high,
            high,
            size=group,
            groups=256 // group,
            step_levels=(1, 15) if name.startswith("IQ1") else (1, 31),
            points=name,
            signs=signs,
            delta={"IQ1_S": 32, "IQ1_M": 8}.get(name, 0),
            resolution=resolution,
            odd=True,
            fraction=fraction,
        )


_add_lattices()
