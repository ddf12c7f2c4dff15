"""The catalogue of formats and methods: names and sizes, without the code that encodes.

Sizes are those of ggml's block types: `block_values` weights of one row share `block_bytes` bytes
(ggml-common.h; the same numbers as `gguf.GGML_QUANT_SIZES`, which a test compares).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FormatInfo:
    """One storage format.

    `summary` says in one line what it is, for menus; `fallback` names the format for rows that `block_values`
    does not divide.
    """

    name: str
    block_values: int
    block_bytes: int
    summary: str
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
        FormatInfo("F32", 1, 4, "32-bit floats: nothing lost"),
        FormatInfo("F16", 1, 2, "16-bit floats: half precision"),
        FormatInfo("BF16", 1, 2, "16-bit floats with the range of F32"),
        FormatInfo("Q8_0", 32, 34, "8 bits, a scale for each 32: hardly any loss", "F16"),
        FormatInfo("Q5_1", 32, 24, "5 bits, a scale and a least value for each 32", "F16"),
        FormatInfo("Q5_0", 32, 22, "5 bits, a scale for each 32: plain and fast", "F16"),
        FormatInfo("Q4_1", 32, 20, "4 bits, a scale and a least value for each 32", "F16"),
        FormatInfo("Q4_0", 32, 18, "4 bits, a scale for each 32: the plainest, fast on phones", "F16"),
        FormatInfo("Q6_K", 256, 210, "6 bits, scales in two levels: little loss", "Q8_0"),
        FormatInfo("Q5_K", 256, 176, "5 bits, scales in two levels: small loss", "Q5_1"),
        FormatInfo("Q4_K", 256, 144, "4 bits, scales in two levels: the usual choice", "Q5_0"),
        FormatInfo("Q3_K", 256, 110, "3 bits, scales in two levels: clear loss", "Q4_0"),
        FormatInfo("Q2_K", 256, 84, "2 bits, scales in two levels: great loss", "Q4_0"),
        FormatInfo("IQ4_NL", 32, 18, "a table of 16 uneven values, for rows of any multiple of 32", "F16"),
        FormatInfo("IQ4_XS", 256, 136, "the table of IQ4_NL, scales in two levels", "IQ4_NL"),
        FormatInfo("IQ3_S", 256, 110, "4 weights at once to points of a lattice, of 512", "IQ4_NL"),
        FormatInfo("IQ3_XXS", 256, 98, "4 weights at once to points of a lattice, of 256", "IQ4_NL"),
        FormatInfo("IQ2_S", 256, 82, "8 weights at once to points of a lattice, of 1,024", "IQ4_NL"),
        FormatInfo("IQ2_XS", 256, 74, "8 weights at once to points of a lattice, of 512", "IQ4_NL"),
        FormatInfo("IQ2_XXS", 256, 66, "8 weights at once to points of a lattice, of 256", "IQ4_NL"),
        FormatInfo(
            "IQ1_M", 256, 56, "8 weights at once to points of -1, 0 and 1, a scale for each 16", "IQ4_NL"
        ),
        FormatInfo(
            "IQ1_S", 256, 50, "8 weights at once to points of -1, 0 and 1, a scale for each 32", "IQ4_NL"
        ),
        FormatInfo(
            "NVFP4", 64, 36, "4-bit floats, an 8-bit scale for each 16: for new graphics cards", "F16"
        ),
        FormatInfo("MXFP4", 32, 17, "4-bit floats, a power of two for each 32: as gpt-oss has", "F16"),
        FormatInfo("TQ2_0", 256, 66, "-1, 0 and 1 in 2 bits each: for models trained so", "Q4_0"),
        FormatInfo("TQ1_0", 256, 54, "-1, 0 and 1, five in a byte: for models trained so", "Q4_0"),
    )
}

STORED: dict[str, FormatInfo] = {
    info.name: info
    for info in (
        FormatInfo("F64", 1, 8, "64-bit floats: only copied"),
        FormatInfo("I64", 1, 8, "64-bit integers: only copied"),
        FormatInfo("I32", 1, 4, "32-bit integers: only copied"),
        FormatInfo("I16", 1, 2, "16-bit integers: only copied"),
        FormatInfo("I8", 1, 1, "8-bit integers: only copied"),
        FormatInfo("Q8_1", 32, 40, "8 bits, a scale and a sum for each 32: only copied"),
        FormatInfo("Q8_K", 256, 292, "8 bits, a scale for each 256: only copied"),
        FormatInfo("Q2_0", 64, 18, "2 bits, a scale for each 64: only copied"),
        FormatInfo("Q1_0", 128, 18, "1 bit, a scale for each 128: only copied"),
    )
}
"""Types of GGUF files that hold no weights to quantize or are not decoded: such tensors are copied."""

LAYOUTS = FORMATS | STORED
"""Every type that a tensor of a GGUF file may have."""

WANT_IMPORTANCE = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"))
"""Formats that llama-quantize refuses, or warns of, without an importance matrix."""

METHODS: dict[str, str] = {
    "rtn": "round to nearest: scales that just cover the range of each group",
    "search": "searched scales: little squared error, weighted by importance where it is known",
}
DEFAULT_METHOD = "search"

EFFORTS: dict[str, str] = {
    "fast": "a little more loss, in a fraction of the time",
    "best": "the least loss",
}
"""How long `search` searches."""

DEFAULT_EFFORT = "best"
