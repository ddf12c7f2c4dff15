"""What a run needs of the machine, estimated before it starts: memory, disk, time.

From shapes and a few measured speeds alone, so the window shows the same numbers while one edits a recipe.
The engine holds no whole model: quantizing keeps a few pieces of some megabytes, measuring keeps one block or
the output matrices of both models (engine/writing.py, engine/streaming.py, engine/states.py say why).

The constants of memory were measured as the peak of `RssAnon`, sampled every 10 ms, on Linux x86-64 with
Python 3.11, torch 2.13 and transformers 5.23 (vocabulary × width):

    quantize  sample model (4,096 × 512)                    324 MB; 463 MB where it compiles its kernels
    quantize  304 M weights, 8,192 × 2,048                  334 MB
    quantize  467 M weights, 64,000 × 2,048                 344 MB
    quantize  128,000 (header of 4.6 MB)                    398 MB
    quantize  sample model from GGUF                        103 MB; 196 MB where it compiles its kernels
    quantize  124 M weights, 8,192 × 2,048, from GGUF       108 MB
    quantize  64,000 × 256, from GGUF (header of 1.7 MB)    125 MB
    quantize  512 experts of 32,768 columns, from GGUF      100 MB; 161 MB with an importance matrix of 67 MB
    quantize and measure  sample model, 16 windows          485 MB
    evaluate  sample model against itself, 16 windows       433 MB
    evaluate  304 M weights, 8,192 × 2,048, 4 windows       786 MB
    evaluate  67 M weights, 128,000 × 256, 4 windows        1.01 GB
    evaluate  443 M weights, 64,000 × 2,048, 4 windows      1.98 GB
    calibrate  sample model, 16 windows                     521 MB; 584 MB for 120

Neither the number of threads nor the formats made a difference.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, Protocol

from pydantic import BaseModel

from engine.api.formats import DEFAULT_EFFORT, FORMATS
from engine.api.jobs import LEAST_MEMORY
from engine.api.model import Role
from engine.api.plan import Plan
from engine.api.units import duration

START_SECONDS = 5.0
"""Loading all libraries, before the first weight is read."""


class Base(NamedTuple):
    """What quantizing takes whatever the model: bytes, and seconds until the first weight is read.

    `least`: with the smallest pieces; `usual`: with larger ones in hand; `compiling`: where encoders are
    compiled.
    """

    least: int
    usual: int
    compiling: int
    seconds: float


FROM_GGUF = Base(LEAST_MEMORY, 140_000_000, 215_000_000, 1.0)
CONVERTING = Base(340_000_000, 430_000_000, 490_000_000, START_SECONDS)
"""With transformers and torch, which read the config of any other source."""

MEASURE_BASE = 370_000_000
"""The imports with transformers' models."""

CALIBRATE_BASE = 430_000_000
"""The same, and what looking at all that is multiplied leaves behind."""

ENCODERS = 70_000_000
"""What quantizing leaves behind for a measurement after it."""

TOKENIZER = 16
"""Bytes in memory for each byte of the file's header, which is the vocabulary for the most part."""

TOKEN_BYTES = 36
"""Bytes of the header for each token of the vocabulary."""

BATCH_TOKENS = 2048
"""Tokens that go through a block at a time (engine/streaming.py)."""

ACTIVATIONS = 6
"""Of the widest of a block's arrays for a batch, that are alive."""

LEFTOVERS = 3
"""Of these, that the C library has not given back when predictions are scored."""

HELD_BYTES = 64 << 20
"""Of hidden states, not yet in their file."""

LOGITS = 1 << 23
LOGIT_ROWS = 256
LOGIT_ARRAYS = 6
"""Logits and what is made of them at a time: so many float64 arrays of at most `LOGITS` values."""

SUM_BYTES, COUNT_BYTES = 4, 8
"""Of an importance matrix, for each column and each matrix."""

SUMS_ARRAYS = 4
"""Sums of squares: those of a block, of a batch, what is added up of both, and what is being written."""

WINDOW = 512

FINITE = 2e9
"""Bytes a second that are looked through for NaN and infinity."""

DECODE = 2.5e8
"""Weights a second that are read into float32, whatever the format."""

CHECKSUM = 1e9
"""Bytes a second of a checksum."""

LOGIT_WORK = 500
"""Multiplications that take as long as what is made of one logit (its exponential, sums, comparisons)."""

ROUTED = 8
"""Experts that a token goes through, of many: the most that published models use."""


class Speeds(BaseModel):
    """What this machine does in a second, by a short measurement.

    `encode`: weights, by format, method and effort ("Q4_K search fast"); `read` and `write`: bytes of files;
    `multiply`: multiplications of a float32 matrix product.
    """

    encode: dict[str, float]
    read: float
    write: float
    multiply: float


class Stage(BaseModel):
    """A part of a run: bytes of memory at its peak, and how long it takes (None: not known)."""

    name: str
    memory: int
    seconds: float | None


class Disk(BaseModel):
    """Bytes that a run needs in a folder, for `what` ("output", "job"), and that are free (None: unknown)."""

    what: str
    folder: str
    bytes: int
    free: int | None


class Needs(BaseModel):
    """What a run needs, and what there is of it. None: not known.

    `memory`: bytes at the peak, under the limit if there is one; `least_memory`: with the smallest pieces;
    `memory_available`: what the machine can give. `seconds`: of all stages.
    """

    memory: int
    least_memory: int
    memory_limit: int | None
    memory_available: int | None
    disks: list[Disk]
    seconds: float | None
    stages: list[Stage]


class Tensor(Protocol):
    """Shape [.., columns] in NumPy's order, role, and block of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> Role: ...
    @property
    def block(self) -> int | None: ...


class Shapes(Protocol):
    """A model as far as its needs go; an `ExportSummary`, for instance.

    `converted`: the source is no GGUF file.
    """

    @property
    def converted(self) -> bool: ...
    @property
    def header_bytes(self) -> int: ...
    @property
    def tensors(self) -> Sequence[Tensor]: ...


def encoder(format_name: str, method: str, effort: str = DEFAULT_EFFORT) -> str:
    """The key of `Speeds.encode`. Where every method does the same, only the format counts."""
    if FORMATS[format_name].exact:
        return format_name
    return f"{format_name} {method} {effort}" if method == "search" else f"{format_name} {method}"


def base_of(export: Shapes) -> Base:
    """What quantizing takes besides the model, by the libraries that are loaded for such a source."""
    return CONVERTING if export.converted else FROM_GGUF


def quantize_memory(export: Shapes, importance: int, limit: int | None = None) -> int:
    """Bytes of memory that quantizing takes at its peak, whatever the size of the model.

    `importance`: `importance_bytes` of the plan. Under a `limit` pieces shrink, down to
    `least_quantize_memory`.
    """
    wanted = base_of(export).usual + TOKENIZER * export.header_bytes + importance
    if limit is None:
        return wanted
    return min(wanted, max(limit, least_quantize_memory(export, importance)))


def least_quantize_memory(export: Shapes, importance: int) -> int:
    """Bytes of memory without which quantizing cannot be done."""
    return base_of(export).least + TOKENIZER * export.header_bytes + importance


def importance_bytes(plan: Plan) -> int:
    """What is held of the importance matrix that a plan uses, if it does, until the job is done."""
    if not plan.metadata:
        return 0
    return sum(
        prod(tensor.shape[:-2]) * (SUM_BYTES * tensor.shape[-1] + COUNT_BYTES)
        for tensor in plan.tensors
        if tensor.weighed
    )


def quantize_stages(
    export: Shapes,
    plan: Plan,
    speeds: Speeds | None,
    source_bytes: int | None = None,
    limit: int | None = None,
) -> list[Stage]:
    """The stages of quantizing by `plan`. `source_bytes` of the model's weights; None: two for each."""
    importance = importance_bytes(plan)
    memory = quantize_memory(export, importance, limit)
    least = least_quantize_memory(export, importance)
    weights = sum(prod(tensor.shape) for tensor in plan.tensors)
    source = 2 * weights if source_bytes is None else source_bytes
    written = sum(tensor.bytes for tensor in plan.tensors)
    times: dict[str, float | None] = dict.fromkeys(("check", "encode", "verify"))
    if speeds is not None:
        encoding = _encode_seconds(plan, speeds)
        moving = source / speeds.read + weights / DECODE + written / speeds.write
        times["check"] = source / speeds.read + source / FINITE
        times["encode"] = None if encoding is None else max(encoding, moving)  # on several threads
        times["verify"] = written / speeds.read + written / CHECKSUM
    start = Stage(name="start", memory=least, seconds=base_of(export).seconds)
    return [start, *(Stage(name=name, memory=memory, seconds=time) for name, time in times.items())]


def quantize_seconds(
    export: Shapes, plan: Plan, speeds: Speeds, source_bytes: int | None = None
) -> float | None:
    """How long quantizing takes; None where an encoder's speed is not known."""
    return total_seconds(quantize_stages(export, plan, speeds, source_bytes))


def measure_memory(
    export: Shapes,
    windows: int | None = None,
    window: int = WINDOW,
    *,
    reference: bool = True,
    after_quantizing: bool = True,
) -> int:
    """Bytes that measuring takes at its peak, of `windows` of `window` tokens; None: many."""
    base = MEASURE_BASE + (ENCODERS if after_quantizing else 0) + TOKENIZER * export.header_bytes
    embedding, output = _ends(export)
    if embedding is None or output is None:
        return base
    models = 2 if reference else 1
    rows = min(LOGIT_ROWS, LOGITS // max(1, output.shape[-2]) + 1)
    scoring = models * _float32(output) + LOGIT_ARRAYS * 8 * rows * output.shape[-2]
    block, activations = _largest_block(export)
    stages = (_float32(embedding), block + ACTIVATIONS * activations, scoring + LEFTOVERS * activations)
    held = 0 if windows == 0 else _slots(export, windows or BATCH_TOKENS, window)[1]
    return base + held + max(stages)


def calibrate_memory(
    export: Shapes, windows: int, window: int, gathered: int, *, output: bool = False
) -> int:
    """Bytes that gathering while a model runs takes at its peak. `gathered`: bytes of what is gathered.

    `output`: of the output matrix, too.
    """
    embedding, head = _ends(export)
    block, activations = _largest_block(export)
    stages = [0 if embedding is None else _float32(embedding), block + ACTIVATIONS * activations]
    if output and head is not None:
        stages.append(_float32(head) + 4 * LOGIT_ROWS * head.shape[-2] + LEFTOVERS * activations)
    held = _slots(export, windows, window)[1]
    return CALIBRATE_BASE + TOKENIZER * export.header_bytes + held + max(stages) + gathered


def measure_start(export: Shapes) -> float:
    """Seconds of loading what quantizing has not loaded, where a measurement comes after it."""
    return START_SECONDS - base_of(export).seconds


def measure_disk(export: Shapes, windows: int, window: int = WINDOW) -> int:
    """Bytes of one model's hidden states in the job's folder."""
    return sum(_slots(export, windows, window))


def measure_seconds(
    export: Shapes,
    speeds: Speeds,
    windows: int,
    window: int = WINDOW,
    *,
    scored: int | None = None,
) -> float:
    """How long measuring one model takes, with the reading of weights. `scored` of a window; None: half."""
    embedding, output = _ends(export)
    if embedding is None or output is None:
        return 0.0
    blocks = [tensor for tensor in export.tensors if tensor.block is not None]
    weights = sum(prod(tensor.shape) for tensor in blocks) + prod(embedding.shape) + prod(output.shape)
    depth = len({tensor.block for tensor in blocks})
    attention = 2 * depth * window * embedding.shape[-1]  # scores and mixed values of each token
    through = windows * window * (sum(_used(tensor) for tensor in blocks) + attention)
    positions = windows * (window // 2 if scored is None else scored)
    logits = positions * output.shape[-2] * (output.shape[-1] + LOGIT_WORK)
    states = _slots(export, windows, window)[0] * max(1, depth)
    moved = states / speeds.write + states / speeds.read if states > depth * HELD_BYTES else 0.0
    return (through + logits) / speeds.multiply + weights / DECODE + moved


def total_seconds(stages: Sequence[Stage]) -> float | None:
    """Of all stages; None where one is not known."""
    times = [stage.seconds for stage in stages]
    return None if None in times else sum(time for time in times if time is not None)


def stage_times(stages: Sequence[Stage]) -> list[str]:
    """ "encode 0:42" and so on, rounded, without those that pass in less than half a second."""
    return [
        f"{one.name} {duration(round(one.seconds))}" for one in stages if one.seconds and one.seconds > 0.5
    ]


def _encode_seconds(plan: Plan, speeds: Speeds) -> float | None:
    seconds = 0.0
    for tensor in plan.tensors:
        if tensor.copied:
            continue
        speed = speeds.encode.get(encoder(tensor.format, tensor.method, plan.effort))
        if speed is None:
            return None
        seconds += prod(tensor.shape) / speed
    return seconds


def _ends(export: Shapes) -> tuple[Tensor | None, Tensor | None]:
    """The embedding, and the output matrix, which may be the same."""
    embedding = _matrix(export, Role.EMBEDDING)
    return embedding, _matrix(export, Role.OUTPUT) or embedding


def _used(tensor: Tensor) -> int:
    """Multiplications for one token: all weights of a matrix, those of some experts of a stack."""
    if len(tensor.shape) < 2:
        return 0
    return prod(tensor.shape[-2:]) * min(ROUTED, prod(tensor.shape[:-2]))


def _slots(export: Shapes, windows: int, window: int) -> tuple[int, int]:
    """Bytes of a model's hidden states, in batches of equal room, and of those that are held in memory."""
    embedding, _ = _ends(export)
    if embedding is None or windows == 0:
        return 0, 0
    together = min(windows, max(1, BATCH_TOKENS // window))
    slot = 4 * window * embedding.shape[-1] * together
    batches = -(-windows // together)
    return slot * batches, slot * max(1, min(batches, HELD_BYTES // slot))


def _largest_block(export: Shapes) -> tuple[int, int]:
    """Bytes in float32 of the largest block, as it is loaded, and of its widest activations for a batch."""
    blocks: dict[int, list[Tensor]] = {}
    for tensor in export.tensors:
        if tensor.block is not None:
            blocks.setdefault(tensor.block, []).append(tensor)
    return max((_block(tensors) for tensors in blocks.values()), default=(0, 0))


def _block(tensors: list[Tensor]) -> tuple[int, int]:
    sizes = [_float32(tensor) for tensor in tensors]
    stacks = [_float32(tensor) for tensor in tensors if len(tensor.shape) > 2]  # copied as they are stacked
    widest = max(max(tensor.shape[-2:], default=1) for tensor in tensors)
    return sum(sizes) + max(stacks, default=0), 4 * BATCH_TOKENS * widest


def _float32(tensor: Tensor) -> int:
    return 4 * prod(tensor.shape)


def _matrix(export: Shapes, role: Role) -> Tensor | None:
    return next((t for t in export.tensors if t.role == role and len(t.shape) == 2), None)
