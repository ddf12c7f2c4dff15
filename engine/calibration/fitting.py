"""An importance matrix held against the model that it is to be used for: what fits, what is missing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from engine.api.errors import CalibrationError
from engine.api.importance import unseen_named
from engine.api.model import Role
from engine.api.plan import Plan, TensorPlan
from engine.calibration.importance import Entry, Importance
from engine.calibration.statistics import unseen_experts

MOST_NAMED = 5
"""Names in a sentence; further ones are counted."""


@dataclass
class Fitted:
    """`importance` with an entry of the right shape for each tensor of the model that it knows.

    `warnings`: what is missing, half sentences.
    """

    importance: Importance
    warnings: list[str]


def fit(importance: Importance, where: str, plan: Plan) -> Fitted:
    """Hold `importance`, read from `where`, against the tensors of `plan`.

    Raises `CalibrationError` where it is another model's.
    """
    known = importance.entries
    shapes = {tensor.name: (prod(tensor.shape[:-2]), tensor.shape[-1]) for tensor in plan.tensors}
    if not known.keys() & shapes.keys():
        raise CalibrationError(
            f"{where}: names no tensor of this model (its first is {next(iter(known))}, the model's "
            f"{next(iter(shapes))}); it was made for another one."
        )
    entries: dict[str, Entry] = {}
    for name, wanted in shapes.items():
        if name not in known:
            continue
        entry = known[name].shaped(*wanted)
        if entry is None:
            have = " × ".join(f"{length}" for length in known[name].sums.shape)
            raise CalibrationError(
                f"{where}: {name} has {have} values, the model needs {wanted[0]} × {wanted[1]}; it was made "
                "for another model."
            )
        entries[name] = entry
    fitted = Importance(entries, importance.datasets, importance.chunks, importance.chunk_size)
    needed = [tensor.name for tensor in plan.tensors if _is_needed(tensor)]
    return Fitted(fitted, _warnings(fitted, known, needed))


def _is_needed(tensor: TensorPlan) -> bool:
    """Whether it is quantized by importance if there is one: both ends of a model mostly are without."""
    return tensor.weighed and tensor.role not in (Role.EMBEDDING, Role.OUTPUT)


def _warnings(fitted: Importance, known: Mapping[str, Entry], needed: Collection[str]) -> list[str]:
    found = []
    missing = [name for name in needed if name not in known]
    if missing:
        found.append(f"the importance matrix says nothing of {_named(missing)}: quantized without it")
    strange = [name for name in known if name not in fitted.entries]
    if strange:
        found.append(f"the importance matrix is also of {_named(strange)}, which this model has not")
    unseen = [stack for stack in unseen_experts(fitted) if stack.tensor in needed]
    return found + [f"{text}: quantized as without an importance matrix" for text in unseen_named(unseen)]


def _named(names: list[str]) -> str:
    told = ", ".join(names[:MOST_NAMED])
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"{count} ({told}{', …' if len(names) > MOST_NAMED else ''})"
