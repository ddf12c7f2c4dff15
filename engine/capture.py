"""Statistics of what flows through a model on texts, or on a prompt, as a job to be resumed.

The model is streamed a block at a time over windows of tokens (engine/capturing.py). Without an output the
file goes into the user's cache, under a name that model, tokens and settings make: what was asked before lies
ready there.

Units of work: a block × a batch of windows, with the tally of the block by then. In memory at a time: one
block, a few batches, the tally of one block, most of which is the sample of tokens for percentiles.
"""

import logging
from contextlib import suppress
from pathlib import Path

from engine.activations import read_activations
from engine.api.errors import CalibrationError, CheckpointError, OutputError
from engine.api.events import Artifact
from engine.api.jobs import ActivationsRequest, ActivationsResult
from engine.api.needs import Needs, Speeds
from engine.api.progress import Listener, silent
from engine.capture_preparation import ENDING, Capture, absolute, prepared_capture
from engine.capturing import Capturing
from engine.estimate import UNMEASURED, Gathered, calibrate_needs, refuse_memory, refuse_needs
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.partial import check_place
from engine.jobs.running import Running, Tell, nobody, refuse_changed, refuse_rivals, run
from engine.jobs.units import make_folder

CACHE_BYTES = 4 << 30
"""Of files in the cache; the oldest go first."""

DISTRIBUTION = 8 << 16
"""Bytes of that of a layer, at most."""

COLUMN = 120
"""Bytes of the figures of a channel."""

log = logging.getLogger(__name__)


def capture(
    request: ActivationsRequest, listener: Listener = silent, tell: Tell = nobody, *, replacing: str = ""
) -> ActivationsResult:
    """Run `request` as a new job; or say what lies ready in the cache. Raises `UserError`s.

    An unfinished job for the cache that asked the same is gone on with. `replacing`: the id of one that is
    given up.
    """
    request = absolute(request)
    with prepared_capture(request) as prepared:
        output = prepared.output(request)
        if not request.output and not request.overwrite and (ready := _ready(output)) is not None:
            return ready
        if request.output:
            refuse_place(request, prepared, replacing)
        found = _needs(request, prepared, UNMEASURED)
        refuse_needs(found)
        if not request.output:
            make_folder(output.parent)
            if (job := _begun(output, prepared)) is not None and job.id != replacing:
                return _run(job, prepared, request, listener, tell)
            refuse_place(request, prepared, replacing)
        rivals = jobs_writing(output)
        job = Job.create(request, output, prepared.fingerprint, rivals, found.least_memory)
        return _run(job, prepared, request, listener, tell)


def go_on(job: Job, request: ActivationsRequest, listener: Listener, tell: Tell) -> ActivationsResult:
    """Finish a locked job; the file is as if it had never been broken off. Raises `UserError`s."""
    with prepared_capture(request) as prepared:
        refuse_changed(job, prepared.fingerprint)
        refuse_memory(_needs(request, prepared, UNMEASURED))
        return _run(job, prepared, request, listener, tell)


def _ready(output: Path) -> ActivationsResult | None:
    """What lies ready in the cache, if it is whole."""
    try:
        with read_activations(output) as found:
            result = ActivationsResult(
                job="",
                output=str(output),
                bytes=output.stat().st_size,
                layers=len(found.tensors),
                ran=found.ran,
                seconds=0.0,
                peak_private_bytes=0,
                warnings=found.ran.notes,
            )
    except (CheckpointError, CalibrationError):
        return None
    with suppress(OSError):  # the folder may be another's
        output.touch()  # it was needed again
    return result


def _begun(output: Path, prepared: Capture) -> Job | None:
    """An unfinished job for the cache that would make the same, locked."""
    for job in jobs_writing(output):
        if job.state()[0] != "running" and job.asked().fingerprint == prepared.fingerprint:
            job.lock()
            return job
    return None


def refuse_place(request: ActivationsRequest, prepared: Capture, replacing: str = "") -> None:
    """Raise an `OutputError` where the output must not be written: also where another job is at it.

    Only a file of activations is ever replaced.
    """
    output = prepared.output(request)
    if output.suffix.lower() != ENDING:
        raise OutputError(f"{output}: the name of a file of activations ends with {ENDING}.")
    overwrite = request.overwrite or not request.output
    refuse_rivals(output, overwrite, replacing)
    check_place(output, [*prepared.subject.checkpoint.files, *prepared.files], overwrite)
    if request.output and output.exists():
        try:
            read_activations(output).close()
        except (CheckpointError, CalibrationError):
            raise OutputError(
                f"{output}: it is no file of activations, and is not replaced; choose another name."
            ) from None


def _needs(request: ActivationsRequest, prepared: Capture, speeds: Speeds | None = None) -> Needs:
    windows, length = prepared.tokens.shape
    width = prepared.subject.model.width
    widths = [sum(target.columns for target in targets) + width for targets in prepared.targets]
    places = [len(targets) + 1 for targets in prepared.targets]
    rows = min(prepared.room, windows * length)
    tally = 4 * rows * max(widths) + DISTRIBUTION * max(places) + COLUMN * max(widths)
    file = COLUMN * sum(widths) + DISTRIBUTION * sum(places)
    file += prepared.whole_bytes if prepared.whole else 0
    return calibrate_needs(
        request,
        (windows, length),
        prepared.subject.checkpoint,
        prepared.output(request),
        Gathered(memory=tally, disk=2 * tally + file, file=file),
        speeds,
    )


def _run(
    job: Job, prepared: Capture, request: ActivationsRequest, listener: Listener, tell: Tell
) -> ActivationsResult:
    def work(running: Running) -> ActivationsResult:
        return _work(running, prepared, request)

    return run(job, prepared.unchanged, work, listener, tell, request.memory_limit)


def _work(work: Running, prepared: Capture, request: ActivationsRequest) -> ActivationsResult:
    log.info("activations of %s on %s, %d threads", request.model, prepared.ran, prepared.threads)
    for note in prepared.ran.notes:
        work.warn(note)
    work.foresee(lambda: {stage.name: stage.seconds for stage in _needs(request, prepared).stages[1:]})
    output = prepared.output(request)
    size, layers = Capturing(work, prepared).run(output, overwrite=request.overwrite or not request.output)
    if not request.output:
        _prune(output)
    log.info("%s: %s bytes", output, f"{size:,}")
    work.tell(Artifact(path=str(output)))
    return ActivationsResult(
        job=work.job.id,
        output=str(output),
        bytes=size,
        layers=layers,
        ran=prepared.ran,
        seconds=work.seconds,
        resumed=work.resumed,
        peak_private_bytes=work.guard.peak,
        warnings=work.warnings,
    )


def _prune(newest: Path) -> None:
    """Keep the cache within its size."""
    files = sorted(newest.parent.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > CACHE_BYTES and file != newest:
            file.unlink(missing_ok=True)
