"""The recipe for a checkpoint: a preset's or a file's, with what the command line sets on top."""

from collections.abc import Collection, Sequence
from pathlib import Path

from gguf import MODEL_ARCH_NAMES
from pydantic import ValidationError

from engine.api.errors import RecipeError
from engine.api.metadata import MOST_TEXT, full_key, full_keys
from engine.api.plan import Plannable, Planner
from engine.api.presets import ModelFacts, preset_name
from engine.api.recipe import GgufOptions, Recipe, Rule, load_recipe
from engine.api.wording import demand, shown
from engine.checkpoint import Checkpoint
from engine.checkpoint.names import gguf_architecture
from engine.export.gguf.plan import export_tensors


def model_facts(
    checkpoint: Checkpoint, tensors: Sequence[Plannable], *, has_importance: bool = False
) -> ModelFacts:
    """What presets must know of this checkpoint, and of the `tensors` that are exported of it."""
    experts = {tensor.expert for tensor in checkpoint.tensors.values() if tensor.expert is not None}
    stacked = [t.shape[0] for t in checkpoint.tensors.values() if t.role == "expert" and len(t.shape) == 3]
    known = gguf_architecture(checkpoint.architecture) if checkpoint.architecture else None
    return ModelFacts(
        architecture=MODEL_ARCH_NAMES[known] if known else checkpoint.architecture or "",
        blocks=_stated(checkpoint, "block_count") or checkpoint.blocks,
        experts=_stated(checkpoint, "expert_count") or len(experts) or max(stacked, default=0),
        tied=not any(tensor.name == "output.weight" for tensor in tensors),
        has_importance=has_importance,
        group=_group(checkpoint),
    )


def _stated(checkpoint: Checkpoint, key: str) -> int | None:
    """A whole number of a GGUF's metadata; blocks without a tensor count as well."""
    value = checkpoint.metadata.get(f"{checkpoint.architecture}.{key}")
    return value.value if value is not None and type(value.value) is int else None


def _group(checkpoint: Checkpoint) -> int:
    """Query heads that share one key head, as far as the metadata or the config tell; else 1."""
    if checkpoint.kind == "gguf":
        prefix = f"{checkpoint.architecture}.attention."
        found = (checkpoint.metadata.get(prefix + key) for key in ("head_count", "head_count_kv"))
        heads, keys = (_first(value.value) if value else None for value in found)
    else:
        config = checkpoint.config or {}
        heads = next((config[key] for key in ("num_attention_heads", "n_head") if config.get(key)), None)
        spelled = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
        keys = next((config[key] for key in spelled if config.get(key)), None)
        if config.get("multi_query") and not config.get("new_decoder_architecture"):
            keys = 1  # Falcon 7B, whatever its number of key heads says
    if not (type(heads) is int and type(keys) is int and 0 < keys <= heads):
        return 1
    return heads // keys


def _first(value: object) -> object:
    """Of a list by block, as llama.cpp's presets look at it, the first block's."""
    return value[0] if isinstance(value, list) and value else value


def recipe_for_preset(checkpoint: Checkpoint, preset: str, *, has_importance: bool = False) -> Recipe:
    """The recipe that `preset` means for this checkpoint."""
    tensors = export_tensors(checkpoint)
    facts = model_facts(checkpoint, tensors, has_importance=has_importance)
    return Planner(tensors).recipe_of(preset, facts)


def asked_recipe(
    checkpoint: Checkpoint, preset: str | None, recipe: Path | None, imatrix: Path | None
) -> Recipe | None:
    """What --preset, --recipe and --imatrix mean together; None where none is given. Raises RecipeError."""
    if preset is not None and recipe is not None:
        raise RecipeError("Give --preset or --recipe, not both.")
    if recipe is not None:
        return with_importance(load_recipe(recipe), imatrix)
    if preset is not None:
        found = recipe_for_preset(checkpoint, preset_name(preset), has_importance=imatrix is not None)
        return with_importance(found, imatrix)
    if imatrix is not None:
        raise RecipeError("--imatrix weighs what a recipe does: name one with --preset or --recipe.")
    return None


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
                rules.append(Rule(match=role, format=name).from_option(option))
            except ValidationError as error:
                raise _refused(option, error) from None
    return recipe.model_copy(update={"rules": rules})


def with_tensor_types(recipe: Recipe, asked: list[str]) -> Recipe:
    """`recipe` with "PATTERN=FORMAT" rules on top, in their order; PATTERN as a rule's `match`."""
    rules = list(recipe.rules)
    for text in asked:
        match, equals, name = text.rpartition("=")
        if not (equals and match and name):
            raise RecipeError(
                f"--tensor-type: write PATTERN=FORMAT, such as ffn_down=Q6_K, not {shown(text)}."
            )
        try:
            rules.append(Rule(match=match, format=name).from_option("--tensor-type"))
        except ValidationError as error:
            raise _refused("--tensor-type", error) from None
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


def with_options(recipe: Recipe, **options: object) -> Recipe:
    """`recipe` with these options of its GGUF output, those that are not None."""
    given = {name: value for name, value in options.items() if value is not None}
    kept = recipe.output.options.model_dump(exclude_none=True)
    try:
        output = recipe.output.model_copy(update={"options": GgufOptions.model_validate(kept | given)})
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--" + str(fault["loc"][0]).replace("_", "-")
        own = fault["type"] == "value_error"
        said = str(fault["ctx"]["error"]) if own else demand(fault["msg"]) or fault["msg"]
        said = said.removeprefix(f"{fault['loc'][0]}: ")
        raise RecipeError(f"{option}: {said[0].lower()}{said[1:]}.") from None
    return recipe.model_copy(update={"output": output})


def with_metadata(recipe: Recipe, asked: list[str], known: Collection[str] = ()) -> Recipe:
    """`recipe` with "KEY=VALUE" edits of metadata; "KEY=@FILE" takes a file's text, "KEY=" leaves it out.

    `known`: the keys of the file that is quantized.
    """
    edits = full_keys(recipe.output.options.metadata, known)
    for text in asked:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--metadata: write KEY=VALUE, such as author=Me, not {shown(text)}.")
        edits[full_key(key, known)] = _content(Path(value[1:])) if value.startswith("@") else value
    return with_options(recipe, metadata=full_keys(edits, known))


def _content(file: Path) -> str:
    """The text of a file that becomes a value. Raises RecipeError."""
    try:
        if file.stat().st_size > 4 * MOST_TEXT:
            raise RecipeError(f"--metadata: {file} has {file.stat().st_size:,} bytes, too many for a value.")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--metadata: {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RecipeError(f"--metadata: {file} is not UTF-8 text.") from None


def _refused(option: str, error: ValidationError) -> RecipeError:
    said = str(error.errors()[0]["ctx"]["error"])
    return RecipeError(f"{option}: {said}{'' if said.endswith('?') else '.'}")
