"""The recipe for a checkpoint: a preset's or a file's, with what the command line sets on top."""

from pathlib import Path

from pydantic import ValidationError

from engine.api.errors import RecipeError
from engine.api.presets import ModelFacts, preset_recipe
from engine.api.recipe import Recipe, Rule
from engine.checkpoint import Checkpoint


def model_facts(checkpoint: Checkpoint, *, has_importance: bool = False) -> ModelFacts:
    """What presets must know of this checkpoint."""
    experts = {tensor.expert for tensor in checkpoint.tensors.values() if tensor.expert is not None}
    stacked = [t.shape[0] for t in checkpoint.tensors.values() if t.role == "expert" and len(t.shape) == 3]
    return ModelFacts(
        architecture=checkpoint.architecture or "",
        blocks=checkpoint.blocks,
        experts=len(experts) or max(stacked, default=0),
        tied=checkpoint.tied,
        has_importance=has_importance,
    )


def recipe_for_preset(checkpoint: Checkpoint, preset: str, *, has_importance: bool = False) -> Recipe:
    """The recipe that `preset` means for this checkpoint."""
    return preset_recipe(preset, model_facts(checkpoint, has_importance=has_importance))


def with_types(recipe: Recipe, tied: bool, output: str | None, embedding: str | None) -> Recipe:
    """`recipe` with the formats of the output and embedding tensors set, as rules that win.

    A tied model has one tensor for both: either names it, and two different formats are refused.
    """
    if tied and output and embedding and output.upper() != embedding.upper():
        raise RecipeError(
            "This model's output and embedding are one tensor (tied): give --output-tensor-type and "
            "--token-embedding-type the same type, or only one of them."
        )
    rules = list(recipe.rules)
    for option, role, name in (
        ("--token-embedding-type", "embedding", embedding),
        ("--output-tensor-type", "embedding" if tied else "output", output),
    ):
        if name:
            try:
                rules.append(Rule(match=role, format=name))
            except ValidationError as error:
                raise _refused(option, error) from None
    return recipe.model_copy(update={"rules": rules})


def with_importance(recipe: Recipe, imatrix: Path | None) -> Recipe:
    """`recipe` with this importance matrix, if one is given."""
    return recipe if imatrix is None else recipe.model_copy(update={"imatrix": str(imatrix.absolute())})


def with_effort(recipe: Recipe, effort: str | None) -> Recipe:
    """`recipe` with this effort, if one is given."""
    if effort is None:
        return recipe
    try:
        return Recipe.model_validate(recipe.model_dump() | {"effort": effort})
    except ValidationError as error:
        raise _refused("--effort", error) from None


def with_pre_tokenizer(recipe: Recipe, name: str | None) -> Recipe:
    """`recipe` with this name of a pre-tokenizer, if one is given."""
    if name is None:
        return recipe
    options = recipe.output.options.model_copy(update={"pre_tokenizer": name})
    return recipe.model_copy(update={"output": recipe.output.model_copy(update={"options": options})})


def _refused(option: str, error: ValidationError) -> RecipeError:
    said = str(error.errors()[0]["ctx"]["error"])
    return RecipeError(f"{option}: {said}{'' if said.endswith('?') else '.'}")
