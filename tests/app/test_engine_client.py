"""The engine's process, by small fake engines and by the real one."""

import os
import re
from collections import Counter
from pathlib import Path
from signal import SIGABRT, SIGKILL, SIGSEGV
from time import perf_counter

import pytest
from PySide6.QtCore import QTimer

from app.engine_client import LOG_LIMIT, TURN_SECONDS, LineBuffer, Patience
from engine.api.events import Event, Heartbeat, Hello, JobsListed, ProgressMade, Warned
from engine.api.jobs import QuantizeRequest
from engine.api.messages import PROTOCOL, write
from engine.api.recipe import Choice, Recipe
from engine.api.requests import ListJobs, StartQuantize
from tests.app.listening import Heard, alive, fake

APP = Path(__file__).parents[2] / "app"
QUICK = Patience(heartbeat=0.3, terminate=0.2, kill=0.2, hello=20)
REAL_MS = 60_000


def some_request() -> QuantizeRequest:
    return QuantizeRequest(model="/m", output="/o", recipe=Recipe(default=Choice(format="Q8_0")))


# ---------------------------------------------------------------------------------------- its course


def test_says_hello_and_ends_when_its_stdin_closes(qtbot):
    heard = Heard(fake("idle"))
    heard.start(qtbot)
    pid = heard.pid()
    assert alive(pid)
    heard.engine.close()
    heard.engine.close()
    heard.engine.send(ListJobs(id=1))
    assert heard.end(qtbot).code == 0
    assert not alive(pid)


def test_requests_sent_before_it_is_up_arrive_in_order(qtbot):
    heard = Heard(fake("echo"))
    for number in range(20):
        heard.engine.send(ListJobs(id=number))
    heard.start(qtbot)
    heard.engine.send(ListJobs(id=20))
    qtbot.waitUntil(lambda: len(heard.events) == 22)
    said = [event.message for event in heard.events if isinstance(event, Warned)]
    assert [int(re.findall(r"\d+", text)[0]) for text in said] == list(range(21))
    heard.engine.close()
    heard.end(qtbot)


def test_close_before_it_is_up_sends_what_waits_first(qtbot):
    heard = Heard(fake("echo"))
    heard.engine.send(ListJobs(id=7))
    heard.engine.start()
    heard.engine.close()
    heard.end(qtbot)
    assert [type(event) for event in heard.events] == [Hello, Warned]


def test_a_job_to_its_end(qtbot):
    heard = Heard(fake("job"))
    heard.start(qtbot, until_hello=False)
    heard.engine.send(StartQuantize(quantize=some_request()))
    ending = heard.end(qtbot)
    assert (ending.how, ending.code) == ("done", 0)
    assert heard.engine.memory_peak == 900_000_000_000


@pytest.mark.parametrize(
    ("end", "code", "sentence"),
    [("refused", 2, "The disk is full. Make room."), ("defect", 1, "ValueError: x")],
)
def test_a_job_that_fails(qtbot, end, code, sentence):
    heard = Heard(fake("job", end))
    heard.start(qtbot, until_hello=False)
    heard.engine.send(StartQuantize(quantize=some_request()))
    ending = heard.end(qtbot)
    assert (ending.how, ending.code, ending.sentence) == ("failed", code, sentence)


def test_a_job_that_is_canceled(qtbot):
    heard = Heard(fake("job", "stopped"))
    heard.start(qtbot, until_hello=False)
    heard.engine.send(StartQuantize(quantize=some_request()))
    qtbot.waitUntil(lambda: any(isinstance(event, ProgressMade) for event in heard.events))
    heard.engine.cancel()
    heard.engine.cancel()
    ending = heard.end(qtbot)
    assert (ending.how, ending.code) == ("stopped", 0)
    assert ending.sentence == "Stopped on request. 17 of 32 blocks are saved."


# ------------------------------------------------------------------------------------- sudden endings


@pytest.mark.parametrize(
    ("number", "how", "word"),
    [
        (SIGKILL, "killed", "out of memory (peak 900 "),
        (SIGSEGV, "crashed", "segmentation fault) at blk.17.ffn_down. 17 of 32 blocks are saved."),
        (SIGABRT, "crashed", "abort) at blk.17.ffn_down. 17 of 32 blocks are saved."),
    ],
)
def test_struck_by_a_signal(qtbot, number, how, word):
    heard = Heard(fake("job", "works"))
    heard.start(qtbot, until_hello=False)
    heard.engine.send(StartQuantize(quantize=some_request()))
    last = "blk.17.ffn_down"
    qtbot.waitUntil(lambda: _item(heard.events) == last)
    os.kill(heard.pid(), number)
    ending = heard.end(qtbot)
    assert (ending.how, ending.code) == (how, number)
    assert word in ending.sentence


def _item(events: list[Event]) -> str:
    last = events[-1] if events else None
    return last.item if isinstance(last, ProgressMade) else ""


def test_the_trace_of_a_crash_is_there_to_report(qtbot):
    heard = Heard(fake("segfault"))
    heard.start(qtbot)
    ending = heard.end(qtbot)
    assert ending.how == "crashed"
    assert ending.trace.startswith("Fatal Python error: Segmentation fault")
    assert "fake_engine.py" in ending.trace


def test_no_such_program(qtbot):
    heard = Heard(["/nowhere/engine"])
    heard.start(qtbot, until_hello=False)
    ending = heard.end(qtbot)
    assert ending.how == "not started"
    assert "/nowhere/engine" in ending.sentence
    heard.engine.send(ListJobs(id=1))
    heard.engine.cancel()
    heard.engine.close()


def test_a_broken_installation(qtbot):
    heard = Heard(fake("broken"))
    heard.start(qtbot, until_hello=False)
    ending = heard.end(qtbot)
    assert ending.how == "not started"
    assert "No module named 'engine'" in ending.sentence


@pytest.mark.parametrize(("way", "protocol"), [("old", 0), ("new", 99)])
def test_another_protocol(qtbot, way, protocol):
    heard = Heard(fake(way))
    heard.start(qtbot, until_hello=False)
    ending = heard.end(qtbot)
    assert ending.how == "mismatch"
    assert f"protocol {protocol}, this window protocol {PROTOCOL}" in ending.sentence
    assert heard.events == []


def test_no_hello_in_time(qtbot):
    heard = Heard(fake("mute"), Patience(hello=0.2))
    heard.start(qtbot, until_hello=False)
    ending = heard.end(qtbot)
    assert ending.how == "not started"
    assert "0.2 seconds" in ending.sentence


# ------------------------------------------------------------------------------------- pipes and noise


def test_garbage_between_messages_is_kept_as_text(qtbot):
    heard = Heard(fake("garbage"))
    heard.start(qtbot, until_hello=False)
    heard.end(qtbot)
    assert [type(event) for event in heard.events] == [Hello, Heartbeat, ProgressMade]
    assert heard.engine.strays == 8
    assert "[[[[" in heard.engine.log_text
    assert heard.engine.log_text.endswith("half a li")


def test_a_line_without_an_end_ends_the_process(qtbot):
    heard = Heard(fake("endless"))
    heard.start(qtbot, until_hello=False)
    ending = heard.end(qtbot)
    assert ending.how == "mismatch"
    assert "16 MiB" in ending.sentence
    assert len(heard.engine.log_text) <= LOG_LIMIT


def test_of_stderr_the_end_is_kept(qtbot):
    heard = Heard(fake("chatter"))
    heard.start(qtbot, until_hello=False)
    heard.end(qtbot)
    text = heard.engine.log_text
    assert len(text) == LOG_LIMIT
    assert text.splitlines()[-1].startswith("004999")


def test_an_engine_that_closes_its_stdout_is_silent_and_can_be_canceled(qtbot):
    heard = Heard(fake("closes_stdout"), QUICK)
    heard.start(qtbot)
    qtbot.waitUntil(lambda: heard.silences == [True])
    heard.engine.cancel()
    assert heard.end(qtbot).how == "stopped"


def test_writing_to_an_engine_that_closed_its_stdin_is_harmless(qtbot):
    heard = Heard(fake("closes_stdin"), QUICK)
    heard.start(qtbot)
    qtbot.waitUntil(lambda: len(heard.events) == 2)
    for number in range(100):
        heard.engine.send(ListJobs(id=number))
    heard.engine.cancel()
    assert heard.end(qtbot).how == "stopped"


def test_writing_to_a_dead_engine_is_harmless(qtbot):
    heard = Heard(fake("idle"))
    heard.start(qtbot)
    os.kill(heard.pid(), SIGKILL)
    for number in range(100):
        heard.engine.send(ListJobs(id=number))
    assert heard.end(qtbot).how == "killed"
    heard.engine.send(ListJobs(id=1))


# --------------------------------------------------------------------------------------- many messages


def test_a_flood_arrives_whole_and_leaves_turns_to_the_window(qtbot):
    heard = Heard(fake("flood"))
    ticks, seen = [0], []
    ticker = QTimer(interval=0)
    ticker.timeout.connect(lambda: ticks.__setitem__(0, ticks[0] + 1))
    ticker.start()

    def look(event: Event) -> None:
        """A view that takes a millisecond, for the first messages."""
        if len(seen) < 300:
            seen.append(ticks[0])
            enough = perf_counter() + 0.001
            while perf_counter() < enough:
                pass

    heard.engine.received.connect(look)
    heard.start(qtbot, until_hello=False)
    heard.end(qtbot)
    ticker.stop()
    assert [event.done for event in heard.events if isinstance(event, ProgressMade)] == list(range(20_000))
    assert max(Counter(seen).values()) <= 1000 * TURN_SECONDS + 1


def test_what_takes_long_to_read_is_acted_on_in_the_next_turn(qtbot, monkeypatch):
    monkeypatch.setattr("app.engine_client.TURN_SECONDS", -1.0)  # everything takes long
    heard = Heard(fake("idle"))
    heard.engine._lines.add(write(Warned(message="some")) + write(Warned(message="more")))
    told = []
    for _ in range(4):
        heard.engine._work()
        told.append(len(heard.events))
    assert told == [0, 1, 1, 2]
    heard.engine._work()
    assert len(heard.events) == 2


def test_lines_of_any_cut():
    text = b"".join(b"%d\n" % number for number in range(1000)) + b"rest"
    for step in (1, 7, 4096, len(text)):
        lines, found = LineBuffer(), []
        for start in range(0, len(text), step):
            lines.add(text[start : start + step])
            while (line := lines.next()) is not None:
                found.append(line)
        assert found == [b"%d" % number for number in range(1000)]
        assert lines.unfinished == 4
        assert lines.take_all() == b"rest"
        assert len(lines) == 0


# ------------------------------------------------------------------------------------------ patience


def test_an_engine_that_hangs_is_ended_step_by_step(qtbot):
    heard = Heard(fake("stubborn"), QUICK)
    heard.start(qtbot)
    qtbot.waitUntil(lambda: heard.silences == [True])
    heard.engine.cancel()
    ending = heard.end(qtbot)
    assert (ending.how, ending.code) == ("stopped", SIGKILL)


def test_an_engine_that_hangs_is_ended_behind_close_too(qtbot):
    heard = Heard(fake("stubborn"), QUICK)
    heard.start(qtbot)
    heard.engine.close()
    assert heard.end(qtbot).code == SIGKILL


def test_silence_ends_when_it_is_heard_again(qtbot):
    heard = Heard(fake("echo"), QUICK)
    heard.start(qtbot)
    qtbot.waitUntil(lambda: heard.silences == [True])
    heard.engine.send(ListJobs(id=1))
    qtbot.waitUntil(lambda: heard.silences == [True, False])
    heard.engine.close()
    heard.end(qtbot)


def test_quick_starts_and_cancels_leave_no_process(qtbot):
    quick = Patience(terminate=0.05, kill=2)
    pids = []
    for number in range(10):
        batch = [Heard(fake("stubborn" if number == 0 else "idle"), quick) for _ in range(5)]
        for heard in batch:
            heard.engine.start()
            pids.append(heard.engine._process.processId())
            heard.engine.cancel()
        assert {heard.end(qtbot).how for heard in batch} == {"stopped"}
    assert len(set(pids)) == 50
    assert all(pids)
    assert not any(alive(pid) for pid in pids)


def test_nothing_in_the_window_waits_for_a_process():
    waits = re.compile(r"\bwaitFor(Started|Finished|ReadyRead|BytesWritten)\b|\bsleep\(|\bsubprocess\b")
    found = {str(file): waits.search(file.read_text()) for file in APP.rglob("*.py")}
    assert not {file: match for file, match in found.items() if match}


# ---------------------------------------------------------------------------------------- the real one


def test_the_real_engine_answers_and_ends_with_its_stdin(qtbot, tmp_path, monkeypatch):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    heard = Heard(None)
    heard.engine.send(ListJobs(id=1))
    heard.start(qtbot, timeout=REAL_MS)
    qtbot.waitUntil(lambda: any(isinstance(event, JobsListed) for event in heard.events), timeout=REAL_MS)
    pid = heard.pid()
    heard.engine.close()
    assert heard.end(qtbot, REAL_MS).code == 0
    assert not alive(pid)


@pytest.mark.parametrize(("number", "how"), [(SIGKILL, "killed"), (SIGSEGV, "crashed"), (SIGABRT, "crashed")])
def test_the_real_engine_struck_by_a_signal(qtbot, number, how):
    heard = Heard(None)
    heard.start(qtbot, timeout=REAL_MS)
    os.kill(heard.pid(), number)
    ending = heard.end(qtbot, REAL_MS)
    assert (ending.how, ending.code) == (how, number)
    if how == "crashed":
        assert "Fatal Python error" in ending.trace
