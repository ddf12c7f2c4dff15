"""Statistics of activations as columns of the table of `bitwright stats`, as JSON, and on the terminal."""

from collections.abc import Sequence

from engine import terminal
from engine.activations import Activations, LayerActivations
from engine.api.statistics import PERCENTS, Estimator, WeightStatistics
from engine.calibration.ranges import estimate
from engine.input_statistics import in_short
from engine.outlier_cells import outlier_cells
from engine.statistics_table import Row
from engine.weight_statistics import outlier_channels

SHOWN = 20
"""Layers in the table on the terminal."""

_NAMES = (
    "input_tokens",
    "input_min",
    "input_max",
    "input_absmax",
    "input_mean_square",
    *(f"input_p{percent:g}" for percent in PERCENTS),
    "input_outlier_channels",
    "input_outlier_ratio",
    "input_beyond_6",
    "input_peak_token",
    "input_peak_window",
    "input_peak_position",
    "input_peak_channel",
    "input_peak_value",
)
"""`input_beyond_6`: the largest share of tokens in which one channel is of magnitude 6 or more."""


def with_columns(rows: list[Row], found: Activations, estimator: Estimator | None) -> list[Row]:
    """The rows with what reaches each tensor, then a row for the output of each block."""
    weights = [row | _columns(found, str(row["canonical"]), estimator) for row in rows]
    nothing = dict.fromkeys(rows[0]) if rows else {}
    outputs = [
        nothing
        | {"tensor": name, "canonical": name, "role": "block output", "block": block}
        | _columns(found, name, estimator)
        for block, name in sorted(found.roles.get("output", {}).items())
    ]
    return weights + outputs


def in_json(found: Activations) -> dict[str, object]:
    """What was run, where its file is, and the ranges of the cache by block: [heads][head size] each."""
    caches = {
        block: {
            f"{what}_{side}": ranges[number].tolist()
            for what, ranges in (("key", cache.keys), ("value", cache.values))
            for number, side in enumerate(("min", "max"))
        }
        for block, cache in found.caches.items()
    }
    return {"file": str(found.path), "ran": found.ran.model_dump(), "caches": caches}


def show_activations(found: Activations, weights: Sequence[WeightStatistics]) -> None:
    """The layers with the worst channels, worst first, one line for all that see the same.

    By the names that their matrices, `weights`, have in the source.
    """
    layers = _distinct(found, weights)
    worst = sorted(layers.items(), key=lambda item: -_ratio(item[1]))[:SHOWN]
    columns = ("abs-max", "mean square", "largest at", "worst / median", "outlier channels")
    shown = terminal.table("input of", *columns, left=1)
    for name, layer in worst:
        channels, ratios = outlier_channels(layer.channels.absmax)
        peak = layer.peaks[0]
        shown.add_row(
            terminal.printable(name),
            f"{layer.absmax:.4g}",
            f"{layer.mean_square:.4g}",
            f"{terminal.printable(repr(peak.token))} ({peak.window}:{peak.position})",
            *outlier_cells(float(ratios.max()), channels.tolist()),
        )
    shown.columns[-1].justify = "left"
    terminal.out.print(shown)
    terminal.say(f"Activations of {len(layers)} places on {found.ran}.")
    if found.ran.caution:
        terminal.warn([found.ran.caution])


def _distinct(found: Activations, weights: Sequence[WeightStatistics]) -> dict[str, LayerActivations]:
    """The layers, those that see the same once, by all their names in short."""
    sources: dict[str, list[str]] = {}
    for one in weights:
        sources.setdefault(one.canonical, []).append(one.tensor)
    names: dict[int, list[str]] = {}
    for name in found.tensors:
        names.setdefault(found.place(name), []).append(name)
    return {
        _together([_in_source(name, sources.get(name, [])) for name in own]): found.layers[own[0]]
        for own in names.values()
    }


def _in_source(name: str, sources: list[str]) -> str:
    """What the source calls a matrix; of a stack of experts the first."""
    if not sources:
        return name.removesuffix(".weight")
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return sources[0].removesuffix(".weight") + more


def _together(names: list[str]) -> str:
    """Names of one layer: what they begin with alike is said once."""
    begin = names[0].rpartition(".")[0] + "."
    return ", ".join([names[0], *(name.removeprefix(begin) for name in names[1:])])


def _ratio(layer: LayerActivations) -> float:
    return float(outlier_channels(layer.channels.absmax)[1].max())


def _columns(found: Activations, tensor: str, estimator: Estimator | None) -> Row:
    ranges = ("input_range_min", "input_range_max") if estimator else ()
    layer = found.layers.get(tensor)
    if layer is None:
        return dict.fromkeys((*_NAMES, *ranges))
    short = in_short(found, layer)
    peak = short.peaks[0]
    values = (
        short.rows,
        short.min,
        short.max,
        short.absmax,
        short.mean_square,
        *short.percentiles,
        short.outlier_channels,
        short.outlier_ratio,
        short.beyond,
        peak.token,
        peak.window,
        peak.position,
        peak.channel,
        peak.value,
    )
    row: Row = dict(zip(_NAMES, values, strict=True))
    if estimator is not None:
        row |= dict(zip(ranges, estimate(layer, estimator), strict=True))
    return row
