"""Sizes as people write and read them."""

import pytest

from engine.api.units import duration, parse_size, size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GB", 8_000_000_000),
        ("7.5 GiB", 7.5 * 2**30),
        ("800MB", 800_000_000),
        (" 800 mb ", 800_000_000),
        ("8e9", 8_000_000_000),
        ("2G", 2_000_000_000),
        ("512", 512),
        ("8 bytes", 8),
        (".5 TB", 500_000_000_000),
        ("1TiB", 2**40),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "8XB", "1e999", "1.2.3", "-5", "nan", "8 e9", "8GB/s"])
def test_what_is_no_size_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="is no size in bytes: write it like 8GB"):
        parse_size(text)


def test_what_is_written_can_be_read():
    for count in (0, 812, 9_420_000, 1_070_000_000):
        assert parse_size(size(count)) == count


def test_durations():
    assert [duration(seconds) for seconds in (0.1, 42, 187, 3723)] == ["0:01", "0:42", "3:07", "1:02:03"]
