"""Calibration texts: files and folders of them, read and cut into windows as llama-imatrix does.

Each is a text of its own: no window reaches from one into the next. A folder is one text, its .txt and .md
files in the order of their names, those of folders within it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.api.errors import CalibrationError
from engine.calibration.windows import PROTOCOLS, Protocol, cut, read_text, tokenize

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

SUFFIXES = (".txt", ".md")


@dataclass
class CalibrationTexts:
    """`contents` of the texts at `paths`; `files` that were read; `notes` tell what was left out."""

    paths: list[Path]
    contents: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_texts(paths: Sequence[Path]) -> CalibrationTexts:
    """Raises `CalibrationError` for a folder without texts, `EvaluationError` for an unreadable text."""
    found = CalibrationTexts(list(paths))
    for path in paths:
        files = _files(path, found.notes) if path.is_dir() else [path]
        found.files += files
        found.contents.append("\n".join(read_text(file) for file in files))
    return found


def _files(folder: Path, notes: list[str]) -> list[Path]:
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in there if path.suffix.lower() in SUFFIXES and path.stat().st_size]
    if not files:
        raise CalibrationError(f"{folder}: holds no text (.txt or .md) to calibrate with; name a text file.")
    if len(files) < len(there):
        left = len(there) - len(files)
        notes.append(f"{folder}: {left} files that are empty or no .txt or .md are left out")
    return files


def calibration_windows(
    tokenizer: "Tokenizer", texts: CalibrationTexts, length: int, limit: int | None = None
) -> np.ndarray:
    """int64 [windows, length]: text behind text, each from its beginning, BOS first where the model wants it.

    At most `limit` windows, shared evenly among the texts. Raises `ShortTextError` for a text shorter than a
    window.
    """
    rules = protocol(length)
    each = [
        cut(tokenizer, tokenize(tokenizer, content, rules), rules, length, path)
        for content, path in zip(texts.contents, texts.paths, strict=True)
    ]
    counts = _shares([len(windows) for windows in each], limit)
    return np.concatenate([windows[:count] for windows, count in zip(each, counts, strict=True)])


def protocol(length: int) -> Protocol:
    """How calibration texts are cut: as llama.cpp's tools do it."""
    return replace(PROTOCOLS["llama.cpp"], length=length)


def _shares(there: list[int], limit: int | None) -> list[int]:
    """How many windows each text gives, at most what it has: `limit` in all."""
    if limit is None or limit >= sum(there):
        return there
    shares = [0] * len(there)
    while limit:
        for place, count in enumerate(there):
            if limit and shares[place] < count:
                shares[place] += 1
                limit -= 1
    return shares
