"""Which tensors the table of layers shows and in which order: groups, filter, sorting, on plain lists."""

import importlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.models.layer_lines import Column, Entry, group_value, tensor_value
from app.state import Row
from engine.api.model import Role

FIRST_ROLES = frozenset({Role.EMBEDDING, Role.POSITION})

LINEAR = re.compile(r"[^*+?{|()]*")
"""Patterns without repetition or choice: a search for them cannot take long."""

PATIENCE = 0.03
PATIENCE_PER_NAME = 5e-6
"""Seconds that a filter may take; a watched search of one name alone takes a few microseconds."""

TOO_SLOW = "This pattern takes too long; make it simpler."


class PatternError(Exception):
    """Why a pattern cannot filter, for the user."""


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

    pattern: str = ""
    roles: frozenset[Role] = frozenset()
    column: Column | None = None
    falling: bool = False
    _found: list[bool] | None = None
    """By row, whether the pattern is found in its names; None: all pass."""

    @property
    def filters(self) -> bool:
        return self._found is not None or bool(self.roles)

    def look_for(self, pattern: str, rows: Sequence[Row]) -> None:
        """Filter `rows` by `pattern` from now on. Raises `PatternError`; then all stays as it is."""
        self._found = search(pattern, [_names(row) for row in rows]) if pattern else None
        self.pattern = pattern

    def arrange(self, groups: Sequence[Group], entries: Sequence[Entry]) -> list[Group]:
        """The groups that have anything to show, sorted, and what they show, sorted too."""
        for group in groups:
            group.shown = list(group.rows)
            if self._found is not None:
                group.shown = [row for row in group.shown if self._found[row]]
            if self.roles:
                group.shown = [row for row in group.shown if entries[row].row.role in self.roles]
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


def load_search() -> None:
    """Import what searches with: that takes 20 ms, which the first letter of a filter should not."""
    importlib.import_module("regex")


def search(pattern: str, names: Sequence[Sequence[str]]) -> list[bool]:
    """By row, whether `pattern` is found in one of its names. Raises `PatternError`."""
    # Python's own `re` cannot be stopped. Imported here: see `load_search`.
    import regex  # type: ignore[import-untyped]

    try:
        compiled = regex.compile(pattern, regex.IGNORECASE)
    except (regex.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a regular expression: {error}") from None
    if LINEAR.fullmatch(pattern):
        return [any(map(compiled.search, of_row)) for of_row in names]
    waits = _countdown(PATIENCE + PATIENCE_PER_NAME * sum(map(len, names)))
    try:
        return [
            any(compiled.search(name, timeout=left) for name, left in zip(of_row, waits, strict=False))
            for of_row in names
        ]
    except TimeoutError:
        raise PatternError(TOO_SLOW) from None


def _names(row: Row) -> tuple[str, ...]:
    """All names of a row, each once: a filter may find any of them."""
    alike = row.key == row.name and row.sources == (row.name,)
    return row.sources if alike else tuple(dict.fromkeys((row.name, row.key, *row.sources)))


def _countdown(seconds: float) -> Iterator[float]:
    """The seconds of this thread's work that are left, again and again; `TimeoutError` when none are."""
    end = time.thread_time() + seconds
    while (left := end - time.thread_time()) > 0:
        yield left
    raise TimeoutError


def _key(value: Any, falling: bool) -> tuple:
    """Sorts nothing to the end, whether rising or falling."""
    if value is None or value == "":
        return (not falling,)
    return falling, value
