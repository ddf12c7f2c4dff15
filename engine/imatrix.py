"""Importance matrices read to be seen or merged: one or several, alone or held against a model."""

from collections.abc import Sequence
from pathlib import Path

from engine.api.importance import ImportanceSummary
from engine.api.plan import make_plan
from engine.api.recipe import Choice, Recipe
from engine.calibration.fitting import fit
from engine.calibration.importance import Importance, merged
from engine.calibration.importance_files import losses, read_importance, write_importance
from engine.calibration.statistics import summarize
from engine.checkpoint import open_checkpoint
from engine.export.gguf import plan_export
from engine.jobs.partial import check_place

QUANTIZED = Recipe(default=Choice(format="Q4_0"))
"""Any that quantizes whatever can be: to know which tensors a matrix should know."""


def read_all(files: Sequence[Path]) -> Importance:
    """The matrix of all `files`. Raises `CheckpointError`, and `CalibrationError` where they do not fit."""
    return merged([read_importance(file) for file in files], [str(file) for file in files])


def save(
    files: Sequence[Path], output: Path, *, spared: Sequence[Path] = (), overwrite: bool
) -> tuple[int, list[str]]:
    """Write the matrix of all `files` to `output`, never over one of them or of `spared`.

    Its bytes, and sentences about what the file cannot hold. Raises as `read_all`, and `OutputError`.
    """
    check_place(output, [*files, *spared], overwrite)
    importance = read_all(files)
    return write_importance(output, importance, overwrite=overwrite), losses(output, importance)


def summary(
    importance: Importance, files: Sequence[Path], model: str | Path | None = None
) -> ImportanceSummary:
    """What the matrix that was read from `files` says; held against `model` with warnings.

    Raises `CalibrationError` where it is another model's, and what opening and planning the model raise.
    """
    names = [str(file) for file in files]
    if model is None:
        return summarize(importance, names)
    with open_checkpoint(model) as checkpoint:
        plan = make_plan(QUANTIZED, plan_export(checkpoint).tensors)
    fitted = fit(importance, names[0], plan)
    return summarize(fitted.importance, names, fitted.warnings, len(importance.entries))
