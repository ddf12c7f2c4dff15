"""Every way an engine can end, in words."""

from signal import SIGABRT, SIGBUS, SIGKILL, SIGSEGV, SIGTERM

import pytest

from app.ending import TAIL_LINES, Evidence, explain, portion, signal_name
from engine.api.events import Done, Failed, ProgressMade, Stopped
from engine.api.jobs import QuantizeResult, Saved

GB = 1_000_000_000
TRACE = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File x"


AT = ProgressMade(stage="quantize", done=17, total=32, unit="blocks", item="blk.17.ffn_down")
SAVED = Saved(done=17, total=32, unit="blocks")
RESULT = QuantizeResult(
    job="1",
    output="/o",
    bytes=1,
    predicted_bytes=1,
    bpw=1,
    seconds=1,
    peak_private_bytes=1,
    warnings=[],
    source_bytes=1,
    source_bpw=1,
)
DONE = Done(result=RESULT)
REFUSED = Failed(code="user", message="The disk is full.", hint="Make room.")
DEFECT = Failed(code="defect", message="ValueError: x", traceback="Traceback: x")

CASES = {
    "finished": (Evidence(last_word=DONE), "done", "Finished."),
    "finished, then closed by us": (Evidence(last_word=DONE, asked=True, code=1), "done", "Finished."),
    "finished, then crashed": (Evidence(last_word=DONE, code=SIGSEGV, signalled=True), "done", "Finished."),
    "stopped": (
        Evidence(last_word=Stopped(job="1"), asked=True, progress=AT, saved=SAVED, job=True),
        "stopped",
        "Stopped on request. 17 of 32 blocks are saved.",
    ),
    "stopped before it had a folder": (
        Evidence(last_word=Stopped(), asked=True),
        "stopped",
        "Stopped on request, before it began.",
    ),
    "terminated by us": (
        Evidence(code=SIGTERM, signalled=True, asked=True, sent=frozenset({SIGTERM}), job=True),
        "stopped",
        "Stopped on request. What was finished is saved.",
    ),
    "killed by us": (
        Evidence(code=SIGKILL, signalled=True, asked=True, sent=frozenset({SIGTERM, SIGKILL})),
        "stopped",
        "Stopped on request, before it began.",
    ),
    "an idle one closed": (Evidence(asked=True), "stopped", "Stopped on request, before it began."),
    "killed by the system while we wait for it to stop": (
        Evidence(code=SIGKILL, signalled=True, asked=True, sent=frozenset({SIGTERM})),
        "killed",
        "The engine was stopped by the system, most likely out of memory.",
    ),
    "out of memory": (
        Evidence(
            code=SIGKILL,
            signalled=True,
            progress=AT,
            saved=SAVED,
            job=True,
            peak=21_400_000_000,
            memory=23 * GB,
        ),
        "killed",
        "The engine was stopped by the system, most likely out of memory "
        "(peak 21.4 of 23 GB, at blk.17.ffn_down). 17 of 32 blocks are saved.",
    ),
    "out of memory in the second block": (
        Evidence(code=SIGKILL, signalled=True, job=True, saved=Saved(done=1, total=32, unit="blocks")),
        "killed",
        "The engine was stopped by the system, most likely out of memory. 1 of 32 blocks is saved.",
    ),
    "out of memory in the first block": (
        Evidence(code=SIGKILL, signalled=True, job=True, saved=Saved(done=0, total=32, unit="blocks")),
        "killed",
        "The engine was stopped by the system, most likely out of memory. Nothing is saved yet.",
    ),
    "killed, though it took little memory": (
        Evidence(
            code=SIGKILL, signalled=True, progress=AT, saved=SAVED, job=True, peak=GB // 2, memory=23 * GB
        ),
        "killed",
        "The engine was ended by the system or another program (SIGKILL, peak 500 MB of 23 GB, "
        "at blk.17.ffn_down). 17 of 32 blocks are saved.",
    ),
    "out of memory, machine unknown": (
        Evidence(code=SIGKILL, signalled=True, peak=2 * GB),
        "killed",
        "The engine was stopped by the system, most likely out of memory (peak 2 GB).",
    ),
    "out of memory, nothing heard of what is saved": (
        Evidence(code=SIGKILL, signalled=True, progress=AT, job=True),
        "killed",
        "The engine was stopped by the system, most likely out of memory (at blk.17.ffn_down). "
        "What was finished is saved.",
    ),
    "terminated by another": (
        Evidence(code=SIGTERM, signalled=True),
        "killed",
        "The engine was ended by the system or another program (SIGTERM).",
    ),
    "segfault": (
        Evidence(code=SIGSEGV, signalled=True, progress=AT, saved=SAVED, job=True),
        "crashed",
        "The engine crashed (segmentation fault) at blk.17.ffn_down. 17 of 32 blocks are saved.",
    ),
    "abort": (Evidence(code=SIGABRT, signalled=True), "crashed", "The engine crashed (abort)."),
    "bus error": (
        Evidence(code=SIGBUS, signalled=True),
        "crashed",
        "The engine crashed (bus error: a file that it was reading was cut short, or its disk failed).",
    ),
    "user error": (Evidence(code=2, last_word=REFUSED), "failed", "The disk is full. Make room."),
    "defect": (Evidence(code=1, last_word=DEFECT), "failed", "ValueError: x"),
    "failed, and lingered until killed": (
        Evidence(code=SIGKILL, signalled=True, asked=True, sent=frozenset({SIGKILL}), last_word=REFUSED),
        "failed",
        "The disk is full. Make room.",
    ),
    "ended without a word": (
        Evidence(code=0, job=True),
        "failed",
        "The engine ended unasked, with exit code 0. What was finished is saved.",
    ),
    "no such program": (
        Evidence(refusal="/bin/none: No such file or directory", greeted=False),
        "not started",
        "The engine could not be started: /bin/none: No such file or directory. "
        "The installation may be damaged.",
    ),
    "a broken installation": (
        Evidence(code=1, greeted=False, errors="Traceback\nModuleNotFoundError: No module named 'engine'\n"),
        "not started",
        "The engine could not be started: ModuleNotFoundError: No module named 'engine'. "
        "The installation may be damaged.",
    ),
    "gone before it said anything": (
        Evidence(code=3, greeted=False),
        "not started",
        "The engine could not be started: it ended at once, with exit code 3. "
        "The installation may be damaged.",
    ),
    "closed before it said anything": (
        Evidence(code=SIGTERM, signalled=True, greeted=False, asked=True, sent=frozenset({SIGTERM})),
        "stopped",
        "Stopped on request, before it began.",
    ),
    "given up by us": (
        Evidence(
            code=SIGKILL, signalled=True, sent=frozenset({SIGKILL}), verdict=("mismatch", "Two versions.")
        ),
        "mismatch",
        "Two versions.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sentences(case):
    seen, how, sentence = CASES[case]
    ending = explain(seen)
    assert (ending.how, ending.sentence, ending.code) == (how, sentence, seen.code)


def test_what_may_help_and_what_it_took():
    killed = explain(Evidence(code=SIGKILL, signalled=True, job=True, peak=8 * GB, memory=9 * GB))
    assert (killed.remedy, killed.peak) == ("less memory", 8 * GB)
    by_another = explain(Evidence(code=SIGTERM, signalled=True, job=True, peak=8 * GB, memory=9 * GB))
    assert by_another.remedy == ""
    remedies = {code: explain(Evidence(code=2, last_word=failed(code))).remedy for code in CODES}
    assert remedies == {"user": "", "changed": "start again", "memory": "less memory", "defect": ""}


CODES = ("user", "changed", "memory", "defect")


def failed(code) -> Failed:
    return Failed(code=code, message="It failed.")


def test_trace_of_a_crash_begins_where_python_says_so():
    ending = explain(Evidence(code=SIGSEGV, signalled=True, errors=f"loading\nwarning\n{TRACE}\n"))
    assert ending.trace == TRACE


def test_without_a_trace_the_last_lines_serve():
    lines = [f"line {number}" for number in range(100)]
    ending = explain(Evidence(code=SIGABRT, signalled=True, errors="\n".join(lines)))
    assert ending.trace.splitlines() == lines[-TAIL_LINES:]


def test_trace_of_a_defect_is_its_own_and_a_user_error_has_none():
    assert explain(Evidence(code=1, last_word=DEFECT, errors="noise")).trace == "Traceback: x"
    assert explain(Evidence(code=2, last_word=REFUSED, errors="noise")).trace == ""


def test_signals_without_a_name():
    assert signal_name(SIGSEGV) == "SIGSEGV"
    assert signal_name(200) == "signal 200"


def test_portions_name_a_common_unit_once():
    assert portion(21.4 * GB, 23 * GB) == "21.4 of 23 GB"
    assert portion(999_600_000, 23 * GB) == "1 of 23 GB"
    assert portion(5_000, 23 * GB) == "5 kB of 23 GB"
