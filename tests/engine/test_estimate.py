"""What is estimated before a run, and refused with numbers: speeds, memory, disks, time."""

import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from itertools import product
from pathlib import Path

import pytest

from engine import estimate
from engine.api.errors import EvaluationError, MemoryLimitError, OutputError
from engine.api.formats import EFFORTS, FORMATS, METHODS
from engine.api.jobs import EvaluateRequest, Measure, QuantizeRequest
from engine.api.needs import CONVERTING, Disk, Needs, Speeds, Stage, encoder, quantize_memory
from engine.api.recipe import Choice, Recipe
from engine.checkpoint import open_checkpoint
from engine.estimate import STATE_BYTES, UNMEASURED, evaluate_needs, needs, refuse_needs, speeds
from engine.methods import warm_up
from engine.preparation import prepare
from engine.subjects import prepare as prepare_evaluation
from engine.summary import export_summary
from engine.terminal import needs_lines
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.tiny import write_llama

SPEEDS = Speeds(encode={"Q4_0 search best": 1e6, "F32": 1e9}, read=1e9, write=1e8, multiply=1e10)
RECIPE = Recipe(default=Choice(format="Q4_0"))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def request(output: Path, **changes: object) -> QuantizeRequest:
    fields = {"model": str(SAMPLE_MODEL), "output": str(output), "recipe": RECIPE, **changes}
    return QuantizeRequest.model_validate(fields)


def sample_needs(asked: QuantizeRequest, measured: Speeds = SPEEDS) -> Needs:
    with open_checkpoint(asked.model) as checkpoint:
        return needs(prepare(checkpoint, asked.recipe), asked, measured)


def test_every_encoder_is_timed_once():
    warm_up(FORMATS)  # what is not compiled is not timed
    found = speeds()
    kinds = product(FORMATS, METHODS, EFFORTS)
    assert set(found.encode) == {encoder(name, method, effort) for name, method, effort in kinds}
    assert min(*found.encode.values(), found.read, found.write, found.multiply) > 1e5
    assert found.encode["Q4_K search fast"] > found.encode["Q4_K search best"]
    began = time.perf_counter()
    assert speeds() == found
    assert time.perf_counter() - began < 0.05


def test_only_what_is_asked_for_is_timed(tmp_path):
    found = speeds([("Q8_0", "rtn", "best")], threads=1, folder=tmp_path)
    assert list(found.encode) == ["Q8_0 rtn"]
    assert list(tmp_path.iterdir()) == []
    assert speeds([], folder=tmp_path / "absent").write > 0


def test_encoders_that_were_never_compiled_here_are_not_waited_for(tmp_path):
    script = (
        "from engine.estimate import speeds\n"
        "print(speeds([('Q4_K', 'search', 'fast'), ('Q8_0', 'rtn', 'best')]).encode)"
    )

    def run(**environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={"PATH": "", "HOME": os.environ.get("HOME", "/"), **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    warm_up(["Q4_K"])  # compiled now, if they were not
    assert run().startswith("{'Q4_K search fast': ")
    assert run(NUMBA_CACHE_DIR=str(tmp_path)).startswith("{'Q8_0 rtn': ")


def test_compiling_takes_memory_that_is_counted(tmp_path, monkeypatch):
    warm = sample_needs(request(tmp_path / "o.gguf"))
    monkeypatch.setattr(estimate, "are_compiled", lambda formats: False)
    cold = sample_needs(request(tmp_path / "o.gguf"))
    assert cold.least_memory == cold.memory == CONVERTING.compiling > warm.memory
    with pytest.raises(MemoryLimitError, match="about 490 MB"):
        refuse_needs(sample_needs(request(tmp_path / "o.gguf", memory_limit=480_000_000)))


def test_the_needs_of_quantizing(tmp_path):
    found = sample_needs(request(tmp_path / "o.gguf"))
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        assert found.memory == quantize_memory(export_summary(checkpoint), 0)
        size = prepare(checkpoint, RECIPE).size
    assert [stage.name for stage in found.stages] == ["start", "check", "encode", "verify"]
    assert found.seconds == sum(stage.seconds for stage in found.stages)
    assert found.least_memory < found.memory < found.memory_available
    output, job = found.disks
    assert (output.what, output.folder, output.bytes) == ("output", str(tmp_path), size)
    assert (job.what, job.folder) == ("job", str(tmp_path / "state" / "bitwright" / "jobs"))
    assert job.free is not None
    refuse_needs(found)


def test_memory_and_disk_are_told_without_measuring_speeds(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "speeds", lambda *_: pytest.fail("measured"))
    asked = request(tmp_path / "o.gguf", measure=Measure(text=str(EVALUATION_TEXT), windows=2))
    timed, untimed = sample_needs(asked), sample_needs(asked, UNMEASURED)
    assert untimed.seconds is None
    assert (untimed.memory, untimed.least_memory) == (timed.memory, timed.least_memory)
    assert [disk.bytes for disk in untimed.disks] == [disk.bytes for disk in timed.disks]


@pytest.mark.parametrize(("windows", "protocol"), [(3, "llama.cpp"), (7, "llama.cpp"), (2, "gptq")])
def test_the_room_for_hidden_states_is_that_of_the_measurement(tmp_path, windows, protocol):
    asked = Measure(text=str(EVALUATION_TEXT), windows=windows, protocol=protocol)
    with_measure = sample_needs(request(tmp_path / "o.gguf", measure=asked))
    alone = sample_needs(request(tmp_path / "o.gguf"))
    states = with_measure.disks[1].bytes - alone.disks[1].bytes
    with prepare_evaluation(SAMPLE_MODEL, EVALUATION_TEXT, SAMPLE_MODEL, protocol, windows) as prepared:
        if prepared.tokens.shape[1] == prepared.rules.length:
            assert states == prepared.disk
        else:  # the model's context is shorter than the protocol's windows
            assert states >= prepared.disk
    assert with_measure.stages[-1].name == "measure"
    assert with_measure.memory > alone.memory


def test_all_windows_of_a_text_are_guessed_from_its_beginning(tmp_path):
    asked = Measure(text=str(EVALUATION_TEXT))
    guessed = sample_needs(request(tmp_path / "o.gguf", measure=asked))
    with prepare_evaluation(SAMPLE_MODEL, EVALUATION_TEXT, SAMPLE_MODEL) as prepared:
        assert guessed.disks[1].bytes == pytest.approx(prepared.disk, rel=0.15)


def test_what_evaluating_takes():
    asked = EvaluateRequest(model=str(SAMPLE_MODEL), text=str(EVALUATION_TEXT))
    with (
        open_checkpoint(SAMPLE_MODEL) as checkpoint,
        prepare_evaluation(SAMPLE_MODEL, EVALUATION_TEXT) as prepared,
    ):
        alone = evaluate_needs(asked, prepared.tokens.shape, checkpoint, None, SPEEDS)
        against = evaluate_needs(asked, prepared.tokens.shape, checkpoint, checkpoint, SPEEDS)
        assert alone.disks[0].bytes == prepared.disk + STATE_BYTES
    assert against.disks[0].bytes > 1.9 * alone.disks[0].bytes
    assert against.seconds > 1.5 * alone.seconds
    assert against.memory > alone.memory


def test_a_reference_that_is_wider_takes_more(tmp_path):
    narrow = write_llama(tmp_path / "narrow")
    asked = EvaluateRequest(model=str(narrow), text=str(EVALUATION_TEXT), reference=str(SAMPLE_MODEL))
    with open_checkpoint(narrow) as one, open_checkpoint(SAMPLE_MODEL) as other:
        mixed, *each, wide = (
            evaluate_needs(asked, (40, 512), *subjects, measured=SPEEDS)
            for subjects in ((one, other), (one,), (other,), (other, other))
        )
    hidden = [found.disks[0].bytes - STATE_BYTES for found in each]
    assert mixed.disks[0].bytes - STATE_BYTES == sum(hidden)
    assert hidden[1] > 2 * hidden[0]
    assert mixed.least_memory == wide.least_memory


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="Cannot read the text"):
        sample_needs(request(tmp_path / "o.gguf", measure=Measure(text=str(tmp_path / "absent"))))


def test_a_limit_that_the_libraries_alone_pass_is_refused_with_numbers(tmp_path):
    found = sample_needs(request(tmp_path / "o.gguf", memory_limit=340_000_000))
    with pytest.raises(MemoryLimitError, match=r"about 34\d MB of memory, and the limit is 340 MB; raise"):
        refuse_needs(found)
    fits = sample_needs(request(tmp_path / "o.gguf", memory_limit=400_000_000))
    assert fits.memory == 400_000_000
    refuse_needs(fits)


def test_measuring_that_does_not_fit_can_be_left_out(tmp_path):
    asked = Measure(text=str(EVALUATION_TEXT), windows=2)
    found = sample_needs(request(tmp_path / "o.gguf", memory_limit=400_000_000, measure=asked))
    with pytest.raises(MemoryLimitError, match=r"the limit is 400 MB; .*, or measure nothing\."):
        refuse_needs(found)


def machine(**changes: object) -> Needs:
    """Needs that are met, but for the `changes`."""
    fields = {
        "memory": 500_000_000,
        "least_memory": 400_000_000,
        "memory_limit": None,
        "memory_available": 10**10,
        "disks": [],
        "seconds": 100.4,
        "stages": [Stage(name="start", memory=1, seconds=5.4), Stage(name="encode", memory=1, seconds=95)],
    }
    return Needs.model_validate(fields | changes)


def test_a_machine_without_the_memory_is_refused():
    with pytest.raises(MemoryLimitError, match="the machine has 340 MB available; close other programs"):
        refuse_needs(machine(memory_available=340_000_000))
    refuse_needs(machine(memory_available=450_000_000))  # in smaller pieces
    refuse_needs(machine(memory_available=None))


def test_what_lies_on_one_disk_counts_together(tmp_path):
    one = Disk(what="output", folder=str(tmp_path), bytes=600, free=1000)
    refuse_needs(machine(disks=[one, one.model_copy(update={"what": "job", "bytes": 400})]))
    too_much = one.model_copy(update={"what": "job", "bytes": 500, "folder": str(tmp_path / "not yet there")})
    with pytest.raises(OutputError, match="this needs 1,100 bytes on its disk, which has 1,000 free"):
        refuse_needs(machine(disks=[one, too_much]))
    refuse_needs(machine(disks=[one, too_much.model_copy(update={"free": None})]))


def test_what_an_earlier_run_has_written_is_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 1000))
    assert sample_needs(request(tmp_path / "o.gguf")).disks[0].free == 1000
    (tmp_path / "o.gguf.partial").write_bytes(bytes(8192))
    assert sample_needs(request(tmp_path / "o.gguf")).disks[0].free >= 1000 + 8192


def test_what_the_terminal_says():
    disks = [
        Disk(what="output", folder="/out", bytes=182_000_000, free=65_000_000_000),
        Disk(what="job", folder="/state", bytes=1_000_000, free=None),
    ]
    assert needs_lines(machine(disks=disks)) == [
        "Memory: about 500 MB (10 GB available)",
        "Disk: 182 MB in /out (65 GB free)",
        "Disk: 1 MB for the job in /state",
        "Time: about 2 min (start 0:05, encode 1:35)",
    ]
    assert needs_lines(machine(memory_limit=800_000_000, memory_available=None, seconds=None)) == [
        "Memory: about 500 MB (limit 800 MB)",
        "Time: not known before the encoders are compiled (`bitwright warm-up` does it)",
    ]
