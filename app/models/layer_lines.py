"""What the table of layers says: the texts of one line, for a tensor and for a group of tensors."""

import re
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

from app.plain import MOST_TOLD, printable, shortened
from app.state import Row
from engine.api.editing import outcome
from engine.api.formats import LAYOUTS, METHODS
from engine.api.plan import TensorPlan
from engine.api.units import digits


class Column(IntEnum):
    NAME, ROLE, SHAPE, TYPE, METHOD, FORMAT, BITS, NOW, AFTER = range(9)


TITLES = ("Name", "Role", "Shape", "Type", "Method", "Format", "Bits", "Now", "After")
TIPS = (
    "The source's name of the tensor, without what all of its block share",
    "What the tensor does in the transformer",
    "Rows × columns, stacked experts in front",
    "How the source stores it",
    "How the codes are chosen",
    "How the tensor will be stored",
    "Bits per weight, scales and all",
    "What it takes in the source",
    "What it will take in the file: predicted, exact",
)
FIGURES = frozenset({Column.SHAPE, Column.BITS, Column.NOW, Column.AFTER})
PLANNED = frozenset({Column.METHOD, Column.FORMAT, Column.BITS, Column.AFTER})
"""The columns that a plan fills."""

CHOSEN = frozenset({Column.METHOD, Column.FORMAT})
"""The columns in which one chooses."""

DESCRIBING = frozenset({Column.ROLE, Column.TYPE})

MIXED = "mixed"
NOTHING = "—"
COPIED = "The source has these very bytes: they are taken as they are"
NOT_WRITTEN = "This tensor has no place in the file."


class Unit(NamedTuple):
    """The unit of a column of sizes: its name, and how many bytes it has."""

    name: str
    bytes: int


class Entry(NamedTuple):
    """A tensor of the table: its row, its plan if there is one, whether it is pinned, and whether it was
    changed: its plan differs from that of the recipe one began with."""

    row: Row
    plan: TensorPlan | None = None
    pinned: bool = False
    changed: bool = False


class Waiting(NamedTuple):
    """What stands in the planned columns while there is no plan, and why."""

    sign: str
    why: str


class Line(NamedTuple):
    """One line: what is shown and what hovering shows, by column.

    `name` is the full name. `bits` per weight, None if not known. `quiet`: nothing here to choose.
    """

    name: str
    texts: tuple[str, ...]
    tips: tuple[str, ...]
    bits: float | None
    quiet: bool
    pinned: bool
    changed: bool


def unit_for(rows: Sequence[Row]) -> Unit:
    """The unit in which the largest tensor reads well."""
    largest = max((row.bytes for row in rows), default=0)
    if largest >= 10**10:
        return Unit("GB", 10**9)
    return Unit("MB", 10**6) if largest >= 10**5 else Unit("kB", 10**3)


def short_name(row: Row) -> str:
    """The name without the prefix that all of its block share and without `.weight`, to be shown."""
    name = row.name.removesuffix(".weight")
    if row.block is not None:
        _, found, rest = name.partition(f".{row.block}.")
        name = rest if found and rest else name
    return printable(name)


def tensor_line(entry: Entry, unit: Unit, waiting: Waiting) -> Line:
    row, plan = entry.row, entry.plan
    texts = [short_name(row), row.role.value, " × ".join(map(str, row.shape)) or "1", row.dtype]
    tips = [_name_tip(row), "", f"{prod(row.shape):,} weights", ""]
    bits = None
    if row.index is None and not waiting.sign:
        waiting = Waiting(NOTHING, NOT_WRITTEN)
    if plan is None:
        texts += [waiting.sign] * 3
        tips += [waiting.why] * 3
    else:
        bits = _bits(plan)
        texts += [_method(plan) or NOTHING, _format(plan), digits(bits)]
        tips += [_method_tip(plan), _format_tip(entry), f"{bits:.6g} bits per weight"]
    after = digits(plan.bytes / unit.bytes) if plan else waiting.sign
    after_tip = f"{plan.bytes:,} bytes, predicted" if plan else waiting.why
    texts += [digits(row.bytes / unit.bytes), after]
    tips += [f"{row.bytes:,} bytes", after_tip]
    quiet = plan is not None and plan.kept
    return Line(printable(row.name), tuple(texts), tuple(tips), bits, quiet, entry.pinned, entry.changed)


def differ(old: Entry, new: Entry) -> bool:
    """Whether a line about these two would differ; a rule's number is not shown."""
    if old.pinned != new.pinned or old.changed != new.changed:
        return True
    if old.plan is new.plan:
        return False
    if old.plan is None or new.plan is None:
        return True
    shown = (new.plan.method, new.plan.format, new.plan.asked)
    return (old.plan.method, old.plan.format, old.plan.asked) != shown


def group_line(label: str, entries: Sequence[Entry], unit: Unit, waiting: Waiting) -> Line:
    """The line over `entries` (at least one): what they have in common, and their sums."""
    rows = [entry.row for entry in entries]
    plans = [entry.plan for entry in entries if entry.plan is not None]
    count = "1 tensor" if len(rows) == 1 else f"{len(rows):,} tensors"
    texts = [label, "", count, _common({row.dtype for row in rows})]
    tips = [
        label,
        "",
        f"{sum(prod(row.shape) for row in rows):,} weights",
        _listed(row.dtype for row in rows),
    ]
    bits = group_bits(entries)
    after = sum(plan.bytes for plan in plans)
    if bits is None:
        texts += [waiting.sign] * 3
        tips += [waiting.why] * 3
    else:
        free = [plan for plan in plans if not plan.kept] or plans
        methods = [method for method in map(_method, free) if method]
        texts += [_common(set(methods)) or NOTHING, _common({plan.format for plan in free}), digits(bits)]
        formats = _listed(plan.format for plan in plans)
        tips += [_listed(methods), formats, f"{bits:.6g} bits per weight"]
    now = sum(row.bytes for row in rows)
    texts += [digits(now / unit.bytes), waiting.sign if bits is None else digits(after / unit.bytes)]
    tips += [f"{now:,} bytes", waiting.why if bits is None else f"{after:,} bytes, predicted"]
    pinned = all(entry.pinned for entry in entries if entry.plan and not entry.plan.kept)
    pinned = pinned and any(entry.pinned for entry in entries)
    changed = any(entry.changed for entry in entries)
    return Line(label, tuple(texts), tuple(tips), bits, False, pinned, changed)


def group_bits(entries: Sequence[Entry]) -> float | None:
    """Bits per weight of all that is planned, or None."""
    plans = [entry.plan for entry in entries if entry.plan is not None]
    weights = sum(prod(plan.shape) for plan in plans)
    return 8 * sum(plan.bytes for plan in plans) / weights if weights else None


# ------------------------------------------------------------------------------------- sorting


def tensor_value(column: Column) -> Callable[[Entry], Any]:
    """What tensors are ordered by in a column; None where there is nothing."""
    return {
        Column.NAME: lambda entry: _natural(entry.row.name),
        Column.ROLE: lambda entry: entry.row.role.value,
        Column.SHAPE: lambda entry: prod(entry.row.shape),
        Column.TYPE: lambda entry: entry.row.dtype,
        Column.METHOD: lambda entry: entry.plan and _method(entry.plan),
        Column.FORMAT: lambda entry: entry.plan and entry.plan.format,
        Column.BITS: lambda entry: entry.plan and _bits(entry.plan),
        Column.NOW: lambda entry: entry.row.bytes,
        Column.AFTER: lambda entry: entry.plan and entry.plan.bytes,
    }[column]


def group_value(column: Column) -> Callable[[Sequence[Entry]], float | None] | None:
    """What groups are ordered by in a column; None where they stay in the order of the file."""
    return {
        Column.SHAPE: lambda entries: sum(prod(entry.row.shape) for entry in entries),
        Column.BITS: group_bits,
        Column.NOW: lambda entries: sum(entry.row.bytes for entry in entries),
        Column.AFTER: lambda entries: sum(entry.plan.bytes for entry in entries if entry.plan),
    }.get(column)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts layer 2 before layer 10. Not by `int`, which refuses thousands of digits."""
    parts = re.split(r"(\d+)", name)
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    return [(len(part) * (place % 2), part) for place, part in enumerate(parts)]


# --------------------------------------------------------------------------------------- texts


def _bits(plan: TensorPlan) -> float:
    return 8 * plan.bytes / max(1, prod(plan.shape))


def _method(plan: TensorPlan) -> str:
    """The method, or nothing where weights are rounded one by one."""
    return "copied" if plan.copied else outcome(plan.format, plan.method)[1]


def _method_tip(plan: TensorPlan) -> str:
    if plan.copied:
        return COPIED
    if LAYOUTS[plan.format].exact:
        return f"{plan.format} rounds each weight: there is nothing to choose"
    return f"{plan.method}: {METHODS[plan.method]}"


def _format(plan: TensorPlan) -> str:
    return plan.format if plan.kept or plan.format == plan.asked else f"{plan.format} for {plan.asked}"


def _format_tip(entry: Entry) -> str:
    assert entry.plan is not None
    info = LAYOUTS[entry.plan.format]
    parts = [entry.plan.note or f"{info.name}: {info.bits:g} bits per weight", info.summary]
    parts += ["pinned: edits leave it as it is"] * entry.pinned
    parts += ["differs from what the recipe began with"] * entry.changed
    return "\n".join(parts)


def _name_tip(row: Row) -> str:
    """The full name, the name in the file, and the sources that make it."""
    names = [row.name] + ([f"in the file: {row.key}"] if row.key != row.name else [])
    if len(row.sources) > 1:
        names.append(f"made of {len(row.sources)} tensors: {row.sources[0]} …")
    return "\n".join(shortened(printable(name), MOST_TOLD) for name in names)


def _common(values: Collection[str]) -> str:
    return next(iter(values), "") if len(values) < 2 else MIXED


def _listed(values: "Any") -> str:
    """How often each occurs: "Q4_K 5, Q6_K 2"."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return ", ".join(f"{value} × {count}" for value, count in sorted(counts.items()))
