"""Importance matrices as llama.cpp's llama-imatrix writes them (GGUF): how much each input column matters."""

from math import prod
from pathlib import Path

import numpy as np

from engine.api.errors import RecipeError
from engine.checkpoint.decoding import decode
from engine.checkpoint.files import SourceFile
from engine.checkpoint.gguf import read_header

SUMS, COUNTS = ".in_sum2", ".counts"


def read_importance(path: Path) -> dict[str, np.ndarray]:
    """Mean squared activation of each input column: canonical tensor name -> float32 [matrices, columns].

    The file holds sums of squares `NAME.in_sum2` [matrices, columns] and token counts `NAME.counts`
    [matrices, 1]. A matrix (an expert) that saw no token counts all its columns alike.
    Raises `CheckpointError` where the file cannot be read, `RecipeError` where it is something else.
    """
    file = SourceFile(path)
    try:
        if file.read(0, min(4, file.size)) != b"GGUF":
            raise RecipeError(f"{path}: is not an importance matrix in GGUF; llama-imatrix writes one.")
        metadata, stored = read_header(file)
        kind = metadata.get("general.type")
        if kind is None or kind.value != "imatrix":
            raise RecipeError(f"{path}: is a GGUF file, but no importance matrix.")
        arrays = {
            tensor.name: decode(file, tensor.offset, prod(tensor.shape), tensor.dtype, tensor.name).reshape(
                tensor.shape
            )
            for tensor in stored
        }
    finally:
        file.close()
    names = [name.removesuffix(SUMS) for name in arrays if name.endswith(SUMS)]
    return {name: _mean(arrays, name, path) for name in names}


def _mean(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    """Sums over counts, float32 [matrices, columns]."""
    if name + COUNTS not in arrays:
        raise RecipeError(f"{path}: {name} has sums but no counts; the file is incomplete.")
    sums = arrays[name + SUMS]
    if not sums.size:
        raise RecipeError(f"{path}: {name} has no sums; make the file anew.")
    sums = sums.reshape(-1, sums.shape[-1] if sums.shape else 1)
    counts = arrays[name + COUNTS].reshape(-1, 1)
    if len(counts) != len(sums):
        raise RecipeError(f"{path}: {name} has {len(sums)} rows of sums and {len(counts)} counts.")
    if not (np.isfinite(sums).all() and (sums >= 0).all() and np.isfinite(counts).all()):
        raise RecipeError(f"{path}: {name} holds negative or not finite values; make the file anew.")
    seen = (counts > 0) & (sums > 0).any(axis=1, keepdims=True)
    return np.where(seen, sums / np.maximum(counts, 1), 1).astype(np.float32)
