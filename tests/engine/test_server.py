"""The engine as the window meets it: a real process behind pipes, that is cancelled, killed and lied to."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue

import pytest

from engine.api import events, messages, requests
from engine.api.jobs import ActivationsRequest, CalibrateRequest, Measure, QuantizeRequest
from engine.api.presets import ModelFacts
from engine.api.recipe import Choice, GgufOptions, Recipe
from engine.api.views import HistogramOf
from engine.checkpoint import open_checkpoint
from engine.jobs.folder import list_jobs
from engine.methods import warm_up
from engine.preparation import prepare
from engine.quantize import quantize
from engine.server import Inbox
from tests.tiny import write_llama

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "resources" / "sample-model"
PATIENCE = 120.0
"""Seconds that any answer may take on a loaded machine; none of the tests waits for it in vain."""

SERVE = "from engine.server import serve\nserve()\n"

AT_THE_EIGHTH_PIECE = """
import engine.writing, os, pathlib, time
real, calls = engine.writing._encode, [0]
def encode(*a):
    calls[0] += 1
    if calls[0] == 8:
        pathlib.Path(os.environ["REACHED"]).touch()
        {what}
    return real(*a)
engine.writing._encode = encode
"""

FLOATS = Recipe(default=Choice(format="F32"))

STUCK = AT_THE_EIGHTH_PIECE.format(what="while True: time.sleep(0.02)") + SERVE
DEAF = (
    """
import os, pathlib, time
from engine.jobs.units import UnitFile
real, calls = UnitFile.commit, [0]
def commit(*a):  # on the main thread
    calls[0] += 1
    if calls[0] == 8:
        pathlib.Path(os.environ["REACHED"]).touch()
        while True:
            try: time.sleep(0.02)
            except KeyboardInterrupt: pass
    return real(*a)
UnitFile.commit = commit
"""
    + SERVE
)
BROKEN = AT_THE_EIGHTH_PIECE.format(what="raise ZeroDivisionError('boom')") + SERVE
NOISY = (
    "import engine.writing, os\n"
    "real = engine.writing._encode\n"
    "def noisy(*a):\n"
    "    print('noise from Python')\n"
    "    os.write(1, b'noise from C\\n')\n"
    "    return real(*a)\n"
    "engine.writing._encode = noisy\n"
) + SERVE


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("REACHED", str(tmp_path / "reached"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A GGUF: planning its output needs no transformers, which takes seconds to load."""
    folder = tmp_path_factory.mktemp("server")
    request = job(write_llama(folder / "model"), folder / "model.gguf", recipe=FLOATS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(folder / "state"))
        quantize(request)
    return folder / "model.gguf"


class Engine:
    """`python -m engine serve`, or a script that ends in it; its events come through a queue."""

    def __init__(self, script: str | None = None) -> None:
        command = (
            [sys.executable, "-m", "engine", "serve"] if script is None else [sys.executable, "-c", script]
        )
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.events: list[events.Event] = []
        self.noise = b""
        self._arrived: Queue[events.Event | None] = Queue()
        self._threads = [threading.Thread(target=work) for work in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arrived.put(events.read_event(line))  # anything else but an event fails the test
        self._arrived.put(None)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.noise = self.process.stderr.read()

    def send(self, *asked: requests.Request) -> None:
        for request in asked:
            self.write(messages.write(request))

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def wait(self, kind: type, **fields: object) -> events.Event:
        """The next event of this kind with these fields; those before are kept in `events` too."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                event = self._arrived.get(timeout=max(0, deadline - time.monotonic()))
            except Empty:
                pytest.fail(f"no {kind.__name__} came; {self.events}")
            if event is None:
                pytest.fail(f"the engine ended without {kind.__name__}: {self.events} {self.noise.decode()}")
            self.events.append(event)
            if isinstance(event, kind) and all(getattr(event, key) == fields[key] for key in fields):
                return event

    def end(self) -> int:
        """Wait for the end of the process; all that it said is in `events`."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        while (event := self._arrived.get(timeout=PATIENCE)) is not None:
            self.events.append(event)
        return code

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def leave(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def start() -> Iterator:
    started: list[Engine] = []

    def begin(script: str | None = None) -> Engine:
        started.append(Engine(script))
        started[-1].wait(events.Hello)
        return started[-1]

    yield begin
    for engine in started:
        engine.leave()


def job(model: Path, output: Path, **changes: object) -> QuantizeRequest:
    recipe = Recipe(default=Choice(format="Q4_0"))
    return QuantizeRequest.model_validate(
        {"model": str(model), "output": str(output), "recipe": recipe, **changes}
    )


def until_reached(tmp_path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "reached").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stuck(start, model: Path, output: Path, script: str = STUCK) -> Engine:
    """An engine in the middle of a job that goes no further."""
    engine = start(script)
    engine.send(requests.StartQuantize(quantize=job(model, output)))
    engine.wait(events.JobStarted)
    until_reached(output.parent)
    return engine


def finished_by_another(start, engine: Engine, model: Path, output: Path) -> None:
    """The job of `engine` can be resumed, and ends with the bytes of an undisturbed one."""
    assert not output.exists()
    (listed,) = list_jobs()
    assert listed.state == "interrupted"
    assert listed.saved is not None
    assert listed.saved.done < listed.saved.total
    assert listed.id == engine.of(events.JobStarted)[0].job
    other = start()
    other.send(requests.ResumeJob(job=listed.id))
    assert other.wait(events.Done).result.bytes == output.stat().st_size
    assert other.end() == 0
    whole = output.with_name("whole.gguf")
    quantize(job(model, whole))
    assert output.read_bytes() == whole.read_bytes()


# ----------------------------------------------------------------------------------- inspecting


def test_hello_and_a_quiet_end(start):
    engine = start()
    hello = engine.events[0]
    assert hello.protocol == messages.PROTOCOL
    assert hello.pid == engine.process.pid
    assert hello.devices == [f"cpu: {len(os.sched_getaffinity(0))} threads"]
    assert os.getpriority(os.PRIO_PROCESS, hello.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    engine.close_stdin()
    assert engine.end() == 0
    assert engine.noise == b""


def test_a_model_comes_in_pages_then_its_output(start):
    engine = start()
    engine.send(requests.OpenModel(id=7, model=str(SAMPLE)))
    summary = engine.wait(events.ModelOpened, id=7).summary
    assert (summary.parameters, summary.tensors) == (14_684_672, [])
    assert len(engine.wait(events.TensorsPage, last=True).tensors) == 38
    export = engine.wait(events.ExportPlanned, id=7).export
    export.tensors = engine.wait(events.ExportPage, last=True).tensors
    assert export.facts == ModelFacts("llama", 4, tied=True, group=2)
    recipe = Recipe(default=Choice(format="Q5_K"))
    with open_checkpoint(SAMPLE) as checkpoint:
        prepared = prepare(checkpoint, recipe)
    assert export.file_bytes(prepared.plan, GgufOptions()) == prepared.size


def test_a_long_list_is_split(start, tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    many = write_llama(tmp_path / "many", config={"num_hidden_layers": 250, "head_dim": 8, **sizes})
    engine = start()
    engine.send(requests.OpenModel(id=1, model=str(many)))
    engine.wait(events.ExportPage, last=True)
    pages = engine.of(events.TensorsPage)
    assert [len(page.tensors) for page in pages] == [2000, 253]
    assert [page.last for page in pages] == [False, True]
    planned = engine.of(events.ExportPage)
    assert [len(page.tensors) for page in planned] == [1000, 1000, 253]
    assert len({tensor.name for page in planned for tensor in page.tensors}) == 2253


def test_what_fails_is_said_and_the_engine_goes_on(start, tmp_path):
    mute = write_llama(tmp_path / "mute", tokenizer=None)
    engine = start()
    engine.write(b"garbage\n\xff\xfe\n{}\n" + b"[" * 100_000 + b"\n")
    for _ in range(4):
        assert engine.wait(events.Failed).code == "protocol"
    engine.send(requests.OpenModel(id=1, model=str(tmp_path / "absent")))
    failed = engine.wait(events.Failed, id=1)
    assert (failed.code, failed.traceback) == ("user", "")
    assert str(tmp_path / "absent") in failed.message
    engine.send(requests.OpenModel(id=2, model=str(mute)))  # can be looked at, but not exported
    assert engine.wait(events.ModelOpened, id=2).summary.blocks == 2
    assert "tokenizer" in engine.wait(events.Failed, id=2).message
    nonsense = HistogramOf(tensor="nonsense")
    engine.send(requests.ReadFigure(id=3, model=str(mute), place="here", view=nonsense))
    assert "nonsense" in engine.wait(events.Failed, id=3).message
    engine.send(requests.ListJobs(id=4))
    assert engine.wait(events.JobsListed, id=4).jobs == []
    engine.send(requests.Cancel())
    assert engine.wait(events.Stopped).job == ""
    assert engine.end() == 0


def test_checks(start, model, tmp_path):
    engine = start()
    engine.send(requests.CheckRun(id=1, quantize=job(model, tmp_path / "o.gguf")))
    checks = {check.name: check.passed for check in engine.wait(events.Checked, id=1).checks}
    assert checks["output"] is True
    assert checks["weights"] is None


def test_newer_requests_replace_older_ones():
    inbox = Inbox()
    columns = [requests.ReadImportanceColumns(id=i, files=["f"], tensor="t") for i in range(4)]
    opens = [requests.OpenModel(id=10 + i, model="m") for i in range(2)]
    listing = requests.ListJobs(id=20)
    for request in (opens[0], listing, columns[0], columns[1], opens[1], columns[2], columns[3]):
        inbox.put(request)
    assert [inbox.get(None) for _ in range(3)] == [listing, opens[1], columns[3]]
    with pytest.raises(TimeoutError):
        inbox.get(0)
    inbox.close()
    assert inbox.get(None) is None


# ----------------------------------------------------------------------------------------- jobs


def test_a_job_from_request_to_file(start, model, tmp_path):
    output, text = tmp_path / "o.gguf", tmp_path / "t.txt"
    text.write_text("The harbour was quiet that morning. " * 200)
    warm_up(["Q4_0"])  # compiled, if it was not
    engine = start()
    engine.send(
        requests.StartQuantize(quantize=job(model, output, measure=Measure(text=str(text), windows=1))),
        requests.ListJobs(id=9),
        requests.StartQuantize(quantize=job(model, tmp_path / "p.gguf")),
    )
    result = engine.wait(events.Done).result
    assert engine.end() == 0
    assert result.bytes == output.stat().st_size
    assert result.report is not None
    assert not (tmp_path / "p.gguf").exists()
    assert [(failed.code, failed.id) for failed in engine.of(events.Failed)] == [
        ("busy", 9),
        ("busy", None),
    ]
    (started,) = engine.of(events.JobStarted)
    assert (started.job, started.output) == (result.job, str(output))
    assert "output.weight: Q4_0" in Path(started.log).read_text()
    assert [artifact.path for artifact in engine.of(events.Artifact)] == [str(output)]
    stages = [event.stage for event in engine.of(events.StageStarted)]
    assert stages == [
        "prepare",
        "load encoders",
        "check weights",
        "quantize",
        "verify",
        "load model code",
        "evaluate",
    ]
    quantized = [event for event in engine.of(events.ProgressMade) if event.stage == "quantize"]
    assert quantized[-1].done == quantized[-1].total
    metrics = {metric.name: metric.value for metric in engine.of(events.Metric)}
    assert metrics["kl_mean"] == result.report.kl_mean
    assert metrics["perplexity"] == result.report.perplexity


def test_an_importance_matrix_from_request_to_file(start, model, tmp_path):
    (tmp_path / "t.txt").write_text("The harbour was quiet that morning. " * 200)
    output = str(tmp_path / "i.gguf")
    asked = CalibrateRequest(model=str(model), texts=[str(tmp_path / "t.txt")], output=output, windows=1)
    engine = start()
    engine.send(requests.StartCalibrate(calibrate=asked))
    result = engine.wait(events.Done).result
    assert engine.end() == 0
    assert (result.kind, result.bytes) == ("calibrate", Path(output).stat().st_size)
    assert [artifact.path for artifact in engine.of(events.Artifact)] == [output]
    assert "calibrate" in [event.stage for event in engine.of(events.StageStarted)]


def test_activations_of_a_prompt_from_request_to_file(start, model):
    engine = start()
    asked = ActivationsRequest(model=str(model), prompt="The harbour was quiet.")
    engine.send(requests.StartActivations(activations=asked))
    result = engine.wait(events.Done).result
    assert engine.end() == 0
    assert (result.kind, result.bytes) == ("activations", Path(result.output).stat().st_size)
    assert engine.of(events.JobStarted)[0].output == result.output
    assert "activations" in [event.stage for event in engine.of(events.StageStarted)]


def test_libraries_that_print_do_not_break_the_protocol(start, model, tmp_path):
    engine = start(NOISY)
    engine.send(requests.StartQuantize(quantize=job(model, tmp_path / "o.gguf")))
    engine.wait(events.Done)
    assert engine.end() == 0
    assert b"noise from Python" in engine.noise
    assert b"noise from C" in engine.noise


def test_cancelled_and_resumed(start, model, tmp_path):
    engine = stuck(start, model, tmp_path / "o.gguf")
    assert engine.wait(events.Heartbeat).memory > 1 << 20  # alive, though it makes no progress
    engine.send(requests.Cancel(), requests.Cancel())
    stopped = engine.wait(events.Stopped)
    assert stopped.job == engine.of(events.JobStarted)[0].job
    assert engine.end() == 0
    finished_by_another(start, engine, model, tmp_path / "o.gguf")


def test_cancelled_before_it_has_begun(start, model, tmp_path):
    engine = start()
    engine.send(requests.StartQuantize(quantize=job(model, tmp_path / "o.gguf")), requests.Cancel())
    engine.wait(events.Stopped)
    assert engine.end() == 0
    assert engine.of(events.Failed) == []
    assert not (tmp_path / "o.gguf").exists()


def test_ends_with_its_stdin(start, model, tmp_path):
    engine = stuck(start, model, tmp_path / "o.gguf")
    engine.close_stdin()
    assert engine.end() == 0
    finished_by_another(start, engine, model, tmp_path / "o.gguf")


def test_ends_when_nobody_reads_it(start, model, tmp_path):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=ROOT, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    with process:
        assert process.stdin is not None
        process.stdin.write(messages.write(requests.StartQuantize(quantize=job(model, tmp_path / "o.gguf"))))
        process.stdin.flush()
        until_reached(tmp_path)
        os.close(reading)
        assert process.wait(PATIENCE) == 0
    assert list_jobs()[-1].state == "interrupted"


def test_ends_with_its_stdin_even_if_the_work_cannot_be_stopped(start, model, tmp_path):
    engine = stuck(start, model, tmp_path / "o.gguf", DEAF)
    engine.close_stdin()
    assert engine.end() == 1
    finished_by_another(start, engine, model, tmp_path / "o.gguf")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_killed_and_resumed(start, model, tmp_path, number):
    engine = stuck(start, model, tmp_path / "o.gguf")
    engine.process.send_signal(number)
    assert engine.end() == (0 if number == signal.SIGTERM else -number)
    if number == signal.SIGSEGV:
        assert b"Segmentation fault" in engine.noise  # faulthandler's trace
    finished_by_another(start, engine, model, tmp_path / "o.gguf")


def test_a_job_that_the_user_can_mend_and_one_that_only_we_can(start, model, tmp_path):
    engine = start()
    engine.send(requests.StartQuantize(quantize=job(model, tmp_path / "absent" / "o.gguf")))
    failed = engine.wait(events.Failed)
    assert (failed.code, failed.id) == ("user", None)
    assert "does not exist" in failed.message
    assert engine.end() == 2
    engine = start(BROKEN)
    engine.send(requests.StartQuantize(quantize=job(model, tmp_path / "o.gguf")))
    failed = engine.wait(events.Failed)
    assert failed.code == "defect"
    assert "ZeroDivisionError: boom" in failed.traceback
    assert engine.end() == 1
    (listed,) = list_jobs()
    assert (listed.state, listed.message) == ("failed", "ZeroDivisionError: boom")
    assert "boom" in (Path(listed.folder) / "engine.log").read_text()
