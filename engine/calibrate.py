"""An importance matrix of a model on texts, as a job to be resumed.

The model is streamed a block at a time over windows of the texts (engine/streaming.py), and what reaches each
matrix is summed on the way (engine/calibration/collecting.py). With the output matrix, states behind the last
block go on into the head.

Units of work: a block × a batch of windows, with the sums of the block by then. In memory at a time: one
block or the output matrix, a few batches, the sums of one block; at the end those of all, which are the file.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.api.events import Artifact
from engine.api.importance import unseen_named
from engine.api.jobs import CalibrateRequest, CalibrateResult, Saved
from engine.api.needs import LOGIT_ROWS, SUMS_ARRAYS, Needs, Speeds
from engine.api.progress import Listener, Progress, silent
from engine.architectures import architecture_of
from engine.calibration.collecting import Sums, SumsWatcher, Target, block_targets
from engine.calibration.importance import Entry, Importance, merged
from engine.calibration.importance_files import losses, read_importance, write_importance
from engine.calibration.statistics import unseen_experts
from engine.calibration.stored_sums import CountedStates, StoredSums
from engine.calibration.texts import CalibrationTexts, calibration_windows, read_texts
from engine.estimate import UNMEASURED, Gathered, calibrate_needs, refuse_memory, refuse_needs
from engine.export.gguf import plan_export
from engine.jobs.fingerprint import Unchanged, digest, fingerprint
from engine.jobs.folder import Job, jobs_writing
from engine.jobs.partial import check_place
from engine.jobs.running import Running, Tell, nobody, refuse_changed, refuse_rivals, run
from engine.measuring import MEASURING_LIBRARIES
from engine.states import HiddenStates, Saver
from engine.streaming import stream
from engine.subjects import Subject, opened_subject, refuse_length
from resources import CALIBRATION_TEXT

FEW_WINDOWS = 50
"""Below so many the sums of rare columns, and of experts, still depend on chance."""

log = logging.getLogger(__name__)


@dataclass
class Calibration:
    """What is to be run: `tokens` int64 [windows, length] through the model, and where to look.

    `targets`: of each block, then of the head where that is wanted. `merge`: matrices that are added.
    """

    subject: Subject
    texts: CalibrationTexts
    tokens: np.ndarray
    targets: list[list[Target]]
    merge: list[Importance]
    inputs: list[Path]
    threads: int
    unchanged: Unchanged

    @property
    def blocks(self) -> int:
        return self.subject.model.block_count

    @property
    def lengths(self) -> list[int]:
        """Values of the sums of each part."""
        return [Sums.length(targets) for targets in self.targets]

    @property
    def batches(self) -> list[slice]:
        return list(self.subject.model.batches(*self.tokens.shape))

    @property
    def warnings(self) -> list[str]:
        """Sentences about the texts."""
        found = list(self.texts.notes)
        if len(self.tokens) < FEW_WINDOWS:
            found.append(
                f"{len(self.tokens)} windows of text are few for an importance matrix; 100 and more, of "
                "texts like those that the model is for, make it better"
            )
        return found

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """All that the matrix's bits depend on."""
        facts = {
            "text": digest("\0".join(self.texts.contents)),
            "tokenizer": digest(self.tokens.tobytes()),
            "config": digest(json.dumps(self.subject.config, default=str)),
            "tensors": digest(repr(self.targets)),
        }
        files = [*self.subject.checkpoint.files, *self.inputs]
        return fingerprint(files, facts, self.threads, ("numpy", "gguf", *MEASURING_LIBRARIES))

    @cached_property
    def kind(self) -> str:
        """What the names of its units begin with."""
        return f"calibrate {digest(json.dumps(self.fingerprint, sort_keys=True))[:12]}"

    def importance(self, entries: dict[str, Entry]) -> Importance:
        """What these sums make, the matrices that are merged with them included."""
        names = [path.name for path in self.texts.paths]
        windows, length = self.tokens.shape
        own = Importance(entries, names, windows, length)
        return merged([own, *self.merge], ["this calibration", *(str(path) for path in self.inputs)])


def calibrate(
    request: CalibrateRequest, listener: Listener = silent, tell: Tell = nobody, *, replacing: str = ""
) -> CalibrateResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed.

    `replacing`: the id of an unfinished job that is given up for this one. What cannot be calibrated is
    refused before there is a job.
    """
    request = absolute(request)
    output = Path(request.output)
    with prepared_calibration(request) as prepared:
        refuse_place(request, prepared, replacing)
        found = _needs(request, prepared, UNMEASURED)
        refuse_needs(found)
        rivals = jobs_writing(output)
        job = Job.create(request, output, prepared.fingerprint, rivals, found.least_memory)
        return _run(job, prepared, request, listener, tell)


def go_on(job: Job, request: CalibrateRequest, listener: Listener, tell: Tell) -> CalibrateResult:
    """Finish a locked job; the file is as if it had never been broken off. Raises `UserError`s."""
    with prepared_calibration(request) as prepared:
        refuse_changed(job, prepared.fingerprint)
        refuse_memory(_needs(request, prepared, UNMEASURED))
        return _run(job, prepared, request, listener, tell)


@dataclass(frozen=True)
class Foreseen:
    """What a run would look at, and take of the machine."""

    needs: Needs
    windows: int
    length: int
    tensors: list[str]
    warnings: list[str]


def foresee(request: CalibrateRequest, *, place: bool) -> Foreseen:
    """What a job of this request would do. Raises what it would be refused with, but for room.

    `place`: there is an output, which is looked at, too.
    """
    request = absolute(request)
    with prepared_calibration(request) as prepared:
        if place:
            refuse_place(request, prepared)
        return foreseen(request, prepared)


def foreseen(request: CalibrateRequest, prepared: Calibration) -> Foreseen:
    """What a job of this request does, of which everything is prepared."""
    windows, length = prepared.tokens.shape
    names = [target.name for targets in prepared.targets for target in targets]
    return Foreseen(_needs(request, prepared), windows, length, names, prepared.warnings)


def refuse_place(request: CalibrateRequest, prepared: Calibration, replacing: str = "") -> None:
    """Raise an `OutputError` where the output must not be written: also where another job is at it."""
    output = Path(request.output)
    refuse_rivals(output, request.overwrite, replacing)
    sources = [*prepared.subject.checkpoint.files, *prepared.texts.files, *prepared.inputs]
    check_place(output, sources, request.overwrite)


def absolute(request: CalibrateRequest) -> CalibrateRequest:
    """The request with paths that mean the same from any folder: it may be resumed from another one."""
    return request.model_copy(
        update={
            "model": _path(request.model),
            "output": _path(request.output),
            "texts": [_path(path) for path in request.texts] or [str(CALIBRATION_TEXT)],
            "merge": [_path(path) for path in request.merge],
        }
    )


def _path(path: str) -> str:
    return str(Path(path).absolute())


@contextmanager
def prepared_calibration(request: CalibrateRequest) -> Iterator[Calibration]:
    """Everything opened, and found to fit, before any weight is read."""
    inputs = [Path(path) for path in request.merge]
    merge = [read_importance(path) for path in inputs]
    texts = read_texts([Path(path) for path in request.texts])
    with opened_subject(Path(request.model)) as subject:
        refuse_length(subject, request.length)
        unchanged = Unchanged([*subject.checkpoint.files, *inputs])
        tokens = calibration_windows(subject.tokenizer, texts, request.length, request.windows)
        prepared = Calibration(
            subject=subject,
            texts=texts,
            tokens=tokens,
            targets=_targets(subject, request.output_tensor),
            merge=merge,
            inputs=inputs,
            threads=request.threads or len(os.sched_getaffinity(0)),
            unchanged=unchanged,
        )
        prepared.importance(  # refuses what cannot be merged
            {
                target.name: Entry(
                    np.zeros((target.matrices, target.columns), "f4"), np.zeros(target.matrices, "i8")
                )
                for targets in prepared.targets
                for target in targets
            }
        )
        yield prepared


def _targets(subject: Subject, output: bool) -> list[list[Target]]:
    """Where to look, block by block, then in the head, under the names of a GGUF file of the model.

    Raises `ExportError` for an unknown architecture.
    """
    model = subject.model
    model.run_experts_one_by_one()
    found = block_targets(architecture_of(subject.checkpoint), model.config, model.blocks)
    if output:
        names = {tensor.name for tensor in plan_export(subject.checkpoint).tensors}
        name = "output.weight" if "output.weight" in names else "token_embd.weight"  # tied
        found.append([Target(name, "weight", 1, model.width)])
    return found


def _needs(request: CalibrateRequest, prepared: Calibration, speeds: Speeds | None = None) -> Needs:
    windows, length = prepared.tokens.shape
    return calibrate_needs(
        request,
        (windows, length),
        prepared.subject.checkpoint,
        Path(request.output),
        Gathered(
            memory=SUMS_ARRAYS * 8 * max(prepared.lengths),
            disk=StoredSums.disk(prepared.lengths),
            file=4 * sum(prepared.lengths) + 200 * sum(len(targets) for targets in prepared.targets),
        ),
        speeds,
        output_tensor=request.output_tensor,
    )


def _run(
    job: Job, prepared: Calibration, request: CalibrateRequest, listener: Listener, tell: Tell
) -> CalibrateResult:
    def work(running: Running) -> CalibrateResult:
        return _work(running, prepared, request)

    return run(job, prepared.unchanged, work, listener, tell, request.memory_limit)


def _work(work: Running, prepared: Calibration, request: CalibrateRequest) -> CalibrateResult:
    windows, length = prepared.tokens.shape
    log.info("calibrate %s on %s", request.model, ", ".join(request.texts))
    log.info("%d windows of %d tokens, %d threads", windows, length, prepared.threads)
    for warning in prepared.warnings:
        work.warn(warning)
    work.foresee(lambda: {stage.name: stage.seconds for stage in _needs(request, prepared).stages[1:]})
    importance = prepared.importance(_Collecting(work, prepared).run())
    unseen = unseen_experts(importance)
    for text in unseen_named(unseen):
        work.warn(text)
    prepared.unchanged.check()
    output = Path(request.output)
    size = write_importance(output, importance, overwrite=request.overwrite)
    for text in losses(output, importance):
        work.warn(text)
    log.info("%s: %s bytes, read back and verified", output, f"{size:,}")
    work.tell(Artifact(path=str(output)))
    return CalibrateResult(
        job=work.job.id,
        output=request.output,
        bytes=size,
        tensors=len(importance.entries),
        windows=windows,
        tokens=windows * length,
        unseen=unseen,
        seconds=work.seconds,
        resumed=work.resumed,
        peak_private_bytes=work.guard.peak,
        warnings=work.warnings,
    )


class _Collecting:
    """Streams the windows through the model and adds up what is seen, going on behind what is finished."""

    def __init__(self, work: Running, prepared: Calibration) -> None:
        self._work, self._prepared = work, prepared
        self._saver = Saver(work, prepared.unchanged)
        self._batches = [range(batch.start, batch.stop) for batch in prepared.batches]
        self._watcher: SumsWatcher | None = None

    def run(self) -> dict[str, Entry]:
        """The entries of all targets."""
        prepared = self._prepared
        torch.set_num_threads(prepared.threads)
        with StoredSums(self._saver, prepared.kind, prepared.lengths) as sums, self._states(sums) as states:
            self._done = self._done_before(sums, states)
            wanted = range(len(self._batches))
            stream(prepared.subject.model, prepared.tokens, states, wanted, self._passed, self._watch)
            states.commit()
            if len(prepared.targets) > prepared.blocks:
                self._head(sums, states)
            return {
                name: entry
                for part, targets in enumerate(prepared.targets)
                for name, entry in Sums(targets, sums.get(part)).entries().items()
            }

    def _states(self, sums: StoredSums) -> CountedStates:
        model = self._prepared.subject.model
        return CountedStates(
            sums,
            self._seen,
            self._saver,
            f"{self._prepared.kind}/model",
            "hidden model",
            shape=(self._prepared.tokens.shape[1], model.width),
            batches=[len(batch) for batch in self._batches],
            wanted=range(len(self._batches)),
            blocks=model.block_count,
            saved=self._saved,
        )

    def _watch(self, part: int, module: nn.Module) -> SumsWatcher:
        self._watcher = SumsWatcher(self._prepared.targets[part], module)
        return self._watcher

    def _seen(self, part: int, batch: int) -> np.ndarray:
        """The sums of what has just gone through."""
        assert self._watcher is not None, "something has"
        seen = self._watcher.restart()
        first = self._batches[batch].start
        seen.check(f"{self._prepared.subject.path}, windows {first + 1} to {self._batches[batch].stop}")
        return seen.values

    def _head(self, sums: StoredSums, states: CountedStates) -> None:
        part, model = self._prepared.blocks, self._prepared.subject.model
        with model.head() as module, self._watch(part, module):
            for batch in range(sums.batches(part), len(self._batches)):
                for rows in states.get(batch).flatten(0, 1).split(LOGIT_ROWS):
                    model.logits(rows)
                sums.add(part, batch, self._seen(part, batch))
                self._work.check()
                if self._saver.due or batch + 1 == len(self._batches):
                    with self._saver.saving(self._saved(part + (batch + 1 == len(self._batches)))):
                        sums.commit()
                self._passed(part, len(self._batches[batch]))

    def _saved(self, parts: int) -> Saved:
        return Saved(done=parts, total=len(self._prepared.targets), unit="blocks")

    def _passed(self, part: int, windows: int) -> None:
        self._done += windows
        name = "head" if part == self._prepared.blocks else f"block {part + 1} of {self._prepared.blocks}"
        total = len(self._prepared.tokens) * len(self._prepared.targets)
        self._work.listener(Progress("calibrate", self._done, total, "passes", name))

    def _done_before(self, sums: StoredSums, states: HiddenStates) -> int:
        """Passes of a window through a part that were finished in an earlier run."""
        head = (
            sums.batches(self._prepared.blocks) if len(self._prepared.targets) > self._prepared.blocks else 0
        )
        return sum(
            len(batch) * (max(0, states.step(number)) + (number < head))
            for number, batch in enumerate(self._batches)
        )
