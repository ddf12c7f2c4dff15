"""Calibration texts: files and folders of them, read and cut into windows as llama-imatrix does.

Each is a text of its own: no window reaches from one into the next. A folder is one text, its files of
`SUFFIXES` in the order of their names, those of folders within it too. In a .jsonl file every line is a JSON
object with the text in one of `FIELDS`; the lines follow each other with a newline between.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.api.errors import CalibrationError
from engine.calibration.windows import PROTOCOLS, Protocol, cut, read_text, tokenize

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

SUFFIXES = (".txt", ".md", ".jsonl")
FIELDS = ("text", "content", "prompt")
"""Of a line of .jsonl; the first that is there counts."""


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
        found.contents.append("\n".join(map(_content, files)))
    return found


def _content(file: Path) -> str:
    text = read_text(file)
    if file.suffix.lower() != ".jsonl":
        return text
    lines = enumerate(text.split("\n"), start=1)
    return "\n".join(_text_in(line, file, number) for number, line in lines if line.strip())


def _text_in(line: str, file: Path, number: int) -> str:
    """The text in a line of .jsonl."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    found = (
        next((content[key] for key in FIELDS if key in content), None) if isinstance(content, dict) else None
    )
    if not isinstance(found, str):
        raise CalibrationError(
            f'{file}, line {number}: is no JSON object with a "text", "content" or "prompt" that is a text; '
            "mend the line, or remove it."
        )
    return found


def _files(folder: Path, notes: list[str]) -> list[Path]:
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in there if path.suffix.lower() in SUFFIXES and path.stat().st_size]
    if not files:
        raise CalibrationError(
            f"{folder}: holds no text (.txt, .md, .jsonl) to calibrate with; name a text file."
        )
    if len(files) < len(there):
        left = len(there) - len(files)
        notes.append(f"{folder}: {left} files that are empty or no .txt, .md or .jsonl are left out")
    return files


def calibration_windows(
    tokenizer: "Tokenizer", texts: CalibrationTexts, length: int, limit: int | None = None
) -> np.ndarray:
    """int64 [windows, length]: text behind text, each from its beginning, BOS first where the model wants it.

    At most `limit` windows, shared evenly among the texts. Raises `ShortTextError` for a text shorter than a
    window.
    """
    each = all_windows(tokenizer, texts, length)
    counts = _shares([len(windows) for windows in each], limit)
    return np.concatenate([windows[:count] for windows, count in zip(each, counts, strict=True)])


def chosen_windows(each: list[np.ndarray], limit: int, seed: int) -> np.ndarray:
    """The same of the windows `each` text has, but from anywhere in it, as `seed` draws; in their order."""
    generator = np.random.default_rng(seed)
    counts = _shares([len(windows) for windows in each], limit)
    return np.concatenate(
        [
            windows[np.sort(generator.choice(len(windows), count, replace=False))]
            for windows, count in zip(each, counts, strict=True)
        ]
    )


def all_windows(tokenizer: "Tokenizer", texts: CalibrationTexts, length: int) -> list[np.ndarray]:
    """For each text int64 [windows, length]. Raises `ShortTextError`."""
    rules = protocol(length)
    return [
        cut(tokenizer, tokenize(tokenizer, content, rules), rules, length, path)
        for content, path in zip(texts.contents, texts.paths, strict=True)
    ]


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
