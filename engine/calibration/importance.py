"""Importance matrices as llama.cpp's llama-imatrix writes them (GGUF): how much each input column matters."""

from pathlib import Path

import numpy as np

from engine.api.errors import RecipeError
from engine.checkpoint import open_checkpoint

SUMS, COUNTS = ".in_sum2", ".counts"


def read_importance(path: Path) -> dict[str, np.ndarray]:
    """Mean squared activation of each input column: canonical tensor name -> float32 [matrices, columns].

    The file holds sums of squares `NAME.in_sum2` [matrices, columns] and token counts `NAME.counts`
    [matrices, 1]. A matrix (an expert) that saw no token counts all its columns alike.
    """
    with open_checkpoint(path) as file:
        kind = file.metadata.get("general.type")
        names = [name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS)]
        if kind is None or kind.value != "imatrix" or not names:
            raise RecipeError(f"{path}: is not an importance matrix; llama-imatrix or Bitwright writes one.")
        importance = {}
        for name in names:
            if name + COUNTS not in file.tensors:
                raise RecipeError(f"{path}: {name} has sums but no counts; the file is incomplete.")
            sums = file.read(name + SUMS)
            sums = sums.reshape(-1, sums.shape[-1])
            counts = file.read(name + COUNTS).reshape(-1, 1)
            if not (np.isfinite(sums).all() and (sums >= 0).all()):
                raise RecipeError(f"{path}: {name} holds negative or not finite values; make the file anew.")
            seen = (counts > 0) & (sums.sum(axis=1, keepdims=True) > 0)
            importance[name] = np.where(seen, sums / np.maximum(counts, 1), 1).astype(np.float32)
    return importance
