"""Importance matrices used on a model: what is refused, what is named, what does not matter."""

from pathlib import Path

import numpy as np
import pytest

from engine.api.errors import RecipeError
from engine.api.recipe import Choice, Recipe
from engine.calibration.importance import Entry, Importance
from engine.calibration.importance_files import read_importance, write_importance
from engine.checkpoint import open_checkpoint
from engine.preparation import Prepared, prepare
from resources import SAMPLE_MODEL
from tests.engine.calibration.matrices import older_bytes

UNUSED = "the importance matrix is not used: no tensor gets a format whose codes are searched for"
NAMES = list(read_importance(SAMPLE_MODEL / "imatrix.gguf").entries)


@pytest.fixture(scope="module")
def sample():
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        yield checkpoint


def matrix(tmp_path: Path, entries: dict[str, Entry]) -> Path:
    path = tmp_path / "i.gguf"
    write_importance(path, Importance(entries), overwrite=True)
    return path


def own() -> dict[str, Entry]:
    return read_importance(SAMPLE_MODEL / "imatrix.gguf").entries


def prepared(sample, path: Path, format_name: str = "Q4_K") -> Prepared:
    return prepare(sample, Recipe(default=Choice(format=format_name), imatrix=str(path)))


def ones(*shape: int) -> Entry:
    return Entry(np.ones(shape, np.float32), np.ones(shape[0], np.int64))


def test_the_sample_s_own_fits_without_a_word(sample):
    found = prepared(sample, SAMPLE_MODEL / "imatrix.gguf")
    assert found.plan.warnings == []
    assert found.importance.keys() == set(NAMES)
    assert found.importance["blk.0.ffn_down.weight"].sums.shape == (1, 1536)


def test_what_is_not_quantized_needs_no_importance(sample, tmp_path):
    found = prepared(sample, matrix(tmp_path, {NAMES[0]: own()[NAMES[0]]}), "F16")
    assert (found.plan.warnings, found.importance) == ([UNUSED], {})
    assert not found.plan.metadata


def test_the_first_tensor_that_differs_is_named_with_both_sizes(sample, tmp_path):
    entries = own() | {"blk.1.attn_q.weight": ones(1, 256), "blk.2.ffn_up.weight": ones(1, 3)}
    with pytest.raises(
        RecipeError, match=r"blk\.1\.attn_q\.weight has 1 × 256 values, the model needs 1 × 512"
    ):
        prepared(sample, matrix(tmp_path, entries))


def test_a_matrix_that_names_nothing_of_the_model(sample, tmp_path):
    path = matrix(tmp_path, {"transformer.h.0.weight": ones(1, 512)})
    said = r"names no tensor of this model \(its first is transformer\.h\.0\.weight, the model's token_embd"
    with pytest.raises(RecipeError, match=said):
        prepared(sample, path)


def test_tensors_that_are_missing_or_strange_are_named(sample, tmp_path):
    entries = own()
    del entries["blk.2.ffn_up.weight"], entries["blk.3.attn_q.weight"]
    entries |= {"blk.4.attn_q.weight": ones(1, 512)}
    assert prepared(sample, matrix(tmp_path, entries)).plan.warnings == [
        "the importance matrix says nothing of 2 tensors (blk.2.ffn_up.weight, blk.3.attn_q.weight): "
        "quantized without it",
        "the importance matrix is also of 1 tensor (blk.4.attn_q.weight), which this model has not",
    ]
    few = {NAMES[0]: own()[NAMES[0]]}
    [warning] = prepared(sample, matrix(tmp_path, few)).plan.warnings
    assert "nothing of 27 tensors (" in warning
    assert ", …)" in warning


def test_a_tensor_that_saw_no_token(sample, tmp_path):
    entries = own() | {NAMES[3]: Entry(np.zeros((1, 512), np.float32), np.zeros(1, np.int64))}
    found = prepared(sample, matrix(tmp_path, entries))
    assert found.importance[NAMES[3]].means_of(0) is None
    name = NAMES[3].removesuffix(".weight")
    assert found.plan.warnings == [
        f"nothing but zeros reached these matrices: {name}: quantized as without an importance matrix"
    ]


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_values_that_no_text_can_give(sample, tmp_path, value):
    (tmp_path / "i.dat").write_bytes(older_bytes({NAMES[0]: (1, [value] * 512)}))
    with pytest.raises(RecipeError, match=f"{NAMES[0]} holds negative or not finite values"):
        prepared(sample, tmp_path / "i.dat")


def test_the_older_format_gives_the_same_importance(sample, tmp_path):
    write_importance(tmp_path / "i.dat", Importance(own()), overwrite=False)
    older, newer = prepared(sample, tmp_path / "i.dat"), prepared(sample, SAMPLE_MODEL / "imatrix.gguf")
    for name, entry in newer.importance.items():
        assert np.allclose(older.importance[name].means_of(0), entry.means_of(0), rtol=1e-6)
