"""The plan: a recipe applied to the tensors of an output, before anything is encoded.

Pure bookkeeping on names and shapes, so that the window can show it as one edits.
"""

from collections.abc import Iterable
from math import prod
from typing import Protocol

from pydantic import BaseModel

from engine.api.formats import FORMATS
from engine.api.model import Role
from engine.api.recipe import Choice, Recipe


class Plannable(Protocol):
    """A tensor of the output: canonical name, shape [.., columns] in NumPy's order, role, block, sources."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> Role: ...
    @property
    def block(self) -> int | None: ...
    @property
    def sources(self) -> tuple[str, ...]: ...


class TensorPlan(BaseModel):
    """What happens to one tensor.

    `rule` is the index of the rule that chose (None: the default) and `asked` its format; `format` is what
    the tensor gets, `bytes` what it takes. `kept`: left in F32 whatever is asked. `note` says why.
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
    kept: bool = False
    note: str | None = None


class Plan(BaseModel):
    """All tensors in the order of the file; `warnings`: rules without effect, formats that do not fit."""

    tensors: list[TensorPlan]
    warnings: list[str]

    @property
    def bits_per_weight(self) -> float:
        """Everything stored for the tensors, scales and all, over the number of weights."""
        weights = sum(prod(tensor.shape) for tensor in self.tensors)
        return 8 * sum(tensor.bytes for tensor in self.tensors) / weights


def make_plan(recipe: Recipe, tensors: Iterable[Plannable]) -> Plan:
    """Apply `recipe` to `tensors`; formats fall back where rows do not divide, with the reason noted."""
    planned: list[TensorPlan] = []
    matched: list[list[TensorPlan]] = [[] for _ in recipe.rules]
    for tensor in tensors:
        names = (tensor.name, *tensor.sources)
        choice, index = recipe.choose(names, tensor.role, tensor.block)
        planned.append(_plan_tensor(tensor, choice, index))
        for rule, found in zip(recipe.rules, matched, strict=True):
            if rule.matches(names, tensor.role, tensor.block):
                found.append(planned[-1])
    return Plan(tensors=planned, warnings=[*_idle_rules(recipe, matched), *_fallbacks(planned)])


def _idle_rules(recipe: Recipe, matched: list[list[TensorPlan]]) -> list[str]:
    """A sentence for each rule that matches nothing, or only tensors that stay in F32 whatever it says."""
    said = []
    for index, (rule, found) in enumerate(zip(recipe.rules, matched, strict=True)):
        blocks = f", blocks {rule.blocks}" if rule.blocks else ""
        name = f"rule {index + 1} ({rule.match!r}{blocks})"
        if not found:
            said.append(f"{name} matches no tensor of this model")
        elif rule.format != "F32" and all(tensor.kept for tensor in found):
            said.append(f"{name} has no effect: every tensor it matches is kept in F32")
    return said


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


def _plan_tensor(tensor: Plannable, choice: Choice, rule: int | None) -> TensorPlan:
    columns = tensor.shape[-1] if tensor.shape else 1
    name, note = choice.format, None
    reason = _kept_in_float(tensor)
    if reason:
        name, note = "F32", f"kept in F32: {reason}"
    while not FORMATS[name].fits(columns):
        fallback = FORMATS[name].fallback
        assert fallback is not None, f"{name} has no fallback"
        note = f"{choice.format} needs rows that {FORMATS[choice.format].block_values} divides"
        note += f"; {columns} columns get {fallback}"
        name = fallback
    rows = prod(tensor.shape[:-1])
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
        bytes=rows * FORMATS[name].row_bytes(columns),
        asked=choice.format,
        kept=reason is not None,
        note=note,
    )


def _kept_in_float(tensor: Plannable) -> str | None:
    """Why runtimes want this tensor in F32 whatever the recipe says, or None."""
    if len(tensor.shape) < 2:
        return "one-dimensional"
    if tensor.role in (Role.NORM, Role.BIAS, Role.ROUTER, Role.POSITION, Role.ROPE):
        return f"a {tensor.role.value} tensor, small and sensitive"
    return None
