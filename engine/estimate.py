"""What a run will take of this machine, before it starts: `engine.api.needs` with measured speeds and room.

The speeds come from a short measurement: every encoder on a small random piece, a file of some megabytes
written and read back, one matrix product. Encoders that were never compiled on this machine are not
waited for; the time of a run that needs them is not known before it has begun.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from engine.api.errors import MemoryLimitError, OutputError
from engine.api.formats import DEFAULT_EFFORT, EFFORTS, FORMATS, METHODS
from engine.api.jobs import ActivationsRequest, CalibrateRequest, EvaluateRequest, QuantizeRequest
from engine.api.needs import (
    CHECKSUM,
    START_SECONDS,
    TOKEN_BYTES,
    Disk,
    Needs,
    Speeds,
    Stage,
    Tensor,
    base_of,
    calibrate_memory,
    encoder,
    importance_bytes,
    least_quantize_memory,
    measure_disk,
    measure_memory,
    measure_seconds,
    measure_start,
    quantize_stages,
    total_seconds,
)
from engine.api.outputs import partials_of
from engine.api.plan import ExportTensor
from engine.api.units import size
from engine.calibration.windows import BEGINNING, protocol_named, read_text, tokenize
from engine.checkpoint import Checkpoint
from engine.jobs.folder import jobs_folder
from engine.jobs.limits import available_memory
from engine.methods import are_compiled
from engine.preparation import Prepared
from engine.speeds import disk_speeds, encode_speed, multiply_speed
from engine.tokenizer import load_tokenizer

STATE_BYTES = 1 << 20
"""Bytes of a job's folder beside large results: its journal, its log."""

UNMEASURED = Speeds(encode={}, read=1.0, write=1.0, multiply=1.0)
"""Where only memory and disks are asked for."""


@dataclass(frozen=True)
class Outline:
    """The shapes of a model that is measured: a `needs.Shapes`."""

    header_bytes: int
    tensors: list[Tensor]
    converted: bool = True


def speeds(
    wanted: Iterable[tuple[str, str, str]] | None = None,
    threads: int | None = None,
    folder: Path | None = None,
) -> Speeds:
    """What this machine does in a second; measured once a process: some 20 ms for each encoder.

    `wanted`: format, method and effort of encoders, None: all. `threads` that encode, None: all. `folder`:
    where files are written. Encoders that were never compiled here are left out: that would take long.
    """
    if wanted is None:
        wanted = [(*pair, effort) for pair in product(FORMATS, METHODS) for effort in EFFORTS]
    found = {}
    for name, method, effort in wanted:
        plain = FORMATS[name].exact or method == "rtn"
        if plain or are_compiled([name]):
            how = ("rtn", DEFAULT_EFFORT) if plain else (method, effort)
            found[encoder(name, method, effort)] = encode_speed(name, *how, threads)
    write, read = disk_speeds(folder)
    return Speeds(encode=found, read=read, write=write, multiply=multiply_speed())


def needs(prepared: Prepared, request: QuantizeRequest, measured: Speeds | None = None) -> Needs:
    """What quantizing by `request` takes. `measured`: the machine's speeds; None: measured here.

    Raises EvaluationError or TokenizerError where the text to measure on cannot be read.
    """
    output = Path(request.output).absolute()
    if measured is None:
        plan = prepared.plan
        encoders = {(t.format, t.method, plan.effort) for t in plan.tensors if not t.copied}
        measured = speeds(encoders, request.threads, output.parent)
    converted = prepared.checkpoint.kind != "gguf"
    shapes = Outline(len(prepared.header), list(prepared.export.tensors), converted)
    source_bytes = sum(tensor.bytes for tensor in prepared.checkpoint.tensors.values())
    stages = quantize_stages(shapes, prepared.plan, measured, source_bytes, request.memory_limit)
    importance = importance_bytes(prepared.plan)
    least, job_bytes = least_quantize_memory(shapes, importance), STATE_BYTES
    if not are_compiled({tensor.format for tensor in prepared.plan.tensors if not tensor.copied}):
        least = max(least, base_of(shapes).compiling + importance)
        stages[0].memory = least
    if request.measure:
        asked = request.measure
        text = _Text.of(prepared.checkpoint, Path(asked.text), asked.protocol, asked.windows)
        memory = measure_memory(shapes, text.windows, text.window) + importance
        read = source_bytes + prepared.size
        seconds = measure_start(shapes) + _measuring([shapes, shapes], text, measured, read)
        stages.append(Stage(name="measure", memory=memory, seconds=seconds))
        least = max(least, stages[-1].memory)
        job_bytes += 2 * measure_disk(shapes, text.windows, text.window)
    disks = [_output_disk(output, prepared.size), _disk("job", jobs_folder(), job_bytes)]
    return _needs(stages, least, request.memory_limit, disks)


def evaluate_needs(
    request: EvaluateRequest,
    tokens: tuple[int, int],
    model: Checkpoint,
    reference: Checkpoint | None = None,
    measured: Speeds | None = None,
) -> Needs:
    """What measuring `model` against `reference` takes. `tokens`: windows, and the length of each."""
    if measured is None:
        measured = speeds((), request.threads, jobs_folder())
    windows, window = tokens
    text = _Text(windows, window, len(protocol_named(request.protocol).scored(window)))
    subjects = [model, *([] if reference is None else [reference])]
    outlines = [_outline(subject) for subject in subjects]  # one may be wider than the other
    read = sum(tensor.bytes for subject in subjects for tensor in subject.tensors.values())
    memory = max(
        measure_memory(outline, windows, window, reference=len(outlines) > 1, after_quantizing=False)
        for outline in outlines
    )
    stages = [
        Stage(name="start", memory=memory, seconds=START_SECONDS),
        Stage(name="measure", memory=memory, seconds=_measuring(outlines, text, measured, read)),
    ]
    job_bytes = STATE_BYTES + sum(measure_disk(outline, windows, window) for outline in outlines)
    return _needs(stages, memory, request.memory_limit, [_disk("job", jobs_folder(), job_bytes)])


@dataclass(frozen=True)
class Gathered:
    """Bytes of what is gathered: in `memory` at a time, on the `disk` until the end, in the `file`."""

    memory: int
    disk: int
    file: int


def calibrate_needs(
    request: CalibrateRequest | ActivationsRequest,
    tokens: tuple[int, int],
    model: Checkpoint,
    output: Path,
    gathered: Gathered,
    measured: Speeds | None = None,
    *,
    output_tensor: bool = False,
) -> Needs:
    """What gathering while a model runs takes. `tokens`: windows, and the length of each."""
    if measured is None:
        measured = speeds((), request.threads, output.parent)
    windows, window = tokens
    outline = _outline(model)
    memory = calibrate_memory(outline, windows, window, gathered.memory, output=output_tensor)
    seconds = measure_seconds(outline, measured, windows, window, scored=window if output_tensor else 0)
    read = sum(tensor.bytes for tensor in model.tensors.values()) / measured.read
    stages = [
        Stage(name="start", memory=memory, seconds=START_SECONDS),
        Stage(name=request.kind, memory=memory, seconds=seconds + read),
    ]
    job_bytes = STATE_BYTES + measure_disk(outline, windows, window) + gathered.disk
    disks = [_output_disk(output, gathered.file), _disk("job", jobs_folder(), job_bytes)]
    return _needs(stages, memory, request.memory_limit, disks)


def refuse_needs(found: Needs) -> None:
    """Raise `MemoryLimitError` or `OutputError` where the limit, the machine or a disk cannot give it."""
    refuse_memory(found)
    refuse_disks(found)


def refuse_memory(found: Needs) -> None:
    """Raise `MemoryLimitError` where even the smallest pieces would not fit."""
    measuring = any(stage.name == "measure" for stage in found.stages)
    less = ", or measure nothing" if measuring and len(found.stages) > 2 else ""
    limit, available = found.memory_limit, found.memory_available
    if limit is not None and limit < found.least_memory:
        raise MemoryLimitError(
            f"This takes about {size(found.least_memory)} of memory, and the limit is {size(limit)}; "
            f"raise the limit (--memory-limit){less}."
        )
    if available is not None and available < found.least_memory:
        raise MemoryLimitError(
            f"This takes about {size(found.least_memory)} of memory, and the machine has {size(available)} "
            f"available; close other programs{less}."
        )


def refuse_disks(found: Needs) -> None:
    """Raise `OutputError` where a disk has not the room for all that would lie on it."""
    wanted: dict[int | str, int] = {}
    for disk in found.disks:
        place = _device(Path(disk.folder))
        wanted[place] = wanted.get(place, 0) + disk.bytes
        if disk.free is not None and disk.free < wanted[place]:
            hidden = disk.what == "job" and disk.bytes > STATE_BYTES
            less = ", measure fewer windows, or set XDG_STATE_HOME to a folder with room" if hidden else ""
            raise OutputError(
                f"{disk.folder}: this needs {wanted[place]:,} bytes on its disk, which has {disk.free:,} "
                f"free; free some space first{less}."
            )


@dataclass(frozen=True)
class _Text:
    """How much of a text is measured: windows, their length, and the predictions scored in each."""

    windows: int
    window: int
    scored: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, text: Path, protocol: str, asked: int | None) -> "_Text":
        """Its beginning is tokenized, the rest taken to be like it."""
        rules = protocol_named(protocol)
        content = read_text(text)
        beginning = content[:BEGINNING]
        ids = tokenize(load_tokenizer(checkpoint), beginning, rules)
        tokens = len(ids) * len(content) / len(beginning)
        there = max(1, int(tokens / rules.length))
        return cls(
            there if asked is None else min(asked, there), rules.length, len(rules.scored(rules.length))
        )


def _measuring(subjects: list[Outline], text: _Text, measured: Speeds, read: int) -> float:
    """Seconds of measuring; `read` bytes of files are summed for the report, too."""
    seconds = sum(
        measure_seconds(subject, measured, text.windows, text.window, scored=text.scored)
        for subject in subjects
    )
    return seconds + read / CHECKSUM + read / measured.read


def _needs(stages: list[Stage], least: int, limit: int | None, disks: list[Disk]) -> Needs:
    return Needs(
        memory=max(stage.memory for stage in stages),
        least_memory=least,
        memory_limit=limit,
        memory_available=available_memory(),
        disks=disks,
        seconds=total_seconds(stages),
        stages=stages,
    )


def _outline(checkpoint: Checkpoint) -> Outline:
    """Experts that are stored one by one count as a stack."""
    stacks: dict[str, ExportTensor] = {}
    plain: list[Tensor] = []
    vocabulary = 0
    for tensor in checkpoint.tensors.values():
        if tensor.expert is None or tensor.canonical is None:
            plain.append(tensor)
            continue
        known = stacks.get(tensor.canonical)
        stacks[tensor.canonical] = ExportTensor(
            name=tensor.canonical,
            shape=(1 + (known.shape[0] if known else 0), *tensor.shape),
            role=tensor.role,
            block=tensor.block,
            sources=(),
        )
    for tensor in checkpoint.tensors.values():
        if tensor.canonical == "token_embd.weight":
            vocabulary = tensor.shape[0]
    return Outline(TOKEN_BYTES * vocabulary, [*plain, *stacks.values()])


def _output_disk(output: Path, needed: int) -> Disk:
    """What an earlier try has written of the output is room for it."""
    disk = _disk("output", output.parent, needed)
    with suppress(OSError):
        there = sum(partial.stat().st_blocks * 512 for partial in partials_of(output))
        disk.free = None if disk.free is None else disk.free + there
    return disk


def _disk(what: str, folder: Path, needed: int) -> Disk:
    """A folder that does not exist yet stands on the disk of the one that will hold it."""
    free = None
    for place in (folder, *folder.parents):
        try:
            free = shutil.disk_usage(place).free
            break
        except FileNotFoundError:
            continue
        except OSError:
            break
    return Disk(what=what, folder=str(folder), bytes=needed, free=free)


def _device(folder: Path) -> int | str:
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return place.stat().st_dev
    return str(folder)
