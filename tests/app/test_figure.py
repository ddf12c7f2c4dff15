"""A figure in the window: plot, table and files hold the same data."""

import csv
import io
from itertools import pairwise
from math import log10
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter, QPixmap
from pytestqt.qtbot import QtBot

from app.plotting import plotting
from app.views.export import IMAGE_SCALE
from app.views.figure import FigureView, read_out
from engine.api.figures import Axis, Figure, Mark, Series

FIGURE = Figure(
    title="Weights of blk.0.ffn_down",
    x=Axis(name="weight"),
    y=Axis(name="count"),
    series=[Series(name="original", x=[-0.2, 0.0, 0.2], y=[10.0, 0.0, 12345.0], width=0.2)],
)


@pytest.fixture
def view(qtbot: QtBot) -> FigureView:
    view = FigureView("Weights")
    qtbot.addWidget(view)
    view.resize(300, 300)
    view.show()
    return view


def drawn(qtbot: QtBot, view: FigureView) -> None:
    qtbot.waitUntil(lambda: view._plot is not None and view._plot.isVisible(), timeout=20_000)


def test_it_says_why_there_is_none_and_offers_nothing(view: FigureView):
    view.show_text("Reading the weights…")
    assert view._text.isVisible()
    assert not view._controls.isVisible()
    assert view.contextMenuPolicy() == Qt.ContextMenuPolicy.NoContextMenu


def test_the_plot_comes_when_pyqtgraph_is_there(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    assert plotting().loaded
    low, high = view._plot.box.viewRange()[0]
    assert low < -0.2
    assert high > 0.4


def test_linear_and_log_counts(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    assert view._plot.box.viewRange()[1][1] < 6  # powers of ten
    view.logarithmic.setChecked(False)
    assert view._plot.box.viewRange()[1][1] > 12345


def test_bars_end_where_a_block_has_none(qtbot: QtBot, view: FigureView):
    """Of a hybrid model, say: attention in blocks 4 and 12 alone."""
    blocks = Series(name="attn_v", x=[4, 12, 13], y=[30.0, 50.0, 40.0], width=1)
    view.show_figure(Figure(title="", x=Axis(name="block", counts=True), y=Axis(name="sum"), series=[blocks]))
    drawn(qtbot, view)
    view.logarithmic.setChecked(False)
    edges, heights = view._plot._steps(blocks)
    assert edges.tolist() == [3.5, 4.5, 11.5, 12.5, 13.5]
    assert heights.tolist() == [30.0, 0.0, 50.0, 40.0]


def test_a_logarithmic_axis_always_has_numbers(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    axis = view._plot._axes["left"]
    ticks = [log10(value) for value in (10, 20, 30, 50, 70, 100, 200)]
    told = []
    for low, high in ((0, 3), (1.2, 2.4), (1.2, 1.5)):
        axis.setRange(low, high)
        told.append([text for text in axis.tickStrings(ticks, 1, 1) if text])
    assert told == [
        ["10", "100"],
        ["10", "20", "50", "100", "200"],
        ["10", "20", "30", "50", "70", "100", "200"],
    ]


def test_a_double_click_shows_all_of_it_again(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    box = view._plot.box
    whole = box.viewRange()
    box.setXRange(0.0, 0.1, padding=0)
    assert box.viewRange() != whole
    qtbot.mouseDClick(view._plot.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(150, 80))
    assert box.viewRange() == whole


def test_the_pointer_reads_exact_values(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    view._plot.pointed.emit(0.3)
    assert "12,345" in view._read_out.text()
    view._plot.pointed.emit(None)
    assert view._read_out.text() == ""


def test_read_out_names_series_where_there_are_two():
    two = FIGURE.model_copy(
        update={"series": [*FIGURE.series, Series(name="Q4_K", x=[0.2], y=[7], width=0.2)]}
    )
    assert read_out(two, 0.3) == "0.2 to 0.4: 12,345 (original) · 0.2 to 0.4: 7 (Q4_K)"
    assert read_out(two, 9.0) == ""


def test_table_in_place_of_the_plot(view: FigureView):
    view.show_figure(FIGURE)
    view.as_table.trigger()
    assert view.table.isVisible()
    model = view.table.model()
    shown = [
        [model.index(row, column).data() for column in range(model.columnCount())]
        for row in range(model.rowCount())
    ]
    assert shown[2] == ["0.2", "0.4", "12,345"]
    assert model.headerData(0, Qt.Orientation.Horizontal) == "weight from"


def test_copied_and_saved_csv_are_the_data(qtbot: QtBot, view: FigureView, tmp_path: Path):
    view.show_figure(FIGURE)
    view.copy_csv()
    qtbot.waitUntil(lambda: view._read_out.text() == "Copied as CSV.")
    view.save_csv(tmp_path / "weights.csv")
    qtbot.waitUntil(lambda: view._read_out.text() == "Saved weights.csv.")
    assert (tmp_path / "weights.csv").read_text() == QGuiApplication.clipboard().text()
    _, *rows = csv.reader(io.StringIO(QGuiApplication.clipboard().text()))
    assert [float(row[2]) for row in rows] == FIGURE.series[0].y


def test_a_csv_that_cannot_be_written_says_so(qtbot: QtBot, view: FigureView, tmp_path: Path):
    view.show_figure(FIGURE)
    view.save_csv(tmp_path / "nowhere" / "weights.csv")
    qtbot.waitUntil(lambda: "cannot be written" in view._read_out.text())


def test_the_picture_is_finer_than_the_screen(qtbot: QtBot, view: FigureView, tmp_path: Path):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    view.save_png(tmp_path / "weights.png")
    qtbot.waitUntil(lambda: view._read_out.text() == "Saved weights.png.")
    image = QImage(str(tmp_path / "weights.png"))
    assert image.width() == 3 * view._plot.width()
    colors = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
    assert len(colors) > 3


def test_an_empty_figure_draws(qtbot: QtBot, view: FigureView):
    empty = FIGURE.model_copy(update={"series": [Series(name="none", x=[], y=[], width=1)]})
    view.show_figure(empty)
    drawn(qtbot, view)
    assert view.figure is empty


def test_a_new_figure_shows_while_the_table_is_open(view: FigureView):
    view.show_figure(FIGURE)
    view.as_table.trigger()
    view.show_figure(FIGURE.model_copy(update={"series": [Series(name="other", x=[1.0], y=[2], width=1)]}))
    assert view.table.model().rowCount() == 1


def test_a_picture_saved_behind_the_table_is_the_present_one(qtbot: QtBot, view: FigureView, tmp_path: Path):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    view.as_table.trigger()
    view.show_figure(FIGURE.model_copy(update={"title": "another"}))
    assert view._plot._figure.title == "another"
    view.save_png(tmp_path / "behind.png")
    qtbot.waitUntil(lambda: view._read_out.text() == "Saved behind.png.")
    assert QImage(str(tmp_path / "behind.png")).width() == view.table.width() * IMAGE_SCALE


# --------------------------------------------------------------------------------------- marks

MARKED = FIGURE.model_copy(
    update={
        "marks": [
            *(
                Mark(kind="percentile", name=f"p{percent}", x=x)
                for percent, x in ((1, -0.1), (50, 0.1), (51, 0.1001))
            ),
            Mark(kind="clip", name="clip", x=0.35),
            *(Mark(kind="level", name=f"level {place}", x=-0.2 + place / 20000) for place in range(12000)),
        ]
    }
)


def test_marks_near_the_pointer_are_told(qtbot: QtBot, view: FigureView):
    view.show_figure(MARKED)
    drawn(qtbot, view)
    view._plot.pointed.emit(0.3501)
    assert view._read_out.text().startswith("0.2 to 0.4: 12,345 · ")
    assert "clip 0.35" in view._read_out.text()
    assert view._read_out.text().count("level") == 1
    assert read_out(FIGURE, -0.1, [("p1", -0.1)]) == "−0.2 to 0: 10 · p1 −0.1"


def test_names_of_marks_do_not_overlap(qtbot: QtBot, view: FigureView):
    view.show_figure(MARKED)
    drawn(qtbot, view)
    marks = view._plot._marks
    placed = marks.names()
    assert {"p1", "p50", "clip"} <= {name for name, _, _ in placed}
    assert len(placed) == 3  # p51 lies where p50 does
    ends = sorted((left, right) for _, left, right in placed)
    assert all(right < left for (_, right), (left, _) in pairwise(ends))
    view._plot.box.setXRange(0.0999, 0.1002, padding=0)
    assert {name for name, _, _ in marks.names()} == {"p50", "p51"}  # once there is room


def test_of_many_levels_no_more_than_one_a_pixel_is_drawn(qtbot: QtBot, view: FigureView):
    view.show_figure(MARKED)
    drawn(qtbot, view)
    width = view._plot.box.rect().width()
    assert width / 2 < len(view._plot._marks.ticks()) <= width + 1
    view._plot.box.setXRange(0.0, 0.0005, padding=0)
    assert len(view._plot._marks.ticks()) == 11  # 20,000 a unit


def test_few_levels_are_lines_as_high_as_the_figure(qtbot: QtBot, view: FigureView):
    for count, tall in ((16, True), (256, False)):
        levels = [Mark(kind="level", name=f"level {place}", x=place / count) for place in range(count)]
        view.show_figure(FIGURE.model_copy(update={"marks": levels}))
        drawn(qtbot, view)
        marks = view._plot._marks
        assert (marks.level_top() == marks.boundingRect().top()) is tall


def test_channels_are_named_by_whole_numbers_from_zero(qtbot: QtBot, view: FigureView):
    x = Axis(name="input channel", counts=True)
    series = [Series(name="error", x=list(range(2048)), y=[1.0] * 2048, width=1)]
    view.show_figure(FIGURE.model_copy(update={"series": series, "x": x}))
    drawn(qtbot, view)
    axis = view._plot._axes["bottom"]
    assert axis.tickStrings([0.0, 0.5, 1000.0, 1500.0], 1, 500) == ["0", "", "1,000", "1,500"]
    for width in (230, 500):
        view.resize(width, 200)
        page = QPixmap(10, 10)
        painter = QPainter(page)
        names = [name for _, _, name in axis.generateDrawSpecs(painter)[2]]
        painter.end()
        assert "0" in names


def test_six_series_have_a_legend_and_lines_of_their_own(qtbot: QtBot, view: FigureView):
    six = [Series(name=f"series {place}", x=[0.0, 1.0], y=[place + 1, 2], width=1) for place in range(6)]
    view.show_figure(FIGURE.model_copy(update={"series": six}))
    drawn(qtbot, view)
    assert [label.text for _, label in view._plot._legend.items] == [series.name for series in six]
    curves = [sample.item for sample, _ in view._plot._legend.items]
    pens = {(curve.opts["pen"].color().name(), curve.opts["pen"].style()) for curve in curves}
    assert len(pens) == 6


def test_the_zoom_stays_when_a_refined_version_comes(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    box = view._plot.box
    box.setXRange(0.0, 0.1, padding=0)
    refined = FIGURE.model_copy(
        update={"series": [Series(name="original", x=[-0.2], y=[99999.0], width=0.6)]}
    )
    view.show_figure(refined)
    assert box.viewRange()[0] == [0.0, 0.1]
    view.logarithmic.setChecked(False)
    assert box.viewRange()[0] == [0.0, 0.1]
    assert box.viewRange()[1][1] > 99999  # its heights are others now
    view.show_figure(refined.model_copy(update={"title": "Weights of blk.1.ffn_down"}))
    assert box.viewRange()[0] != [0.0, 0.1]


def test_an_unzoomed_refinement_is_shown_whole(qtbot: QtBot, view: FigureView):
    view.show_figure(FIGURE)
    drawn(qtbot, view)
    view.show_figure(FIGURE.model_copy(update={"series": [Series(name="o", x=[-5.0], y=[1.0], width=10)]}))
    assert view._plot.box.viewRange()[0][1] >= 5


def test_a_drawing_has_lines_and_letters(qtbot: QtBot, view: FigureView, tmp_path: Path):
    view.show_figure(MARKED)
    drawn(qtbot, view)
    view.save_svg(tmp_path / "weights.svg")
    qtbot.waitUntil(lambda: view._read_out.text() == "Saved weights.svg.")
    text = (tmp_path / "weights.svg").read_text()
    assert ">p50<" in text
    assert ">weight <" in text
    assert "<image" not in text
