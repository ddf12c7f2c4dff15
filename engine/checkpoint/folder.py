"""Finds the files that make up a model: the shards of a folder, the parts of a split GGUF."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from engine.api.wording import fits, named, shown
from engine.checkpoint.errors import (
    AmbiguousFolderError,
    ConfigError,
    EmptyFolderError,
    MissingShardError,
    NoWeightsError,
    ShardNameError,
)
from engine.checkpoint.files import read_json, unreadable

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.[a-z]+)")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def _weight_map(index: Path) -> tuple[dict[str, str], int]:
    """Tensor name to shard name, as an index states it, and the bytes read. Shards have plain file names."""
    content, count = read_json(index)
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ConfigError(f"{index} has no weight_map; download it again.")
    for name, shard in shards.items():
        if not _is_file_name(shard):
            raise ShardNameError(
                f"{index} places {named(name)} in {shown(shard)}, which is not a plain file name in its own "
                "folder; the model is damaged or hostile."
            )
    return shards, count


def _is_file_name(name: object) -> bool:
    """Whether it names a file in the index's own folder and nothing else."""
    return (
        isinstance(name, str) and name not in ("", ".", "..") and fits(name) and not re.search(r"[/\\]", name)
    )


@dataclass(frozen=True)
class Weights:
    """The files of a model; `index` and what it places in which of them, if there is one."""

    files: list[Path]
    index: Path | None = None
    places: dict[str, str] = field(default_factory=dict)
    index_bytes: int = 0


def folder_weights(folder: Path) -> Weights:
    """The files of weights in a folder.

    Safetensors come before PyTorch's files, these before a GGUF: folders often hold one model in two layouts.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error
    if not names:
        raise EmptyFolderError(f"{folder} is an empty folder; name one that holds a model.")
    safetensors = [
        name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")
    ]
    pickles = [name for name in names if re.fullmatch(r"pytorch_model(-\d{5}-of-\d{5})?\.bin", name)]
    ggufs = [name for name in names if name.endswith(".gguf")]
    for index, single, found in (
        (INDEXES[0], "model.safetensors", safetensors),
        (INDEXES[1], "pytorch_model.bin", pickles),
    ):
        if index in names:
            places, count = _weight_map(folder / index)
            files = [folder / shard for shard in sorted(set(places.values()))]
            return Weights(files, folder / index, places, count)
        if single in found:
            return Weights([folder / single])
        if found:
            return Weights(_together(folder, found))
    if ggufs:
        return Weights([_one_gguf(folder, ggufs)])
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    raise NoWeightsError(f"{folder} holds no weights (safetensors, pytorch_model.bin or GGUF), only {shown}.")


def _together(folder: Path, names: list[str]) -> list[Path]:
    """Files without an index: the numbered shards if there are some (complete), else all of them."""
    found = next((match for match in map(_PART.fullmatch, names) if match), None)
    return parts(folder / found.string) if found else [folder / name for name in names]


def _one_gguf(folder: Path, names: list[str]) -> Path:
    models = {(match.group(1) if (match := _PART.fullmatch(name)) else name) for name in names}
    if len(models) > 1:
        raise AmbiguousFolderError(f"{folder} holds several models; name one of {', '.join(names)}.")
    return folder / names[0]


def parts(path: Path) -> list[Path]:
    """All files that `path` is one of by its name (…-00002-of-00003.…), or itself; all must be there."""
    found = _PART.fullmatch(path.name)
    if not found or int(found.group(2)) not in range(1, int(found.group(3)) + 1):
        return [path]
    stem, _, count, suffix = found.groups()
    # Counted by what is there: a name may claim 99999 parts.
    present = set(path.parent.glob(f"*-of-{count}{suffix}"))
    expected = (path.with_name(f"{stem}-{i + 1:05}-of-{count}{suffix}") for i in range(int(count)))
    files = []
    for file in expected:
        if file not in present:
            raise MissingShardError(f"{file} is missing: the model has {int(count)} parts.")
        files.append(file)
    return files


def part_count(path: Path) -> int:
    """How many files the name of one part (…-00002-of-00003.…) speaks of; 0 if it is not such a name."""
    found = _PART.fullmatch(path.name)
    return int(found.group(3)) if found else 0
