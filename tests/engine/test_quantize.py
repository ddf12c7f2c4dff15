"""Quantizing as a job: sizes, bytes, resuming, memory, and every way it may be refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import engine.methods
import engine.writing
from engine.api.errors import (
    CheckpointError,
    ExportError,
    JobError,
    OutputError,
    RecipeError,
    TokenizerError,
)
from engine.api.formats import FORMATS
from engine.api.jobs import QuantizeRequest, Stopped
from engine.api.outputs import partial_path
from engine.api.progress import Progress
from engine.api.recipe import CalibrationText, Choice, Recipe, Rule
from engine.checkpoint import open_checkpoint
from engine.jobs.folder import Job, list_jobs
from engine.methods import encode
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset, with_types
from engine.resume import resume
from tests.tiny import llama_config, llama_tensors, write_folder, write_llama

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 4}
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("wide") / "model", config=WIDE, shards=2)


def request_for(model: Path, output: Path, preset: str = "Q4_K_M", **changes) -> QuantizeRequest:
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, preset)
    return QuantizeRequest(model=str(model), output=str(output), recipe=recipe, **changes)


@pytest.mark.parametrize("preset", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K"])
def test_size_is_predicted_to_the_byte_and_gguf_reads_the_file(model, tmp_path, preset):
    output = tmp_path / "out.gguf"
    result = quantize(request_for(model, output, preset))
    assert output.stat().st_size == result.bytes == result.predicted_bytes
    assert not partial_path(output).exists()
    reader = gguf.GGUFReader(output)
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.1.attn_v.weight"] == ("Q6_K" if preset == "Q4_K_M" else preset)
    stored = 8 * sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert result.bpw == stored / sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert result.peak_private_bytes > 1 << 20


def test_the_bytes_are_the_encoder_s_on_the_source_s_weights(model, tmp_path):
    output = tmp_path / "out.gguf"
    quantize(request_for(model, output, "Q4_K_M"))
    source = {}
    for file in sorted(model.glob("*.safetensors")):
        source |= load_file(file)
    for tensor in gguf.GGUFReader(output).tensors:
        if tensor.name == "blk.1.ffn_down.weight":
            weights = source["model.layers.1.mlp.down_proj.weight"].numpy()
            assert np.array_equal(tensor.data, encode(weights, tensor.tensor_type.name))
            return
    pytest.fail("blk.1.ffn_down.weight is not in the file")


def test_only_attention_s_output_is_stored_as_the_least_error_leaves_it(model, tmp_path):
    quantize(request_for(model, tmp_path / "o.gguf", "Q2_K_S"))
    quantize(request_for(model, tmp_path / "whole.gguf", "F32"))
    weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors}
    for tensor in gguf.GGUFReader(tmp_path / "o.gguf").tensors:
        name, kind = tensor.name, tensor.tensor_type.name
        if "blk.0.attn_" not in name or kind == "F32":
            continue
        shorter, longer = (encode(weights[name], kind, restored=restored) for restored in (False, True))
        assert (shorter != longer).any()
        expected = shorter if name == "blk.0.attn_output.weight" else longer
        np.testing.assert_array_equal(tensor.data, expected)


def test_recipe_with_methods_and_types(model, tmp_path):
    recipe = Recipe(
        rules=[
            Rule(match="down", format="Q5_1"),
            Rule(match="down", blocks="1", method="rtn", format="Q4_1"),
        ],
        default=Choice(format="Q8_0"),
    )
    recipe = with_types(recipe, False, "Q6_K", "F16")
    request = QuantizeRequest(model=str(model), output=str(tmp_path / "o.gguf"), recipe=recipe)
    quantize(request)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "o.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "Q5_1"
    assert types["blk.1.ffn_down.weight"] == "Q4_1"
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q6_K", "F16")


def test_tied_model_refuses_two_types_for_one_tensor():
    recipe = Recipe(default=Choice(format="Q8_0"))
    with pytest.raises(RecipeError, match="one tensor"):
        with_types(recipe, True, "Q6_K", "F16")
    assert with_types(recipe, True, "Q6_K", None).rules[-1].match == "embedding"


def test_from_gguf_to_gguf(model, tmp_path):
    """A GGUF source keeps its metadata; quantizing F32 again gives the bytes of the folder's own."""
    floats = Recipe(default=Choice(format="F32"))
    quantize(QuantizeRequest(model=str(model), output=str(tmp_path / "f32.gguf"), recipe=floats))
    quantize(request_for(tmp_path / "f32.gguf", tmp_path / "again.gguf"))
    quantize(request_for(model, tmp_path / "direct.gguf"))
    again, direct = (gguf.GGUFReader(tmp_path / name) for name in ("again.gguf", "direct.gguf"))
    assert {t.name: t.data.tobytes() for t in again.tensors} == {
        t.name: t.data.tobytes() for t in direct.tensors
    }
    assert {k: f.contents() for k, f in again.fields.items() if k.startswith("tokenizer.")} == {
        k: f.contents() for k, f in direct.fields.items() if k.startswith("tokenizer.")
    }


KILLED_BEFORE_DONE = """
import os, sys
from engine.api.jobs import QuantizeRequest
from engine.jobs.folder import Job
from engine.quantize import quantize
real = Job.set_state
def die(self, state, *rest, **more):
    if state == "done":
        os.kill(os.getpid(), 9)
    real(self, state, *rest, **more)
Job.set_state = die
quantize(QuantizeRequest.model_validate_json(sys.argv[1]))
"""


def test_killed_after_the_file_has_its_name(model, tmp_path):
    output = tmp_path / "o.gguf"
    request = request_for(model, output).model_dump_json()
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_DONE, request], cwd=ROOT, check=False)
    assert done.returncode == -9
    content, written = output.read_bytes(), output.stat().st_mtime_ns
    job = list_jobs()[-1]
    assert job.state == "interrupted"
    result = resume(job.id)
    assert (result.bytes, result.resumed) == (len(content), True)
    assert list_jobs()[-1].state == "done"
    assert (output.read_bytes(), output.stat().st_mtime_ns) == (content, written)


def test_a_second_job_does_not_throw_the_first_one_s_work_away(model, tmp_path):
    output = tmp_path / "o.gguf"
    job = stopped_job(model, output)
    with pytest.raises(OutputError, match=f"bitwright resume {job}"):
        quantize(request_for(model, output))
    quantize(request_for(model, output, overwrite=True))
    assert [listed.state for listed in list_jobs()] == ["replaced", "done"]
    with pytest.raises(JobError, match="started over in its place"):
        resume(job)


def stop_after(events: int):
    def listen(event: Progress) -> None:
        nonlocal events
        events -= event.stage == "quantize"
        if events < 0:
            raise KeyboardInterrupt

    return listen


def stopped_job(model: Path, output: Path) -> str:
    with pytest.raises(Stopped) as caught:
        quantize(request_for(model, output), stop_after(12))
    return caught.value.job


def test_resume_does_not_encode_finished_tensors_again(model, tmp_path, monkeypatch):
    job = stopped_job(model, tmp_path / "o.gguf")
    assert list_jobs()[-1].state == "interrupted"
    finished = set(Job.find(job).journal.units())
    with open_checkpoint(model) as checkpoint:
        wanted = set(prepare(checkpoint, recipe_for_preset(checkpoint, "Q4_K_M")).places(0))
    assert 2 < len(finished & wanted) < len(wanted)
    encoded = []

    def count(weights: np.ndarray, format_name: str, *rest: object, restored: bool = True) -> np.ndarray:
        encoded.append(format_name)
        return encode(weights, format_name, *rest, restored=restored)

    monkeypatch.setattr(engine.methods, "encode", count)
    monkeypatch.setattr(engine.methods, "warm_up", lambda formats, listener: None)
    resume(job)
    assert len(encoded) == len(wanted - finished)


def test_resume_redoes_what_no_longer_stands_in_the_file(model, tmp_path):
    output, whole = tmp_path / "o.gguf", tmp_path / "whole.gguf"
    quantize(request_for(model, whole))
    job = stopped_job(model, output)
    file = partial_path(output)
    content = bytearray(file.read_bytes())
    content[5000] ^= 255
    file.write_bytes(content)
    resume(job)
    assert output.read_bytes() == whole.read_bytes()
    job = stopped_job(model, tmp_path / "p.gguf")
    partial_path(tmp_path / "p.gguf").unlink()
    resume(job)
    assert (tmp_path / "p.gguf").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        '{"unit": "blk.1.ffn_up.weight", "offset": -5, "bytes": 4, "crc32": 0}',
        '{"unit": "blk.1.ffn_up.weight", "offset": 0, "bytes": 0, "crc32": 0}',
        '{"unit": "blk.1.ffn_up.weight", "offset": 1, "bytes": 1000000000000000000, "crc32": 0}',
        '{"unit": "header", "offset": %s, "bytes": 1, "crc32": 1}' % ("9" * 40),
    ],
)
def test_a_journal_that_lies_costs_work_not_correctness(model, tmp_path, line):
    job = stopped_job(model, tmp_path / "o.gguf")
    journal = next((tmp_path / "state").rglob("journal.jsonl"))
    journal.write_text(journal.read_text() + line + "\n")
    resume(job)
    quantize(request_for(model, tmp_path / "whole.gguf"))
    assert (tmp_path / "o.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_resume_refuses_a_changed_config(tmp_path):
    model = write_llama(tmp_path / "model", config=WIDE)
    job = stopped_job(model, tmp_path / "o.gguf")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 20000.0}))
    with pytest.raises(JobError, match="config or tokenizer has changed"):
        resume(job)


def test_the_same_output_by_another_path(model, tmp_path):
    stopped_job(model, tmp_path / "o.gguf")
    (tmp_path / "sub").mkdir()
    with pytest.raises(OutputError, match="bitwright resume"):
        quantize(request_for(model, tmp_path / "sub" / ".." / "o.gguf"))


def test_resume_refuses_a_changed_source_and_a_finished_job(tmp_path):
    model = write_llama(tmp_path / "model", config=WIDE)
    job = stopped_job(model, tmp_path / "o.gguf")
    os.utime(model / "model.safetensors", ns=(1, 1))
    with pytest.raises(JobError, match=r"model\.safetensors has changed"):
        resume(job)
    quantize(request_for(model, tmp_path / "p.gguf"))
    with pytest.raises(JobError, match="finished already"):
        resume(list_jobs()[-1].id)


def test_not_a_number_is_found_before_anything_is_written(tmp_path):
    config = llama_config(**WIDE)
    tensors = llama_tensors(config)
    tensors["model.layers.1.mlp.up_proj.weight"][7, 3] = float("nan")
    model = write_folder(tmp_path / "model", config, tensors)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        quantize(request_for(model, tmp_path / "o.gguf"))
    assert list(tmp_path.glob("o.gguf*")) == []
    assert list_jobs()[-1].state == "failed"


def test_value_beyond_f16_is_refused_not_written_as_infinity(tmp_path):
    config = llama_config(**WIDE)
    tensors = llama_tensors(config)
    tensors["model.layers.1.mlp.up_proj.weight"][7, 3] = 1e5
    model = write_folder(tmp_path / "model", config, tensors)
    with pytest.raises(ExportError, match="BF16"):
        quantize(request_for(model, tmp_path / "o.gguf", "F16"))
    assert list(tmp_path.glob("o.gguf*")) == []  # resuming would end at the same weight
    quantize(request_for(model, tmp_path / "b.gguf", "BF16"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_no_file_of_the_model_is_overwritten(tmp_path, name):
    model = write_llama(tmp_path / "model", config=WIDE)
    before = (model / name).read_bytes()
    with pytest.raises(OutputError, match="is the input itself"):
        quantize(request_for(model, model / name, overwrite=True))
    assert (model / name).read_bytes() == before


def test_output_that_is_the_input(model, tmp_path):
    quantize(request_for(model, tmp_path / "a.gguf", "F16"))
    before = (tmp_path / "a.gguf").read_bytes()
    with pytest.raises(OutputError, match="is the input itself"):
        quantize(request_for(tmp_path / "a.gguf", tmp_path / "a.gguf", overwrite=True))
    with pytest.raises(OutputError, match="exists already"):
        quantize(request_for(model, tmp_path / "a.gguf"))
    assert (tmp_path / "a.gguf").read_bytes() == before


def test_disk_full_in_the_middle_keeps_what_is_finished(model, tmp_path, monkeypatch):
    output = tmp_path / "o.gguf"
    real, left = os.pwrite, 8

    def full(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="the disk is full; free some space, then resume"):
        quantize(request_for(model, output))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert not output.exists()
    job = list_jobs()[-1]
    assert job.state == "failed"
    resume(job.id)
    quantize(request_for(model, tmp_path / "whole.gguf"))
    assert output.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_architecture_and_tokenizer_that_are_missing(tmp_path):
    strange = write_llama(tmp_path / "strange", config={"model_type": "martian", "architectures": ["X"]})
    with pytest.raises(ExportError, match="martian"):
        quantize(QuantizeRequest(model=str(strange), output=str(tmp_path / "o.gguf"), recipe=FLOATS))
    mute = write_llama(tmp_path / "mute", tokenizer=None)
    with pytest.raises(TokenizerError, match="tokenizer"):
        quantize(QuantizeRequest(model=str(mute), output=str(tmp_path / "o.gguf"), recipe=FLOATS))
    assert list(tmp_path.glob("o.gguf*")) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_every_format(model, tmp_path, name):
    """Rows of 256: each format as it is. Read back by gguf, with llama.cpp's name for such a file."""
    output = tmp_path / "o.gguf"
    recipe = Recipe(default=Choice(format=name), effort="fast")
    result = quantize(QuantizeRequest(model=str(model), output=str(output), recipe=recipe))
    reader = gguf.GGUFReader(output)
    stored = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    assert set(stored.values()) == {name}
    assert reader.fields["general.file_type"].contents() in list(gguf.LlamaFileType)
    assert result.bytes == output.stat().st_size


def test_work_that_is_refused_memory_goes_on_in_halves(model, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole.gguf", tmp_path / "o.gguf"
    quantize(request_for(model, whole))
    heights, real = [], engine.methods.encode

    def scarce(weights: np.ndarray, *rest: object, restored: bool = True) -> np.ndarray:
        heights.append(len(weights))
        if weights.size > 8192:
            raise MemoryError
        return real(weights, *rest, restored=restored)

    monkeypatch.setattr(engine.methods, "encode", scarce)
    monkeypatch.setattr(engine.writing, "LEAST_PIECE", 1024)
    quantize(request_for(model, output, threads=4))
    assert max(heights) * 256 > 8192
    assert output.read_bytes() == whole.read_bytes()


FLOATS = Recipe(default=Choice(format="F32"))

LIMITED = """
import json, resource, sys
from engine.api.jobs import QuantizeRequest
import engine.quantize, engine.methods, engine.formats, kernels.cpu, numba, torch, transformers
def used():
    for line in open("/proc/self/status"):
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
engine.methods.warm_up(["Q4_0"])  # loads what importing does not
limit = used() + 200_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
result = engine.quantize.quantize(QuantizeRequest.model_validate_json(sys.argv[1]))
print(result.model_dump_json())
"""


def test_memory_is_bounded_whatever_the_size_of_the_model(model, tmp_path):
    """600 MB quantized by a process that may take 200 MB beyond its imports."""
    quantize(request_for(model, tmp_path / "warm.gguf", "Q4_0"))  # compiled kernels come from the cache
    config = llama_config(
        hidden_size=2048, intermediate_size=8192, num_attention_heads=128, num_key_value_heads=128,
        num_hidden_layers=5, vocab_size=512,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    shapes = {name: tensor.shape for name, tensor in llama_tensors(config | {"num_hidden_layers": 0}).items()}
    block = {
        "input_layernorm": (2048,), "post_attention_layernorm": (2048,),
        "self_attn.q_proj": (2048, 2048), "self_attn.k_proj": (2048, 2048), "self_attn.v_proj": (2048, 2048),
        "self_attn.o_proj": (2048, 2048), "mlp.gate_proj": (8192, 2048), "mlp.up_proj": (8192, 2048),
        "mlp.down_proj": (2048, 8192),
    }  # fmt: skip
    for i in range(5):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    noise = torch.randn(8192, 2048, generator=generator).to(torch.bfloat16)
    tensors = {
        name: noise.flatten()[: int(np.prod(shape))].reshape(shape).clone() for name, shape in shapes.items()
    }
    big = write_folder(tmp_path / "big", config, tensors, dtype=torch.bfloat16)
    del tensors
    source = (big / "model.safetensors").stat().st_size
    assert source > 600_000_000
    request = request_for(big, tmp_path / "o.gguf", "Q4_0").model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, request], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bytes"] == result["predicted_bytes"] == (tmp_path / "o.gguf").stat().st_size
    assert 0 < result["peak_private_bytes"] < source


def test_recipe_that_calibrates_says_that_nothing_uses_it(model):
    recipe = Recipe(default=Choice(format="Q8_0"), calibration=CalibrationText(files=["a.txt"]))
    with open_checkpoint(model) as checkpoint:
        assert any("calibration" in warning for warning in prepare(checkpoint, recipe).plan.warnings)


@pytest.mark.parametrize(
    ("name", "said"),
    [("blk.0.attn_q.weight", "made for another model"), ("zzz", "names no tensor of this model")],
)
def test_importance_matrix_of_another_model(model, tmp_path, name, said):
    writer = gguf.GGUFWriter(tmp_path / "im.gguf", "llama")
    writer.add_type("imatrix")
    writer.add_tensor(f"{name}.in_sum2", np.ones((1, 128), np.float32))
    writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    recipe = Recipe(default=Choice(format="Q4_K"), imatrix=str(tmp_path / "im.gguf"))
    request = QuantizeRequest(model=str(model), output=str(tmp_path / "o.gguf"), recipe=recipe)
    with pytest.raises(RecipeError, match=said):
        quantize(request)
    assert list(tmp_path.glob("o.gguf*")) == []


def test_dry_plan_reads_no_weights(model, tmp_path):
    with open_checkpoint(model) as checkpoint:
        prepared = prepare(checkpoint, recipe_for_preset(checkpoint, "Q4_K_M"))
        weights = sum(tensor.bytes for tensor in checkpoint.tensors.values())
        assert checkpoint.bytes_read < weights / 10
    assert prepared.size > 100_000


def test_a_source_that_lost_a_tensor(tmp_path):
    model = write_llama(tmp_path / "model", config=WIDE)
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj"):
        quantize(request_for(model, tmp_path / "o.gguf"))
