"""Models to be measured and the text to measure them on: opened, found to belong together, cut into windows.

Everything that cannot be measured is refused here, before any weight is read and before there is a job.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.api.errors import CalibrationError, EvaluationError
from engine.architectures import transformers_view
from engine.calibration.windows import Protocol, cut, protocol_named, read_text, tokenize
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import MissingTensorError
from engine.jobs.fingerprint import Unchanged, digest, fingerprint
from engine.measuring import MEASURING_LIBRARIES
from engine.states import HiddenStates
from engine.streaming import StreamedModel
from engine.tokenizer import Tokenizer, load_tokenizer

PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}


class TokenizersDifferError(EvaluationError):
    """Model and reference split the text into different tokens."""


class PackedWeightsError(EvaluationError):
    """A checkpoint whose weights another quantizer has packed."""


@dataclass
class Subject:
    """One of the models that are measured, opened: nothing but headers and tokenizer read yet."""

    path: Path
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    model: StreamedModel
    config: dict
    context: int | None
    rotary: bool


@dataclass
class Evaluation:
    """What is to be measured: the model and, if there is one, its reference, on the `tokens` of a text.

    `tokens`: int64 [windows, window]. `asked`: the most windows, None: all.
    """

    subjects: list[Subject]
    rules: Protocol
    text: Path
    text_sha256: str
    tokens: np.ndarray
    asked: int | None
    threads: int
    unchanged: Unchanged
    started: float

    @property
    def files(self) -> list[Path]:
        """The files of weights that it reads."""
        return _files(self.subjects)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """All that the report's bits depend on."""
        facts = {
            "text": self.text_sha256,
            "tokenizer": digest(self.tokens.tobytes()),
            "config": digest(json.dumps([subject.config for subject in self.subjects], default=str)),
            "models": " ".join(str(subject.path) for subject in self.subjects),
            "protocol": self.rules.name,
            "windows": str(len(self.tokens)),
        }
        return fingerprint(self.files, facts, self.threads, ("numpy", "gguf", *MEASURING_LIBRARIES))

    @cached_property
    def kind(self) -> str:
        """What the names of its units begin with: none of another fingerprint is ever taken for its own."""
        return f"measure {digest(json.dumps(self.fingerprint, sort_keys=True))[:12]}"

    @property
    def batches(self) -> list[slice]:
        """The batches of windows, the same for all subjects."""
        return list(self.subjects[0].model.batches(*self.tokens.shape))

    @property
    def disk(self) -> int:
        """Bytes that the hidden states take on the disk."""
        sizes = [batch.stop - batch.start for batch in self.batches]
        length = self.tokens.shape[1]
        return sum(HiddenStates.disk((length, subject.model.width), sizes) for subject in self.subjects)

    @property
    def notes(self) -> list[str]:
        """Sentences that the figures must be read with."""
        windows, window = self.tokens.shape
        notes = [f"{self.rules.name}: {self.rules.summary}."]
        if self.asked is not None and windows < self.asked:
            notes.append(f"The text has {windows} full windows; {self.asked} were asked for.")
        for subject in self.subjects:
            notes += subject.tokenizer.notes
            if subject.context is not None and window > subject.context:
                notes.append(
                    f"{subject.path} was made for {subject.context} tokens; windows of {window} go beyond."
                )
            types = {tensor.dtype for tensor in subject.checkpoint.tensors.values()} - PLAIN_TYPES
            if subject.checkpoint.kind == "gguf" and types:
                notes.append(
                    f"{subject.path} is quantized: the figures are the loss of its weights, dequantized "
                    "exactly; llama.cpp also rounds activations to 8 bits when it runs the file, so its own "
                    "figures differ a little."
                )
        return notes


@contextmanager
def prepare(
    model: Path,
    text: Path,
    reference: Path | None = None,
    protocol: str = "llama.cpp",
    windows: int | None = None,
    threads: int | None = None,
    pre_tokenizer: str | None = None,
) -> Iterator[Evaluation]:
    """Open `model`, and a `reference`, to be measured on at most `windows` windows of `text`.

    `protocol` is one of `engine.calibration.windows.PROTOCOLS`; `threads` None: one for each core.
    `pre_tokenizer` is the user's name for how a folder's tokenizer splits text. Raises
    EvaluationError for what cannot be measured, CheckpointError, TokenizerError or ExportError (unknown
    architecture) for what cannot be read.
    """
    started = time.perf_counter()
    if windows is not None and windows < 1:
        raise EvaluationError(f"{windows} windows cannot be measured: ask for at least 1.")
    rules = protocol_named(protocol)
    content = read_text(text)
    with ExitStack() as stack:
        subjects = [
            stack.enter_context(opened_subject(path, pre_tokenizer))
            for path in (model, reference)
            if path is not None
        ]
        unchanged = Unchanged(_files(subjects))
        ids = _tokens(subjects, content, rules)
        window = min(rules.window(subject.context, subject.rotary) for subject in subjects)
        yield Evaluation(
            subjects=subjects,
            rules=rules,
            text=text,
            text_sha256=digest(content),
            tokens=cut(subjects[0].tokenizer, ids, rules, window, text, windows),
            asked=windows,
            threads=threads or len(os.sched_getaffinity(0)),
            unchanged=unchanged,
            started=started,
        )


@contextmanager
def opened_subject(path: Path, pre_tokenizer: str | None = None) -> Iterator[Subject]:
    """The model at `path`, open while the context lasts. Raises as `prepare` does."""
    with open_checkpoint(path) as checkpoint:
        yield _subject(path, checkpoint, pre_tokenizer)


def refuse_length(subject: Subject, length: int) -> None:
    """Raise a `CalibrationError` where windows of `length` tokens cannot run at all."""
    if subject.context is not None and length > subject.context and not subject.rotary:
        raise CalibrationError(
            f"{subject.path} has positions for {subject.context:,} tokens; windows of {length:,} do not fit: "
            "take shorter ones (--length)."
        )


def _subject(path: Path, checkpoint: Checkpoint, pre_tokenizer: str | None) -> Subject:
    view = transformers_view(checkpoint)
    tokenizer = load_tokenizer(checkpoint, pre_tokenizer)
    try:
        model = StreamedModel(view, str(path))
    except MissingTensorError as error:
        if checkpoint.quantization is None:
            raise
        raise PackedWeightsError(
            f"{path} is quantized already ({checkpoint.quantization}) in a layout that Bitwright does not "
            "unpack: measure the original model, or a GGUF file of it."
        ) from error
    if tokenizer.size > model.vocabulary:
        raise EvaluationError(
            f"{path}: the tokenizer has {tokenizer.size:,} tokens, the model knows {model.vocabulary:,}; "
            "they do not belong together."
        )
    context = getattr(view.config, "max_position_embeddings", None)
    rotary = getattr(view.config, "rope_parameters", None) is not None
    return Subject(path, checkpoint, tokenizer, model, view.config.to_dict(), context, rotary)


def _files(subjects: list[Subject]) -> list[Path]:
    return [file for subject in subjects for file in subject.checkpoint.files]


def _tokens(subjects: list[Subject], text: str, rules: Protocol) -> list[int]:
    """The ids of the text, which all subjects must agree on."""
    first, *others = subjects
    ids = tokenize(first.tokenizer, text, rules)
    for other in others:
        if tokenize(other.tokenizer, text, rules) != ids or other.model.vocabulary != first.model.vocabulary:
            raise TokenizersDifferError(
                f"{first.path} and {other.path} do not share a tokenizer ({first.model.vocabulary:,} and "
                f"{other.model.vocabulary:,} tokens): the text splits differently, so their predictions "
                "cannot be compared."
            )
    return ids
