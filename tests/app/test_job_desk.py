"""What is done with jobs when asked, and what is said of them."""

from collections.abc import Callable, Iterator

import pytest
from pytestqt.qtbot import QtBot

from app.job_desk import JobDesk
from app.job_record import JobRecord
from app.jobs import JobBoard
from app.models.job_offers import less_memory, less_memory_refusal, occupied
from app.notice import Notice
from app.settings import Settings
from engine.api.jobs import LEAST_MEMORY, JobSummary, QuantizeRequest
from engine.api.recipe import Choice, Recipe
from tests.app.listening import fake

GB = 1_000_000_000


class FakeInspection:
    """Keeps what it was asked to remove; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], Callable, Callable]] = []

    def remove(self, jobs: list[str], then: Callable, failed: Callable) -> None:
        self.asked.append((jobs, then, failed))


class Office:
    """A desk with its board over fake engines, and all it said."""

    def __init__(self, settings: Settings) -> None:
        self.board = JobBoard(command=fake("job", "by name"))
        self.inspection = FakeInspection()
        self.desk = JobDesk(self.board, self.inspection, settings)
        self.notices: list[Notice] = []
        self.said: list[str] = []
        self.results: list[JobRecord] = []
        self.desk.notice.connect(self.notices.append)
        self.desk.said.connect(self.said.append)
        self.desk.show_result.connect(self.results.append)

    @property
    def offered(self) -> list[str]:
        return [text for text, _ in self.notices[-1].actions]

    def choose(self, text: str) -> None:
        dict(self.notices[-1].actions)[text]()


@pytest.fixture
def office(qtbot: QtBot, settings: Settings) -> Iterator[Office]:
    office = Office(settings)
    yield office
    with qtbot.waitSignal(office.board.all_ended, timeout=20_000):
        office.board.close()


def request(end: str, number: int = 0) -> QuantizeRequest:
    output = f"/{end}/{number}.gguf"
    return QuantizeRequest(model="/m/llama", output=output, recipe=Recipe(default=Choice(format="Q8_0")))


def summary(name: str, state: str = "interrupted", output: str = "", **more: object) -> JobSummary:
    usual = {"id": name, "kind": "quantize", "state": state, "output": output, "created": name}
    usual |= {"message": "", "folder": ""}
    return JobSummary.model_validate(usual | more)


def saved(done: int) -> dict:
    return {"done": done, "total": 7, "unit": "blocks"}


# ---------------------------------------------------------------------------------------- ways to go on


@pytest.mark.parametrize(
    ("end", "offered"),
    [
        ("killed", ["Resume", "Resume with less memory", "Log"]),
        ("memory", ["Resume", "Resume with less memory", "Log"]),
        ("defect", ["Resume", "Log"]),
        ("refused", ["Start again"]),
    ],
)
def test_a_failure_offers_what_helps(qtbot, office, end, offered):
    office.desk.run(request(end))
    qtbot.waitUntil(lambda: bool(office.notices), timeout=20_000)
    assert office.offered == offered
    assert office.notices[-1].text.startswith("quantize llama → 0.gguf: ")


def test_a_killed_job_says_what_is_saved_and_goes_on_with_less_memory(qtbot, office):
    office.desk.run(request("killed"))
    qtbot.waitUntil(lambda: bool(office.notices), timeout=20_000)
    assert "most likely out of memory" in office.notices[-1].text
    assert office.notices[-1].text.endswith("17 of 32 blocks are saved.")
    office.choose("Resume with less memory")
    [record] = office.board.records
    qtbot.waitUntil(lambda: bool(office.results), timeout=20_000)
    assert record.memory_limit is not None
    assert f"limit {record.memory_limit}" in record.warnings
    assert "at most" in office.said[-1]


def test_what_changed_is_started_again(qtbot, office):
    office.board._command = fake("job", "changed")
    office.board.take([summary("a", request=request("x"), saved=saved(3), folder="/jobs/a")])
    [record] = office.board.records
    office.desk.resume(record)
    qtbot.waitUntil(lambda: bool(office.notices), timeout=20_000)
    assert office.offered == ["Start again", "Log"]
    office.choose("Start again")
    qtbot.waitUntil(lambda: record.state == "done", timeout=20_000)


def test_starting_again_asks_where_saved_work_is_given_up(qtbot, office):
    office.board.take([summary("a", request=request("x"), saved=saved(3))])
    [record] = office.board.records
    office.desk.restart(record)
    assert "3 of 7 blocks" in office.notices[-1].text
    assert office.offered == ["Start again", "Keep"]
    office.choose("Keep")
    assert record.state == "interrupted"
    office.choose("Start again")
    assert record.state == "starting"


def test_what_cannot_be_done_says_why(office):
    office.board.take([summary("a", "done"), summary("b", "running")])
    done, running = office.board.records
    for act in (office.desk.resume, office.desk.resume_with_less, office.desk.restart, office.desk.remove):
        act(running)
    office.desk.resume(done)
    assert len(office.said) == 5
    assert all(": not now, " in said for said in office.said)
    assert office.notices == []


def test_a_stopped_job_needs_no_words(qtbot, office):
    office.desk.run(request("stopped"))
    [record] = office.board.records
    qtbot.waitUntil(lambda: record.state == "running")
    office.board.cancel(record)
    qtbot.waitUntil(lambda: record.state == "interrupted", timeout=20_000)
    assert office.notices == []


@pytest.mark.parametrize("waiting", [False, True])
def test_no_two_jobs_write_one_file(office, waiting):
    if waiting:
        office.desk.run(request("stopped", 1))
    office.desk.run(request("stopped"))
    office.desk.run(request("stopped"))
    assert len(office.board.records) == 1 + waiting
    assert ("waits to write" if waiting else "is writing") in office.notices[-1].text


def test_between_jobs_a_result_does_not_push_itself_forward(qtbot, office):
    office.desk.run(request("done", 1))
    office.desk.run(request("done", 2))
    assert office.said[-1].endswith("waits for the job that runs.")
    qtbot.waitUntil(lambda: bool(office.results), timeout=20_000)
    first, second = office.board.records
    assert office.results == [second]
    assert "done" in office.notices[-1].text
    office.choose("Show result")
    assert office.results == [second, first]


# ---------------------------------------------------------------------------------------------- removal


def test_a_finished_job_is_removed_at_once(office):
    office.board.take([summary("a", "done"), summary("b", "done")])
    first, second = office.board.records
    office.desk.remove(first)
    assert office.notices == []
    [(jobs, then, _)] = office.inspection.asked
    assert (jobs, first.state) == (["a"], "removing")
    then([summary("b", "done")])
    assert office.board.records == [second]


def test_an_unfinished_job_asks_with_what_it_takes(office, tmp_path):
    output = tmp_path / "small.gguf"
    partial = tmp_path / "small.gguf.partial"
    partial.write_bytes(b"x" * 2_000_000)
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "states.bin").write_bytes(b"x" * 1_000_000)
    old = summary("a", output=str(output), folder=str(folder), request=request("x"))
    office.board.take([old])
    [record] = office.board.records
    assert 3_000_000 <= occupied(record) < 3_100_000
    office.desk.remove(record)
    assert "and the 3" in office.notices[-1].text
    assert "MB it takes on the disk?" in office.notices[-1].text
    assert office.offered == ["Remove", "Keep"]
    office.choose("Keep")
    assert office.inspection.asked == []
    office.choose("Remove")
    assert office.inspection.asked[0][0] == ["a"]


def test_what_could_not_be_removed_is_what_it_was(office):
    office.board.take([summary("a", "done")])
    [record] = office.board.records
    office.desk.remove(record)
    office.inspection.asked[0][2]("No permission.")
    assert record.state == "done"
    assert "No permission." in office.notices[-1].text
    office.desk.remove(record)
    office.inspection.asked[1][1]([summary("a", "running")])
    assert record.state == "running"
    assert "runs elsewhere" in office.notices[-1].text


def test_a_job_that_runs_again_since_the_question_stays(office):
    office.board.take([summary("a", request=request("x"))])
    [record] = office.board.records
    office.desk.remove(record)
    office.board.resume(record)
    office.choose("Remove")
    assert office.inspection.asked[0][0] == []
    assert record.state == "starting"


def test_a_job_without_a_folder_is_just_forgotten(qtbot, office):
    office.desk.run(request("refused"))
    qtbot.waitUntil(lambda: bool(office.notices), timeout=20_000)
    office.desk.remove(office.board.records[0])
    assert office.board.records == []
    assert office.inspection.asked == []


def test_all_that_is_over_goes_after_a_question(office):
    states = ("done", "replaced", "unreadable", "interrupted", "failed", "running")
    office.board.take([summary(state, state) for state in states])
    office.desk.remove_finished()
    assert "all 3 finished jobs" in office.notices[-1].text
    office.choose("Remove")
    assert sorted(office.inspection.asked[0][0]) == ["done", "replaced", "unreadable"]


# --------------------------------------------------------------------------------------- the next start


def test_an_interrupted_job_is_offered_once(office):
    jobs = [summary("1", saved=saved(1)), summary("2", request=request("done"), saved=saved(3))]
    office.board.take(jobs)
    office.desk.offer_interrupted(jobs)
    office.desk.offer_interrupted(jobs)
    [notice] = office.notices
    assert "quantize llama → 0.gguf. 3 of 7 blocks are saved. 1 more are in the list" in notice.text
    office.choose("Resume")
    assert office.board.records[1].state == "starting"


def test_nothing_saved_is_not_worth_an_offer(office):
    jobs = [summary("1"), summary("2", saved=saved(0)), summary("3", "failed", saved=saved(2))]
    office.board.take(jobs)
    office.desk.offer_interrupted(jobs)
    assert office.notices == []


def test_jobs_that_had_not_begun_are_offered(qtbot, office, settings):
    earlier = JobBoard(command=fake("job", "stopped"))
    for number in range(3):
        earlier.run(request("stopped", number))
    qtbot.waitUntil(lambda: earlier.records[0].state == "running")
    with qtbot.waitSignal(earlier.all_ended, timeout=20_000):
        earlier.close()
    office.desk.offer_kept(office.board.bring_back())
    assert office.notices[-1].text == "Not begun when Bitwright ended: quantize llama → 1.gguf and 1 more."
    assert office.offered == ["Start", "Remove"]
    assert office.board.active == []
    first, second = office.board.records
    office.desk.remove(first)
    office.desk.resume(first)
    assert "not in the list any more" in office.said[-1]
    office.choose("Start")
    assert (office.board.active, office.board.waiting) == ([second], [])


# --------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("peak", "available", "limit"),
    [
        (20 * GB, 16 * GB, 12_800_000_000),
        (40 * GB, 16 * GB, 12_800_000_000),
        (0, 10 * GB, 4 * GB),
        (LEAST_MEMORY, 16 * GB, LEAST_MEMORY),
        (20 * GB, None, 15 * GB),
        (0, None, LEAST_MEMORY),
        (8 * GB, GB // 10, LEAST_MEMORY),
    ],
)
def test_less_memory_is_three_quarters_of_what_it_took_and_leaves_some_to_the_machine(peak, available, limit):
    assert less_memory(JobRecord(1, peak=peak), available) == limit


def test_where_only_the_last_limit_is_known_it_is_three_quarters_of_that():
    record = JobRecord(1, job="1", state="interrupted", memory_limit=2 * GB, least_memory=345_000_000)
    assert less_memory(record, 20 * GB) == 1_500_000_000
    assert less_memory_refusal(record, 20 * GB) == ""


def test_what_has_the_least_already_cannot_have_less():
    record = JobRecord(1, job="1", state="failed", peak=GB, memory_limit=LEAST_MEMORY)
    assert "least" in less_memory_refusal(record, GB)
    record.memory_limit = 2 * GB
    assert less_memory_refusal(record, GB) == ""


def test_less_memory_is_never_less_than_the_job_needs():
    """Measuring cannot be cut: such a run would only be refused."""
    record = JobRecord(1, job="1", state="interrupted", peak=627_000_000, least_memory=740_000_000)
    assert less_memory(record, 20 * GB) == 740_000_000
    assert less_memory_refusal(record, 20 * GB) == "it takes 740 MB at least"
    record.peak = GB
    assert less_memory(record, 20 * GB) == 750_000_000
    assert less_memory_refusal(record, 20 * GB) == ""
