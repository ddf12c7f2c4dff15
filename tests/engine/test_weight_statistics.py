"""Statistics of stored tensors: in pieces, by threads, from the cache; planted outliers are found."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import matrices, statistics_cache, weight_statistics
from engine.api.errors import CheckpointError
from engine.api.statistics import PERCENTS
from engine.channel_statistics import channel_percentiles, group_channels
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import NonFiniteError
from engine.export.gguf import plan_export
from engine.weight_statistics import (
    Gathered,
    all_statistics,
    cached,
    gather,
    outlier_channels,
    statistics_of,
)
from kernels.reference import statistics as reference
from resources import SAMPLE_MODEL
from tests.engine.export.families import write_family
from tests.engine.export.models import export_gguf, mixtral, write_gguf, write_model
from tests.tiny import llama_config, llama_tensors, write_folder

MATRIX = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_tensors(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def gathered(checkpoint: Checkpoint, name: str, **options: object) -> Gathered:
    found = gather(checkpoint, name, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def assert_same(one: Gathered, other: Gathered) -> None:
    """To the bit."""
    for part in ("outputs", "inputs", "whole"):
        for figure in fields(getattr(one, part)):
            first, second = (getattr(getattr(each, part), figure.name) for each in (one, other))
            assert first.dtype == second.dtype == float
            np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(one.distribution.counts, other.distribution.counts)
    assert (one.tensor, one.shape, one.dtype) == (other.tensor, other.shape, other.dtype)


# ------------------------------------------------------------------------------------------- the figures


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_figures_are_those_of_all_weights(tmp_path, dtype, monkeypatch):
    """Whatever the pieces and chunks that it is read in; of one axis, of three, of a number alone."""
    monkeypatch.setattr(matrices, "PIECE", 300)
    monkeypatch.setattr(weight_statistics, "CHUNK", 1000)
    generator = torch.Generator().manual_seed(3)
    shapes = {"matrix": (70, 48), "vector": (90,), "stack": (4, 9, 33), "number": (), "column": (50, 1)}
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.1).to(dtype) for name, shape in shapes.items()
    }
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", **tensors)) as checkpoint:
        for name, tensor in tensors.items():
            found = gathered(checkpoint, name)
            values = tensor.float().numpy().reshape(-1, tensor.shape[-1] if tensor.shape else 1)
            assert found.shape == tensor.shape
            for axis, told in ((1, found.outputs), (0, found.inputs), (None, found.whole)):
                for figure, right in reference.channels(values, axis).items():
                    told_figure = getattr(told, figure)
                    assert told_figure.shape == right.shape
                    np.testing.assert_allclose(told_figure, right, rtol=2e-6, atol=1e-8, err_msg=figure)
            np.testing.assert_array_equal(found.distribution.counts, reference.counts(values))


def test_the_same_figures_on_any_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_statistics, "CHUNK", 5000)
    monkeypatch.setattr(statistics_cache, "load", lambda *arguments: None)
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        once = gathered(checkpoint, MATRIX, threads=1)
        for threads in (2, 5):
            assert_same(gathered(checkpoint, MATRIX, threads=threads), once)


def test_a_row_of_the_table():
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        told = statistics_of(checkpoint, gathered(checkpoint, "blk.1.ffn_down.weight"))
        weights = checkpoint.read(MATRIX).astype(float)
    assert (told.tensor, told.canonical) == (MATRIX, "blk.1.ffn_down.weight")
    assert (told.role, told.block) == ("down", 1)
    assert (told.shape, told.dtype, told.count) == (weights.shape, "BF16", weights.size)
    np.testing.assert_allclose(told.percentiles, np.percentile(weights, PERCENTS), rtol=1e-12)
    far = np.abs(weights - weights.mean()) > 6 * weights.std()
    assert told.beyond_sigmas == far.sum() > 0
    assert told.large == 0
    absmax = np.abs(weights).max(axis=0)
    assert told.outlier_channels == [int(absmax.argmax())]
    assert told.outlier_ratio == pytest.approx(absmax.max() / np.median(absmax))


def test_large_weights_are_counted_by_their_size(tmp_path):
    values = torch.tensor([[6.0, -6.0, 5.99, -5.9, 7.0, -30.0, 0.0, 0.1]])
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", matrix=values)) as checkpoint:
        assert statistics_of(checkpoint, gathered(checkpoint, "matrix")).large == 4


def test_outlier_channels_where_most_are_zeros():
    worst, ratios = outlier_channels(np.array([0, 0, 9.0, 0, 0, 1, 1, 0, 4]))
    assert worst.tolist() == [2]
    np.testing.assert_allclose(ratios[[0, 2, 5, 8]], [0, 3.6, 0.4, 1.6])
    worst, ratios = outlier_channels(np.zeros(5))
    assert (worst.size, ratios.max()) == (0, 0)


# ------------------------------------------------------------------------------------- planted outliers

PLANTED = {
    "model.layers.0.mlp.down_proj.weight": [7, 121, 64],
    "model.layers.1.self_attn.q_proj.weight": [63],
    "model.layers.1.mlp.gate_proj.weight": [5, 0],
}
"""Input channels of tensors, from the worst on."""

PLANTED_IN_EXPERTS = {
    "model.layers.0.block_sparse_moe.experts.2.w2.weight": [9, 150],
    "model.layers.1.block_sparse_moe.experts.0.w1.weight": [33],
}
IN_GGUF = {
    "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    "model.layers.1.self_attn.q_proj.weight": "blk.1.attn_q.weight",
    "model.layers.1.mlp.gate_proj.weight": "blk.1.ffn_gate.weight",
    "model.layers.0.block_sparse_moe.experts.2.w2.weight": "blk.0.ffn_down_exps.weight",
    "model.layers.1.block_sparse_moe.experts.0.w1.weight": "blk.1.ffn_gate_exps.weight",
}


def plant(folder: Path, channels: dict[str, list[int]]) -> Path:
    """The model in the folder with some columns 20, 15, 11 times as large."""
    for file in folder.glob("*.safetensors"):
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        for name in channels.keys() & tensors.keys():
            for channel, factor in zip(channels[name], (20, 15, 11), strict=False):
                column = tensors[name][:, channel]
                column *= factor * 0.4 / column.abs().max()
        save_file(tensors, file, metadata={"format": "pt"})
    return folder


def found_outliers(path: Path) -> dict[str, list[int]]:
    with open_checkpoint(path) as checkpoint:
        found, left_out = all_statistics(checkpoint, threads=2)
    assert not left_out
    return {one.tensor: one.outlier_channels for one in found if one.outlier_channels}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_planted_outliers_are_found_and_no_others(tmp_path, dtype, shards):
    config = llama_config()
    folder = write_folder(
        tmp_path / "m", config, llama_tensors(config), dtype=dtype, shards=shards, tokenizer=None
    )
    assert found_outliers(folder) == {}
    assert found_outliers(plant(folder, PLANTED)) == PLANTED


@pytest.mark.parametrize("format_name", ["F32", "Q8_0", "Q4_0"])
def test_planted_outliers_are_found_in_gguf(tmp_path, format_name):
    """Of quantized weights, too: they come decoded."""
    folder = plant(write_model(tmp_path / "m"), PLANTED)
    with open_checkpoint(folder) as checkpoint:
        export = plan_export(checkpoint)
        formats = {tensor.name: format_name if len(tensor.shape) > 1 else "F32" for tensor in export.tensors}
        write_gguf(checkpoint, export, tmp_path / "m.gguf", formats)
    assert found_outliers(tmp_path / "m.gguf") == {IN_GGUF[name]: PLANTED[name] for name in PLANTED}


def test_planted_outliers_are_found_where_inputs_are_rows(tmp_path):
    """GPT-2's matrices are stored transposed; in its GGUF they are not."""
    folder = write_family(tmp_path / "gpt2", "gpt2")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.mlp.c_proj.weight"][200] *= 20
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with open_checkpoint(folder) as checkpoint:
        again = gathered(checkpoint, "blk.0.ffn_down.weight")
        assert_same(gathered(checkpoint, "blk.0.ffn_down.weight"), again)  # from the cache
        assert (again.outputs.min.size, again.inputs.min.size) == (64, 256)
        for scope, axis in (("output", 1), ("input", 0)):
            found = channel_percentiles(checkpoint, "blk.0.ffn_down.weight", scope)
            weights = checkpoint.read("transformer.h.0.mlp.c_proj.weight").T
            np.testing.assert_allclose(found, np.percentile(weights, PERCENTS, axis=axis), rtol=1e-5)
    assert found_outliers(folder) == {"transformer.h.0.mlp.c_proj.weight": [200]}
    assert found_outliers(export_gguf(folder)) == {"blk.0.ffn_down.weight": [200]}


def test_planted_outliers_are_found_in_a_mixture_of_experts(tmp_path):
    """In the one expert; in GGUF, where experts are stacked, in their stack."""
    folder = plant(write_model(tmp_path / "m", **mixtral()), PLANTED_IN_EXPERTS)
    assert found_outliers(folder) == PLANTED_IN_EXPERTS
    in_gguf = {IN_GGUF[name]: channels for name, channels in PLANTED_IN_EXPERTS.items()}
    assert found_outliers(export_gguf(folder)) == in_gguf


# --------------------------------------------------------------------------- what cannot be, and stopping


def test_what_has_no_statistics_is_said(tmp_path):
    path = write_tensors(
        tmp_path / "m.safetensors",
        weight=torch.ones(4, 8),
        positions=torch.arange(5),
        nothing=torch.ones(0, 8),
        mask=torch.ones(3, dtype=torch.bool),
    )
    with open_checkpoint(path) as checkpoint:
        found, left_out = all_statistics(checkpoint, threads=1)
        assert [one.tensor for one in found] == ["weight"]
        assert {name: reason.split(str(path))[1] for name, reason in left_out.items()} == {
            "positions": " holds whole numbers (I64), no weights.",
            "mask": " holds yes and no (BOOL), no weights.",
            "nothing": " holds no weights.",
        }
        for name, said in (("nothing", "holds no weights"), ("absent", "has no tensor absent")):
            with pytest.raises(CheckpointError, match=said):
                gather(checkpoint, name)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    broken = torch.ones(70, 40)
    broken[69, 39] = bad
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", broken=broken)) as checkpoint:
        for read in (
            gather,
            lambda *asked: channel_percentiles(*asked, "output"),
            lambda *asked: group_channels(*asked, 8),
        ):
            with pytest.raises(NonFiniteError, match=r"broken of .* holds NaN or infinity: the model is"):
                read(checkpoint, "broken")
        assert cached(checkpoint, "broken") is None


def test_gathering_stops_when_nobody_wants_it(monkeypatch):
    monkeypatch.setattr(weight_statistics, "CHUNK", 100_000)
    told: list[tuple[int, int]] = []
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        found = gather(checkpoint, MATRIX, wanted=lambda: len(told) < 2, told=lambda *rows: told.append(rows))
        assert (found, told) == (None, [(65, 512), (130, 512)])
        assert cached(checkpoint, MATRIX) is None


def test_what_several_ask_for_at_once_is_read_once(monkeypatch):
    monkeypatch.setattr(weight_statistics, "CHUNK", 100_000)
    chunks: list[int] = []
    swept = weight_statistics._swept
    begun = threading.Event()

    def slowly(checkpoint, tensor, frame, start, stop):
        chunks.append(start)
        begun.set()
        time.sleep(0.02)
        return swept(checkpoint, tensor, frame, start, stop)

    monkeypatch.setattr(weight_statistics, "_swept", slowly)
    with (
        open_checkpoint(SAMPLE_MODEL) as one,
        open_checkpoint(SAMPLE_MODEL) as other,
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(gather, one, MATRIX)
        assert begun.wait(30)
        second = pool.submit(gather, other, MATRIX)
        third = pool.submit(gather, other, MATRIX, wanted=lambda: False)
        assert third.result() is None
        assert_same(first.result(), second.result())
    assert sorted(chunks) == [65 * i for i in range(8)]


def test_one_name_of_many_tensors_is_not_enough(tmp_path):
    said = r"is 4 tensors of .*such as model\.layers\.0\.block_sparse_moe"
    model = write_model(tmp_path / "m", **mixtral())
    with open_checkpoint(model) as checkpoint, pytest.raises(CheckpointError, match=said):
        gather(checkpoint, "blk.0.ffn_down_exps.weight")


# -------------------------------------------------------------------------------------------- on disk


def cache_files() -> list[Path]:
    return sorted(statistics_cache.folder().iterdir())


def test_what_was_gathered_is_not_read_again(monkeypatch):
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        assert cached(checkpoint, MATRIX) is None
        once = gathered(checkpoint, MATRIX)
        assert len(cache_files()) == 1
        monkeypatch.setattr(Checkpoint, "_read", lambda *arguments: pytest.fail("it was read"))
        assert_same(gathered(checkpoint, MATRIX), once)
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        again = cached(checkpoint, "blk.1.ffn_down.weight")
        assert again is not None
        assert_same(again, once)
        assert cached(checkpoint, "blk.2.ffn_down.weight") is None


def test_a_changed_file_is_read_anew(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", weight=torch.ones(4, 8))
    with open_checkpoint(path) as checkpoint:
        gathered(checkpoint, "weight")
    state = path.stat()
    write_tensors(path, weight=torch.full((4, 8), 2.0))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size and, as it says, time
    with open_checkpoint(path) as checkpoint:
        assert gathered(checkpoint, "weight").whole.mean == 2


def test_damaged_and_foreign_files_are_replaced(tmp_path, caplog):
    path = write_tensors(tmp_path / "m.safetensors", weight=torch.rand(40, 80))
    with open_checkpoint(path) as checkpoint:
        once = gathered(checkpoint, "weight")
        (file,) = cache_files()
        good = file.read_bytes()
        with np.load(file) as stored:
            arrays = dict(stored)
        damaged = [b"", b"PK", good[:-100], good[:300] + b"?" * 300 + good[600:], b"text"]
        directory = good.rindex(b"PK\x01\x02")
        damaged.append(good[: directory + 10] + b"\x63" + good[directory + 11 :])  # an unknown compression
        end = good.index(b"}", good.index(b"'shape'"))
        damaged.append(good[:end] + b"{" + good[end + 1 :])  # no description of an array
        for name, array in (
            ("rows", arrays["rows"][:, 1:]),
            ("columns", arrays["columns"] * np.float32(np.nan)),
            ("counts", arrays["counts"] * 2),
            ("occupied", np.array([{}], object)),  # a pickle
        ):
            other = tmp_path / "other.npz"
            np.savez(other, **arrays | {name: array})
            damaged.append(other.read_bytes())
        for content in damaged:
            file.write_bytes(content)
            assert cached(checkpoint, "weight") is None
            assert_same(gathered(checkpoint, "weight"), once)
            assert [file] == cache_files()
            found = cached(checkpoint, "weight")
            assert found is not None
            assert_same(found, once)


def test_the_files_used_least_lately_go(tmp_path, monkeypatch):
    tensors = {f"t{i}": torch.rand(40, 80) for i in range(6)}
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", **tensors)) as checkpoint:
        gathered(checkpoint, "t0")
        size = cache_files()[0].stat().st_size
        monkeypatch.setattr(statistics_cache, "LIMIT", int(3.5 * size))
        for i in range(1, 6):
            gathered(checkpoint, f"t{i}")
            for age, file in enumerate(sorted(cache_files(), key=lambda file: file.stat().st_mtime_ns)):
                os.utime(file, (1000 + age, 1000 + age))
            assert cached(checkpoint, "t0") is not None  # used now
        assert [name for name in tensors if cached(checkpoint, name) is not None] == ["t0", "t4", "t5"]


def test_the_cache_is_looked_through_once_for_many_files(tmp_path, monkeypatch):
    looks: list[int] = []
    clear = statistics_cache._clear
    monkeypatch.setattr(statistics_cache, "_clear", lambda wanted: looks.append(wanted) or clear(wanted))
    monkeypatch.setattr(statistics_cache, "_LOOKED", 10)
    tensors = {f"t{i}": torch.rand(3, 4) for i in range(25)}
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", **tensors)) as checkpoint:
        for name in tensors:
            gathered(checkpoint, name)
    assert (len(looks), len(cache_files())) == (3, 25)


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        assert gathered(checkpoint, MATRIX).whole.zeros == 0
    assert "statistics are not kept" in caplog.text


# ------------------------------------------------------------------------- percentiles; groups


@pytest.mark.parametrize("limit", [70 * 45, 200])
def test_percentiles_of_channels_are_numpys(tmp_path, monkeypatch, limit):
    """In one block of columns or many, rows of which the last group is shorter."""
    monkeypatch.setattr("engine.channel_statistics.SORTED", limit)
    weights = torch.randn(70, 45, generator=torch.Generator().manual_seed(1))
    values = weights.numpy().astype(float)
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", weight=weights)) as checkpoint:
        for scope, axis in (("output", 1), ("input", 0)):
            found = channel_percentiles(checkpoint, "weight", scope)
            np.testing.assert_allclose(found, np.percentile(values, PERCENTS, axis=axis), rtol=1e-6)
        found = channel_percentiles(checkpoint, "weight", "group", group=20)
        groups = [values[:, first : first + 20] for first in (0, 20, 40)]
        expected = [np.percentile(group, PERCENTS, axis=1) for group in groups]
        np.testing.assert_allclose(found, np.stack(expected, axis=2).reshape(9, -1), rtol=1e-6)
        assert channel_percentiles(checkpoint, "weight", "input", wanted=lambda: False) is None


def test_statistics_of_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.channel_statistics._GROUPED", 500)
    weights = torch.randn(33, 45, generator=torch.Generator().manual_seed(1))
    weights[3] = 0
    weights[4] *= 1e-30
    values = weights.numpy()
    with open_checkpoint(write_tensors(tmp_path / "m.safetensors", weight=weights)) as checkpoint:
        found = group_channels(checkpoint, "weight", 20)
        assert group_channels(checkpoint, "weight", 20, wanted=lambda: False) is None
    assert found is not None
    groups = [reference.channels(values[:, first : first + 20], 1) for first in (0, 20, 40)]
    for figure, expected in groups[0].items():
        expected = np.stack([group[figure] for group in groups], axis=1).reshape(-1)
        np.testing.assert_allclose(getattr(found, figure), expected, rtol=1e-6, err_msg=figure)
