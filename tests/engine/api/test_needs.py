"""Estimates of memory against measured peaks: never below, not far above."""

import json
import subprocess
import sys

import pytest

from engine.api.model import Role
from engine.api.needs import LARGEST_HIDDEN, MEASURE_BASE, measure_memory, quantize_memory
from engine.api.plan import ExportSummary, ExportTensor
from engine.api.presets import ModelFacts
from engine.checkpoint import open_checkpoint
from engine.export.gguf import plan_export
from engine.jobs.limits import private_memory
from resources import EVALUATION_TEXT, SAMPLE_MODEL

HEADER_BYTES = 130_464
"""Of the sample model's file."""

MEASURE = f"""
model, text = {str(SAMPLE_MODEL)!r}, {str(EVALUATION_TEXT)!r}
from pathlib import Path
from engine.evaluate import evaluate
from engine.jobs.limits import PeakMemory
with PeakMemory() as memory:
    evaluate(Path(model), Path(text), Path(model), windows=16)
print(memory.peak)
"""

pytestmark = pytest.mark.skipif(
    private_memory() == 0, reason="the system does not tell how much memory is used"
)


def export(tensors: list[ExportTensor]) -> ExportSummary:
    return ExportSummary(
        facts=ModelFacts(architecture="llama", blocks=1),
        header_bytes=HEADER_BYTES,
        alignment=32,
        notes=[],
        tensors=tensors,
    )


@pytest.fixture(scope="module")
def sample() -> ExportSummary:
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        tensors = [
            ExportTensor(name=t.name, shape=t.shape, role=t.role, block=t.block, sources=t.sources)
            for t in plan_export(checkpoint).tensors
        ]
    return export(tensors)


def run(*command: str, state) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": "", "XDG_STATE_HOME": str(state)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quantizing_takes_no_more_than_estimated(sample, tmp_path):
    output = str(tmp_path / "out.gguf")
    command = (
        "-m",
        "engine.cli",
        "quantize",
        str(SAMPLE_MODEL),
        "--preset",
        "Q4_K_M",
        "--out",
        output,
        "--json",
    )
    peak = json.loads(run(*command, state=tmp_path))["peak_rss_bytes"]
    assert peak <= quantize_memory(sample) <= 2.5 * peak


def test_measuring_takes_no_more_than_estimated(sample, tmp_path):
    peak = int(run("-c", MEASURE, state=tmp_path))
    assert peak <= measure_memory(sample, 16) <= 2.5 * peak


def matrix(role: Role, rows: int, columns: int, block: int | None = None) -> ExportTensor:
    return ExportTensor(name=role.value, shape=(rows, columns), role=role, block=block, sources=())


def test_a_large_model_as_it_was_measured():
    """467 M weights, 64,000 tokens: 2.21 GB at the peak, with the output matrices of both models."""
    block = [(Role.Q, 2048, 2048), (Role.GATE, 5632, 2048), (Role.UP, 5632, 2048), (Role.DOWN, 2048, 5632)]
    tensors = [matrix(Role.EMBEDDING, 64000, 2048), matrix(Role.OUTPUT, 64000, 2048)]
    tensors += [matrix(role, rows, columns, number) for number in range(4) for role, rows, columns in block]
    assert 2.21e9 <= measure_memory(export(tensors), 16) <= 2.5 * 2.21e9


def test_hidden_states_count_until_they_lie_in_a_file():
    model = export([matrix(Role.EMBEDDING, 1000, 4096)])
    few, more, all_of_them = (measure_memory(model, windows) for windows in (1, 2, None))
    assert more - few == 2 * 4 * 512 * 4096
    assert measure_memory(model, 10**6) == all_of_them
    assert all_of_them - few == 2 * (LARGEST_HIDDEN - 4 * 512 * 4096)


def test_a_model_without_an_embedding_gets_the_base():
    assert measure_memory(export([]), 16) == MEASURE_BASE


def test_a_larger_model_needs_more_to_measure_but_not_to_quantize():
    small = export([matrix(Role.EMBEDDING, 1000, 512), matrix(Role.DOWN, 512, 512, 0)])
    large = export([matrix(Role.EMBEDDING, 1000, 512), matrix(Role.DOWN, 51200, 51200, 0)])
    assert measure_memory(large, 1) > measure_memory(small, 1) + 4 * 51200 * 51200
    assert quantize_memory(large) == quantize_memory(small)
