"""A figure's table and CSV hold exactly its data."""

import csv
import io

import numpy as np
import pytest
from pydantic import ValidationError

from engine.api.figures import Axis, Figure, HeatMap, Mark, Series

ORIGINAL = Series(name="original", x=[-0.3, -0.1, 0.1], y=[3.0, 1e9 + 1, 0.0], width=0.2)
QUANTIZED = Series(name="quantized, Q4_K", x=[0.0], y=[1 / 3], width=0.1)


def figure(*series: Series) -> Figure:
    return Figure(title="weights", x=Axis(name="weight"), y=Axis(name="count"), series=list(series))


def test_csv_of_one_series_reads_back_as_its_data():
    head, *rows = csv.reader(io.StringIO(figure(ORIGINAL).to_csv()))
    assert head == ["weight from", "weight to", "count"]
    assert [float(row[0]) for row in rows] == ORIGINAL.x
    assert [float(row[1]) for row in rows] == [low + ORIGINAL.width for low in ORIGINAL.x]
    assert [float(row[2]) for row in rows] == ORIGINAL.y


def test_csv_of_two_series_names_them():
    head, *rows = csv.reader(io.StringIO(figure(ORIGINAL, QUANTIZED).to_csv()))
    assert head[0] == "series"
    assert [row[0] for row in rows] == ["original"] * 3 + ["quantized, Q4_K"]
    assert float(rows[-1][3]) == 1 / 3


def test_marks_are_rows_too():
    marked = figure(ORIGINAL).model_copy(update={"marks": [Mark(kind="percentile", name="99 %", x=0.05)]})
    head, *rows = csv.reader(io.StringIO(marked.to_csv()))
    assert head == ["series", "weight from", "weight to", "count"]
    assert [row[0] for row in rows] == ["original"] * 3 + ["99 %"]
    assert rows[-1][1:] == ["0.05", "0.05", ""]


def test_an_empty_figure_is_a_head_alone():
    assert figure(Series(name="none", x=[], y=[], width=0.1)).to_csv().count("\n") == 1


def test_axes_show_their_unit():
    assert Axis(name="KL divergence", unit="nats").label == "KL divergence (nats)"
    assert Axis(name="count").label == "count"


@pytest.mark.parametrize(("x", "place"), [(-0.31, None), (-0.3, 0), (0.0, 1), (0.25, 2), (0.31, None)])
def test_the_bin_at_a_point(x: float, place: int | None):
    assert ORIGINAL.bin_at(x) == place


def test_no_bin_in_an_empty_series():
    assert Series(name="none", x=[], y=[], width=0.1).bin_at(0.0) is None


def test_edges_and_values_must_pair():
    with pytest.raises(ValidationError, match="2 edges and 1 values"):
        Series(name="torn", x=[0, 1], y=[1], width=1)


def heat_map(**more: object) -> HeatMap:
    channels, blocks = Axis(name="input channel", counts=True), Axis(name="block", counts=True)
    return HeatMap(title="outliers", x=channels, y=blocks, z=Axis(name="abs-max"), **more)


def test_a_heat_maps_table_has_a_row_a_cell_and_nothing_for_nan():
    values = np.array([[0.1, np.nan, 3], [4, 5, -6]], np.float32)
    drawn = heat_map(height=2, width=3, first_row=7)
    head, *rows = csv.reader(io.StringIO(drawn.to_csv(values)))
    assert head == ["block", "input channel", "abs-max"]
    assert [row[:2] for row in rows] == [[str(i), str(j)] for i in (7, 8) for j in range(3)]
    assert rows[1][2] == ""
    np.testing.assert_array_equal([np.float32(row[2] or "nan") for row in rows], values.ravel())
    named = heat_map(height=2, width=3, rows=["token_embd", "output"])
    assert named.row(values, 3) == ("output", 0, 4.0)


def test_a_pooled_cell_says_what_it_stands_for_up_to_the_end():
    drawn = heat_map(height=2, width=2, first_column=10, column_step=3, stop_column=14, row_step=2)
    places = ["block from", "block to", "input channel from", "input channel to"]
    assert drawn.columns() == [*places, "abs-max (farthest from zero)"]
    rows = [drawn.row(np.zeros((2, 2), np.float32), place) for place in range(4)]
    assert rows == [(0, 1, 10, 12, 0), (0, 1, 13, 13, 0), (2, 3, 10, 12, 0), (2, 3, 13, 13, 0)]
