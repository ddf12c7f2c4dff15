"""What reaches one matrix, in short: of the statistics that `engine.capture` has gathered."""

from pathlib import Path

import numpy as np

from engine.activations import Activations, LayerActivations, activations_of
from engine.api.activations import HeadRange, InputStatistics
from engine.api.statistics import PERCENTS
from engine.checkpoint import Checkpoint
from engine.weight_statistics import outlier_channels

KEPT = {"attn_k": ("key",), "attn_v": ("value",), "attn_qkv": ("key", "value")}
"""What of a matrix's output the cache keeps, by role."""


def input_statistics(checkpoint: Checkpoint, file: Path, tensor: str) -> InputStatistics | None:
    """What reaches `tensor` (its name in GGUF); None where the file says nothing of it.

    Raises what `activations_of` raises.
    """
    with activations_of(checkpoint, file) as found:
        layer = found.layers.get(tensor)
        return None if layer is None else in_short(found, layer)


def in_short(found: Activations, layer: LayerActivations) -> InputStatistics:
    channels, ratios = outlier_channels(layer.channels.absmax)
    return InputStatistics(
        ran=str(found.ran),
        rows=layer.rows,
        min=layer.min,
        max=layer.max,
        absmax=layer.absmax,
        mean_square=layer.mean_square,
        percentiles=layer.distribution.percentiles(PERCENTS).tolist(),
        outlier_channels=channels.tolist(),
        outlier_ratio=float(ratios.max()),
        beyond=float(layer.beyond.max()),
        beyond_channel=int(layer.beyond.argmax()),
        peaks=layer.peaks,
        cache=_head_ranges(found, layer),
    )


def _head_ranges(found: Activations, layer: LayerActivations) -> list[HeadRange]:
    kept = KEPT.get(layer.role, ())
    cache = found.cache(layer.block) if kept else None
    if cache is None:
        return []
    return [
        HeadRange(of=of, head=head, min=float(low.min()), max=float(high.max()))
        for of in kept
        for head, (low, high) in enumerate(np.swapaxes(cache.keys if of == "key" else cache.values, 0, 1))
    ]
