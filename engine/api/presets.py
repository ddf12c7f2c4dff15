"""Presets by llama-quantize's names: what each is, and which model each is for.

`engine.api.mixtures` makes recipes of them.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from engine.api.errors import RecipeError


@dataclass(frozen=True)
class ModelFacts:
    """What a preset must know of a model.

    `architecture` is GGUF's name; `blocks` is their number as the model states it; `experts` are routed ones;
    `group`: query heads that share one key head. `has_importance`: with an importance matrix.
    """

    architecture: str
    blocks: int
    experts: int = 0
    tied: bool = False
    has_importance: bool = False
    group: int = 1


class Preset(NamedTuple):
    """`format` is what most tensors get, `summary` says what to expect, for menus."""

    format: str
    summary: str


PRESETS = {
    "F32": Preset("F32", "32 bits, nothing lost"),
    "F16": Preset("F16", "16 bits, half precision"),
    "BF16": Preset("BF16", "16 bits, the range of F32"),
    "Q8_0": Preset("Q8_0", "8.5 bits, hardly any loss"),
    "Q6_K": Preset("Q6_K", "6.6 bits, little loss"),
    "Q5_K_M": Preset("Q5_K", "about 5.7 bits, mixed: small loss"),
    "Q5_K_S": Preset("Q5_K", "5.5 bits"),
    "Q5_1": Preset("Q5_1", "6 bits, plain: for old runtimes"),
    "Q5_0": Preset("Q5_0", "5.5 bits, plain: for old runtimes"),
    "Q4_K_M": Preset("Q4_K", "about 4.9 bits, mixed: the usual choice"),
    "Q4_K_S": Preset("Q4_K", "about 4.6 bits, less mixed"),
    "Q4_1": Preset("Q4_1", "5 bits, plain: for old runtimes"),
    "Q4_0": Preset("Q4_0", "4.5 bits, the plainest: fast on phones"),
    "IQ4_NL": Preset("IQ4_NL", "4.5 bits, a table of values: any row of 32"),
    "IQ4_XS": Preset("IQ4_XS", "4.3 bits, a table of values"),
    "MXFP4_MOE": Preset("Q8_0", "experts in 4.25 bits (MXFP4), the rest in 8"),
    "Q3_K_L": Preset("Q3_K", "about 4.3 bits, mixed with 5"),
    "Q3_K_M": Preset("Q3_K", "about 3.9 bits, mixed with 4"),
    "Q3_K_S": Preset("Q3_K", "3.4 bits: clear loss"),
    "IQ3_M": Preset("IQ3_S", "about 3.7 bits, a lattice, mixed with 4"),
    "IQ3_S": Preset("IQ3_S", "3.4 bits, a lattice"),
    "IQ3_XS": Preset("IQ3_S", "about 3.3 bits, a lattice"),
    "IQ3_XXS": Preset("IQ3_XXS", "about 3.1 bits, a lattice"),
    "Q2_K": Preset("Q2_K", "about 3 bits, mixed: great loss"),
    "Q2_K_S": Preset("Q2_K", "about 2.8 bits: great loss"),
    "IQ2_M": Preset("IQ2_S", "about 2.7 bits, a lattice"),
    "IQ2_S": Preset("IQ2_XS", "about 2.5 bits, a lattice"),
    "IQ2_XS": Preset("IQ2_XS", "about 2.4 bits, a lattice"),
    "IQ2_XXS": Preset("IQ2_XXS", "about 2.1 bits, a lattice"),
    "IQ1_M": Preset("IQ1_M", "about 1.9 bits, a lattice: for very large models"),
    "IQ1_S": Preset("IQ1_S", "about 1.7 bits, a lattice: for very large models"),
    "TQ2_0": Preset("TQ2_0", "2.1 bits, for models trained on -1, 0, 1"),
    "TQ1_0": Preset("TQ1_0", "1.7 bits, for models trained on -1, 0, 1"),
}
"""Name -> preset; by falling size, as in tables and menus."""

COPY = "COPY"
COPY_SUMMARY = "every tensor in the type that it is stored in"
"""The preset that is no function of `ModelFacts` (`Planner.recipe_of`): to split a file, to edit metadata."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Names that llama-quantize takes, too."""

LOWEST = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
"""Presets that keep the few tensors that matter most far above their own bits."""

IMPORTANCE_WANTED = (*LOWEST, "IQ3_XXS", "Q2_K_S")
"""Presets that llama-quantize refuses or warns of without an importance matrix."""


def preset_name(name: str) -> str:
    """The preset's own name for `name` in any case, or an alias. Unknown names raise `RecipeError`."""
    known = ALIASES.get(name.upper(), name.upper())
    if known not in (*PRESETS, COPY):
        raise RecipeError(f"Unknown preset {name!r}; known: {', '.join((*PRESETS, COPY))}.")
    return known


def preset_groups() -> dict[str, list[str]]:
    """All presets under headings by the bits that their names say, for menus."""
    headings = {8: "8 bits and more", 6: "6 and 5 bits", 4: "4 bits", 3: "3 bits", 2: "2 bits", 1: "1 bit"}
    found: dict[str, list[str]] = {heading: [] for heading in headings.values()}
    for name in PRESETS:
        bits = int(re.findall(r"\d+", name)[0])
        found[headings[8 if bits > 8 else 6 if bits == 5 else bits]].append(name)
    return found | {"As it is": [COPY]}


def preset_refusal(name: str, model: ModelFacts) -> str | None:
    """Why the preset of this very name makes no sense for `model`, or None."""
    if name == "MXFP4_MOE" and not model.experts:
        return "MXFP4_MOE is for mixtures of experts, and this model has none: Q8_0 is the same here."
    return None
