"""Figures of a tiny model hold exactly what NumPy says of its weights, from the first picture to the last."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.api.errors import CheckpointError, ExportError, FigureError
from engine.api.figures import Figure, HeatMap, Series
from engine.api.recipe import Choice, Recipe, Rule
from engine.api.statistics import PERCENTS
from engine.api.views import ErrorOf, HistogramOf, OutliersOf, PictureOf, View
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import NonFiniteError
from engine.figures import Drawn, figures, histogram, tensors
from engine.figures.drawn import Refresh
from engine.quantization_errors import measure_errors, quantized
from tests.engine.export.families import write_family
from tests.engine.export.random_models import write_random
from tests.tiny import llama_config, llama_tensors, write_folder

DOWN = "model.layers.1.mlp.down_proj.weight"
GGUF_DOWN = "blk.1.ffn_down.weight"
Q4 = Recipe(default=Choice(format="Q4_0"))
UNSIGNED = Recipe(default=Choice(format="Q4_1"))
SPIKE = (5, 137)
"""Output and input channel of a planted outlier in `DOWN`, 64 x 160."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write_model(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    tensors = llama_tensors(llama_config())
    tensors[DOWN][SPIKE] = 9.0
    return write_folder(folder, llama_config(), tensors, tokenizer=None, dtype=dtype)


@pytest.fixture
def model(tmp_path) -> Iterator[Checkpoint]:
    with open_checkpoint(write_model(tmp_path / "model")) as checkpoint:
        yield checkpoint


def all_of(checkpoint: Checkpoint, view: View) -> list[Drawn]:
    found = list(figures(checkpoint, view))
    assert [drawn.last for drawn in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].done == found[-1].total
    assert [drawn.done for drawn in found] == sorted(drawn.done for drawn in found)
    return found


def bins_of(checkpoint: Checkpoint, view: View) -> Figure:
    figure = all_of(checkpoint, view)[-1].figure
    assert isinstance(figure, Figure)
    return figure


def cells_of(checkpoint: Checkpoint, view: View) -> tuple[HeatMap, np.ndarray]:
    last = all_of(checkpoint, view)[-1]
    assert isinstance(last.figure, HeatMap)
    assert last.values is not None
    assert last.values.dtype == np.float32
    assert last.values.shape == (last.figure.height, last.figure.width)
    return last.figure, last.values


def check_counts(series: Series, values: np.ndarray) -> None:
    """Every value is counted, in its bin; one on an edge may fall to either side."""
    assert sum(series.y) == values.size
    edges = np.array([*series.x, series.x[-1] + series.width])
    expected = np.histogram(values.astype(np.float64), edges)[0]
    assert np.abs(expected - series.y).sum() <= 4


# ------------------------------------------------------------------------------------- histograms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_histogram_counts_every_weight(tmp_path, dtype):
    with open_checkpoint(write_model(tmp_path / "model", dtype)) as checkpoint:
        weights = checkpoint.read(DOWN)
        found = all_of(checkpoint, HistogramOf(tensor=GGUF_DOWN, bins=100))
    last = found[-1].figure
    check_counts(last.series[0], weights)
    assert len(last.series[0].x) > 100, "the spike must not leave the rest in a few bins"
    assert [mark.name for mark in last.marks][:2] == ["0.1 %", "1 %"]
    expected = np.percentile(weights.astype(np.float64), PERCENTS)
    np.testing.assert_allclose([mark.x for mark in last.marks], expected, rtol=0.02, atol=1e-4)
    if dtype == torch.bfloat16:
        assert len(found) == 1, "its statistics know every value"
    else:
        first = found[0].figure.series[0]
        assert sum(first.y) == pytest.approx(weights.size)
        moved = np.abs(np.cumsum(first.y) - np.cumsum(last.series[0].y)[: len(first.y)]).max()
        assert moved < 0.01 * weights.size


def test_a_large_tensor_that_nothing_is_known_of_is_sampled_first(model, monkeypatch):
    monkeypatch.setattr(histogram, "SMALL", 1000)
    monkeypatch.setattr(histogram, "RUN", 1)
    view = HistogramOf(tensor=DOWN)
    first, *_, last = all_of(model, view)
    assert first.figure.series[0].name == "weights, estimated from 1 row in 16"
    assert sum(first.figure.series[0].y) == pytest.approx(64 * 160)
    check_counts(last.figure.series[0], model.read(DOWN))
    again = all_of(model, view)
    assert again[0].figure.series[0].name == "weights", "now they are known"


def test_a_histogram_says_what_a_recipe_makes(model):
    found = all_of(model, HistogramOf(tensor=DOWN, recipe=Q4))
    original, made = found[-1].figure.series
    assert (original.name, made.name) == ("original", "quantized (Q4_0)")
    check_counts(original, model.read(DOWN))
    expected = quantized(model, Q4, DOWN)
    check_counts(made, expected.values(0, 64))
    clip = [mark.x for mark in found[-1].figure.marks if mark.kind == "clip"]
    assert tuple(clip) == measure_errors(expected).clip


def test_what_a_recipe_makes_is_estimated_until_all_is_encoded(model, monkeypatch):
    monkeypatch.setattr("engine.quantized_weights.PIECE", 160)  # a row
    monkeypatch.setattr(Refresh, "due", lambda self: True)
    found = all_of(model, HistogramOf(tensor=DOWN, recipe=Q4))
    series = [drawn.figure.series[1] for drawn in found if len(drawn.figure.series) > 1]
    assert len(series) == 64
    assert series[31].name == "quantized (Q4_0), estimated from 50% of it"
    for one in series:
        assert sum(one.y) == 64 * 160
        assert np.array_equal(one.y, np.rint(one.y))


@pytest.mark.parametrize(
    ("scope", "index", "rows", "columns"),
    [("output", 5, [5], range(160)), ("input", 137, range(64), [137]), ("group", 12, [2], range(64, 96))],
)
def test_a_histogram_of_a_channel_or_group(model, scope, index, rows, columns):
    view = HistogramOf(tensor=DOWN, scope=scope, index=index)
    weights = model.read(DOWN)[np.ix_(rows, columns)]
    check_counts(bins_of(model, view).series[0], weights)
    figure = bins_of(model, view.model_copy(update={"recipe": Q4}))
    made = quantized(model, Q4, DOWN)
    check_counts(figure.series[0], weights)
    check_counts(figure.series[1], made.values(0, 64)[np.ix_(rows, columns)])
    assert figure.title.endswith(" · Q4_0")
    levels = [mark.x for mark in figure.marks if mark.kind == "level"]
    if scope == "group":
        assert "(row 2, columns 64 to 95)" in figure.title
        assert round(float(np.ptp(weights)) / figure.series[0].width) == 60
        assert len(levels) == 16
        assert {*made.values(2, 3)[0, 64:96].tolist()} <= {*levels}
    else:
        assert not levels


@pytest.mark.parametrize(("scope", "count"), [("output", 64), ("input", 160), ("group", 320)])
def test_no_channel_beyond_the_last(model, scope, count):
    bins_of(model, HistogramOf(tensor=DOWN, scope=scope, index=count - 1))
    with pytest.raises(FigureError, match=f"has {count} .*, the last one is {count - 1}"):
        all_of(model, HistogramOf(tensor=DOWN, scope=scope, index=count))


def test_vectors_and_equal_weights(tmp_path):
    tensors = llama_tensors(llama_config())
    tensors["model.norm.weight"][:] = 1.0
    folder = write_folder(tmp_path / "model", llama_config(), tensors, tokenizer=None)
    with open_checkpoint(folder) as checkpoint:
        equal = bins_of(checkpoint, HistogramOf(tensor="output_norm", recipe=Q4)).series
        assert [series.y for series in equal] == [[64.0], [64.0]]
        assert equal[0].bin_at(1.0) == 0
        vector = "model.layers.0.input_layernorm.weight"
        check_counts(bins_of(checkpoint, HistogramOf(tensor=vector)).series[0], checkpoint.read(vector))
        _, values = cells_of(checkpoint, PictureOf(tensor=vector))
        np.testing.assert_array_equal(values, checkpoint.read(vector).reshape(1, -1))


@pytest.mark.parametrize("scope", ["tensor", "output", "picture"])
def test_a_damaged_tensor_is_said_to_be(tmp_path, scope):
    tensors = llama_tensors(llama_config())
    tensors[DOWN][0, 4] = np.nan
    folder = write_folder(tmp_path / "model", llama_config(), tensors, tokenizer=None)
    with open_checkpoint(folder) as checkpoint, pytest.raises(NonFiniteError, match="NaN or infinity"):
        all_of(
            checkpoint,
            PictureOf(tensor=DOWN) if scope == "picture" else HistogramOf(tensor=DOWN, scope=scope),
        )


def test_unknown_names_are_said_with_the_nearest(model):
    with pytest.raises(CheckpointError, match=r"has no tensor blk\.1\.fn_down\.weight; did you mean blk"):
        all_of(model, HistogramOf(tensor="blk.1.fn_down.weight"))
    with pytest.raises(CheckpointError, match="has no tensor %%%; its list of tensors says what it has"):
        all_of(model, PictureOf(tensor="%%%"))
    with pytest.raises(CheckpointError, match=rf"did you mean {DOWN}\?"):
        all_of(model, PictureOf(tensor="transformer.h.1.mlp.dense_4h_to_h.weight"))


# --------------------------------------------------------------------------------------- outliers


@pytest.mark.parametrize("metric", ["absmax", "kurtosis", "ratio"])
def test_an_outlier_channel_stands_out_in_its_block(model, metric):
    figure, values = cells_of(model, OutliersOf(role="ffn_down", metric=metric))
    assert (figure.height, figure.width) == (2, 160)
    assert np.unravel_index(values.argmax(), values.shape) == (1, SPIKE[1])
    largest = np.abs(model.read(DOWN)).max(axis=0)
    expected = {"absmax": largest, "ratio": largest / np.median(largest)}
    if metric in expected:
        np.testing.assert_allclose(values[1], expected[metric], rtol=1e-6)


def test_what_a_recipe_loses_of_each_channel_of_a_role(model, monkeypatch):
    monkeypatch.setattr(Refresh, "due", lambda self: True)
    mixed = Recipe(default=Choice(format="Q4_0"), rules=[Rule(match="blk.0.", format="Q8_0")])
    first, last = all_of(model, OutliersOf(role="ffn_down", metric="error", recipe=mixed))
    assert np.isnan(first.values[1]).all()
    assert last.figure.z.name == "squared error over the mean"
    for block in (0, 1):
        made = quantized(model, mixed, f"blk.{block}.ffn_down.weight")
        np.testing.assert_allclose(last.values[block], measure_errors(made).by_input, rtol=1e-6)
    assert last.figure.title == "ffn_down · squared error over the mean by input channel · Q8_0, Q4_0"
    with pytest.raises(FigureError, match="choose a recipe"):
        all_of(model, OutliersOf(role="ffn_down", metric="error"))
    with pytest.raises(FigureError, match="activations are not quantized"):
        all_of(model, OutliersOf(role="ffn_down", metric="error", recipe=Q4, source="activations"))


def test_errors_of_a_role_that_is_not_in_the_output(tmp_path):
    config = llama_config(tie_word_embeddings=True)
    weights = llama_tensors(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    folder = write_folder(tmp_path / "model", config, weights, tokenizer=None)
    with open_checkpoint(folder) as checkpoint, pytest.raises(FigureError, match="is in the output"):
        all_of(checkpoint, OutliersOf(role="output", metric="error", recipe=Q4))


def test_roles_outside_of_blocks_and_unknown_ones(model):
    figure, values = cells_of(model, OutliersOf(role="output"))
    assert figure.rows == ["output"]
    np.testing.assert_array_equal(values[0], np.abs(model.read("lm_head.weight")).max(axis=0))
    there = "output, token_embd, ffn_down, ffn_gate, ffn_up, attn_k, attn_output, attn_q, attn_v"
    with pytest.raises(FigureError, match=f"has no matrices ffn_dwn; it has {there}"):
        all_of(model, OutliersOf(role="ffn_dwn"))


def test_rows_fill_as_tensors_are_read(model, monkeypatch):
    monkeypatch.setattr(Refresh, "due", lambda self: True)
    first, last = all_of(model, OutliersOf(role="ffn_down"))
    assert np.isfinite(first.values[0]).all()
    assert np.isnan(first.values[1]).all()
    np.testing.assert_array_equal(first.values[0], last.values[0])


def test_experts_share_a_row_and_blocks_without_the_role_have_none(tmp_path):
    config = llama_config(num_hidden_layers=3)
    weights = llama_tensors(config)
    for block in (0, 2):
        name = f"model.layers.{block}.mlp.down_proj.weight"
        weights |= {
            f"model.layers.{block}.mlp.experts.{i}.down_proj.weight": weights[name] * (2 - i) for i in (0, 1)
        }
        del weights[name]
    folder = write_folder(tmp_path / "model", config, weights, tokenizer=None)
    with open_checkpoint(folder) as checkpoint:
        _, values = cells_of(checkpoint, OutliersOf(role="ffn_down_exps"))
        largest = np.abs(checkpoint.read("model.layers.2.mlp.experts.0.down_proj.weight")).max(axis=0)
    assert np.isnan(values[1]).all()
    np.testing.assert_allclose(values[2], largest, rtol=1e-6)


def test_channels_of_a_source_that_is_stored_transposed(tmp_path):
    """GPT-2's: what is said of channels and groups is said of those of its transpose."""
    with open_checkpoint(write_family(tmp_path / "gpt2", "gpt2")) as checkpoint:
        name, canonical = "transformer.h.1.mlp.c_proj.weight", "blk.1.ffn_down.weight"
        weights = checkpoint.read(name).T  # 64 output channels, 256 input channels
        _, values = cells_of(checkpoint, OutliersOf(role="ffn_down"))
        assert values.shape == (2, 256)
        np.testing.assert_array_equal(values[1], np.abs(weights).max(axis=0))
        _, values = cells_of(checkpoint, PictureOf(tensor=canonical, height=64, width=256))
        np.testing.assert_array_equal(values, weights)
        made = quantized(checkpoint, Q4, name)
        _, values = cells_of(checkpoint, PictureOf(tensor=name, what="error", recipe=Q4, first_row=40))
        np.testing.assert_array_equal(values, made.values(40, 64) - weights[40:])
        for scope, index, some in (
            ("output", 63, weights[63]),
            ("input", 255, weights[:, 255]),
            ("group", 8 * 5 + 7, weights[5, 224:]),
        ):
            view = HistogramOf(tensor=name, scope=scope, index=index)
            check_counts(bins_of(checkpoint, view).series[0], some)
            both = bins_of(checkpoint, view.model_copy(update={"recipe": Q4})).series
            check_counts(both[0], some)
        check_counts(both[1], made.values(5, 6)[:, 224:])


def test_stacked_experts_under_the_names_that_gguf_has(tmp_path):
    """Gate and up in one tensor, whose name does not end with "weight"."""
    sizes = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    more = {"head_dim": 16, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    with open_checkpoint(
        write_random(tmp_path / "qwen", "qwen3_moe", stacked=True, **sizes, **more)
    ) as found:
        both = np.abs(found.read("model.layers.1.mlp.experts.gate_up_proj")).max(axis=(0, 1))
        for role in ("ffn_gate_exps", "ffn_up_exps"):
            np.testing.assert_array_equal(cells_of(found, OutliersOf(role=role))[1][1], both)
        assert cells_of(found, OutliersOf(role="ffn_down_exps"))[1].shape == (2, 96)
        title = bins_of(found, HistogramOf(tensor="blk.1.ffn_up_exps")).title
        assert title == "blk.1.ffn_up_exps · weights"


# --------------------------------------------------------------------------------------- pictures


def test_a_picture_at_full_size_is_the_weights(model):
    figure, values = cells_of(model, PictureOf(tensor=GGUF_DOWN, height=64, width=160))
    np.testing.assert_array_equal(values, model.read(DOWN))
    assert (figure.row_step, figure.column_step, figure.signed) == (1, 1, True)
    part = PictureOf(tensor=DOWN, first_row=3, stop_row=9, first_column=130, stop_column=141)
    figure, values = cells_of(model, part)
    np.testing.assert_array_equal(values, model.read(DOWN)[3:9, 130:141])
    assert (figure.first_row, figure.first_column) == (3, 130)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (63, 159), (10, 160)])
def test_a_spike_survives_in_any_picture(model, height, width, monkeypatch):
    monkeypatch.setattr(tensors, "PIECE", 500)
    weights = model.read(DOWN)
    figure, values = cells_of(model, PictureOf(tensor=DOWN, height=height, width=width))
    assert figure.height <= height
    assert figure.width <= width
    for (i, j), value in np.ndenumerate(values):
        rows, columns = figure.rows_of(i), figure.columns_of(j)
        cell = weights[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert value == cell.reshape(-1)[np.abs(cell).argmax()]
    assert figure.columns()[-1] == "weight (farthest from zero)"
    i, j = (place // step for place, step in zip(SPIKE, (figure.row_step, figure.column_step), strict=True))
    assert values[i, j] == 9.0


def test_errors_and_codes_as_a_picture(model):
    made = quantized(model, Q4, DOWN)
    whole = {"tensor": DOWN, "recipe": Q4, "height": 64, "width": 160}
    figure, values = cells_of(model, PictureOf(what="error", **whole))
    np.testing.assert_array_equal(values, made.values(0, 64) - model.read(DOWN))
    assert (figure.column_borders, figure.title) == (32, f"{DOWN} · errors · Q4_0")
    figure, values = cells_of(model, PictureOf(what="code", **whole))
    np.testing.assert_array_equal(values, made.codes(0, 64))
    assert figure.signed
    assert not figure.takes_log
    assert figure.row(values, 5)[2] == values[0, 5]
    assert isinstance(figure.row(values, 5)[2], int)
    unsigned, _ = cells_of(model, PictureOf(what="code", **whole | {"recipe": UNSIGNED}))
    assert not unsigned.signed
    assert not unsigned.takes_log
    with pytest.raises(FigureError, match="depends on a format"):
        all_of(model, PictureOf(tensor=DOWN, what="error"))
    with pytest.raises(FigureError, match="from 70 to 64 is none"):
        all_of(model, PictureOf(tensor=DOWN, first_row=70))
    with pytest.raises(ExportError, match="has no codes"):
        all_of(model, PictureOf(tensor="output_norm", what="code", recipe=Q4))


# ------------------------------------------------------------------------------------------ errors


def test_errors_by_channel_and_by_group(model, monkeypatch):
    weights = model.read(DOWN).astype(np.float64)
    lost = (quantized(model, Q4, DOWN).values(0, 64) - weights) ** 2
    for scope, axis in (("output", 1), ("input", 0)):
        figure = bins_of(model, ErrorOf(tensor=DOWN, scope=scope, recipe=Q4))
        np.testing.assert_allclose(
            figure.series[0].y, lost.sum(axis) / (weights**2).sum(axis).mean(), rtol=1e-9
        )
        assert figure.columns() == [f"{scope} channel", "squared error over the mean"]
    grouped = lost.reshape(64, 5, 32).sum(-1) / (weights**2).reshape(64, 5, 32).sum(-1).mean()
    figure, values = cells_of(model, ErrorOf(tensor=DOWN, scope="group", recipe=Q4))
    np.testing.assert_allclose(values, grouped, rtol=1e-6)
    with pytest.raises(FigureError, match="Nothing is lost of output_norm as F32"):
        all_of(model, ErrorOf(tensor="output_norm", recipe=Q4))
    monkeypatch.setattr("engine.figures.error.MOST_BINS", 20)
    monkeypatch.setattr("engine.figures.error.MOST_CELLS", 100)
    _, values = cells_of(model, ErrorOf(tensor=DOWN, scope="group", recipe=Q4))
    np.testing.assert_allclose(values[1], grouped[4:8].max(axis=0), rtol=1e-6)
    shared = bins_of(model, ErrorOf(tensor=DOWN, scope="output", recipe=Q4))
    assert shared.y.name == "squared error over the mean, of 4 channels the largest"
    by_output = lost.sum(1) / (weights**2).sum(1).mean()
    np.testing.assert_allclose(shared.series[0].y, by_output.reshape(16, 4).max(axis=1), rtol=1e-9)


@pytest.mark.parametrize(
    "view",
    [
        HistogramOf(tensor=DOWN, recipe=Q4),
        HistogramOf(tensor=DOWN, scope="input"),
        OutliersOf(role="ffn_up"),
        OutliersOf(role="ffn_up", metric="error", recipe=Q4),
        PictureOf(tensor=DOWN),
        ErrorOf(tensor=DOWN, recipe=Q4),
    ],
)
def test_what_is_not_wanted_any_more_ends(model, view):
    assert list(figures(model, view, lambda: False)) == []
