"""The selected tensor as figures ask for it: its name in the source, and what the recipe makes of it."""

from app.plain import printable, shortened
from app.state import Row, State
from engine.api.recipe import Choice, Recipe

COMPUTED = "Computed when the file is written: there are no stored weights to look at."


def stored(row: Row) -> str | None:
    """The tensor of the source that is looked at, None where there is none: the first of several."""
    return row.sources[0] if row.sources else None


def called(row: Row) -> str:
    """A row's name in a line over its figures; of several sources which one is meant."""
    name = shortened(printable(row.name))
    return f"{name}, the first of {len(row.sources)} sources" if len(row.sources) > 1 else name


def as_written(state: State, row: Row) -> Recipe | None:
    """A recipe that makes of this one tensor what the present one does; None where it loses nothing.

    It stays the same whatever happens to other tensors, and is short.
    """
    plan, recipe = state.planned(row), state.document.recipe
    if plan is None or recipe is None or plan.kept or plan.copied:
        return None
    choice = Choice(method=plan.method, format=plan.format, params=plan.params)
    return Recipe(default=choice, imatrix=recipe.imatrix, effort=recipe.effort)


def why_lossless(state: State, row: Row) -> str:
    """Why `as_written` has nothing to say, a sentence."""
    plan = state.planned(row)
    if state.phase == "inspect only":
        return f"There is no recipe: {state.refusal}"
    if state.plan is None:
        return "The plan of the output is still being made."
    if plan is None:
        return "The output has no place for this tensor: nothing is written of it."
    if plan.copied:
        return f"The file takes the bytes that the source has ({plan.format}): nothing is lost."
    note = plan.note or f"kept in {plan.format}"
    return f"{note[0].upper()}{note[1:]}. It is not quantized."
