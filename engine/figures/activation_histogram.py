"""How what flows into a layer is distributed, from the statistics in a file."""

from collections.abc import Iterator

import numpy as np

from engine.activations import LayerActivations
from engine.api.errors import FigureError
from engine.api.statistics import PERCENTS
from engine.api.views import HistogramOf
from engine.checkpoint import Checkpoint
from engine.figures.bins import Bins, drawn, percentile_marks
from engine.figures.drawn import Drawn
from engine.figures.inputs import layer_of


def activation_histogram(checkpoint: Checkpoint, view: HistogramOf) -> Iterator[Drawn]:
    """Of a whole layer, or of one input channel from its percentiles.

    Raises `FigureError`, and what `layer_of` raises.
    """
    if view.scope not in ("tensor", "input"):
        raise FigureError(f"Activations have no {view.scope} channels or groups: ask for one input channel.")
    layer, _ = layer_of(checkpoint, view.activations, view.tensor)
    is_input = layer.tensor.endswith(".weight")
    title = f"{view.tensor} · {'inputs' if is_input else 'outputs'}"
    if view.scope == "input":
        yield _channel(title, layer, view, "input" if is_input else "output")
        return
    spread = float(np.sqrt((layer.channels.std**2 + np.square(layer.channels.mean)).mean()))
    bins = Bins.over(layer.min, layer.max, view.bins, spread)
    series = bins.series("activations", bins.spread(layer.distribution))
    marks = percentile_marks(layer.distribution.percentiles(PERCENTS))
    yield drawn(title, [series], marks, 1, 1, last=True, what="activation")


def _channel(title: str, layer: LayerActivations, view: HistogramOf, side: str) -> Drawn:
    """One channel, of the "input" or the "output": tokens are spread evenly between its percentiles."""
    channels = len(layer.channels.min)
    if view.index >= channels:
        raise FigureError(f"{view.tensor} has {channels:,} {side} channels, the last one is {channels - 1}.")
    low, high = float(layer.channels.min[view.index]), float(layer.channels.max[view.index])
    percentiles = layer.percentiles[:, view.index].astype(np.float64)
    bins = Bins.over(low, high, view.bins, float(layer.channels.std[view.index]))
    edges = np.maximum.accumulate(np.clip([low, *percentiles, high], low, high))
    shares = np.diff([0.0, *PERCENTS, 100.0]) / 100
    series = bins.series("activations, from their percentiles", bins.shared(edges, shares * layer.rows))
    title = f"{title} · {side} channel {view.index:,}"
    return drawn(title, [series], percentile_marks(percentiles), 1, 1, last=True, what="activation")
