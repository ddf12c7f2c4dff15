"""Rows in pieces are the rows of the whole, whatever the pieces and wherever the rows come from."""

from math import prod
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import open_checkpoint
from engine.export.gguf import plan_export
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
