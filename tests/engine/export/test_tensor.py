"""Rows in pieces are the rows of the whole, whatever the pieces and wherever the rows come from."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.api.model import Role
from engine.checkpoint import open_checkpoint
from engine.export.gguf import OutputTensor, plan_export
from engine.methods import as_float32
from tests.engine.export.models import LLAMA3, mixtral, write_gguf, write_model


@pytest.mark.parametrize("step", [1, 7, 17, 33])
@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_pieces_make_the_whole(source: str, step: int, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", **mixtral(rope_scaling=LLAMA3))
    if source == "gguf":
        with open_checkpoint(path) as checkpoint:
            write_gguf(checkpoint, plan_export(checkpoint), tmp_path / "model.gguf")
        path = tmp_path / "model.gguf"
    with open_checkpoint(path) as checkpoint:
        for tensor in plan_export(checkpoint).tensors:
            rows = prod(tensor.shape[:-1])
            whole = tensor.read(checkpoint, 0, rows)
            assert whole.shape == (rows, tensor.shape[-1])
            assert whole.dtype == np.float32
            for start in range(0, rows, step * 5):  # every fifth piece, to keep this short
                stop = min(start + step, rows)
                piece = tensor.read(checkpoint, start, stop)
                assert piece.flags.c_contiguous
                assert np.array_equal(piece, whole[start:stop]), tensor.name
                halves = tensor.read(checkpoint, start, stop, halves=True)
                assert np.array_equal(as_float32(halves), piece), tensor.name


def test_a_piece_of_reordered_rows_reads_its_heads_alone(tmp_path: Path) -> None:
    with open_checkpoint(write_model(tmp_path / "model")) as checkpoint:
        q = next(t for t in plan_export(checkpoint).tensors if t.name == "blk.0.attn_q.weight")
        asked = []
        read = checkpoint.read

        def watched(name: str, rows: slice) -> np.ndarray:
            asked.append(rows)
            return read(name, rows)

        checkpoint.read = watched  # type: ignore[method-assign]
        q.read(checkpoint, 16, 32)
        assert asked == [slice(16, 32)]


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A file of three experts of 40 x 32: stacked in F16, and one by one, of which one is stored wider."""
    rng = np.random.default_rng(0)
    tensors = {"stack": rng.normal(size=(3, 40, 32)).astype(np.float16)}
    tensors |= {f"one.{index}": tensors["stack"][index] for index in range(3)}
    tensors["wide"] = tensors["stack"][2].astype(np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_piece_of_a_stored_stack_reads_its_rows_alone(stack: Path) -> None:
    with open_checkpoint(stack) as checkpoint:
        whole = checkpoint.read("stack").reshape(-1, 32)
        tensor = OutputTensor("stack", (3, 40, 32), Role.EXPERT, 0, ("stack",))
        file = checkpoint._opened[checkpoint.tensors["stack"].file]
        for halves in (False, True):
            before = file.bytes_read
            piece = tensor.read(checkpoint, 35, 85, halves=halves)
            assert np.array_equal(as_float32(piece), whole[35:85])
            assert piece.dtype == (np.float16 if halves else np.float32)
            assert file.bytes_read - before == 50 * 32 * 2


def test_halves_come_only_where_all_sources_are_stored_so(stack: Path) -> None:
    with open_checkpoint(stack) as checkpoint:
        whole = checkpoint.read("stack").reshape(-1, 32)
        for last, dtype in (("one.2", np.float16), ("wide", np.float32)):
            tensor = OutputTensor("stack", (3, 40, 32), Role.EXPERT, 0, ("one.0", "one.1", last))
            piece = tensor.read(checkpoint, 30, 90, halves=True)
            assert piece.dtype == dtype
            assert np.array_equal(as_float32(piece), whole[30:90])
