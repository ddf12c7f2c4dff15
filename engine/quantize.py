"""A recipe applied to a checkpoint, as a job: refused, run, measured, resumed. `writing` makes the file."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from engine.api.errors import ChangedError, MemoryLimitError, OutputError, UserError
from engine.api.events import Artifact
from engine.api.jobs import QuantizeRequest, QuantizeResult
from engine.api.needs import Needs
from engine.api.outputs import OTHERS, partials_of
from engine.api.progress import Listener, silent
from engine.api.report import Report
from engine.checkpoint import open_checkpoint
from engine.earlier_outputs import about_earlier, give_way
from engine.estimate import UNMEASURED, needs, refuse_memory, refuse_needs
from engine.jobs.errors import explained
from engine.jobs.fingerprint import Unchanged, digest, fingerprint
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.partial import check_place, check_room
from engine.jobs.running import Running, Tell, nobody, refuse_changed, run
from engine.measuring import measure, measuring_facts, refuse_text, tell_figures
from engine.output_files import published, seem_published, unpublished
from engine.preparation import Prepared, prepare
from engine.writing import load_kernels, write
from kernels.compiled import source_digest

MEASURING = {"start": "load model code", "measure": "evaluate"}
WRITING = {"check": "check weights", "encode": "quantize", "verify": "verify"}
"""The stages of an estimate, by the name that they have in progress."""

log = logging.getLogger(__name__)


def quantize(
    request: QuantizeRequest, listener: Listener = silent, tell: Tell = nobody, *, replacing: str = ""
) -> QuantizeResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed.

    `replacing`: the id of an unfinished job on the same output that is given up for this one.
    """
    request = _absolute(request)
    output = Path(request.output)
    with open_checkpoint(request.model) as checkpoint:
        sources = Unchanged(checkpoint.files)
        prepared = prepare(checkpoint, request.recipe)
        if replacing and seem_published(Job.find(replacing), prepared, output):
            request = request.model_copy(update={"overwrite": True})  # the file is that job's own
        least = refuse(request, prepared, replacing).least_memory
        _make_folders(request)
        rivals = jobs_writing(output)
        job = Job.create(request, output, _fingerprint(prepared, request), rivals, least)
        return _run(job, prepared, sources, request, listener, tell)


def go_on(job: Job, request: QuantizeRequest, listener: Listener, tell: Tell) -> QuantizeResult:
    """Finish a locked job; the file is as if it had never been broken off. Raises `UserError`s."""
    with open_checkpoint(request.model) as checkpoint:
        sources = Unchanged(checkpoint.files)
        prepared = prepare(checkpoint, request.recipe)
        refuse_changed(job, _fingerprint(prepared, request))
        output, remedy = Path(request.output), "move it away, then resume"
        refuse_memory(needs(prepared, request, UNMEASURED))
        missing = unpublished(job, prepared, output)
        for file in missing:
            check_place(
                file,
                _inputs(prepared, request),
                request.overwrite,
                remedy,
                make_folders=request.make_folders,
            )
        if missing:
            check_room(output, prepared.size)
            _make_folders(request)
        return _run(job, prepared, sources, request, listener, tell)


def _absolute(request: QuantizeRequest) -> QuantizeRequest:
    """The request with paths that mean the same from any folder: it may be resumed from another one."""
    changes: dict[str, object] = {"model": _path(request.model), "output": _path(request.output)}
    if request.recipe.imatrix:
        changes["recipe"] = request.recipe.model_copy(update={"imatrix": _path(request.recipe.imatrix)})
    if request.measure:
        changes["measure"] = request.measure.model_copy(update={"text": _path(request.measure.text)})
    return request.model_copy(update=changes)


def _path(path: str) -> str:
    return str(Path(path).absolute())


def refuse(request: QuantizeRequest, prepared: Prepared, replacing: str = "") -> Needs:
    """What a job of this request takes, but for its time; raises the error that it would end with at once."""
    refuse_place(request, prepared, replacing)
    check_room(Path(request.output), prepared.size)
    if request.measure:
        refuse_text(request.measure, prepared.checkpoint)
    found = needs(prepared, request, UNMEASURED)
    refuse_needs(found)
    return found


def refuse_place(request: QuantizeRequest, prepared: Prepared, replacing: str = "") -> None:
    """Raise an `OutputError` where the output must not be written: also where another job's work is in it."""
    output = Path(request.output).absolute()
    for job in jobs_writing(output):
        summary = job.summary()
        if summary.state == "running":
            raise OutputError(f"{output}: job {job.id} is writing it; wait for it, or choose another name.")
        kept = summary.saved and partials_of(output)
        if kept and not request.overwrite and job.id != replacing:
            raise OutputError(
                f"{output}: job {job.id} has written {summary.saved} of it; "
                f"resume it (`bitwright resume {job.id}`), or replace what it has written (--overwrite)."
            )
    for file in prepared.files(output):
        check_place(file, _inputs(prepared, request), request.overwrite, make_folders=request.make_folders)
    refuse_name(output)


def _make_folders(request: QuantizeRequest) -> None:
    if request.make_folders:
        folder = Path(request.output).parent
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _inputs(prepared: Prepared, request: QuantizeRequest) -> list[Path]:
    """Every file that must not be written over."""
    return prepared.inputs + ([Path(request.measure.text)] if request.measure else [])


def _fingerprint(prepared: Prepared, request: QuantizeRequest) -> dict[str, str]:
    files = list(prepared.checkpoint.files)
    if prepared.imatrix:
        files.append(prepared.imatrix)
    facts = {
        "recipe": digest(request.recipe.to_json()),
        "config or tokenizer": digest(prepared.header),
        "encoders": source_digest(),
    }
    if request.measure:
        facts |= measuring_facts(request.measure)
    return fingerprint(files, facts, _threads(request))


def _threads(request: QuantizeRequest) -> int:
    return request.threads or len(os.sched_getaffinity(0))


def _run(
    job: Job,
    prepared: Prepared,
    sources: Unchanged,
    request: QuantizeRequest,
    listener: Listener,
    tell: Tell,
) -> QuantizeResult:
    def work(running: Running) -> QuantizeResult:
        return _work(running, prepared, request)

    return run(job, sources, work, listener, tell, request.memory_limit)


def _work(work: Running, prepared: Prepared, request: QuantizeRequest) -> QuantizeResult:
    """Write the output where that is still to be done, then measure it where that was asked for."""
    output = Path(request.output)
    _log_plan(prepared, request)
    for warning in prepared.plan.warnings:
        work.warn(warning)
    if published(work.job, prepared, output, work.listener):
        work.foresee(lambda: _stages(prepared, request, {}))
    else:
        load_kernels(prepared.plan, work.listener)
        work.foresee(lambda: _stages(prepared, request, WRITING))
        write(work, prepared, output, _threads(request), overwrite=request.overwrite)
    files = prepared.files(output)
    tidied = give_way(prepared, output, _inputs(prepared, request), overwrite=request.overwrite)
    for text in [*_about_name(files[0]), *tidied]:
        work.warn(text)
    log.info("%s: %s bytes, read back and verified", files[0], f"{prepared.size:,}")
    work.tell(Artifact(path=str(files[0])))
    report = _measure(work, request, files[0])
    source = prepared.checkpoint.summary()
    return QuantizeResult(
        job=work.job.id,
        output=str(files[0]),
        files=[str(file) for file in files],
        bytes=prepared.size,
        predicted_bytes=prepared.size,
        bpw=prepared.plan.bits_per_weight,
        seconds=work.seconds,
        resumed=work.resumed,
        peak_private_bytes=work.guard.peak,
        warnings=work.warnings,
        source_bytes=source.bytes,
        source_bpw=8 * source.bytes / max(1, source.parameters),
        report=report,
    )


def refuse_name(output: Path) -> None:
    """Raise an `OutputError` for a name that says that the file is something else than GGUF."""
    if output.suffix.lower() in OTHERS:
        raise OutputError(
            f"{output}: is the name of another kind of file; a GGUF file is written, such as "
            f"{output.with_suffix('.gguf').name}."
        )


def about_output(request: QuantizeRequest, prepared: Prepared) -> list[str]:
    """Sentences to read before the output is written."""
    output = Path(request.output).absolute()
    earlier = about_earlier(prepared, output, _inputs(prepared, request), overwrite=request.overwrite)
    return [*_about_name(prepared.files(output)[0]), *earlier]


def _about_name(file: Path) -> list[str]:
    """A sentence for a name that programs may not take for that of a GGUF file."""
    if file.suffix.lower() == ".gguf":
        return []
    return [f"{file.name} does not end in .gguf: programs that look for models may pass it over"]


def _stages(
    prepared: Prepared, request: QuantizeRequest, stages: Mapping[str, str]
) -> dict[str, float | None]:
    """How long each of `stages`, and then measuring, takes on this machine, by its name in progress."""
    estimated = {stage.name: stage.seconds for stage in needs(prepared, request).stages}
    wanted = [*stages.items(), *(MEASURING.items() if request.measure else ())]
    return {name: estimated[stage] for stage, name in wanted}


def _measure(work: Running, request: QuantizeRequest, output: Path) -> Report | None:
    """The loss against the source if it was asked for; a reason why there is none becomes a warning."""
    if request.measure is None:
        return None
    try:
        report = measure(
            work,
            request.measure,
            output,
            Path(request.model),
            request.threads,
            request.recipe.output.options.pre_tokenizer,
        )
    except (MemoryLimitError, OutputError, ChangedError):  # it can be resumed
        raise
    except UserError as error:
        work.warn(f"The loss could not be measured: {error}")
        return None
    tell_figures(work, report)
    return report


def _log_plan(prepared: Prepared, request: QuantizeRequest) -> None:
    formats = Counter(tensor.format for tensor in prepared.plan.tensors)
    counts = ", ".join(f"{count} {name}" for name, count in formats.most_common())
    log.info("quantize %s to %s", request.model, request.output)
    log.info(
        "%s bytes, %.4g bits per weight, %d threads, tensors: %s",
        f"{prepared.size:,}", prepared.plan.bits_per_weight, _threads(request), counts,
    )  # fmt: skip
