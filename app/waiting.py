"""The jobs that wait and have no folder yet, kept on disk for the next start of the program."""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from platformdirs import user_state_path
from pydantic import TypeAdapter
from PySide6.QtCore import QLockFile

from engine.api.jobs import WritingRequest

REQUEST: TypeAdapter[WritingRequest] = TypeAdapter(WritingRequest)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingJob:
    """`created`: when it was asked for, ISO 8601, UTC."""

    created: str
    request: WritingRequest


class WaitingFile:
    """A list of this window's own, locked while the window lives; `take_over` reads those of dead ones."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock: QLockFile | None = None
        self._taken: list[tuple[Path, QLockFile]] = []  # read by `take_over`, and not kept here yet

    def keep(self, jobs: Sequence[WaitingJob]) -> None:
        """Make the file say `jobs`, whole or not at all. Raises `OSError`.

        Not fsynced: the window must not wait for a disk, and the program's own end loses nothing.
        """
        if jobs:
            path = self._claim()
            partial = path.with_suffix(".partial")
            content = [
                {"created": job.created, "request": job.request.model_dump(mode="json")} for job in jobs
            ]
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
            partial.replace(path)
        elif self._path is not None:
            self._path.unlink(missing_ok=True)
        while self._taken:
            path, lock = self._taken.pop()
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.unlock()

    def take_over(self) -> list[WaitingJob]:
        """What windows that are gone have left, oldest first. Their files go with the next `keep`."""
        found: list[WaitingJob] = []
        for path in sorted(_folder().glob("*.json")):
            lock = QLockFile(str(_lock_path(path)))
            lock.setStaleLockTime(0)
            if path != self._path and lock.tryLock(0):
                found += _read(path)
                self._taken.append((path, lock))
        return sorted(found, key=lambda job: job.created)

    def release(self) -> None:
        """Leave the file to whoever comes next."""
        for lock in (self._lock, *(lock for _, lock in self._taken)):
            if lock is not None:
                lock.unlock()
        self._path = self._lock = None
        self._taken = []

    def _claim(self) -> Path:
        """The file's path, behind its lock."""
        if self._path is None:
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{os.getpid()}-{uuid4().hex[:8]}.json"
            self._lock = QLockFile(str(_lock_path(path)))
            self._lock.setStaleLockTime(0)  # by its process alone, however long a job takes
            self._lock.tryLock(0)  # the name is nobody else's
            self._path = path
        return self._path


def _folder() -> Path:
    return user_state_path("bitwright") / "waiting"


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _read(path: Path) -> list[WaitingJob]:
    """What a file says; one that is damaged is set aside."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, list):
            raise TypeError("no list")
        requests = [REQUEST.validate_python(job["request"]) for job in content]
        return [WaitingJob(str(job["created"]), asked) for job, asked in zip(content, requests, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning(
            "%s: the jobs that waited cannot be read and are left out: %s", path, type(error).__name__
        )
        with suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        return []
