"""Statistics of importance matrices, by the formulas of llama-imatrix, summed in float64."""

import re
from collections.abc import Sequence
from math import log2

import numpy as np

from engine.api.errors import CalibrationError
from engine.api.importance import (
    ImportanceColumns,
    ImportanceSummary,
    LayerStatistics,
    TensorStatistics,
    Unseen,
)
from engine.calibration.importance import Entry, Importance

ACTIVE = 1e-5
"""Mean squares above this count as active."""

MOST_VALUES = 2048
"""Of a tensor's sorted columns: a plot shows no more."""

BLOCK = re.compile(r"blk\.(\d+)\.")


def summarize(
    importance: Importance, files: Sequence[str], warnings: Sequence[str] = (), known: int | None = None
) -> ImportanceSummary:
    """The figures of all tensors and blocks, and the experts that saw no token. `files` it was read from.

    `known`: how many tensors they know, where `importance` is of some of them.
    """
    entries = importance.entries
    tensors = [_tensor(name, entries) for name in sorted(entries, key=_order)]
    return ImportanceSummary(
        files=list(files),
        entries=len(entries) if known is None else known,
        datasets=importance.datasets,
        windows=importance.chunks,
        window=importance.chunk_size,
        tensors=tensors,
        layers=_layers(tensors),
        unseen=unseen_experts(importance),
        warnings=list(warnings),
    )


def sorted_columns(importance: Importance, tensor: str) -> ImportanceColumns:
    """Raises `CalibrationError` where the matrix does not know the tensor."""
    entry = importance.entries.get(tensor)
    if entry is None:
        raise CalibrationError(f"{tensor}: the importance matrix says nothing of this tensor.")
    means = np.sort(_seen_means(entry))[::-1]
    width = max(1, -(-means.size // MOST_VALUES))
    return ImportanceColumns(tensor=tensor, columns=means.size, width=width, values=means[::width].tolist())


def unseen_experts(importance: Importance) -> list[Unseen]:
    """The stacks with experts that saw no token, or nothing but zeros; plain matrices of which that is so."""
    entries = importance.entries
    return [
        Unseen(tensor=name, matrices=len(entries[name].sums), experts=entries[name].unseen.tolist())
        for name in sorted(entries, key=_order)
        if len(entries[name].unseen)
    ]


def _order(name: str) -> tuple[int, str]:
    block = _block(name)
    return (1 << 62 if block is None else block, name)


def _block(name: str) -> int | None:
    found = BLOCK.match(name)
    return int(found[1]) if found else None


def _tensor(name: str, entries: dict[str, Entry]) -> TensorStatistics:
    entry = entries[name]
    means = _seen_means(entry)
    total, count = float(means.sum()), means.size
    mean, deviation = (float(means.mean()), float(means.std())) if count else (0.0, 0.0)
    shares = means[means > 0] / total if total > 0 else means[:0]
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0  # of one column not -0
    return TensorStatistics(
        tensor=name,
        block=_block(name),
        matrices=len(entry.sums),
        tokens=int(entry.counts.sum()),
        sum=total,
        minimum=float(means.min(initial=np.inf)) if count else 0.0,
        maximum=float(means.max(initial=0)),
        mean=mean,
        deviation=deviation,
        active=float((means > ACTIVE).mean()) if count else 0.0,
        columns=count,
        entropy=entropy,
        entropy_share=entropy / log2(count) if count > 1 else 0.0,
        z_density=float((means > mean + deviation).mean()) if deviation > 0 else 0.0,
        cosine=_cosine(name, entries),
    )


def _seen_means(entry: Entry) -> np.ndarray:
    """Mean squares of the columns of all matrices that saw a token, float64 [n]."""
    seen = np.delete(entry.sums, entry.unseen, axis=0).astype(np.float64)
    return (seen / np.delete(entry.counts, entry.unseen)[:, None]).ravel()


def _cosine(name: str, entries: dict[str, Entry]) -> float | None:
    """None where there is no such tensor in the block before, or one of another size, or of nothing but 0."""
    block = _block(name)
    before = entries.get(BLOCK.sub(f"blk.{block - 1}.", name, count=1)) if block else None
    if before is None or before.sums.size != entries[name].sums.size:
        return None
    a, b = (entry.sums.ravel().astype(np.float64) for entry in (entries[name], before))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else None


def _layers(tensors: list[TensorStatistics]) -> list[LayerStatistics]:
    blocks: dict[int, list[TensorStatistics]] = {}
    for tensor in tensors:
        if tensor.block is not None and tensor.columns:
            blocks.setdefault(tensor.block, []).append(tensor)
    found = []
    for block, own in sorted(blocks.items()):
        compared = [tensor for tensor in own if tensor.cosine is not None]
        found.append(
            LayerStatistics(
                block=block,
                sum=_mean(own, [tensor.sum for tensor in own]),
                z_density=_mean(own, [tensor.z_density for tensor in own]),
                cosine=_mean(compared, [tensor.cosine or 0.0 for tensor in compared]) if compared else None,
            )
        )
    return found


def _mean(tensors: list[TensorStatistics], values: list[float]) -> float:
    weights = [tensor.columns for tensor in tensors]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
