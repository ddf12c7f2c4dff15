"""A typed value of a GGUF file's metadata, as both the reader and the writer hold it."""

from dataclasses import dataclass
from typing import Any

from gguf import GGUFValueType


@dataclass(frozen=True)
class GgufValue:
    """`value` is a scalar, a string, or a list with items of `item_type` (then `type` is ARRAY)."""

    type: GGUFValueType
    value: Any
    item_type: GGUFValueType | None = None
