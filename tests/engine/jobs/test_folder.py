"""Job folders: listing, states, and what a dead or foreign job says."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from engine.api.errors import JobError, OutputError
from engine.api.jobs import EvaluateRequest, QuantizeRequest, QuantizeResult, Saved
from engine.api.recipe import Choice, Recipe
from engine.jobs.cleaning import clean_jobs, remove_jobs
from engine.jobs.folder import Job, all_jobs, jobs_folder, jobs_writing, list_jobs
from engine.jobs.journal import Unit


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def make_job(output: str = "/x/a.gguf") -> Job:
    recipe = Recipe(default=Choice(format="Q4_K"))
    return Job.create(QuantizeRequest(model="m", output=output, recipe=recipe), Path(output), {"recipe": "1"})


def test_listed_newest_last_with_what_is_done():
    first, second = make_job("/x/a.gguf"), make_job("/x/b.gguf")
    saved = Saved(done=1, total=3, unit="blocks")
    first.journal.append([Unit(unit="t", offset=0, bytes=1, crc32=1, saved=saved)])
    first.set_state("done")
    listed = list_jobs()
    assert [job.output for job in listed] == ["/x/a.gguf", "/x/b.gguf"]
    assert [(job.state, job.saved) for job in listed] == [("done", saved), ("running", None)]
    second.unlock()


def test_running_with_nobody_at_work_means_interrupted():
    job = make_job()
    job.unlock()
    assert Job(job.folder).state()[0] == "interrupted"


def test_running_in_another_process_is_running_and_cannot_be_claimed():
    job = make_job()
    job.unlock()
    code = "import sys; from engine.jobs.folder import Job; from pathlib import Path\n"
    code += "job = Job(Path(sys.argv[1])); job.lock(); print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, job.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert Job(job.folder).state()[0] == "running"
        with pytest.raises(JobError, match="still running"):
            Job(job.folder).lock()
        other.kill()
    assert Job(job.folder).state()[0] == "interrupted"


def test_request_and_result_of_a_finished_job_are_listed():
    figures = {"bytes": 1, "predicted_bytes": 1, "bpw": 4.5, "seconds": 1, "peak_private_bytes": 1}
    before = {"source_bytes": 2, "source_bpw": 16}
    result = {"kind": "quantize", "job": "j", "output": "o", "warnings": [], **figures, **before}
    job = make_job()
    job.set_state("done", result=result)
    (listed,) = list_jobs()
    assert listed.folder == str(job.folder)
    assert isinstance(listed.request, QuantizeRequest)
    assert listed.request.recipe.default.format == "Q4_K"
    assert isinstance(listed.result, QuantizeResult)
    assert listed.result.bpw == 4.5
    job.set_state("done", result=figures)  # by an older version, which did not say all of it
    assert list_jobs()[0].result is None
    job.set_state("interrupted", result=result)
    assert list_jobs()[0].result is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "stopped on request"),
        (OutputError("The disk is full."), "failed: The disk is full."),
        (ZeroDivisionError("boom"), "ZeroDivisionError: boom"),
    ],
)
def test_the_log_says_how_the_work_ended(error, said):
    job = make_job()
    with pytest.raises(type(error)), job.logging():
        raise error
    assert said in job.log_path.read_text()
    assert ("Traceback" in job.log_path.read_text()) == isinstance(error, ZeroDivisionError)


def test_found_by_the_beginning_of_its_id():
    job = make_job()
    assert Job.find(job.id[:-2]).id == job.id
    with pytest.raises(JobError, match="is no job"):
        Job.find("nonsense")
    with pytest.raises(JobError, match="is no job"):
        Job.find("")
    make_job()
    with pytest.raises(JobError, match="begins 2 jobs' ids"):
        Job.find(job.id[:4])


def test_of_another_version_or_unreadable():
    job = make_job()
    content = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(JobError, match="another version"):
        job.asked()
    (job.folder / "job.json").write_text("{")
    with pytest.raises(JobError, match=r"no readable job\.json"):
        job.asked()
    assert [(listed.id, listed.state) for listed in list_jobs()] == [(job.id, "unreadable")]


@pytest.mark.parametrize("key", ["kind", "request", "fingerprint", "output"])
def test_one_damaged_job_hides_no_other(key):
    job, other = make_job("/x/a.gguf"), make_job("/x/b.gguf")
    content = json.loads((job.folder / "job.json").read_text())
    for damaged in ({k: v for k, v in content.items() if k != key}, content | {key: [3]}):
        (job.folder / "job.json").write_text(json.dumps(damaged))
        with pytest.raises(JobError, match=r"damaged job\.json"):
            job.asked()
        assert {listed.id: listed.state for listed in list_jobs()} == {
            job.id: "unreadable",
            other.id: "running",
        }


def test_unfinished_jobs_on_an_output():
    first, second, other = make_job(), make_job(), make_job("/x/b.gguf")
    first.set_state("done")
    assert [job.id for job in jobs_writing(Path("/x/a.gguf"))] == [second.id]
    second.set_state("replaced")
    assert jobs_writing(Path("/x/a.gguf")) == []
    assert [job.id for job in jobs_writing(Path("/x/b.gguf"))] == [other.id]


def test_corrupt_state_is_interrupted_not_lost():
    job = make_job()
    job.unlock()
    (job.folder / "state.json").write_text("{")
    assert Job(job.folder).state() == ("interrupted", "its state file cannot be read")


def test_state_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set XDG_STATE_HOME"):
        make_job()
    assert jobs_folder().parts[-2:] == ("bitwright", "jobs")


def test_folders_are_private_and_never_shared_though_the_clock_is_set_back(monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 1, tzinfo=tz)

    before = make_job()
    monkeypatch.setattr("engine.jobs.folder.datetime", Stopped)
    jobs = [before, make_job(), make_job(), make_job()]
    assert len({job.id for job in jobs}) == 4
    assert {job.folder.stat().st_mode & 0o777 for job in jobs} == {0o700}
    assert jobs_folder().stat().st_mode & 0o777 == 0o700
    assert {job.id for job in all_jobs()} == {job.id for job in jobs}


def test_a_job_without_an_output():
    job = Job.create(EvaluateRequest(model="m", text="t"), None, {})
    assert job.request() == EvaluateRequest(model="m", text="t")
    assert list_jobs()[0].output == ""
    assert jobs_writing(Path()) == []


def test_clean_removes_what_is_over_and_leftovers(tmp_path):
    done, failed, dead = make_job("/x/a.gguf"), make_job(str(tmp_path / "b.gguf")), make_job("/x/c.gguf")
    running = make_job("/x/d.gguf")
    done.set_state("done")
    failed.set_state("failed", "why")
    for job in (done, failed, dead):
        job.unlock()
    (dead.folder / "job.json").unlink()  # killed in the middle of its making
    born = make_job("/x/e.gguf")
    (born.folder / "job.json").unlink()  # in the middle of its making just now
    os.utime(dead.folder, (0, 0))
    partial = tmp_path / "b.gguf.partial"
    partial.write_text("half")
    (tmp_path / "b.gguf").write_text("an older file")
    assert clean_jobs() == [done.id]
    assert {job.id for job in all_jobs()} == {failed.id, running.id}
    assert not dead.folder.exists()
    assert born.folder.exists()
    assert partial.exists()
    remove_jobs([running.id, "gone"])
    assert running.folder.exists(), "it runs"
    assert clean_jobs(unfinished=True) == [failed.id]
    assert not partial.exists()
    assert (tmp_path / "b.gguf").exists()
    assert [job.id for job in all_jobs()] == [running.id]
