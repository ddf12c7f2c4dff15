"""Presets: functions from a model to a recipe, with llama-quantize's mixtures under its names.

The rules were read from the types that llama-quantize prints for many shapes; a test compares them
tensor by tensor where those records are at hand. Fallbacks for rows that do not divide are not
rules: `engine.api.plan` applies them to every recipe alike.
"""

from dataclasses import dataclass

from engine.api.errors import RecipeError
from engine.api.recipe import Choice, Recipe, Rule, block_ranges

DOWN = r"ffn_down(_exps)?\.weight$"
VALUES = r"attn_(v|qkv)\.weight$"


@dataclass(frozen=True)
class ModelFacts:
    """What a preset must know: GGUF architecture, number of blocks and routed experts, tied output."""

    architecture: str
    blocks: int
    experts: int = 0
    tied: bool = False
    has_importance: bool = False


def preset_recipe(name: str, model: ModelFacts) -> Recipe:
    """The recipe of preset `name` for `model`. Unknown names raise `RecipeError`."""
    try:
        make = PRESETS[name.upper()]
    except KeyError:
        raise RecipeError(f"Unknown preset {name!r}; known: {', '.join(PRESETS)}.") from None
    return make(model)


def _plain(format_name: str) -> Recipe:
    return Recipe(default=Choice(format=format_name))


def _mixture(base: str, model: ModelFacts, rules: list[Rule]) -> Recipe:
    """`base` everywhere but for the output, which all mixtures give more bits, and `rules`."""
    output = "Q8_0" if model.architecture == "falcon" else "Q6_K"
    common = [Rule(match="embedding" if model.tied else "output", format=output)]
    if model.experts == 8:  # shared by all experts, so small beside them: llama.cpp keeps 8 bits
        common.append(Rule(match=r"attn_[kv]\.weight$", format="Q8_0"))
    return Recipe(rules=rules + common, default=Choice(format=base))


def _q4_0(model: ModelFacts) -> Recipe:
    first = block_ranges(list(range(model.blocks // 8)))
    if not (model.has_importance and first):
        return _mixture("Q4_0", model, [])
    return _mixture("Q4_0", model, [Rule(match=DOWN, blocks=first, format="Q4_1")])


def _q4_k_m(model: ModelFacts) -> Recipe:
    more = block_ranges(more_bits(model.blocks))
    rules = []
    if model.blocks == 80:  # 70B: few key heads, so the values are cheap
        rules.append(Rule(match=VALUES, format="Q5_K"))
    if model.experts == 8:
        rules.append(Rule(match=r"attn_output\.weight$", format="Q5_K"))
    rules.append(Rule(match=VALUES, blocks=more, format="Q6_K"))
    if model.architecture == "falcon":
        rules.append(Rule(match=DOWN, blocks=more, format="Q5_K"))
        first = list(range(model.blocks // 16))
        if first:
            rules.append(Rule(match=DOWN, blocks=block_ranges(first), format="Q6_K"))
    else:
        rules.append(Rule(match=DOWN, blocks=more, format="Q6_K"))
    return _mixture("Q4_K", model, rules)


def more_bits(blocks: int) -> list[int]:
    """The blocks that mixtures give more bits: the first and last eighth, every third between."""
    first, last = blocks // 8, 7 * blocks // 8
    return [i for i in range(blocks) if i < first or i >= last or (i - first) % 3 == 2]


PRESETS = {
    "F16": lambda model: _plain("F16"),
    "BF16": lambda model: _plain("BF16"),
    "Q8_0": lambda model: _plain("Q8_0"),
    "Q4_0": _q4_0,
    "Q4_K_M": _q4_k_m,
    "Q6_K": lambda model: _mixture("Q6_K", model, []),
}
"""Name -> function of `ModelFacts`; the order is that of tables and menus."""

SUMMARIES = {
    "F16": "16 bits, half precision",
    "BF16": "16 bits, the range of F32",
    "Q8_0": "8.5 bits, hardly any loss",
    "Q4_0": "4.5 bits, the plainest",
    "Q4_K_M": "about 5 bits, mixed: the usual choice",
    "Q6_K": "6.6 bits, little loss",
}
"""Name -> what to expect, for menus."""
