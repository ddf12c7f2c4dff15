"""Importance matrices in llama-imatrix's GGUF layout."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.api.errors import CheckpointError, RecipeError
from engine.calibration.importance import read_importance
from resources import SAMPLE_MODEL


def write(path: Path, tensors: dict[str, np.ndarray], kind: str = "imatrix") -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    for name, array in tensors.items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_means_by_matrix_and_an_unseen_expert(tmp_path):
    sums = np.array([[2.0, 4.0], [0.0, 0.0]])
    path = write(tmp_path / "i.gguf", {"a.in_sum2": sums, "a.counts": np.array([[2.0], [0.0]])})
    assert np.array_equal(read_importance(path)["a"], [[1, 2], [1, 1]])


def test_the_sample_s_own_by_llama_imatrix():
    importance = read_importance(SAMPLE_MODEL / "imatrix.gguf")
    assert importance["blk.3.ffn_down.weight"].shape == (1, 1536)
    assert len(importance) == 28
    # the channel that the model's notes name as its largest activation, 27 times the median
    assert importance["blk.1.ffn_down.weight"][0].argmax() == 106


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.in_sum2": np.ones((1, 2))}, "no counts"),
        ({"a.in_sum2": np.full((1, 2), np.nan), "a.counts": np.ones((1, 1))}, "not finite"),
        ({"a.in_sum2": -np.ones((1, 2)), "a.counts": np.ones((1, 1))}, "negative"),
        ({"a.in_sum2": np.ones((2, 2)), "a.counts": np.ones((3, 1))}, "3 counts"),
    ],
)
def test_damaged(tmp_path, tensors, said):
    with pytest.raises(RecipeError, match=said):
        read_importance(write(tmp_path / "i.gguf", tensors))


def test_something_else(tmp_path):
    with pytest.raises(RecipeError, match="no importance matrix"):
        read_importance(write(tmp_path / "i.gguf", {"a": np.ones((1, 2))}, kind="model"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RecipeError, match="not an importance matrix"):
        read_importance(tmp_path / "text")
    with pytest.raises(CheckpointError, match="absent"):
        read_importance(tmp_path / "absent")
