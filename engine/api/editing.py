"""Edits of a recipe: the choice of some tensors changed, as few rules that a person would have written.

The window's gestures come here; what they mean is said in rules again. An edit rewrites only the rules that
are about the edited tensors: those of their roles, of their whole blocks, and of their names. What such rules
must say is the difference to what the others decide, so that going back leaves nothing behind. Pinned rules
stand last and therefore win.
"""

import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from engine.api.formats import FORMATS, LAYOUTS
from engine.api.model import Role
from engine.api.plan import LITERAL, Plan, Planner, Shaped, TensorPlan, storage
from engine.api.recipe import Choice, Recipe, Rule, block_ranges

EVERYTHING = "."
"""The `match` of a rule for whole blocks."""

BITS = {
    8: ("Q8_0",),
    6: ("Q6_K",),
    5: ("Q5_K", "Q5_0"),
    4: ("Q4_K", "Q4_0"),
    3: ("Q3_K",),
    2: ("Q2_K",),
}
"""Formats by the bits of their codes, the best first."""

SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
BACKSLASHED = r"\\\g<0>"

Key = TypeVar("Key", bound=Hashable)


def set_choice(
    recipe: Recipe,
    planner: Planner,
    plan: Plan,
    places: Collection[int],
    *,
    format: str | None = None,
    method: str | None = None,
) -> Recipe:
    """Give the tensors at `places` another format, another method, or both; what is None stays each tensor's.

    Pinned tensors and those kept in F32 stay as they are, and so does every other tensor.
    """
    editor = _Editor(_pins_last(recipe, planner, plan), planner, plan)
    wishes = list(editor.wishes)
    chosen = editor.open.intersection(places)
    changed = {wish: wish.changed(format, method) for wish in {wishes[place] for place in chosen}}
    for place in chosen:
        wishes[place] = changed[wishes[place]]
    if wishes == editor.wishes:
        return recipe
    everywhere = {wishes[place] for place in editor.matter}
    if len(everywhere) == 1:
        return editor.only(everywhere.pop())
    touched = {place for place in editor.open if wishes[place] != editor.wishes[place]}
    body = editor.rewritten(editor.body, wishes, editor.open, touched, editor.default)
    return editor.result(body, editor.tail)


def set_pinned(recipe: Recipe, planner: Planner, plan: Plan, places: Collection[int], pinned: bool) -> Recipe:
    """Pin the tensors at `places` to their present choice, or let go of them; no choice changes."""
    editor = _Editor(_pins_last(recipe, planner, plan), planner, plan)
    touched = set(places) & (editor.open if pinned else editor.pinned)
    if not touched:
        return recipe
    now = editor.pinned | touched if pinned else editor.pinned - touched
    tail = _pins(editor, editor.tail, now, touched)
    body = editor.body
    if not pinned:
        body = editor.rewritten(body, editor.wishes, editor.matter - now, touched, editor.default)
    return editor.result(body, tail)


def with_pins(new: Recipe, old: Recipe) -> Recipe:
    """`new` with the pinned rules of `old` behind its own."""
    pins = [rule for rule in old.rules if rule.pinned]
    return new.model_copy(update={"rules": [rule for rule in new.rules if rule not in pins] + pins})


def is_pinned(recipe: Recipe, tensor: TensorPlan) -> bool:
    """Whether a pinned rule of `recipe` chose for `tensor`, which it planned."""
    return (
        tensor.rule is not None and tensor.rule < len(recipe.rules) and bool(recipe.rules[tensor.rule].pinned)
    )


def outcome(format: str, method: str) -> tuple[str, str]:
    """A format that a tensor gets and its method, "" where weights are rounded one by one: as one sees it."""
    return format, "" if LAYOUTS[format].exact else method


def outcomes(recipe: Recipe, planner: Planner) -> list[tuple[str, str]]:
    """The `outcome` of `recipe` for each tensor; quicker than a plan, and the planner's last one stays."""
    chosen = planner.deciding(recipe.rules)
    choices = [recipe.default if index is None else recipe.rules[index] for index in chosen]
    return [
        outcome(storage(tensor, choice.format).format, choice.method)
        for tensor, choice in zip(planner.tensors, choices, strict=True)
    ]


def formats_for(tensor: Shaped) -> list[tuple[str, str]]:
    """All formats by falling bits, with why `tensor` cannot have each and what it would get ("": it can)."""
    ordered = sorted(FORMATS.values(), key=lambda info: -info.bits)
    given = [(info.name, storage(tensor, info.name)) for info in ordered]
    return [(name, "" if got.format == name and not got.kept else got.note or "") for name, got in given]


def format_for_bits(bits: int, columns: int) -> str | None:
    """The format with codes of `bits` bits for rows of `columns`; None where there is none with so many.

    Where none of them fits, the plainest: its fallback is what the tensor gets.
    """
    names = BITS.get(bits)
    if names is None:
        return None
    return next((name for name in names if FORMATS[name].fits(columns)), names[-1])


class _Wish(NamedTuple):
    """A `Choice` that can be compared and counted; `params` as JSON."""

    method: str
    format: str
    params: str

    @classmethod
    def of(cls, choice: Choice) -> "_Wish":
        return cls(choice.method, choice.format, json.dumps(choice.params, sort_keys=True))

    def changed(self, format: str | None, method: str | None) -> "_Wish":
        """With another format or method; parameters belong to the method."""
        if method is None or method == self.method:
            return self._replace(format=format or self.format)
        return _Wish(method, format or self.format, "{}")

    def rule(self, match: str, blocks: Iterable[int] = (), pinned: bool = False) -> Rule:
        # Not validated: it is right by its making, and hundreds of names would be compiled.
        return Rule.model_construct(
            method=self.method,
            format=self.format,
            params=json.loads(self.params),
            match=match,
            blocks=block_ranges(sorted(blocks)) or None,
            pinned=True if pinned else None,
        )


_Wishes = Sequence[_Wish | None]


class _Editor:
    """One recipe in parts, and what it says of each tensor.

    Sets and lists hold places in the plan. `matter`: tensors that a recipe decides on (all but those kept in
    F32); `pinned`: those that the pinned rules at the end, `tail`, match; `open`: those left to `body`.
    `wishes`: the present choice of every tensor.
    """

    def __init__(self, recipe: Recipe, planner: Planner, plan: Plan) -> None:
        self.recipe, self.planner = recipe, planner
        cut = len(recipe.rules)
        while cut and recipe.rules[cut - 1].pinned:
            cut -= 1
        self.body, self.tail = recipe.rules[:cut], recipe.rules[cut:]
        self.matter = {place for place, tensor in enumerate(plan.tensors) if not tensor.kept}
        self.pinned = self.matter.intersection(place for rule in self.tail for place in planner.matched(rule))
        self.open = self.matter - self.pinned
        self.default = _Wish.of(recipe.default)
        self.wishes = [wish or self.default for wish in self._decided(recipe.rules, None)]

    def only(self, wish: _Wish) -> Recipe:
        """The recipe that gives all tensors one choice: its default says it."""
        body = [rule for rule in self.body if self.matter.isdisjoint(self.planner.matched(rule))]
        default = Choice(method=wish.method, format=wish.format, params=json.loads(wish.params))
        return self.recipe.model_copy(update={"rules": body + self.tail, "default": default})

    def result(self, body: list[Rule], tail: list[Rule]) -> Recipe:
        """The recipe of these rules, without those that decided something before and nothing now."""
        rules = body + tail
        idle = self._deciding(self.recipe.rules) - self._deciding(rules)
        left = [rule for rule in rules if id(rule) not in idle]
        return self.recipe.model_copy(update={"rules": left})

    def rewritten(
        self, rules: list[Rule], wishes: _Wishes, relevant: set[int], touched: set[int], default: _Wish | None
    ) -> list[Rule]:
        """`rules` changed so that the `relevant` tensors get their wishes, in the fewest and shortest rules.

        A tensor with the wish None must not be matched. `touched`: the tensors that the edit is about.
        Without a `default` the rules are pinned ones.
        """
        candidates = []
        cover = _Cover(self, wishes, relevant, pinned=default is None)
        for left in self._without_own(rules, touched):
            decided = self._decided(left, default)
            wrong = [place for place in sorted(relevant) if decided[place] != wishes[place]]
            candidates += [left + cover.rules(wrong, whole_blocks) for whole_blocks in (False, True)]
        return min(candidates, key=_length)

    def _without_own(self, rules: list[Rule], touched: set[int]) -> Iterator[list[Rule]]:
        """`rules`, and without those that say something about just the touched tensors' roles and names, and
        without those for their whole blocks as well."""
        roles = {self.planner.tensors[place].role.value for place in touched}
        deciding = self._deciding(rules)
        named, blocks = set(), set()
        for rule in rules:
            matched = self.matter.intersection(self.planner.matched(rule))
            if id(rule) not in deciding:
                continue
            if rule.match in roles or (matched <= touched and LITERAL.fullmatch(rule.match)):
                named.add(id(rule))
            elif rule.match == EVERYTHING and rule.blocks and matched & touched:
                blocks.add(id(rule))
        yield rules
        if named:
            yield [rule for rule in rules if id(rule) not in named]
        if blocks:
            yield [rule for rule in rules if id(rule) not in named | blocks]

    def _decided(self, rules: list[Rule], default: _Wish | None) -> list[_Wish | None]:
        """What `rules` and `default` choose for each tensor."""
        wishes = [_Wish.of(rule) for rule in rules]
        return [default if index is None else wishes[index] for index in self.planner.deciding(rules)]

    def _deciding(self, rules: list[Rule]) -> set[int]:
        """The ids of the rules that choose for a tensor that matters."""
        chosen = self.planner.deciding(rules)
        indices = {chosen[place] for place in self.matter} - {None}
        return {id(rules[index]) for index in indices if index is not None}


class _Cover:
    """Makes rules that give tensors their wishes and leave the others of the `relevant` ones alone."""

    def __init__(self, editor: _Editor, wishes: _Wishes, relevant: set[int], pinned: bool) -> None:
        self._editor, self._wishes, self._relevant, self._pinned = editor, wishes, relevant, pinned
        self._tensors = editor.planner.tensors
        self._named: dict[int, Rule] = {}

    def rules(self, places: list[int], whole_blocks: bool) -> list[Rule]:
        """Rules for the tensors at `places`; with `whole_blocks`, rules for everything in a block first."""
        made = []
        for wish, group in _grouped(places, lambda place: self._wishes[place]).items():
            assert wish is not None, "only tensors with a wish are to be covered"
            left = group
            if whole_blocks:
                blocks = self._whole_blocks(group, wish)
                if blocks:
                    made.append(wish.rule(EVERYTHING, blocks, self._pinned))
                left = [place for place in group if self._tensors[place].block not in blocks]
            for role, of_role in _grouped(left, lambda place: self._tensors[place].role).items():
                made += self._of_role(role, of_role, wish)
        return made

    def _whole_blocks(self, places: list[int], wish: _Wish) -> set[int]:
        """The blocks in which all is to have this one choice, if that takes rules for several roles."""
        found = set()
        for block, inside in _grouped(places, lambda place: self._tensors[place].block).items():
            roles = {self._tensors[place].role for place in inside}
            if block is not None and len(roles) > 1 and self._alike(None, block, wish):
                found.add(block)
        return found

    def _of_role(self, role: Role, places: list[int], wish: _Wish) -> list[Rule]:
        if self._alike(role, None, wish):
            return [wish.rule(role.value, (), self._pinned)]
        blocks = {self._tensors[place].block for place in places} - {None}
        whole = {block for block in blocks if block is not None and self._alike(role, block, wish)}
        rules = [wish.rule(role.value, whole, self._pinned)] if whole else []
        return rules + [
            self._of_name(place, wish) for place in places if self._tensors[place].block not in whole
        ]

    def _of_name(self, place: int, wish: _Wish) -> Rule:
        """A rule for one tensor by the source's name, or by the canonical one where that is shared."""
        if place not in self._named:
            tensor = self._tensors[place]
            rule = wish.rule(
                _exactly(tensor.sources[0] if len(tensor.sources) == 1 else tensor.name), (), self._pinned
            )
            if self._editor.planner.matched(rule) != [place]:
                rule = wish.rule(_exactly(tensor.name), (), self._pinned)
            self._named[place] = rule
        return self._named[place]

    def _alike(self, role: Role | None, block: int | None, wish: _Wish) -> bool:
        members = self._editor.planner.members(role, block)
        return all(place not in self._relevant or self._wishes[place] == wish for place in members)


def _exactly(name: str) -> str:
    """The regular expression for one name."""
    return f"^{SPECIAL.sub(BACKSLASHED, name)}$"


def _grouped(places: Iterable[int], key: Callable[[int], Key]) -> dict[Key, list[int]]:
    groups: dict[Key, list[int]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return groups


def _length(rules: list[Rule]) -> tuple[int, int]:
    return len(rules), sum(len(rule.match) + len(rule.blocks or "") for rule in rules)


def _pins_last(recipe: Recipe, planner: Planner, plan: Plan) -> Recipe:
    """`recipe` with pinned rules at its end alone; one written by hand may have them anywhere."""
    pinned = [bool(rule.pinned) for rule in recipe.rules]
    if pinned == sorted(pinned):
        return recipe
    editor = _Editor(recipe, planner, plan)
    chosen = planner.deciding(recipe.rules)
    now = {
        place
        for place in editor.matter
        if (index := chosen[place]) is not None and recipe.rules[index].pinned
    }
    body = [rule for rule in editor.body if not rule.pinned]
    return recipe.model_copy(update={"rules": body + _pins(editor, [], now, now)})


def _pins(editor: _Editor, tail: list[Rule], now: set[int], touched: set[int]) -> list[Rule]:
    """`tail` changed so that its pinned rules match the tensors `now`, and no other, as they are."""
    inside = [
        rule for rule in tail if now.issuperset(editor.matter.intersection(editor.planner.matched(rule)))
    ]
    wishes = [wish if place in now else None for place, wish in enumerate(editor.wishes)]
    return editor.rewritten(inside, wishes, editor.matter, touched, default=None)
