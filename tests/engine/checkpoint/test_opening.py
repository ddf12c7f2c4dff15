"""Every layout that people have opens, by headers alone, and reads what other libraries read."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.api.model import Role
from engine.checkpoint import Checkpoint, open_checkpoint
from tests.engine.checkpoint.samples import large_shapes, write_large_folder, write_safetensors
from tests.tiny import llama_config, llama_tensors, write_folder, write_llama

SAMPLE = Path("resources/sample-model")


def expect_tensors(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in expected.items():
        values = checkpoint.read(name)
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, tensor.float().numpy(), strict=True)


def test_the_sample_model() -> None:
    with open_checkpoint(SAMPLE) as checkpoint:
        assert (checkpoint.kind, checkpoint.architecture, checkpoint.blocks) == ("huggingface", "llama", 4)
        assert checkpoint.tied
        assert checkpoint.quantization is None
        assert checkpoint.notes == []
        assert checkpoint.metadata == {}
        assert checkpoint.config == json.loads((SAMPLE / "config.json").read_text())
        assert checkpoint.files == [SAMPLE / "model.safetensors"]
        expect_tensors(checkpoint, load_file(SAMPLE / "model.safetensors"))
        summary = checkpoint.summary()
    assert summary.parameters == 14_684_672
    assert summary.bytes == 2 * summary.parameters
    embedding = next(tensor for tensor in summary.tensors if tensor.role == Role.EMBEDDING)
    assert embedding.name == "model.embed_tokens.weight"
    assert (embedding.shape, embedding.dtype, embedding.block) == ((4096, 512), "BF16", None)
    assert embedding.bytes == 4096 * 512 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shards", "index"), [(1, False), (3, True), (3, False)])
def test_folders_of_safetensors(tmp_path: Path, shards: int, index: bool, dtype: torch.dtype) -> None:
    folder = write_llama(tmp_path, shards=shards, index=index, dtype=dtype, tokenizer=None)
    tensors = llama_tensors(llama_config())
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.kind == "huggingface"
        assert len(checkpoint.files) == shards
        assert not checkpoint.tied
        assert checkpoint.blocks == 2
        expect_tensors(checkpoint, {name: tensor.to(dtype) for name, tensor in tensors.items()})
        assert checkpoint.summary().parameters == sum(tensor.numel() for tensor in tensors.values())


def test_a_folder_of_links_into_a_cache(tmp_path: Path) -> None:
    """Hub caches keep the files elsewhere under their hashes and link to them."""
    real = write_llama(tmp_path / "blobs", shards=2, tokenizer=None)
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for file in real.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    with open_checkpoint(snapshot) as checkpoint:
        expect_tensors(checkpoint, llama_tensors(llama_config()))


def test_a_lone_safetensors_with_its_config_beside(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, tokenizer=None)
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        assert (checkpoint.kind, checkpoint.architecture) == ("safetensors", "llama")
        assert checkpoint.folder == folder
        expect_tensors(checkpoint, llama_tensors(llama_config()))


def test_weights_without_a_config(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, tokenizer=None)
    (folder / "config.json").unlink()
    for path in (folder, folder / "model.safetensors"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.architecture is None
            assert checkpoint.config is None
            assert checkpoint.blocks == 2
            assert "no config.json" in checkpoint.notes[0]
            query = checkpoint.tensors["model.layers.1.self_attn.q_proj.weight"]
            assert (query.role, query.block, query.canonical) == (Role.Q, 1, None)


def test_a_lone_shard_says_that_it_is_one(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, shards=3, tokenizer=None)
    with open_checkpoint(folder / "model-00002-of-00003.safetensors") as checkpoint:
        assert "one of 3 files" in checkpoint.notes[0]


@pytest.mark.parametrize("lone", [True, False])
def test_pytorch_model_bin(tmp_path: Path, lone: bool) -> None:
    config = llama_config()
    tensors = llama_tensors(config)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.cat([torch.ones(3, 64), torch.rand(160, 64)])[3:]
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path / "pytorch_model.bin" if lone else tmp_path) as checkpoint:
        assert checkpoint.kind == ("pytorch" if lone else "huggingface")
        assert checkpoint.architecture == "llama"
        assert checkpoint.tensors["model.norm.weight"].dtype == "BF16"
        expect_tensors(checkpoint, tensors)


def test_sharded_pytorch_files_with_an_index(tmp_path: Path) -> None:
    config = llama_config()
    tensors = llama_tensors(config)
    names = list(tensors)
    places = {}
    for i in range(2):
        file = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in names[i::2]}, tmp_path / file)
        places |= dict.fromkeys(names[i::2], file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as checkpoint:
        expect_tensors(checkpoint, tensors)


def test_a_shared_storage_is_a_tied_output(tmp_path: Path) -> None:
    tensors = llama_tensors(llama_config())
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tied
        total = sum(tensor.numel() for tensor in tensors.values())
        assert checkpoint.summary().parameters == total - tensors["lm_head.weight"].numel()


def test_safetensors_come_before_the_same_model_in_another_layout(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, tokenizer=None)
    torch.save({"other": torch.ones(2)}, folder / "pytorch_model.bin")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.files == [folder / "model.safetensors"]


def test_an_output_stored_beside_a_tied_embedding_is_noted(tmp_path: Path) -> None:
    config = llama_config()
    tensors = llama_tensors(config)
    folder = write_folder(tmp_path, config | {"tie_word_embeddings": True}, tensors, tokenizer=None)
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tied
        assert "lm_head.weight is stored, though the config ties" in checkpoint.notes[0]
        total = sum(tensor.numel() for tensor in tensors.values())
        assert checkpoint.summary().parameters == total - tensors["lm_head.weight"].numel()


def test_rows_in_pieces_are_the_whole(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": torch.randn(301, 1031, generator=generator).bfloat16(),  # several pieces of 256 KiB
        "stack": torch.randn(5, 17, 33, generator=generator).half(),
        "vector": torch.randn(7, generator=generator),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        for name, tensor in tensors.items():
            expected = tensor.float().numpy()
            count = len(expected)
            for size in (1, 2, count - 1, count, count + 9):
                pieces = [checkpoint.read(name, slice(i, i + size)) for i in range(0, count, size)]
                np.testing.assert_array_equal(np.concatenate(pieces), expected, strict=True)
            assert checkpoint.read(name, slice(count, None)).shape == (0, *expected.shape[1:])
            with pytest.raises(ValueError, match="plain ranges"):
                checkpoint.read(name, slice(0, count, 2))


def test_scalars_empty_tensors_and_integers(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "row": torch.arange(6),
        "double": torch.tensor([0.1, -3.0], dtype=torch.float64),
        "flag": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        expect_tensors(checkpoint, tensors)
        assert checkpoint.tensors["none"].bytes == 0


def test_a_closed_checkpoint_is_not_read(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", np.ones(4, np.float32))})
    with open_checkpoint(tmp_path) as checkpoint:
        pass
    with pytest.raises(ValueError, match="closed"):
        checkpoint.read("w")


def read_by_this_process() -> int:
    """Bytes that this process got from `read` calls of any kind, as the system counts them."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system counts reads only on Linux")
def test_seventy_billion_parameters_open_by_headers_alone(tmp_path: Path) -> None:
    open_checkpoint(SAMPLE).close()  # imports read files too
    folder = write_large_folder(tmp_path / "large")
    headers = sum(file.stat().st_size for file in folder.glob("*.json"))
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            headers += 8 + int.from_bytes(opened.read(8), "little")
    before = read_by_this_process()
    with open_checkpoint(folder) as checkpoint:
        summary = checkpoint.summary()
    really_read = read_by_this_process() - before
    assert really_read <= headers + (1 << 20)
    assert abs(really_read - checkpoint.bytes_read) < 4096  # /proc/self/io itself is read in between
    assert len(summary.tensors) == len(large_shapes()) == 723
    assert summary.parameters == 70_553_706_496
    assert summary.blocks == 80
    assert checkpoint.tensors["model.layers.79.mlp.down_proj.weight"].canonical == "blk.79.ffn_down.weight"


def test_reading_holds_little_beside_its_result(tmp_path: Path) -> None:
    values = np.ones((4096, 1024), np.uint16)
    write_safetensors(tmp_path / "model.safetensors", {"w": ("BF16", values)})
    with open_checkpoint(tmp_path) as checkpoint:
        tracemalloc.start()
        result = checkpoint.read("w", slice(0, 2048))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert result.nbytes == 8 << 20
    assert peak < result.nbytes + (1 << 20)


def test_opening_imports_no_heavy_library() -> None:
    code = "import sys, engine.checkpoint as c; c.open_checkpoint('resources/sample-model').summary(); "
    code += "print([name for name in ('torch', 'transformers', 'numba') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
