"""Everything about a quantization that is known before a weight is read: plan, header, size, importance."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import LlamaFileType

from engine.api.errors import CalibrationError, CheckpointError, RecipeError
from engine.api.formats import FORMATS
from engine.api.plan import Plan, make_plan
from engine.api.recipe import Recipe
from engine.calibration.fitting import fit
from engine.calibration.importance_files import read_importance
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
    export = plan_export(checkpoint)
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
        fitted = fit(read_importance(Path(recipe.imatrix)), recipe.imatrix, plan)
    except CheckpointError as error:
        raise RecipeError(f"The importance matrix cannot be read: {error}") from None
    except CalibrationError as error:
        raise RecipeError(str(error)) from None
    plan.warnings.extend(fitted.warnings)
    entries = fitted.importance.entries
    lossy = [tensor.name for tensor in plan.tensors if not (tensor.kept or FORMATS[tensor.format].exact)]
    return {name: entries[name].means() for name in lossy if name in entries}


def _file_type(plan: Plan) -> int:
    """llama.cpp's `general.file_type`: the format of most weights; k-quants count as _M mixtures."""
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        weights[tensor.format] += prod(tensor.shape)
    name = weights.most_common(1)[0][0]
    return LlamaFileType[FILE_TYPES.get(name, f"MOSTLY_{name}")].value
