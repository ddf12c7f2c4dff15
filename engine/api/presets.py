"""Presets: functions from a model to a recipe, with llama-quantize's names and mixtures.

The rules were read from the types that llama-quantize prints for many shapes, and from the conditions in
its `llama-quant.cpp`; a test compares them tensor by tensor where those records are at hand. Fallbacks for
rows that do not divide are not rules: `engine.api.plan` applies them to every recipe alike.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from engine.api.errors import RecipeError
from engine.api.formats import FORMATS
from engine.api.recipe import Choice, Recipe, Rule, block_ranges


@dataclass(frozen=True)
class ModelFacts:
    """What a preset must know of a model.

    `architecture` is GGUF's name; `experts` are routed ones; `columns` those of the output, 0 if unknown;
    `group`: query heads that share one key head. `has_importance`: with an importance matrix.
    `shared_experts`: blocks have experts for all tokens beside the routed ones.
    """

    architecture: str
    blocks: int
    experts: int = 0
    tied: bool = False
    has_importance: bool = False
    columns: int = 0
    group: int = 1
    shared_experts: bool = False


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


def preset_recipe(name: str, model: ModelFacts) -> Recipe:
    """The recipe of preset `name` for `model`. Raises `RecipeError` for an unknown or unfit one.

    Some of its rules may select nothing in this very model (`Planner.recipe_of`).
    """
    name = preset_name(name)
    if refusal := preset_refusal(name, model):
        raise RecipeError(refusal)
    base = PRESETS[name].format
    default = Choice(format=base)
    if FORMATS[base].exact:
        return Recipe(default=default)
    if name == "MXFP4_MOE":
        return Recipe(rules=[Rule(match="expert", format="MXFP4")], default=default)
    rules = [
        rule
        for match, chosen in _IN_BLOCKS.items()
        if chosen is not _shared_down or model.shared_experts
        for rule in _rules(match, base, [chosen(name, model, block) for block in range(model.blocks)])
    ]
    for role, wanted in (("embedding", _embedding(name)), ("output", _output(name, model))):
        if role == "embedding" and model.tied:
            wanted = _output(name, model)
        if wanted not in (None, base) and not (role == "output" and model.tied):
            rules.append(Rule(match=role, format=wanted))
    return Recipe(rules=rules, default=default)


def stored_recipe(tensors: Iterable[tuple[str, int | None, str]]) -> Recipe:
    """The recipe that gives tensors (name, block, format) these very formats, in few rules."""
    kinds: dict[str, dict[int, str]] = {}
    for name, block, form in tensors:
        begin = "" if block is None else f"blk.{block}."
        pattern = "^" + re.escape(name) + "$"
        if begin and name.startswith(begin):
            pattern = r"^blk\.\d+\." + re.escape(name.removeprefix(begin)) + "$"
        kinds.setdefault(pattern, {})[-1 if block is None else block] = form
    counts = Counter(form for formats in kinds.values() for form in formats.values())
    base = counts.most_common(1)[0][0]
    rules = []
    for pattern, formats in kinds.items():
        for form in dict.fromkeys(formats.values()):
            blocks = sorted(block for block, name in formats.items() if name == form)
            if form != base:
                everywhere = len(blocks) == len(formats)
                rules.append(
                    Rule(match=pattern, format=form, blocks=None if everywhere else block_ranges(blocks))
                )
    return Recipe(rules=rules, default=Choice(format=base))


def _rules(match: str, base: str, chosen: list[str | None]) -> list[Rule]:
    """Rules that give block i the format chosen[i], where it is not `base` (None: it is)."""
    blocks: dict[str, list[int]] = {}
    for block, name in enumerate(chosen):
        if name not in (None, base):
            blocks.setdefault(str(name), []).append(block)
    return [
        Rule(match=match, format=name, blocks=None if len(of) == len(chosen) else block_ranges(of))
        for name, of in blocks.items()
    ]


def _output(preset: str, model: ModelFacts) -> str:
    base = FORMATS[PRESETS[preset].format]
    if base.name == "Q8_0" or model.architecture == "falcon" or not base.fits(model.columns):
        return "Q8_0"
    return "Q5_K" if preset in (*LOWEST, "IQ3_XXS") else "Q6_K"


def _embedding(preset: str) -> str | None:
    if preset in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
        return "IQ3_S"
    if preset in LOWEST:
        return "Q2_K"
    return "Q4_K" if preset in ("TQ1_0", "TQ2_0") else None


def _values(preset: str, model: ModelFacts, block: int) -> str | None:
    """For the values, and for queries, keys and values in one."""
    grouped = model.group >= 4  # the values are small beside the rest
    if preset in LOWEST:
        low = "IQ3_S" if preset in ("IQ2_S", "IQ2_M") else "Q2_K"
        return "Q4_K" if grouped or model.experts >= 4 else low
    if model.experts == 8:  # shared by all experts, so small beside them
        return "Q8_0"
    chosen: str | None = None
    if preset in ("Q4_K_M", "Q5_K_M"):
        chosen = "Q6_K" if has_more_bits(block, model.blocks) else None
    elif preset == "Q4_K_S":
        chosen = "Q5_K" if block < 4 else None
    elif preset == "Q3_K_M":
        chosen = "Q5_K" if block < 2 else "Q4_K"
    elif preset == "IQ3_XXS" and not grouped:
        chosen = None if model.has_importance else "IQ3_S"
    elif preset == "Q2_K" and not grouped:
        chosen = "Q3_K"
    elif preset in ("Q3_K_L", "IQ3_M"):
        chosen = {"Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}[preset]
    elif grouped:
        four = ("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S")
        chosen = "Q4_K" if preset in four else "Q5_K" if preset in ("IQ4_NL", "IQ4_XS") else None
    return "Q5_K" if _is_70b(model) and (chosen or PRESETS[preset].format) in ("Q3_K", "Q4_K") else chosen


def _is_70b(model: ModelFacts) -> bool:
    return model.blocks == 80 and model.group > 1 and model.architecture in ("llama", "qwen2", "deci")


def _keys(preset: str, model: ModelFacts, block: int) -> str | None:
    if model.experts == 8:
        return "Q4_K" if preset in LOWEST else "Q8_0"
    return _queries(preset, model, block)


def _queries(preset: str, model: ModelFacts, block: int) -> str | None:
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(preset)


def _attention_output(preset: str, model: ModelFacts, block: int) -> str | None:
    lowest = {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}
    if preset in LOWEST:
        return "Q5_K" if model.experts == 8 else lowest.get(preset)
    if model.architecture == "falcon":
        return "Q4_K" if preset == "Q3_K_L" else None
    if model.experts == 8:
        untouched = ("Q3_K_L", "Q2_K_S", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")
        plain = preset.startswith(("TQ", "Q4_0", "Q4_1", "Q5_0", "Q5_1"))
        return None if preset in untouched or plain else "Q5_K"
    return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(
        preset
    )


def _down(preset: str, model: ModelFacts, block: int) -> str | None:
    falcon = model.architecture == "falcon"
    first = block < model.blocks // 8
    more = has_more_bits(block, model.blocks)
    if preset in LOWEST:  # llama-quantize counts matrices here, not blocks
        place = 2 * block if model.shared_experts else block
        return _lowest_down(preset) if place < model.blocks // 8 else None
    match preset:
        case "Q2_K":
            return "Q3_K"
        case "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        case "Q3_K_M" if block < model.blocks // 16:
            return "Q5_K"
        case "Q3_K_M":
            return "Q4_K" if more or not falcon else None
        case "Q4_K_M" if falcon and block >= model.blocks // 16:
            return "Q5_K" if more else None
        case "Q4_K_M" | "Q5_K_M":
            return "Q6_K" if more else None
        case "Q4_K_S":
            return "Q5_K" if first and not falcon else None
        case "Q2_K_S":
            return "Q4_K" if first else None
        case "IQ3_M":
            return "Q4_K" if first or (model.experts == 8 and more) else None
        case "IQ3_XXS" if not model.has_importance:
            return "Q4_K" if first else "Q3_K"
        case "IQ4_NL" | "IQ4_XS" if not model.has_importance:
            return "Q5_K" if first else None
        case "Q4_0" | "Q5_0" if model.has_importance:
            return preset.replace("_0", "_1") if first else None
    return None


def _shared_down(preset: str, model: ModelFacts, block: int) -> str | None:
    """Of the experts that see all tokens: at the lowest presets, the second of the block's two."""
    if preset in LOWEST:
        return _lowest_down(preset) if 2 * block + 1 < model.blocks // 8 else None
    return _down(preset, model, block)


def _lowest_down(preset: str) -> str:
    return "IQ3_S" if preset in ("IQ2_S", "IQ2_M") else "Q2_K"


def _gate_and_up(preset: str, model: ModelFacts, block: int) -> str | None:
    middle = model.blocks // 8 <= block < 7 * model.blocks // 8
    return "IQ3_XXS" if preset == "IQ3_XS" and middle else None


_IN_BLOCKS: dict[str, Callable[[str, ModelFacts, int], str | None]] = {
    r"attn_(v|qkv|kv_b)\.weight$": _values,
    r"attn_k\.weight$": _keys,
    r"attn_q\.weight$": _queries,
    r"attn_output\.weight$": _attention_output,
    r"ffn_down(_exps|_chexps)?\.weight$": _down,
    r"ffn_down_shexp\.weight$": _shared_down,
    r"ffn_(gate|up|gate_up)(_exps|_shexp|_chexps)?\.weight$": _gate_and_up,
}
"""Which tensors of a block -> (preset, model, block) -> the format that they get; None: the preset's own."""


def has_more_bits(block: int, blocks: int) -> bool:
    """Whether mixtures give this block more: the first and last eighth, every third between."""
    first = blocks // 8
    return block < first or block >= 7 * blocks // 8 or (block - first) % 3 == 2
