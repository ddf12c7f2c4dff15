"""Job folders: where a job's request, state and journal live, and who is at work on it."""

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from engine.api.errors import JobError, OutputError
from engine.api.jobs import JobSummary, State
from engine.jobs.journal import Journal

FORMAT = 1


def jobs_folder() -> Path:
    """Where jobs live: under the user's state folder (`XDG_STATE_HOME` on Linux)."""
    return user_state_path("bitwright") / "jobs"


class Job:
    """One job's folder. `lock()` it before working on it; it counts as running while locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.journal = Journal(folder / "journal.jsonl")
        self.log = folder / "engine.log"
        self._lock = FileLock(folder / "lock")

    @classmethod
    def create(cls, kind: str, output: Path, request: dict, fingerprint: dict, total: int) -> "Job":
        """A new job folder, its request on disk, in state "running" and locked by this process."""
        now = datetime.now(UTC)
        folder = jobs_folder() / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
            job = cls(folder)
            job.lock()
            asked = {
                "version": FORMAT,
                "kind": kind,
                "created": now.isoformat(timespec="microseconds"),
                "output": str(output),
                "total": total,
                "request": request,
                "fingerprint": fingerprint,
            }
            write_json(folder / "job.json", asked)
            job.set_state("running")
        except OSError as error:
            raise OutputError(f"{folder}: the job folder cannot be written: {error.strerror}.") from None
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

    def asked(self) -> dict:
        """What `create` was given. Raises `JobError` where it cannot be read or is of another version."""
        try:
            content = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
            if content["version"] == FORMAT:
                return content
            found = f"was written by another version of Bitwright (job format {content['version']})"
        except (OSError, ValueError, KeyError, TypeError):
            found = "has no readable job.json"
        raise JobError(f"Job {self.id} {found} and cannot be resumed; start it again.")

    def lock(self) -> None:
        """Claim the job for this process until it ends. Raises `JobError` if another one works on it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JobError(f"Job {self.id} is still running in another process.") from None

    def unlock(self) -> None:
        self._lock.release()

    def set_state(self, state: State, message: str = "", result: dict | None = None) -> None:
        write_json(
            self.folder / "state.json",
            {"state": state, "message": message, "result": result},
        )

    def state(self) -> tuple[State, str]:
        """State and message. A job that says "running" with nobody at work was interrupted."""
        try:
            content = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            state, message = content["state"], content["message"]
        except (OSError, ValueError, KeyError, TypeError):
            return "interrupted", "its state file cannot be read"
        if state == "running" and not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return "running", message
            self._lock.release()
            return "interrupted", message or "its process ended without a word (killed, or out of memory)"
        return state, message

    def summary(self) -> JobSummary:
        asked = self.asked()
        state, message = self.state()
        return JobSummary(
            id=self.id,
            kind=asked["kind"],
            state=state,
            output=asked["output"],
            created=asked["created"],
            done=len(self.journal.units()),
            total=asked["total"],
            message=message,
        )


def all_jobs() -> list[Job]:
    """Every job folder, oldest first (ids begin with the time)."""
    if not jobs_folder().is_dir():
        return []
    return [Job(folder) for folder in sorted(jobs_folder().iterdir()) if (folder / "job.json").is_file()]


def list_jobs() -> list[JobSummary]:
    """Summaries of all readable jobs, newest last."""
    found = []
    for job in all_jobs():
        try:
            found.append(job.summary())
        except JobError:
            continue
    return sorted(found, key=lambda summary: summary.created)


def write_json(path: Path, content: dict) -> None:
    """Replace `path` by `content`, whole or not at all, also across a power loss."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
