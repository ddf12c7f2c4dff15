"""The life of a job, whatever its kind: its log, its limits, and its state on disk however it ends."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import TypeVar

from pydantic import BaseModel

from engine.api.errors import ChangedError, JobError, MemoryLimitError, OutputError, UserError
from engine.api.events import Artifact, JobStarted, Metric, ProgressSaved, Warned
from engine.api.jobs import Saved, State, Stopped
from engine.api.progress import Listener, Progress, StagesForeseen
from engine.api.units import size
from engine.jobs.errors import explained_job
from engine.jobs.fingerprint import Unchanged, differences
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.limits import DiskWatch, MemoryGuard, out_of_memory
from engine.jobs.units import make_folder

Told = JobStarted | StagesForeseen | Warned | Artifact | Metric | ProgressSaved
Tell = Callable[[Told], None]
"""Takes what happens to a job beside its progress; must return quickly."""

Result = TypeVar("Result", bound=BaseModel)

log = logging.getLogger(__name__)


def nobody(event: Told) -> None:
    """The `Tell` that tells nobody."""


@dataclass
class Running:
    """A job at work: where its results go, who listens, what it may use, what was said.

    `sources` are the files it reads. `resumed`: it goes on behind what an earlier run has saved.
    """

    job: Job
    listener: Listener
    tell: Tell
    guard: MemoryGuard
    disk: DiskWatch
    sources: Unchanged
    resumed: bool = False
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _noted: Saved | None = None

    @property
    def seconds(self) -> float:
        """Since it began, or went on."""
        return time.monotonic() - self.started

    @property
    def work_folder(self) -> Path:
        """Where results lie that the job needs until it is done."""
        folder = self.job.folder / "work"
        with explained_job(self.job.folder):
            make_folder(folder)
        return folder

    def foresee(self, seconds: Callable[[], Mapping[str, float | None]]) -> None:
        """Tell how long the stages still to come will take, where somebody listens and all is known."""
        if self.tell is nobody:
            return
        with suppress(UserError):  # the work itself says it better
            found = {name: time for name, time in seconds().items() if time is not None}
            self.tell(StagesForeseen(seconds=found))

    def check(self) -> None:
        """To be called between pieces of work. Raises `UserError` where memory or disk run short."""
        self.guard.check()
        self.disk.check()

    def note(self, saved: Saved) -> None:
        """Tell what is on disk by now, where that is news."""
        if saved != self._noted:
            self._noted = saved
            self.tell(ProgressSaved(saved=saved))

    def warn(self, text: str) -> None:
        """To the log, to whoever listens, and into the result."""
        log.warning(text)
        self.warnings.append(text)
        self.tell(Warned(message=text))


def run(
    job: Job,
    sources: Unchanged,
    work: Callable[[Running], Result],
    listener: Listener,
    tell: Tell,
    memory_limit: int | None,
) -> Result:
    """Run a locked job to its end, and let go of it. `work` reads `sources`, noted when they were opened.

    Raises what `work` raises; `Stopped` for `KeyboardInterrupt`, `MemoryLimitError` where memory ran out.
    """
    asked = job.asked()
    output = asked.output
    watched = [job.folder, *([Path(output).parent] if output else [])]
    try:
        tell(
            JobStarted(
                job=job.id,
                folder=str(job.folder),
                output=output,
                log=str(job.log_path),
                least_memory=asked.least_memory,
            )
        )
        job.set_state("running")
        with job.logging(), MemoryGuard(memory_limit) as guard:
            disk = DiskWatch(watched, lambda text: running.warn(text))
            resumed = job.journal.saved() is not None
            running = Running(job, _logging_stages(listener), tell, guard, disk, sources, resumed)
            result = _explaining(running, work)
            log.info("done in %.1f s, peak memory %s", running.seconds, size(guard.peak))
    except KeyboardInterrupt:
        _note_end(job, "interrupted", "stopped on request")
        raise Stopped(job.id) from None
    except UserError as error:
        _note_end(job, "failed", str(error))
        if job.journal.saved() is not None:
            error.add_note(f"What is finished is kept: bitwright resume {job.id}")
        raise
    except BaseException as error:
        _note_end(job, "failed", f"{type(error).__name__}: {error}")
        raise
    else:
        job.set_state("done", result=result.model_dump(mode="json"))
        rmtree(job.folder / "work", ignore_errors=True)
        return result
    finally:
        job.unlock()


def refuse_changed(job: Job, now: dict[str, str]) -> None:
    """Raise a `ChangedError` where the job's fingerprint is not `now`."""
    changed = differences(job.asked().fingerprint, now)
    if changed:
        raise ChangedError(
            f"Job {job.id} cannot be resumed, because its output would mix two states: {'; '.join(changed)}. "
            f"Start it again: bitwright resume {job.id} --restart"
        )


def refuse_rivals(output: Path, overwrite: bool, replacing: str) -> None:
    """Raise an `OutputError` where another job writes `output`, or has finished something for it.

    `replacing`: the id of one that is given up.
    """
    for job in jobs_writing(output):
        summary = job.summary()
        if summary.state == "running":
            raise OutputError(f"{output}: job {job.id} is writing it; wait for it, or choose another name.")
        if summary.saved and not overwrite and job.id != replacing:
            raise OutputError(
                f"{output}: job {job.id} has finished {summary.saved} for it; resume it "
                f"(`bitwright resume {job.id}`), or give up what it has done (--overwrite)."
            )


def _explaining(running: Running, work: Callable[[Running], Result]) -> Result:
    """Where memory runs out, a library says so in its own way; where a source is spoilt, all may go wrong."""
    try:
        return work(running)
    except Exception as error:
        if not isinstance(error, JobError | OutputError):
            running.sources.check()
        if isinstance(error, UserError) or not out_of_memory(error):
            raise
        log.exception("out of memory")
        raise MemoryLimitError(
            f"The memory ran out (peak {size(running.guard.peak)}); "
            "close other programs, or resume with a limit that fits (--memory-limit)."
        ) from None


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
