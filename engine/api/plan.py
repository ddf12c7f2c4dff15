"""The plan: a recipe applied to the tensors of an output, before anything is encoded.

Pure bookkeeping on names and shapes, so that the window can show it as one edits.
"""

import re
from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple, Protocol

from pydantic import BaseModel, Field

from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_EFFORT, FORMATS, LAYOUTS, STORED, WANT_IMPORTANCE
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.importance import ImportanceFacts, with_importance_keys
from engine.api.metadata import PRE_TOKENIZER, MetadataEntry, edited_entries, entries_of, entry_of
from engine.api.mixtures import preset_recipe, stored_recipe
from engine.api.model import Role
from engine.api.outputs import Space, output_bytes, part_counts, tensor_space
from engine.api.presets import COPY, ModelFacts, preset_name
from engine.api.recipe import Choice, GgufOptions, Recipe, Rule
from engine.api.wording import fits, shown

LITERAL = re.compile(r"\^((?:[^.^$*+?{}\[\]\\|()]|\\[.^$*+?{}\[\]\\|()])*)\$")
"""A regular expression for one name, its special characters escaped: `^blk\\.0\\.attn_q\\.weight$`."""


class Sized(Protocol):
    """A tensor's shape [.., columns] in NumPy's order, and role."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> Role: ...


class Shaped(Sized, Protocol):
    """What decides which formats a tensor can have.

    `fixed`: the only one, which runtimes compute with as it is; "": as asked.
    """

    @property
    def fixed(self) -> str: ...


class Plannable(Shaped, Protocol):
    """A tensor of the output: canonical name, shape, role, block, sources."""

    @property
    def name(self) -> str: ...
    @property
    def block(self) -> int | None: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def stored(self) -> str: ...
    @property
    def copyable(self) -> bool: ...


class ExportTensor(BaseModel):
    """A tensor that the output would hold, for planning where its source is not at hand: a `Plannable`.

    `stored`: the type that the source has it in, "" for one that is computed. `copyable`: the source's bytes
    are those of a GGUF file of this type.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    block: int | None
    sources: tuple[str, ...]
    stored: str = ""
    copyable: bool = False
    fixed: str = ""


class ExportSummary(BaseModel):
    """A GGUF of a model before its formats are chosen: all that a plan and its size need.

    `header_bytes`: everything before the first tensor of an undivided file; each tensor takes a multiple of
    `alignment` bytes. `facts` are for presets, `notes` for the reader. `metadata`: all keys, also those that
    follow from the formats, but for those that a plan adds. `pre_tokenizers`: the names that byte-level BPE
    can have for how it splits text; empty where the tokenizer is another one.
    """

    facts: ModelFacts
    header_bytes: int
    alignment: int
    notes: list[str]
    tensors: list[ExportTensor]
    metadata: list[MetadataEntry] = Field(default_factory=list)
    pre_tokenizers: list[str] = Field(default_factory=list)

    @property
    def converted(self) -> bool:
        """Whether the source is no GGUF file."""
        return not any(tensor.copyable for tensor in self.tensors)

    def entries(self, plan: "Plan | None", options: GgufOptions) -> list[MetadataEntry]:
        """All keys of the output that `plan` gives, before they are edited."""
        found = {entry.key: entry for entry in self.metadata}
        if options.pre_tokenizer is not None and self.pre_tokenizers:
            name = GgufValue(GGUFValueType.STRING, options.pre_tokenizer)
            found[PRE_TOKENIZER] = entry_of(PRE_TOKENIZER, name)
        added = {entry.key: entry for entry in entries_of(plan.metadata if plan else {})}
        return list(with_importance_keys(found, added).values())

    def file_bytes(self, plan: "Plan", options: GgufOptions) -> int:
        """The size of the output that `plan` gives, to the byte, of all its files. Raises RecipeError."""
        return output_bytes(*self._contents(plan, options))

    def file_count(self, plan: "Plan", options: GgufOptions) -> int:
        """In how many files the output is written. Raises RecipeError."""
        return len(part_counts(*self._contents(plan, options)))

    def _contents(self, plan: "Plan", options: GgufOptions) -> tuple[int, list[Space], int, int | None]:
        """What `engine.api.outputs` asks of an output."""
        entries = edited_entries(self.entries(plan, options), options.metadata)
        spaces = [tensor_space(t.name, t.shape, t.bytes, self.alignment) for t in plan.tensors]
        return sum(entry.bytes for entry in entries), spaces, self.alignment, options.split_max_size


class TensorPlan(BaseModel):
    """What happens to one tensor.

    `rule` is the index of the rule that chose (None: the default) and `asked` its format; `format` is what
    the tensor gets, `bytes` what it takes. `kept`: whatever is asked. `note` says why.
    `copied`: the source has these very bytes, and they are taken as they are.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    role: Role
    block: int | None
    method: str
    format: str
    params: dict
    rule: int | None
    bytes: int
    asked: str
    fixed: str = ""
    kept: bool = False
    copied: bool = False
    note: str | None = None

    @property
    def weighed(self) -> bool:
        """Whether codes are chosen by errors, which an importance matrix can weigh."""
        return self.method == "search" and not (self.copied or LAYOUTS[self.format].exact)


class Plan(BaseModel):
    """All tensors in the order of the file; `warnings`: rules without effect, formats that do not fit.

    `effort`: the recipe's. `metadata`: keys that say which importance matrix is used.
    """

    tensors: list[TensorPlan]
    warnings: list[str]
    effort: str = DEFAULT_EFFORT
    metadata: dict[str, GgufValue] = Field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        """Everything stored for the tensors, scales and all, over the number of weights."""
        weights = sum(prod(tensor.shape) for tensor in self.tensors)
        return 8 * sum(tensor.bytes for tensor in self.tensors) / max(1, weights)


class Planner:
    """Plans recipes for one list of tensors.

    Remembers what rules matched and what the last plan gave, so an edit costs what it changes.
    `importance`: the matrix that recipes name, where it is known.
    """

    def __init__(self, tensors: Iterable[Plannable], importance: ImportanceFacts | None = None) -> None:
        self.tensors = list(tensors)
        self.importance = importance
        self._names = [(tensor.name, *tensor.sources) for tensor in self.tensors]
        self._matched: dict[tuple[str, str | None], list[int]] = {}
        self._places: dict[str, list[int]] = {}
        for place, names in enumerate(self._names):
            for name in dict.fromkeys(names):
                self._places.setdefault(name, []).append(place)
        self._last: Sequence[tuple[Choice, TensorPlan] | None] = [None] * len(self.tensors)
        self._kinds: dict[tuple[Role | None, int | None], list[int]] = {}
        self._recipes: dict[tuple[str, ModelFacts], Recipe] = {}

    def plan(self, recipe: Recipe) -> Plan:
        """Apply `recipe`; formats fall back where rows do not divide, with the reason noted."""
        chosen = self.deciding(recipe.rules)
        choices = [recipe.default if index is None else recipe.rules[index] for index in chosen]
        planned = [
            _replan(last, tensor, choice, index)
            for last, tensor, choice, index in zip(self._last, self.tensors, choices, chosen, strict=True)
        ]
        self._last = list(zip(choices, planned, strict=True))
        matched = [[planned[place] for place in self.matched(rule)] for rule in recipe.rules]
        coarse = [
            tensor.stored
            for tensor, plan in zip(self.tensors, planned, strict=True)
            if tensor.copyable and not (plan.copied or LAYOUTS[tensor.stored].exact)
        ]
        warnings = [
            *_idle_rules(recipe, matched),
            *_fallbacks(planned),
            *_quantized_again(coarse),
            *_only_copied(planned),
            *(_unused_importance(planned) if recipe.imatrix else _unweighted(planned)),
        ]
        metadata = self._importance_keys(recipe, planned)
        return Plan(tensors=planned, warnings=warnings, effort=recipe.effort, metadata=metadata)

    def _importance_keys(self, recipe: Recipe, planned: list[TensorPlan]) -> dict[str, GgufValue]:
        known = self.importance
        if known is None or recipe.imatrix != known.path:
            return {}
        used = any(tensor.weighed and tensor.name in known.tensors for tensor in planned)
        return known.metadata if used else {}

    def recipe_of(self, preset: str, facts: ModelFacts) -> Recipe:
        """The recipe of a preset, `COPY` too, made once. Raises RecipeError."""
        found = self._recipes.get((preset, facts))
        if found is None:
            copied = preset_name(preset) == COPY
            found = self._stored() if copied else preset_recipe(preset, facts, self.tensors)
            self._recipes[preset, facts] = found
        return found

    def _stored(self) -> Recipe:
        chosen = []
        for tensor in self.tensors:
            if not tensor.stored or storage(tensor, "F32").kept:
                continue
            if tensor.stored not in FORMATS:
                raise RecipeError(
                    f"{tensor.name} is stored as {tensor.stored}, which this program does not write; COPY "
                    "cannot keep it, so choose another preset."
                )
            chosen.append((tensor.name, tensor.block, tensor.stored))
        return stored_recipe(chosen) if chosen else Recipe(default=Choice(format="F32"))

    def deciding(self, rules: Sequence[Rule]) -> list[int | None]:
        """For each tensor the index of the rule that chooses for it: the last that matches, or None."""
        chosen: list[int | None] = [None] * len(self.tensors)
        for index, rule in enumerate(rules):
            for place in self.matched(rule):
                chosen[place] = index
        return chosen

    def matched(self, rule: Rule) -> list[int]:
        """The places of the tensors that `rule` selects."""
        key = (rule.match, rule.blocks)
        found = self._matched.get(key)
        if found is None:
            found = self._named(rule)
            if found is None:
                found = [
                    place
                    for place, (tensor, names) in enumerate(zip(self.tensors, self._names, strict=True))
                    if rule.matches(names, tensor.role, tensor.block)
                ]
            self._matched[key] = found
        return found

    def members(self, role: Role | None, block: int | None) -> list[int]:
        """The places of the tensors of a role (`block` None), of a block, or of a role in a block."""
        if not self._kinds:
            kinds: dict[tuple[Role | None, int | None], list[int]] = {}
            for place, tensor in enumerate(self.tensors):
                kinds.setdefault((tensor.role, None), []).append(place)
                if tensor.block is not None:
                    kinds.setdefault((tensor.role, tensor.block), []).append(place)
                    kinds.setdefault((None, tensor.block), []).append(place)
            self._kinds = kinds
        return self._kinds.get((role, block), [])

    def _named(self, rule: Rule) -> list[int] | None:
        """The places that a rule for one name selects, looked up: there may be hundreds of such rules."""
        literal = LITERAL.fullmatch(rule.match)
        if literal is None or rule.blocks is not None:
            return None
        name = re.sub(r"\\(.)", r"\1", literal[1])
        # A dollar sign also matches before a newline that ends the name.
        return sorted({*self._places.get(name, ()), *self._places.get(name + "\n", ())})


def make_plan(
    recipe: Recipe, tensors: Iterable[Plannable], importance: ImportanceFacts | None = None
) -> Plan:
    """Apply `recipe` to `tensors`, once. `importance`: what its matrix says, where it has one."""
    return Planner(tensors, importance).plan(recipe)


def _idle_rules(recipe: Recipe, matched: list[list[TensorPlan]]) -> list[str]:
    """A sentence for each rule that matches nothing, or only tensors that stay whatever it says."""
    said = []
    for index, (rule, found) in enumerate(zip(recipe.rules, matched, strict=True)):
        blocks = f", blocks {rule.blocks}" if rule.blocks else ""
        pattern = f"'{rule.match}'" if fits(rule.match) else shown(rule.match)
        given = f"{rule.option} {pattern}{blocks}"
        name = given if rule.option else f"rule {index + 1} ({pattern}{blocks})"
        if not found:
            said.append(f"{name} matches no tensor of this model")
        elif all(tensor.kept for tensor in found) and any(tensor.format != rule.format for tensor in found):
            types = " or ".join(sorted({tensor.format for tensor in found}))
            said.append(f"{name} has no effect: every tensor it matches is kept in {types}")
    return said


def _unweighted(planned: list[TensorPlan]) -> list[str]:
    """A sentence where formats are asked for that lose far too much without an importance matrix."""
    given = [tensor.format for tensor in planned if tensor.format in WANT_IMPORTANCE and not tensor.copied]
    if not given:
        return []
    count = "1 tensor gets" if len(given) == 1 else f"{len(given)} tensors get"
    return [
        f"{count} {' and '.join(sorted(set(given)))} without an importance matrix, and will lose much more "
        "than with one (`bitwright calibrate` makes it)"
    ]


def _unused_importance(planned: list[TensorPlan]) -> list[str]:
    if any(tensor.weighed for tensor in planned):
        return []
    return ["the importance matrix is not used: no tensor gets a format whose codes are searched for"]


def _quantized_again(types: list[str]) -> list[str]:
    if not types:
        return []
    count = "1 tensor is" if len(types) == 1 else f"{len(types)} tensors are"
    return [
        f"{count} quantized in the source already ({', '.join(sorted(set(types)))}); quantizing again adds "
        "to the errors, so take the original model where you can"
    ]


def _only_copied(planned: list[TensorPlan]) -> list[str]:
    """A sentence for tensors of types that are not quantized, unless nothing is quantized anyway."""
    found = [tensor.format for tensor in planned if tensor.format in STORED]
    if not found or all(tensor.copied or tensor.kept for tensor in planned):
        return []
    types = ", ".join(sorted(set(found)))
    if len(found) == 1:
        return [f"1 tensor is stored as {types}, which is not quantized; it is copied byte for byte"]
    return [
        f"{len(found)} tensors are stored as {types}, which are not quantized; they are copied byte for byte"
    ]


def _fallbacks(planned: list[TensorPlan]) -> list[str]:
    """A sentence for each format that tensors were to have and cannot."""
    groups: dict[tuple[str, str], list[TensorPlan]] = {}
    for tensor in planned:
        if tensor.format != tensor.asked and not tensor.kept:
            groups.setdefault((tensor.asked, tensor.format), []).append(tensor)
    said = []
    for (asked, given), tensors in groups.items():
        columns = ", ".join(str(c) for c in sorted({tensor.shape[-1] for tensor in tensors}))
        count = "1 tensor gets" if len(tensors) == 1 else f"{len(tensors)} tensors get"
        block = FORMATS[asked].block_values
        said.append(f"{count} {given} instead of {asked}: {block} does not divide rows of {columns}")
    return said


class Storage(NamedTuple):
    """What a tensor gets of the format it was to have. `kept`: whatever is asked; `note` says why."""

    format: str
    kept: bool
    note: str | None


def storage(tensor: Shaped, asked: str) -> Storage:
    """How `tensor` would be stored in the format `asked`, or in what takes its place."""
    columns = tensor.shape[-1] if tensor.shape else 1
    if tensor.fixed in STORED:
        return Storage(tensor.fixed, True, f"kept in {tensor.fixed}, which is not quantized")
    if tensor.fixed:
        return Storage(tensor.fixed, True, f"kept in {tensor.fixed}: runtimes compute with it as it is")
    reason = kept_in_float(tensor)
    if reason:
        return Storage("F32", True, f"kept in F32: {reason}")
    name, note = asked, None
    while not FORMATS[name].fits(columns):
        fallback = FORMATS[name].fallback
        assert fallback is not None, f"{name} has no fallback"
        note = (
            f"{asked} needs rows that {FORMATS[asked].block_values} divides; {columns} columns get {fallback}"
        )
        name = fallback
    return Storage(name, False, note)


def _replan(
    last: tuple[Choice, TensorPlan] | None, tensor: Plannable, choice: Choice, rule: int | None
) -> TensorPlan:
    """The plan of one tensor, taken from the `last` one where the same choice was made for it."""
    if last is None or not (last[0] is choice or _same_choice(last[0], choice)):
        return _plan_tensor(tensor, choice, rule)
    return last[1] if last[1].rule == rule else last[1].model_copy(update={"rule": rule})


def _same_choice(one: Choice, other: Choice) -> bool:
    return (one.method, one.format, one.params) == (other.method, other.format, other.params)


def _plan_tensor(tensor: Plannable, choice: Choice, rule: int | None) -> TensorPlan:
    columns = tensor.shape[-1] if tensor.shape else 1
    name, kept, note = storage(tensor, choice.format)
    return TensorPlan(
        name=tensor.name,
        sources=tensor.sources,
        shape=tensor.shape,
        role=tensor.role,
        block=tensor.block,
        method=choice.method,
        format=name,
        params=choice.params,
        rule=rule,
        bytes=prod(tensor.shape[:-1]) * LAYOUTS[name].row_bytes(columns),
        asked=choice.format,
        fixed=tensor.fixed,
        kept=kept,
        copied=tensor.copyable and name == tensor.stored,
        note=note,
    )


def kept_in_float(tensor: Sized) -> str | None:
    """Why runtimes want this tensor in F32 whatever the recipe says, or None."""
    if len(tensor.shape) < 2:
        return "one-dimensional"
    if tensor.role in (Role.NORM, Role.BIAS, Role.ROUTER, Role.POSITION, Role.ROPE):
        return f"a {tensor.role.value} tensor, small and sensitive"
    return None
