"""What a recipe makes of a source tensor, against the file that `quantize` writes, read by `gguf`."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.quantization_errors import measure_errors, quantized
from engine.quantize import quantize
from tests.tiny import llama_config, llama_tensors, write_folder

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 4}
Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
EXPERT = "model.layers.0.block_sparse_moe.experts.{}.w2.weight"


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """One channel is dead; norms are as ever."""
    config = llama_config(**WIDE)
    tensors = llama_tensors(config)
    tensors[DOWN][:, 300] = 0
    return write_folder(tmp_path_factory.mktemp("llama") / "model", config, tensors)


def written(model: Path, recipe: Recipe, folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the file that `quantize` makes, dequantized by `gguf`, in NumPy's shape."""
    file = folder / "out.gguf"
    quantize(QuantizeRequest(model=str(model), output=str(file), recipe=recipe))
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in gguf.GGUFReader(file).tensors
    }


def halves_swapped(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of GGUF's Q or K in the order of transformers: of each head first the even ones."""
    by_head = matrix.reshape(heads, -1, 2, matrix.shape[-1])
    return by_head.swapaxes(1, 2).reshape(matrix.shape)


def check(
    checkpoint: Checkpoint, recipe: Recipe, name: str, stored: np.ndarray, *, transposed: bool = False
) -> None:
    """Rows, codes and errors of a tensor that is in the file as `stored`, in the source's order and shape."""
    weights = checkpoint.read(name).reshape(-1, checkpoint.tensors[name].shape[-1])
    stored = stored.reshape(weights.shape)
    found = quantized(checkpoint, recipe, name)
    assert found.shape == weights.shape
    np.testing.assert_array_equal(found.rows(0, len(weights)), stored)
    first, stop = len(weights) // 3, len(weights) // 3 + 7
    np.testing.assert_array_equal(found.rows(first, stop), stored[first:stop])

    errors = measure_errors(found)
    assert errors is not None
    squares = np.square(weights.astype(np.float64))
    lost = np.square(stored.astype(np.float64) - weights)
    if transposed:
        squares, lost = squares.T, lost.T
    assert errors.whole.squared == pytest.approx(lost.sum() / squares.sum())
    assert errors.whole.mean_squared == pytest.approx(lost.mean())
    assert errors.whole.snr == pytest.approx(-10 * np.log10(lost.sum() / squares.sum()))
    flat, back = weights.reshape(-1).astype(np.float64), stored.reshape(-1).astype(np.float64)
    cosine = flat @ back / np.linalg.norm(flat) / np.linalg.norm(back)
    assert errors.whole.cosine == pytest.approx(cosine, abs=1e-12)
    grouped = (len(squares), -1, found.group)
    with np.errstate(invalid="ignore", divide="ignore"):
        np.testing.assert_allclose(errors.by_output, lost.sum(1) / squares.sum(1))
        by_input = lost.sum(0) / squares.sum(0)
        alive = squares.sum(0) > 0
        np.testing.assert_allclose(errors.by_input[alive], by_input[alive])
        by_group = lost.reshape(grouped).sum(-1) / squares.reshape(grouped).sum(-1)
        np.testing.assert_allclose(errors.by_group, by_group, rtol=1e-6)


def all_in(format_name: str, **more: object) -> Recipe:
    return Recipe(default=Choice(format=format_name), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_name", "group", "block", "levels"),
    [("Q4_K", 32, 256, 16), ("Q4_0", 32, 32, 16), ("Q6_K", 16, 256, 64), ("Q8_0", 32, 32, 255)],
)
def test_rows_and_errors_are_those_of_the_file(llama, tmp_path, format_name, group, block, levels):
    recipe = all_in(format_name)
    file = written(llama, recipe, tmp_path)
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, recipe, DOWN)
        assert (found.format, found.method, found.group, found.block) == (format_name, "search", group, block)
        assert found.levels == levels
        check(checkpoint, recipe, DOWN, file["blk.1.ffn_down.weight"])
        check(checkpoint, recipe, Q, halves_swapped(file["blk.0.attn_q.weight"], 16))
        output = "model.layers.1.self_attn.o_proj.weight"
        check(checkpoint, recipe, output, file["blk.1.attn_output.weight"])
