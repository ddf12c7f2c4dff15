"""Which tensors the table of layers shows and in which order: groups, filter, sorting, on plain lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.models.layer_lines import Column, Entry, group_value, tensor_value
from app.state import Row
from engine.api.model import Role

FIRST_ROLES = frozenset({Role.EMBEDDING, Role.POSITION})


@dataclass(eq=False)
class Group:
    """`number` stays while the model is open; `rows` are all of it, `shown` those that pass the filter."""

    number: int
    label: str
    rows: list[int]
    shown: list[int] = field(default_factory=list)

    def entries(self, of: Sequence[Entry]) -> list[Entry]:
        """What is shown of it."""
        return [of[row] for row in self.shown]


def grouped(rows: Sequence[Row]) -> list[Group]:
    """Embedding and the like first, then block by block, then what comes behind them."""
    blocks: dict[int, list[int]] = {}
    before: list[int] = []
    after: list[int] = []
    for place, row in enumerate(rows):
        if row.block is not None:
            blocks.setdefault(row.block, []).append(place)
        else:
            (before if row.role in FIRST_ROLES else after).append(place)
    named = [("Before the blocks", before)]
    named += [(f"Block {block}", blocks[block]) for block in sorted(blocks)]
    named.append(("After the blocks", after))
    if not blocks:
        named = [("All tensors", before + after)]
    found = [(label, places) for label, places in named if places]
    return [Group(number, label, places) for number, (label, places) in enumerate(found)]


@dataclass
class Order:
    """`pattern` is searched in names, `roles` (none: all) select; `column` None is the order of the file."""

    pattern: re.Pattern[str] | None = None
    roles: frozenset[Role] = frozenset()
    column: Column | None = None
    falling: bool = False

    def arrange(self, groups: Sequence[Group], entries: Sequence[Entry]) -> list[Group]:
        """The groups that have anything to show, sorted, and what they show, sorted too."""
        for group in groups:
            group.shown = [row for row in group.rows if self._passes(entries[row].row)]
        visible = [group for group in groups if group.shown]
        if self.column is None:
            return visible
        value, of_group = tensor_value(self.column), group_value(self.column)
        keys = [_key(value(entry), self.falling) for entry in entries]
        for group in visible:
            group.shown.sort(key=keys.__getitem__, reverse=self.falling)
        if of_group is not None:
            sums = {group.number: _key(of_group(group.entries(entries)), self.falling) for group in visible}
            visible.sort(key=lambda group: sums[group.number], reverse=self.falling)
        elif self.column == Column.NAME and self.falling:
            visible.reverse()
        return visible

    def _passes(self, row: Row) -> bool:
        if self.roles and row.role not in self.roles:
            return False
        pattern = self.pattern
        return pattern is None or any(pattern.search(name) for name in (row.name, row.key, *row.sources))


def _key(value: Any, falling: bool) -> tuple:
    """Sorts nothing to the end, whether rising or falling."""
    if value is None or value == "":
        return (not falling,)
    return falling, value
