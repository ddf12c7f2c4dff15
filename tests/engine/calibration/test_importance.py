"""Importance matrices in both of llama.cpp's formats, read, written and merged."""

from dataclasses import replace

import numpy as np
import pytest

from engine.api.errors import CalibrationError, CheckpointError, OutputError
from engine.calibration.importance import merged
from engine.calibration.importance_files import read_importance, write_importance
from resources import SAMPLE_MODEL
from tests.engine.calibration.matrices import (
    importance,
    older_bytes,
    pair,
    read_gguf,
    read_older,
    write_gguf,
)

STACK = importance(blk__0__x=([[1.0, 2.0], [0.0, 0.0]], [512, 0]), blk__0__y=([[3.0, 4.5, 6.0]], [1536]))


def test_means_by_matrix_and_an_unseen_expert(tmp_path):
    path = write_gguf(tmp_path / "i.gguf", pair("a", [[2.0, 4.0], [0.0, 0.0]], [2, 0]))
    entry = read_importance(path).entries["a"]
    assert np.array_equal(entry.means(), [[1, 2], [1, 1]])
    assert entry.unseen.tolist() == [1]
    assert entry.means_of(0).tolist() == [1, 2]
    assert entry.means_of(1) is None


def test_the_sample_s_own_by_llama_imatrix():
    found = read_importance(SAMPLE_MODEL / "imatrix.gguf")
    assert (found.datasets, found.chunks, found.chunk_size) == (["cal400k.txt"], 120, 512)
    assert len(found.entries) == 28
    entry = found.entries["blk.3.ffn_down.weight"]
    assert (entry.sums.shape, entry.counts.tolist()) == ((1, 1536), [61440])
    # the channel that the model's notes name as its largest activation, 27 times the median
    assert found.entries["blk.1.ffn_down.weight"].sums[0].argmax() == 106


def test_gguf_s_reader_finds_what_was_written(tmp_path):
    write_importance(tmp_path / "i.gguf", STACK, overwrite=False)
    arrays, values = read_gguf(tmp_path / "i.gguf")
    assert {name: array.shape for name, array in arrays.items()} == {
        "blk.0.x.in_sum2": (2, 2),
        "blk.0.x.counts": (2, 1),
        "blk.0.y.in_sum2": (1, 3),
        "blk.0.y.counts": (1, 1),
    }
    assert arrays["blk.0.x.in_sum2"].tolist() == [[1, 2], [0, 0]]
    assert arrays["blk.0.x.counts"].tolist() == [[512], [0]]
    kept = {key: value for key, value in values.items() if not key.startswith("GGUF.")}
    assert kept == {
        "general.type": "imatrix",
        "imatrix.datasets": ["a.txt"],
        "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 512,
    }


def test_a_parser_of_its_own_finds_what_was_written_in_the_older_format(tmp_path):
    write_importance(tmp_path / "i.dat", STACK, overwrite=False)
    entries, chunks, text = read_older(tmp_path / "i.dat")
    assert (chunks, text, list(entries)) == (3, "a.txt", ["blk.0.x", "blk.0.y"])
    calls, values = entries["blk.0.x"]
    assert calls == 1
    assert np.allclose(values, [1 / 512, 2 / 512, 1, 1])  # llama-imatrix writes 1 for an unseen expert
    calls, values = entries["blk.0.y"]
    assert calls == 3
    assert np.allclose(values, np.array([3, 4.5, 6]) / 1536 * 3)


@pytest.mark.parametrize("name", ["i.gguf", "i.dat", "without a suffix"])
def test_read_back(tmp_path, name):
    """The older format has one count for all experts; the unseen one shows once the shape is known."""
    write_importance(tmp_path / name, STACK, overwrite=False)
    found = read_importance(tmp_path / name)
    assert (found.datasets, found.chunks, found.chunk_size) == (["a.txt"], 3, 512)
    for key, entry in STACK.entries.items():
        shaped = found.entries[key].shaped(*entry.sums.shape)
        assert np.allclose(shaped.means(), entry.means(), rtol=1e-6)
        assert shaped.unseen.tolist() == entry.unseen.tolist()
    assert found.entries["blk.0.x"].shaped(3, 2) is None


def test_content_decides_not_the_name(tmp_path):
    (tmp_path / "i.gguf").write_bytes(older_bytes({"a": (2, [2.0, 4.0])}))
    found = read_importance(tmp_path / "i.gguf")
    assert found.entries["a"].means().tolist() == [[1, 2]]
    assert (found.chunks, found.datasets) == (0, [])
    write_gguf(tmp_path / "i.dat", pair("a", [[2.0, 4.0]], [2]))
    assert read_importance(tmp_path / "i.dat").entries["a"].means().tolist() == [[1, 2]]


def test_one_count_for_a_stack_that_every_token_passes(tmp_path):
    path = write_gguf(tmp_path / "i.gguf", pair("a", [[2.0, 4.0], [6.0, 8.0]], [2]))
    assert read_importance(path).entries["a"].means().tolist() == [[1, 2], [3, 4]]


def test_merged_sums_counts_windows_and_texts_add_up():
    other = importance(blk__0__x=([[1.0, 1.0], [3.0, 5.0]], [4, 2]), blk__1__z=([[1.0]], [1]))
    other.datasets = ["b.txt", "a.txt"]
    found = merged([STACK, other], ["one", "two"])
    assert (found.datasets, found.chunks) == (["a.txt", "b.txt"], 6)
    assert list(found.entries) == ["blk.0.x", "blk.0.y", "blk.1.z"]
    assert found.entries["blk.0.x"].sums.tolist() == [[2, 3], [3, 5]]
    assert found.entries["blk.0.x"].counts.tolist() == [516, 2]


def test_an_older_file_merges_with_a_newer_one(tmp_path):
    write_importance(tmp_path / "i.dat", STACK, overwrite=False)
    found = merged([read_importance(tmp_path / "i.dat"), STACK], ["one", "two"]).entries["blk.0.x"]
    assert np.allclose(found.means(), STACK.entries["blk.0.x"].means())
    assert found.counts.tolist() == [1024, 0]


def test_matrices_of_different_models_are_not_merged():
    other = importance(blk__0__y=([[3.0, 4.5]], [1536]))
    with pytest.raises(CalibrationError, match=r"^two: blk\.0\.y has 1 × 2 values, and 1 × 3 in one"):
        merged([STACK, other], ["one", "two"])
    other = importance(blk__0__y=([[3.0, 4.5, 1.0]], [1536]))
    other.chunk_size = 256
    with pytest.raises(CalibrationError, match="two was made with windows of 256 tokens and one"):
        merged([STACK, other], ["one", "two"])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.in_sum2": np.ones((1, 2))}, "no counts"),
        (pair("a", [[1.0, np.nan]], [1]), "a holds negative or not finite"),
        (pair("a", [[1.0, np.inf]], [1]), "a holds negative or not finite"),
        (pair("a", [[-1.0, 1.0]], [1]), "a holds negative or not finite"),
        (pair("a", [[1.0, 1.0]], [-1]), "a holds negative or not finite"),
        (pair("a", [[1.0, 1.0]], [np.nan]), "counts that are not finite"),
        (pair("a", [[1.0, 1.0]] * 2, [1, 1, 1]), "3 counts"),
        ({"else": np.ones((1, 2))}, "holds no tensor"),
    ],
)
def test_damaged(tmp_path, tensors, said):
    with pytest.raises(CalibrationError, match=said):
        read_importance(write_gguf(tmp_path / "i.gguf", tensors))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        older_bytes({}),
        older_bytes({"a": (1, [1.0])})[:-1],
        older_bytes({"a": (-1, [1.0])}),
        older_bytes({"a\n": (1, [1.0])}),
    ],
    ids=["empty", "text", "no entries", "cut", "negative", "name"],
)
def test_something_else(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"file: is not an importance matrix, neither in GGUF nor"):
        read_importance(tmp_path / "file")


@pytest.mark.parametrize("text", ["/" + "a" * 600 + ".txt", "/" + "a" * 3000, "a\nb.txt", "é" * 500])
def test_a_text_s_name_that_no_line_can_hold_is_dropped(tmp_path, text):
    """A path may be that long, and have any letters: the sums were hours of work."""
    write_importance(tmp_path / "i.dat", replace(STACK, datasets=[text]), overwrite=False)
    assert read_older(tmp_path / "i.dat")[2] == text
    found = read_importance(tmp_path / "i.dat")
    assert found.entries.keys() == STACK.entries.keys()
    assert found.chunks == STACK.chunks
    assert found.datasets == ([text] if len(text) == 500 else [])


def test_a_model_and_a_file_that_is_absent(tmp_path):
    with pytest.raises(CalibrationError, match="no importance matrix"):
        read_importance(write_gguf(tmp_path / "i.gguf", {"a": np.ones((1, 2))}, kind="model"))
    with pytest.raises(CalibrationError, match="absent: there is no such importance matrix"):
        read_importance(tmp_path / "absent")


def test_the_older_format_cut_anywhere_ends_too_early(tmp_path):
    names = {"blk.0.attn_q.weight": (3, [1.0, 2.0]), "blk.1.attn_q.weight": (3, [1.0, 2.0])}
    whole = older_bytes(names, 3, "text")
    entries = len(older_bytes(names))
    first = 4 + 4 + len("blk.0.attn_q.weight")
    for size in range(first, len(whole)):
        (tmp_path / "i.dat").write_bytes(whole[:size])
        if size in (entries, entries + 4):  # as the oldest ones end, or without a text
            assert read_importance(tmp_path / "i.dat").entries.keys() == names.keys()
            continue
        with pytest.raises(CheckpointError, match=r"i\.dat ends too early: "):
            read_importance(tmp_path / "i.dat")


def test_nan_in_the_older_format(tmp_path):
    (tmp_path / "i.dat").write_bytes(older_bytes({"blk.0.x": (1, [1.0, float("nan")])}))
    with pytest.raises(CalibrationError, match=r"blk\.0\.x holds negative or not finite values"):
        read_importance(tmp_path / "i.dat")


def test_an_output_that_exists(tmp_path):
    path = tmp_path / "i.gguf"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_importance(path, STACK, overwrite=False)
    assert path.read_text() == "mine"
    size = write_importance(path, STACK, overwrite=True)
    assert (size, write_importance(path, STACK, overwrite=False)) == (path.stat().st_size,) * 2  # its own
    assert [file.name for file in tmp_path.iterdir()] == ["i.gguf"]


def test_nothing_is_left_of_a_file_that_was_not_read_back_well(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.calibration.importance_files.read_importance", lambda path: importance())
    with pytest.raises(OutputError, match="what was read back is not what was written"):
        write_importance(tmp_path / "i.gguf", STACK, overwrite=False)
    assert list(tmp_path.iterdir()) == []
