"""Perplexity of a model on a text, and its KL divergence from a reference model, as a job to be resumed.

Both models are streamed a block at a time (engine/streaming.py) over the same windows; behind the last block
the hidden states of both lie side by side (engine/states.py), and logits are made and compared a few
positions at a time (engine/scores.py). So no file of logits is written, and no window of logits is ever held.

Units of work: a block × a batch of windows of one model, then the scores of a window. In memory at a time:
one block and a few batches, or the output matrices of both models and a batch of each, whatever the number
of windows.
"""

import hashlib
import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from engine import __version__
from engine.api.jobs import EvaluateRequest, EvaluateResult, Saved
from engine.api.needs import Needs, Speeds
from engine.api.progress import Listener, Progress, silent
from engine.api.report import Report
from engine.estimate import UNMEASURED, evaluate_needs, refuse_memory, refuse_needs
from engine.jobs.folder import Job
from engine.jobs.limits import DiskWatch, MemoryGuard
from engine.jobs.running import Running, Tell, nobody, refuse_changed, run
from engine.measuring import tell_figures
from engine.scores import ALONE, COMPARED, ScoreFile, figures, score
from engine.states import HiddenStates, Saver
from engine.streaming import stream
from engine.subjects import Evaluation, Subject, prepare

log = logging.getLogger(__name__)


def evaluate(
    request: EvaluateRequest, listener: Listener = silent, tell: Tell = nobody, *, replacing: str = ""
) -> EvaluateResult:
    """Run `request` as a new job. Raises `UserError`s; whatever is finished then can be resumed.

    `replacing`: the id of an unfinished job that is given up for this one. What cannot be measured is refused
    before there is a job.
    """
    request = _absolute(request)
    with _prepared(request) as prepared:
        found = _needs(request, prepared, UNMEASURED)
        refuse_needs(found)
        rivals = [Job.find(replacing)] if replacing else []
        job = Job.create(request, None, prepared.fingerprint, rivals, found.least_memory)
        return _run(job, prepared, request, listener, tell)


def foresee(request: EvaluateRequest) -> Needs:
    """What a job of this request would take of the machine. Raises what it would be refused with."""
    with _prepared(request) as prepared:
        return _needs(request, prepared)


def go_on(job: Job, request: EvaluateRequest, listener: Listener, tell: Tell) -> EvaluateResult:
    """Finish a locked job; the figures are as if it had never been broken off. Raises `UserError`s."""
    with _prepared(request) as prepared:
        refuse_changed(job, prepared.fingerprint)
        refuse_memory(_needs(request, prepared, UNMEASURED))
        return _run(job, prepared, request, listener, tell)


def evaluate_files(
    model: Path,
    text: Path,
    reference: Path | None = None,
    protocol: str = "llama.cpp",
    windows: int | None = None,
    listener: Listener = silent,
    threads: int | None = None,
) -> Report:
    """The same without a job: nothing is left where it is broken off. For the arguments see `prepare`."""
    with (
        prepare(model, text, reference, protocol, windows, threads) as prepared,
        tempfile.TemporaryDirectory(prefix="bitwright-", ignore_cleanup_errors=True) as name,
        MemoryGuard(None) as guard,
    ):
        disk = DiskWatch([Path(name)], log.warning)
        work = Running(Job(Path(name)), listener, nobody, guard, disk, prepared.unchanged)
        return measure(work, prepared)


def measure(work: Running, prepared: Evaluation) -> Report:
    """Measure what was prepared, going on behind what the job's journal says is finished.

    The report is the undisturbed one, bit for bit, but for its seconds. Raises `UserError`s.
    """
    torch.set_num_threads(prepared.threads)
    windows, window = prepared.tokens.shape
    positions = prepared.rules.scored(window)
    rows = ALONE if len(prepared.subjects) == 1 else COMPARED
    saver = Saver(work, prepared.unchanged)
    with ScoreFile(saver, f"{prepared.kind}/scores", windows, len(positions), rows) as scores:
        if scores.left:
            _Measuring(saver, prepared, scores, positions).run()
        found = scores.all()
    prepared.unchanged.check()
    sources = [_sha256(subject.checkpoint.files) for subject in prepared.subjects]
    prepared.unchanged.check()
    return _report(prepared, found, sources)


class _Measuring:
    """Scores the windows that are left: streams the subjects one after the other, then compares."""

    def __init__(self, saver: Saver, prepared: Evaluation, scores: ScoreFile, positions: range) -> None:
        self._saver, self._prepared, self._scores, self._positions = saver, prepared, scores, positions
        self._batches = [range(batch.start, batch.stop) for batch in prepared.batches]
        self._wanted = [
            number for number, batch in enumerate(self._batches) if not scores.left.isdisjoint(batch)
        ]
        self._blocks = [subject.model.block_count for subject in prepared.subjects]
        self._total = len(prepared.tokens) * (sum(self._blocks) + 1)
        self._done = 0

    def run(self) -> None:
        with ExitStack() as stack:
            states = [stack.enter_context(self._states(i)) for i in range(len(self._blocks))]
            self._done = self._done_before(states)
            for subject, hidden in zip(self._prepared.subjects, states, strict=True):
                after = partial(self._passed, subject)
                stream(subject.model, self._prepared.tokens, hidden, self._wanted, after)
                hidden.commit()
            for subject in self._prepared.subjects:
                stack.enter_context(subject.model.head())
            for batch in self._wanted:
                self._score(batch, states)

    def _states(self, subject: int) -> HiddenStates:
        model = self._prepared.subjects[subject].model
        name = ("model", "reference")[subject]
        before, total = sum(self._blocks[:subject]), sum(self._blocks)
        return HiddenStates(
            self._saver,
            f"{self._prepared.kind}/{name}",
            f"hidden {name}",
            shape=(self._prepared.tokens.shape[1], model.width),
            batches=[len(batch) for batch in self._batches],
            wanted=self._wanted,
            blocks=model.block_count,
            saved=lambda blocks: Saved(done=before + blocks, total=total, unit="blocks measured"),
        )

    def _score(self, batch: int, states: Sequence[HiddenStates]) -> None:
        hidden = [each.get(batch) for each in states]
        for index, window in enumerate(self._batches[batch]):
            if window in self._scores.left:
                tokens = self._prepared.tokens[window]
                own = [each[index] for each in hidden]
                self._scores.put(window, score(self._prepared.subjects, own, tokens, self._positions))
                self._advance("predictions", 1)

    def _passed(self, subject: Subject, block: int, windows: int) -> None:
        self._advance(f"{subject.path.name}, block {block + 1} of {subject.model.block_count}", windows)

    def _advance(self, item: str, windows: int) -> None:
        self._done += windows
        self._saver.work.listener(Progress("evaluate", self._done, self._total, "passes", item))

    def _done_before(self, states: Sequence[HiddenStates]) -> int:
        """Passes of a window through a block that were finished in an earlier run, and windows scored."""
        done = len(self._prepared.tokens) - len(self._scores.left)
        for each, blocks in zip(states, self._blocks, strict=True):
            for number, batch in enumerate(self._batches):
                passed = max(0, each.step(number)) if number in self._wanted else blocks
                done += passed * len(batch)
        return done


def _absolute(request: EvaluateRequest) -> EvaluateRequest:
    """The request with paths that mean the same from any folder: it may be resumed from another one."""
    paths = {name: getattr(request, name) for name in ("model", "text", "reference")}
    return request.model_copy(
        update={name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    )


def _prepared(request: EvaluateRequest) -> AbstractContextManager[Evaluation]:
    reference = None if request.reference is None else Path(request.reference)
    return prepare(
        Path(request.model), Path(request.text), reference, request.protocol, request.windows, request.threads
    )


def _needs(request: EvaluateRequest, prepared: Evaluation, speeds: Speeds | None = None) -> Needs:
    model, *reference = (subject.checkpoint for subject in prepared.subjects)
    tokens = prepared.tokens.shape
    return evaluate_needs(request, (tokens[0], tokens[1]), model, reference[0] if reference else None, speeds)


def _run(
    job: Job, prepared: Evaluation, request: EvaluateRequest, listener: Listener, tell: Tell
) -> EvaluateResult:
    def work(running: Running) -> EvaluateResult:
        against = "" if request.reference is None else f" against {request.reference}"
        windows, window = prepared.tokens.shape
        log.info("evaluate %s%s on %s", request.model, against, request.text)
        log.info("%d windows of %d tokens, %d threads", windows, window, prepared.threads)
        running.foresee(lambda: {"evaluate": _needs(request, prepared).stages[-1].seconds})
        report = measure(running, prepared)
        tell_figures(running, report)
        return EvaluateResult(
            job=job.id,
            report=report,
            seconds=running.seconds,
            resumed=running.resumed,
            peak_private_bytes=running.guard.peak,
            warnings=running.warnings,
        )

    return run(job, prepared.unchanged, work, listener, tell, request.memory_limit)


def _report(prepared: Evaluation, scores: np.ndarray, sources: list[str]) -> Report:
    """`sources`: the digests of the subjects' weights."""
    model, *reference = prepared.subjects
    windows, window = prepared.tokens.shape
    return Report(
        model=str(model.path),
        architecture=model.checkpoint.architecture,
        model_sha256=sources[0],
        reference=str(reference[0].path) if reference else None,
        reference_sha256=sources[1] if reference else None,
        text=str(prepared.text),
        text_sha256=prepared.text_sha256,
        protocol=prepared.rules.name,
        window=window,
        windows=windows,
        tokens=scores.size,
        device="cpu",
        version=__version__,
        torch=version("torch"),
        transformers=version("transformers"),
        notes=prepared.notes,
        seconds=time.perf_counter() - prepared.started,
        **figures(scores),
    )


def _sha256(files: list[Path]) -> str:
    """Of one file its own; of several that of the lines that `sha256sum` prints for them, sorted by name."""
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
