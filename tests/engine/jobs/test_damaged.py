"""Damaged files of a job's folder, and jobs that stand on something else by now: said, never mixed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api.errors import ChangedError, EvaluationError, JobError, UserError
from engine.api.jobs import Stopped
from engine.api.outputs import partial_path
from engine.api.progress import Progress
from engine.jobs import fingerprint
from engine.jobs.folder import Job, list_jobs
from engine.quantize import quantize
from engine.resume import resume
from tests.engine.jobs.bench import Place

DAMAGE = {
    "empty": b"",
    "cut": b'{"version": 2, "kind": "quan',
    "zeros": bytes(700),
    "binary": bytes(range(256)) * 3,
    "rubbish": b"job job job\n" * 40,
    "a number": b"17",
    "a list": b"[[], {}]",
    "nothing": b"null",
    "strange values": b'{"version": 2, "state": 7, "kind": [], "unit": {}, "crc32": "x"}',
    "deep": b"[" * 100_000,
    "huge": b'{"bytes": ' + b"9" * 100_000 + b"}",
}


def stop_at(number: int) -> Callable[[Progress], None]:
    """A listener that stops the job at that event of quantizing, or of the looking at what is finished."""

    def listen(event: Progress) -> None:
        nonlocal number
        number -= event.stage in ("quantize", "check finished")
        if number < 0:
            raise KeyboardInterrupt

    return listen


@pytest.fixture
def stopped(place) -> Place:
    """A place where a job was stopped in the middle."""
    with pytest.raises(Stopped):
        quantize(place.asked(), stop_at(6))
    return place


def test_state_file(stopped):
    job = stopped.job()
    for content in DAMAGE.values():
        (job.folder / "state.json").write_bytes(content)
        (listed,) = list_jobs()
        assert (listed.state, listed.message) == ("interrupted", "its state file cannot be read")
        with pytest.raises(Stopped):
            resume(job.id, stop_at(2))
        assert list_jobs()[0].message == "stopped on request"
    (job.folder / "state.json").write_bytes(DAMAGE["zeros"])
    resume(job.id)
    stopped.check()


@pytest.mark.parametrize("how", ["replaced", "behind", "before"])
def test_journal(stopped, how):
    job = stopped.job()
    for content in DAMAGE.values():
        lines, known = job.journal.path.read_bytes(), len(job.journal.units())
        damaged = {"replaced": content, "behind": lines + content, "before": content + b"\n" + lines}[how]
        job.journal.path.write_bytes(damaged)
        assert len(job.journal.units()) == (0 if how == "replaced" else known)
        assert list_jobs()[0].state == "interrupted"
        with pytest.raises(Stopped):
            resume(job.id, stop_at(known + (how != "replaced")))  # a little further each time
        assert job.journal.units()
    resume(job.id)
    stopped.check()


def test_request(stopped):
    """The job cannot be gone on with, which is said; a new one takes its place."""
    job = stopped.job()
    for content in DAMAGE.values():
        (job.folder / "job.json").write_bytes(content)
        (listed,) = list_jobs()
        assert listed.state == "unreadable"
        with pytest.raises(JobError, match=r"job\.json") as caught:
            resume(listed.id)
        assert str(caught.value) == listed.message
        assert "\n" not in listed.message
    quantize(stopped.asked())
    assert stopped.output.read_bytes() == stopped.bench.whole
    assert [job.state for job in list_jobs()] == ["unreadable", "done"]


def test_folder_of_another_version(stopped):
    job = stopped.job()
    path, said = job.folder / "job.json", "was written by another version of Bitwright and cannot be resumed"
    for version in (1, 3, 99, "2.0", None):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
        with pytest.raises(JobError, match=said) as caught:
            resume(job.id)
        assert [(job.state, job.message) for job in list_jobs()] == [("unreadable", str(caught.value))]


def test_everything_but_the_request_is_gone(stopped):
    folder = stopped.job().folder
    for path in folder.iterdir():
        if path.name != "job.json":
            path.unlink()
    partial_path(stopped.output).unlink()
    resume(folder.name)
    stopped.check()


def test_state_file_of_a_finished_job(stopped):
    """Its file stands: nothing is made again."""
    job = stopped.job()
    resume(job.id)
    written = stopped.output.stat().st_mtime_ns
    (job.folder / "state.json").write_bytes(b"")
    resume(job.id)
    stopped.check()
    assert stopped.output.stat().st_mtime_ns == written


def test_state_file_of_a_running_job(place):
    """It is running all the same, and is not started over."""
    seen = []

    def listen(event: Progress) -> None:
        if event.stage == "verify" and not seen:
            (place.job().folder / "state.json").write_bytes(b"")
            seen.extend(job.state for job in list_jobs())

    quantize(place.asked(), listen)
    assert seen == ["running"]
    place.check()


# ------------------------------------------------------------------------------ changed since then


def another_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fingerprint.version
    monkeypatch.setattr(fingerprint, "version", lambda name: "1.0.0" if name == "numpy" else real(name))


def another_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")


def another_bitwright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "__version__", "0.0.1")


def another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_processor", lambda: "abacus")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_numpy, r"numpy was \S+, is 1\.0\.0\."),
        (another_switch, r"MKL_CBWR was absent, is COMPATIBLE\."),
        (another_bitwright, r"bitwright was \S+, is 0\.0\.1\."),
        (another_processor, r"processor was .*, is abacus\."),
    ],
)
def test_what_differs_is_named_and_started_again_on_request(stopped, monkeypatch, change, said):
    job = stopped.job()
    before = partial_path(stopped.output).read_bytes()
    change(monkeypatch)
    with pytest.raises(ChangedError, match=said) as caught:
        resume(job.id)
    assert str(caught.value).endswith(f"Start it again: bitwright resume {job.id} --restart")
    assert partial_path(stopped.output).read_bytes() == before
    assert list_jobs()[0].state == "interrupted"
    resume(job.id, restart=True)
    assert stopped.output.read_bytes() == stopped.bench.whole
    assert [job.state for job in list_jobs()] == ["replaced", "done"]
    with pytest.raises(JobError, match="started over in its place"):
        resume(job.id)


def test_other_cores_do_not_matter(stopped, monkeypatch):
    """The job keeps its number of threads; started again, it takes all there are."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(77)))
    resume(stopped.job().id)
    stopped.check()
    stopped.output.unlink()
    with pytest.raises(Stopped) as caught:
        quantize(stopped.asked(threads=None), stop_at(2))
    assert Job.find(caught.value.job).asked().fingerprint["threads"] == "77"


def test_changed_recipe_is_named(stopped):
    path = stopped.job().folder / "job.json"
    path.write_text(path.read_text().replace('"Q4_K"', '"Q8_0"'))
    with pytest.raises(ChangedError, match="recipe has changed"):
        resume(stopped.job().id)


def test_changed_weights_are_named_and_never_mixed(stopped, tmp_path):
    """Size and time are the same as before: samples of the bytes tell."""
    stopped.model = Path(shutil.copytree(stopped.model, tmp_path / "model"))
    quantize(stopped.asked(overwrite=True), print)
    stopped.output.unlink()
    with pytest.raises(Stopped):
        quantize(stopped.asked(), stop_at(12))
    job = list_jobs()[-1].id
    shard = min(stopped.model.glob("*.safetensors"))
    changed = shard.stat().st_mtime_ns
    with shard.open("r+b") as file:
        file.seek(-600, os.SEEK_END)
        file.write(bytes(600))
    os.utime(shard, ns=(changed, changed))
    with pytest.raises(ChangedError, match=f"file {shard} has changed"):
        resume(job)
    resume(job, restart=True)
    again = stopped.output.read_bytes()
    stopped.output.unlink()
    quantize(stopped.asked())
    assert again == stopped.output.read_bytes() != stopped.bench.whole


@pytest.mark.parametrize("place", ["quantize and measure"], indirect=True)
def test_text_of_a_measurement_that_is_still_to_come(place, tmp_path):
    text = Path(shutil.copy(place.bench.text, tmp_path / "text"))
    measure = place.asked().measure.model_copy(update={"text": str(text)})
    with pytest.raises(Stopped) as caught:
        quantize(place.asked(measure=measure), stop_at(12))
    job, content = caught.value.job, text.read_bytes()
    text.write_bytes(content[:-1] + b"!")
    with pytest.raises(ChangedError, match="text has changed"):
        resume(job)
    text.unlink()
    with pytest.raises(EvaluationError, match=f"Cannot read the text {text}: No such file") as missing:
        resume(job)
    assert "\n" not in str(missing.value)
    text.write_bytes(content)
    resume(job)
    place.check()


def test_a_failed_restart_costs_nothing(stopped, monkeypatch):
    job = stopped.job()
    another_numpy(monkeypatch)
    stopped.output.write_text("in the way")
    with pytest.raises(UserError, match="exists already"):
        resume(job.id, restart=True)
    stopped.output.unlink()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(stopped.state))
    resume(job.id)
    stopped.check()
