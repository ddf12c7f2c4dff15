"""Job folders: where a job's request, state and journal live, and who is at work on it."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from platformdirs import user_state_path
from pydantic import BaseModel, ValidationError

from engine.api.errors import JobError, OutputError, UserError
from engine.api.jobs import JobSummary, QuantizeRequest, QuantizeResult, State
from engine.jobs.journal import Journal
from engine.jobs.partial import explained, sync_folder

log = logging.getLogger(__name__)

Content = TypeVar("Content", bound=BaseModel)


class Asked(BaseModel):
    """`job.json`: what was asked, written once. `total` counts units of work."""

    version: Literal[1] = 1
    kind: str
    created: str
    output: str
    total: int
    request: dict[str, Any]
    fingerprint: dict[str, str]


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
        cls, kind: str, output: Path, request: dict, fingerprint: dict[str, str], total: int, recipe: str
    ) -> "Job":
        """A new job folder, its request and recipe on disk, in state "running", locked by this process."""
        now = datetime.now(UTC)
        folder = jobs_folder() / f"{now:%Y%m%d-%H%M%S}-{now.microsecond:06}"
        asked = Asked(
            kind=kind,
            created=now.isoformat(timespec="microseconds"),
            output=str(output),
            total=total,
            request=request,
            fingerprint=fingerprint,
        )
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: the job's folder cannot be made ({error.strerror}); "
                "set XDG_STATE_HOME to a folder that can be written."
            ) from None
        with explained(folder):
            job = cls(folder)
            job.lock()
            _replace(folder / "recipe.json", recipe)
            _replace(folder / "job.json", asked.model_dump_json(indent=1))
            job.set_state("running")
        return job

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
        raise JobError(f"Job {self.id} {what} and cannot be resumed; start it again.")

    def lock(self) -> None:
        """Claim the job for this process until it ends. Raises `JobError` if another one works on it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JobError(f"Job {self.id} is still running in another process.") from None

    def unlock(self) -> None:
        self._lock.release()

    def set_state(self, state: State, message: str = "", result: dict | None = None) -> None:
        standing = Standing(state=state, message=message, result=result)
        with explained(self.folder):
            _replace(self.folder / "state.json", standing.model_dump_json(indent=1))

    def state(self) -> tuple[State, str]:
        """State and message. A job that says "running" with nobody at work was interrupted."""
        standing = self._standing()
        if standing is None:
            return "interrupted", "its state file cannot be read"
        if standing.state == "running" and not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return "running", standing.message
            self._lock.release()
            return "interrupted", "its process ended without a word (killed, or out of memory)"
        return standing.state, standing.message

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
                done=0,
                total=0,
                message=str(error),
                folder=str(self.folder),
            )
        state, message = self.state()
        standing = self._standing() if state == "done" else None
        return JobSummary(
            id=self.id,
            kind=asked.kind,
            state=state,
            output=asked.output,
            created=asked.created,
            done=len(self.journal.units()),
            total=asked.total,
            message=message,
            folder=str(self.folder),
            request=_validated(QuantizeRequest, asked.request),
            result=_validated(QuantizeResult, standing.result if standing else None),
        )

    @property
    def log_path(self) -> Path:
        return self.folder / "engine.log"

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Send the engine's log, what libraries warn of, and how the work ends to the job's `engine.log`."""
        with explained(self.folder):
            handler = logging.FileHandler(self.log_path, encoding="utf-8")
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


def all_jobs() -> list[Job]:
    """Every job folder, oldest first (ids begin with the time)."""
    if not jobs_folder().is_dir():
        return []
    return [Job(folder) for folder in sorted(jobs_folder().iterdir()) if (folder / "job.json").is_file()]


def list_jobs() -> list[JobSummary]:
    """Summaries of all jobs, newest last."""
    return [job.summary() for job in all_jobs()]


def jobs_writing(output: Path) -> list[Job]:
    """The unfinished jobs on `output`, newest last."""
    found = []
    for job in all_jobs():
        summary = job.summary()
        unfinished = summary.state in ("running", "failed", "interrupted")
        if unfinished and Path(summary.output).resolve() == output.resolve():
            found.append(job)
    return found


def _validated(kind: type[Content], content: dict | None) -> Content | None:
    """What a job's file holds, or None: another version's or a damaged one tells nothing."""
    try:
        return kind.model_validate(content)
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
