"""The file that units fill, step by step; folders that outlive a power loss; jobs that meet."""

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest

from engine.api.errors import CheckpointError, JobError, OutputError
from engine.api.jobs import EvaluateRequest
from engine.api.outputs import partial_path
from engine.jobs.cleaning import remove_jobs
from engine.jobs.fingerprint import differences, fingerprint
from engine.jobs.folder import Job, jobs_folder, list_jobs
from engine.jobs.journal import Journal, Unit
from engine.jobs.units import UnitFile, make_folder, sync_folder
from tests.engine.jobs.calls import Calls


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def make(folder: Path) -> UnitFile:
    return UnitFile(folder / "file", 100, Journal(folder / "journal"), "file")


def pieces(text: bytes) -> list[memoryview]:
    return [memoryview(text)]


def refused(code: int):
    def call(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def test_bytes_are_synced_before_their_line_is_written(tmp_path):
    order: list[str] = []
    with Calls([tmp_path], lambda name, tear: order.append(name) if tear is None else None):
        file = make(tmp_path)
        file.write("a", 0, pieces(b"abc"))
        file.write("b", 50, pieces(b"def"))
        file.commit()
        file.close()
    begun = order.index("pwrite file")
    assert order[begun:] == [
        "pwrite file", "pwrite file", "fsync file", "open journal", "write journal", "fsync journal",
    ]  # fmt: skip
    assert "posix_fallocate file" in order[:begun]


def test_a_commit_that_fails_can_be_made_again(tmp_path, monkeypatch):
    file = make(tmp_path)
    file.write("a", 0, pieces(b"abc"))
    monkeypatch.setattr(os, "fsync", refused(errno.EIO))
    with pytest.raises(OutputError, match=r"file: cannot be used \(Input/output error\); check its disk"):
        file.commit()
    assert file.finished({"a": (0, 3)}) == {}
    monkeypatch.undo()
    file.commit()
    assert set(file.finished({"a": (0, 3)})) == {"a"}
    file.close()


def test_only_what_lies_where_it_should_and_is_whole_counts(tmp_path):
    file = make(tmp_path)
    file.write("a", 0, pieces(b"abc"))
    file.commit()
    assert set(file.finished({"a": (0, 3), "b": (3, 3)})) == {"a"}
    for place in ((1, 3), (0, 2), (0, 4)):
        assert file.finished({"a": place}) == {}
    other = UnitFile(tmp_path / "other", 100, file.journal, "other")
    assert other.finished({"a": (0, 3)}) == {}
    other.close()
    file.write("z", 1, pieces(b"x"))
    assert file.finished({"a": (0, 3)}) == {}
    file.close()


def test_read_gives_what_was_written_or_says_why_not(tmp_path):
    file = make(tmp_path)
    file.write("a", 10, pieces(b"abc"))
    buffer = bytearray(3)
    file.read(10, memoryview(buffer))
    assert buffer == b"abc"
    os.truncate(file.path, 11)
    with pytest.raises(OutputError, match="was cut short by someone; resume the job"):
        file.read(10, memoryview(buffer))
    file.close()
    file.close()


def test_a_journal_that_cannot_be_emptied_is_no_harm(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal")
    journal.clear()
    assert not journal.path.exists()
    journal.append([Unit(unit="a", offset=0, bytes=1, crc32=0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", refused(errno.EROFS))
        journal.clear()
    assert set(journal.units()) == {"a"}
    journal.clear()
    assert journal.units() == {}


def test_new_folders_are_synced_into_those_above(tmp_path):
    order: list[str] = []
    with Calls([tmp_path], lambda name, tear: order.append(name)):
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "a" / "b")
    assert order == ["mkdir a", f"fsync {tmp_path.name}", "mkdir b", "fsync a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_a_folder(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refused(code))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refused(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)
    monkeypatch.setattr(os, "open", refused(errno.EACCES))
    sync_folder(tmp_path)


def test_a_source_that_cannot_be_read_has_no_fingerprint(tmp_path, monkeypatch):
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"weights")
    known = fingerprint([source], {}, 2)
    assert differences(known, fingerprint([source], {}, 2)) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", refused(errno.EIO))
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Input/output error\."):
            fingerprint([source], {}, 2)
    source.unlink()
    assert differences(known, fingerprint([source], {}, 2)) == [
        f"file {source} has changed (size, time or content)"
    ]


# ------------------------------------------------------------------------------------ jobs that meet


def make_job(output: Path | None = None, replacing: list[Job] | None = None) -> Job:
    return Job.create(EvaluateRequest(model="m", text="t"), output, {}, replacing or [])


def test_who_only_looks_does_not_keep_a_job_from_being_resumed():
    job = make_job()
    job.unlock()
    looking = os.open(job.folder / "lock", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_EX)
    threading.Timer(0.1, os.close, [looking]).start()
    job.lock()
    job.unlock()


def test_a_running_job_is_not_replaced_nor_hidden_by_a_damaged_state():
    running, dead = make_job(), make_job()
    dead.unlock()
    new = make_job(replacing=[Job(running.folder), Job(dead.folder)])
    assert [job.state for job in list_jobs()] == ["running", "replaced", "running"]
    (running.folder / "state.json").write_bytes(bytes(100))
    assert Job(running.folder).state()[0] == "running"
    with pytest.raises(JobError, match="still running"):
        Job(running.folder).lock()
    new.unlock()
    running.unlock()


@pytest.mark.parametrize("number", [1, 2])
def test_what_cannot_be_made_leaves_nothing(monkeypatch, number):
    """No folder, and what was to be replaced stays what it was."""
    old = make_job()
    old.unlock()
    real, left = os.replace, number

    def full(*paths: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*paths)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", full)
    said = r"cannot be made there \(No space left on device\); free some space, or set XDG_STATE_HOME"
    with pytest.raises(OutputError, match=said):
        make_job(replacing=[old])
    assert [path.name for path in jobs_folder().iterdir()] == [old.id]
    assert [job.state for job in list_jobs()] == ["interrupted"]


def test_a_disk_that_is_read_only_by_now(monkeypatch):
    """Jobs can be listed; what would write says so."""
    job = make_job()
    job.unlock()
    real = os.open

    def read_only(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    assert [listed.state for listed in list_jobs()] == ["interrupted"]
    with pytest.raises(OutputError, match="mounted read-only; mount it writable, then resume the job"):
        Job(job.folder).lock()


def test_a_job_folder_that_is_gone(tmp_path):
    job = make_job()
    shutil.rmtree(job.folder)
    with pytest.raises(OutputError, match="the job's folder was removed while it was in use"):
        job.set_state("failed", "why")
    job.unlock()
    assert list_jobs() == []
    assert list(jobs_folder().iterdir()) == []


def test_removing_a_job_leaves_what_another_one_has_written(tmp_path):
    """Two unfinished jobs of one output: the work goes with the last of them."""
    output = tmp_path / "o.gguf"
    first, second = make_job(output), make_job(output)
    for job in (first, second):
        job.set_state("failed", "why")
        job.unlock()
    partial_path(output).write_text("half")
    remove_jobs([second.id])
    assert partial_path(output).exists()
    remove_jobs([first.id])
    assert not partial_path(output).exists()
    assert list_jobs() == []
