"""Bounded memory, measured: a large checkpoint under a limit, and what happens when memory is refused."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import writing
from engine.api.jobs import EvaluateRequest, QuantizeRequest
from engine.api.recipe import Choice, Recipe, Rule
from engine.evaluate import evaluate
from engine.jobs import limits
from engine.jobs.folder import Job, all_jobs
from engine.jobs.limits import NO_MEMORY, MemoryGuard, private_memory
from engine.methods import warm_up
from engine.quantize import quantize
from engine.resume import resume
from resources import EVALUATION_TEXT
from tests.large import large_config, write_large
from tests.tiny import write_llama

ABOVE_IMPORTS = 200_000_000
"""Bytes that a checkpoint of any size may take on top of the libraries."""

RECIPE = Recipe(rules=[Rule(match="down", format="Q6_K")], default=Choice(format="Q4_K", method="rtn"))
"""The slow encoder for some, the fast one for most: the memory is that of the slow one."""

IMPORTS = """
import ctypes, resource, sys
import engine.cli, engine.methods, engine.quantize, torch, transformers
from engine.jobs.limits import private_memory
"""

QUANTIZE = f"""{IMPORTS}
from engine.api.jobs import QuantizeRequest
print(private_memory(), flush=True)
request = QuantizeRequest.model_validate_json(sys.argv[1])
request = request.model_copy(update={{"memory_limit": private_memory() + {ABOVE_IMPORTS}}})
print(engine.quantize.quantize(request).model_dump_json(), flush=True)
"""

REFUSE = """
def refuse(more=0):
    "From now on the system gives no more private memory than `more` bytes."
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    used = int(status["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, used + more))

def refuse_in(module, name, call, more=0):
    "Refuse when the function is called for the `call`-th time."
    def counting(*given, **named):
        nonlocal call
        call -= 1
        if call == 0:
            refuse(more)
            bytearray(256 << 20)  # more than what was freed before and is still at hand
        return real(*given, **named)
    real = getattr(module, name)
    setattr(module, name, counting)
"""

REFUSED_PIECE = f"""{IMPORTS}{REFUSE}
import engine.writing
engine.writing.PIECE = engine.writing.LEAST_PIECE = 40 << 20  # nothing can be made smaller
refuse_in(engine.methods, "encode", 18)  # in the second block
engine.cli.main()
"""

REFUSED_BATCH = f"""{IMPORTS}{REFUSE}
import engine.states, engine.streaming
engine.states.SAVING_SECONDS = 0.0
refuse_in(engine.streaming.StreamedModel, "run", 2)
engine.cli.main()
"""

REFUSED_FROM_THE_START = f"""{IMPORTS}{REFUSE}
# With room for small things: no job holds any back yet, and Python dies where it gets no stack for a call.
refuse_in(engine.quantize, "prepare", 1, more=32 << 20)
engine.cli.main()
"""

pytestmark = pytest.mark.skipif(
    private_memory() == 0, reason="the system does not tell how much memory is used"
)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """The encoders are compiled here, not under a limit."""
    warm_up(["Q4_K", "Q6_K"])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Its matrices are so large that the C library gets pages for each, and the system can refuse them."""
    folder = tmp_path_factory.mktemp("memory") / "model"
    write_large(folder, large_config(blocks=2, vocab_size=4096), shards=2)
    return folder


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def start(*command: str, state: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "", "HOME": os.environ.get("HOME", "/"), "XDG_STATE_HOME": str(state)},
    )


def run(*command: str, state: Path) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = start(*command, state=state)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def watched(process: subprocess.Popen) -> int:
    """The highest RssAnon of a process, in bytes, seen from outside until it ends."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        used = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max([peak, *(1024 * kilobytes for kilobytes in used)])
        time.sleep(0.01)
    return peak


def test_a_checkpoint_of_600_mb_takes_less_than_200_mb_above_imports(tmp_path, state):
    """The limit is obeyed, as the job says and as it is seen from outside."""
    if shutil.disk_usage(tmp_path).free < 2_000_000_000:
        pytest.skip("less than 2 GB are free on the disk of temporary files")
    weights = write_large(tmp_path / "model", large_config(blocks=6), shards=3)
    assert weights > 600_000_000
    output = tmp_path / "o.gguf"
    request = QuantizeRequest(model=str(tmp_path / "model"), output=str(output), recipe=RECIPE)
    process = start("-c", QUANTIZE, request.model_dump_json(), state=state)
    peak = watched(process)
    out, err = process.communicate()
    assert process.returncode == 0, err
    imports, result = (json.loads(line) for line in out.splitlines())
    assert output.stat().st_size == result["predicted_bytes"]
    assert peak - imports < ABOVE_IMPORTS
    assert result["peak_private_bytes"] - imports < ABOVE_IMPORTS
    assert result["peak_private_bytes"] == pytest.approx(peak, rel=0.05)
    shutil.rmtree(tmp_path / "model")


def test_pieces_that_shrink_give_the_same_bytes(tmp_path, state, monkeypatch):
    model = write_llama(tmp_path / "model", config={"hidden_size": 256, "intermediate_size": 512})
    shares = []
    real = MemoryGuard.share

    def share(guard: MemoryGuard, wanted: int, least: int) -> int:
        shares.append(real(guard, wanted, least))
        return shares[-1]

    monkeypatch.setattr(MemoryGuard, "share", share)
    monkeypatch.setattr(writing, "PIECE", 1 << 17)
    monkeypatch.setattr(writing, "LEAST_PIECE", 1 << 11)

    def made(name: str) -> bytes:
        output = tmp_path / name
        quantize(QuantizeRequest(model=str(model), output=str(output), recipe=RECIPE))
        return output.read_bytes()

    whole = made("whole.gguf")
    assert set(shares) == {1 << 17}
    shares.clear()
    monkeypatch.setattr(limits, "PRESSURE", 0.0)
    monkeypatch.setattr(MemoryGuard, "_drop", lambda guard, at_once: None)
    assert made("pieces.gguf") == whole
    assert shares[0] == 1 << 17
    assert shares[-1] == 1 << 11


def refused(script: str, *command: str, state: Path) -> str:
    """The id of the job that ended in one sentence because the system gave no more memory."""
    code, out, err = run("-c", script, *command, state=state)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: The memory ran out (peak ")
    assert err.count("\n") == 1
    return err.rsplit("bitwright resume ", 1)[1].strip()


def test_quantizing_without_memory_ends_in_a_sentence_and_is_resumed(model, tmp_path, state):
    recipe = Recipe(default=Choice(format="Q4_0", method="rtn"))
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    broken, whole = tmp_path / "broken.gguf", tmp_path / "whole.gguf"
    command = ["quantize", str(model), "--recipe", str(tmp_path / "recipe.json"), "--out", str(broken)]
    job = refused(REFUSED_PIECE, *command, state=state)
    assert not broken.exists()
    assert Job.find(job).summary().saved.done > 0
    resume(job)
    quantize(QuantizeRequest(model=str(model), output=str(whole), recipe=recipe))
    assert broken.read_bytes() == whole.read_bytes()


def test_measuring_without_memory_ends_in_a_sentence_and_is_resumed(model, state):
    asked = EvaluateRequest(model=str(model), text=str(EVALUATION_TEXT), windows=2)
    command = ["evaluate", asked.model, "--text", asked.text, "--windows", "2"]
    job = refused(REFUSED_BATCH, *command, state=state)
    assert Job.find(job).summary().saved.done > 0
    reports = [result.report.model_dump(exclude={"seconds"}) for result in (resume(job), evaluate(asked))]
    assert reports[0] == reports[1]


def test_no_memory_from_the_start_ends_in_a_sentence(model, tmp_path, state):
    command = ["quantize", str(model), "--preset", "Q4_0", "--out", str(tmp_path / "o.gguf")]
    said = run("-c", REFUSED_FROM_THE_START, *command, state=state)
    assert said == (2, "", f"error: {NO_MEMORY}\n")
    assert all_jobs() == []
    assert list(tmp_path.glob("o.gguf*")) == []
