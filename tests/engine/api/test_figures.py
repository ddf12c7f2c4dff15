"""A figure's table and CSV hold exactly its data."""

import csv
import io

import pytest
from pydantic import ValidationError

from engine.api.figures import Axis, Figure, Series

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
