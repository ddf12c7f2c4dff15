"""Estimates against what runs really took: memory never below and not far above, disk exactly."""

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.api.jobs import QuantizeRequest
from engine.api.model import Role
from engine.api.needs import (
    CONVERTING,
    ENCODERS,
    HELD_BYTES,
    MEASURE_BASE,
    START_SECONDS,
    Speeds,
    Stage,
    encoder,
    importance_bytes,
    least_quantize_memory,
    measure_disk,
    measure_memory,
    measure_seconds,
    quantize_memory,
    quantize_seconds,
    quantize_stages,
    stage_times,
)
from engine.api.plan import ExportSummary, ExportTensor, make_plan
from engine.api.presets import ModelFacts
from engine.api.recipe import Choice, Recipe, Rule
from engine.calibration.importance import Entry, Importance
from engine.calibration.importance_files import write_importance
from engine.checkpoint import open_checkpoint
from engine.estimate import needs
from engine.jobs.limits import private_memory
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from engine.summary import export_summary
from resources import EVALUATION_TEXT, SAMPLE_MODEL

SPEEDS = Speeds(
    encode={"Q4_0 rtn": 1e6, "Q4_0 search best": 1e5, "F16": 1e8, "F32": 1e9},
    read=1e9,
    write=1e8,
    multiply=1e9,
)

needs_samples = pytest.mark.skipif(
    private_memory() == 0, reason="the system does not tell how much memory is used"
)


def export(tensors: list[ExportTensor], header_bytes: int = 0) -> ExportSummary:
    return ExportSummary(
        facts=ModelFacts(architecture="llama", blocks=1),
        header_bytes=header_bytes,
        alignment=32,
        notes=[],
        tensors=tensors,
    )


@pytest.fixture(scope="module")
def sample() -> ExportSummary:
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        return export_summary(checkpoint)


def peak(*command: str, state: Path) -> int:
    """The highest RssAnon that a command of ours says it had."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *command, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": "", "XDG_STATE_HOME": str(state)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["peak_private_bytes"]


@needs_samples
def test_quantizing_and_measuring_take_no_more_than_estimated(sample, tmp_path):
    output = str(tmp_path / "out.gguf")
    command = ("quantize", str(SAMPLE_MODEL), "--preset", "Q4_0", "--out", output)
    alone = peak(*command, state=tmp_path)
    assert alone <= quantize_memory(sample, 0) <= 2 * alone
    assert alone <= quantize_memory(sample, 0, limit=quantize_memory(sample, 0) - 1)
    measuring = ("--measure", str(EVALUATION_TEXT), "--windows", "2", "--overwrite")
    both = peak(*command, *measuring, state=tmp_path)
    assert both <= measure_memory(sample, 2) <= 1.5 * both


@needs_samples
def test_no_library_counts_that_a_gguf_file_does_not_need(sample, tmp_path):
    source, output = tmp_path / "s.gguf", str(tmp_path / "o.gguf")
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        recipe = recipe_for_preset(checkpoint, "F16")
    quantize(QuantizeRequest(model=str(SAMPLE_MODEL), output=str(source), recipe=recipe))
    with open_checkpoint(source) as checkpoint:
        export = export_summary(checkpoint)
    assert (export.converted, sample.converted) == (False, True)
    taken = peak("quantize", str(source), "--preset", "Q4_0", "--out", output, state=tmp_path)
    assert taken <= quantize_memory(export, 0) <= 2 * taken
    least = least_quantize_memory(export, 0)
    limited = ("--memory-limit", str(least), "--overwrite")
    assert (
        peak("quantize", str(source), "--preset", "Q4_0", "--out", output, *limited, state=tmp_path) <= least
    )
    start, *_ = quantize_stages(export, make_plan(recipe, export.tensors), SPEEDS)
    assert start.seconds < START_SECONDS / 2


@needs_samples
def test_an_importance_matrix_comes_on_top(tmp_path):
    """An estimate without it would be too low in both runs."""
    source, matrix, output = tmp_path / "s.gguf", tmp_path / "i.gguf", str(tmp_path / "o.gguf")
    name, shape = "blk.0.ffn_up_exps.weight", (512, 1, 32768)
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_tensor(name, np.ones(shape, np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    entry = Entry(np.ones((512, 32768), np.float32), np.ones(512, np.int64))
    write_importance(matrix, Importance({name: entry}), overwrite=False)
    recipe = Recipe(default=Choice(format="Q8_0"), imatrix=str(matrix))
    asked = QuantizeRequest(model=str(source), output=output, recipe=recipe)
    with open_checkpoint(source) as checkpoint:
        export = export_summary(checkpoint)
        prepared = prepare(checkpoint, recipe)
        without = make_plan(recipe, export.tensors)
        found = needs(prepared, asked, SPEEDS)
    held = importance_bytes(prepared.plan)
    assert held == entry.sums.nbytes + entry.counts.nbytes
    assert importance_bytes(without) == 0
    assert quantize_memory(export, held) == quantize_memory(export, 0) + held
    keys = 10_000  # of the header, which say which matrix it was
    assert 0 <= found.memory - quantize_memory(export, held) < keys
    assert 0 <= found.least_memory - least_quantize_memory(export, held) < keys
    command = ("quantize", str(source), "--preset", "Q8_0", "--imatrix", str(matrix), "--out", output)
    taken = peak(*command, state=tmp_path)
    assert quantize_memory(export, 0) < taken <= found.memory <= 2 * taken
    limited = ("--memory-limit", str(found.least_memory), "--overwrite")
    assert peak(*command, *limited, state=tmp_path) <= found.least_memory


@needs_samples
def test_evaluating_takes_no_more_than_estimated(sample, tmp_path):
    model, text = str(SAMPLE_MODEL), str(EVALUATION_TEXT)
    evaluating = peak("evaluate", model, "--text", text, "--windows", "2", state=tmp_path)
    estimated = measure_memory(sample, 2, reference=False, after_quantizing=False)
    assert evaluating <= estimated <= 1.5 * evaluating


def matrix(role: Role, rows: int, columns: int, block: int | None = None) -> ExportTensor:
    return ExportTensor(
        name=f"{role.value} {block}", shape=(rows, columns), role=role, block=block, sources=()
    )


def large(vocabulary: int, width: int, ff: int) -> ExportSummary:
    """A model as those that were measured: one block, the others being like it."""
    block = [
        matrix(Role.Q, width, width, 0),
        matrix(Role.O, width, width, 0),
        matrix(Role.K, width // 4, width, 0),
        matrix(Role.V, width // 4, width, 0),
        matrix(Role.GATE, ff, width, 0),
        matrix(Role.UP, ff, width, 0),
        matrix(Role.DOWN, width, ff, 0),
    ]
    ends = [matrix(Role.EMBEDDING, vocabulary, width), matrix(Role.OUTPUT, vocabulary, width)]
    return export([*ends, *block], header_bytes=36 * vocabulary)


@pytest.mark.parametrize(
    ("model", "measured"),
    [
        (large(8192, 2048, 5632), 786_000_000),
        (large(64_000, 2048, 5632), 1_984_000_000),
        (large(128_000, 256, 512), 1_010_000_000),
    ],
)
def test_large_models_as_they_were_measured(model, measured):
    """4 windows of 512 tokens of a model against itself; see engine/api/needs.py."""
    assert measured <= measure_memory(model, 4, after_quantizing=False) <= 1.25 * measured


def test_a_limit_shrinks_what_quantizing_takes_down_to_its_libraries(sample):
    wanted = quantize_memory(sample, 0)
    assert quantize_memory(sample, 0, 10 * wanted) == wanted
    assert quantize_memory(sample, 0, wanted - 10_000_000) == wanted - 10_000_000
    assert CONVERTING.least < quantize_memory(sample, 0, 1) < 1.1 * CONVERTING.least


def test_a_larger_model_needs_more_to_measure_but_not_to_quantize():
    small = export([matrix(Role.EMBEDDING, 1000, 512), matrix(Role.DOWN, 512, 512, 0)])
    huge = export([matrix(Role.EMBEDDING, 1000, 512), matrix(Role.DOWN, 51200, 51200, 0)])
    assert measure_memory(huge, 1) > measure_memory(small, 1) + 4 * 51200 * 51200
    assert quantize_memory(huge, 0) == quantize_memory(small, 0)


def test_more_windows_take_disk_and_time_but_no_memory():
    model = large(8192, 2048, 5632)
    assert measure_memory(model, 64) == measure_memory(model, 10**6) == measure_memory(model)
    state = 4 * 512 * 2048
    assert measure_disk(model, 64) == 64 * state + HELD_BYTES
    assert measure_disk(model, 1) == 2 * state
    assert measure_disk(model, 0) == 0
    assert measure_seconds(model, SPEEDS, 128) > 1.9 * measure_seconds(model, SPEEDS, 64)


def test_a_model_without_an_embedding_gets_the_base():
    assert measure_memory(export([]), 16) == MEASURE_BASE + ENCODERS
    assert measure_disk(export([]), 16) == 0
    assert measure_seconds(export([]), SPEEDS, 16) == 0


def test_the_time_of_quantizing_is_that_of_its_formats():
    model = export([matrix(Role.EMBEDDING, 1000, 512), matrix(Role.DOWN, 2000, 512, 0)])
    recipe = Recipe(rules=[Rule(match="embedding", format="F16")], default=Choice(format="Q4_0"))
    plan = make_plan(recipe, model.tensors)
    seconds = quantize_seconds(model, plan, SPEEDS)
    assert seconds is not None
    assert seconds == pytest.approx(START_SECONDS + 1_024_000 / 1e5 + 512_000 / 1e8, abs=0.1)
    quick = make_plan(
        recipe.model_copy(update={"default": Choice(format="Q4_0", method="rtn")}), model.tensors
    )
    faster = quantize_seconds(model, quick, SPEEDS)
    assert faster is not None
    assert seconds - faster == pytest.approx(1_024_000 / 1e5 - 1_024_000 / 1e6)


def test_an_encoder_whose_speed_is_unknown_leaves_the_time_unknown():
    model = export([matrix(Role.EMBEDDING, 1000, 512)])
    plan = make_plan(Recipe(default=Choice(format="Q6_K")), model.tensors)
    assert quantize_seconds(model, plan, SPEEDS) is None
    stages = {stage.name: stage.seconds for stage in quantize_stages(model, plan, SPEEDS)}
    assert stages["encode"] is None
    assert stages["check"] is not None
    assert all(stage.seconds is None for stage in quantize_stages(model, plan, None)[1:])


def test_experts_that_a_token_does_not_pass_take_no_time():
    """8 of 64 experts at most are multiplied with; all of them are read, and held."""
    stack = ExportTensor(name="x", shape=(64, 512, 512), role=Role.DOWN, block=0, sources=())
    eight = stack.model_copy(update={"shape": (8, 512, 512)})
    ends = [matrix(Role.EMBEDDING, 1000, 512)]
    slow = measure_seconds(export([*ends, stack]), SPEEDS, 4)
    fast = measure_seconds(export([*ends, eight]), SPEEDS, 4)
    assert slow - fast == pytest.approx(56 * 512 * 512 / 2.5e8)
    assert (
        measure_memory(export([*ends, stack]), 4)
        > measure_memory(export([*ends, eight]), 4) + 4 * 56 * 512**2
    )


def test_one_speed_for_all_methods_of_a_float():
    assert encoder("F16", "search") == encoder("F16", "rtn") == "F16"
    assert encoder("Q4_K", "rtn", "fast") == encoder("Q4_K", "rtn") == "Q4_K rtn"
    assert encoder("Q4_K", "search", "fast") == "Q4_K search fast"


def test_a_model_without_rows_is_measured_by_its_base():
    assert (
        measure_memory(export([matrix(Role.EMBEDDING, 0, 64), matrix(Role.OUTPUT, 0, 64)]), 1) >= MEASURE_BASE
    )


def test_times_are_told_from_half_a_second_on():
    seconds = {"start": 5.2, "check": 0.2, "encode": 3.6, "verify": None, "measure": 125.0}
    stages = [Stage(name=name, memory=1, seconds=value) for name, value in seconds.items()]
    assert stage_times(stages) == ["start 0:05", "encode 0:04", "measure 2:05"]
