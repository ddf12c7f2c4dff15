"""The names of an output's files: the file, its parts where it is split, and what is not finished of them."""

import re
from pathlib import Path


def part_path(output: Path, index: int, count: int) -> Path:
    """The file of part `index` (from 0) of `count`, named as llama.cpp's `gguf-split` names it.

    An output in one part has its own name.
    """
    if count == 1:
        return output
    stem = output.name.removesuffix(".gguf")
    return output.with_name(f"{stem}-{index + 1:05}-of-{count:05}.gguf")


def partial_path(path: Path) -> Path:
    """What a file is called until it is finished and verified."""
    return path.with_name(path.name + ".partial")


def partials_of(output: Path) -> list[Path]:
    """The unfinished files of `output` that are there: of the whole, and of parts in any number."""
    stem = re.escape(output.name.removesuffix(".gguf"))
    part = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}\.gguf\.partial")
    whole = partial_path(output)
    try:
        beside = [path for path in output.parent.iterdir() if part.fullmatch(path.name)]
    except OSError:
        beside = []
    return ([whole] if whole.exists() else []) + sorted(beside)
