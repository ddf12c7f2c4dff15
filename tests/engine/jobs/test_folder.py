"""Job folders: listing, states, and what a dead or foreign job says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.api.errors import JobError, OutputError
from engine.jobs.folder import Job, jobs_folder, jobs_writing, list_jobs
from engine.jobs.journal import Unit


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def make_job(output: str = "/x/a.gguf") -> Job:
    return Job.create("quantize", Path(output), {"model": "m"}, {"recipe": "1"}, 3, "{}")


def test_listed_newest_last_with_what_is_done():
    first, second = make_job("/x/a.gguf"), make_job("/x/b.gguf")
    first.journal.append(Unit(unit="t", offset=0, bytes=1, crc32=1))
    first.set_state("done")
    listed = list_jobs()
    assert [job.output for job in listed] == ["/x/a.gguf", "/x/b.gguf"]
    assert [(job.state, job.done, job.total) for job in listed] == [("done", 1, 3), ("running", 0, 3)]
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
    asked = {"model": "m", "output": "o", "recipe": {"default": {"format": "Q4_K"}}}
    figures = {"bytes": 1, "predicted_bytes": 1, "bpw": 4.5, "seconds": 1, "peak_rss_bytes": 1}
    before = {"source_bytes": 2, "source_bpw": 16}
    result = {"job": "j", "output": "o", "warnings": [], **figures, **before}
    job = Job.create("quantize", Path("/x/a.gguf"), asked, {}, 3, "{}")
    job.set_state("done", result=result)
    (listed,) = list_jobs()
    assert listed.folder == str(job.folder)
    assert listed.request is not None
    assert listed.request.recipe.default.format == "Q4_K"
    assert listed.result is not None
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


@pytest.mark.parametrize("key", ["kind", "request", "fingerprint", "total"])
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
