"""The board of jobs runs one after the other; records follow engines."""

import os
from signal import SIGKILL

import pytest
from PySide6.QtCore import QProcess, QTimer

from app.engine_client import Patience
from app.job_record import JobRecord
from engine.api.events import ProgressMade
from engine.api.jobs import QuantizeRequest
from tests.app.listening import fake
from tests.app.models import write_wide_gguf
from tests.app.watching import JOB, REAL_MS, Watched, ended, request, states, summary

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
    assert record.warnings == ["limit None", "careful", "small"]
    assert str(record.saved) == "17 of 32 blocks"
    assert record.progress is not None
    assert record.progress.item == "blk.17.ffn_down"
    states = [state for _, state in watched.changes]
    assert list(dict.fromkeys(states)) == ["waiting", "starting", "running", "done"]
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
    assert record.message.endswith("at blk.17.ffn_down). 17 of 32 blocks are saved.")
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


# -------------------------------------------------------------------------------------------- the line


def outputs(*names: str) -> list[QuantizeRequest]:
    return [request(output=f"/{name}/{number}.gguf") for number, name in enumerate(names)]


def test_one_job_runs_at_a_time_in_the_order_of_asking(qtbot, watch):
    watched = watch("by name")
    records = [watched.board.run(one) for one in outputs("done", "done", "stopped", "done")]
    assert states(records) == ["starting", "waiting", "waiting", "waiting"]
    assert watched.board.waiting == records[1:]
    qtbot.waitUntil(lambda: records[2].state == "running", timeout=20_000)
    assert watched.finished == records[:2]
    assert (watched.board.active, watched.board.waiting) == ([records[2]], [records[3]])
    watched.board.cancel(records[2])
    qtbot.waitUntil(lambda: len(watched.finished) == 4, timeout=20_000)
    assert states(records) == ["done", "done", "interrupted", "done"]


@pytest.mark.parametrize("end", ["refused", "defect", "killed", "memory"])
def test_the_next_job_starts_however_the_one_before_ends(qtbot, watch, end):
    watched = watch("by name")
    records = [watched.board.run(one) for one in outputs(end, "done")]
    qtbot.waitUntil(lambda: watched.finished == records, timeout=20_000)
    assert states(records) == ["interrupted" if end == "killed" else "failed", "done"]


def test_engines_that_cannot_start_do_not_stop_the_line(qtbot, watch):
    watched = watch("done")
    watched.board._command = ["/bin/none"]
    records = [watched.board.run(request(output=f"/out/{number}.gguf")) for number in range(20)]
    qtbot.waitUntil(lambda: watched.finished == records, timeout=20_000)
    assert set(states(records)) == {"failed"}
    assert all("could not be started" in record.message for record in records)
    watched.board._command = fake("job", "done")
    watched.board.restart(records[3])
    qtbot.waitUntil(lambda: records[3].state == "done", timeout=20_000)


def test_a_job_that_waits_leaves_the_line_when_stopped(qtbot, watch):
    watched = watch("stopped")
    first, second = watched.board.run(request()), watched.board.run(request(output="/out/other.gguf"))
    gone = []
    watched.board.removed.connect(gone.append)
    watched.board.cancel(second)
    assert (gone, watched.board.records, watched.board.waiting) == ([[second]], [first], [])
    qtbot.waitUntil(lambda: first.state == "running")


def test_a_resumed_job_waits_too_and_is_interrupted_when_stopped(qtbot, watch):
    watched = watch("stopped")
    watched.board.take([summary(id="older")])
    [older] = watched.board.records
    watched.board.run(request())
    watched.board.resume(older)
    assert (older.state, older.message) == ("waiting", "")
    watched.board.take([summary(id="older")])
    assert older.state == "waiting"
    watched.board.cancel(older)
    assert (older.state, older.message) == ("interrupted", "Stopped before its turn came.")
    assert older.resumable
    watched.board.take([summary(id="older")])
    assert older.message == "Stopped before its turn came."


# ------------------------------------------------------------------------------------------ ways on


def test_less_memory_is_asked_for_and_forgotten_by_the_next_run(qtbot, watch):
    watched = watch("memory")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert (record.state, record.remedy, record.peak) == ("failed", "less memory", 900_000_000_000)
    for limit, said in ((10**9, "limit 1000000000"), (None, "limit None")):
        watched.finished.clear()
        watched.board.resume(record, limit)
        assert record.memory_limit == limit
        ended(qtbot, watched, record)
        assert said in record.warnings


def test_what_changed_can_only_be_started_again(qtbot, watch):
    watched = watch("changed")
    watched.board.take([summary(request=request())])
    [record] = watched.board.records
    watched.board.resume(record)
    ended(qtbot, watched, record)
    assert (record.state, record.message) == ("failed", "The source is another one now.")
    assert (record.resumable, record.restartable) == (False, True)
    watched.finished.clear()
    watched.board.restart(record)
    ended(qtbot, watched, record)
    assert (record.state, record.job) == ("done", f"{JOB}-again")


def test_a_killed_job_says_what_may_help(qtbot, watch):
    watched = watch("killed")
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    assert record.remedy == "less memory"


# ------------------------------------------------------------------------------------- many at a time


def test_200_quick_cancels_leave_nothing_behind(qtbot, watch):
    """Half are stopped at once, half as soon as they run; some wait behind them."""
    watched = watch("by name")
    board = watched.board
    for number in range(200):
        record = board.run(request(output=f"/stopped/{number}.gguf"))
        if number % 2:
            qtbot.waitUntil(lambda record=record: record.state != "waiting", timeout=20_000)
        if number % 4 == 1:
            qtbot.waitUntil(lambda record=record: record.state == "running", timeout=20_000)
        board.cancel(record)
        if number % 7 == 0:
            board.cancel(record)  # nothing more
    qtbot.waitUntil(lambda: not board.active, timeout=60_000)
    assert board.waiting == []
    assert set(states(board.records)) <= {"interrupted", "failed"}  # those that waited are gone
    assert 50 <= len(board.records) <= 200
    assert len({record.job for record in board.records if record.job}) >= 50
    assert all(record.stopped and record.pending is None for record in board.records)
    qtbot.waitUntil(lambda: not board.findChildren(QProcess))
    assert not [timer for timer in board.findChildren(QTimer) if timer.isActive() and timer.interval() > 200]


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


def test_close_stops_what_runs_and_says_so_once(qtbot, watch):
    watched = watch("stopped")
    records = [watched.board.run(request(output=f"/out/{number}.gguf")) for number in range(3)]
    qtbot.waitUntil(lambda: records[0].state == "running")
    said = []
    watched.board.all_ended.connect(lambda: said.append(list(watched.board.active)))
    watched.board.close()
    watched.board.close()
    qtbot.waitUntil(lambda: bool(said), timeout=20_000)
    assert (said, watched.finished) == ([[]], records[:1])
    assert states(records) == ["interrupted", "waiting", "waiting"]


def test_closing_a_board_on_which_nothing_runs(qtbot, watch):
    watched = watch("done")
    with qtbot.waitSignal(watched.board.all_ended):
        watched.board.close()


# --------------------------------------------------------------------------------------- the real one


def test_the_real_engine_runs_a_job_and_resumes_a_killed_one(qtbot, watch, tmp_path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=40)
    watched = watch(None)
    record = watched.board.run(request(str(model), str(tmp_path / "small.gguf")))
    qtbot.waitUntil(lambda: record.job != "" and _item(record) != "", timeout=REAL_MS)
    os.kill(_pid(watched, record), SIGKILL)
    ended(qtbot, watched, record, REAL_MS)
    assert record.state == "interrupted"
    assert "by the system" in record.message
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


def test_quick_cancels_of_the_real_engine(qtbot, watch, tmp_path):
    """At every moment of its life: before it is up, while it imports, with a folder, at work."""
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=40)
    watched = watch(None)
    for number in range(10):
        record = watched.board.run(request(str(model), str(tmp_path / f"{number}.gguf")))
        qtbot.wait(100 * number)
        if number == 9:
            qtbot.waitUntil(lambda record=record: record.state == "running", timeout=REAL_MS)
        watched.board.cancel(record)
        qtbot.waitUntil(lambda: not watched.board.active, timeout=REAL_MS)
        assert record.stopped
        assert record.state == ("interrupted" if record.job else "failed"), record.message
    assert not list(tmp_path.glob("[0-9].gguf"))


def _item(record: JobRecord) -> str:
    return record.progress.item if record.progress else ""


def _pid(watched: Watched, record: JobRecord) -> int:
    return watched.board._engines[record]._process.processId()
