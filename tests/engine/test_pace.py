"""Progress for the window: seldom enough, with first and last of each stage, rate and time left."""

from engine.api.events import ProgressMade, StageStarted
from engine.api.progress import Progress
from engine.pace import INTERVAL, WINDOW, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(events: list[tuple[float, Progress]]) -> list[StageStarted | ProgressMade]:
    """What is sent for events at these times."""
    sent: list[StageStarted | ProgressMade] = []
    clock = Clock()
    pace = Pace(sent.append, clock)
    for clock.now, event in events:
        pace(event)
    pace.flush()
    return sent


def work(done: int, total: int = 1000, stage: str = "quantize") -> Progress:
    return Progress(stage, done, total, "bytes", f"item {done}")


def test_a_stage_is_announced_and_begins_and_ends_at_once():
    sent = paced([(0, work(0)), (0.01, work(1000)), (0.02, work(0, stage="verify"))])
    assert [event.stage for event in sent] == ["quantize"] * 3 + ["verify"] * 2
    assert [type(event) is StageStarted for event in sent] == [True, False, False, True, False]
    assert [event.done for event in sent if isinstance(event, ProgressMade)] == [0, 1000, 0]


def test_at_most_ten_a_second():
    sent = paced([(index / 1000, work(index)) for index in range(1000)])
    assert len(sent) <= 1 + 1 / INTERVAL + 1
    assert sent[-1].done == 999  # type: ignore[union-attr]


def test_what_was_held_back_is_sent_before_the_next_stage():
    sent = paced([(0, work(0)), (0.01, work(5)), (0.02, work(7)), (5, work(0, stage="verify"))])
    assert [event.done for event in sent if isinstance(event, ProgressMade)] == [0, 7, 0]


def test_the_same_event_is_sent_once():
    sent = paced([(0, work(0)), (1, work(1000)), (1.01, work(1000))])
    assert [event.done for event in sent if isinstance(event, ProgressMade)] == [0, 1000]


def rates(events: list[tuple[float, Progress]]) -> list[tuple[float | None, float | None]]:
    return [(event.rate, event.eta) for event in paced(events) if isinstance(event, ProgressMade)]


def test_rate_and_time_left():
    assert rates([(0, work(0)), (0.2, work(20)), (1, work(100)), (2, work(200))]) == [
        (None, None),
        (None, None),  # too early to say
        (100.0, 9.0),
        (100.0, 8.0),
    ]


def test_what_an_earlier_run_has_done_counts_for_no_rate():
    assert rates([(0, work(900)), (1, work(910))])[-1] == (10.0, 9.0)


def test_the_rate_follows_a_change_of_speed():
    slow = [(index, work(index)) for index in range(100)]
    fast = [(100 + index, work(100 + 10 * index)) for index in range(int(WINDOW) + 2)]
    assert rates(slow + fast)[-1][0] == 10.0


def test_no_progress_has_no_rate():
    assert rates([(0, work(5)), (9, work(5, 1000)), (10, Progress("quantize", 5, 1000, "bytes"))])[-1] == (
        None,
        None,
    )


def test_of_the_whole_job_it_never_falls_and_is_not_full_before_the_end():
    """One third of the time each: write, read back, measure; the second runs at half the foreseen speed."""
    sent: list[StageStarted | ProgressMade] = []
    clock = Clock()
    pace = Pace(sent.append, clock)
    pace(work(1000, stage="compile encoders"))
    pace.foresee({"quantize": 10.0, "verify": 10.0, "evaluate": 10.0})
    for now, event in (
        (0, work(0)),
        (10, work(1000)),
        (10, work(0, stage="verify")),
        (20, work(500, stage="verify")),
        (21, work(0, stage="load encoders")),
        (30, work(1000, stage="verify")),
        (30, work(0, stage="evaluate")),
        (40, work(1000, stage="evaluate")),
    ):
        clock.now = now
        pace(event)
    made = [event for event in sent if isinstance(event, ProgressMade)]
    shares = [round(event.share, 3) if event.share is not None else None for event in made]
    assert shares == [None, 0.0, 0.333, 0.333, 0.5, 0.5, 0.667, 0.667, 0.99]
    assert [event.eta for event in made] == [None, 30, 20, 20, 20, None, 10, 10, 0]
