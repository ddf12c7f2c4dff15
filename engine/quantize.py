"""A recipe applied to a checkpoint: tensor by tensor into a GGUF file, as a job that can be resumed.

Weights are read, transformed and encoded in pieces of some megabytes, so the peak of memory does not
grow with the model. A finished tensor is at its final offset in `NAME.partial`, synced, before the
journal names it; every row is encoded by itself, so a resumed file is the undisturbed one, byte for byte.
"""

import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from engine.api.errors import JobError, RecipeError, UserError
from engine.api.formats import FORMATS
from engine.api.jobs import QuantizeRequest, QuantizeResult, Stopped
from engine.api.plan import Plan, TensorPlan, make_plan
from engine.api.presets import ModelFacts, preset_recipe
from engine.api.progress import Listener, Progress, silent
from engine.api.recipe import Recipe, Rule
from engine.calibration.importance import read_importance
from engine.checkpoint import Checkpoint, check_finite, open_checkpoint
from engine.export.gguf import Export, OutputTensor, header, plan_export, verify
from engine.jobs.fingerprint import differences, fingerprint
from engine.jobs.folder import Job
from engine.jobs.limits import PeakMemory
from engine.jobs.partial import PartialFile, check_output

PIECE = 4 << 20
"""Bytes of float32 weights encoded at a time."""

HEADER_UNIT = "header"

FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q4_K": 15,
    "Q5_K": 17,
    "Q6_K": 18,
    "BF16": 32,
}
"""llama.cpp's `general.file_type` for a file that is mostly of one format (the _M mixtures of k-quants)."""

log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """Everything about a quantization that is known before a weight is read. `size` of the file, bytes."""

    checkpoint: Checkpoint
    export: Export
    plan: Plan
    header: bytes
    offsets: dict[str, int]
    size: int
    importance: dict[str, np.ndarray]


def prepare(checkpoint: Checkpoint, recipe: Recipe) -> Prepared:
    """Plan the output of `recipe` on `checkpoint`, its size to the byte by the writer's own header code."""
    export = plan_export(checkpoint)
    plan = make_plan(recipe, export.tensors)
    plan.warnings.extend(export.notes)
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    head, offsets, size = header(export, formats, _file_type(plan))
    importance = read_importance(Path(recipe.imatrix)) if recipe.imatrix else {}
    for tensor in plan.tensors:
        _check_importance(importance.get(tensor.name), tensor)
    return Prepared(checkpoint, export, plan, head, offsets, size, importance)


def recipe_for_preset(checkpoint: Checkpoint, preset: str, *, has_importance: bool = False) -> Recipe:
    """The recipe that `preset` means for this checkpoint."""
    experts = {tensor.expert for tensor in checkpoint.tensors.values() if tensor.expert is not None}
    stacked = [t.shape[0] for t in checkpoint.tensors.values() if t.role == "expert" and len(t.shape) == 3]
    facts = ModelFacts(
        architecture=checkpoint.architecture or "",
        blocks=checkpoint.blocks,
        experts=len(experts) or max(stacked, default=0),
        tied=checkpoint.tied,
        has_importance=has_importance,
    )
    return preset_recipe(preset, facts)


def with_types(recipe: Recipe, tied: bool, output: str | None, embedding: str | None) -> Recipe:
    """`recipe` with the formats of the output and embedding tensors set, as rules that win.

    A tied model has one tensor for both: either names it, and two different formats are refused.
    """
    if tied and output and embedding and output.upper() != embedding.upper():
        raise RecipeError(
            "This model's output and embedding are one tensor (tied): give --output-tensor-type and "
            "--token-embedding-type the same type, or only one of them."
        )
    wanted = [("embedding", embedding), ("embedding" if tied else "output", output)]
    try:
        rules = [Rule(match=role, format=name) for role, name in wanted if name]
    except ValidationError as error:
        raise RecipeError(f"{error.errors()[0]['ctx']['error']}.") from None
    return recipe.model_copy(update={"rules": recipe.rules + rules})


def quantize(request: QuantizeRequest, listener: Listener = silent) -> QuantizeResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed."""
    output = Path(request.output).absolute()
    request = request.model_copy(update={"model": str(Path(request.model).absolute()), "output": str(output)})
    with open_checkpoint(request.model) as checkpoint:
        prepared = prepare(checkpoint, request.recipe)
        check_output(output, prepared.size, checkpoint.files, request.overwrite)
        job = Job.create(
            "quantize",
            output,
            request.model_dump(mode="json", exclude_none=True),
            _fingerprint(prepared, request),
            total=len(prepared.plan.tensors) + 1,  # and the header
        )
        (job.folder / "recipe.json").write_text(request.recipe.to_json(), encoding="utf-8")
        return _work(job, prepared, request, listener)


def resume(job_id: str, listener: Listener = silent) -> QuantizeResult:
    """Go on with an interrupted job behind its last finished tensor; the file is as if undisturbed."""
    job = Job.find(job_id)
    job.lock()
    try:
        if job.state()[0] == "done":
            raise JobError(f"Job {job.id} is finished already; there is nothing to resume.")
        asked = job.asked()
        request = QuantizeRequest.model_validate(asked["request"])
        with open_checkpoint(request.model) as checkpoint:
            prepared = prepare(checkpoint, request.recipe)
            changed = differences(asked["fingerprint"], _fingerprint(prepared, request))
            if changed:
                raise JobError(
                    f"Job {job.id} cannot be resumed, because its output would mix two states: "
                    f"{'; '.join(changed)}. Start it again with `bitwright quantize`."
                )
            check_output(Path(request.output), prepared.size, checkpoint.files, request.overwrite)
            return _work(job, prepared, request, listener)
    finally:
        job.unlock()


def _fingerprint(prepared: Prepared, request: QuantizeRequest) -> dict[str, str]:
    files = list(prepared.checkpoint.files)
    if request.recipe.imatrix:
        files.append(Path(request.recipe.imatrix))
    return fingerprint(files, request.recipe.to_json(), _threads(request))


def _threads(request: QuantizeRequest) -> int:
    return request.threads or len(os.sched_getaffinity(0))


def _work(job: Job, prepared: Prepared, request: QuantizeRequest, listener: Listener) -> QuantizeResult:
    """Run a locked job to its end, its state on disk whatever happens."""
    import numba

    started = time.monotonic()
    try:
        with _logging_to(job.log), PeakMemory() as memory:
            log.info("quantize %s to %s", request.model, request.output)
            listener(Progress("load kernels", 0, 1, "steps"))  # compiled on the first use on a machine
            from engine.methods import warm_up

            warm_up({tensor.format for tensor in prepared.plan.tensors})
            numba.set_num_threads(min(_threads(request), numba.config.NUMBA_NUM_THREADS))
            listener(Progress("load kernels", 1, 1, "steps"))
            _write(job, prepared, Path(request.output), listener)
        result = QuantizeResult(
            job=job.id,
            output=request.output,
            bytes=Path(request.output).stat().st_size,
            predicted_bytes=prepared.size,
            bpw=prepared.plan.bits_per_weight,
            seconds=time.monotonic() - started,
            peak_rss_bytes=memory.peak,
            warnings=prepared.plan.warnings,
        )
        job.set_state("done", result=result.model_dump())
        return result
    except KeyboardInterrupt:
        job.set_state("interrupted", "stopped by you")
        raise Stopped(job.id) from None
    except UserError as error:
        job.set_state("failed", str(error))
        raise
    except BaseException as error:
        job.set_state("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        job.unlock()


def _write(job: Job, prepared: Prepared, output: Path, listener: Listener) -> None:
    """Encode what the journal does not name yet, verify the file, give it its name."""
    if not job.journal.units():
        check_finite(prepared.checkpoint, listener)
    partial = PartialFile(output, prepared.size, fresh=not job.journal.units())
    try:
        finished = _still_there(job, partial, listener)
        if HEADER_UNIT not in finished:
            _write_unit(job, partial, HEADER_UNIT, 0, iter([memoryview(prepared.header)]))
        done, total = 0, sum(tensor.bytes for tensor in prepared.plan.tensors)
        for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
            if tensor.name not in finished:
                pieces = _encode(prepared, source, tensor, done, total, listener)
                _write_unit(job, partial, tensor.name, prepared.offsets[tensor.name], pieces)
            done += tensor.bytes
            listener(Progress("quantize", done, total, "bytes", tensor.name))
        formats = {tensor.name: tensor.format for tensor in prepared.plan.tensors}
        checksums = {name: unit["crc32"] for name, unit in job.journal.units().items()}
        partial.sync()
        verify(partial.path, prepared.export, formats, checksums, listener)
        partial.publish()
    except BaseException:
        if job.journal.units():
            partial.close()
        else:
            partial.discard()
        raise


def _still_there(job: Job, partial: PartialFile, listener: Listener) -> set[str]:
    """The units that the journal names and whose bytes stand in the file as noted."""
    units = job.journal.units()
    done, total, found = 0, sum(unit["bytes"] for unit in units.values()), set()
    for name, unit in units.items():
        listener(Progress("check finished", done, total, "bytes", name))
        if partial.checksum(unit["offset"], unit["bytes"]) == unit["crc32"]:
            found.add(name)
        done += unit["bytes"]
    return found


def _write_unit(job: Job, partial: PartialFile, unit: str, offset: int, pieces: Iterator[memoryview]) -> None:
    """Write `pieces` one behind the other from `offset`, make them durable, then note the unit."""
    crc, size = 0, 0
    for piece in pieces:
        partial.write(piece, offset + size)
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    partial.sync()
    job.journal.append(unit, offset=offset, bytes=size, crc32=crc)


def _encode(
    prepared: Prepared, source: OutputTensor, tensor: TensorPlan, before: int, total: int, listener: Listener
) -> Iterator[memoryview]:
    """The bytes of one tensor, in pieces of rows that take about `PIECE` bytes in float32."""
    from engine.methods import encode

    rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1]
    step = max(1, PIECE // (4 * columns))
    importance = prepared.importance.get(tensor.name)
    matrices = 1 if importance is None else len(importance)
    height = rows // matrices
    for start, stop in _spans(rows, height, step):
        weights = source.read(prepared.checkpoint, start, stop)
        matters = None if importance is None else importance[start // height]
        data = encode(weights, tensor.format, tensor.method, matters, tensor.params)
        yield data.data.cast("B")
        done = before + stop * FORMATS[tensor.format].row_bytes(columns)
        listener(Progress("quantize", done, total, "bytes", tensor.name))


def _check_importance(importance: np.ndarray | None, tensor: TensorPlan) -> None:
    """Refuse importance that is not [matrices, columns] of this tensor (one matrix, or one an expert)."""
    wanted = (prod(tensor.shape[:-2]), tensor.shape[-1])
    if importance is not None and importance.shape != wanted:
        raise RecipeError(
            f"{tensor.name}: the importance matrix has {importance.shape[0]} × {importance.shape[1]} values, "
            f"the model needs {wanted[0]} × {wanted[1]}; it was made for another model."
        )


def _spans(rows: int, height: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `step` of `rows` rows; none crosses a multiple of `height` (the next expert)."""
    start = 0
    while start < rows:
        stop = min(start + step, (start // height + 1) * height, rows)
        yield start, stop
        start = stop


def _file_type(plan: Plan) -> int:
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        weights[tensor.format] += prod(tensor.shape)
    return FILE_TYPES[weights.most_common(1)[0][0]]


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send the engine's log to the job's `engine.log`."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("engine")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
