"""Calibration as a job: values like llama-imatrix's, the same bytes after any interruption, refusals."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import states, streaming
from engine.api.errors import CalibrationError, ChangedError, MemoryLimitError, OutputError
from engine.api.events import Artifact, JobStarted, ProgressSaved
from engine.api.jobs import CalibrateRequest, CalibrateResult, QuantizeRequest, Stopped
from engine.api.progress import Progress, silent
from engine.api.recipe import Choice, Recipe
from engine.calibrate import calibrate, foresee
from engine.calibration.importance import Importance
from engine.calibration.importance_files import read_importance
from engine.calibration.texts import calibration_windows, read_texts
from engine.checkpoint import open_checkpoint
from engine.jobs.folder import Job, list_jobs
from engine.quantize import quantize
from engine.resume import resume
from engine.tokenizer import load_tokenizer
from resources import SAMPLE_MODEL
from tests.tiny import TEXT, llama_config, write_folder, write_llama

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "text" / "books-calibration.txt"
WINDOWS, LENGTH, BATCH = 5, 128, 512
"""In batches of four and one."""


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(states, "SAVING_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", float("inf"))
    monkeypatch.setattr(streaming, "BATCH_TOKENS", BATCH)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Models with a head of their own and with a tied one, a mixture of experts, and a text."""
    folder = tmp_path_factory.mktemp("calibrate")
    for name, tied in (("untied", False), ("tied", True)):
        write_llama(folder / name, config={"tie_word_embeddings": tied})
    write_mixture(folder / "mixture")
    (folder / "text").write_text("\n".join(TEXT) * 10 + "\n")
    return folder


def write_mixture(folder: Path) -> None:
    """A Mixtral of 16 experts a block, in the names of published checkpoints."""
    sizes = {"num_local_experts": 16, "num_experts_per_tok": 2, "hidden_size": 64, "intermediate_size": 96}
    config = llama_config(model_type="mixtral", architectures=["MixtralForCausalLM"], **sizes)
    generator = torch.Generator().manual_seed(3)
    shapes = {"model.embed_tokens.weight": (512, 64), "lm_head.weight": (512, 64), "model.norm.weight": (64,)}
    for block in range(2):
        name = f"model.layers.{block}."
        shapes |= {f"{name}{norm}_layernorm.weight": (64,) for norm in ("input", "post_attention")}
        shapes |= {
            f"{name}self_attn.{p}_proj.weight": (n, 64) for p, n in zip("qkvo", (64, 32, 32, 64), strict=True)
        }
        shapes[f"{name}block_sparse_moe.gate.weight"] = (16, 64)
        for expert in range(16):
            own = f"{name}block_sparse_moe.experts.{expert}."
            shapes |= {f"{own}w1.weight": (96, 64), f"{own}w2.weight": (64, 96), f"{own}w3.weight": (96, 64)}
    tensors = {
        name: torch.randn(shape, generator=generator) * 0.15 + (len(shape) == 1)
        for name, shape in shapes.items()
    }
    write_folder(folder, config, tensors)


def asked(place: Path, output: Path, kind: str = "untied", **changes: object) -> CalibrateRequest:
    settings = {"texts": [str(place / "text")], "windows": WINDOWS, "length": LENGTH, "threads": 2}
    return CalibrateRequest(model=str(place / kind), output=str(output), **settings | changes)


class Stopping:
    """A listener that stops the job at the event number `at`, and counts those of the work."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, []

    def __call__(self, event: Progress) -> None:
        if event.stage == "calibrate":
            self.seen.append(event)
            if len(self.seen) == self.at:
                raise KeyboardInterrupt


def begin(request: CalibrateRequest, at: int) -> str:
    """The id of a job that was stopped at its event number `at`."""
    with pytest.raises(Stopped) as stopped:
        calibrate(request, Stopping(at))
    return stopped.value.job


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory) -> dict[str, bytes]:
    """The bytes of each model's matrix, the output tensor included."""
    folder, found = tmp_path_factory.mktemp("undisturbed"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setattr(streaming, "BATCH_TOKENS", BATCH)
        for kind in ("untied", "tied", "mixture"):
            result = calibrate(asked(place, folder / f"{kind}.gguf", kind, output_tensor=True))
            assert (result.windows, result.tokens) == (WINDOWS, WINDOWS * LENGTH)
            found[kind] = (folder / f"{kind}.gguf").read_bytes()
    return found


def entries(content: bytes, tmp_path: Path) -> Importance:
    (tmp_path / "read.gguf").write_bytes(content)
    return read_importance(tmp_path / "read.gguf")


# ------------------------------------------------------------------------------------- the values


@pytest.mark.skipif(not SHARED.exists(), reason="the calibration text of the reference matrix is not here")
def test_values_are_those_of_llama_imatrix(tmp_path, monkeypatch):
    """120 windows of the first 400,000 bytes, as TRAINING.md says; every column of every tensor."""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "cal400k.txt").write_bytes(SHARED.read_bytes()[:400_000])
    request = CalibrateRequest(
        model=str(SAMPLE_MODEL),
        texts=[str(tmp_path / "cal400k.txt")],
        output=str(tmp_path / "imatrix.gguf"),
        windows=120,
    )
    calibrate(request)
    ours = read_importance(tmp_path / "imatrix.gguf")
    theirs = read_importance(SAMPLE_MODEL / "imatrix.gguf")
    assert list(ours.entries) == list(theirs.entries)
    assert (ours.datasets, ours.chunks, ours.chunk_size) == (
        theirs.datasets,
        theirs.chunks,
        theirs.chunk_size,
    )
    for name, entry in theirs.entries.items():
        assert ours.entries[name].counts.tolist() == entry.counts.tolist()
        assert np.allclose(ours.entries[name].sums, entry.sums, rtol=0.01, atol=0), name


@pytest.mark.parametrize(("kind", "head"), [("untied", "output.weight"), ("tied", "token_embd.weight")])
def test_values_are_what_the_whole_model_s_layers_are_called_with(place, undisturbed, tmp_path, kind, head):
    """transformers' model in memory, with hooks; the head of a tied model is its embedding."""
    model = AutoModelForCausalLM.from_pretrained(place / kind, dtype=torch.float32)
    sums: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda module, arguments, name=name: sums.__setitem__(
                    name, (arguments[0].double() ** 2).sum((0, 1))
                )
            )
    with open_checkpoint(place / kind) as checkpoint, torch.no_grad():
        tokenizer = load_tokenizer(checkpoint)
        tokens = calibration_windows(tokenizer, read_texts([place / "text"]), LENGTH, WINDOWS)
        model(input_ids=torch.from_numpy(tokens), use_cache=False)
    found = entries(undisturbed[kind], tmp_path).entries
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    parts |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj"}
    parts |= {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    paths = {
        f"blk.{block}.{ours}.weight": f"model.layers.{block}.{theirs}"
        for block in range(2)
        for ours, theirs in parts.items()
    }
    assert found.keys() == {*paths, head}
    for name, path in (paths | {head: "lm_head"}).items():
        assert found[name].counts.tolist() == [WINDOWS * LENGTH]
        assert np.allclose(found[name].sums[0], sums[path].numpy(), rtol=1e-4), name


def test_a_gguf_source_gives_the_values_of_its_folder(place, undisturbed, tmp_path):
    recipe = Recipe(default=Choice(format="F32"))
    quantize(QuantizeRequest(model=str(place / "mixture"), output=str(tmp_path / "mixture"), recipe=recipe))
    calibrate(
        asked(tmp_path, tmp_path / "o.gguf", "mixture", texts=[str(place / "text")], output_tensor=True)
    )
    assert (tmp_path / "o.gguf").read_bytes() == undisturbed["mixture"]


def test_experts_that_no_token_reached_are_named_and_fall_back_for_themselves(place, tmp_path):
    result = calibrate(asked(place, tmp_path / "i.gguf", "mixture", windows=1, length=8))
    idle = {stack.tensor: stack.experts for stack in result.unseen}
    assert set(idle) == {f"blk.{b}.ffn_{p}_exps.weight" for b in range(2) for p in ("gate", "up", "down")}
    counts = read_importance(tmp_path / "i.gguf").entries["blk.1.ffn_down_exps.weight"].counts
    assert counts.sum() == 2 * 8
    assert idle["blk.1.ffn_down_exps.weight"] == np.flatnonzero(counts == 0).tolist() != []
    said = "no token of the calibration text, or nothing but zeros, reached these experts: blk.0"
    assert any(said in warning for warning in result.warnings)

    def written(name: str, imatrix: Path | None) -> tuple[np.ndarray, list[str]]:
        recipe = Recipe(default=Choice(format="Q4_0"), imatrix=str(imatrix) if imatrix else None)
        output = str(tmp_path / name)
        made = quantize(QuantizeRequest(model=str(place / "mixture"), output=output, recipe=recipe))
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(output).tensors}
        return tensors["blk.1.ffn_down_exps.weight"].data.copy(), made.warnings

    plain, quiet = written("plain.gguf", None)
    weighted, warned = written("weighted.gguf", tmp_path / "i.gguf")
    same = [expert for expert in range(16) if (plain[expert] == weighted[expert]).all()]
    assert same == idle["blk.1.ffn_down_exps.weight"]
    assert not any("experts" in warning for warning in quiet)
    [warning] = [warning for warning in warned if "experts" in warning]
    assert "blk.1.ffn_down_exps (" in warning
    assert warning.endswith("quantized as without an importance matrix")


def test_merging_adds_to_what_is_gathered(place, undisturbed, tmp_path):
    first = tmp_path / "first.gguf"
    first.write_bytes(undisturbed["untied"])
    request = asked(place, tmp_path / "both.gguf", merge=[str(first)], output_tensor=True)
    calibrate(request)
    alone, both = entries(undisturbed["untied"], tmp_path), read_importance(tmp_path / "both.gguf")
    assert both.chunks == 2 * WINDOWS
    for name, entry in alone.entries.items():
        assert both.entries[name].counts.tolist() == (2 * entry.counts).tolist()
        assert np.allclose(both.entries[name].sums, 2 * entry.sums, rtol=1e-5)
    with pytest.raises(CalibrationError, match="windows of 128 tokens and this calibration"):
        calibrate(request.model_copy(update={"length": 64, "overwrite": True}))
    other = {"merge": [str(SAMPLE_MODEL / "imatrix.gguf")], "overwrite": True}
    with pytest.raises(CalibrationError, match=r"made for different models"):
        calibrate(request.model_copy(update=other))


# ------------------------------------------------------------------------------------- broken off


def test_stopped_after_every_single_unit(place, undisturbed, tmp_path):
    """No unit is done twice, none is left out."""
    request = asked(place, tmp_path / "o.gguf", "mixture", output_tensor=True)
    events: list[Progress] = []
    listener = Stopping(1)
    job = ""
    for _ in range(20):
        try:
            result = resume(job, listener) if job else calibrate(request, listener)
            break
        except Stopped as stopped:
            job = stopped.job
            events += listener.seen
            listener = Stopping(1)
    items = ["block 1 of 2", "block 2 of 2", "head"]
    assert [event.item for event in events] == [item for item in items for _ in range(2)]
    assert [event.done for event in events] == [4, 5, 9, 10, 14, 15]
    assert isinstance(result, CalibrateResult)
    assert result.resumed
    assert (tmp_path / "o.gguf").read_bytes() == undisturbed["mixture"]
    assert not (Job.find(job).folder / "work").exists()
    assert list_jobs()[-1].result == result


@pytest.mark.parametrize("at", [2, 5])
def test_stopped_with_work_in_memory_only(place, undisturbed, tmp_path, monkeypatch, at):
    monkeypatch.setattr(states, "SAVING_SECONDS", 1e9)
    job = begin(asked(place, tmp_path / "o.gguf", output_tensor=True), at)
    resume(job)
    assert (tmp_path / "o.gguf").read_bytes() == undisturbed["untied"]


KILLED = """
import os, signal, sys
from engine import states, streaming
from engine.api.jobs import CalibrateRequest
from engine.calibrate import calibrate
from engine.calibration.stored_sums import StoredSums
states.SAVING_SECONDS, states.SAVING_SHARE, streaming.BATCH_TOKENS = 0, float("inf"), 512
left = int(sys.argv[2])
real = StoredSums.commit
def commit(self):
    global left
    real(self)
    left -= 1
    if not left:  # the sums are on disk, the states that they are of are not
        os.kill(os.getpid(), signal.SIGKILL)
StoredSums.commit = commit
calibrate(CalibrateRequest.model_validate_json(sys.argv[1]))
"""


def test_killed_between_sums_and_states(place, undisturbed, tmp_path):
    """A batch whose sums are saved, but not its states, passes the block again and is not added twice."""
    request = asked(place, tmp_path / "o.gguf", output_tensor=True).model_dump_json()
    command = [sys.executable, "-c", KILLED, request, "4"]  # two embedded, then the last of block 1
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [listed] = list_jobs()
    assert (listed.kind, listed.state, Path(listed.output).name) == ("calibrate", "interrupted", "o.gguf")
    listener = Stopping(-1)
    resume(listed.id, listener)
    assert listener.seen[0].item == "block 1 of 2"
    assert (tmp_path / "o.gguf").read_bytes() == undisturbed["untied"]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["hidden model", "sums"])
@pytest.mark.parametrize("at", [2, 3])
def test_a_damaged_file_costs_work_and_nothing_else(place, undisturbed, tmp_path, name, at):
    job = begin(asked(place, tmp_path / "o.gguf", output_tensor=True), at)
    units = reversed(Job.find(job).journal.units().values())
    used = next(unit for unit in units if unit.file.endswith(name))
    flip(Job.find(job).folder / "work" / name, used.offset + 9)
    listener = Stopping(-1)
    resume(job, listener)
    assert len(listener.seen) > 6 - at
    assert (tmp_path / "o.gguf").read_bytes() == undisturbed["untied"]


def test_all_is_gathered_and_only_the_file_is_missing(place, undisturbed, tmp_path):
    """A file of the same content may have its name already: the job died before it could say so."""
    job = begin(asked(place, tmp_path / "o.gguf", output_tensor=True), 6)
    (tmp_path / "o.gguf").write_bytes(undisturbed["untied"])
    listener = Stopping(-1)
    assert resume(job, listener).tensors == 15
    assert listener.seen == []


def test_an_output_that_something_else_made_meanwhile(place, tmp_path):
    job = begin(asked(place, tmp_path / "o.gguf"), 2)
    (tmp_path / "o.gguf").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        resume(job)
    assert (tmp_path / "o.gguf").read_text() == "mine"


@pytest.mark.parametrize("what", ["text", "threads"])
def test_a_job_that_would_mix_two_states_is_not_resumed(place, tmp_path, what):
    text = tmp_path / "text"
    text.write_bytes((place / "text").read_bytes())
    job = begin(asked(place, tmp_path / "o.gguf", texts=[str(text)]), 2)
    if what == "text":
        text.write_text("B" + text.read_text())
    else:
        path = Job.find(job).folder / "job.json"
        content = json.loads(path.read_text())
        content["request"]["threads"] = 1
        path.write_text(json.dumps(content))
    with pytest.raises(ChangedError, match=r"text has changed|threads was 2, is 1"):
        resume(job)
    assert resume(job, restart=True).tensors == 14


# ------------------------------------------------------------------------------------- told, refused


def test_what_the_window_is_told(place, tmp_path):
    events: list = []
    result = calibrate(asked(place, tmp_path / "o.gguf"), silent, events.append)
    assert isinstance(events[0], JobStarted)
    assert (events[0].job, events[0].output) == (result.job, str(tmp_path / "o.gguf"))
    told = [str(event.saved) for event in events if isinstance(event, ProgressSaved)]
    assert told == [f"{n} of 2 blocks" for n in range(3)]
    assert [event.path for event in events if isinstance(event, Artifact)] == [result.output]
    assert result.warnings == [
        "5 windows of text are few for an importance matrix; 100 and more, of texts like those that the "
        "model is for, make it better"
    ]
    assert result.bytes == (tmp_path / "o.gguf").stat().st_size


def test_without_a_text_the_sample_s(place, tmp_path):
    found = foresee(asked(place, tmp_path / "o.gguf", texts=[], windows=None, length=64), place=True)
    assert found.windows > 100
    assert found.tensors[0] == "blk.0.attn_q.weight"


def test_the_estimate_holds_the_sums_and_the_file(place, tmp_path):
    needs = foresee(asked(place, tmp_path / "o.gguf", "mixture"), place=True).needs
    assert [disk.what for disk in needs.disks] == ["output", "job"]
    calibrate(asked(place, tmp_path / "o.gguf", "mixture"))
    size = (tmp_path / "o.gguf").stat().st_size
    assert size <= needs.disks[0].bytes < 1.2 * size
    assert [stage.name for stage in needs.stages] == ["start", "calibrate"]


def test_refused_before_there_is_a_job(place, tmp_path, monkeypatch):
    request = asked(place, tmp_path / "o.gguf")
    with pytest.raises(OutputError, match="is the input itself"):
        calibrate(request.model_copy(update={"output": str(place / "text"), "overwrite": True}))
    (tmp_path / "there.gguf").touch()
    with pytest.raises(OutputError, match="exists already"):
        calibrate(request.model_copy(update={"output": str(tmp_path / "there.gguf")}))
    with pytest.raises(MemoryLimitError, match="the limit is 341 MB"):
        calibrate(request.model_copy(update={"memory_limit": 341_000_000}))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(OutputError, match=r"1,000 free"):
            calibrate(request)
    assert list_jobs() == []


def test_an_unfinished_job_on_the_same_output(place, tmp_path):
    request = asked(place, tmp_path / "o.gguf")
    job = begin(request, 2)
    with pytest.raises(OutputError, match=f"job {job} has finished 1 of 2 blocks for it; resume it"):
        calibrate(request)
    calibrate(request.model_copy(update={"overwrite": True}))
    assert [listed.state for listed in list_jobs()] == ["replaced", "done"]


def test_a_model_whose_activations_are_not_finite(tmp_path, place):
    folder = write_llama(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    request = asked(tmp_path, tmp_path / "o.gguf", "model", texts=[str(place / "text")])
    with pytest.raises(
        CalibrationError, match=r"windows 1 to 4: what reaches blk\.1\.attn_q\.weight is not finite"
    ):
        calibrate(request)
    assert not (tmp_path / "o.gguf").exists()
