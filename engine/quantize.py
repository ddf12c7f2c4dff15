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
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import LlamaFileType
from pydantic import ValidationError

from engine.api.errors import CheckpointError, ExportError, JobError, OutputError, RecipeError, UserError
from engine.api.formats import FORMATS
from engine.api.jobs import QuantizeRequest, QuantizeResult, State, Stopped
from engine.api.model import Role
from engine.api.plan import Plan, TensorPlan, make_plan
from engine.api.progress import Listener, Progress, silent
from engine.api.recipe import Recipe
from engine.calibration.importance import read_importance
from engine.checkpoint import Checkpoint, check_finite, open_checkpoint
from engine.export.gguf import Export, OutputTensor, VerificationError, header, plan_export, verify
from engine.jobs.fingerprint import differences, fingerprint
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.journal import Unit
from engine.jobs.limits import PeakMemory
from engine.jobs.partial import PartialFile, check_output, checksum, explained, partial_path

PIECE = 4 << 20
"""Bytes of float32 weights encoded at a time."""

HEADER = "header"
"""The unit of work beside the tensors."""

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
    imatrix: Path | None

    @property
    def inputs(self) -> list[Path]:
        """Every file that must not be written over: weights, config, tokenizer, importance matrix."""
        files = list(self.checkpoint.files)
        if self.checkpoint.kind != "gguf":
            beside = self.checkpoint.folder.iterdir()
            files += [path for path in beside if path.is_file() and path.suffix != ".gguf"]
        return files + ([self.imatrix] if self.imatrix else [])

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Where each unit of work lies in the file: name -> (offset, bytes)."""
        tensors = {tensor.name: (self.offsets[tensor.name], tensor.bytes) for tensor in self.plan.tensors}
        return {HEADER: (0, len(self.header)), **tensors}


def prepare(checkpoint: Checkpoint, recipe: Recipe) -> Prepared:
    """Plan the output of `recipe` on `checkpoint`, its size to the byte by the writer's own header code."""
    export = plan_export(checkpoint)
    plan = make_plan(recipe, export.tensors)
    plan.warnings.extend(export.notes)
    if recipe.calibration:
        plan.warnings.append("the recipe's calibration text is not used: none of its methods needs one")
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    head, offsets, size = header(export, formats, _file_type(plan))
    importance = _importance(recipe, plan)
    imatrix = Path(recipe.imatrix) if recipe.imatrix else None
    return Prepared(checkpoint, export, plan, head, offsets, size, importance, imatrix)


def _importance(recipe: Recipe, plan: Plan) -> dict[str, np.ndarray]:
    """The recipe's importance by tensor, float32 [matrices, columns] (one matrix, or one an expert)."""
    if not recipe.imatrix:
        return {}
    try:
        importance = read_importance(Path(recipe.imatrix))
    except CheckpointError as error:
        raise RecipeError(f"The importance matrix cannot be read: {error}") from None
    matrices = [tensor for tensor in plan.tensors if not (tensor.kept or FORMATS[tensor.format].exact)]
    for tensor in matrices:
        found = importance.get(tensor.name)
        wanted = (prod(tensor.shape[:-2]), tensor.shape[-1])
        if found is not None and found.shape != wanted:
            raise RecipeError(
                f"{recipe.imatrix}: {tensor.name} has {found.shape[0]} × {found.shape[1]} values, "
                f"the model needs {wanted[0]} × {wanted[1]}; it was made for another model."
            )
    if not any(tensor.name in importance for tensor in plan.tensors):
        raise RecipeError(f"{recipe.imatrix}: names no tensor of this model; it was made for another one.")
    without = [
        t for t in matrices if t.name not in importance and t.role not in (Role.EMBEDDING, Role.OUTPUT)
    ]
    if without:
        plan.warnings.append(
            f"the importance matrix says nothing of {len(without)} tensors ({without[0].name}, …)"
        )
    return importance


def quantize(request: QuantizeRequest, listener: Listener = silent) -> QuantizeResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed."""
    request = _absolute(request)
    output = Path(request.output)
    rivals = _rivals(output, request.overwrite)
    with open_checkpoint(request.model) as checkpoint:
        prepared = prepare(checkpoint, request.recipe)
        check_output(output, prepared.size, prepared.inputs, request.overwrite)
        job = Job.create(
            "quantize",
            output,
            request.model_dump(mode="json", exclude_none=True),
            _fingerprint(prepared, request),
            total=len(prepared.plan.tensors) + 1,  # and the header
            recipe=request.recipe.to_json(),
        )
        for rival in rivals:
            rival.set_state("replaced", f"job {job.id} started over on its output")
        return _work(job, prepared, request, listener)


def _absolute(request: QuantizeRequest) -> QuantizeRequest:
    """The request with paths that mean the same from any folder: it may be resumed from another one."""
    recipe = request.recipe
    if recipe.imatrix:
        recipe = recipe.model_copy(update={"imatrix": str(Path(recipe.imatrix).absolute())})
    paths = {"model": str(Path(request.model).absolute()), "output": str(Path(request.output).absolute())}
    return request.model_copy(update={"recipe": recipe, **paths})


def _rivals(output: Path, overwrite: bool) -> list[Job]:
    """Unfinished jobs on the same output, which the new one replaces. Refuses to throw work away unasked."""
    jobs = jobs_writing(output)
    for job in jobs:
        summary = job.summary()
        if summary.state == "running":
            raise OutputError(f"{output}: job {job.id} is writing it; wait for it, or choose another name.")
        if summary.done and partial_path(output).exists() and not overwrite:
            raise OutputError(
                f"{output}: job {job.id} has written {summary.done} of {summary.total} parts of it; "
                f"go on with `bitwright resume {job.id}`, or start over with --overwrite."
            )
    return jobs


def resume(job_id: str, listener: Listener = silent) -> QuantizeResult:
    """Go on with an interrupted job behind its last finished tensor; the file is as if undisturbed."""
    job = Job.find(job_id)
    job.lock()
    try:
        asked = job.asked()
        state, message = job.state()
        if state == "done":
            raise JobError(f"Job {job.id} is finished already; there is nothing to resume.")
        if state == "replaced":
            raise JobError(f"Job {job.id} cannot be resumed: {message}.")
        try:
            request = QuantizeRequest.model_validate(asked.request)
        except ValidationError:
            raise JobError(f"Job {job.id} has a damaged job.json; start it again.") from None
        with open_checkpoint(request.model) as checkpoint:
            prepared = prepare(checkpoint, request.recipe)
            changed = differences(asked.fingerprint, _fingerprint(prepared, request))
            if changed:
                raise JobError(
                    f"Job {job.id} cannot be resumed, because its output would mix two states: "
                    f"{'; '.join(changed)}. Start it again with `bitwright quantize`."
                )
            if not _published(job, prepared, Path(request.output)):
                output, remedy = Path(request.output), "move it away, then resume"
                check_output(output, prepared.size, prepared.inputs, request.overwrite, remedy)
            return _work(job, prepared, request, listener)
    finally:
        job.unlock()


def refuse_output(output: Path, prepared: Prepared, overwrite: bool) -> None:
    """Raise the `OutputError` that a job on `output` would end with at once, if any."""
    _rivals(output, overwrite)
    check_output(output, prepared.size, prepared.inputs, overwrite)


def _fingerprint(prepared: Prepared, request: QuantizeRequest) -> dict[str, str]:
    files = list(prepared.checkpoint.files)
    if prepared.imatrix:
        files.append(prepared.imatrix)
    return fingerprint(files, request.recipe.to_json(), prepared.header, _threads(request))


def _threads(request: QuantizeRequest) -> int:
    return request.threads or len(os.sched_getaffinity(0))


def _work(job: Job, prepared: Prepared, request: QuantizeRequest, listener: Listener) -> QuantizeResult:
    """Run a locked job to its end, its state on disk whatever happens."""
    started = time.monotonic()
    try:
        job.set_state("running")
        with job.logging(), PeakMemory() as memory:
            log.info("quantize %s to %s", request.model, request.output)
            if not _published(job, prepared, Path(request.output)):
                _load_kernels(prepared, request, listener)
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
        _note_end(job, "interrupted", "stopped on request")
        raise Stopped(job.id) from None
    except UserError as error:
        _note_end(job, "failed", str(error))
        if job.journal.units():
            error.add_note(f"What is finished is kept: bitwright resume {job.id}")
        raise
    except BaseException as error:
        _note_end(job, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        job.unlock()


def _note_end(job: Job, state: State, message: str) -> None:
    """Note why a job ended, if that can be written at all: the reason itself must reach the user."""
    with suppress(OutputError):
        job.set_state(state, message)


def _published(job: Job, prepared: Prepared, output: Path) -> bool:
    """Whether the output has its name already: the job was killed just before it could say so."""
    units = _planned_units(job, prepared)
    if len(units) < len(prepared.places) or partial_path(output).exists() or not output.is_file():
        return False
    with output.open("rb") as file:
        return output.stat().st_size == prepared.size and all(
            checksum(file.fileno(), unit.offset, unit.bytes) == unit.crc32 for unit in units.values()
        )


def _load_kernels(prepared: Prepared, request: QuantizeRequest, listener: Listener) -> None:
    """Load the encoders (compiled on the first use on a machine) and give them their threads."""
    import numba

    listener(Progress("load kernels", 0, 1, "steps"))
    from engine.methods import warm_up

    warm_up({tensor.format for tensor in prepared.plan.tensors})
    numba.set_num_threads(min(_threads(request), numba.config.NUMBA_NUM_THREADS))
    listener(Progress("load kernels", 1, 1, "steps"))


def _write(job: Job, prepared: Prepared, output: Path, listener: Listener) -> None:
    """Encode what the journal does not name yet, verify the file, give it its name."""
    if not job.journal.units():
        check_finite(prepared.checkpoint, listener)
    partial = PartialFile(output, prepared.size, fresh=not job.journal.units())
    try:
        _write_units(job, prepared, partial, listener)
        formats = {tensor.name: tensor.format for tensor in prepared.plan.tensors}
        checksums = {name: unit.crc32 for name, unit in job.journal.units().items()}
        verify(partial.path, prepared.export, formats, checksums, listener)
        partial.publish()
    except (ExportError, RecipeError, VerificationError):  # resuming would end here again
        job.journal.clear()
        partial.discard()
        raise
    except BaseException:
        if job.journal.units():
            partial.close()
        else:
            partial.discard()
        raise


def _write_units(job: Job, prepared: Prepared, partial: PartialFile, listener: Listener) -> None:
    finished = _still_there(_planned_units(job, prepared), partial, listener)
    if HEADER not in finished:
        _write_unit(job, partial, HEADER, 0, iter([memoryview(prepared.header)]))
    done, total = 0, sum(tensor.bytes for tensor in prepared.plan.tensors)
    for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
        if tensor.name not in finished:
            pieces = _encode(prepared, source, tensor, done, total, listener)
            _write_unit(job, partial, tensor.name, prepared.offsets[tensor.name], pieces)
        done += tensor.bytes
        listener(Progress("quantize", done, total, "bytes", tensor.name))


def _planned_units(job: Job, prepared: Prepared) -> dict[str, Unit]:
    """The journal's units that lie where the plan puts them; a damaged journal's others count as not done."""
    units = job.journal.units()
    return {
        name: units[name]
        for name, place in prepared.places.items()
        if name in units and (units[name].offset, units[name].bytes) == place
    }


def _still_there(units: dict[str, Unit], partial: PartialFile, listener: Listener) -> set[str]:
    """The names of those units whose bytes stand in the file as noted."""
    done, total, found = 0, sum(unit.bytes for unit in units.values()), set()
    for name, unit in units.items():
        listener(Progress("check finished", done, total, "bytes", name))
        if partial.checksum(unit.offset, unit.bytes) == unit.crc32:
            found.add(name)
        done += unit.bytes
    return found


def _write_unit(job: Job, partial: PartialFile, name: str, offset: int, pieces: Iterator[memoryview]) -> None:
    """Write `pieces` one behind the other from `offset`, make them durable, then note the unit."""
    crc, size = 0, 0
    for piece in pieces:
        partial.write(piece, offset + size)
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    partial.sync()
    with explained(job.journal.path):
        job.journal.append(Unit(unit=name, offset=offset, bytes=size, crc32=crc))


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


def _spans(rows: int, height: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `step` of `rows` rows; none crosses a multiple of `height` (the next expert)."""
    start = 0
    while start < rows:
        stop = min(start + step, (start // height + 1) * height, rows)
        yield start, stop
        start = stop


def _file_type(plan: Plan) -> int:
    """llama.cpp's `general.file_type`: the format of most weights; k-quants count as _M mixtures."""
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        weights[tensor.format] += prod(tensor.shape)
    name = weights.most_common(1)[0][0]
    special = {"F32": "ALL_F32", "Q4_K": "MOSTLY_Q4_K_M", "Q5_K": "MOSTLY_Q5_K_M"}
    return LlamaFileType[special.get(name, f"MOSTLY_{name}")].value
