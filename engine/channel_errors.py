"""What a recipe loses of each output channel, input channel or group of one tensor.

Apart from `engine.quantization_errors`, which sums what the pictures need: codes used are counted for each
channel here, which costs several times as much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.parallel import in_order
from engine.quantized_weights import Piece, Quantized

Channelled = Literal["output", "input", "group"]


@dataclass
class ChannelErrors:
    """By channel, or by group row by row. float64 [n]: `squared` errors over the channel's squared weights
    (NaN where these are 0 and something is lost), `snr` in dB (inf: nothing is lost), `cosine`, `saturation`
    (the share of weights at an end of the grid). `levels_used`: int64 [n], different codes. Without codes the
    last two are 0.
    """

    squared: np.ndarray
    snr: np.ndarray
    cosine: np.ndarray
    saturation: np.ndarray
    levels_used: np.ndarray


class _Sums:
    """Sums over `count` channels, and which of 256 codes each has."""

    def __init__(self, count: int) -> None:
        self.there, self.stored, self.products, self.lost, self.ends = np.zeros((5, count))
        self.used = np.zeros((count, 256), bool)

    def add(self, channels: slice, piece: Piece, shape: tuple[int, ...], axis: int) -> None:
        """Add to those channels a piece seen in `shape`, summed over `axis`."""
        weights, values = (part.reshape(shape).astype(float) for part in (piece.weights, piece.values))
        for sums, one, other in (
            (self.there, weights, weights),
            (self.stored, values, values),
            (self.products, weights, values),
            (self.lost, values - weights, values - weights),
        ):
            sums[channels] += (one * other).sum(axis=axis).reshape(-1)
        if piece.coded is None:
            return
        grid = piece.coded.grid.codes
        codes = piece.coded.codes.view(np.uint8).reshape(shape)
        ends = (codes == grid.low % 256) | (codes == grid.high % 256)
        self.ends[channels] += ends.sum(axis=axis).reshape(-1)
        places = np.arange(channels.start, channels.stop)
        for code in np.moveaxis(codes, axis, 0):  # one of each channel
            self.used[places, code.reshape(-1)] = True


def measure_channel_errors(
    quantized: Quantized, scope: Channelled, group: int, threads: int, told: Callable[[int, int], None]
) -> ChannelErrors:
    """Read and encode the tensor once more. `group`: weights of a group, which divide a line; `told`: lines
    done, of how many. Raises what `Quantized.piece` raises."""
    lines, width = quantized.lines, quantized.width
    each = {"output": width, "input": lines, "group": group}[scope]
    sums = _Sums(lines * width // each)
    for piece in in_order(lambda bounds: quantized.piece(*bounds), quantized.bounds(), threads):
        height = piece.stop - piece.start
        if scope == "input":
            sums.add(slice(0, width), piece, (height, width), 0)
        else:
            within = width // each
            channels = slice(piece.start * within, piece.stop * within)
            sums.add(channels, piece, (height, within, each), 2)
        told(piece.stop, lines)
    return _errors(sums, each)


def _errors(sums: _Sums, each: int) -> ChannelErrors:
    squared = np.where(sums.lost == 0, 0.0, np.nan)
    np.divide(sums.lost, sums.there, out=squared, where=sums.there > 0)
    with np.errstate(divide="ignore"):
        snr = -10 * np.log10(squared) + 0.0  # no -0
    norms = np.sqrt(sums.there * sums.stored)
    cosine = np.where((sums.there == 0) & (sums.lost == 0), 1.0, 0.0)
    np.divide(sums.products, norms, out=cosine, where=norms > 0)
    return ChannelErrors(squared, snr, cosine, sums.ends / each, sums.used.sum(axis=1))
