"""What the terminal shows: progress with rate and ETA, tables, sizes. Nothing of it in a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine.api.formats import FORMATS
from engine.api.model import ModelSummary
from engine.api.plan import Plan
from engine.api.progress import Listener, silent
from engine.api.progress import Progress as Event
from engine.api.report import Report

PIPE_WIDTH = 200
"""Columns where no terminal says how many: a table in a pipe must not be cut to 80."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def size(count: float) -> str:
    """Bytes in decimal units with three significant digits: 812 B, 9.42 MB, 1.07 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


@contextmanager
def progress() -> Iterator[Listener]:
    """A listener that draws one bar a stage on a terminal's stderr, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[item]}", style="dim"),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(event: Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=event.total, item="")
            bars.update(tasks[event.stage], completed=event.done, total=event.total, item=event.item)

        yield listen


def table(*columns: str, left: int = 1) -> Table:
    """An empty table: the first `left` columns to the left, figures to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        if index < left:
            made.add_column(name, overflow="fold")
        else:
            made.add_column(name, justify="right", no_wrap=True)
    return made


def show_model(model: ModelSummary) -> None:
    """The model and its tensors, block by block."""
    tensors = table("tensor", "role", "type", "shape", "size", left=3)
    for tensor in model.tensors:
        shape = " × ".join(f"{length:,}" for length in tensor.shape)
        tensors.add_row(tensor.name, tensor.role.value, tensor.dtype, shape, size(tensor.bytes))
    out.print(tensors)
    show_model_line(model)


def show_model_line(model: ModelSummary) -> None:
    kind = model.architecture or "unknown architecture"
    tied = ", tied embeddings" if model.tied_embeddings else ""
    out.print(
        f"{model.path}: {kind}, {model.parameters:,} parameters in {model.blocks} blocks, "
        f"{size(model.bytes)}{tied}"
    )
    if model.quantization:
        out.print(f"Quantized already: {model.quantization}")
    for part, count in model.others.items():
        out.print(f"Outside the text part: {part}, {count} tensors")
    for note in model.notes:
        out.print(f"Note: {note}")


def show_plan(plan: Plan, predicted: int) -> None:
    """Each tensor's method, format and size, and what the file will take."""
    tensors = table("tensor", "method", "format", "bits", "size", left=3)
    tensors.add_column("note")
    for tensor in plan.tensors:
        bits = f"{8 * tensor.bytes / prod(tensor.shape):.4g}"
        name = tensor.sources[0] if len(tensor.sources) == 1 else tensor.name
        method = "" if FORMATS[tensor.format].exact else tensor.method
        tensors.add_row(name, method, tensor.format, bits, size(tensor.bytes), tensor.note or "")
    out.print(tensors)
    out.print(
        f"Predicted: {predicted:,} bytes ({size(predicted)}), {plan.bits_per_weight:.4g} bits per weight"
    )


def show_report(report: Report) -> None:
    """The figures of a measurement, and what they were measured on."""
    shown = table("", "value", "± error")
    if report.reference_perplexity is not None:
        error = f"{report.reference_perplexity_error:.3f}"
        shown.add_row("perplexity of the reference", f"{report.reference_perplexity:.4f}", error)
    shown.add_row("perplexity", f"{report.perplexity:.4f}", f"{report.perplexity_error:.3f}")
    if report.kl_mean is not None:
        shown.add_row("KL divergence, mean (nats)", f"{report.kl_mean:.6f}", f"{report.kl_error:.6f}")
        shown.add_row("KL divergence, 99th percentile", f"{report.kl_p99:.6f}", "")
        shown.add_row("same top token", f"{100 * (report.top1_agreement or 0):.2f} %", "")
    out.print(shown)
    out.print(
        f"{report.tokens:,} predictions in {report.windows} windows of {report.window} tokens, "
        f"{report.protocol} protocol, {report.seconds:.1f} s"
    )
    for note in report.notes:
        out.print(f"Note: {note}")


def warn(warnings: list[str]) -> None:
    for warning in warnings:
        err.print(f"[yellow]warning:[/] {warning}", markup=True)
