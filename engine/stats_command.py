"""The command `bitwright stats`: statistics of all tensors of a model, as a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import terminal
from engine.api.statistics import WeightStatistics
from engine.options import AsJson, Model, Threads, example

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

EXAMPLES = example(
    "bitwright stats ./Llama-3.2-1B",
    "bitwright stats model.gguf --out stats.csv",
)

SHOWN = 20
"""Tensors in the table on the terminal."""

SHOWN_CHANNELS = 6

MODEL_FILES = ("*config*.json", "*.index.json", "*token*", "vocab*", "merges*")
"""Beside the weights in a model's folder: never to be written over."""


def stats(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(help="Write all figures: .csv, .json or .parquet by its name.", show_default=False),
    ] = None,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show statistics of a model's weights: ranges, moments, percentiles, outlier channels."""
    from engine.checkpoint import open_checkpoint
    from engine.jobs.partial import check_place
    from engine.statistics_table import json_text, refuse_table, row_of, write_table
    from engine.weight_statistics import all_statistics

    if out is not None:
        refuse_table(out)
    with open_checkpoint(model) as checkpoint:
        if out is not None:
            check_place(out, _own_files(checkpoint), overwrite)
        with terminal.progress() as listener:
            found, left_out = all_statistics(checkpoint, threads, listener)
    rows = [row_of(one) for one in found]
    if out is not None:
        write_table(out, str(model), rows, left_out)
    if as_json:
        print(json_text(str(model), rows, left_out))
        return
    terminal.warn([f"left out: {reason}" for reason in left_out.values()])
    if out is not None:
        terminal.say(f"{out}: statistics of {len(found)} tensors.")
    else:
        _show(found)


def _own_files(checkpoint: "Checkpoint") -> list[Path]:
    if checkpoint.kind == "gguf":
        return checkpoint.files
    return [*checkpoint.files, *(path for name in MODEL_FILES for path in checkpoint.folder.glob(name))]


def _show(found: list[WeightStatistics]) -> None:
    """The tensors with the worst input channels, worst first."""
    worst = sorted(found, key=lambda one: -one.outlier_ratio)[:SHOWN]
    columns = ("abs-max", "std", "kurtosis", "> 6 σ", "worst / median", "outlier channels")
    shown = terminal.table("tensor", "type", "shape", *columns, left=3)
    for one in worst:
        first = ", ".join(map(str, one.outlier_channels[:SHOWN_CHANNELS]))
        more = len(one.outlier_channels) - SHOWN_CHANNELS
        shown.add_row(
            terminal.printable(one.tensor),
            one.dtype,
            " × ".join(f"{length:,}" for length in one.shape),
            f"{one.absmax:.4g}",
            f"{one.std:.4g}",
            f"{one.kurtosis:.4g}",
            f"{one.beyond_sigmas:,}",
            f"{one.outlier_ratio:.2f}",
            first + (f" and {more:,} more" if more > 0 else ""),
        )
    shown.columns[-1].justify = "left"
    terminal.out.print(shown)
    rest = f"; the {len(worst)} with the worst input channels are shown" if len(worst) < len(found) else ""
    terminal.say(f"{len(found)} tensors, {sum(one.count for one in found):,} weights{rest}.")
