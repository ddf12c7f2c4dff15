"""Statistics of one tensor by output channel, by input channel or by group, as a table of columns."""

import os

import numpy as np

from engine.api.errors import FigureError
from engine.api.progress import Listener, Progress
from engine.api.recipe import Recipe
from engine.api.statistics import PERCENTS, SIGMAS
from engine.channel_errors import Channelled, measure_channel_errors
from engine.channel_statistics import channel_counts, channel_percentiles, group_channels
from engine.checkpoint import Checkpoint
from engine.matrices import lines_shape
from engine.quantized_weights import applied
from engine.statistics_table import Row
from engine.weight_statistics import gather, source_name
from engine.writing import load_kernels

GROUP = 32
"""Weights of a group where no format says how many."""

MOST_ROWS = 4_000_000
"""Groups that one table has room for."""


def channel_rows(
    checkpoint: Checkpoint,
    name: str,
    scope: Channelled,
    recipe: Recipe | None,
    threads: int | None,
    listener: Listener,
) -> list[Row]:
    """A row a channel, or a group. Raises what `gather` and `quantized` raise, `FigureError` for too many."""
    tensor = source_name(checkpoint, name)
    made = None
    if recipe is not None:
        made_of = applied(checkpoint, recipe)
        load_kernels(made_of.plan, listener)
        made = made_of.quantized(tensor)
    found = gather(checkpoint, tensor, threads=threads)
    assert found is not None, "nobody breaks it off"
    lines, width = lines_shape(checkpoint, checkpoint.tensors[tensor])
    group = min(width, made.group if made else GROUP)
    if scope == "group" and lines * -(-width // group) > MOST_ROWS:
        raise FigureError(
            f"{tensor} has {lines * -(-width // group):,} groups, more than a table's {MOST_ROWS:,} rows: "
            "ask for its channels (--scope output or input)."
        )
    channels = (
        group_channels(checkpoint, tensor, group)
        if scope == "group"
        else {"output": found.outputs, "input": found.inputs}[scope]
    )
    percentiles = channel_percentiles(checkpoint, tensor, scope, group=group)
    mean, std = float(found.whole.mean), float(found.whole.std)
    counts = channel_counts(checkpoint, tensor, scope, group, (mean - SIGMAS * std, mean + SIGMAS * std))
    assert channels is not None and percentiles is not None, "nobody breaks them off"  # noqa: PT018
    columns = _places(scope, lines, width, -(-width // group))
    columns |= {field: getattr(channels, field) for field in channels.__dataclass_fields__}
    columns |= {f"p{percent:g}": of for percent, of in zip(PERCENTS, percentiles, strict=True)}
    columns |= {"beyond_6_sigma": counts[0], "large": counts[1]}
    if made is not None:

        def told(done: int, total: int) -> None:
            listener(Progress("quantize", done, total, "channels", tensor))

        errors = measure_channel_errors(made, scope, group, threads or len(os.sched_getaffinity(0)), told)
        columns |= {"squared_error": errors.squared, "snr_db": errors.snr, "cosine": errors.cosine}
        if made.levels:
            columns |= {"saturation": errors.saturation, "levels_used": errors.levels_used}
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*map(_plain, columns.values()), strict=True)]


def _places(scope: Channelled, lines: int, width: int, groups: int) -> dict[str, np.ndarray]:
    if scope == "input":
        return {"input_channel": np.arange(width)}
    if scope == "output":
        return {"output_channel": np.arange(lines)}
    return {
        "output_channel": np.repeat(np.arange(lines), groups),
        "group": np.tile(np.arange(groups), lines),
    }


def _plain(column: np.ndarray) -> list[object]:
    """Python's numbers; None for what is no number, or has no end."""
    if column.dtype.kind != "f":
        found: list[object] = column.tolist()
        return found
    return [
        value if finite else None for value, finite in zip(column.tolist(), np.isfinite(column), strict=True)
    ]
