"""Perplexity of a model on a text, and its KL divergence from a reference model.

Both models are streamed a block at a time (engine/streaming.py) over the same windows; behind the last block
the hidden states of both lie side by side, and logits are made and compared a few positions at a time. So no
file of logits is written, and no window of logits is ever held.

Sums: the log-softmax of each position, its KL divergence and all means are float64, in a fixed order.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from engine import __version__
from engine.api.errors import EvaluationError
from engine.api.progress import Listener, Progress, silent
from engine.api.report import Report
from engine.architectures import transformers_view
from engine.calibration.windows import Protocol, cut, protocol_named, read_text, tokenize
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import MissingTensorError
from engine.streaming import StreamedModel, stream
from engine.tokenizer import Tokenizer, load_tokenizer

CHUNK_LOGITS = 1 << 23
"""Logits of one model that are held at a time: 64 positions of a vocabulary of 128k, 64 MiB in float64."""

LARGEST_CHUNK = 256
"""Positions in one product with the output matrix; more make it no faster."""

PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}


class TokenizersDifferError(EvaluationError):
    """Model and reference split the text into different tokens."""


class PackedWeightsError(EvaluationError):
    """A checkpoint whose weights another quantizer has packed."""


class NotFiniteError(EvaluationError):
    """A forward pass that gives NaN or infinite logits."""


@dataclass
class Subject:
    """One of the models that are measured, opened: nothing but headers and tokenizer read yet."""

    path: Path
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    model: StreamedModel
    context: int | None
    rotary: bool


def evaluate(
    model: Path,
    text: Path,
    reference: Path | None = None,
    protocol: str = "llama.cpp",
    windows: int | None = None,
    listener: Listener = silent,
) -> Report:
    """Measures `model`, and with `reference` how far it is from that, on at most `windows` windows of `text`.

    `protocol` is one of `engine.calibration.windows.PROTOCOLS`. Raises EvaluationError for what cannot be
    measured, CheckpointError, TokenizerError or ExportError (unknown architecture) for what cannot be read.
    """
    start = time.perf_counter()
    rules = _protocol(protocol, windows)
    content = read_text(text)
    with ExitStack() as stack:
        subjects = [_open(stack, path) for path in (model, reference) if path is not None]
        ids = _tokens(subjects, content, rules)
        window = min(rules.window(subject.context, subject.rotary) for subject in subjects)
        tokens = cut(subjects[0].tokenizer, ids, rules, window, text, windows)
        columns = _measure(subjects, tokens, rules, listener)
        notes = [f"{rules.name}: {rules.summary}.", *_notes(subjects, windows, tokens)]
        sources = [_sha256(subject.checkpoint.files) for subject in subjects]
    return Report(
        model=str(model),
        architecture=subjects[0].checkpoint.architecture,
        model_sha256=sources[0],
        reference=None if reference is None else str(reference),
        reference_sha256=None if reference is None else sources[1],
        text=str(text),
        text_sha256=_sha256([text]),
        protocol=rules.name,
        window=window,
        windows=len(tokens),
        tokens=columns[0].size,
        device="cpu",
        version=__version__,
        torch=version("torch"),
        transformers=version("transformers"),
        notes=notes,
        seconds=time.perf_counter() - start,
        **_figures(*columns),
    )


def _protocol(name: str, windows: int | None) -> Protocol:
    if windows is not None and windows < 1:
        raise EvaluationError(f"{windows} windows cannot be measured: ask for at least 1.")
    return protocol_named(name)


def _open(stack: ExitStack, path: Path) -> Subject:
    checkpoint = stack.enter_context(open_checkpoint(path))
    view = transformers_view(checkpoint)
    tokenizer = load_tokenizer(checkpoint)
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
    return Subject(path, checkpoint, tokenizer, model, context, rotary)


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


def _measure(
    subjects: list[Subject], tokens: np.ndarray, rules: Protocol, listener: Listener
) -> list[np.ndarray]:
    """Streams the subjects one after the other, then scores: `_score`'s columns for all windows.

    `tokens`: int64 [windows, window]. Holds the output matrices of both models at the end.
    """
    total = len(tokens) * (sum(subject.model.block_count for subject in subjects) + 1)
    done = 0

    def advance(item: str, windows: int) -> None:
        nonlocal done
        done += windows
        listener(Progress("evaluate", done, total, "blocks", item))

    def follow(subject: Subject) -> Callable[[int, int], None]:
        def after(block: int, windows: int) -> None:
            advance(f"{subject.path.name}, block {block + 1} of {subject.model.block_count}", windows)

        return after

    hidden = [stream(subject.model, tokens, follow(subject)) for subject in subjects]
    parts: list[tuple[np.ndarray, ...]] = []
    with ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(subject.model.head())
        for index in range(len(tokens)):
            parts += _score(subjects, [states[index] for states in hidden], tokens[index], rules)
            advance("predictions", 1)
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _score(
    subjects: list[Subject], hidden: list[torch.Tensor], tokens: np.ndarray, rules: Protocol
) -> Iterator[tuple[np.ndarray, ...]]:
    """For each chunk of a window's scored positions a tuple of columns, in nats.

    float64 negative log-likelihoods of the model and, with a reference, of that, then KL divergences from it,
    and (bool) whether the likeliest token is the same. `tokens`: int64 [window]; `hidden`: for each subject
    float32 [window, width].
    """
    for positions in _chunks(rules.scored(len(tokens)), subjects[0].model.vocabulary):
        targets = torch.from_numpy(tokens[positions.start + 1 : positions.stop + 1, None])
        log_p = [
            _log_softmax(subject, states[positions.start : positions.stop])
            for subject, states in zip(subjects, hidden, strict=True)
        ]
        columns = [-values.gather(1, targets)[:, 0] for values in log_p]
        if len(log_p) == 2:
            model, reference = log_p
            columns += [
                (reference.exp() * (reference - model)).sum(1),
                reference.argmax(1) == model.argmax(1),
            ]
        yield tuple(column.numpy() for column in columns)


def _chunks(positions: range, vocabulary: int) -> Iterator[range]:
    size = min(LARGEST_CHUNK, max(1, CHUNK_LOGITS // vocabulary))
    for start in range(positions.start, positions.stop, size):
        yield range(start, min(start + size, positions.stop))


def _log_softmax(subject: Subject, hidden: torch.Tensor) -> torch.Tensor:
    """float64 [positions, vocabulary] for float32 [positions, width]. Raises NotFiniteError."""
    logits = subject.model.logits(hidden).double()
    if not logits.sum().isfinite():  # finite float32 values cannot overflow a float64 sum
        raise NotFiniteError(
            f"{subject.path} predicts values that are not finite: "
            "its weights, or what quantized them, are broken."
        )
    return torch.log_softmax(logits, dim=1)


def _figures(nll: np.ndarray, *against: np.ndarray) -> dict[str, float]:
    """The report's figures from the columns that `_score` describes."""
    perplexity, error = _perplexity(nll)
    figures = {"perplexity": perplexity, "perplexity_error": error}
    if not against:
        return figures
    reference_nll, kl, same_top = against
    perplexity, error = _perplexity(reference_nll)
    median, p90, p99, p999 = np.quantile(kl, (0.5, 0.9, 0.99, 0.999)).tolist()
    return figures | {
        "reference_perplexity": perplexity,
        "reference_perplexity_error": error,
        "kl_mean": float(kl.mean()),
        "kl_error": _standard_error(kl),
        "kl_median": median,
        "kl_p90": p90,
        "kl_p99": p99,
        "kl_p999": p999,
        "kl_max": float(kl.max()),
        "top1_agreement": float(same_top.mean()),
    }


def _perplexity(nll: np.ndarray) -> tuple[float, float]:
    """exp of the mean, and its standard error to first order, as llama-perplexity prints them."""
    perplexity = float(np.exp(nll.mean()))
    return perplexity, perplexity * _standard_error(nll)


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values; 0 for a single one, which tells nothing of its spread."""
    return float(values.std() / np.sqrt(values.size - 1)) if values.size > 1 else 0.0


def _notes(subjects: list[Subject], asked: int | None, tokens: np.ndarray) -> list[str]:
    windows, window = tokens.shape
    notes = []
    if asked is not None and windows < asked:
        notes.append(f"The text has {windows} full windows; {asked} were asked for.")
    for subject in subjects:
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
