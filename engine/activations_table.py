"""Statistics of activations as columns of the table of `bitwright stats`, as JSON, and on the terminal."""

from engine import terminal
from engine.activations import Activations, LayerActivations
from engine.api.statistics import PERCENTS, Estimator
from engine.calibration.ranges import estimate
from engine.statistics_table import Row
from engine.weight_statistics import outlier_channels

SHOWN = 20
"""Layers in the table on the terminal."""

SHOWN_CHANNELS = 6

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
    weights = [row | _columns(found.layers.get(str(row["canonical"])), estimator) for row in rows]
    nothing = dict.fromkeys(rows[0]) if rows else {}
    outputs = [
        nothing
        | {"tensor": name, "canonical": name, "role": "block output", "block": block}
        | _columns(found.layers[name], estimator)
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


def show_activations(found: Activations) -> None:
    """The layers with the worst channels, worst first, one line for all that see the same."""
    layers = _distinct(found)
    worst = sorted(layers.items(), key=lambda item: -_ratio(item[1]))[:SHOWN]
    columns = ("abs-max", "mean square", "worst / median", "largest at", "outlier channels")
    shown = terminal.table("input of", *columns, left=1)
    for name, layer in worst:
        channels, ratios = outlier_channels(layer.channels.absmax)
        more = len(channels) - SHOWN_CHANNELS
        peak = layer.peaks[0]
        shown.add_row(
            terminal.printable(name),
            f"{layer.absmax:.4g}",
            f"{layer.mean_square:.4g}",
            f"{ratios.max():.2f}",
            f"{terminal.printable(repr(peak.token))} ({peak.window}:{peak.position})",
            ", ".join(map(str, channels[:SHOWN_CHANNELS])) + (f" and {more:,} more" if more > 0 else ""),
        )
    shown.columns[-1].justify = "left"
    terminal.out.print(shown)
    terminal.say(f"Activations of {len(layers)} places on {found.ran}.")


def _distinct(found: Activations) -> dict[str, LayerActivations]:
    """The layers, those that see the same once, by all their names in short."""
    names: dict[int, list[str]] = {}
    for name in found.tensors:
        names.setdefault(found.place(name), []).append(name)
    return {", ".join(n.removesuffix(".weight") for n in own): found.layers[own[0]] for own in names.values()}


def _ratio(layer: LayerActivations) -> float:
    return float(outlier_channels(layer.channels.absmax)[1].max())


def _columns(layer: LayerActivations | None, estimator: Estimator | None) -> Row:
    ranges = ("input_range_min", "input_range_max") if estimator else ()
    if layer is None:
        return dict.fromkeys((*_NAMES, *ranges))
    channels, ratios = outlier_channels(layer.channels.absmax)
    peak = layer.peaks[0]
    values = (
        layer.rows,
        layer.min,
        layer.max,
        layer.absmax,
        layer.mean_square,
        *layer.distribution.percentiles(PERCENTS).tolist(),
        channels.tolist(),
        float(ratios.max()),
        float(layer.beyond.max()),
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
