"""A typed value of a GGUF file's metadata, as both the reader and the writer hold it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class GGUFValueType(IntEnum):
    """The types of GGUF's specification, as the package `gguf` has them (a test compares).

    Our own, for the package brings NumPy along, which takes half a second of the window's start. Compare by
    `==`: values with the package's types are about, too.
    """

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True)
class GgufValue:
    """`value` is a scalar, a string, or a list with items of `item_type` (then `type` is ARRAY)."""

    type: GGUFValueType
    value: Any
    item_type: GGUFValueType | None = None
