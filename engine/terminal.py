"""What the terminal shows: progress with rate and ETA, tables, sizes. Nothing of it in a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine.api.formats import DEFAULT_METHOD, FORMATS
from engine.api.importance import ImportanceSummary, numbers
from engine.api.jobs import JobSummary
from engine.api.metadata import MetadataEntry
from engine.api.model import ModelSummary
from engine.api.needs import Needs, stage_times
from engine.api.plan import Plan, TensorPlan
from engine.api.preset_sizes import PresetSize
from engine.api.presets import IMPORTANCE_WANTED, PRESETS
from engine.api.progress import Listener
from engine.api.progress import Progress as Event
from engine.api.report import Report
from engine.api.units import done_of, rough, size
from engine.api.wording import printable as printable

SHOWN_LETTERS = 100
"""Of a metadata value, in a table."""

PIPE_WIDTH = 200
"""Columns where no terminal says how many: a table in a pipe must not be cut to 80."""


def _is_terminal(stream: TextIO | None) -> bool:
    """`None` is a stream that was closed before the start."""
    return stream is not None and stream.isatty()


def _console(stream: TextIO | None, *, stderr: bool) -> Console:
    """Names and paths are shown as they are: brackets and colons in them mean nothing."""
    width = None if _is_terminal(stream) else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


out = _console(sys.stdout, stderr=False)
err = _console(sys.stderr, stderr=True)


def say(text: str, style: str | None = None) -> None:
    """A line on stdout."""
    out.print(printable(text), style=style)


def complain(text: str) -> None:
    """A line on stderr."""
    err.print(printable(" ".join(text.split("\n"))))


@contextmanager
def progress() -> Iterator[Listener]:
    """A listener that draws a bar for each stage on a terminal; elsewhere it only says what is compiled."""
    if not _is_terminal(sys.stderr):
        yield _say_compiling
        return
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[item]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(event: Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=event.total, item="", amount="")
            bars.update(
                tasks[event.stage],
                completed=event.done,
                total=event.total,
                item=printable(event.item),
                amount=done_of(event.done, event.total, event.unit),
            )

        yield listen


def _say_compiling(event: Event) -> None:
    """Nobody would expect this wait, not in a log either."""
    if event.stage == "compile encoders" and event.item:
        complain(f"Compiling the encoder of {event.item}, once on this machine: some seconds …")


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
        tensors.add_row(printable(tensor.name), tensor.role.value, tensor.dtype, shape, size(tensor.bytes))
    out.print(tensors)
    show_model_line(model)


def show_model_line(model: ModelSummary) -> None:
    kind = model.architecture or "unknown architecture"
    tied = ", tied embeddings" if model.tied_embeddings else ""
    say(
        f"{model.path}: {kind}, {model.parameters:,} parameters in {model.blocks} blocks, "
        f"{size(model.bytes)}{tied}"
    )
    if model.quantization:
        say(f"Quantized already: {model.quantization}")
    for part, count in model.others.items():
        say(f"Outside the text part: {part}, {count} tensors")
    for note in model.notes:
        say(f"Note: {note}")


def show_metadata(entries: list[MetadataEntry]) -> None:
    """Each key with its type and what of its value a line holds."""
    keys = table("key", "type", "value", left=3)
    for entry in entries:
        text = " ".join(entry.text.split())
        brief = text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "…"
        keys.add_row(printable(entry.key), entry.type.lower(), printable(brief))
    out.print(keys)


def show_plan(plan: Plan, predicted: int) -> None:
    """Each tensor's format and size, the method where it is not the default, and what the file will take."""
    columns = ["tensor", "format", "bits", "size"]
    methods = any(_method(tensor) != DEFAULT_METHOD for tensor in plan.tensors)
    tensors = table(*columns, *(["method"] if methods else []), "", left=2)
    for tensor in plan.tensors:
        bits = f"{8 * tensor.bytes / max(1, prod(tensor.shape)):.4g}"
        name = tensor.sources[0] if len(tensor.sources) == 1 else tensor.name
        changed = "" if tensor.format == tensor.asked or tensor.kept else f"not {tensor.asked}"
        cells = [printable(name), tensor.format, bits, size(tensor.bytes)]
        tensors.add_row(*cells, *([_method(tensor)] if methods else []), changed)
    out.print(tensors)
    kept = sum(tensor.kept and tensor.format == "F32" for tensor in plan.tensors)
    say(f"{kept} small tensors (norms, biases) are kept in F32.")
    say(f"Predicted: {predicted:,} bytes ({size(predicted)}), {plan.bits_per_weight:.4g} bits per weight")


def _method(tensor: TensorPlan) -> str:
    return DEFAULT_METHOD if tensor.copied or FORMATS[tensor.format].exact else tensor.method


def show_presets(found: list[PresetSize], *, importance: bool) -> None:
    """Each preset with the size of the file and its bits, or why it makes none.

    `importance`: whether there is an importance matrix.
    """
    shown = table("preset", "size", "bytes", "bits", "")
    shown.columns[-1].justify = "left"
    for one in found:
        if one.bytes is None or one.bpw is None:
            shown.add_row(one.preset, "", "", "", printable(one.reason or ""))
            continue
        about = PRESETS[one.preset].summary if one.preset in PRESETS else "every tensor as it is stored"
        if one.preset in IMPORTANCE_WANTED and not importance:
            about = f"wants an importance matrix; {about}"
        shown.add_row(one.preset, size(one.bytes), f"{one.bytes:,}", f"{one.bpw:.4g}", about)
    out.print(shown)


def show_needs(needs: Needs) -> None:
    """Memory, disk and time that a run would take, and what there is of them."""
    for line in needs_lines(needs):
        say(line)


def needs_lines(needs: Needs) -> list[str]:
    """One line for memory, each disk, and time."""
    there = [] if needs.memory_available is None else [f"{size(needs.memory_available)} available"]
    there += [] if needs.memory_limit is None else [f"limit {size(needs.memory_limit)}"]
    lines = [f"Memory: about {size(needs.memory)}{_in_brackets(there)}"]
    for disk in needs.disks:
        free = [] if disk.free is None else [f"{size(disk.free)} free"]
        purpose = "" if disk.what == "output" else f" for the {disk.what}"
        lines.append(f"Disk: {size(disk.bytes)}{purpose} in {disk.folder}{_in_brackets(free)}")
    if needs.seconds is None:
        return [*lines, "Time: not known before the encoders are compiled (`bitwright warm-up` does it)"]
    return [*lines, f"Time: {rough(needs.seconds)}{_in_brackets(stage_times(needs.stages))}"]


def _in_brackets(words: list[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def show_jobs(found: list[JobSummary]) -> None:
    """One job a paragraph: ids and paths are for copying, so they are never broken."""
    for job in found:
        say("  ".join([job.id, job.kind, job.state, *([str(job.saved)] if job.saved else [])]), style="bold")
        if job.output:
            say(f"  {job.output}")
        if job.message:
            say(f"  {job.message}", style="dim")


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
    say(
        f"{report.tokens:,} predictions in {report.windows} windows of {report.window} tokens, "
        f"{report.protocol} protocol, {report.seconds:.1f} s"
    )
    for note in report.notes:
        say(f"Note: {note}")


def show_importance(found: ImportanceSummary) -> None:
    """Statistics by tensor and by block, experts without tokens, and what the matrix was made from."""
    columns = [
        "tensor",
        "sum",
        "min",
        "max",
        "mean",
        "σ",
        "active",
        "N",
        "entropy",
        "of most",
        "z > 1",
        "cosine",
    ]
    tensors = table(*columns)
    for one in found.tensors:
        sizes = (one.sum, one.minimum, one.maximum, one.mean, one.deviation)
        tensors.add_row(
            printable(one.tensor),
            *(f"{value:.4g}" for value in sizes),
            _percent(one.active),
            f"{one.columns:,}",
            f"{one.entropy:.4f}",
            _percent(one.entropy_share),
            _percent(one.z_density),
            "" if one.cosine is None else f"{one.cosine:.4f}",
        )
    out.print(tensors)
    if found.layers:
        layers = table("block", "mean sum", "z > 1", "cosine")
        for layer in found.layers:
            cosine = "" if layer.cosine is None else f"{layer.cosine:.4f}"
            layers.add_row(str(layer.block), f"{layer.sum:.4g}", _percent(layer.z_density), cosine)
        out.print(layers)
    made = f", from {', '.join(found.datasets)}" if any(found.datasets) else ""
    say(f"{len(found.tensors)} tensors, {found.windows:,} windows of {found.window} tokens{made}")
    for stack in found.unseen:
        everyone = numbers(stack.experts, most=len(stack.experts))
        if stack.plain:
            say(f"Nothing but zeros reached: {stack.tensor}")
        else:
            experts = f"{stack.tensor}, experts {everyone} of {stack.matrices}"
            say(f"No token, or nothing but zeros, reached: {experts}")
    mixture = any(one.matrices > 1 for one in found.tensors)
    if mixture and all(stack.plain for stack in found.unseen):
        say("Every expert saw tokens that are not zero.")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def warn(warnings: list[str]) -> None:
    for warning in warnings:
        complain(f"warning: {warning}")
