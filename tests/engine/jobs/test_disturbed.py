"""What other programs do to a job's files while it runs: one sentence, nothing lost, and the job goes on."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from engine.api.errors import ChangedError, JobError, OutputError, UserError
from engine.api.events import JobStarted
from engine.api.jobs import Stopped
from engine.api.outputs import partial_path
from engine.api.progress import Progress
from engine.jobs.folder import Job, list_jobs
from engine.quantize import quantize
from engine.resume import resume
from tests.engine.jobs.bench import Place


def at(number: int, do: Callable[[], object], stage: str = "quantize") -> Callable[[Progress], None]:
    """A listener that does it at that event of the stage."""

    def listen(event: Progress) -> None:
        nonlocal number
        number -= event.stage == stage
        if number == 0 and event.stage == stage:
            do()

    return listen


def stop() -> None:
    raise KeyboardInterrupt


def run(place: Place, listener: Callable, **changes: object) -> None:
    quantize(place.asked(**changes), listener)


def fails(place: Place, kind: type[UserError], said: str, listener: Callable, **changes: object) -> str:
    """The job fails with one sentence, which is also listed; its id."""
    with pytest.raises(kind, match=said) as caught:
        run(place, listener, **changes)
    assert "\n" not in str(caught.value)
    (job,) = list_jobs()
    assert (job.state, job.message) == ("failed", str(caught.value))
    return job.id


@pytest.fixture
def own(place, tmp_path) -> Place:
    """A place whose model may be spoilt."""
    place.model = Path(shutil.copytree(place.bench.model, tmp_path / "model"))
    return place


def rewritten(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))


def truncated(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


def replaced(shard: Path) -> None:
    other = shard.with_suffix(".other")
    other.write_bytes(shard.read_bytes()[::-1])
    other.replace(shard)


@pytest.mark.parametrize("change", [rewritten, truncated, replaced, Path.unlink])
@pytest.mark.parametrize("stage", ["check weights", "quantize"])
def test_source_changed_under_the_run(own, change, stage):
    shard = sorted(own.model.glob("*.safetensors"))[1]
    content, changed = shard.read_bytes(), shard.stat().st_mtime_ns
    said = f"{shard.name} was changed or removed while the job was reading it.*put the file back as it was"
    job = fails(own, ChangedError, said, at(8, lambda: change(shard), stage))
    assert not own.output.exists()
    with pytest.raises(UserError, match=shard.name) as caught:
        resume(job)
    assert "\n" not in str(caught.value)
    shard.write_bytes(content)
    os.utime(shard, ns=(changed, changed))
    resume(job)
    own.check()


def test_source_changed_between_its_header_and_its_weights(own):
    shard = sorted(own.model.glob("*.safetensors"))[1]

    def tell(event: object) -> None:
        if isinstance(event, JobStarted):
            rewritten(shard)

    with pytest.raises(ChangedError, match=shard.name):
        quantize(own.asked(), tell=tell)
    assert not own.output.exists()


@pytest.mark.parametrize("stage", ["quantize", "verify"])
def test_output_moved_away_and_put_back(place, stage, tmp_path):
    file, away = partial_path(place.output), tmp_path / "away"
    moved = "o.gguf.partial was moved, deleted or replaced while it was being written"
    job = fails(place, OutputError, moved, at(8, lambda: file.rename(away), stage))
    saved = Job.find(job).journal.units()
    assert saved
    away.rename(file)
    resume(job, at(1, lambda: pytest.fail("all was there")) if stage == "verify" else print)
    place.check()


@pytest.mark.parametrize("gone", ["partial", "folder"])
def test_output_deleted(place, gone):
    def delete() -> None:
        partial_path(place.output).unlink()
        if gone == "folder":
            place.output.parent.rmdir()

    job = fails(place, OutputError, "was moved, deleted or replaced", at(8, delete))
    place.output.parent.mkdir(exist_ok=True)
    resume(job)
    place.check()


def test_output_that_somebody_makes_meanwhile_is_not_written_over(place):
    said = "o.gguf: was made by something else meanwhile; move it away, then resume the job"
    job = fails(place, OutputError, said, at(8, lambda: place.output.write_text("mine"), "verify"))
    assert place.output.read_text() == "mine"
    with pytest.raises(OutputError, match="exists already; move it away, then resume"):
        resume(job)
    place.output.unlink()
    resume(job)
    place.check()


def test_output_that_may_be_replaced_is(place):
    run(place, at(8, lambda: place.output.write_text("mine"), "verify"), overwrite=True)
    place.check()


def test_two_jobs_on_one_output(place):
    """Of this process, and of another: the second one is refused, the first one goes on."""
    said = []

    def second() -> None:
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"job \S+ is writing it; wait for it") as caught:
                run(place, print, overwrite=overwrite)
            said.append(str(caught.value))
        fate = place.bench.zygote.run(place.order(request=place.request()))
        said.append(fate.error)
        with pytest.raises(JobError, match="still running"):
            resume(list_jobs()[0].id)
        assert [job.state for job in list_jobs()] == ["running"]

    run(place, at(8, second))
    assert len(set(said)) == 1
    place.check()


def test_two_jobs_that_both_found_the_output_free(place, monkeypatch):
    """The second one looks, the first one begins, the second one begins: the first one's work stays."""
    monkeypatch.setattr("engine.quantize.refuse_place", lambda *_: None)

    def second() -> None:
        with pytest.raises(OutputError, match="another job is writing it"):
            run(place, print)
        assert [job.state for job in list_jobs()] == ["running", "failed"]
        stop()

    with pytest.raises(Stopped) as caught:
        run(place, at(8, second))
    saved = list_jobs()[0].saved
    assert saved
    assert [job.state for job in list_jobs()] == ["interrupted", "failed"]
    resume(caught.value.job)
    assert place.output.read_bytes() == place.bench.whole


def test_job_folder_deleted(place):
    with pytest.raises(
        OutputError, match="the job's folder was removed while it was in use; start the job"
    ) as caught:
        run(place, at(8, lambda: shutil.rmtree(place.job().folder)))
    assert "\n" not in str(caught.value)
    run(place, print)
    place.check()


def test_lock_file_deleted(place):
    run(place, at(8, lambda: (place.job().folder / "lock").unlink()))
    place.check()


def test_journal_deleted(place):
    def delete() -> None:
        place.job().journal.path.unlink()

    run(place, at(8, delete))
    place.check()


def test_log_on_a_full_disk(place, capsys):
    """A real full device: what cannot be logged is not logged, and nothing is said of it."""

    def fill() -> None:
        place.job().log_path.unlink()
        place.job().log_path.symlink_to("/dev/full")

    with pytest.raises(Stopped) as caught:
        run(place, at(8, lambda: (fill(), stop())))
    resume(caught.value.job)
    place.check()
    assert capsys.readouterr().err == ""


def test_clock_set_back_and_forward(place, monkeypatch):
    """Between units, between runs, to the year 1970 and 2286: jobs are found, and nothing is done twice."""
    times = itertools.cycle([2e9, 0.0, 1e10, 1e9])

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(next(times), tz)

    monkeypatch.setattr(time, "time", lambda: next(times))
    monkeypatch.setattr("engine.jobs.folder.datetime", Clock)
    with pytest.raises(Stopped) as caught:
        run(place, at(8, stop))
    job = caught.value.job
    with pytest.raises(Stopped):
        resume(job, at(8, stop))
    finished = set(Job.find(job).journal.units())
    encoded = []
    resume(job, lambda event: encoded.append(event.item) if event.stage == "quantize" else None)
    assert finished.isdisjoint(encoded)
    place.check()
    place.output.unlink()
    run(place, print)
    assert [job.state for job in list_jobs()] == ["done", "done"]
