"""Job folders: where a job's request, state and journal live, and who is at work on it."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from platformdirs import user_state_path
from pydantic import BaseModel, TypeAdapter, ValidationError

from engine.api.errors import JobError, OutputError, UserError
from engine.api.jobs import (
    JobRequest,
    JobResult,
    JobSummary,
    QuantizeRequest,
    QuantizeResult,
    State,
)
from engine.jobs.errors import explained_job
from engine.jobs.journal import Journal
from engine.jobs.units import make_folder, sync_folder

log = logging.getLogger(__name__)

Content = TypeVar("Content")

REQUESTS: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)
RESULTS: TypeAdapter[JobResult] = TypeAdapter(JobResult)


LOCKING = 0.5
LOOKING = 0.05
"""Seconds to wait for a job's lock, to take it and to look whether it is held: others look, too."""


class Asked(BaseModel):
    """`job.json`: what was asked, written once. `output` is "" where nothing but a result is made.

    `least_memory`: bytes that it takes in any case, estimated; 0: not known.
    """

    version: Literal[2] = 2
    kind: str
    created: str
    output: str
    request: dict[str, Any]
    fingerprint: dict[str, str]
    least_memory: int = 0


class Standing(BaseModel):
    """`state.json`: where the job stands, replaced at each change."""

    state: State
    message: str = ""
    result: dict[str, Any] | None = None


def jobs_folder() -> Path:
    """Where jobs live: under the user's state folder (`XDG_STATE_HOME` on Linux)."""
    return user_state_path("bitwright") / "jobs"


class Job:
    """One job's folder. `lock()` it before working on it; it counts as running while locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.journal = Journal(folder / "journal.jsonl")
        self._lock = FileLock(folder / "lock")

    @classmethod
    def create(
        cls,
        request: JobRequest,
        output: Path | None,
        fingerprint: dict[str, str],
        replacing: Sequence["Job"] = (),
        least_memory: int = 0,
    ) -> "Job":
        """A new job folder with its request on disk, in state "running", locked by this process.

        The jobs `replacing` cannot be resumed from then on.
        """
        now = datetime.now(UTC)
        asked = Asked(
            kind=request.kind,
            created=now.isoformat(timespec="microseconds"),
            output=str(output or ""),
            request=request.model_dump(mode="json", exclude_none=True),
            fingerprint=fingerprint,
            least_memory=least_memory,
        )
        with _explained_making():
            job = cls(_new_folder(f"{now:%Y%m%d-%H%M%S}-{now.microsecond:06}"))
            try:
                job._fill(request, asked)
            except BaseException:
                job.unlock()
                shutil.rmtree(job.folder, ignore_errors=True)
                raise
        for other in replacing:
            other.replace(job)
        return job

    def _fill(self, request: JobRequest, asked: Asked) -> None:
        """Its first files. What has no `job.json` is no job yet, so that comes last."""
        self._lock.acquire(timeout=0)
        if isinstance(request, QuantizeRequest):
            _replace(self.folder / "recipe.json", request.recipe.to_json())
        self.journal.path.touch(0o600)
        _replace(self.folder / "state.json", Standing(state="running").model_dump_json(indent=1))
        _replace(self.folder / "job.json", asked.model_dump_json(indent=1))

    @classmethod
    def find(cls, job_id: str) -> "Job":
        """The job named `job_id`, or by the beginning of its id where only one begins so."""
        found = [job for job in all_jobs() if job.id.startswith(job_id)] if job_id else []
        exact = [job for job in found if job.id == job_id]
        if len(exact or found) != 1:
            what = "is no job" if not found else f"begins {len(found)} jobs' ids"
            raise JobError(f"{job_id!r} {what}; `bitwright jobs` lists them.")
        return (exact or found)[0]

    def asked(self) -> Asked:
        """What `create` was given. Raises `JobError` where it cannot be read or is of another version."""
        try:
            content = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
            return Asked.model_validate(content)
        except ValidationError as error:
            other = any(fault["loc"] == ("version",) for fault in error.errors())
            what = "was written by another version of Bitwright" if other else "has a damaged job.json"
        except (OSError, ValueError, RecursionError):
            what = "has no readable job.json"
        raise JobError(f"Job {self.id} {what} and cannot be resumed; make it anew, and remove this one.")

    def request(self) -> JobRequest:
        """What was asked. Raises `JobError` where it cannot be read."""
        try:
            return REQUESTS.validate_python(self.asked().request)
        except ValidationError:
            raise JobError(
                f"Job {self.id} has a damaged job.json; make it anew, and remove this one."
            ) from None

    def lock(self) -> None:
        """Claim the job for this process until it ends. Raises `JobError` if another one works on it."""
        with explained_job(self.folder):
            try:
                self._lock.acquire(timeout=LOCKING, poll_interval=LOCKING / 10)
            except Timeout:
                raise JobError(f"Job {self.id} is still running in another process.") from None

    def unlock(self) -> None:
        self._lock.release()

    def set_state(self, state: State, message: str = "", result: dict | None = None) -> None:
        standing = Standing(state=state, message=message, result=result)
        with explained_job(self.folder):
            _replace(self.folder / "state.json", standing.model_dump_json(indent=1))

    def replace(self, other: "Job") -> None:
        """Give it up for `other`, which started over in its place; not if a process is at work on it."""
        with suppress(JobError, OutputError):
            self.lock()
            self.set_state("replaced", f"job {other.id} started over in its place")
            rmtree(self.folder / "work", ignore_errors=True)
        self.unlock()

    def state(self) -> tuple[State, str]:
        """State and message. A job that says "running" with nobody at work was interrupted."""
        standing = self._standing()
        if standing is not None and standing.state != "running":
            return standing.state, standing.message
        if self._runs():
            return "running", ""
        if standing is None:
            return "interrupted", "its state file cannot be read"
        return "interrupted", "its process ended without a word (killed, or out of memory); it can be resumed"

    def _runs(self) -> bool:
        """Whether a process holds the lock: this one, or another."""
        if self._lock.is_locked:
            return True
        try:
            self._lock.acquire(timeout=LOOKING, poll_interval=LOOKING / 10)
        except Timeout:
            return True
        except OSError:  # a disk that only can be read: nobody works there
            return False
        self._lock.release()
        return False

    def _standing(self) -> Standing | None:
        try:
            return Standing.model_validate_json((self.folder / "state.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def summary(self) -> JobSummary:
        try:
            asked = self.asked()
        except JobError as error:
            return JobSummary(
                id=self.id,
                kind="",
                state="unreadable",
                output="",
                created="",
                message=str(error),
                folder=str(self.folder),
            )
        state, message = self.state()
        standing = self._standing() if state == "done" else None
        result = _validated(RESULTS, standing.result if standing else None)
        return JobSummary(
            id=self.id,
            kind=asked.kind,
            state=state,
            output=result.output if isinstance(result, QuantizeResult) else asked.output,
            created=asked.created,
            message=message,
            folder=str(self.folder),
            saved=self.journal.saved(),
            least_memory=asked.least_memory,
            request=_validated(REQUESTS, asked.request),
            result=result,
        )

    @property
    def log_path(self) -> Path:
        return self.folder / "engine.log"

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Send the engine's log, what libraries warn of, and how the work ends to the job's `engine.log`."""
        with explained_job(self.folder):
            handler = _LogFile(self.log_path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        loggers = [logging.getLogger("engine"), logging.getLogger("py.warnings")]
        loggers[0].setLevel(logging.INFO)
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        except KeyboardInterrupt:
            log.info("stopped on request")
            raise
        except UserError as error:
            log.error("failed: %s", error)
            raise
        except BaseException:
            log.exception("failed")
            raise
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that misses lines where the disk refuses them: the work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def all_jobs() -> list[Job]:
    """Every job, oldest first (ids begin with the time)."""
    return [Job(folder) for folder in job_folders() if (folder / "job.json").is_file()]


def job_folders() -> list[Path]:
    """The folders of all jobs, and those of jobs that died before they began, oldest first."""
    found = jobs_folder()
    return sorted(path for path in found.iterdir() if path.is_dir()) if found.is_dir() else []


def list_jobs() -> list[JobSummary]:
    """Summaries of all jobs, newest last."""
    return [job.summary() for job in all_jobs()]


def jobs_on(output: Path) -> list[Job]:
    """The jobs that were asked for `output`, newest last; without those whose request cannot be read."""
    found = []
    for job in all_jobs():
        with suppress(JobError):
            asked = job.asked().output
            if asked and Path(asked).resolve() == output.resolve():
                found.append(job)
    return found


def jobs_writing(output: Path) -> list[Job]:
    """The unfinished jobs on `output`, newest last."""
    unfinished = ("running", "failed", "interrupted")
    return [job for job in jobs_on(output) if job.state()[0] in unfinished]


@contextmanager
def _explained_making() -> Iterator[None]:
    """What the disk refuses while there is no job yet that could be resumed."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{jobs_folder()}: the job's folder cannot be made there ({error.strerror}); "
            "free some space, or set XDG_STATE_HOME to a folder that can be written."
        ) from None


def _new_folder(name: str) -> Path:
    """A folder for a job, for the user alone; the clock may be set back, so the name may be taken."""
    folders = jobs_folder()
    make_folder(folders)
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        with suppress(FileExistsError):
            folder = folders / f"{name}{suffix}"
            folder.mkdir(mode=0o700)
            sync_folder(folders)
            return folder
    raise OutputError(f"{folders} holds too many jobs of one moment; set the clock.")


def _validated(kind: TypeAdapter[Content], content: dict | None) -> Content | None:
    """What a job's file holds, or None: another version's or a damaged one tells nothing."""
    try:
        return kind.validate_python(content)
    except ValidationError:
        return None


def _replace(path: Path, content: str) -> None:
    """Replace `path` by `content`, whole or not at all, also across a power loss."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)
