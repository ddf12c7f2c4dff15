"""Calibration texts: files, folders, and windows of several texts."""

import numpy as np
import pytest

from engine.api.errors import CalibrationError
from engine.calibration.texts import calibration_windows, read_texts
from engine.calibration.windows import ShortTextError, UnreadableTextError
from tests.engine.calibration.test_windows import Counting


def windows(tmp_path, lengths: list[int], limit: int | None = None) -> list[int]:
    """Which text each window is of, by the letter it begins with behind BOS."""
    paths = []
    for number, length in enumerate(lengths):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_text(chr(65 + number) * length)
    found = calibration_windows(Counting(), read_texts(paths), 8, limit)
    assert found.shape[1] == 8
    assert (found[:, 0] == 9999).all()
    return [int(row[1]) - 65 for row in found]


def test_windows_do_not_reach_into_the_next_text(tmp_path):
    assert windows(tmp_path, [23, 30, 8]) == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("limit", "expected"), [(5, [0, 0, 1, 1, 2]), (2, [0, 1]), (99, [0, 0, 0, 1, 1, 1, 2])]
)
def test_a_limit_is_shared_among_the_texts(tmp_path, limit, expected):
    assert windows(tmp_path, [23, 30, 8], limit) == expected


def test_a_folder_is_one_text_of_its_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.MD").write_text("third")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.md").write_text("second")
    found = read_texts([tmp_path])
    assert [path.name for path in found.files] == ["a.txt", "c.MD", "b.md"]
    assert found.contents == ["first\nthird\nsecond"]
    assert found.notes == []
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").touch()
    found = read_texts([tmp_path])
    assert [path.name for path in found.files] == ["a.txt", "c.MD", "b.md"]
    assert found.notes == [f"{tmp_path}: 2 files that are empty or no .txt, .md or .jsonl are left out"]


def test_texts_that_cannot_serve(tmp_path):
    with pytest.raises(CalibrationError, match="holds no text"):
        read_texts([tmp_path])
    with pytest.raises(UnreadableTextError, match="absent"):
        read_texts([tmp_path / "absent"])
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(ShortTextError, match=r"short\.txt has 4 tokens, fewer than one window of 8"):
        calibration_windows(Counting(), read_texts([tmp_path / "short.txt"]), 8)
    assert np.array_equal(
        calibration_windows(Counting(), read_texts([tmp_path / "short.txt"]), 4)[0, 1:], [97, 98, 99]
    )
