"""The command line that does what a job of the window does: it stands by itself, without the job's folder."""

import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from app.job_record import JobRecord
from app.state import State
from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_EFFORT, DEFAULT_METHOD
from engine.api.jobs import (
    ActivationsRequest,
    CalibrateRequest,
    EvaluateRequest,
    PresetStart,
    QuantizeRequest,
)
from engine.api.metadata import Edit
from engine.api.preset_sizes import preset_over
from engine.api.presets import preset_name
from engine.api.recipe import Recipe, Rule

MOST_TYPES = 12
"""Options for single tensors; a recipe with more is better said by its file."""

MOST_LETTERS = 200
"""Of a value of the metadata; one that is longer, or has several lines, is better said by the file, too."""


def command_of(record: JobRecord) -> str:
    """The command line that does the same, to paste into a shell; empty for a job that never began.

    It replaces a file only where the job was told to. Where options cannot say its recipe, it reads
    `recipe_file`, which may not be there yet.
    """
    request = record.request
    if request is None or not record.job:
        return ""
    if isinstance(request, QuantizeRequest):
        words = _quantize_words(record, request)
    elif isinstance(request, CalibrateRequest):
        words = _calibrate_words(request)
    elif isinstance(request, ActivationsRequest):
        words = _stats_words(request)
    else:
        words = _evaluate_words(request)
    if request.threads:
        words += ["--threads", str(request.threads)]
    if request.memory_limit:
        words += ["--memory-limit", str(request.memory_limit)]
    return shlex.join([program(), *words])


def recipe_file(record: JobRecord) -> Path | None:
    """The file beside the output that the command reads the recipe from; None where options say it."""
    request = record.request
    if not (record.job and isinstance(request, QuantizeRequest)) or _recipe_words(request) is not None:
        return None
    return Path(f"{request.output.removesuffix('.gguf')}.recipe.json")


def preset_start(state: State, recipe: Recipe) -> PresetStart | None:
    """The preset that `recipe` is for the open model, with rules on top; None where it is none."""
    version = state.document.version
    if version is None or state.export is None or state.planner is None:
        return None
    try:
        name = preset_name(version.name)
        plain = preset_over(recipe.model_copy(update={"rules": []}), name, state.export.facts, state.planner)
    except RecipeError:
        return None
    count = len(plain.rules)
    same = plain.default == recipe.default and plain.rules == recipe.rules[:count]
    return PresetStart(name=name, rules=count) if same else None


def _quantize_words(record: JobRecord, request: QuantizeRequest) -> list[str]:
    said = _recipe_words(request)
    recipe = ["--recipe", str(recipe_file(record))] if said is None else said
    words = ["quantize", request.model, *recipe, "--out", request.output]
    if request.measure:
        words += ["--measure", request.measure.text]
        if request.measure.windows:
            words += ["--windows", str(request.measure.windows)]
    if request.overwrite:
        words.append("--overwrite")
    return words


def _recipe_words(request: QuantizeRequest) -> list[str] | None:
    """The recipe as options; None where they cannot say it."""
    recipe, start = request.recipe, request.preset
    if start is None or recipe.calibration is not None:
        return None
    types, edits = recipe.rules[start.rules :], recipe.output.options.metadata
    if len(types) > MOST_TYPES or not all(map(_can_be_said, types)):
        return None
    if not all(map(_can_be_typed, edits.values())):
        return None
    words = ["--preset", start.name]
    for rule in types:
        words += ["--tensor-type", f"{rule.match}={rule.format}"]
    if recipe.imatrix:
        words += ["--imatrix", recipe.imatrix]
    if recipe.effort != DEFAULT_EFFORT:
        words += ["--effort", recipe.effort]
    options = recipe.output.options
    if options.split_max_size:
        words += ["--split-max-size", str(options.split_max_size)]
    if options.pre_tokenizer:
        words += ["--pre-tokenizer", options.pre_tokenizer]
    for key, value in edits.items():
        words += ["--metadata", f"{key}={value}"]
    return words


def _can_be_said(rule: Rule) -> bool:
    return rule.blocks is None and rule.method == DEFAULT_METHOD and not rule.params


def _can_be_typed(value: Edit) -> bool:
    """`@` stands for a file."""
    if not isinstance(value, str) or value.startswith("@"):
        return False
    return len(value) <= MOST_LETTERS and "\n" not in value


def _calibrate_words(request: CalibrateRequest) -> list[str]:
    words = ["calibrate", request.model, "--out", request.output, "--length", str(request.length)]
    for text in request.texts:
        words += ["--calibration", text]
    for matrix in request.merge:
        words += ["--merge", matrix]
    if request.windows:
        words += ["--windows", str(request.windows)]
    if request.output_tensor:
        words.append("--output-tensor")
    if request.overwrite:
        words.append("--overwrite")
    return words


def _stats_words(request: ActivationsRequest) -> list[str]:
    words = ["stats", request.model]
    if request.prompt:
        words.append(f"--prompt={request.prompt}")
    else:
        for text in request.texts or ["sample"]:
            words += ["--calibration", text]
        words += ["--windows", str(request.windows), "--length", str(request.length)]
        words += ["--seed", str(request.seed)]
    if request.output:
        words += ["--activations-out", request.output]
    if request.overwrite:
        words.append("--overwrite")
    return words


def _evaluate_words(request: EvaluateRequest) -> list[str]:
    words = ["evaluate", request.model, "--text", request.text, "--protocol", request.protocol]
    if request.reference:
        words += ["--reference", request.reference]
    if request.windows:
        words += ["--windows", str(request.windows)]
    return words


@cache
def program() -> str:
    """What a shell finds: `bitwright`, or the whole path of ours where that is none or another one."""
    ours = Path(sys.executable).with_name("bitwright")
    if not ours.exists() or Path(shutil.which("bitwright") or "") == ours:
        return "bitwright"
    return str(ours)
