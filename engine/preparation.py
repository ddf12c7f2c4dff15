"""Everything about a quantization that is known before a weight is read: plan, header, size, importance."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from gguf import Keys, LlamaFileType

from engine.api.errors import CalibrationError, CheckpointError, RecipeError
from engine.api.formats import FORMATS
from engine.api.importance import ImportanceFacts, importance_facts, with_importance_keys
from engine.api.metadata import edited
from engine.api.mixtures import preset_recipe
from engine.api.outputs import part_path
from engine.api.plan import Plan, make_plan
from engine.api.presets import PRESETS, ModelFacts, preset_refusal
from engine.api.recipe import Recipe
from engine.api.units import size
from engine.calibration.fitting import fit
from engine.calibration.importance import Entry, Importance
from engine.calibration.importance_files import read_importance
from engine.checkpoint import Checkpoint
from engine.export.gguf import Export, Part, make_parts, plan_export
from engine.export.gguf.edits import broken_templates, remarks_on_edits
from engine.recipes import model_facts

FILE_TYPES = {
    "F32": "ALL_F32",
    "Q3_K": "MOSTLY_Q3_K_M",
    "Q4_K": "MOSTLY_Q4_K_M",
    "Q5_K": "MOSTLY_Q5_K_M",
    "MXFP4": "MOSTLY_MXFP4_MOE",
}
"""llama.cpp's names of files for presets and formats where they are not "MOSTLY_" and their own."""


def header_unit(index: int) -> str:
    """The unit of work beside the tensors of part `index`, from 0."""
    return "header" if index == 0 else f"header {index + 1}"


@dataclass
class Prepared:
    """Everything about a quantization that is known before a weight is read.

    `parts`: the output's files; `importance`: sums by tensor, a row for each matrix, of those that it weighs.
    """

    checkpoint: Checkpoint
    export: Export
    plan: Plan
    parts: list[Part]
    importance: dict[str, Entry]
    imatrix: Path | None

    @property
    def inputs(self) -> list[Path]:
        """Every file that must not be written over: weights, config, tokenizer, importance matrix."""
        files = list(self.checkpoint.files)
        if self.checkpoint.kind != "gguf":
            beside = self.checkpoint.folder.iterdir()
            files += [path for path in beside if path.is_file() and path.suffix != ".gguf"]
        return files + ([self.imatrix] if self.imatrix else [])

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self.parts)

    @property
    def header(self) -> bytes:
        """That of the first file, which holds all metadata."""
        return self.parts[0].header

    def files(self, output: Path) -> list[Path]:
        """The files of an output of this name, in order."""
        return [part_path(output, index, len(self.parts)) for index in range(len(self.parts))]

    def places(self, index: int) -> dict[str, tuple[int, int]]:
        """Where each unit of work lies in the file of a part: name -> (offset, bytes)."""
        part = self.parts[index]
        sizes = {tensor.name: tensor.bytes for tensor in self.plan.tensors}
        tensors = {name: (offset, sizes[name]) for name, offset in part.offsets.items()}
        return {header_unit(index): (0, len(part.header)), **tensors}


def prepare(checkpoint: Checkpoint, recipe: Recipe) -> Prepared:
    """Plan the output of `recipe` on `checkpoint`, its size to the byte by the writer's own header code."""
    options = recipe.output.options
    export = plan_export(checkpoint, options.pre_tokenizer)
    importance = read_recipes_importance(recipe)
    plan = make_plan(recipe, export.tensors, recipes_facts(recipe, importance))
    export.metadata = with_importance_keys(export.metadata, plan.metadata)
    remarks = remarks_on_edits(export, options.metadata)
    export.metadata = edited(export.metadata, options.metadata)
    plan.warnings.extend([*export.notes, *remarks, *broken_templates(export.metadata)])
    if recipe.calibration:
        plan.warnings.append("the recipe's calibration text is not used: none of its methods needs one")
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    facts = model_facts(checkpoint, export.tensors, has_importance=recipe.imatrix is not None)
    file_type = _file_type(plan, export, facts, _stated_type(checkpoint))
    parts = make_parts(export, formats, file_type, options.split_max_size)
    plan.warnings.extend(_too_large(parts, options.split_max_size))
    entries = recipes_entries(recipe, importance, plan)
    imatrix = Path(recipe.imatrix) if recipe.imatrix else None
    return Prepared(checkpoint, export, plan, parts, entries, imatrix)


def _too_large(parts: list[Part], most: int | None) -> list[str]:
    """A sentence for files beyond the size that was asked for: a tensor is never cut in two."""
    if most is None or not (large := [part for part in parts if part.size > most]):
        return []
    name, *others = large[0].offsets
    what = f"{name} alone takes" if not others else "its metadata and first tensor take"
    return [f"{len(large)} of {len(parts)} files are larger than {size(most)}: {what} {size(large[0].size)}"]


def read_recipes_importance(recipe: Recipe) -> Importance | None:
    """The importance matrix that a recipe names, if it does. Raises RecipeError."""
    if not recipe.imatrix:
        return None
    try:
        return read_importance(Path(recipe.imatrix))
    except CheckpointError as error:
        raise RecipeError(f"The importance matrix cannot be read: {error}") from None
    except CalibrationError as error:
        raise RecipeError(str(error)) from None


def recipes_facts(recipe: Recipe, importance: Importance | None) -> ImportanceFacts | None:
    """What plans must know of the recipe's importance matrix."""
    if importance is None or recipe.imatrix is None:
        return None
    known = importance.entries
    return importance_facts(recipe.imatrix, known, importance.datasets, len(known), importance.chunks)


def recipes_entries(recipe: Recipe, importance: Importance | None, plan: Plan) -> dict[str, Entry]:
    """The recipe's importance of the tensors that it weighs; `plan` is warned of what is missing.

    Raises RecipeError where it is another model's.
    """
    if importance is None or recipe.imatrix is None:
        return {}
    try:
        fitted = fit(importance, recipe.imatrix, plan)
    except CalibrationError as error:
        raise RecipeError(str(error)) from None
    plan.warnings.extend(fitted.warnings)
    entries = fitted.importance.entries
    weighed = [tensor.name for tensor in plan.tensors if tensor.weighed]
    return {name: entries[name] for name in weighed if name in entries}


def _file_type(plan: Plan, export: Export, facts: ModelFacts, stated: int | None) -> int:
    """llama.cpp's `general.file_type`: `stated` by the source if all is as it was, else the nearest preset's.

    That is the one that gives most of the weights the formats that they have, or the commonest format's.
    """
    if stated is not None and all(tensor.copied or tensor.kept for tensor in plan.tensors):
        return stated
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        if tensor.format in FORMATS:
            weights[tensor.format] += prod(tensor.shape)
    nearest, most = weights.most_common(1)[0][0] if weights else "F32", 0
    for name, preset in PRESETS.items():
        if preset.format not in weights or preset_refusal(name, facts):
            continue
        others = make_plan(preset_recipe(name, facts, export.tensors), export.tensors)
        pairs = zip(plan.tensors, others.tensors, strict=True)
        alike = sum(prod(ours.shape) for ours, its in pairs if ours.format == its.format and not ours.kept)
        if alike > most:
            nearest, most = name, alike
    return LlamaFileType[FILE_TYPES.get(nearest, f"MOSTLY_{nearest}")].value


def _stated_type(checkpoint: Checkpoint) -> int | None:
    stated = checkpoint.metadata.get(Keys.General.FILE_TYPE)
    if stated is None or type(stated.value) is not int or not 0 <= stated.value < 1 << 32:
        return None
    return stated.value
