"""Plots without a screen: every spike is seen, text is text, files are whole or not there."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from engine import plotting
from engine.api.errors import OutputError
from engine.api.figures import Axis, Figure, HeatMap, Mark, Series
from engine.plotting import MAP, check_ending, render, write_plot

ROWS, CHANNELS = 32, 14_336


def heat_map(height: int, width: int, **more: object) -> HeatMap:
    channels, blocks = Axis(name="input channel", counts=True), Axis(name="block", counts=True)
    z = Axis(name="abs-max")
    return HeatMap(title="ffn_down", x=channels, y=blocks, z=z, height=height, width=width, **more)


def histogram() -> Figure:
    edges = [round(-0.5 + 0.1 * i, 1) for i in range(10)]
    counts = [0, 1, 10, 100, 1000, 1000, 100, 10, 1, 0]
    return Figure(
        title="Weights of <down>",
        x=Axis(name="weight"),
        y=Axis(name="count"),
        series=[
            Series(name="original", x=edges, y=counts, width=0.1),
            Series(name="quantized (Q4_K)", x=edges[2:4] + edges[6:8], y=[5, 6, 7, 8], width=0.1),
        ],
        marks=[
            Mark(kind="percentile", name="99.9 %", x=0.31),
            Mark(kind="clip", name="lowest", x=-0.4),
            Mark(kind="level", name="code 3", x=0.125),
        ],
    )


def shown(png: bytes) -> np.ndarray:
    """The pixels of the map, float [rows, columns, 3], from the top."""
    left, bottom, width, height = MAP
    picture = imread(io.BytesIO(png))
    return picture[plotting.HEIGHT - bottom - height : plotting.HEIGHT - bottom, left : left + width, :3]


@pytest.mark.parametrize("sign", [1, -1])
def test_twenty_spikes_of_one_channel_are_all_seen(sign):
    generator = np.random.default_rng(7)
    values = generator.uniform(0, 0.1, (ROWS, CHANNELS)).astype(np.float32)
    rows, columns = np.arange(20) + 5, generator.choice(CHANNELS, 20, replace=False)
    columns[:2] = 0, CHANNELS - 1
    values[rows, columns] = sign
    pixels = shown(render(heat_map(ROWS, CHANNELS, signed=sign < 0), values, "png"))
    ground = pixels[: pixels.shape[0] // ROWS].reshape(-1, 3)  # the first row has no spike
    apart = np.abs(pixels - ground.mean(axis=0)).max(axis=2) > 3 * np.abs(ground - ground.mean(axis=0)).max()
    for row, column in zip(rows, columns, strict=True):
        middle = int((row + 0.5) / ROWS * pixels.shape[0])
        place = int((column + 0.5) / CHANNELS * pixels.shape[1])
        assert apart[middle, max(0, place - 1) : place + 2].any(), (row, column)
    assert apart.sum() <= 2 * 20 * (pixels.shape[0] // ROWS + 1)


def test_few_cells_fill_the_picture_and_nan_is_left_blank():
    values = np.array([[0, 1], [np.nan, 0.5]], np.float32)
    pixels = shown(render(heat_map(2, 2), values, "png"))
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    cells = [pixels[i * height + 2 : (i + 1) * height - 2, 2:-2][:, :width] for i in (0, 1)]
    assert np.ptp(cells[0][:, : width - 4].reshape(-1, 3), axis=0).max() == 0
    assert (cells[1][:, : width - 4] == 1).all(), "white where nothing is"


def test_an_svg_holds_its_text_as_text():
    text = render(histogram(), None, "svg").decode()
    for said in (
        "Weights of &lt;down&gt;",
        ">weight<",
        ">count<",
        ">quantized (Q4_K)<",
        "99.9 %",
        "clip range",
    ):
        assert said in text
    assert text == render(histogram(), None, "svg").decode()
    assert ">block<" in render(heat_map(1, 1), np.ones((1, 1), np.float32), "svg").decode()


def test_the_clip_range_and_few_levels_are_seen():
    from matplotlib.figure import Figure as Canvas

    for levels, height in ((32, 1.0), (33, 0.025)):
        marks = [Mark(kind="clip", name="lowest", x=-9), Mark(kind="clip", name="highest", x=9)]
        marks += [Mark(kind="level", name=f"level {i}", x=i / 100) for i in range(levels)]
        axes = Canvas().add_subplot()
        plotting._draw_marks(axes, marks)
        assert axes.get_xlim()[0] <= -9 < 9 <= axes.get_xlim()[1]
        assert axes.lines[-1].get_ydata()[1] == height


def test_whole_numbers_are_written_out_and_the_title_has_its_room():
    counts = histogram()
    counts.y.counts = True
    for logarithmic, said in ((True, ">1,000<"), (False, ">750<")):
        assert said in render(counts, None, "svg", logarithmic=logarithmic).decode()
    two = render(counts.model_copy(update={"title": "one\ntwo"}), None, "png")
    blank = render(counts.model_copy(update={"title": ""}), None, "png")
    apart = np.abs(imread(io.BytesIO(two)) - imread(io.BytesIO(blank))).max(axis=(1, 2)).nonzero()[0]
    assert apart[0] > 4, "nothing is cut"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_figure_is_drawn(logarithmic):
    empty = Figure(title="", x=Axis(name="x"), y=Axis(name="y"), series=[])
    zeros = Figure(
        title="", x=Axis(name="x"), y=Axis(name="y"), series=[Series(name="a", x=[0], y=[0], width=1)]
    )
    for figure in (empty, zeros, histogram()):
        assert render(figure, None, "png", logarithmic=logarithmic).startswith(b"\x89PNG")
    for value in (np.nan, 0, -3):
        drawn = heat_map(2, 3, signed=value == -3, rows=["token_embd", "output"])
        assert render(drawn, np.full((2, 3), value, np.float32), "png", logarithmic=logarithmic)


def test_a_logarithmic_scale_tells_small_magnitudes_apart():
    values = np.array([[0.001, 0.01, 1000]], np.float32)
    linear, powers = (
        shown(render(heat_map(1, 3), values, "png", logarithmic=logarithmic)) for logarithmic in (False, True)
    )
    width = linear.shape[1] // 3
    assert (linear[9, width // 2] == linear[9, width + width // 2]).all()
    assert (powers[9, width // 2] != powers[9, width + width // 2]).any()


def test_plots_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "plot.CSV"
    write_plot(out, histogram())
    assert out.read_text() == histogram().to_csv()
    values = np.ones((1, 2), np.float32)
    write_plot(tmp_path / "map.csv", heat_map(1, 2), values)
    assert (tmp_path / "map.csv").read_text() == "block,input channel,abs-max\n0,0,1.0\n0,1,1.0\n"
    monkeypatch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OutputError, match="the disk is full"):
        write_plot(tmp_path / "plot.svg", histogram())
    assert {path.name for path in tmp_path.iterdir()} == {"plot.CSV", "map.csv"}


def test_other_endings_are_refused():
    with pytest.raises(OutputError, match=r"ends with \.png, \.svg or \.csv"):
        check_ending(Path("plot.jpg"))
    check_ending(Path("PLOT.PNG"))
