"""What is told of a block once its tally is full, and of all blocks in one file."""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel

from engine.activations import About, LayerAbout, LayerActivations, Rows, about_layer, layer_arrays
from engine.api.activations import Peak, Ran
from engine.calibration.array_files import Array, ArrayFile
from engine.calibration.flows import BlockTally
from engine.calibration.tallies import Tally


class PartAbout(BaseModel):
    """What the file of a block says: its layers; whether keys and values could be seen."""

    layers: list[LayerAbout]
    cached: bool


def told(
    block: int, tally: BlockTally, token: Callable[[int, int], str], *, whole: bool
) -> tuple[str, dict[str, Array]]:
    """What is to be told of a block, and its arrays. `token`: the text at a window and a position.

    `whole`: with the rows themselves, where the samples hold all of them.
    """
    abouts: list[LayerAbout] = []
    arrays: dict[str, Array] = dict(tally.cache)
    for place, own in sorted(tally.tallies.items()):
        names = tally.names(place, block)
        layer = _layer(names[0], block, own, token, whole=whole and own.sampled == own.rows)
        arrays |= layer_arrays(len(abouts), layer)
        abouts.append(about_layer(layer, names))
    return PartAbout(layers=abouts, cached=bool(tally.cache)).model_dump_json(), arrays


def merged(ran: Ran, parts: Sequence[ArrayFile]) -> tuple[About, dict[str, Array]]:
    """The files of all blocks as one: what it says, and its arrays, which are read as they are written."""
    about = About(ran=ran, layers=[], caches=[])
    arrays: dict[str, Array] = {}
    for block, part in enumerate(parts):
        said = PartAbout.model_validate_json(part.about)
        first = len(about.layers)
        for name, array in part.arrays.items():
            number, _, rest = name.partition(".")
            arrays[f"{first + int(number)}.{rest}" if rest else f"{name}.{block}"] = array
        about.layers += said.layers
        about.caches += [block] if said.cached else []
    return about, arrays


def _layer(
    name: str, block: int, tally: Tally, token: Callable[[int, int], str], *, whole: bool
) -> LayerActivations:
    return LayerActivations(
        tensor=name,
        block=block,
        rows=tally.rows,
        sampled=tally.sampled,
        channels=tally.channels,
        percentiles=tally.percentiles,
        distribution=tally.distribution,
        beyond=tally.beyond / tally.rows,
        peaks=[_peak(peak, token) for peak in tally.peaks],
        batches=tally.batches[np.isfinite(tally.batches[:, 0])],
        whole=Rows(tally.sample[: tally.rows], tally.places[: tally.rows]) if whole else None,
    )


def _peak(peak: np.ndarray, token: Callable[[int, int], str]) -> Peak:
    window, position, channel = (int(number) for number in peak[1:])
    return Peak(
        window=window,
        position=position,
        token=token(window, position) if window >= 0 else "",
        channel=channel,
        value=float(peak[0]),
    )
