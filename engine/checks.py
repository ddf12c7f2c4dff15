"""What can be checked before a run, each thing with a sentence: what is wrong, where, what to do."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.api.errors import CheckpointError, ExportError, RecipeError, TokenizerError, UserError
from engine.api.jobs import CalibrateRequest, Check, QuantizeRequest
from engine.api.needs import Needs, stage_times
from engine.api.units import rough, size
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.estimate import needs, refuse_disks, refuse_memory
from engine.measuring import refuse_text
from engine.preparation import Prepared, prepare
from engine.quantize import about_output, refuse_place


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
    except RecipeError as error:
        return [_failed("recipe", error)]
    checks.append(_passed("architecture", f"{prepared.export.architecture} can be written as GGUF"))
    checks.append(_passed("tokenizer", "found, and of a kind that llama.cpp knows"))
    if request.recipe.imatrix:
        try:
            prepared = prepare(checkpoint, request.recipe)
            checks.append(_passed("importance matrix", f"{request.recipe.imatrix} fits the model"))
        except RecipeError as error:
            checks.append(_failed("importance matrix", error))
    checks += _check_recipe(prepared)
    place = _check_place(request, prepared)
    text = _check_text(request, checkpoint)
    if any(not check.passed for check in text):
        request = request.model_copy(update={"measure": None})
    found = needs(prepared, request)
    said = about_output(request, prepared)
    checks += [Check(name="output", passed=True, message=text, warning=True) for text in said]
    checks += [place, *([_check_disks(found)] if place.passed else []), *text, *_check_machine(found)]
    checks.append(
        Check(name="weights", passed=None, message="NaN and infinity are looked for during the run")
    )
    return checks


def check_calibrate(request: CalibrateRequest) -> list[Check]:
    """The same for a calibration."""
    from engine.calibrate import absolute, foreseen, prepared_calibration, refuse_place

    request = absolute(request)
    try:
        with prepared_calibration(request) as prepared:
            said = _output_said([Path(request.output)])
            place = _checked("output", lambda: refuse_place(request, prepared), said)
            found = foreseen(request, prepared)
    except UserError as error:
        return [_failed("model and texts", error)]
    tokens = f"{found.windows * found.length:,} tokens"
    read = f"{found.windows:,} windows of {found.length:,} tokens, {tokens} in all"
    checks = [_passed("model", f"{len(found.tensors)} tensors are looked at"), _passed("texts", read)]
    checks += [Check(name="texts", passed=True, message=text, warning=True) for text in found.warnings]
    disks = [_check_disks(found.needs)] if place.passed else []
    return [*checks, place, *disks, *_check_machine(found.needs)]


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


def _check_place(request: QuantizeRequest, prepared: Prepared) -> Check:
    said = _output_said(prepared.files(Path(request.output).absolute()))
    return _checked("output", lambda: refuse_place(request, prepared), said)


def _output_said(files: list[Path]) -> str:
    there = [file for file in files if file.exists()]
    return f"{there[0]} will be replaced" if there else f"{files[0]} can be written"


def _check_text(request: QuantizeRequest, checkpoint: Checkpoint) -> list[Check]:
    asked = request.measure
    if asked is None:
        return []
    said = f"{asked.text} can be read and is long enough"
    return [_checked("evaluation text", lambda: refuse_text(asked, checkpoint), said)]


def _check_disks(found: Needs) -> Check:
    rooms = []
    for disk in found.disks:
        free = "" if disk.free is None else f" of {size(disk.free)} free"
        rooms.append(f"{size(disk.bytes)}{free} in {disk.folder}")
    return _checked("disk", lambda: refuse_disks(found), "; ".join(rooms))


def _check_machine(found: Needs) -> list[Check]:
    """Memory and time, as estimated."""
    room = "" if found.memory_available is None else f" of {size(found.memory_available)} available"
    limit = "" if found.memory_limit is None else f", limited to {size(found.memory_limit)}"
    memory = _checked("memory", lambda: refuse_memory(found), f"about {size(found.memory)}{room}{limit}")
    if found.seconds is None:
        unknown = "not known before the encoders are compiled, which the first run on this machine does"
        return [memory, Check(name="time", passed=None, message=unknown)]
    parts = ", ".join(stage_times(found.stages))
    return [memory, _passed("time", f"{rough(found.seconds)}: {parts}")]


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
