"""What a run needs of the machine, estimated from shapes alone, before it starts.

The engine holds no whole model: quantizing keeps a few pieces of some megabytes, measuring keeps one block or
the output matrices of both models (engine/quantize.py, engine/streaming.py, engine/evaluate.py say why).

The constants were measured as the peak of `RssAnon`, sampled every 20 ms, on Linux x86-64 with Python 3.11,
torch 2.13 and transformers 5.23:

    quantize  sample model                                  324 MB; 406 MB where it compiles its kernels
    quantize  467 M weights, vocabulary 64,000              344 MB
    quantize  vocabulary 128,000 (header of 4.6 MB)         398 MB
    measure   sample model, 16 windows                      480 MB
    measure   467 M weights, vocabulary 64,000, 16 windows  2.21 GB
    measure   vocabulary 128,000, width 256, 8 windows      1.05 GB

Neither the number of threads nor the formats made a difference.
"""

from math import prod

from engine.api.model import Role
from engine.api.plan import ExportSummary, ExportTensor

QUANTIZE_BASE = 430_000_000
"""The imports, the encoders with their compiler, and the pieces in hand."""

MEASURE_BASE = 470_000_000
"""The imports with transformers' models."""

TOKENIZER = 16
"""Bytes in memory for each byte of the file's header, which is the vocabulary for the most part."""

BATCH_TOKENS = 2048
"""Tokens that go through a block at a time (engine/streaming.py), of which 8 activations are alive."""

ACTIVATIONS = 8
LARGEST_HIDDEN = 256 << 20
"""Hidden states of more bytes lie in a file."""

LOGITS = 1 << 23
LOGIT_ROWS = 256
LOGIT_ARRAYS = 10
"""Logits and what is made of them at a time: so many float64 arrays of at most `LOGITS` values."""

WINDOW = 512


def quantize_memory(export: ExportSummary) -> int:
    """Bytes of memory that quantizing takes at its peak, whatever the size of the model."""
    return QUANTIZE_BASE + TOKENIZER * export.header_bytes


def measure_memory(export: ExportSummary, windows: int | None, window: int = WINDOW) -> int:
    """Bytes that measuring against the source takes at its peak. `windows` of `window` tokens; None: many."""
    embedding = _matrix(export, Role.EMBEDDING)
    output = _matrix(export, Role.OUTPUT) or embedding
    if embedding is None or output is None:
        return MEASURE_BASE
    hidden = LARGEST_HIDDEN if windows is None else 4 * windows * window * embedding.shape[-1]
    rows = min(LOGIT_ROWS, LOGITS // output.shape[-2] + 1)
    scoring = 2 * _float32(output) + LOGIT_ARRAYS * 8 * rows * output.shape[-2]
    stages = (2 * _float32(embedding), _largest_block(export), scoring)
    return MEASURE_BASE + TOKENIZER * export.header_bytes + 2 * min(hidden, LARGEST_HIDDEN) + max(stages)


def _largest_block(export: ExportSummary) -> int:
    """Bytes of the largest block in float32, of its largest tensor as it is read, and of activations."""
    blocks: dict[int, list[ExportTensor]] = {}
    for tensor in export.tensors:
        if tensor.block is not None:
            blocks.setdefault(tensor.block, []).append(tensor)
    return max((_block(tensors) for tensors in blocks.values()), default=0)


def _block(tensors: list[ExportTensor]) -> int:
    sizes = [_float32(tensor) for tensor in tensors]
    widest = max(max(tensor.shape[-2:], default=1) for tensor in tensors)
    return sum(sizes) + max(sizes) + 4 * ACTIVATIONS * BATCH_TOKENS * widest


def _float32(tensor: ExportTensor) -> int:
    return 4 * prod(tensor.shape)


def _matrix(export: ExportSummary, role: Role) -> ExportTensor | None:
    return next((t for t in export.tensors if t.role == role and len(t.shape) == 2), None)
