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
    """What happens to one tensor: `bytes` it takes in the output, `note` why it is not as asked."""

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
    note: str | None = None


class Plan(BaseModel):
    """All tensors in the order of the file, and `warnings` about the recipe (rules that match nothing)."""

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
    used = [0] * len(recipe.rules)
    for tensor in tensors:
        names = (tensor.name, *tensor.sources)
        for index, rule in enumerate(recipe.rules):
            used[index] += rule.matches(names, tensor.role, tensor.block)
        choice, index_or_none = recipe.choose(names, tensor.role, tensor.block)
        planned.append(_plan_tensor(tensor, choice, index_or_none))
    warnings = [
        f"rule {index + 1} ({recipe.rules[index].match!r}"
        + (f", blocks {recipe.rules[index].blocks}" if recipe.rules[index].blocks else "")
        + ") matches no tensor of this model"
        for index, count in enumerate(used)
        if not count
    ]
    return Plan(tensors=planned, warnings=warnings)


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
        note=note,
    )


def _kept_in_float(tensor: Plannable) -> str | None:
    """Why runtimes want this tensor in F32 whatever the recipe says, or None."""
    if len(tensor.shape) < 2:
        return "one-dimensional"
    if tensor.role in (Role.NORM, Role.BIAS, Role.ROUTER, Role.POSITION, Role.ROPE):
        return f"a {tensor.role.value} tensor, small and sensitive"
    return None
