"""The board of jobs: records follow engines and disk."""

import os
from collections.abc import Callable, Iterator
from signal import SIGKILL

import pytest
from pytestqt.qtbot import QtBot

from app.engine_client import PATIENCE, Patience
from app.jobs import JobBoard, JobRecord
from engine.api.jobs import JobSummary, QuantizeRequest, QuantizeResult
from engine.api.messages import ProgressMade
from engine.api.recipe import Choice, Recipe
from tests.app.listening import fake
from tests.app.models import write_wide_gguf

JOB = "20250101-000000-000000"
REAL_MS = 60_000


class Watched:
    """A board, and what it said of each record."""

    def __init__(self, command: list[str] | None, patience: Patience) -> None:
        self.board = JobBoard(command=command, patience=patience)
        self.added: list[JobRecord] = []
        self.changes: list[tuple[JobRecord, str]] = []
        self.finished: list[JobRecord] = []
        self.silences: list[tuple[JobRecord, bool]] = []
        self.board.added.connect(self.added.append)
        self.board.changed.connect(lambda record: self.changes.append((record, record.state)))
        self.board.finished.connect(self.finished.append)
        self.board.silent.connect(lambda record, silent: self.silences.append((record, silent)))


@pytest.fixture
def watch(qtbot: QtBot) -> Iterator[Callable[..., Watched]]:
    """Makes boards over fake engines whose jobs end as named (None: over the real engine)."""
    made: list[Watched] = []

    def make(end: str | None, patience: Patience = PATIENCE) -> Watched:
        command = None if end is None else fake("job", end)
        made.append(Watched(command, patience))
        return made[-1]

    yield make
    for watched in made:
        watched.board.close()
        qtbot.waitUntil(lambda board=watched.board: not board.active, timeout=20_000)


def request(model: str = "/models/llama", output: str = "/out/small.gguf") -> QuantizeRequest:
    return QuantizeRequest(model=model, output=output, recipe=Recipe(default=Choice(format="Q8_0")))


def summary(**changes: object) -> JobSummary:
    usual = {
        "id": JOB,
        "kind": "quantize",
        "state": "interrupted",
        "output": "/out/small.gguf",
        "created": "2025-01-01T00:00:00.000000+00:00",
        "done": 3,
        "total": 7,
        "message": "stopped on request",
        "folder": "/jobs/1",
    }
    return JobSummary.model_validate(usual | changes)


def ended(qtbot: QtBot, watched: Watched, record: JobRecord, timeout: int = 20_000) -> None:
    qtbot.waitUntil(lambda: record in watched.finished, timeout=timeout)
    assert watched.finished == [record]
    assert watched.board.active == []


# -------------------------------------------------------------------------------------------- running


def test_a_job_from_start_to_result(qtbot, watch):
    watched = watch("done")
    record = watched.board.run(request())
    assert watched.added == watched.board.records == watched.board.active == [record]
    assert (record.state, record.job, record.title) == ("starting", "", "quantize llama → small.gguf")
    ended(qtbot, watched, record)
    assert (record.state, record.message, record.job) == ("done", "", JOB)
    assert (record.folder, record.log) == ("/jobs/1", "/jobs/1/engine.log")
    assert record.result is not None
    assert record.warnings == ["careful", "small"]
    assert record.progress is not None
    assert record.progress.item == "blk.17.ffn_down"
    states = [state for _, state in watched.changes]
    assert states[0] == "running"
    assert states[-1] == "done"
    assert not record.resumable


def test_a_job_whose_engine_does_not_end_by_itself_is_finished_all_the_same(qtbot, watch):
    watched = watch("lingers", Patience(terminate=0.1, kill=0.1))
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert record.state == "done"


def test_a_refused_job_is_failed_and_not_resumable(qtbot, watch):
    watched = watch("refused")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert (record.state, record.message) == ("failed", "The disk is full. Make room.")
    assert not record.resumable


def test_a_defect_leaves_its_traceback(qtbot, watch):
    watched = watch("defect")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert (record.state, record.message, record.trace) == ("failed", "ValueError: x", "Traceback: x")
    assert record.resumable


def test_a_killed_job_is_interrupted_and_says_why(qtbot, watch):
    watched = watch("killed")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert record.state == "interrupted"
    assert "most likely out of memory (peak 900 " in record.message
    assert record.message.endswith("at blk.17.ffn_down). 17 of 32 tensors are saved.")
    assert record.resumable


def test_cancel_and_resume_on_the_same_record(qtbot, watch):
    watched = watch("stopped")
    record = watched.board.run(request())
    qtbot.waitUntil(lambda: record.state == "running")
    watched.board.cancel(record)
    assert record.state == "stopping"
    ended(qtbot, watched, record)
    assert (record.state, record.trace) == ("interrupted", "")
    assert record.message.startswith("Stopped on request.")
    watched.finished.clear()
    watched.board.resume(record)
    assert (record.state, record.message) == ("starting", "")
    qtbot.waitUntil(lambda: record.state == "running")
    watched.board.cancel(record)
    ended(qtbot, watched, record)
    assert watched.board.records == watched.added == [record]


def test_a_job_stopped_before_it_has_a_folder(qtbot, watch):
    watched = watch("waits")
    record = watched.board.run(request())
    watched.board.cancel(record)
    ended(qtbot, watched, record)
    assert (record.state, record.message) == ("failed", "Stopped on request, before it began.")


def test_two_jobs_at_once_are_told_apart(qtbot, watch):
    watched = watch("stopped")
    first, second = watched.board.run(request()), watched.board.run(request(output="/out/other.gguf"))
    qtbot.waitUntil(lambda: first.state == second.state == "running")
    watched.board.cancel(first)
    qtbot.waitUntil(lambda: watched.finished == [first])
    assert second.state == "running"
    assert watched.board.active == [second]


def test_a_silent_engine_is_told_with_its_record(qtbot, watch):
    watched = watch("works", Patience(heartbeat=0.2, terminate=0.1, kill=0.1))
    record = watched.board.run(request())
    qtbot.waitUntil(lambda: watched.silences == [(record, True)])


def test_progress_is_shown_in_portions(qtbot, watch):
    watched = watch("stopped")
    record = watched.board.run(request())
    qtbot.waitUntil(lambda: record.state == "running")
    watched.changes.clear()
    for done in range(1000):
        watched.board._take_event(
            record, ProgressMade(stage="quantize", done=done, total=1000, unit="u", item="")
        )
    assert watched.changes == []
    qtbot.waitUntil(lambda: bool(watched.changes))
    assert len(watched.changes) == 1


def test_close_stops_everything_and_says_so_once(qtbot, watch):
    watched = watch("stopped")
    records = [watched.board.run(request(output=f"/out/{number}.gguf")) for number in range(3)]
    qtbot.waitUntil(lambda: all(record.state == "running" for record in records))
    said = []
    watched.board.all_ended.connect(lambda: said.append(list(watched.board.active)))
    watched.board.close()
    watched.board.close()
    qtbot.waitUntil(lambda: len(watched.finished) == 3)
    assert said == [[]]
    assert {record.state for record in records} == {"interrupted"}


def test_closing_a_board_on_which_nothing_runs(qtbot, watch):
    watched = watch("done")
    with qtbot.waitSignal(watched.board.all_ended):
        watched.board.close()


# ------------------------------------------------------------------------------------------ from disk


def test_jobs_of_disk_stand_by_age_and_are_not_doubled(qtbot, watch):
    watched = watch("stopped")
    mine = watched.board.run(request())
    older = summary(id="a", created="2024-01-01T00:00:00+00:00")
    watched.board.take([older, summary(id="b", created="2024-06-01T00:00:00+00:00")])
    watched.board.take([older])
    assert [record.job for record in watched.board.records] == ["a", "b", ""]
    assert watched.board.records[-1] is mine
    assert len(watched.added) == 3


def test_what_disk_says_of_a_job(watch):
    watched = watch("done")
    watched.board.take([summary(request=request())])
    [record] = watched.board.records
    assert (record.state, record.message) == ("interrupted", "stopped on request")
    assert (record.title, record.model) == ("quantize llama → small.gguf", "/models/llama")
    assert (record.log, record.resumable) == ("/jobs/1/engine.log", True)
    assert record.progress is not None
    assert (record.progress.done, record.progress.total) == (3, 7)
    assert watched.board.active == []


def test_a_finished_job_of_disk_has_its_result(watch):
    watched = watch("done")
    result = QuantizeResult(
        job=JOB,
        output="/o",
        bytes=1,
        predicted_bytes=1,
        bpw=4.5,
        seconds=1,
        peak_rss_bytes=1,
        warnings=["small"],
        source_bytes=1,
        source_bpw=16,
    )
    watched.board.take([summary(state="done", message="", request=request(), result=result)])
    [record] = watched.board.records
    assert (record.state, record.result, record.warnings) == ("done", result, ["small"])
    assert not record.resumable


def test_a_damaged_job_of_disk_is_listed(watch):
    watched = watch("done")
    bad = summary(
        kind="", state="unreadable", output="", created="", done=0, total=0, message="It is damaged."
    )
    watched.board.take([bad])
    [record] = watched.board.records
    assert (record.state, record.message, record.title) == ("unreadable", "It is damaged.", JOB)


def test_a_job_of_another_process_is_shown_and_left_alone(watch):
    watched = watch("done")
    watched.board.take([summary(state="running", message="")])
    [record] = watched.board.records
    assert (record.state, record.message) == ("running", "running in another process")
    watched.board.cancel(record)
    assert record.state == "running"
    watched.board.take([summary()])
    assert (record.state, record.message) == ("interrupted", "stopped on request")


def test_of_a_job_that_runs_here_the_engine_knows_better(qtbot, watch):
    watched = watch("stopped")
    record = watched.board.run(request())
    qtbot.waitUntil(lambda: record.state == "running")
    watched.board.take([summary(state="interrupted")])
    assert record.state == "running"
    assert watched.board.records == [record]


def test_the_better_sentence_of_a_killed_job_survives_what_disk_says(qtbot, watch):
    watched = watch("killed")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    watched.board.take([summary(message="its process ended without a word")])
    assert "out of memory" in record.message


# --------------------------------------------------------------------------------------- the real one


def test_the_real_engine_runs_a_job_and_resumes_a_killed_one(qtbot, watch, tmp_path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=40)
    watched = watch(None)
    record = watched.board.run(request(str(model), str(tmp_path / "small.gguf")))
    qtbot.waitUntil(lambda: record.job != "" and _item(record) != "", timeout=REAL_MS)
    os.kill(_pid(watched, record), SIGKILL)
    ended(qtbot, watched, record, REAL_MS)
    assert record.state == "interrupted"
    assert "out of memory" in record.message
    watched.finished.clear()
    watched.board.resume(record)
    ended(qtbot, watched, record, REAL_MS)
    assert (record.state, record.message) == ("done", "")
    assert record.result is not None
    assert (tmp_path / "small.gguf").stat().st_size == record.result.predicted_bytes


def test_the_real_engine_stops_a_job_on_request(qtbot, watch, tmp_path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=40)
    watched = watch(None)
    record = watched.board.run(request(str(model), str(tmp_path / "small.gguf")))
    qtbot.waitUntil(lambda: record.job != "" and _item(record) != "", timeout=REAL_MS)
    watched.board.cancel(record)
    ended(qtbot, watched, record, REAL_MS)
    assert (record.state, record.trace) == ("interrupted", "")
    assert record.message.startswith("Stopped on request.")
    assert record.resumable


def _item(record: JobRecord) -> str:
    return record.progress.item if record.progress else ""


def _pid(watched: Watched, record: JobRecord) -> int:
    return watched.board._engines[record]._process.processId()
