"""Presets laid over a recipe, and how large the file would be with each: for the window and a command."""

from dataclasses import replace

from pydantic import BaseModel

from engine.api.editing import with_pins
from engine.api.errors import RecipeError
from engine.api.plan import ExportSummary, Planner
from engine.api.presets import COPY, PRESETS, ModelFacts
from engine.api.recipe import Recipe

NAMES = (*PRESETS, COPY)
"""All presets, in the order of lists."""


class PresetSize(BaseModel):
    """The bytes and bits per weight of the file, or the `reason` why there would be none."""

    preset: str
    bytes: int | None = None
    bpw: float | None = None
    reason: str | None = None


def preset_over(old: Recipe, name: str, facts: ModelFacts, planner: Planner) -> Recipe:
    """A preset laid under what is pinned in `old`; all that is no rule stays. Raises `RecipeError`."""
    facts = replace(facts, has_importance=old.imatrix is not None)
    kept = {field: getattr(old, field) for field in ("imatrix", "effort", "calibration", "output")}
    return with_pins(planner.recipe_of(name, facts).model_copy(update=kept), old)


def preset_size(old: Recipe, name: str, export: ExportSummary, planner: Planner) -> PresetSize:
    """What a preset laid over `old` would come to. `planner`: of the export's tensors."""
    try:
        recipe = preset_over(old, name, export.facts, planner)
        plan = planner.plan(recipe)
        size = export.file_bytes(plan, recipe.output.options)
    except RecipeError as error:
        return PresetSize(preset=name, reason=str(error))
    return PresetSize(preset=name, bytes=size, bpw=plan.bits_per_weight)
