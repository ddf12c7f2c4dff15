"""What came of a job, in words and figures, before it is laid out."""

from dataclasses import dataclass
from pathlib import Path

from app.ending import saved_sentence
from app.job_record import ACTIVE, JobRecord
from engine.api.jobs import (
    ActivationsRequest,
    ActivationsResult,
    CalibrateResult,
    EvaluateRequest,
    EvaluateResult,
    JobResult,
    QuantizeResult,
)
from engine.api.report import Report
from engine.api.tables import csv_text
from engine.api.units import duration, size

TABLE_HEAD = ("", "Before", "After, measured", "Change")


@dataclass(frozen=True)
class Line:
    """A line of the table; `exact` are before and after as they are, for tool tips and the CSV."""

    name: str
    before: str
    after: str
    change: str
    exact: tuple[float | None, float]


def table_of(result: JobResult) -> list[Line]:
    """Before and after, measured; figures of the loss only where it was measured; none of a calibration."""
    if isinstance(result, CalibrateResult | ActivationsResult):
        return []
    if isinstance(result, EvaluateResult):
        return _loss(result.report)
    sizes, bits = (result.source_bytes, result.bytes), (result.source_bpw, result.bpw)
    lines = [
        Line("Size", size(sizes[0]), size(sizes[1]), _shrunk(result), sizes),
        Line("Bits per weight", f"{bits[0]:.3g}", f"{bits[1]:.3g}", "", bits),
    ]
    return lines + (_loss(result.report) if result.report else [])


def _shrunk(result: QuantizeResult) -> str:
    """ "3.12 × smaller"; a file that was quantized already may grow."""
    ratio = result.source_bytes / result.bytes
    return f"{ratio:.3g} × smaller" if ratio >= 1 else f"{1 / ratio:.3g} × larger"


def _loss(report: Report) -> list[Line]:
    before = report.reference_perplexity
    change = "" if before is None else f"{100 * (report.perplexity / before - 1):+.2g} %".replace("-", "−")
    lines = [
        Line(
            "Perplexity",
            _with_error(before, report.reference_perplexity_error),
            _with_error(report.perplexity, report.perplexity_error),
            change,
            (before, report.perplexity),
        )
    ]
    divergences = (
        ("KL divergence, mean (nats)", report.kl_mean, report.kl_error),
        ("KL divergence, 99th percentile (nats)", report.kl_p99, None),
    )
    for name, value, error in divergences:
        if value is not None:
            lines.append(Line(name, "0", _with_error(value, error), "", (0.0, value)))
    if report.top1_agreement is not None:
        share = f"{100 * report.top1_agreement:.3g} %"
        lines.append(Line("Same next token", "100 %", share, "", (1.0, report.top1_agreement)))
    return lines


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g} ± {error:.1g}" if error else f"{value:.3g}"


def csv_of(result: JobResult) -> str:
    """The table as CSV, figures not rounded."""
    return csv_text(("figure", "before", "after"), ((line.name, *line.exact) for line in table_of(result)))


def outputs(record: JobRecord) -> list[str]:
    """The paths of the files that a job has written, all of a split output, or is to write."""
    result = record.result if record.state == "done" else None
    files = result.files if isinstance(result, QuantizeResult) else []
    return files or ([record.output] if record.output else [])


def headline(record: JobRecord) -> str:
    """The whole in one sentence."""
    gathers = isinstance(record.request, ActivationsRequest)
    name = record.title if gathers else Path(record.output).name or record.title
    evaluates = isinstance(record.request, EvaluateRequest)
    match record.state:
        case "done":
            return _success(name, record.result)
        case "failed":
            return f"{name} failed" if evaluates or gathers else f"{name} could not be written"
        case "interrupted":
            return f"{name} is not finished: the job was interrupted"
        case "replaced":
            return f"{name}: another job started over on it"
        case "unreadable":
            return "The folder of this job is damaged"
        case "waiting" | "kept":
            return f"{name} has not begun"
        case "removing":
            return f"{name} is being removed"
        case _:
            doing = "measured" if evaluates else "gathered" if gathers else "written"
            return f"{name} {'are' if gathers else 'is'} being {doing}"


def _success(name: str, result: JobResult | None) -> str:
    if result is None:
        return f"{name} is written"
    if isinstance(result, EvaluateResult):
        measured = Path(result.report.model).name
        return f"{measured}: perplexity {result.report.perplexity:.3g}{_agreement(result.report)}"
    if isinstance(result, ActivationsResult):
        return f"{name}: {result.layers} layers, {result.ran.tokens:,} tokens"
    if isinstance(result, CalibrateResult):
        return f"{name}: the importance of {result.tensors} tensors, from {result.tokens:,} tokens"
    return f"{name}: {_shrunk(result)}{_agreement(result.report)}"


def _agreement(report: Report | None) -> str:
    share = report.top1_agreement if report else None
    return "" if share is None else f", the same next token in {100 * share:.3g} %"


def story(record: JobRecord) -> str:
    """Below the headline: what happened, what it means, what to do."""
    if record.state == "done" and record.result is not None:
        result = record.result
        began = "Since it was resumed it" if result.resumed else "It"
        peak = size(result.peak_private_bytes)
        took = f"{began} took {duration(result.seconds)} and at most {peak} of memory."
        if isinstance(result, EvaluateResult):
            return took
        if isinstance(result, ActivationsResult):
            return f"What was run: {result.ran}. {took if result.job else 'It lay ready.'}"
        if isinstance(result, CalibrateResult):
            return f"Read back and verified, {result.bytes:,} bytes. {took}"
        return f"Read back and verified, {result.bytes:,} bytes as predicted. {took}"
    said = [_sentence(record.message)] if record.message else []
    if record.state in ACTIVE:
        said.append("Its figures are shown here when it is done.")
    elif record.state == "waiting":
        said.append("It waits for the job that runs; the jobs in line begin one after the other.")
    elif record.state == "kept":
        said.append("It waited when Bitwright ended. Start begins it.")
    elif record.remedy == "start again":
        said.append("Start it again: what is saved belongs to another state.")
    elif record.resumable:
        if record.saved and record.saved.done and str(record.saved) not in record.message:
            said.append(saved_sentence(record.saved))
        said.append("Resume goes on from there; the result will be the same as if nothing had happened.")
    elif record.state == "failed":
        said.append("Nothing was written. Mend what the message names, then start it again.")
    return " ".join(said)


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def traces(report: Report) -> list[tuple[str, str, str]]:
    """What the figures were measured on: name, short, exact."""
    predictions = f"{report.windows:,} windows of {report.window} tokens, {report.tokens:,} predictions"
    versions = f"Bitwright {report.version}, torch {report.torch}, transformers {report.transformers}"
    found = [
        (
            "text",
            f"{Path(report.text).name}, {report.text_sha256[:12]}…",
            f"{report.text}\n{report.text_sha256}",
        ),
        ("protocol", f"{report.protocol}, {predictions}", "How the text is cut and what is scored"),
        ("original", _traced(report.reference, report.reference_sha256), report.reference_sha256 or ""),
        ("written", _traced(report.model, report.model_sha256), report.model_sha256),
        ("computed on", f"{report.device}, in {duration(report.seconds)}", ""),
        ("versions", versions, ""),
    ]
    return [(name, shown, exact) for name, shown, exact in found if shown]


def _traced(path: str | None, sha256: str | None) -> str:
    return f"{Path(path).name}, {(sha256 or '')[:12]}…" if path else ""
