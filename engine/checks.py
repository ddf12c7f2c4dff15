"""What can be checked before a run, each thing with a sentence: what is wrong, where, what to do."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.api.errors import CheckpointError, ExportError, RecipeError, TokenizerError, UserError
from engine.api.jobs import Check, QuantizeRequest
from engine.api.units import size
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.jobs.partial import check_room
from engine.measuring import refuse_text
from engine.preparation import Prepared, prepare
from engine.quantize import refuse_place


def check(request: QuantizeRequest) -> list[Check]:
    """All checks of `request`, in the order of reading; what depends on a failed one is left out."""
    try:
        checkpoint = open_checkpoint(request.model)
    except CheckpointError as error:
        return [_failed("model", error)]
    with checkpoint:
        return _check_opened(request, checkpoint)


def _check_opened(request: QuantizeRequest, checkpoint: Checkpoint) -> list[Check]:
    checks = []
    try:
        prepared = prepare(checkpoint, request.recipe.model_copy(update={"imatrix": None}))
    except TokenizerError as error:
        return [_failed("tokenizer", error)]
    except (CheckpointError, ExportError) as error:
        return [_failed("architecture", error)]
    checks.append(_passed("architecture", f"{prepared.export.architecture} can be written as GGUF"))
    checks.append(_passed("tokenizer", "found, and of a kind that llama.cpp knows"))
    if request.recipe.imatrix:
        try:
            prepared = prepare(checkpoint, request.recipe)
            checks.append(_passed("importance matrix", f"{request.recipe.imatrix} fits the model"))
        except RecipeError as error:
            checks.append(_failed("importance matrix", error))
    checks += _check_recipe(prepared)
    checks += _check_output(request, prepared)
    if request.measure:
        asked = request.measure
        checks.append(
            _checked(
                "evaluation text",
                lambda: refuse_text(asked, checkpoint),
                f"{asked.text} can be read and is long enough",
            )
        )
    checks.append(
        Check(name="weights", passed=None, message="NaN and infinity are looked for during the run")
    )
    return checks


def _check_recipe(prepared: Prepared) -> list[Check]:
    """One check, or one for each warning: a recipe that does not do all it says still runs."""
    if prepared.plan.warnings:
        return [
            Check(name="recipe", passed=True, message=warning, warning=True)
            for warning in prepared.plan.warnings
        ]
    formats = Counter(tensor.format for tensor in prepared.plan.tensors)
    counts = ", ".join(f"{count} {name}" for name, count in formats.most_common())
    return [_passed("recipe", f"fits all {len(prepared.plan.tensors)} tensors: {counts}")]


def _check_output(request: QuantizeRequest, prepared: Prepared) -> list[Check]:
    output = Path(request.output).absolute()
    said = f"{output} will be replaced" if output.exists() else f"{output} can be written"
    place = _checked("output", lambda: refuse_place(request, prepared), said)
    if not place.passed:
        return [place]
    try:
        free = check_room(output, prepared.size)
    except UserError as error:
        return [place, _failed("disk", error)]
    return [place, _passed("disk", f"{size(prepared.size)} of {size(free)} free in {output.parent}")]


def _checked(name: str, look: Callable[[], None], said: str) -> Check:
    try:
        look()
    except UserError as error:
        return _failed(name, error)
    return _passed(name, said)


def _passed(name: str, message: str) -> Check:
    return Check(name=name, passed=True, message=message)


def _failed(name: str, error: UserError) -> Check:
    return Check(name=name, passed=False, message=str(error))
