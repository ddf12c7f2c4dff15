"""Histograms of stored tensors: exact figures, every weight counted, in pieces, broken off."""

from pathlib import Path

import numpy as np
import pytest
import torch

import engine.histogram
from engine.api.errors import CheckpointError
from engine.checkpoint import open_checkpoint
from engine.histogram import FEWEST_BINS, MOST_BINS, Histogram, read_histogram
from tests.tiny import llama_config, llama_tensors, random_array, write_folder

NAME = "model.layers.0.mlp.up_proj.weight"


def histogram_of(folder: Path, values: np.ndarray, dtype: torch.dtype = torch.float32) -> Histogram:
    config = llama_config()
    tensors = llama_tensors(config) | {NAME: torch.from_numpy(values)}
    write_folder(folder, config, tensors, tokenizer=None, dtype=dtype)
    with open_checkpoint(folder) as checkpoint:
        found = read_histogram(checkpoint, NAME)
        stored = checkpoint.read(NAME).astype(np.float64)
    assert found is not None
    assert (found.count, found.minimum, found.maximum) == (stored.size, stored.min(), stored.max())
    assert found.mean == pytest.approx(stored.mean(), rel=1e-12, abs=1e-15)
    assert found.deviation == pytest.approx(stored.std(), rel=1e-12, abs=1e-15)
    assert found.counts.sum() == stored.size
    upper = np.append(found.edges[1:], np.inf)
    expected = [
        ((stored >= low) & (stored < high)).sum() for low, high in zip(found.edges, upper, strict=True)
    ]
    moved = np.abs(found.counts - expected).sum()  # a weight on an edge may fall to either side
    assert moved <= 4
    return found


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("kind", ["gaussian", "heavy"])
def test_pieces_make_no_difference(tmp_path, monkeypatch, piece, kind):
    monkeypatch.setattr(engine.histogram, "PIECE", piece)
    found = histogram_of(tmp_path, random_array(kind, 17, 31), torch.bfloat16)
    assert FEWEST_BINS <= len(found.edges) <= MOST_BINS


def test_an_outlier_leaves_the_rest_more_than_one_bin(tmp_path):
    values = random_array("gaussian", 300, 300)
    values[0, 0] = 2.0
    found = histogram_of(tmp_path, values)
    assert (found.counts > 0).sum() > 20
    assert found.counts[-1] == 1


@pytest.mark.parametrize("value", [0.0, 1.0, -3e38, 1e-45])
def test_equal_weights_are_one_bin(tmp_path, value):
    found = histogram_of(tmp_path, np.full((3, 5), value, np.float32))
    assert found.width > 0
    assert np.flatnonzero(found.counts).size == 1
    assert found.deviation == 0


def test_the_whole_range_of_float32(tmp_path):
    histogram_of(tmp_path, np.array([[-3.4e38, 3.4e38, 0, 1e-45]], np.float32))


def test_a_vector(tmp_path):
    config = llama_config()
    write_folder(tmp_path, config, llama_tensors(config), tokenizer=None)
    with open_checkpoint(tmp_path) as checkpoint:
        found = read_histogram(checkpoint, "model.norm.weight")
    assert found is not None
    assert found.count == 64


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_and_unknown(tmp_path, value):
    config = llama_config()
    tensors = llama_tensors(config)
    tensors[NAME][3, 4] = value
    write_folder(tmp_path, config, tensors, tokenizer=None)
    with open_checkpoint(tmp_path) as checkpoint:
        with pytest.raises(CheckpointError, match="NaN or infinity"):
            read_histogram(checkpoint, NAME)
        with pytest.raises(CheckpointError, match="has no tensor absent"):
            read_histogram(checkpoint, "absent")


def test_broken_off_between_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.histogram, "PIECE", 64)
    config = llama_config()
    write_folder(tmp_path, config, llama_tensors(config), tokenizer=None)
    for patience in (0, 3, 163):  # 160 rows, read twice
        asked = 0

        def wanted(patience: int = patience) -> bool:
            nonlocal asked
            asked += 1
            return asked <= patience

        with open_checkpoint(tmp_path) as checkpoint:
            assert read_histogram(checkpoint, NAME, wanted) is None
        assert asked == patience + 1
