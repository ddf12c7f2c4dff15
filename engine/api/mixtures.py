"""The recipe of a preset: llama-quantize's mixtures, tensor by tensor, as few rules.

The conditions were read from the types that llama-quantize prints for many shapes, and in its
`llama-quant.cpp`; tests compare both. It goes through the tensors by the block that their name says, then
by name, and where a mixture says "the first eighth" or "every third", it counts the matrices of a kind that
it met so far: not blocks, of which some may have no such matrix, and others two. Fallbacks for rows that do
not divide are not rules: `engine.api.plan` applies them to every recipe alike.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple, Protocol

from engine.api.errors import RecipeError
from engine.api.formats import FORMATS
from engine.api.model import Role
from engine.api.presets import LOWEST, PRESETS, ModelFacts, preset_name, preset_refusal
from engine.api.recipe import Choice, Recipe, Rule, block_ranges


class Mixed(Protocol):
    """A tensor of the output: canonical name, shape [.., columns], role and block."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> Role: ...
    @property
    def block(self) -> int | None: ...


class Place(NamedTuple):
    """The matrix number `at` (from 0) of the `of` that a mixture divides into parts."""

    at: int
    of: int

    @property
    def in_first_eighth(self) -> bool:
        return self.at < self.of // 8

    @property
    def in_middle(self) -> bool:
        return self.of // 8 <= self.at < 7 * self.of // 8

    @property
    def has_more_bits(self) -> bool:
        """In the first or last eighth, or every third between."""
        first = self.of // 8
        return self.in_first_eighth or self.at >= 7 * self.of // 8 or (self.at - first) % 3 == 2


OUTSIDE = {
    "output.weight": "output",
    "token_embd.weight": "embedding",
    "per_layer_token_embd.weight": "embedding",
}
KINDS = {
    "attn_qkv.weight": "values",
    "attn_kv_b.weight": "values",
    "attn_v.weight": "values",
    "attn_k.weight": "keys",
    "attn_q.weight": "queries",
    "attn_output.weight": "attention output",
    "ffn_up": "up",
    "ffn_gate": "gate",
    "ffn_down": "down",
}
"""What llama-quantize looks for in a tensor's name -> what it takes it for; the first that it finds."""

NEVER_QUANTIZED = ("_norm.weight", "ffn_gate_inp.weight")
"""In names of the kinds above: what it leaves as it is, and so does not count."""

BLOCKS_OF_70B = {"deci": 80, "jais2": 68, "llama": 80, "llama-embed": 80, "olmo": 80, "qwen2": 80}
"""Architecture -> the number of blocks by which llama.cpp takes a model for one of 70 billion weights."""

_WIDENED = r"ffn_(gate|up|gate_up)(_exps|_shexp|_chexps)?(\.\d+)?\.weight$"
TOGETHER = {
    "values": (r"attn_(v|qkv|kv_b)\.weight$",),
    "keys": (r"attn_k\.weight$",),
    "queries": (r"attn_q\.weight$",),
    "attention output": (r"attn_output\.weight$",),
    "up": (_WIDENED,),
    "gate": (_WIDENED,),
    "down": (r"ffn_down(_exps|_chexps)?(\.\d+)?\.weight$", r"ffn_down_shexp\.weight$"),
}
"""One rule speaks for all the tensors that match one of these, where their blocks are of one mind."""


def preset_recipe(name: str, model: ModelFacts, tensors: Sequence[Mixed]) -> Recipe:
    """The recipe of preset `name` for a `model` of these tensors. Raises `RecipeError` for an unknown or
    unfit one."""
    name = preset_name(name)
    if refusal := preset_refusal(name, model):
        raise RecipeError(refusal)
    base = PRESETS[name].format
    default = Choice(format=base)
    if FORMATS[base].exact:
        return Recipe(default=default)
    formats = [
        _wanted(name, model, tensor, place) or base
        for tensor, place in zip(tensors, _places(model, tensors), strict=True)
    ]
    return Recipe(rules=_rules(name, tensors, formats), default=default)


def stored_recipe(tensors: Iterable[tuple[str, int | None, str]]) -> Recipe:
    """The recipe that gives tensors (name, block, format) these very formats, in few rules."""
    kinds: dict[str, list[tuple[int | None, str]]] = {}
    counts: Counter[str] = Counter()
    for name, block, form in tensors:
        kinds.setdefault(_own_pattern(name, block), []).append((block, form))
        counts[form] += 1
    base = counts.most_common(1)[0][0]
    rules = [rule for pattern, formats in kinds.items() for rule in _rules_of(pattern, base, formats)]
    return Recipe(rules=rules, default=Choice(format=base))


def _rules(preset: str, tensors: Sequence[Mixed], formats: list[str]) -> list[Rule]:
    """Rules that give tensor i the format formats[i], where it is not the preset's own."""
    groups: dict[str, list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(_pattern(preset, tensor), []).append(index)
    base = PRESETS[preset].format
    rules = []
    for pattern, members in groups.items():
        chosen = dict.fromkeys((tensors[index].block, formats[index]) for index in members)
        blocks = {block for block, _ in chosen}
        if len(chosen) == 1 or (len(chosen) == len(blocks) and None not in blocks):
            rules += _rules_of(pattern, base, chosen)
            continue
        own: dict[str, list[tuple[int | None, str]]] = {}
        for index in members:
            name, block = tensors[index].name, tensors[index].block
            own.setdefault(_own_pattern(name, block), []).append((block, formats[index]))
        rules += [rule for pattern, some in own.items() for rule in _rules_of(pattern, base, some)]
    return rules


def _pattern(preset: str, tensor: Mixed) -> str:
    """What a rule selects this tensor and its like by."""
    if preset == "MXFP4_MOE" or tensor.role in (Role.EMBEDDING, Role.OUTPUT):
        return str(tensor.role)
    return _together(tensor.name) or _own_pattern(tensor.name, tensor.block)


@lru_cache(1 << 16)
def _together(name: str) -> str | None:
    patterns = TOGETHER.get(_read(name).kind or "", ())
    return next((pattern for pattern in patterns if re.search(pattern, name)), None)


@lru_cache(1 << 16)
def _own_pattern(name: str, block: int | None) -> str:
    """For the tensors of all blocks whose names differ from this one by the block alone."""
    begin, found, end = name.partition(f"blk.{block}.")
    if not found:
        return "^" + re.escape(name) + "$"
    return "^" + re.escape(begin) + r"blk\.\d+\." + re.escape(end) + "$"


def _rules_of(pattern: str, base: str, chosen: Iterable[tuple[int | None, str]]) -> list[Rule]:
    """Rules for the tensors that `pattern` selects: (block, format), one for each block."""
    formats: dict[str, list[int]] = {}
    for block, form in chosen:
        formats.setdefault(form, []).append(-1 if block is None else block)
    everywhere = len(formats) == 1
    return [
        Rule(match=pattern, format=form, blocks=None if everywhere else block_ranges(sorted(blocks)))
        for form, blocks in formats.items()
        if form != base
    ]


class Name(NamedTuple):
    """What llama-quantize reads from a tensor's name.

    `kind`: of `OUTSIDE` or `KINDS`. `met`: what it sorts by; names that do not begin with a block are first.
    """

    kind: str | None
    met: tuple[int, str]
    is_quantized: bool


@lru_cache(1 << 16)
def _read(name: str) -> Name:
    kind = OUTSIDE.get(name) or next((kind for part, kind in KINDS.items() if part in name), None)
    block = re.match(r"blk\.(\d+)", name)
    left = not name.endswith("weight") or any(part in name for part in NEVER_QUANTIZED)
    return Name(kind, (int(block[1]) if block else -1, name), not left)


def _places(model: ModelFacts, tensors: Sequence[Mixed]) -> list[Place | None]:
    """Where each stands among those of its kind; None where llama-quantize thinks of no format for it.

    A matrix of one row is a vector there.
    """
    names = [_read(tensor.name) for tensor in tensors]
    values = sum(name.kind == "values" for name in names)
    met: Counter[str | None] = Counter()
    places: list[Place | None] = [None] * len(tensors)
    for index in sorted(range(len(tensors)), key=lambda index: names[index].met):
        name, shape = names[index], tensors[index].shape
        if name.is_quantized and len(shape) > 1 and prod(shape[:-1]) > 1:
            places[index] = Place(met[name.kind], values if name.kind == "values" else model.blocks)
            met[name.kind] += 1
    return places


def _wanted(preset: str, model: ModelFacts, tensor: Mixed, place: Place | None) -> str | None:
    """The format that a preset gives to a tensor; None: its own."""
    if place is None:
        return None
    kind = _read(tensor.name).kind
    if model.experts > 1 and preset not in LOWEST and kind in ("up", "gate", "down"):
        place = Place(place.at if tensor.block is None else tensor.block, place.of)
    if kind == "output" or (kind == "embedding" and model.tied):
        return _output(preset, model, tensor.shape[-1])
    if preset == "MXFP4_MOE":
        return "MXFP4" if len(tensor.shape) == 3 and tensor.shape[0] > 1 else None
    match kind:
        case "embedding":
            return _embedding(preset)
        case "values":
            return _values(preset, model, place)
        case "keys":
            return _keys(preset, model)
        case "queries":
            return _queries(preset)
        case "attention output":
            return _attention_output(preset, model)
        case "down":
            return _down(preset, model, place)
        case "up" | "gate":
            return "IQ3_XXS" if preset == "IQ3_XS" and place.in_middle else None
    return None


def _output(preset: str, model: ModelFacts, columns: int) -> str:
    base = FORMATS[PRESETS[preset].format]
    if base.name == "Q8_0" or model.architecture == "falcon" or not base.fits(columns):
        return "Q8_0"
    return "Q5_K" if preset in (*LOWEST, "IQ3_XXS") else "Q6_K"


def _embedding(preset: str) -> str | None:
    if preset in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
        return "IQ3_S"
    if preset in LOWEST:
        return "Q2_K"
    return "Q4_K" if preset in ("TQ1_0", "TQ2_0") else None


def _values(preset: str, model: ModelFacts, place: Place) -> str | None:
    """For the values, and for queries, keys and values in one."""
    grouped = model.group >= 4  # the values are small beside the rest
    if preset in LOWEST:
        return "Q4_K" if grouped or model.experts >= 4 else _low(preset)
    if model.experts == 8:  # shared by all experts, so small beside them
        return "Q8_0"
    chosen: str | None = None
    if preset in ("Q4_K_M", "Q5_K_M"):
        chosen = "Q6_K" if place.has_more_bits else None
    elif preset == "Q4_K_S":
        chosen = "Q5_K" if place.at < 4 else None
    elif preset == "Q3_K_M":
        chosen = "Q5_K" if place.at < 2 else "Q4_K"
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
    grouped = model.group > 1 or not model.architecture.startswith("llama")
    return grouped and BLOCKS_OF_70B.get(model.architecture) == model.blocks


def _keys(preset: str, model: ModelFacts) -> str | None:
    if model.experts == 8:
        return "Q4_K" if preset in LOWEST else "Q8_0"
    return _queries(preset)


def _queries(preset: str) -> str | None:
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(preset)


def _attention_output(preset: str, model: ModelFacts) -> str | None:
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


def _down(preset: str, model: ModelFacts, place: Place) -> str | None:
    falcon = model.architecture == "falcon"
    first, more = place.in_first_eighth, place.has_more_bits
    if preset in LOWEST:
        return _low(preset) if first else None
    match preset:
        case "Q2_K":
            return "Q3_K"
        case "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        case "Q3_K_M" if place.at < place.of // 16:
            return "Q5_K"
        case "Q3_K_M":
            return "Q4_K" if more or not falcon else None
        case "Q4_K_M" if falcon and place.at >= place.of // 16:
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


def _low(preset: str) -> str:
    return "IQ3_S" if preset in ("IQ2_S", "IQ2_M") else "Q2_K"
