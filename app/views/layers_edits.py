"""What one can do to the tensors of the table: a gesture is one undoable change, or a sentence why not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.models.layer_lines import COPIED, NOT_WRITTEN, short_name
from app.models.offers import Offer
from app.state import Row, State
from engine.api.editing import format_for_bits, formats_for, is_pinned, set_choice, set_pinned
from engine.api.formats import FORMATS, LAYOUTS, METHODS
from engine.api.plan import Plan, Planner, TensorPlan, storage
from engine.api.recipe import Recipe
from engine.api.units import digits

ANY_FITS = 256
"""So many columns fit every format."""

UNKNOWN_YET = "What the file will hold is not known yet"


@dataclass(frozen=True)
class _Target:
    """The tensors of a gesture that can be chosen for, those left alone, and the present recipe."""

    recipe: Recipe
    planner: Planner
    plan: Plan
    rows: list[Row]
    pinned: list[Row]
    kept: list[TensorPlan]

    def tensor(self, row: Row) -> TensorPlan:
        assert row.index is not None, "a row of a plan"
        return self.plan.tensors[row.index]


class LayerEdits(QObject):
    """Changes the recipe of `state` for given rows."""

    message = Signal(str)
    """A short sentence for the status line: what was left as it is, or why nothing happened."""

    def __init__(self, state: State, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = state

    # ------------------------------------------------------------------------- what can be chosen

    def formats(self, rows: Sequence[Row]) -> list[Offer]:
        """All formats by falling bits; one is possible if any of the tensors can hold it.

        Where it is not, the text names what they get instead.
        """
        plans = [plan for row in rows if (plan := self._state.planned(row)) is not None]
        free = [plan for plan in plans if not plan.kept] or plans
        kinds = {(plan.role, plan.shape[-1:], plan.kept): plan for plan in free}
        counts = Counter((plan.role, plan.shape[-1:], plan.kept) for plan in free)
        alike = [(plan, counts[kind]) for kind, plan in kinds.items()]
        offered = [dict(formats_for(plan)) for plan in kinds.values()]
        if not offered:
            return []
        planned = {plan.format for plan in free}
        offers = []
        for name in offered[0]:
            reasons = dict.fromkeys(reasons[name] for reasons in offered if reasons[name])
            possible = any(not reasons[name] for reasons in offered)
            instead = _instead(name, alike)
            text = name if possible or instead == name else f"{name}  →  {instead}"
            info = FORMATS[name]
            offers.append(
                Offer(
                    name,
                    text,
                    f"{digits(info.bits)} bits",
                    info.summary,
                    possible,
                    present=planned == {name},
                    reason="" if possible else "\n".join(reasons),
                    caution=_partly(name, alike) if possible and reasons else "",
                )
            )
        return offers

    def methods(self, rows: Sequence[Row]) -> list[Offer]:
        """All methods; none is possible for tensors that are copied or rounded weight by weight."""
        plans = [plan for row in rows if (plan := self._state.planned(row)) is not None]
        free = [plan for plan in plans if _has_method(plan)]
        if free:
            present = {plan.method for plan in free}
            return [Offer(name, name, "", said, present=present == {name}) for name, said in METHODS.items()]
        formats = " and ".join(sorted({plan.format for plan in plans}))
        reason = f"{formats}: each weight is rounded by itself, there is nothing to choose"
        if plans and all(plan.copied for plan in plans):
            reason = f"{COPIED}; there is nothing to choose"
        return [Offer(name, name, "", said, False, reason=reason) for name, said in METHODS.items()]

    def all_pinned(self, rows: Sequence[Row]) -> bool:
        """Whether `toggle_pin` would let go of `rows`: all that can be pinned are."""
        recipe = self._state.document.recipe
        plans = [plan for row in rows if (plan := self._state.planned(row)) is not None and not plan.kept]
        return recipe is not None and bool(plans) and all(is_pinned(recipe, plan) for plan in plans)

    # --------------------------------------------------------------------------------- gestures

    def set_format(self, rows: Sequence[Row], format: str) -> None:
        target = self._target(rows)
        if target is not None:
            recipe = _set(target, target.recipe, target.rows, format=format)
            given = {format: target.rows}
            self._finish(
                target, f"{format} for {_named(target.rows)}", recipe, _misfits(target, format, given)
            )

    def set_method(self, rows: Sequence[Row], method: str) -> None:
        plans = [(row, self._state.planned(row)) for row in rows]
        with_method = [row for row, plan in plans if plan is not None and _has_method(plan)]
        if rows and self._state.plan and not with_method:
            self.message.emit(self.methods(rows)[0].reason)
            return
        target = self._target(with_method)
        if target is not None:
            recipe = _set(target, target.recipe, target.rows, method=method)
            self._finish(target, f"{method} for {_named(target.rows)}", recipe)

    def set_bits(self, rows: Sequence[Row], bits: int) -> None:
        """The best format of so many bits that each tensor can hold."""
        best = format_for_bits(bits, ANY_FITS)
        if best is None:
            self.message.emit(f"No format has {bits} bits")
            return
        target = self._target(rows)
        if target is None:
            return
        by_columns: dict[int, list[Row]] = {}
        for row in target.rows:
            by_columns.setdefault(target.tensor(row).shape[-1], []).append(row)
        given: dict[str, list[Row]] = {}
        for columns, rows in by_columns.items():
            name = format_for_bits(bits, columns)
            assert name is not None, "these bits have formats"
            given.setdefault(name, []).extend(rows)
        recipe = target.recipe
        for name, chosen in given.items():
            recipe = _set(target, recipe, chosen, format=name)
        text = f"{' and '.join(given)} for {_named(target.rows)}"
        self._finish(target, text, recipe, _misfits(target, best, given))

    def toggle_pin(self, rows: Sequence[Row]) -> None:
        """Pin the tensors; where all of them are pinned already, let go of them."""
        target = self._target(rows)
        if target is None:
            return
        pin = bool(target.rows)
        chosen = target.rows or target.pinned
        if not chosen:
            self.message.emit(_left(target))
            return
        text = f"{'Pin' if pin else 'Unpin'} {_named(chosen)}"
        recipe = set_pinned(target.recipe, target.planner, target.plan, _places(chosen), pin)
        self._state.change_recipe(text, recipe)

    def apply_to_role(self, row: Row) -> None:
        """Give every tensor of a role what one of them has."""
        source = self._state.planned(row)
        alike = [other for other in self._state.rows if other.role == row.role and other.index is not None]
        target = self._target(alike)
        if target is None:
            return
        if source is None or source.kept:
            self.message.emit(f"{short_name(row)}: {source.note if source else 'not in the file'}")
            return
        format, method = source.asked, source.method
        recipe = _set(target, target.recipe, target.rows, format=format, method=method)
        misfits = _misfits(target, format, {format: target.rows})
        self._finish(target, f"{format} for all of role {row.role.value}", recipe, misfits)

    # ---------------------------------------------------------------------------------- common

    def refusal(self, rows: Sequence[Row]) -> str:
        """Why nothing can be chosen for `rows`, or ""."""
        if self._state.plan is None:
            refused = self._state.refusal
            return f"There is nothing to choose: {refused}" if refused else UNKNOWN_YET
        if not rows:
            return "Select tensors first"
        return "" if any(row.index is not None for row in rows) else NOT_WRITTEN

    def _target(self, rows: Sequence[Row]) -> _Target | None:
        """What a gesture on `rows` is about; None, and a message, where there is nothing to change."""
        refusal = self.refusal(rows)
        if refusal:
            self.message.emit(refusal)
            return None
        recipe, planner, plan = self._state.document.recipe, self._state.planner, self._state.plan
        assert recipe is not None, "with the plan there is a recipe"
        assert planner is not None, "with the plan there is a planner"
        assert plan is not None, "or it was refused"
        target = _Target(recipe, planner, plan, [], [], [])
        chosen = planner.deciding(recipe.rules)  # the plan may be that of the recipe before
        for row in rows:
            if row.index is None:
                continue
            rule = chosen[row.index]
            if plan.tensors[row.index].kept:
                target.kept.append(plan.tensors[row.index])
            elif rule is not None and recipe.rules[rule].pinned:
                target.pinned.append(row)
            else:
                target.rows.append(row)
        return target

    def _finish(self, target: _Target, text: str, recipe: Recipe, misfits: str = "") -> None:
        self._state.change_recipe(text, recipe)
        said = "; ".join(filter(None, (misfits, _left(target))))
        if said:
            self.message.emit(said)


def _set(
    target: _Target,
    recipe: Recipe,
    rows: Sequence[Row],
    *,
    format: str | None = None,
    method: str | None = None,
) -> Recipe:
    return set_choice(recipe, target.planner, target.plan, _places(rows), format=format, method=method)


def _places(rows: Sequence[Row]) -> list[int]:
    return [row.index for row in rows if row.index is not None]


def _misfits(target: _Target, wanted: str, given: Mapping[str, Sequence[Row]]) -> str:
    """Which tensors do not get the format `wanted` and what they get; empty if all do.

    `given` says what each was given, which may not fit its rows either.
    """
    alike: Counter[tuple[str, int]] = Counter()  # storage depends on no more, but for what is kept in F32
    example: dict[tuple[str, int], TensorPlan] = {}
    for name, rows in given.items():
        for row in rows:
            tensor = target.tensor(row)
            alike[name, tensor.shape[-1]] += 1
            example[name, tensor.shape[-1]] = tensor
    got = {case: storage(tensor, case[0]).format for case, tensor in example.items()}
    others = [case for case, format in got.items() if format != wanted]
    if not others:
        return ""
    instead = " or ".join(sorted({got[case] for case in others}))
    unfit, all_of_them = sum(alike[case] for case in others), alike.total()
    gets = f"it gets {instead}" if unfit == 1 else f"they get {instead}"
    if all_of_them == 1:
        return f"{wanted} does not fit this tensor: {gets}"
    count = f"{unfit:,} of {all_of_them:,}" if unfit < all_of_them else f"these {all_of_them:,}"
    return f"{wanted} does not fit {count} tensors: {gets}"


def _has_method(plan: TensorPlan) -> bool:
    """Whether codes are chosen for the tensor."""
    return not (plan.copied or LAYOUTS[plan.format].exact)


def _partly(name: str, alike: Sequence[tuple[TensorPlan, int]]) -> str:
    """How many of the tensors, one of each kind and how many are like it, do not get the format `name`."""
    given = [(storage(plan, name).format, count) for plan, count in alike]
    others = sum(count for got, count in given if got != name)
    instead = " or ".join(sorted({got for got, _ in given} - {name}))
    return f"{others:,} of {sum(count for _, count in alike):,} get {instead}"


def _instead(name: str, alike: Sequence[tuple[TensorPlan, int]]) -> str:
    """What tensors get that cannot have the format `name`."""
    return " or ".join(sorted({storage(plan, name).format for plan, _ in alike}))


def _named(rows: Sequence[Row]) -> str:
    """The tensors, for the name of a step."""
    if len(rows) != 1:
        return f"{len(rows):,} tensors"
    block = "" if rows[0].block is None else f"block {rows[0].block} "
    return f"{block}{short_name(rows[0])}"


def _left(target: _Target) -> str:
    """Which tensors a gesture left alone, and why; empty if it took all."""
    said = []
    if target.pinned:
        one = len(target.pinned) == 1
        many = f"{len(target.pinned):,} pinned tensors were left as they are"
        them = "it" if one else "them"
        key = f"P on {them} alone" if target.rows else "P"  # P on others as well would pin those
        left = "1 pinned tensor was left as it is" if one else many
        said.append(f"{left}; {key} lets go of {them}")
    if target.kept and not target.rows:
        notes = sorted({tensor.note or "" for tensor in target.kept})
        said.append(
            f"{len(target.kept)} {'tensor' if len(target.kept) == 1 else 'tensors'} {' and '.join(notes)}"
        )
    return "; ".join(said)
