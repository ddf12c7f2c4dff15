"""The board of jobs follows what disk says, but for what it knows better."""

from time import perf_counter

from engine.api.jobs import EvaluateRequest, QuantizeRequest, QuantizeResult
from engine.api.recipe import Choice, Recipe, Rule
from tests.app.watching import JOB, ended, request, summary


def test_jobs_of_disk_stand_by_age_and_are_not_doubled(qtbot, watch):
    watched = watch("stopped")
    mine = watched.board.run(request())
    older = summary(id="a", created="2024-01-01T00:00:00+00:00")
    watched.board.take([older, summary(id="b", created="2024-06-01T00:00:00+00:00")])
    watched.board.take([older, summary(id="b", created="2024-06-01T00:00:00+00:00")])
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
    assert str(record.saved) == "3 of 7 blocks"
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
        peak_private_bytes=1,
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
    bad = summary(kind="", state="unreadable", output="", created="", saved=None, message="It is damaged.")
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


def test_a_job_whose_folder_is_gone_leaves_the_list(watch):
    watched = watch("done")
    watched.board.take([summary(id="a"), summary(id="b")])
    a, b = watched.board.records
    gone = []
    watched.board.removed.connect(gone.append)
    watched.board.take([summary(id="b")])
    assert (gone, watched.board.records) == ([[a]], [b])


def test_nothing_is_said_of_jobs_that_stand_as_before(watch):
    watched = watch("done")
    watched.board.take([summary(id="a"), summary(id="b")])
    watched.changes.clear()
    watched.board.take([summary(id="a"), summary(id="b")])
    assert watched.changes == []
    watched.board.take([summary(id="a"), summary(id="b", saved={"done": 4, "total": 7, "unit": "blocks"})])
    assert [record.job for record, _ in watched.changes] == ["b"]


def test_an_answer_from_before_a_job_ended_here_does_not_count(qtbot, watch):
    watched = watch("done")
    asked = watched.board.moment
    record = watched.board.run(request())
    ended(qtbot, watched, record)
    watched.board.take([], asked)
    watched.board.take([summary(state="running")], asked)
    assert (watched.board.records, record.state) == ([record], "done")
    watched.board.take([])
    assert watched.board.records == []


def test_a_job_that_disk_shows_before_its_engine_says_so_is_listed_once(qtbot, watch):
    watched = watch("stopped")
    record = watched.board.run(request())
    watched.board.take([summary(state="running")])
    assert len(watched.board.records) == 2
    qtbot.waitUntil(lambda: record.state == "running")
    assert watched.board.records == [record]


def test_a_job_that_was_started_from_the_command_line_can_be_shown_and_resumed(qtbot, watch):
    watched = watch("done")
    asked = EvaluateRequest(model="/out/tiny.gguf", reference="/models/tiny", text="/t.txt")
    watched.board.take([summary(kind="evaluate", output="", request=asked)])
    [record] = watched.board.records
    assert (record.title, record.output) == ("evaluate tiny.gguf against tiny", "")
    watched.board.resume(record)
    ended(qtbot, watched, record)
    assert record.state == "done"


def test_two_hundred_jobs_cost_no_frame(watch):
    watched = watch("done")
    rules = [Rule(match=f"blk.{block}.", format="Q6_K") for block in range(30)]
    recipe = Recipe(rules=rules, default=Choice(format="Q8_0"))
    asked = QuantizeRequest(model="/m", output="/o.gguf", recipe=recipe)
    jobs = [summary(id=f"{JOB}-{number}", request=asked, folder=f"/j/{number}") for number in range(200)]
    watched.board.take(jobs)
    took = []
    for _ in range(5):
        started = perf_counter()
        watched.board.take([job.model_copy() for job in jobs])
        took.append(perf_counter() - started)
    assert min(took) < 0.005
