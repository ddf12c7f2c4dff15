"""Cells of a heat map: pooled for pixels, colored, told."""

import numpy as np
import pytest

from app.views.heat_field import Field, Part
from app.views.heat_paint import short
from app.views.heat_scale import Scale
from tests.app.heat_maps import figure


def test_of_two_sides_the_farther_from_zero_is_seen():
    values = np.full((2, 64), 0.5, np.float32)
    values[0, 9], values[1, 40], values[1, 41] = -3.0, 2.0, np.nan
    field = Field(figure(2, 64, signed=True), values)
    for pixels in (1, 3, 7, 64):
        shown = field.picture(Part(0, 2, 0, 64), 2, pixels, lambda pooled: pooled)
        assert shown[0].min() == -3.0
        assert np.nanmax(shown[1]) == 2.0
    assert np.isnan(field.picture(Part(0, 2, 41, 42), 2, 5, lambda pooled: pooled)[1]).all()


def test_pooling_equals_the_plain_maximum_of_the_cells_a_pixel_touches():
    generator = np.random.default_rng(3)
    values = generator.random((37, 101), np.float32)
    field = Field(figure(37, 101), values)
    for pixels in (7, 17, 31, 50, 101):
        shown = field.picture(Part(0, 37, 0, 101), 37, pixels, lambda pooled: pooled)
        edges = np.arange(pixels + 1) * 101 / pixels
        more = 101 / pixels / 2 if pixels < 25 else 0.0  # pooled in two steps: half a pixel more at most
        for pixel in range(pixels):
            start, stop = edges[pixel] + 1e-6, edges[pixel + 1] - 1e-6
            touched = values[:, int(start) : int(np.ceil(stop))].max(axis=1)
            about = values[:, int(max(0.0, start - more)) : int(np.ceil(stop + more))].max(axis=1)
            assert np.all(shown[:, pixel] >= touched)
            assert np.all(shown[:, pixel] <= about)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.07, "3.07"),
        (-0.01234, "−.012"),
        (123.4, "123"),
        (1e-9, "1e−9"),
        (-45678, "−5e4"),
        (0.5, ".500"),
    ],
)
def test_values_in_cells_are_short(value: float, text: str):
    assert short(value) == text
    assert len(text) <= 6


def test_scales():
    both = np.array([-2.0, 0.0, 2.0, np.nan], np.float32)
    signed = Scale((-1.0, 2.0, 0.1), signed=True, logarithmic=False, dark=False)
    assert (signed.low, signed.high) == (-2.0, 2.0)
    assert signed.places(both)[:3].tolist() == [0, 0.5, 1]
    assert signed.colors(both)[3] == 0
    plain = Scale((0.0, 100.0, 0.01), signed=False, logarithmic=True, dark=False)
    places = plain.places(np.array([0.0, 0.01, 1.0, 100.0], np.float32))
    assert places.tolist() == pytest.approx([0, 0, 0.5, 1])
    assert [value for value, _ in plain.ticks(9)] == pytest.approx([0.01, 0.1, 1, 10, 100])
    for limits in ((0.0, 0.0, 0.0), (3.0, 3.0, 3.0), (-2.0, -1.0, 0.0)):
        for logarithmic in (False, True):
            scale = Scale(limits, signed=False, logarithmic=logarithmic, dark=True)
            assert scale.low < scale.high
            assert len(scale.ticks(5)) >= 2


@pytest.mark.parametrize("signed", [False, True])
def test_colors_tell_magnitudes_apart_without_hue(signed: bool):
    """Their lightness goes one way (from the middle on): read in grey, and without seeing red from green."""
    for dark in (False, True):
        scale = Scale(
            (-1.0, 1.0, 0.0) if signed else (0.0, 1.0, 0.1), signed=signed, logarithmic=False, dark=dark
        )
        pixels = scale.colors(np.linspace(0, 1, 40, dtype=np.float32))
        light = 0.2126 * (pixels >> 16 & 255) + 0.7152 * (pixels >> 8 & 255) + 0.0722 * (pixels & 255)
        falls = signed and not dark
        assert np.all(np.diff(light) < 1 if falls else np.diff(light) > -1)
        assert abs(light[-1] - light[0]) > 100
