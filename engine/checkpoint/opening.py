"""From a path to a `Checkpoint`: finds the files, reads their headers, and joins them with the config."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.api.gguf import GgufValue
from engine.api.wording import named, shown
from engine.checkpoint import gguf, pytorch, safetensors
from engine.checkpoint.assembly import assemble_gguf, assemble_transformers
from engine.checkpoint.checkpoint import Checkpoint
from engine.checkpoint.errors import (
    DuplicateTensorError,
    IndexMismatchError,
    LfsPointerError,
    MissingPathError,
    MissingShardError,
    NotAModelError,
    TruncatedError,
)
from engine.checkpoint.files import SourceFile, read_json, unreadable
from engine.checkpoint.folder import Weights, folder_weights, part_count, parts
from engine.checkpoint.stored import Stored

LFS_MAGIC = b"version https://git-lfs"
OLD_PICKLE_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote before version 1.6


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a model by its headers; no weight is read.

    `path`: a Hugging Face folder (safetensors or pytorch_model.bin, one or many, with or without an index;
    a folder whose only model is a GGUF), or one .safetensors, .gguf (any part of a split one) or
    pytorch_model.bin. Files are told apart by their content. Raises a `CheckpointError` (errors.py) saying
    what is wrong with the source.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise unreadable(path, error) from error
    if not is_folder:
        return _open_file(path)
    weights = folder_weights(path)
    if weights.files[0].suffix == ".gguf":
        return _open_file(weights.files[0])
    files = [_open_shard(file, len(weights.files)) for file in weights.files]
    tensors = list(_without_duplicates(tensor for file in files for tensor in _header(file)))
    _compare_with_index(weights, tensors)
    config, config_bytes = _config(path)
    return assemble_transformers(
        path, "huggingface", files, tensors, config, [], config_bytes + weights.index_bytes
    )


def _open_file(path: Path) -> Checkpoint:
    file = SourceFile(path)
    kind = _kind(file)
    if kind == "gguf":
        return _open_gguf(path)
    tensors = _header(file)
    notes = []
    if count := part_count(path):
        notes.append(f"{path.name} is one of {count} files; open its folder for the whole model.")
    config, config_bytes = _config(path.parent)
    return assemble_transformers(path, kind, [file], tensors, config, notes, config_bytes)


def _kind(file: SourceFile) -> str:
    """What a file is by its first bytes: "safetensors", "gguf" or "pytorch"."""
    if file.size == 0:
        raise TruncatedError(f"{file.path} is empty; download or copy it again.")
    start = file.read(0, min(64, file.size))
    if start.startswith(gguf.MAGIC):
        return "gguf"
    if start.startswith(pytorch.ZIP_MAGIC):
        return "pytorch"
    if start.startswith(LFS_MAGIC):
        raise LfsPointerError(
            f"{file.path} is a pointer of git-lfs, not the weights; fetch them with `git lfs pull`."
        )
    if start.startswith(OLD_PICKLE_MAGIC):
        raise NotAModelError(
            f"{file.path} is in the layout of PyTorch before 1.6; save it again as safetensors."
        )
    if safetensors.looks_like(start) or file.path.suffix == ".safetensors":
        return "safetensors"
    raise NotAModelError(
        f"{file.path} is not a model: expected safetensors, GGUF, a PyTorch archive, or a model's folder."
    )


def _header(file: SourceFile) -> list[Stored]:
    kind = _kind(file)
    if kind == "gguf":
        raise NotAModelError(f"{file.path} is a GGUF file under the name of a shard of another kind.")
    return safetensors.read_header(file) if kind == "safetensors" else pytorch.read_header(file)


def _open_shard(path: Path, count: int) -> SourceFile:
    try:
        return SourceFile(path)
    except MissingPathError as error:
        raise MissingShardError(
            f"{path.name}, one of {count} files of weights, is missing from {path.parent}; download it."
        ) from error


def _without_duplicates(tensors: Iterable[Stored]) -> Iterator[Stored]:
    seen: dict[str, Stored] = {}
    for tensor in tensors:
        if tensor.name in seen:
            raise DuplicateTensorError(
                f"{tensor.name} is in both {seen[tensor.name].path} and {tensor.path}; "
                "keep the files of one model only."
            )
        seen[tensor.name] = tensor
        yield tensor


def _compare_with_index(weights: Weights, tensors: list[Stored]) -> None:
    found = {tensor.name: tensor.path.name for tensor in tensors}
    for name, shard in weights.places.items():
        if found.get(name) != shard:
            raise IndexMismatchError(
                f"{weights.index} places {named(name)} in {shard}, which does not hold it; "
                "download the model again."
            )


def _config(folder: Path) -> tuple[dict | None, int]:
    """config.json if there is one, with the quantize_config.json of older GPTQ tools; and the bytes read."""
    if not (folder / "config.json").exists():
        return None, 0
    config, count = read_json(folder / "config.json")
    older = folder / "quantize_config.json"
    if "quantization_config" not in config and older.exists():
        config["quantization_config"], more = read_json(older)
        count += more
    return config, count


def _open_gguf(path: Path) -> Checkpoint:
    paths = parts(path)
    files = [SourceFile(part) for part in paths]
    for file in files:
        if _kind(file) != "gguf":
            raise NotAModelError(f"{file.path} is not a GGUF file, though {path.name} is.")
    headers = [gguf.read_header(file) for file in files]
    if len(files) > 1 or "split.count" in headers[0][0]:
        _check_split(files, headers)
    tensors = list(_without_duplicates(tensor for _, part in headers for tensor in part))
    metadata = {key: value for key, value in headers[0][0].items() if not key.startswith("split.")}
    return assemble_gguf(path, files, tensors, metadata)


def _check_split(files: list[SourceFile], headers: list[tuple[dict[str, GgufValue], list[Stored]]]) -> None:
    """Each part knows its number, how many there are, and how many tensors all of them hold."""
    total = sum(len(tensors) for _, tensors in headers)
    for i, (file, (metadata, _)) in enumerate(zip(files, headers, strict=True)):
        stated = [metadata[key].value if key in metadata else None for key in ("split.no", "split.count")]
        if stated != [i, len(files)]:
            raise IndexMismatchError(
                f"{file.path} says that it is part {shown(stated[0])} (from 0) of {shown(stated[1])}, "
                f"not {i} of {len(files)}; give all parts their own names again (…-00001-of-00003.gguf)."
            )
        count = metadata.get("split.tensors.count")
        if count is not None and count.value != total:
            raise IndexMismatchError(
                f"{file.path} promises {shown(count.value)} tensors in all parts, which hold {total}."
            )
