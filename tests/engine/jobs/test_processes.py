"""Whole processes that fail: a real segfault, limits of the system, sentences on the command line."""

import json

import pytest

from engine.api import messages, requests
from engine.api.jobs import Saved
from engine.api.outputs import partial_path
from engine.jobs.folder import list_jobs
from engine.resume import resume
from tests.engine.jobs.bench import RECIPE

AT_THE_TWELFTH_PIECE = """
import engine.writing
real, calls = engine.writing._encode, [0]
def encode(*a):
    calls[0] += 1
    if calls[0] == 12:
        {what}
    return real(*a)
engine.writing._encode = encode
"""


@pytest.fixture
def command(place, tmp_path) -> list[str]:
    """The arguments that ask for the place's file."""
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    recipe = str(tmp_path / "recipe.json")
    return ["quantize", str(place.model), "--recipe", recipe, "--out", str(place.output)]


def test_segfault(bench, place):
    """The process that the window starts reads address 0 in native code."""
    asked = messages.write(requests.StartQuantize(quantize=place.asked())).decode()
    before = AT_THE_TWELFTH_PIECE.format(what="import ctypes; ctypes.string_at(0)")
    fate = bench.zygote.run(place.order(arguments=["serve"], input=asked, before=before))
    assert fate.code == -11
    assert "Fatal Python error: Segmentation fault" in fate.noise
    assert "writing.py" in fate.noise, "the trace says where"
    said = [json.loads(line) for line in fate.out.splitlines()]
    assert {event["event"] for event in said} >= {"hello", "job", "stage", "saved"}
    (job,) = list_jobs()
    assert job.state == "interrupted"
    assert job.saved == Saved(**[event["saved"] for event in said if event["event"] == "saved"][-1])
    resume(job.id)
    place.check()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))",
            "raise the limit (ulimit -f)",
        ),
        ("calls[0] -= 1; raise MemoryError", "The memory ran out"),
    ],
)
def test_a_limit_in_the_middle(bench, place, command, what, said):
    """A file may not grow beyond its limit, from here on; memory is refused. One line, no traceback."""
    fate = bench.zygote.run(place.order(arguments=command, before=AT_THE_TWELFTH_PIECE.format(what=what)))
    assert fate.code == 2, fate.noise
    (job,) = list_jobs()
    assert fate.out == ""
    assert fate.noise.count("\n") == 1
    assert fate.noise.startswith("error: ")
    assert said in fate.noise
    assert fate.noise.endswith(f"What is finished is kept: bitwright resume {job.id}\n")
    assert job.state == "failed"
    assert job.saved
    fate = bench.zygote.run(place.order(arguments=["resume", job.id]))
    assert fate.code == 0, fate.noise
    assert str(place.output) in fate.out
    place.check()


def test_a_limit_below_the_size_leaves_nothing(bench, place, command):
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    fate = bench.zygote.run(place.order(arguments=command, before=before))
    assert fate.code == 2
    assert fate.noise == (
        f"error: {partial_path(place.output)}: the file would pass this system's limit on file sizes; "
        "raise the limit (ulimit -f).\n"
    )
    assert list(place.output.parent.iterdir()) == []
    resume(list_jobs()[0].id)
    place.check()


def test_killed_on_the_command_line(bench, place, command):
    before = AT_THE_TWELFTH_PIECE.format(what="import os; os.kill(os.getpid(), 9)")
    fate = bench.zygote.run(place.order(arguments=command, before=before))
    assert (fate.code, fate.out, fate.noise) == (-9, "", "")
    (job,) = list_jobs()
    fate = bench.zygote.run(place.order(arguments=["jobs"]))
    assert f"{job.id}" in fate.out
    assert "interrupted" in fate.out
    assert f"{job.saved}" in fate.out
    fate = bench.zygote.run(place.order(arguments=command))
    assert fate.code == 2
    assert f"resume it (`bitwright resume {job.id}`), or replace what it has written" in fate.noise
    assert bench.zygote.run(place.order(arguments=["resume", job.id])).code == 0
    place.check()


def test_what_differs_is_one_line(bench, place, command):
    before = AT_THE_TWELFTH_PIECE.format(what="raise KeyboardInterrupt")
    fate = bench.zygote.run(place.order(arguments=command, before=before))
    (job,) = list_jobs()
    assert fate.code == 130
    assert fate.noise == f"Stopped. What is finished is kept: bitwright resume {job.id}\n"
    before = "from engine.jobs import fingerprint; fingerprint.__version__ = '0.0.1'"
    fate = bench.zygote.run(place.order(arguments=["resume", job.id], before=before))
    assert fate.code == 2
    assert fate.noise.startswith(
        f"error: Job {job.id} cannot be resumed, because its output would mix two states"
    )
    assert "is 0.0.1. Start it again: bitwright resume" in fate.noise
    assert fate.noise.count("\n") == 1
    restart = ["resume", job.id, "--restart"]
    assert bench.zygote.run(place.order(arguments=restart, before=before)).code == 0
    assert [job.state for job in list_jobs()] == ["replaced", "done"]
    assert place.output.read_bytes() == bench.whole
