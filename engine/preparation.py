"""Everything about a quantization that is known before a weight is read: plan, header, size, importance."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import LlamaFileType

from engine.api.errors import CheckpointError, RecipeError
from engine.api.formats import FORMATS
from engine.api.model import Role
from engine.api.plan import Plan, make_plan
from engine.api.recipe import Recipe
from engine.calibration.importance import read_importance
from engine.checkpoint import Checkpoint
from engine.export.gguf import Export, header, plan_export

FILE_TYPES = {
    "F32": "ALL_F32",
    "Q3_K": "MOSTLY_Q3_K_M",
    "Q4_K": "MOSTLY_Q4_K_M",
    "Q5_K": "MOSTLY_Q5_K_M",
    "MXFP4": "MOSTLY_MXFP4_MOE",
}
"""llama.cpp's names of files for formats where they are not the format's own."""

HEADER = "header"
"""The unit of work beside the tensors."""


@dataclass
class Prepared:
    """Everything about a quantization that is known before a weight is read. `size` of the file, bytes."""

    checkpoint: Checkpoint
    export: Export
    plan: Plan
    header: bytes
    offsets: dict[str, int]
    size: int
    importance: dict[str, np.ndarray]
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
    def places(self) -> dict[str, tuple[int, int]]:
        """Where each unit of work lies in the file: name -> (offset, bytes)."""
        tensors = {tensor.name: (self.offsets[tensor.name], tensor.bytes) for tensor in self.plan.tensors}
        return {HEADER: (0, len(self.header)), **tensors}


def prepare(checkpoint: Checkpoint, recipe: Recipe) -> Prepared:
    """Plan the output of `recipe` on `checkpoint`, its size to the byte by the writer's own header code."""
    export = plan_export(checkpoint, recipe.output.options.pre_tokenizer)
    plan = make_plan(recipe, export.tensors)
    plan.warnings.extend(export.notes)
    if recipe.calibration:
        plan.warnings.append("the recipe's calibration text is not used: none of its methods needs one")
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    head, offsets, size = header(export, formats, _file_type(plan))
    importance = _importance(recipe, plan)
    imatrix = Path(recipe.imatrix) if recipe.imatrix else None
    return Prepared(checkpoint, export, plan, head, offsets, size, importance, imatrix)


def _importance(recipe: Recipe, plan: Plan) -> dict[str, np.ndarray]:
    """The recipe's importance by tensor, float32 [matrices, columns] (one matrix, or one an expert)."""
    if not recipe.imatrix:
        return {}
    try:
        importance = read_importance(Path(recipe.imatrix))
    except CheckpointError as error:
        raise RecipeError(f"The importance matrix cannot be read: {error}") from None
    matrices = [tensor for tensor in plan.tensors if not (tensor.kept or FORMATS[tensor.format].exact)]
    for tensor in matrices:
        found = importance.get(tensor.name)
        wanted = (prod(tensor.shape[:-2]), tensor.shape[-1])
        if found is not None and found.shape != wanted:
            raise RecipeError(
                f"{recipe.imatrix}: {tensor.name} has {found.shape[0]} × {found.shape[1]} values, "
                f"the model needs {wanted[0]} × {wanted[1]}; it was made for another model."
            )
    if not any(tensor.name in importance for tensor in plan.tensors):
        raise RecipeError(f"{recipe.imatrix}: names no tensor of this model; it was made for another one.")
    without = [
        t for t in matrices if t.name not in importance and t.role not in (Role.EMBEDDING, Role.OUTPUT)
    ]
    if without:
        plan.warnings.append(
            f"the importance matrix says nothing of {len(without)} tensors ({without[0].name}, …)"
        )
    return importance


def _file_type(plan: Plan) -> int:
    """llama.cpp's `general.file_type`: the format of most weights; k-quants count as _M mixtures."""
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        weights[tensor.format] += prod(tensor.shape)
    name = weights.most_common(1)[0][0]
    return LlamaFileType[FILE_TYPES.get(name, f"MOSTLY_{name}")].value
