"""Statistics of what flows through a model, as `engine.capture` gathers them: classes and their file.

The file (engine/calibration/array_files.py) says in JSON what was run, which layers there are and where their
largest values were. The arrays of layer i:

- `i.channels` float64 [7, columns]: the arrays of `Channels` in their order
- `i.beyond` float64 [columns]: the share of tokens in which the channel is `LARGE` or more
- `i.percentiles` float32 [percents, columns]
- `i.bins`, `i.counts` int64 [n]: the bins of the distribution that hold something, and how many
- `i.batches` float64 [batches, 2]: the range of each batch of windows, in their order

- of a prompt also `i.rows` float32 [rows, columns] and `i.places` int64 [rows, 3]: the arrays of `Rows`

and of a block's cache `key.i`, `value.i` float64 [2, heads, head size]: the least and the largest value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from engine.api.activations import Peak, Ran
from engine.api.errors import CalibrationError
from engine.api.statistics import LARGE, PERCENTS
from engine.calibration.array_files import Array, ArrayFile
from engine.checkpoint import Checkpoint
from kernels.statistics import Channels, Distribution

BINS = 1 << 16
CHANNELS = 7


class LayerAbout(BaseModel):
    """What the file says of a layer in JSON. `tensors`: the matrices whose input it is, or "blk.N.output".

    `rows`: tokens that reached it, one that passes several experts once for each; percentiles are those of
    `sampled` of them. `whole`: the rows themselves are in the file, too.
    """

    tensors: list[str] = Field(min_length=1)
    block: int = Field(ge=0)
    columns: int = Field(ge=1)
    rows: int = Field(ge=1)
    sampled: int = Field(ge=1)
    peaks: list[Peak]
    whole: bool = False


class About(BaseModel):
    """What the file says in JSON."""

    kind: Literal["bitwright activations"] = "bitwright activations"
    version: Literal[1] = 1
    percents: list[float] = list(PERCENTS)
    large: float = LARGE
    ran: Ran
    layers: list[LayerAbout]
    caches: list[int] = Field(description="blocks whose keys and values could be seen")


@dataclass(frozen=True)
class Rows:
    """All that reached a matrix, `values` float32 [rows, columns]; `places` int64 [rows, 3] says of each the
    window, the position in it, and which matrix of a stack it was multiplied with."""

    values: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class LayerActivations:
    """What reaches the matrix `tensor` (its name in GGUF), or what leaves a block ("blk.N.output").

    `role` is the name without block and "weight": "ffn_down", "output". `percentiles` float32
    [len(PERCENTS), columns], of `sampled` of the `rows` tokens; everything else is of all. `beyond` float64
    [columns]: the share of tokens in which the channel's magnitude is `LARGE` or more. `peaks`: the tokens
    with the largest magnitudes, largest first. `batches` float64 [batches, 2]: least and largest value of
    each batch of windows, in their order. `whole`: the rows themselves, of a prompt that is not too long.
    """

    tensor: str
    block: int
    rows: int
    sampled: int
    channels: Channels
    percentiles: np.ndarray
    distribution: Distribution
    beyond: np.ndarray
    peaks: list[Peak]
    batches: np.ndarray
    whole: Rows | None = None

    @property
    def role(self) -> str:
        return role_of(self.tensor)

    @property
    def min(self) -> float:
        return float(self.channels.min.min())

    @property
    def max(self) -> float:
        return float(self.channels.max.max())

    @property
    def absmax(self) -> float:
        return float(self.channels.absmax.max())

    @property
    def mean_square(self) -> float:
        return float((self.channels.std**2 + self.channels.mean**2).mean())


@dataclass(frozen=True)
class CacheRange:
    """What a block's cache holds: `keys`, `values` float64 [2, heads, head size], least and largest of each.

    As attention is given them: keys behind the rotary embedding. Heads are those that are kept: where several
    heads share one, it is there once.
    """

    keys: np.ndarray
    values: np.ndarray


class Activations:
    """The file at `path`, open until it is closed: what was `ran`, and `layers` by the names of tensors.

    A layer is read when it is asked for. The names of all blocks' outputs are "blk.N.output". `caches`: by
    block, those that could be seen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ArrayFile(path)
        try:
            self._about = _checked(path, self._file)
        except BaseException:
            self._file.close()
            raise
        self.layers: Mapping[str, LayerActivations] = _Layers(self._file, self._about.layers)

    @property
    def ran(self) -> Ran:
        return self._about.ran

    @property
    def tensors(self) -> list[str]:
        """Names of the layers, without reading them."""
        return list(self.layers)

    def place(self, tensor: str) -> int:
        """The same number for tensors that see the same."""
        return next(number for number, layer in enumerate(self._about.layers) if tensor in layer.tensors)

    @property
    def roles(self) -> dict[str, dict[int, str]]:
        """For each role the tensor of each block that has it: {"ffn_down": {0: "blk.0.ffn_down.weight"}}."""
        found: dict[str, dict[int, str]] = {}
        for layer in self._about.layers:
            for tensor in layer.tensors:
                found.setdefault(role_of(tensor), {})[layer.block] = tensor
        return found

    @property
    def caches(self) -> dict[int, CacheRange]:
        found = {block: self.cache(block) for block in self._about.caches}
        return {block: cache for block, cache in found.items() if cache is not None}

    def cache(self, block: int) -> CacheRange | None:
        """That of one block, None where it could not be seen."""
        if block not in self._about.caches:
            return None
        arrays = self._file.arrays
        return CacheRange(arrays[f"key.{block}"].read(), arrays[f"value.{block}"].read())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Activations":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_activations(path: Path) -> Activations:
    """The statistics in a file. Raises `CheckpointError`, `CalibrationError` where it is not whole."""
    return Activations(path)


def activations_of(checkpoint: Checkpoint, path: Path) -> Activations:
    """As `read_activations`; a `CalibrationError` also where the model was changed after they were gathered.

    Those that were gathered from a model at another place are the caller's choice.
    """
    found = Activations(path)
    ran = found.ran
    if Path(ran.model) == checkpoint.path.absolute() and ran.state != checkpoint.state:
        found.close()
        raise CalibrationError(
            f"{path}: the activations were gathered from another state of {ran.model}: gather them anew."
        )
    return found


def role_of(tensor: str) -> str:
    """ "ffn_down" of "blk.3.ffn_down.weight"; "output" of "blk.3.output"."""
    return tensor.removesuffix(".weight").split(".", 2)[-1]


def about_layer(layer: LayerActivations, tensors: list[str]) -> LayerAbout:
    """What a file says of a layer; `tensors`: all whose input it is."""
    return LayerAbout(
        tensors=tensors,
        block=layer.block,
        columns=layer.beyond.size,
        rows=layer.rows,
        sampled=layer.sampled,
        peaks=layer.peaks,
        whole=layer.whole is not None,
    )


def layer_arrays(number: int, layer: LayerActivations) -> dict[str, Array]:
    """The arrays that stand for a layer in a file, as its layer `number`."""
    counts = layer.distribution.counts
    bins = np.flatnonzero(counts)
    named = {
        "channels": np.stack(astuple(layer.channels)),
        "beyond": layer.beyond,
        "percentiles": layer.percentiles,
        "bins": bins.astype(np.int64),
        "counts": counts[bins],
        "batches": layer.batches,
    }
    if layer.whole is not None:
        named |= {"rows": layer.whole.values, "places": layer.whole.places}
    return {f"{number}.{name}": array for name, array in named.items()}


class _Layers(Mapping[str, LayerActivations]):
    def __init__(self, file: ArrayFile, layers: list[LayerAbout]) -> None:
        self._file, self._abouts = file, layers
        self._at = {tensor: number for number, layer in enumerate(layers) for tensor in layer.tensors}

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __contains__(self, tensor: object) -> bool:
        return tensor in self._at

    def __getitem__(self, tensor: str) -> LayerActivations:
        number = self._at[tensor]
        return replace(_layer(self._file, number, self._abouts[number]), tensor=tensor)


def _layer(file: ArrayFile, number: int, about: LayerAbout) -> LayerActivations:
    def read(name: str) -> np.ndarray:
        return file.arrays[f"{number}.{name}"].read()

    channels, beyond, percentiles, batches = map(read, ("channels", "beyond", "percentiles", "batches"))
    bins, held = read("bins"), read("counts")
    sound = all(np.isfinite(array).all() for array in (channels, beyond, percentiles, batches))
    sound &= len(bins) == len(held) and all(peak.channel < about.columns for peak in about.peaks)
    sound &= bool(
        (np.diff(bins) > 0).all() and (bins >= 0).all() and (bins < BINS).all() and (held > 0).all()
    )
    if not sound or held.sum() != about.rows * about.columns:
        raise _damaged(file.file.path, f"the figures of {about.tensors[0]} are not sound")
    counts = np.zeros(BINS, np.int64)
    counts[bins] = held
    whole = Rows(read("rows"), read("places")) if about.whole else None
    if whole is not None and not np.isfinite(whole.values).all():
        raise _damaged(file.file.path, f"the inputs of {about.tensors[0]} are not finite")
    return LayerActivations(
        tensor=about.tensors[0],
        block=about.block,
        rows=about.rows,
        sampled=about.sampled,
        channels=Channels(*channels),
        percentiles=percentiles,
        distribution=Distribution(counts, float(channels[0].min()), float(channels[1].max())),
        beyond=beyond,
        peaks=about.peaks,
        batches=batches,
        whole=whole,
    )


def _checked(path: Path, file: ArrayFile) -> About:
    """What the file says in JSON, held against the arrays that it has."""
    try:
        about = About.model_validate_json(file.about)
    except ValidationError as error:
        if any(fault["loc"] == ("version",) for fault in error.errors()):
            raise CalibrationError(
                f"{path}: was written by another version of Bitwright; make the file anew."
            ) from None
        raise CalibrationError(
            f"{path}: is no file of activations; make one with `bitwright stats --calibration`."
        ) from None
    if about.percents != list(PERCENTS) or about.large != LARGE:
        raise _damaged(path, "its percentiles or its threshold are others")
    names = [tensor for layer in about.layers for tensor in layer.tensors]
    if len(set(names)) < len(names) or len(set(about.caches)) < len(about.caches):
        raise _damaged(path, "it names a layer twice")
    wanted = {
        name: shape for number, layer in enumerate(about.layers) for name, shape in _shapes(number, layer)
    }
    for block in about.caches:
        wanted |= dict.fromkeys((f"key.{block}", f"value.{block}"), ("F64", (2, None, None)))
    if wanted.keys() != file.arrays.keys():
        raise _damaged(path, "it lacks figures, or has some that nobody asks for")
    for name, (dtype, shape) in wanted.items():
        if not file.arrays[name].fits(dtype, shape):
            raise _damaged(path, f"{name} is not of the type or the shape that it should be")
    return about


def _shapes(number: int, about: LayerAbout) -> Iterator[tuple[str, tuple[str, tuple[int | None, ...]]]]:
    """Name, type and shape of each array of a layer; None: any number."""
    columns = about.columns
    yield f"{number}.channels", ("F64", (CHANNELS, columns))
    yield f"{number}.beyond", ("F64", (columns,))
    yield f"{number}.percentiles", ("F32", (len(PERCENTS), columns))
    yield f"{number}.bins", ("I64", (None,))
    yield f"{number}.counts", ("I64", (None,))
    yield f"{number}.batches", ("F64", (None, 2))
    if about.whole:
        yield f"{number}.rows", ("F32", (about.rows, columns))
        yield f"{number}.places", ("I64", (about.rows, 3))


def _damaged(path: Path, what: str) -> CalibrationError:
    return CalibrationError(f"{path}: the file is damaged ({what}); make it anew.")
