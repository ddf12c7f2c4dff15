"""Jobs removed: their folders, and what unfinished ones have written."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from engine.api.errors import JobError
from engine.jobs.errors import explained
from engine.jobs.folder import Job, all_jobs, job_folders, jobs_writing
from engine.jobs.partial import discard_partials

BIRTH_SECONDS = 60.0
"""A folder without a request that is younger may belong to a job that is just being made."""


def remove_jobs(ids: list[str]) -> list[str]:
    """Delete the folders of these jobs, and what the unfinished ones have written of their outputs.

    A job that is running, or gone already, is passed over; the answer is what was removed. Raises
    `OutputError`.
    """
    return [job.id for job in all_jobs() if job.id in ids and _remove(job)]


def clean_jobs(*, unfinished: bool = False) -> list[str]:
    """Remove what is over: finished and replaced jobs; with `unfinished` all that do not run.

    The answer is the ids of what was removed. Leftovers of jobs that died before they began go too.
    """
    wanted = {"done", "replaced"} | ({"failed", "interrupted"} if unfinished else set())
    # The state of an unreadable job, of another version for instance, can mostly be read all the same.
    removed = remove_jobs([job.id for job in all_jobs() if job.state()[0] in wanted])
    for folder in job_folders():
        if not (folder / "job.json").exists() and _age(folder) > BIRTH_SECONDS:
            _remove(Job(folder))
    return removed


def _age(folder: Path) -> float:
    """Seconds since something was made in it; 0 where it has gone meanwhile."""
    try:
        return abs(time.time() - folder.stat().st_mtime)
    except OSError:
        return 0.0


def _remove(job: Job) -> bool:
    """Whether it could be removed."""
    state, _ = job.state()
    try:
        job.lock()
    except JobError:
        return False
    try:
        if state in ("failed", "interrupted"):
            with suppress(JobError):
                output = job.asked().output
                if output and not any(other.id != job.id for other in jobs_writing(Path(output))):
                    discard_partials(Path(output))
        with explained(job.folder):
            shutil.rmtree(job.folder)
        return True
    finally:
        job.unlock()
