"""A recipe applied to a checkpoint, as a job: refused, run, measured, resumed. `writing` makes the file."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from engine.api.errors import JobError, OutputError, UserError
from engine.api.jobs import QuantizeRequest, QuantizeResult, State, Stopped
from engine.api.messages import Artifact, JobStarted, Metric, Warned
from engine.api.progress import Listener, Progress, silent
from engine.api.report import Report
from engine.api.units import size
from engine.checkpoint import open_checkpoint
from engine.jobs.fingerprint import differences, fingerprint
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.limits import PeakMemory
from engine.jobs.partial import (
    check_output,
    check_place,
    check_room,
    partial_path,
)
from engine.measuring import measure, refuse_text
from engine.preparation import Prepared, prepare
from engine.writing import load_kernels, published, write

Tell = Callable[[JobStarted | Warned | Artifact | Metric], None]
"""Takes what happens to a job beside its progress; must return quickly."""

METRICS = {
    "perplexity": "",
    "reference_perplexity": "",
    "kl_mean": "nats",
    "kl_p99": "nats",
    "top1_agreement": "",
}
"""The figures of a report that a job tells at once, with their units."""

log = logging.getLogger(__name__)


def nobody(event: JobStarted | Warned | Artifact | Metric) -> None:
    """The `Tell` that tells nobody."""


def quantize(request: QuantizeRequest, listener: Listener = silent, tell: Tell = nobody) -> QuantizeResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed."""
    request = _absolute(request)
    output = Path(request.output)
    with open_checkpoint(request.model) as checkpoint:
        prepared = prepare(checkpoint, request.recipe)
        refuse(request, prepared)
        rivals = jobs_writing(output)
        job = Job.create(
            "quantize",
            output,
            request.model_dump(mode="json", exclude_none=True),
            _fingerprint(prepared, request),
            total=len(prepared.plan.tensors) + 1,  # and the header
            recipe=request.recipe.to_json(),
        )
        for rival in rivals:
            rival.set_state("replaced", f"job {job.id} started over on its output")
        return _work(job, prepared, request, listener, tell)


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


def refuse(request: QuantizeRequest, prepared: Prepared) -> None:
    """Raise the error that a job of this request would end with at once, if any."""
    refuse_place(request, prepared)
    check_room(Path(request.output), prepared.size)
    if request.measure:
        refuse_text(request.measure, prepared.checkpoint)


def refuse_place(request: QuantizeRequest, prepared: Prepared) -> None:
    """Raise an `OutputError` where the output must not be written: also where another job's work is in it."""
    output = Path(request.output).absolute()
    for job in jobs_writing(output):
        summary = job.summary()
        if summary.state == "running":
            raise OutputError(f"{output}: job {job.id} is writing it; wait for it, or choose another name.")
        if summary.done and partial_path(output).exists() and not request.overwrite:
            raise OutputError(
                f"{output}: job {job.id} has written {summary.done} of {summary.total} parts of it; "
                f"resume it (`bitwright resume {job.id}`), or replace what it has written (--overwrite)."
            )
    check_place(output, _inputs(prepared, request), request.overwrite)


def _inputs(prepared: Prepared, request: QuantizeRequest) -> list[Path]:
    """Every file that must not be written over."""
    return prepared.inputs + ([Path(request.measure.text)] if request.measure else [])


def resume(job_id: str, listener: Listener = silent, tell: Tell = nobody) -> QuantizeResult:
    """Go on with an interrupted job behind its last finished tensor; the file is as if undisturbed."""
    job = Job.find(job_id)
    job.lock()
    try:
        asked = job.asked()
        state, message = job.state()
        if state == "done":
            raise JobError(f"Job {job.id} is finished already; there is nothing to resume.")
        if state == "replaced":
            raise JobError(f"Job {job.id} cannot be resumed: {message}.")
        try:
            request = QuantizeRequest.model_validate(asked.request)
        except ValidationError:
            raise JobError(f"Job {job.id} has a damaged job.json; start it again.") from None
        with open_checkpoint(request.model) as checkpoint:
            prepared = prepare(checkpoint, request.recipe)
            changed = differences(asked.fingerprint, _fingerprint(prepared, request))
            if changed:
                raise JobError(
                    f"Job {job.id} cannot be resumed, because its output would mix two states: "
                    f"{'; '.join(changed)}. Start it again with `bitwright quantize`."
                )
            if not published(job, prepared, Path(request.output)):
                output, remedy = Path(request.output), "move it away, then resume"
                check_output(output, prepared.size, _inputs(prepared, request), request.overwrite, remedy)
            return _work(job, prepared, request, listener, tell)
    finally:
        job.unlock()


def _fingerprint(prepared: Prepared, request: QuantizeRequest) -> dict[str, str]:
    files = list(prepared.checkpoint.files)
    if prepared.imatrix:
        files.append(prepared.imatrix)
    return fingerprint(files, request.recipe.to_json(), prepared.header, _threads(request))


def _threads(request: QuantizeRequest) -> int:
    return request.threads or len(os.sched_getaffinity(0))


def _work(
    job: Job, prepared: Prepared, request: QuantizeRequest, listener: Listener, tell: Tell
) -> QuantizeResult:
    """Run a locked job to its end, its state on disk whatever happens."""
    try:
        tell(JobStarted(job=job.id, folder=str(job.folder), output=request.output, log=str(job.log_path)))
        job.set_state("running")
        with job.logging():
            result = _run(job, prepared, request, _logging_stages(listener), tell)
    except KeyboardInterrupt:
        _note_end(job, "interrupted", "stopped on request")
        raise Stopped(job.id) from None
    except UserError as error:
        _note_end(job, "failed", str(error))
        if job.journal.units():
            error.add_note(f"What is finished is kept: bitwright resume {job.id}")
        raise
    except BaseException as error:
        _note_end(job, "failed", f"{type(error).__name__}: {error}")
        raise
    else:
        job.set_state("done", result=result.model_dump(mode="json"))
        return result
    finally:
        job.unlock()


def _run(
    job: Job, prepared: Prepared, request: QuantizeRequest, listener: Listener, tell: Tell
) -> QuantizeResult:
    """Write the output where that is still to be done, then measure it where that was asked for."""
    started = time.monotonic()
    output = Path(request.output)
    warnings = list(prepared.plan.warnings)
    _log_plan(prepared, request)
    for warning in warnings:
        log.warning(warning)
        tell(Warned(message=warning))
    with PeakMemory() as memory:
        if not published(job, prepared, output):
            load_kernels(prepared, _threads(request), listener)
            write(job, prepared, output, listener)
        log.info("%s: %s bytes, read back and verified", output, f"{prepared.size:,}")
        tell(Artifact(path=str(output)))
        report = _measure(request, listener, tell, warnings)
    source = prepared.checkpoint.summary()
    log.info("done in %.1f s, peak memory %s", time.monotonic() - started, size(memory.peak))
    return QuantizeResult(
        job=job.id,
        output=request.output,
        bytes=output.stat().st_size,
        predicted_bytes=prepared.size,
        bpw=prepared.plan.bits_per_weight,
        seconds=time.monotonic() - started,
        peak_rss_bytes=memory.peak,
        warnings=warnings,
        source_bytes=source.bytes,
        source_bpw=8 * source.bytes / max(1, source.parameters),
        report=report,
    )


def _measure(request: QuantizeRequest, listener: Listener, tell: Tell, warnings: list[str]) -> Report | None:
    """The loss against the source if it was asked for; a reason why there is none becomes a warning."""
    if request.measure is None:
        return None
    try:
        report = measure(
            request.measure, Path(request.output), Path(request.model), request.threads, listener
        )
    except UserError as error:
        warnings.append(f"The loss could not be measured: {error}")
        log.warning(warnings[-1])
        tell(Warned(message=warnings[-1]))
        return None
    for name, unit in METRICS.items():
        value = getattr(report, name)
        if value is not None:
            log.info("%s: %.6g %s", name.replace("_", " "), value, unit)
            tell(Metric(name=name, value=value, unit=unit))
    return report


def _log_plan(prepared: Prepared, request: QuantizeRequest) -> None:
    formats = Counter(tensor.format for tensor in prepared.plan.tensors)
    counts = ", ".join(f"{count} {name}" for name, count in formats.most_common())
    log.info("quantize %s to %s", request.model, request.output)
    log.info(
        "%s bytes, %.4g bits per weight, %d threads, tensors: %s",
        f"{prepared.size:,}", prepared.plan.bits_per_weight, _threads(request), counts,
    )  # fmt: skip


def _logging_stages(listener: Listener) -> Listener:
    """`listener`, with a line in the log where a stage begins."""
    stage = ""

    def listen(event: Progress) -> None:
        nonlocal stage
        if event.stage != stage:
            stage = event.stage
            log.info("stage: %s", stage)
        listener(event)

    return listen


def _note_end(job: Job, state: State, message: str) -> None:
    """Note why a job ended, if that can be written at all: the reason itself must reach the user."""
    with suppress(OutputError):
        job.set_state(state, message)
