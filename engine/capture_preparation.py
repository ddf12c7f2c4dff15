"""What is run through a model to look at what flows through it: opened, found to fit, cut into windows."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from engine.api.activations import Ran
from engine.api.errors import CalibrationError
from engine.api.jobs import ActivationsRequest
from engine.architectures import architecture_of
from engine.calibration.collecting import Target, block_targets
from engine.calibration.flows import Batch
from engine.calibration.texts import all_windows, chosen_windows, protocol, read_texts
from engine.calibration.windows import tokenize
from engine.jobs.fingerprint import Unchanged, digest, fingerprint
from engine.measuring import MEASURING_LIBRARIES
from engine.subjects import Subject, opened_subject, refuse_length
from resources import CALIBRATION_TEXT

SAMPLE_BYTES = 256 << 20
"""Of the samples for percentiles, of one block at a time."""

FEWEST_SAMPLED, MOST_SAMPLED = 1000, 1 << 14
"""Tokens of a sample, whatever the block's width."""

MOST_WHOLE = 256 << 20
"""Bytes of all inputs of a prompt that are kept as they are."""

ENDING = ".activations"
"""Of the names of files."""

VERSION = 4
"""Of what is gathered: files of another are made anew."""


@dataclass
class Capture:
    """What is to be run: `tokens` int64 [windows, length] through the model, and where to look.

    `targets`: of each block. `files`: of texts that were read.
    """

    subject: Subject
    ran: Ran
    tokens: np.ndarray
    targets: list[list[Target]]
    files: list[Path]
    threads: int
    unchanged: Unchanged

    @property
    def blocks(self) -> int:
        return self.subject.model.block_count

    @cached_property
    def batches(self) -> list[Batch]:
        length = self.tokens.shape[1]
        return [
            Batch(
                part.start,
                part.stop - part.start,
                length,
                f"{self.subject.path}, windows {part.start + 1} to {part.stop}",
            )
            for part in self.subject.model.batches(*self.tokens.shape)
        ]

    @cached_property
    def room(self) -> int:
        """Tokens that a sample has room for."""
        widths = [sum(target.columns for target in targets) for targets in self.targets]
        fit = SAMPLE_BYTES // (4 * (max(widths) + self.subject.model.width))
        return max(FEWEST_SAMPLED, min(MOST_SAMPLED, fit))

    @property
    def whole_bytes(self) -> int:
        """What all inputs take as they are, if each token passes each matrix once."""
        widths = [self.subject.model.width + sum(one.columns for one in block) for block in self.targets]
        return 4 * self.tokens.size * sum(widths)

    @property
    def whole(self) -> bool:
        """Whether the inputs themselves are kept: those of a prompt, which one looks at token by token."""
        return bool(self.ran.prompt) and self.whole_bytes <= MOST_WHOLE

    @cached_property
    def facts(self) -> dict[str, str]:
        """What the figures depend on beside the files of the model."""
        return {
            "text": self.ran.model_dump_json(exclude={"state"}),  # the files count themselves
            "tokenizer": digest(self.tokens.tobytes()),
            "config": digest(json.dumps(self.subject.config, default=str)),
            "tensors": digest(repr(self.targets)),
            "statistics": str(VERSION),
        }

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """All that their bits depend on."""
        libraries = ("numpy", "numba", "gguf", *MEASURING_LIBRARIES)
        return fingerprint(self.subject.checkpoint.files, self.facts, self.threads, libraries)

    @cached_property
    def kind(self) -> str:
        """What the names of its units begin with."""
        return f"activations {digest(json.dumps(self.fingerprint, sort_keys=True))[:12]}"

    @cached_property
    def cache(self) -> Path:
        """Where the file lies that nobody gave a name."""
        known = fingerprint(self.subject.checkpoint.files, self.facts, 0, ())
        known = {key: value for key, value in known.items() if key != "processor"}
        return cache_folder() / f"{digest(json.dumps(known, sort_keys=True))[:32]}{ENDING}"

    def output(self, request: ActivationsRequest) -> Path:
        return Path(request.output) if request.output else self.cache


def cache_folder() -> Path:
    """Where files lie that nobody gave a name: under the user's cache folder (`XDG_CACHE_HOME` on Linux)."""
    return user_cache_path("bitwright") / "activations"


def absolute(request: ActivationsRequest) -> ActivationsRequest:
    """The request with paths that mean the same from any folder: it may be resumed from another one."""
    texts = [] if request.prompt else [_path(path) for path in request.texts] or [str(CALIBRATION_TEXT)]
    output = _path(request.output) if request.output else ""
    return request.model_copy(update={"model": _path(request.model), "output": output, "texts": texts})


def _path(path: str) -> str:
    return str(Path(path).absolute())


@contextmanager
def prepared_capture(request: ActivationsRequest) -> Iterator[Capture]:
    """Everything opened, and found to fit, before any weight is read."""
    if request.prompt and not request.prompt.strip():
        raise CalibrationError("The prompt is empty: type a text.")
    with opened_subject(Path(request.model)) as subject:
        tokens, ran, files = _prompt(request, subject) if request.prompt else _windows(request, subject)
        refuse_length(subject, tokens.shape[1])
        model = subject.model
        model.run_experts_one_by_one()
        yield Capture(
            subject=subject,
            ran=ran,
            tokens=tokens,
            targets=block_targets(architecture_of(subject.checkpoint), model.config, model.blocks),
            files=files,
            threads=request.threads or len(os.sched_getaffinity(0)),
            unchanged=Unchanged(subject.checkpoint.files),
        )


def _windows(request: ActivationsRequest, subject: Subject) -> tuple[np.ndarray, Ran, list[Path]]:
    texts = read_texts([Path(path) for path in request.texts])
    each = all_windows(subject.tokenizer, texts, request.length)
    tokens = chosen_windows(each, request.windows, request.seed)
    ran = Ran(
        model=request.model,
        files=[str(file) for file in texts.files],
        windows=len(tokens),
        windows_there=sum(len(windows) for windows in each),
        length=request.length,
        seed=request.seed,
        state=subject.checkpoint.state,
        notes=texts.notes,
    )
    return tokens, ran, texts.files


def _prompt(request: ActivationsRequest, subject: Subject) -> tuple[np.ndarray, Ran, list[Path]]:
    """One window of the prompt's own tokens, behind BOS where the model wants it."""
    tokens = np.array([tokenize(subject.tokenizer, request.prompt, protocol(request.length))], np.int64)
    length = tokens.shape[1]
    if not length:
        raise CalibrationError("The prompt has no token: type a text.")
    ran = Ran(
        model=request.model,
        files=[],
        prompt=request.prompt,
        pieces=[subject.tokenizer.text_of(int(token)) for token in tokens[0]],
        windows=1,
        windows_there=1,
        length=length,
        seed=request.seed,
        state=subject.checkpoint.state,
    )
    return tokens, ran, []
