"""What a quantize job measures when its file stands: the loss against the source, by `engine.evaluate`.

Imports no torch until then: quantizing does without.
"""

import logging
from pathlib import Path

from engine.api.events import Metric
from engine.api.jobs import Measure
from engine.api.progress import Progress
from engine.api.report import Report
from engine.calibration.windows import BEGINNING, cut, protocol_named, read_text, tokenize
from engine.checkpoint import Checkpoint
from engine.jobs.fingerprint import digest
from engine.jobs.running import Running
from engine.tokenizer import load_tokenizer

MEASURING_LIBRARIES = ("torch", "transformers")
"""What measuring computes with, beside what quantizing does."""

METRICS = {
    "perplexity": "",
    "reference_perplexity": "",
    "kl_mean": "nats",
    "kl_p99": "nats",
    "top1_agreement": "",
}
"""The figures of a report that a job tells at once, with their units."""

log = logging.getLogger(__name__)


def measure(
    work: Running,
    asked: Measure,
    output: Path,
    source: Path,
    threads: int | None,
    pre_tokenizer: str | None = None,
) -> Report:
    """How far `output` is from `source`, as a part of the job at work. Raises `UserError`s.

    `pre_tokenizer` is the name that the output was written with, where the user gave one.
    """
    work.listener(Progress("load model code", 0, 1, "steps"))
    from engine import evaluate
    from engine.subjects import prepare

    work.listener(Progress("load model code", 1, 1, "steps"))
    text = Path(asked.text)
    with prepare(output, text, source, asked.protocol, asked.windows, threads, pre_tokenizer) as prepared:
        return evaluate.measure(work, prepared)


def tell_figures(work: Running, report: Report) -> None:
    """To the log and to whoever listens."""
    for name, unit in METRICS.items():
        value = getattr(report, name)
        if value is not None:
            log.info("%s: %.6g %s", name.replace("_", " "), value, unit)
            work.tell(Metric(name=name, value=value, unit=unit))


def measuring_facts(asked: Measure) -> dict[str, str]:
    """What a fingerprint says of a measurement that is still to come. Raises `EvaluationError`.

    The libraries count when it begins: the units of a measurement carry their own fingerprint.
    """
    return {
        "text": digest(read_text(Path(asked.text))),
        "protocol": asked.protocol,
        "windows": str(asked.windows),
    }


def refuse_text(asked: Measure, checkpoint: Checkpoint) -> None:
    """Raise the error that `measure` would end with at once: no such text, or shorter than one window.

    Raises EvaluationError, or TokenizerError where the model has none.
    """
    rules = protocol_named(asked.protocol)
    text = read_text(Path(asked.text))
    tokenizer = load_tokenizer(checkpoint)
    window = rules.window(_context(checkpoint), rotary=True)
    length = BEGINNING
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
