"""What predictions are worth, kept in a file window by window, and the figures made of it all.

The log-softmax of each position, its KL divergence and all means are float64. Figures are always made of the
whole file, in the order of the windows, whoever has scored them when: so a resumed measurement says the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.api.errors import EvaluationError
from engine.api.jobs import Saved
from engine.jobs.units import UnitFile
from engine.states import Saver
from engine.streaming import StreamedModel

CHUNK_LOGITS = 1 << 23
"""Logits of one model that are held at a time: 64 positions of a vocabulary of 128k, 64 MiB in float64."""

LARGEST_CHUNK = 256
"""Positions in one product with the output matrix; more make it no faster."""

ALONE = np.dtype([("nll", np.float64)])
"""Of one position the negative log-likelihood, in nats, of the token that follows."""

COMPARED = np.dtype([*ALONE.descr, ("reference_nll", np.float64), ("kl", np.float64), ("same_top", np.bool_)])
"""With a reference also that one's, KL divergence from it, and whether the likeliest token is the same."""


class NotFiniteError(EvaluationError):
    """A forward pass that gives NaN or infinite logits."""


class Scored(Protocol):
    """What `score` has to know of a model."""

    path: Path
    model: StreamedModel


class ScoreFile:
    """Scores of `windows` windows, `positions` (of `rows`, a dtype) each: those that are done already, too.

    `kind` begins the names of units. Close it by `with`. Raises `OutputError`.
    """

    def __init__(self, saver: Saver, kind: str, windows: int, positions: int, rows: np.dtype) -> None:
        self._saver, self._kind, self._total = saver, kind, windows
        self._rows, self._size = rows, positions * rows.itemsize
        self._positions = positions
        work = saver.work
        path = work.work_folder / "scores"
        name = f"{path.parent.name}/{path.name}"
        self._file = UnitFile(path, windows * self._size, work.job.journal, name)
        places = {self._unit(window): (window * self._size, self._size) for window in range(windows)}
        try:
            done = self._file.finished(places, work.listener)
        except BaseException:
            self._file.close()
            raise
        self.left = {window for window in range(windows) if self._unit(window) not in done}

    def __enter__(self) -> "ScoreFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, window: int, scores: np.ndarray) -> None:
        """Take the scores of one window. Raises `UserError`s where memory or disk run short."""
        self._file.write(self._unit(window), window * self._size, [scores.data.cast("B")])
        self.left.discard(window)
        self._saver.work.check()
        if self._saver.due or not self.left:
            self._commit()

    def all(self) -> np.ndarray:
        """The scores of all windows, one behind the other; none may be left."""
        scores = np.empty(self._total * self._positions, self._rows)
        self._file.read(0, scores.data.cast("B"))
        return scores

    def _commit(self) -> None:
        saved = Saved(done=self._total - len(self.left), total=self._total, unit="windows scored")
        with self._saver.saving(saved):
            self._file.commit(saved)

    def _unit(self, window: int) -> str:
        return f"{self._kind}/{window}"


def score(
    subjects: Sequence[Scored], hidden: Sequence[torch.Tensor], tokens: np.ndarray, positions: range
) -> np.ndarray:
    """The scores [positions] of one window's `positions`, of type ALONE or, with a reference, COMPARED.

    `subjects`: the model and, if there is one, the reference, with their heads loaded; `hidden`: for each
    float32 [window, width]; `tokens`: int64 [window]. Raises NotFiniteError.
    """
    scores = np.empty(len(positions), ALONE if len(subjects) == 1 else COMPARED)
    for chunk in _chunks(positions, subjects[0].model.vocabulary):
        targets = torch.from_numpy(tokens[chunk.start + 1 : chunk.stop + 1, None])
        log_p = [
            _log_softmax(subject, states[chunk.start : chunk.stop])
            for subject, states in zip(subjects, hidden, strict=True)
        ]
        rows = scores[chunk.start - positions.start : chunk.stop - positions.start]
        rows["nll"] = -log_p[0].gather(1, targets)[:, 0].numpy()
        if len(log_p) == 2:
            model, reference = log_p
            rows["reference_nll"] = -reference.gather(1, targets)[:, 0].numpy()
            rows["kl"] = (reference.exp() * (reference - model)).sum(1).numpy()
            rows["same_top"] = (reference.argmax(1) == model.argmax(1)).numpy()
    return scores


def figures(scores: np.ndarray) -> dict[str, float]:
    """A report's figures from the scores of all windows."""
    perplexity, error = _perplexity(_column(scores, "nll"))
    found = {"perplexity": perplexity, "perplexity_error": error}
    if scores.dtype == ALONE:
        return found
    perplexity, error = _perplexity(_column(scores, "reference_nll"))
    kl = _column(scores, "kl")
    median, p90, p99, p999 = np.quantile(kl, (0.5, 0.9, 0.99, 0.999)).tolist()
    return found | {
        "reference_perplexity": perplexity,
        "reference_perplexity_error": error,
        "kl_mean": float(kl.mean()),
        "kl_error": _standard_error(kl),
        "kl_median": median,
        "kl_p90": p90,
        "kl_p99": p99,
        "kl_p999": p999,
        "kl_max": float(kl.max()),
        "top1_agreement": float(_column(scores, "same_top").mean()),
    }


def _chunks(positions: range, vocabulary: int) -> Iterator[range]:
    size = min(LARGEST_CHUNK, max(1, CHUNK_LOGITS // vocabulary))
    for start in range(positions.start, positions.stop, size):
        yield range(start, min(start + size, positions.stop))


def _log_softmax(subject: Scored, hidden: torch.Tensor) -> torch.Tensor:
    """float64 [positions, vocabulary] for float32 [positions, width]. Raises NotFiniteError."""
    logits = subject.model.logits(hidden).double()
    if not logits.sum().isfinite():  # finite float32 values cannot overflow a float64 sum
        raise NotFiniteError(
            f"{subject.path} predicts values that are not finite: "
            "its weights, or what quantized them, are broken."
        )
    return torch.log_softmax(logits, dim=1)


def _column(scores: np.ndarray, name: str) -> np.ndarray:
    """Contiguous: numpy adds up other arrays in another order."""
    return np.ascontiguousarray(scores[name])


def _perplexity(nll: np.ndarray) -> tuple[float, float]:
    """exp of the mean, and its standard error to first order, as llama-perplexity prints them."""
    perplexity = float(np.exp(nll.mean()))
    return perplexity, perplexity * _standard_error(nll)


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values; 0 for a single one, which tells nothing of its spread."""
    return float(values.std() / np.sqrt(values.size - 1)) if values.size > 1 else 0.0
