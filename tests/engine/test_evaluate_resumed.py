"""Measuring as a job: broken off anywhere, it goes on to the same bits; what it tells and refuses."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import states
from engine.api.errors import ChangedError, EvaluationError, OutputError
from engine.api.events import JobStarted, Metric, ProgressSaved
from engine.api.jobs import EvaluateRequest, EvaluateResult, Stopped
from engine.api.progress import Progress, silent
from engine.calibration.windows import ShortTextError
from engine.evaluate import evaluate, evaluate_files
from engine.jobs.folder import Job, list_jobs
from engine.resume import resume
from tests.tiny import TEXT, write_llama

ROOT = Path(__file__).parents[2]
WINDOWS = 5
"""In batches of four and one."""


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(states, "SAVING_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", float("inf"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two pairs of models, one with a head of its own and one with a tied one, and a text."""
    folder = tmp_path_factory.mktemp("resumed")
    for name, tied in (("untied", False), ("tied", True)):
        for seed, role in enumerate(("reference", "model")):
            write_llama(folder / f"{name}-{role}", config={"tie_word_embeddings": tied})
            file = folder / f"{name}-{role}" / "model.safetensors"
            noise = torch.Generator().manual_seed(seed)
            changed = {
                key: tensor + 0.02 * seed * torch.randn(tensor.shape, generator=noise)
                for key, tensor in load_file(file).items()
            }
            save_file(changed, file, metadata={"format": "pt"})
    (folder / "text").write_text("\n".join(TEXT) * 10 + "\n")
    return folder


def asked(place: Path, kind: str = "untied", reference: bool = True) -> EvaluateRequest:
    return EvaluateRequest(
        model=str(place / f"{kind}-model"),
        text=str(place / "text"),
        reference=str(place / f"{kind}-reference") if reference else None,
        windows=WINDOWS,
        threads=2,
    )


@pytest.fixture(scope="module")
def undisturbed(place) -> dict[tuple[str, bool], dict]:
    """The figures of each pair with and without its reference."""
    found = {}
    for kind, reference in (("untied", True), ("tied", True), ("tied", False)):
        model, other = place / f"{kind}-model", place / f"{kind}-reference" if reference else None
        report = evaluate_files(model, place / "text", other, windows=WINDOWS, threads=2)
        found[kind, reference] = figures(report)
    return found


def figures(report) -> dict:
    return report.model_dump(exclude={"seconds"})


class Stopping:
    """A listener that stops the job at the event number `at`, and counts those of the measurement."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, []

    def __call__(self, event: Progress) -> None:
        if event.stage == "evaluate":
            self.seen.append(event)
            if len(self.seen) == self.at:
                raise KeyboardInterrupt


def begin(request: EvaluateRequest, at: int) -> str:
    """The id of a job that was stopped at its event number `at`."""
    with pytest.raises(Stopped) as stopped:
        evaluate(request, Stopping(at))
    return stopped.value.job


def work_of(job: str) -> Path:
    return Job.find(job).folder / "work"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "reference"), [("untied", True), ("tied", True), ("tied", False)])
def test_stopped_after_every_single_unit(place, undisturbed, kind, reference):
    """No unit is done twice, none is left out."""
    events: list[Progress] = []
    listener = Stopping(1)
    job = ""
    for _ in range(40):
        try:
            result = resume(job, listener) if job else evaluate(asked(place, kind, reference), listener)
            break
        except Stopped as stopped:
            job = stopped.job
            events += listener.seen
            listener = Stopping(1)
    subjects = 2 if reference else 1
    assert [event.item for event in events] == [
        *(
            f"{kind}-{name}, block {block} of 2"
            for name in ("model", "reference")[:subjects]
            for block in (1, 2)
            for _ in range(2)
        ),
        *["predictions"] * WINDOWS,
    ]
    steps = [4, 1] * 2 * subjects + [1] * WINDOWS
    assert [event.done for event in events] == [sum(steps[: i + 1]) for i in range(len(steps))]
    assert {event.total for event in events} == {sum(steps)}
    assert isinstance(result, EvaluateResult)
    assert figures(result.report) == undisturbed[kind, reference]
    assert not work_of(job).exists()
    assert list_jobs()[-1].result == result


@pytest.mark.parametrize("at", [2, 11])
def test_stopped_with_work_in_memory_only(place, undisturbed, monkeypatch, at):
    monkeypatch.setattr(states, "SAVING_SECONDS", 1e9)
    job = begin(asked(place), at)
    assert figures(resume(job).report) == undisturbed["untied", True]


KILLED = """
import os, signal, sys
from engine import states
from engine.api.jobs import EvaluateRequest
from engine.evaluate import evaluate
states.SAVING_SECONDS, states.SAVING_SHARE = 0, float("inf")
left = int(sys.argv[2])
def listener(event):
    global left
    left -= event.stage == "evaluate"
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
evaluate(EvaluateRequest.model_validate_json(sys.argv[1]), listener)
"""


def test_killed_and_resumed_by_another_process(place, undisturbed):
    request = asked(place).model_dump_json()
    done = subprocess.run([sys.executable, "-c", KILLED, request, "7"], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [listed] = list_jobs()
    assert (listed.kind, listed.state, listed.output) == ("evaluate", "interrupted", "")
    assert str(listed.saved) == "3 of 4 blocks measured"
    listener = Stopping(-1)
    result = resume(listed.id, listener)
    assert figures(result.report) == undisturbed["untied", True]
    assert len(listener.seen) == 13 - 7


@pytest.mark.parametrize("name", ["hidden model", "hidden reference", "scores"])
def test_a_damaged_file_costs_work_and_nothing_else(place, undisturbed, name):
    job = begin(asked(place), 10)
    path = work_of(job) / name
    used = next(unit for unit in reversed(Job.find(job).journal.units().values()) if unit.file.endswith(name))
    flip(path, used.offset + 9)
    listener = Stopping(-1)
    result = resume(job, listener)
    assert figures(result.report) == undisturbed["untied", True]
    assert len(listener.seen) > 13 - 10


def test_a_missing_file_costs_work_and_nothing_else(place, undisturbed):
    job = begin(asked(place), 10)
    (work_of(job) / "hidden model").unlink()
    assert figures(resume(job).report) == undisturbed["untied", True]


def test_windows_that_are_scored_need_their_hidden_states_no_more(place, undisturbed):
    job = begin(asked(place), 12)  # the first batch's windows are done
    for unit in Job.find(job).journal.units().values():
        if unit.unit.endswith("/2/0"):
            flip(work_of(job).parent / unit.file, unit.offset)
    listener = Stopping(-1)
    assert figures(resume(job, listener).report) == undisturbed["untied", True]
    assert len(listener.seen) == 1


def test_all_is_scored_and_only_the_report_is_missing(place, undisturbed, monkeypatch):
    job = begin(asked(place), 13)

    def load(*_: object) -> None:
        pytest.fail("a weight was read")

    monkeypatch.setattr("engine.streaming.StreamedModel.embedding", load)
    monkeypatch.setattr("engine.streaming.StreamedModel.head", load)
    listener = Stopping(-1)
    assert figures(resume(job, listener).report) == undisturbed["untied", True]
    assert listener.seen == []


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_journal_costs_work_and_nothing_else(place, undisturbed, seed):
    job = begin(asked(place), 10)
    path = Job.find(job).journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    chance = random.Random(seed)
    for _ in range(3):
        lines.pop(chance.randrange(len(lines)))
    victim = chance.randrange(len(lines))
    lines[victim] = lines[victim].replace(b"1", b"2").replace(b"{", b"[", chance.randrange(2))
    path.write_bytes(b"".join(lines)[: -chance.randrange(60) - 1])
    assert figures(resume(job).report) == undisturbed["untied", True]


@pytest.mark.parametrize("at", [3, 9])
def test_the_power_fails(place, undisturbed, monkeypatch, at):
    """Files are cut back to what they held at their last fsync; of those that had none, nothing is left."""
    safe: dict[Path, bytes] = {}
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_file():
            safe[path.with_name(path.name.removesuffix(".partial"))] = path.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        job = begin(asked(place), at)
    for path in work_of(job).parent.rglob("*"):
        if path.is_file() and path.name not in ("lock", "engine.log"):
            path.write_bytes(safe[path]) if path in safe else path.unlink()
    assert figures(resume(job).report) == undisturbed["untied", True]


def test_what_the_window_is_told(place):
    events: list = []
    result = evaluate(asked(place), silent, events.append)
    assert isinstance(events[0], JobStarted)
    assert (events[0].job, events[0].output) == (result.job, "")
    told = [str(event.saved) for event in events if isinstance(event, ProgressSaved)]
    blocks = [line for line in told if line.endswith("of 4 blocks measured")]
    assert blocks == [f"{n} of 4 blocks measured" for n in range(5)]
    assert told[len(blocks) :] == [f"{n} of 5 windows scored" for n in range(1, 6)]
    metrics = {event.name: event.value for event in events if isinstance(event, Metric)}
    assert metrics["kl_mean"] == result.report.kl_mean
    [listed] = list_jobs()
    assert (listed.state, listed.request, listed.result) == ("done", asked(place), result)


def test_refused_before_there_is_a_job(place, tmp_path):
    (tmp_path / "short").write_text("Too short.")
    with pytest.raises(ShortTextError):
        evaluate(asked(place).model_copy(update={"text": str(tmp_path / "short")}))
    with pytest.raises(EvaluationError):
        evaluate(asked(place).model_copy(update={"protocol": "wiki"}))
    assert list_jobs() == []


def test_no_room_for_the_hidden_states_is_one_sentence(place, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        OutputError, match=r"needs 5,242,880 bytes .* 1,000 free; .*fewer windows.*XDG_STATE_HOME"
    ):
        evaluate(asked(place))
    assert list_jobs() == []


@pytest.mark.parametrize("what", ["text", "threads", "tokenizer"])
def test_a_job_that_would_mix_two_states_is_not_resumed(place, tmp_path, what):
    text = tmp_path / "text"
    text.write_bytes((place / "text").read_bytes())
    model = write_llama(tmp_path / "model")
    request = asked(place, reference=False).model_copy(update={"text": str(text), "model": str(model)})
    job = begin(request, 2)
    if what == "text":
        text.write_text("B" + text.read_text())
    elif what == "threads":
        path = Job.find(job).folder / "job.json"
        content = json.loads(path.read_text())
        content["request"]["threads"] = 1
        path.write_text(json.dumps(content))
    else:
        path = model / "tokenizer.json"
        content = json.loads(path.read_text())
        content["model"]["merges"] = content["model"]["merges"][:-5]
        path.write_text(json.dumps(content))
    with pytest.raises(ChangedError, match=r"has changed|threads was 2, is 1"):
        resume(job)
    assert figures(resume(job, restart=True).report) != {}


BOUNDED = """
import resource, sys
from pathlib import Path
import numpy as np
from engine import states
from engine.evaluate import evaluate_files

def measure(windows):
    return evaluate_files(Path(sys.argv[1]), Path(sys.argv[2]), windows=windows, threads=1).windows

states.HELD_BYTES = 4 << 20
measure(4)  # loads what will be needed
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
room = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
try:
    np.ones(room + (16 << 20), np.uint8)
    sys.exit("the limit does not bind")
except MemoryError:
    pass
print(measure(88))
"""


def test_memory_does_not_grow_with_the_windows(tmp_path):
    """The hidden states of 88 windows take 185 MB, those that go through the block at a time 8 MB."""
    sizes = {"hidden_size": 1024, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    config = sizes | {"num_attention_heads": 1, "num_key_value_heads": 1}
    folder = write_llama(tmp_path / "model", config=config)
    (tmp_path / "text").write_text("\n".join(TEXT) * 170)
    command = [sys.executable, "-c", BOUNDED, str(folder), str(tmp_path / "text"), str(140 << 20)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "88\n"
