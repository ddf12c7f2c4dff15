"""The catalogue of formats and methods: names and sizes, without the code that encodes.

Sizes are those of ggml's block types: `block_values` weights of one row share `block_bytes` bytes
(ggml-common.h; the same numbers as `gguf.GGML_QUANT_SIZES`, which a test compares).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FormatInfo:
    """One storage format. `fallback` names the format for rows that `block_values` does not divide."""

    name: str
    block_values: int
    block_bytes: int
    fallback: str | None = None

    @property
    def bits(self) -> float:
        """Bits per weight, scales and all."""
        return 8 * self.block_bytes / self.block_values

    @property
    def exact(self) -> bool:
        """Floats are rounded one by one: there is nothing for a method to choose."""
        return self.block_values == 1

    def fits(self, columns: int) -> bool:
        return columns % self.block_values == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights; `columns` must fit."""
        if not self.fits(columns):
            raise ValueError(
                f"{self.name} stores blocks of {self.block_values}; {columns} columns do not divide"
            )
        return columns // self.block_values * self.block_bytes


# By family, then by falling bits.
FORMATS: dict[str, FormatInfo] = {
    info.name: info
    for info in (
        FormatInfo("F32", 1, 4),
        FormatInfo("F16", 1, 2),
        FormatInfo("BF16", 1, 2),
        FormatInfo("Q8_0", 32, 34, "F16"),
        FormatInfo("Q5_1", 32, 24, "F16"),
        FormatInfo("Q5_0", 32, 22, "F16"),
        FormatInfo("Q4_1", 32, 20, "F16"),
        FormatInfo("Q4_0", 32, 18, "F16"),
        FormatInfo("Q6_K", 256, 210, "Q8_0"),
        FormatInfo("Q5_K", 256, 176, "Q5_1"),
        FormatInfo("Q4_K", 256, 144, "Q5_0"),
        FormatInfo("Q3_K", 256, 110, "Q4_0"),
        FormatInfo("Q2_K", 256, 84, "Q4_0"),
        FormatInfo("IQ4_NL", 32, 18, "F16"),
        FormatInfo("IQ4_XS", 256, 136, "IQ4_NL"),
        FormatInfo("IQ3_S", 256, 110, "IQ4_NL"),
        FormatInfo("IQ3_XXS", 256, 98, "IQ4_NL"),
        FormatInfo("IQ2_S", 256, 82, "IQ4_NL"),
        FormatInfo("IQ2_XS", 256, 74, "IQ4_NL"),
        FormatInfo("IQ2_XXS", 256, 66, "IQ4_NL"),
        FormatInfo("IQ1_M", 256, 56, "IQ4_NL"),
        FormatInfo("IQ1_S", 256, 50, "IQ4_NL"),
        FormatInfo("NVFP4", 64, 36, "F16"),
        FormatInfo("MXFP4", 32, 17, "F16"),
        FormatInfo("TQ2_0", 256, 66, "Q4_0"),
        FormatInfo("TQ1_0", 256, 54, "Q4_0"),
    )
}

WANT_IMPORTANCE = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"))
"""Formats that llama-quantize refuses, or warns of, without an importance matrix."""

METHODS: dict[str, str] = {
    "rtn": "round to nearest: scales that just cover the range of each group",
    "search": "searched scales: least squared error, weighted by importance where it is known",
}
DEFAULT_METHOD = "search"

EFFORTS: dict[str, str] = {
    "fast": "at least the quality of llama.cpp's encoders, in a fraction of the time",
    "best": "the least squared error",
}
"""How long `search` searches."""

DEFAULT_EFFORT = "best"
