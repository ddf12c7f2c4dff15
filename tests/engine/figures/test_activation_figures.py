"""Figures of activations, from a file of their statistics."""

from pathlib import Path

import numpy as np
import pytest

from engine.activations import About, LayerAbout, LayerActivations, layer_arrays
from engine.api.activations import Ran
from engine.api.errors import FigureError
from engine.api.figures import Figure, HeatMap
from engine.api.statistics import PERCENTS
from engine.api.views import HistogramOf, OutliersOf
from engine.calibration.array_files import write_arrays
from engine.checkpoint import open_checkpoint
from engine.figures import figures
from kernels.statistics import Channels, Distribution
from tests.tiny import write_llama

TOKENS, WIDTH, SPIKE = 500, 160, 77
RAN = Ran(model="/m", files=["/t.txt"], windows=1, windows_there=1, length=TOKENS, seed=1)


def layer_of(tensor: str, values: np.ndarray) -> LayerActivations:
    """Of float32 [tokens, columns]."""
    exact = values.astype(np.float64)
    mean, std = exact.mean(axis=0), exact.std(axis=0)
    kurtosis = ((exact - mean) ** 4).mean(axis=0) / std**4
    low, high, zeros = exact.min(axis=0), exact.max(axis=0), (exact == 0).mean(axis=0)
    upper = (values.view(np.uint32) >> 16).astype(np.int64).reshape(-1)
    counts = np.bincount(np.where(upper >= 0x8000, 0xFFFF - upper, upper + 0x8000), minlength=1 << 16)
    return LayerActivations(
        tensor=tensor,
        block=int(tensor.split(".")[1]),
        rows=len(values),
        sampled=len(values),
        channels=Channels(low, high, mean, std, np.maximum(-low, high), kurtosis, zeros),
        percentiles=np.percentile(exact, PERCENTS, axis=0).astype(np.float32),
        distribution=Distribution(counts, low.min(), high.max()),
        beyond=np.zeros(values.shape[1]),
        peaks=[],
        batches=np.array([[low.min(), high.max()]]),
    )


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    found = np.random.default_rng(3).standard_normal((TOKENS, WIDTH), np.float32)
    found[:, SPIKE] *= 40
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, values) -> Path:
    """A model, and beside it statistics of what reaches its last block's down projection and leaves it."""
    folder = tmp_path_factory.mktemp("activations")
    write_llama(folder / "model", tokenizer=None)
    layers = [layer_of("blk.1.ffn_down.weight", values), layer_of("blk.1.output", values[:, :64].copy())]
    abouts = [
        LayerAbout(
            tensors=[one.tensor],
            block=one.block,
            columns=len(one.beyond),
            rows=TOKENS,
            sampled=TOKENS,
            peaks=[],
        )
        for one in layers
    ]
    arrays = {name: array for i, one in enumerate(layers) for name, array in layer_arrays(i, one).items()}
    about = About(ran=RAN, layers=abouts, caches=[]).model_dump_json()
    write_arrays(folder / "activations", about, arrays, overwrite=False)
    return folder


def drawn(place: Path, view: HistogramOf | OutliersOf) -> tuple[Figure | HeatMap, np.ndarray | None]:
    asked = view.model_copy(update={"source": "activations", "activations": str(place / "activations")})
    with open_checkpoint(place / "model") as checkpoint:
        (found,) = figures(checkpoint, asked)
    assert found.last
    return found.figure, found.values


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"])
def test_a_layer_is_spread_over_bins(place, values, name):
    figure, _ = drawn(place, HistogramOf(tensor=name))
    (series,) = figure.series
    assert sum(series.y) == TOKENS * WIDTH
    assert np.array_equal(series.y, np.rint(series.y))
    counts = [row[-1] for row in figure.rows() if row[0] == series.name]
    assert len(counts) == len(series.y)
    assert all(isinstance(count, int) for count in counts)
    edges = np.array([*series.x, series.x[-1] + series.width])
    expected = np.histogram(values.astype(np.float64), edges)[0]
    assert np.abs(np.cumsum(series.y) - np.cumsum(expected)).max() < 0.01 * values.size
    np.testing.assert_allclose(
        [mark.x for mark in figure.marks], np.percentile(values, PERCENTS), rtol=0.03, atol=0.01
    )


def test_a_channel_is_spread_between_its_percentiles(place, values):
    figure, _ = drawn(place, HistogramOf(tensor="blk.1.ffn_down.weight", scope="input", index=SPIKE))
    (series,) = figure.series
    assert sum(series.y) == TOKENS
    assert np.array_equal(series.y, np.rint(series.y))
    assert figure.title == f"blk.1.ffn_down.weight · inputs · input channel {SPIKE}"
    middle = sum(y for x, y in zip(series.x, series.y, strict=True) if x < np.median(values[:, SPIKE]))
    assert middle == pytest.approx(TOKENS / 2, abs=TOKENS / 50)
    assert "from their percentiles" in series.name
    with pytest.raises(FigureError, match="has 160 input channels, the last one is 159"):
        drawn(place, HistogramOf(tensor="blk.1.ffn_down.weight", scope="input", index=160))


@pytest.mark.parametrize("metric", ["absmax", "ratio"])
def test_outliers_of_activations(place, values, metric):
    figure, cells = drawn(place, OutliersOf(role="ffn_down", metric=metric))
    assert (figure.height, figure.width) == (2, WIDTH)
    assert np.isnan(cells[0]).all()
    largest = np.abs(values).max(axis=0)
    expected = largest / np.median(largest) if metric == "ratio" else largest
    np.testing.assert_allclose(cells[1], expected, rtol=1e-6)
    assert cells[1].argmax() == SPIKE
    assert figure.title.endswith("by input channel · activations")
    figure, cells = drawn(place, OutliersOf(role="output", metric=metric))
    assert figure.x.name == "output channel"
    assert cells.shape == (2, 64)


def test_what_is_not_in_the_file_is_said(place):
    for view in (HistogramOf(tensor="blk.0.ffn_down.weight"), OutliersOf(role="attn_q")):
        with pytest.raises(FigureError, match="says nothing of"):
            drawn(place, view)
    with pytest.raises(FigureError, match="have no output channels"):
        drawn(place, HistogramOf(tensor="blk.1.ffn_down.weight", scope="output"))
    with open_checkpoint(place / "model") as checkpoint, pytest.raises(FigureError, match="Name the file"):
        list(figures(checkpoint, OutliersOf(role="output", source="activations")))


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "blk.1.ffn_down", "model.layers.1.mlp.down_proj"])
def test_any_name_of_a_matrix_will_do(place, name):
    view = HistogramOf(source="activations", tensor=name, activations=str(place / "activations"))
    with open_checkpoint(place / "model") as checkpoint:
        *_, last = figures(checkpoint, view)
        assert last.figure.title == f"{name} · inputs"
        nothing = view.model_copy(update={"tensor": "blk.1.ffn_up"})
        with pytest.raises(FigureError, match=r"says nothing of blk\.1\.ffn_up; .* blk\.1\.ffn_down\.weight"):
            list(figures(checkpoint, nothing))
