"""The command `bitwright stats`: statistics of all tensors of a model, as a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import terminal
from engine.activations_command import (
    ActivationsOut,
    Calibration,
    Length,
    Prompt,
    RangeOf,
    Seed,
    Windows,
    request_of,
)
from engine.api.jobs import ActivationsRequest
from engine.api.statistics import WeightStatistics
from engine.channels_command import ByScope, OneTensor, channels, scope_of
from engine.options import AsJson, MemoryLimit, Model, Threads, example
from engine.outlier_cells import EXPLAINED, outlier_cells

if TYPE_CHECKING:
    from engine.activations import Activations
    from engine.checkpoint import Checkpoint

EXAMPLES = example(
    "bitwright stats ./Llama-3.2-1B",
    "bitwright stats model.gguf --out stats.csv",
    "bitwright stats ./Llama-3.2-1B --preset Q4_K_M --out errors.csv",
    "bitwright stats ./Llama-3.2-1B --calibration texts.jsonl --range percentile --out stats.csv",
    'bitwright stats ./Llama-3.2-1B --prompt "What does this sentence do?"',
)

SHOWN = 20
"""Tensors in the table on the terminal."""

MODEL_FILES = ("*config*.json", "*.index.json", "*token*", "vocab*", "merges*")
"""Beside the weights in a model's folder: never to be written over."""


def stats(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(help="Write all figures: .csv, .json or .parquet by its name.", show_default=False),
    ] = None,
    tensor: OneTensor = None,
    scope: ByScope = None,
    preset: Annotated[
        str | None, typer.Option(help="Say what this preset makes of each tensor, too.", show_default=False)
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="The same of a recipe (JSON).", show_default=False)
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(help="The importance matrix that the recipe weighs with.", show_default=False),
    ] = None,
    calibration: Calibration = None,
    prompt: Prompt = None,
    windows: Windows = None,
    length: Length = None,
    seed: Seed = None,
    range_of: RangeOf = None,
    activations_out: ActivationsOut = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show statistics of a model's weights, what a recipe loses of them, and what reaches them on a text."""
    from engine.checkpoint import open_checkpoint
    from engine.jobs.partial import check_place
    from engine.quantization_errors import applied, with_errors
    from engine.recipes import asked_recipe
    from engine.statistics_table import error_columns, json_text, refuse_table, row_of, write_table
    from engine.weight_statistics import all_statistics

    request = request_of(
        model,
        calibration,
        prompt,
        ranges=range_of is not None,
        output=str(activations_out or ""),
        windows=windows,
        length=length,
        seed=seed,
        threads=threads,
        memory_limit=memory_limit,
        overwrite=overwrite and activations_out is not None,
    )
    divided = scope_of(scope, tensor)
    if out is not None:
        refuse_table(out)
    with open_checkpoint(model) as checkpoint:
        if out is not None:
            check_place(out, [*_own_files(checkpoint), *filter(None, (recipe, imatrix))], overwrite)
        asked = asked_recipe(checkpoint, preset, recipe, imatrix)
        if asked is not None:
            terminal.warn(applied(checkpoint, asked).plan.warnings)  # before all weights are read
        if tensor is not None:
            channels(checkpoint, tensor, divided, asked, threads, out, as_json)
            return
        with terminal.progress() as listener:
            found, left_out = all_statistics(checkpoint, threads, listener)
            without: dict[str, str] = {}
            if asked is not None:
                found, without = with_errors(found, checkpoint, asked, threads, listener)
    rows = [row_of(one) | (error_columns(one.error) if asked else {}) for one in found]
    activations = None if request is None else _captured(request)
    about: dict[str, object] = {"model": str(model), "left_out": left_out}
    if asked is not None:
        about |= {"recipe": asked.model_dump(mode="json", exclude_none=True), "without_errors": without}
    if activations is not None:
        from engine.activations_table import in_json, with_columns

        rows = with_columns(rows, activations, range_of)
        about["activations"] = in_json(activations)
    if out is not None:
        write_table(out, about, rows)
    if as_json:
        print(json_text(about, rows))
        return
    terminal.warn([f"left out: {reason}" for reason in left_out.values()])
    terminal.warn([f"without errors: {reason}" for reason in without.values()])
    if out is not None:
        on = f", activations on {activations.ran}" if activations else ""
        terminal.say(f"{out}: statistics of {len(found)} tensors{on}.")
        if activations is not None and activations.ran.caution:
            terminal.warn([activations.ran.caution])
        return
    if asked is not None:
        _show_errors(found)
    else:
        _show(found)
    if activations is not None:
        from engine.activations_table import show_activations

        show_activations(activations, found)
    terminal.say(EXPLAINED)


def _captured(request: ActivationsRequest) -> "Activations":
    from engine.activations import read_activations
    from engine.capture import capture

    with terminal.progress() as listener:
        result = capture(request, listener)
    terminal.warn(result.warnings)
    return read_activations(Path(result.output))


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
        shown.add_row(
            terminal.printable(one.tensor),
            one.dtype,
            " × ".join(f"{length:,}" for length in one.shape),
            f"{one.absmax:.4g}",
            f"{one.std:.4g}",
            f"{one.kurtosis:.4g}",
            f"{one.beyond_sigmas:,}",
            *outlier_cells(one.outlier_ratio, one.outlier_channels),
        )
    shown.columns[-1].justify = "left"
    terminal.out.print(shown)
    _say_all(found, len(worst), "with the worst input channels")


def _show_errors(found: list[WeightStatistics]) -> None:
    """The tensors with the input channels of which most is lost, worst first."""
    lost = [(one, one.error) for one in found if one.error is not None and one.error.squared]
    worst = sorted(lost, key=lambda pair: (-(pair[1].worst_channel_error or 0), -pair[1].squared))[:SHOWN]
    columns = ("SNR (dB)", "squared error", "worst channel", "its error", "worst / median")
    shown = terminal.table("tensor", "format", *columns, "outlier channels", left=2)
    for one, error in worst:
        shown.add_row(
            terminal.printable(one.tensor),
            error.format,
            f"{error.snr:.2f}",
            f"{error.squared:.4g}",
            "" if error.worst_channel is None else f"{error.worst_channel}",
            "" if error.worst_channel_error is None else f"{error.worst_channel_error:.4g}",
            *outlier_cells(one.outlier_ratio, one.outlier_channels),
        )
    shown.columns[-1].justify = "left"
    terminal.out.print(shown)
    _say_all(found, len(worst), "with the channels of which most is lost")


def _say_all(found: list[WeightStatistics], shown: int, which: str) -> None:
    rest = f"; the {shown} {which} are shown" if shown < len(found) else ""
    terminal.say(f"{len(found)} tensors, {sum(one.count for one in found):,} weights{rest}.")
