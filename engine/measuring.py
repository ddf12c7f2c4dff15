"""What a quantize job measures when its file stands: the loss against the source, by `engine.evaluate`."""

from pathlib import Path

from engine.api.jobs import Measure
from engine.api.progress import Listener, Progress
from engine.api.report import Report
from engine.calibration.windows import cut, protocol_named, read_text, tokenize
from engine.checkpoint import Checkpoint
from engine.tokenizer import load_tokenizer

FIRST_CHARACTERS = 1 << 14
"""Of a text, looked at first: many a window's worth, so a long text is not tokenized twice as a whole."""


def measure(asked: Measure, output: Path, source: Path, threads: int | None, listener: Listener) -> Report:
    """How far `output` is from `source`. Raises `UserError`s."""
    listener(Progress("load model code", 0, 1, "steps"))
    import torch

    from engine.evaluate import evaluate

    if threads is not None:
        torch.set_num_threads(threads)
    listener(Progress("load model code", 1, 1, "steps"))
    return evaluate(output, Path(asked.text), source, asked.protocol, asked.windows, listener)


def refuse_text(asked: Measure, checkpoint: Checkpoint) -> None:
    """Raise the error that `measure` would end with at once: no such text, or shorter than one window.

    Raises EvaluationError, or TokenizerError where the model has none.
    """
    rules = protocol_named(asked.protocol)
    text = read_text(Path(asked.text))
    tokenizer = load_tokenizer(checkpoint)
    window = rules.window(_context(checkpoint), rotary=True)
    length = FIRST_CHARACTERS
    ids = tokenize(tokenizer, text[:length], rules)
    while len(ids) < window and length < len(text):
        length *= 8
        ids = tokenize(tokenizer, text[:length], rules)
    cut(tokenizer, ids, rules, window, Path(asked.text), 1)


def _context(checkpoint: Checkpoint) -> int | None:
    """The tokens that the model was made for, as its config or metadata say, if they do."""
    if checkpoint.kind == "gguf":
        stated = checkpoint.metadata.get(f"{checkpoint.architecture}.context_length")
        value = stated.value if stated else None
    else:
        value = (checkpoint.config or {}).get("max_position_embeddings")
    return value if isinstance(value, int) and value > 0 else None
