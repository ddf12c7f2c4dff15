"""A heat map in the window: every single spike is seen, and what is told of a cell is exact."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QWheelEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import theme
from app.views.figure import FigureView
from app.views.heat_field import Field, Part, cell_text
from app.views.heat_map import HeatMapView
from engine.api.figures import Axis
from tests.app.heat_maps import figure
from tests.app.turns import Turns

SPIKES = 20
LIMIT = 0.05
"""Seconds of the window's CPU time in one turn of its event loop."""


def spiked(generator: np.random.Generator, height: int = 32, width: int = 14336) -> tuple:
    """Values [height, width] about 0.1 and the places of 20 single ones of 50."""
    values = generator.uniform(0.1, 0.12, (height, width)).astype(np.float32)
    places = np.stack([generator.integers(height, size=SPIKES), generator.permutation(width)[:SPIKES]], 1)
    values[places[:, 0], places[:, 1]] = 50
    return values, places


def pixels_of(widget: HeatMapView) -> np.ndarray:
    """uint32 [height, width] of the whole widget."""
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_ARGB32)
    lines = np.frombuffer(image.constBits(), np.uint32).reshape(image.height(), image.bytesPerLine() // 4)
    return lines[:, : image.width()].copy()


def color_of(widget: HeatMapView, value: float) -> int:
    return int(widget._shown.scale.colors(np.array([[value]], np.float32))[0, 0])


def box_of(widget: HeatMapView, row: int, column: int) -> tuple[float, float, float, float]:
    """Top, bottom, left, right of a cell in pixels of the widget, where the part that is visible ends."""
    part, cells = widget.part, widget.cells
    down, right = cells.height() / part.height, cells.width() / part.width
    return (
        cells.top() + max(0.0, row - part.top) * down,
        cells.top() + min(part.height, row + 1 - part.top) * down,
        cells.left() + max(0.0, column - part.left) * right,
        cells.left() + min(part.width, column + 1 - part.left) * right,
    )


def near(widget: HeatMapView, row: int, column: int) -> tuple[slice, slice]:
    """The pixels of a cell and one more on each side."""
    part, cells = widget.part, widget.cells
    top = cells.top() + (row - part.top) * cells.height() / part.height
    left = cells.left() + (column - part.left) * cells.width() / part.width
    ends = (top - 1, top + cells.height() / part.height + 2, left - 1, left + cells.width() / part.width + 2)
    top, bottom, left, right = (max(0, int(end)) for end in ends)
    return slice(top, bottom), slice(left, right)


@pytest.fixture
def heat(qtbot: QtBot, qapp: QApplication) -> HeatMapView:
    theme.apply_theme(qapp, "light")
    widget = HeatMapView()
    qtbot.addWidget(widget)
    widget.resize(900, 400)
    widget.show()
    return widget


@pytest.fixture
def small(heat: HeatMapView) -> HeatMapView:
    """Four rows with names, forty columns, each value its row and column: 3.07 is that of [3, 7]."""
    values = (np.arange(4)[:, None] + np.arange(40) / 100).astype(np.float32)
    heat.show_figure(figure(4, 40, rows=["blk.0", "blk.1", "blk.2", "blk.3"]), values, logarithmic=False)
    return heat


def middle(widget: HeatMapView, row: int, column: int) -> QPoint:
    top, bottom, left, right = box_of(widget, row, column)
    return QPointF((left + right) / 2, (top + bottom) / 2).toPoint()


# ---------------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("logarithmic", [False, True])
def test_twenty_single_spikes_are_seen_at_any_zoom(heat: HeatMapView, logarithmic: bool):
    generator = np.random.default_rng(7)
    values, places = spiked(generator)
    heat.show_figure(figure(*values.shape), values, logarithmic)
    spike, seen, whole = color_of(heat, 50), 0, heat.part
    for turn in range(60):
        if turn:  # from all of it to a few cells, ends anywhere within a cell
            tall, wide = 32 * generator.random() ** 2, 14336 * 10 ** -generator.uniform(0, 3.4)
            top, left = generator.uniform(0, 32 - tall), generator.uniform(0, 14336 - wide)
            heat.show_part(Part(top, top + tall, left, left + wide))
        shows = pixels_of(heat) == spike
        shows[:, heat.cells.right() + 1 :] = False  # the bar has that color, too
        part = heat.part
        for row, column in places:
            if not (
                part.top < row + 1 and row < part.bottom and part.left < column + 1 and column < part.right
            ):
                continue
            top, bottom, left, right = box_of(heat, row, column)
            where = np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
            if min(bottom - top, right - left) > 0.01:  # rounding may hide a hundredth of a pixel
                assert shows[where].any(), (turn, row, column, part)
                seen += 1
        for row, column in places:
            shows[near(heat, row, column)] = False
        assert not shows.any(), "a spike where there is none"
    assert seen > SPIKES + 60
    heat.reset()
    assert heat.part == whole


def test_what_is_not_read_yet_is_a_quiet_ground_and_told(qtbot: QtBot, heat: HeatMapView):
    values = np.ones((4, 30), np.float32)
    values[2:] = np.nan
    heat.show_figure(figure(4, 30), values, logarithmic=True)
    pixels, cells = pixels_of(heat), heat.cells
    absent = pixels[cells.center().y() + 2 : cells.bottom(), cells.left() + 1 : cells.right()]
    ramp = heat._shown.scale.ramp(1000)
    assert not np.isin(absent, ramp).any()
    assert (absent == theme.colors().base.rgb()).mean() > 0.5
    assert np.isin(pixels[cells.top() + 5, cells.left() + 1 : cells.right()], ramp).mean() > 0.8
    with qtbot.waitSignal(heat.told) as told:
        qtbot.mouseMove(heat, middle(heat, 3, 4))
    assert told.args == ["layer 3 · channel 4: not read yet"]


def test_nothing_read_at_all_is_drawn(heat: HeatMapView):
    heat.show_figure(figure(3, 5), np.full((3, 5), np.nan, np.float32), logarithmic=True)
    assert pixels_of(heat).size


def test_a_cell_with_room_has_its_value_written_in_it(small: HeatMapView):
    def inks(row: int, column: int) -> int:
        top, bottom, left, right = box_of(small, row, column)
        inside = pixels_of(small)[int(top) + 2 : int(bottom) - 2, int(left) + 2 : int(right) - 2]
        return len(np.unique(inside))

    assert inks(2, 5) == 1
    small.show_part(Part(1, 4, 4, 10))
    assert inks(2, 5) > 3


def test_borders_of_groups_come_with_the_zoom(heat: HeatMapView):
    values = np.ones((8, 4096), np.float32)
    heat.show_figure(figure(8, 4096, column_borders=32), values, logarithmic=False)
    line = theme.colors().text.rgb()
    across = heat.cells.top() + 5

    def lines() -> int:
        return int((pixels_of(heat)[across, heat.cells.left() : heat.cells.right()] == line).sum())

    assert lines() == 0
    heat.show_part(Part(0, 8, 40, 140))
    assert lines() == 3  # at 64, 96, 128


def test_the_theme_changes_its_colors(qapp: QApplication, small: HeatMapView):
    before = pixels_of(small)
    theme.apply_theme(qapp, "dark")
    after = pixels_of(small)
    theme.apply_theme(qapp, "light")
    assert after[0, 0] == theme.DARK.window.rgb()
    assert before[0, 0] == theme.LIGHT.window.rgb()


# ------------------------------------------------------------------------- pointer, keys, zoom


def test_hover_tells_the_exact_cell_and_a_click_names_it(qtbot: QtBot, small: HeatMapView):
    pointed: list[object] = []
    small.cell_pointed.connect(pointed.append)
    with qtbot.waitSignal(small.told) as told:
        qtbot.mouseMove(small, middle(small, 3, 7))
    assert told.args == ["blk.3 · channel 7: 3.07"]
    assert pointed == [(3, 7)]
    with qtbot.waitSignal(small.cell_clicked) as clicked:
        qtbot.mouseClick(small, Qt.MouseButton.LeftButton, pos=middle(small, 2, 39))
    assert clicked.args == [2, 39]


def test_of_many_cells_in_a_pixel_the_one_that_is_seen_is_told_and_clicked(qtbot: QtBot, heat: HeatMapView):
    values, places = spiked(np.random.default_rng(5))
    heat.show_figure(figure(*values.shape), values, logarithmic=False)
    clicked: list[tuple[int, int]] = []
    heat.cell_clicked.connect(lambda row, column: clicked.append((row, column)))
    told: list[str] = []
    heat.told.connect(told.append)
    for row, column in places.tolist():
        left = heat.cells.left() + int(column / values.shape[1] * heat.cells.width())
        pixel = QPoint(left, middle(heat, row, 0).y())
        assert values.shape[1] / heat.cells.width() > 10
        qtbot.mouseClick(heat, Qt.MouseButton.LeftButton, pos=pixel)
        assert clicked[-1] == (row, column)
        assert told[-1] == f"layer {row} · channel {column}: 50"


def test_the_last_cells_end_where_the_tensor_does(heat: HeatMapView):
    values = np.ones((3, 4), np.float32)
    short = figure(3, 4, row_step=2, stop_row=5, column_step=8, stop_column=27)
    heat.show_figure(short, values, logarithmic=False)
    assert heat.part == Part(0, 5, 0, 27)
    assert cell_text(Field(short, values), 2, 3) == "layer 4 · channel 24 to 26: 1"


def test_numbers_are_those_of_the_source(qtbot: QtBot, heat: HeatMapView):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    stepped = figure(3, 4, first_row=100, first_column=64, row_step=2, column_step=8)
    heat.show_figure(stepped, values, logarithmic=False)
    assert heat.part == Part(100, 106, 64, 96)
    assert cell_text(Field(stepped, values), 1, 2) == "layer 102 to 103 · channel 80 to 87: 6"
    with qtbot.waitSignal(heat.cell_clicked) as clicked:
        qtbot.mouseClick(heat, Qt.MouseButton.LeftButton, pos=middle(heat, 103, 85))
    assert clicked.args == [102, 80]


def test_dragging_zooms_and_a_double_click_shows_all(qtbot: QtBot, small: HeatMapView):
    told: list[object] = []
    small.zoomed.connect(told.append)
    start, end = middle(small, 1, 10), middle(small, 2, 20)
    qtbot.mousePress(small, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(small, (start + end) / 2)
    qtbot.mouseMove(small, end)
    qtbot.mouseRelease(small, Qt.MouseButton.LeftButton, pos=end)
    assert small.part.left == pytest.approx(10.5, abs=0.1)
    assert small.part.right == pytest.approx(20.5, abs=0.1)
    assert told == []  # not while it may go on
    qtbot.waitUntil(lambda: told == [(1, 4, 10, 21)] or told == [(1, 3, 10, 21)])
    qtbot.mouseDClick(small, Qt.MouseButton.LeftButton, pos=start)
    assert small.part == Part(0, 4, 0, 40)
    qtbot.waitUntil(lambda: told[1:] == [None])


def test_a_flat_stroke_zooms_columns_alone(qtbot: QtBot, small: HeatMapView):
    start, end = middle(small, 1, 10), middle(small, 1, 20)
    qtbot.mousePress(small, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(small, end)
    qtbot.mouseRelease(small, Qt.MouseButton.LeftButton, pos=end)
    assert (small.part.top, small.part.bottom) == pytest.approx((0, 4), abs=0.05)
    assert small.part.left == pytest.approx(10.5, abs=0.1)


def wheel(widget: HeatMapView, at: QPoint, notches: int, modifier: Qt.KeyboardModifier) -> None:
    event = QWheelEvent(
        QPointF(at),
        QPointF(widget.mapToGlobal(at)),
        QPoint(),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        modifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)


def test_the_wheel_zooms_at_the_pointer_and_moves_with_shift(heat: HeatMapView):
    values, _ = spiked(np.random.default_rng(1))
    heat.show_figure(figure(*values.shape), values, logarithmic=False)
    at = middle(heat, 20, 3000)
    for _ in range(40):
        wheel(heat, at, 1, Qt.KeyboardModifier.NoModifier)
    row, column = heat._place(QPointF(at))
    assert (row, column) == pytest.approx((20.5, 3000.5), abs=10)
    assert heat.part.width == pytest.approx(heat.cells.width() / 64)  # cells are large, and rows too
    before = heat.part
    wheel(heat, at, -1, Qt.KeyboardModifier.ShiftModifier)
    assert heat.part.left > before.left
    assert heat.part.width == pytest.approx(before.width)
    for _ in range(60):
        wheel(heat, at, -1, Qt.KeyboardModifier.NoModifier)
    assert heat.part == Part(0, 32, 0, 14336)


def test_keys_walk_zoom_and_click(qtbot: QtBot, small: HeatMapView):
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Right):
        qtbot.keyClick(small, key)
    assert small.accessibleDescription() == "blk.1 · channel 1: 1.01"
    with qtbot.waitSignal(small.cell_clicked) as clicked:
        qtbot.keyClick(small, Qt.Key.Key_Return)
    assert clicked.args == [1, 1]
    qtbot.keyClick(small, Qt.Key.Key_Plus)
    zoomed = small.part
    assert zoomed.width < 40
    for _ in range(60):
        qtbot.keyClick(small, Qt.Key.Key_Right)
    assert small.accessibleDescription() == "blk.1 · channel 39: 1.39"
    assert small.part.right == 40
    qtbot.keyClick(small, Qt.Key.Key_Minus)
    qtbot.keyClick(small, Qt.Key.Key_Home)
    assert small.part == Part(0, 4, 0, 40)


def test_a_mark_from_outside_is_brought_into_sight(small: HeatMapView):
    small.show_part(Part(0, 2, 0, 10))
    small.mark((3, 35))
    assert small.part == Part(2, 4, 26, 36)
    accent = theme.colors().accent.rgb()
    top, bottom, left, _ = map(round, box_of(small, 3, 35))
    edge = np.s_[top + 5 : bottom - 5, left - 2 : left + 3]
    assert (pixels_of(small)[edge] == accent).any()
    small.mark(None)
    assert not (pixels_of(small)[edge] == accent).any()


def test_a_marked_column_is_framed_from_end_to_end(small: HeatMapView):
    small.show_part(Part(2, 4, 0, 10))
    small.mark((None, 35))
    assert small.part == Part(2, 4, 26, 36)  # the rows stay
    accent = theme.colors().accent.rgb()
    top, _, left, _ = map(round, box_of(small, 2, 35))
    _, bottom, _, right = map(round, box_of(small, 3, 35))
    lines = pixels_of(small)[top + 5 : bottom - 5]
    assert (lines[:, left - 5 : left + 3] == accent).any(axis=1).all()
    assert not (lines[:, left + 3 : right - 5] == accent).any()


# ------------------------------------------------------------------------- versions of a figure


def test_the_zoom_stays_when_more_is_read_and_not_for_another_figure(small: HeatMapView):
    small.show_part(Part(1, 3, 10, 20))
    names = ["blk.0", "blk.1", "blk.2", "blk.3"]
    small.show_figure(figure(4, 40, rows=names), np.ones((4, 40), np.float32), logarithmic=False)
    assert small.part == Part(1, 3, 10, 20)
    other = figure(4, 40, rows=names).model_copy(update={"title": "Kurtosis"})
    small.show_figure(other, np.ones((4, 40), np.float32), logarithmic=False)
    assert small.part == Part(0, 4, 0, 40)


def test_a_finer_figure_of_a_part_is_laid_over_the_coarse_one(qtbot: QtBot, heat: HeatMapView):
    coarse = figure(8, 16, row_step=8, column_step=8)
    heat.show_figure(coarse, np.full((8, 16), 9.0, np.float32), logarithmic=False)
    heat.show_part(Part(8, 40, 8, 40))
    fine = np.full((16, 16), 3.0, np.float32)
    heat.show_figure(figure(16, 16, first_row=16, first_column=16), fine, logarithmic=False)
    assert heat.part == Part(8, 40, 8, 40)
    assert heat._shown.finest(20, 20)[0].figure.row_step == 1
    pixels = pixels_of(heat)
    inner, outer = middle(heat, 20, 20), middle(heat, 36, 36)
    inner += QPoint(5, 3)  # beside the value that is written there
    assert pixels[inner.y(), inner.x()] == color_of(heat, 3)
    assert pixels[outer.y(), outer.x()] == color_of(heat, 9)
    heat.reset()
    assert heat.part == Part(0, 64, 0, 128)


def test_values_of_another_shape_are_refused(heat: HeatMapView):
    with pytest.raises(ValueError, match="values"):
        heat.show_figure(figure(2, 3), np.zeros((3, 2), np.float32), logarithmic=False)


# --------------------------------------------------------------------------- in its figure view


@pytest.fixture
def view(qtbot: QtBot) -> FigureView:
    view = FigureView("Outliers")
    qtbot.addWidget(view)
    view.resize(700, 400)
    view.show()
    return view


def show(qtbot: QtBot, view: FigureView, *shown: object) -> HeatMapView:
    view.show_figure(*shown)
    qtbot.waitUntil(lambda: view._heat_map is not None and view._heat_map.isVisible(), timeout=20_000)
    return view._heat_map


def saved(qtbot: QtBot, view: FigureView, save: Callable[[Path], None], path: Path) -> bytes:
    save(path)
    qtbot.waitUntil(lambda: view._read_out.text() == f"Saved {path.name}.", timeout=20_000)
    return path.read_bytes()


def test_the_view_passes_everything_on(qtbot: QtBot, view: FigureView):
    values = np.ones((4, 40), np.float32)
    view.show_figure(figure(4, 40), values)
    view.select(2, 8)  # before there is anything that draws
    heat = show(qtbot, view, figure(4, 40), values)
    assert heat.marked == (2, 8)
    with qtbot.waitSignals([view.cell_clicked, view.cell_pointed]):
        qtbot.mouseClick(heat, Qt.MouseButton.LeftButton, pos=middle(heat, 1, 3))
    assert view._read_out.text() == "layer 1 · channel 3: 1"
    with qtbot.waitSignal(view.zoomed) as zoomed:
        heat.show_part(Part(0, 2, 4, 12))
    assert zoomed.args == [(0, 2, 4, 12)]
    view.deselect()
    assert heat.marked is None
    with pytest.raises(ValueError, match="without values"):
        view.show_figure(figure(4, 40))


def test_the_logarithm_is_for_magnitudes(qtbot: QtBot, view: FigureView):
    heat = show(qtbot, view, figure(2, 3), np.ones((2, 3), np.float32))
    assert heat._shown.scale.logarithmic
    view.logarithmic.setChecked(False)
    assert not heat._shown.scale.logarithmic
    view.logarithmic.setChecked(True)
    codes = figure(2, 3).model_copy(update={"z": Axis(name="code", counts=True)})
    heat = show(qtbot, view, codes, np.ones((2, 3), np.float32))
    assert not heat._shown.scale.logarithmic
    assert not view.logarithmic.isEnabled()
    assert "codes" in view.logarithmic.toolTip()
    show(qtbot, view, figure(2, 3, signed=True), -np.ones((2, 3), np.float32))
    assert not view.logarithmic.isEnabled()


def test_table_and_csv_are_the_cells(qtbot: QtBot, view: FigureView, tmp_path: Path):
    values = np.array([[0.1, np.nan, 3.0], [4.0, -5.5, 1e-9]], np.float32)
    shown = figure(2, 3, rows=["blk.0", 'a "b", c'], first_column=10, column_step=2, signed=True)
    show(qtbot, view, shown, values)
    view.as_table.trigger()
    model = view.table.model()
    told = [[model.index(row, column).data() for column in range(4)] for row in range(6)]
    assert told[0] == ["blk.0", "10", "11", "0.1"]
    assert told[1] == ["blk.0", "12", "13", "not read yet"]
    assert told[4] == ['a "b", c', "12", "13", "−5.5"]
    assert model.headerData(3, Qt.Orientation.Horizontal) == "abs-max (farthest from zero)"
    text = saved(qtbot, view, view.save_csv, tmp_path / "cells.csv").decode()
    view.copy_csv()
    qtbot.waitUntil(lambda: view._read_out.text() == "Copied as CSV.")
    assert QGuiApplication.clipboard().text() == text
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["layer", "channel from", "channel to", "abs-max (farthest from zero)"]
    assert [row[:2] for row in rows[2:4]] == [["blk.0", "14"], ['a "b", c', "10"]]
    assert rows[0][3] == "0.1"
    read = np.array([np.float32(row[3] or "nan") for row in rows]).reshape(2, 3)
    assert np.array_equal(read, values, equal_nan=True)


def test_pictures_and_drawings(qtbot: QtBot, view: FigureView, tmp_path: Path):
    heat = show(qtbot, view, figure(4, 40), np.ones((4, 40), np.float32))
    picture = QImage.fromData(saved(qtbot, view, view.save_png, tmp_path / "map.png"))
    assert picture.width() == 3 * heat.width()
    text = saved(qtbot, view, view.save_svg, tmp_path / "map.svg").decode()
    assert "<image" in text
    assert ">channel<" in text
    assert ">abs-max<" in text


def test_a_large_one_holds_nothing_up(qtbot: QtBot, view: FigureView, tmp_path: Path):
    values = np.random.default_rng(1).random((80, 14336), np.float32)
    shown = figure(80, 14336, rows=[f"blk.{row}" for row in range(80)])
    heat = show(qtbot, view, figure(2, 2), np.ones((2, 2), np.float32))
    with Turns() as turns:
        view.show_figure(shown, values)
        qtbot.wait(20)
        for step in range(20):
            heat.show_part(Part(0, 80, 100 * step, 14336 / 1.3**step + 100 * step))
            qtbot.wait(2)
        view.as_table.trigger()
        qtbot.wait(20)
        view.table.scrollToBottom()
        qtbot.wait(20)
        saved(qtbot, view, view.save_csv, tmp_path / "large.csv")
    assert view.table.model().rowCount() == 80 * 14336
    assert (tmp_path / "large.csv").read_text().count("\n") == 1 + 80 * 14336
    assert max(turns.cpu) < LIMIT, sorted(turns.cpu)[-5:]
