"""Any job gone on with, or begun again: its kind says which function knows how."""

from engine.api.errors import JobError
from engine.api.jobs import ActivationsRequest, CalibrateRequest, JobRequest, JobResult, QuantizeRequest
from engine.api.progress import Listener, silent
from engine.jobs.folder import Job
from engine.jobs.running import Tell, nobody


def resume(
    job_id: str,
    listener: Listener = silent,
    tell: Tell = nobody,
    *,
    restart: bool = False,
    memory_limit: int | None = None,
) -> JobResult:
    """Go on with an unfinished job behind its last finished unit; the result is as if undisturbed.

    `restart`: give up what it has done and run its request again, as a new job. `memory_limit` in bytes,
    None: the job's own. Raises `JobError` where there is nothing to resume, `ChangedError` where the job
    would mix two states, and what the job itself raises.
    """
    job = Job.find(job_id)
    job.lock()
    try:
        request = _request(job, restart)
        if memory_limit is not None:
            request = request.model_copy(update={"memory_limit": memory_limit})
        if restart:
            job.unlock()  # the new one takes its place
            return _again(job, request, listener, tell)
        threads = job.asked().fingerprint.get("threads", "")
        if request.threads is None and threads.isdecimal():
            # Bits depend on them: "all cores" may be fewer by now, in a container or a batch system.
            request = request.model_copy(update={"threads": max(1, int(threads))})
        return _go_on(job, request, listener, tell)
    finally:
        job.unlock()


def _request(job: Job, restart: bool) -> JobRequest:
    request = job.request()
    state, message = job.state()
    if state == "done":
        raise JobError(f"Job {job.id} is finished already; there is nothing to resume.")
    if state == "replaced" and not restart:
        raise JobError(f"Job {job.id} cannot be resumed: {message}.")
    return request


def _go_on(job: Job, request: JobRequest, listener: Listener, tell: Tell) -> JobResult:
    # Quantizing does without torch, which the others load.
    if isinstance(request, QuantizeRequest):
        from engine.quantize import go_on

        return go_on(job, request, listener, tell)
    if isinstance(request, CalibrateRequest):
        from engine import calibrate

        return calibrate.go_on(job, request, listener, tell)
    if isinstance(request, ActivationsRequest):
        from engine import capture

        return capture.go_on(job, request, listener, tell)
    from engine import evaluate

    return evaluate.go_on(job, request, listener, tell)


def _again(job: Job, request: JobRequest, listener: Listener, tell: Tell) -> JobResult:
    if isinstance(request, QuantizeRequest):
        from engine.quantize import quantize

        return quantize(request, listener, tell, replacing=job.id)
    if isinstance(request, CalibrateRequest):
        from engine.calibrate import calibrate

        return calibrate(request, listener, tell, replacing=job.id)
    if isinstance(request, ActivationsRequest):
        from engine.capture import capture

        return capture(request, listener, tell, replacing=job.id)
    from engine.evaluate import evaluate

    return evaluate(request, listener, tell, replacing=job.id)
