"""What flows through a block while it runs: what reaches each matrix, what leaves it, keys and values.

Matrices that are multiplied with the same states (query, key and value; gate and up) share one tally. Rows
of an expert are the tokens that the router chose: their places are those by which the states were picked
just before. Keys and values are taken where attention multiplies them, behind the rotary embedding; where
several query heads share one, it is counted once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.api.errors import CalibrationError
from engine.calibration.array_files import Array
from engine.calibration.collecting import Target, Watcher
from engine.calibration.tallies import NOWHERE, Tally, no_range

ATTENTION = nn.functional.scaled_dot_product_attention
PRODUCTS = (torch.matmul, torch.Tensor.matmul)


@dataclass
class BlockTally:
    """Of one block. `tallies` by place: that of the first of the targets that see it, or of the output.

    `shared`: for each target the place that it shares. The output's place is behind those of the targets.
    `cache` by "key" and "value": float64 [2, heads, head size], the least and the largest.
    """

    targets: Sequence[Target]
    room: int
    seed: int
    tallies: dict[int, Tally] = field(default_factory=dict)
    shared: dict[int, int] = field(default_factory=dict)
    cache: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def output(self) -> int:
        return len(self.targets)

    def begin_batch(self) -> None:
        for tally in self.tallies.values():
            tally.begin_batch()

    def at(self, place: int, columns: int) -> Tally:
        """The tally of a place, made where there is none yet."""
        if place not in self.tallies:
            self.tallies[place] = Tally.empty(columns, self.room, self.seed)
            self.tallies[place].begin_batch()
            self.shared[place] = place
        return self.tallies[place]

    def names(self, place: int, block: int) -> list[str]:
        """What is seen there."""
        if place == self.output:
            return [f"blk.{block}.output"]
        return [self.targets[target].name for target, at in sorted(self.shared.items()) if at == place]

    def add_cache(self, what: str, states: np.ndarray) -> None:
        """`states` float32 [windows, heads, length, head size]."""
        held = self.cache.setdefault(what, no_range(states.shape[1], states.shape[3]))
        np.minimum(held[0], states.min(axis=(0, 2)), out=held[0])
        np.maximum(held[1], states.max(axis=(0, 2)), out=held[1])

    def arrays(self) -> dict[str, Array]:
        """All that it knows, for a file."""
        found: dict[str, Array] = {"shared": np.array(list(self.shared.items()), np.int64).reshape(-1, 2)}
        found |= {f"cache.{what}": array for what, array in self.cache.items()}
        for place, tally in self.tallies.items():
            found |= tally.arrays(f"{place}.")
        return found

    def restore(self, names: Sequence[str], read: Callable[[str], np.ndarray]) -> None:
        """Take what `arrays` gave."""
        self.shared = {int(target): int(place) for target, place in read("shared")}
        self.cache = {name.partition(".")[2]: read(name) for name in names if name.startswith("cache.")}
        places = sorted(set(self.shared.values()))
        self.tallies = {place: Tally.from_arrays(f"{place}.", read) for place in places}


@dataclass(frozen=True)
class Batch:
    """Windows from `first` on that go through a block, of `length` tokens each; `where` names them."""

    first: int
    windows: int
    length: int
    where: str

    @property
    def places(self) -> np.ndarray:
        """int64 [tokens, 2]: window and position of each."""
        windows, positions = np.divmod(np.arange(self.windows * self.length), self.length)
        return np.column_stack([windows + self.first, positions])


class FlowWatcher(Watcher):
    """While it is entered, what flows through `module` goes into `tally`, once `begin` has told the batch."""

    def __init__(self, module: nn.Module, tally: BlockTally, heads: int) -> None:
        """`heads`: those of keys and values that the model keeps."""
        super().__init__(tally.targets, module)
        self._module, self._tally, self._heads = module, tally, heads
        self._numbers = {target.name: number for number, target in enumerate(tally.targets)}
        self._batch: Batch | None = None
        self._last: tuple[int, torch.Tensor] | None = None
        self._picked: torch.Tensor | None = None
        self._queried = False

    def begin(self, batch: Batch | None) -> None:
        """The batch that goes through next; None: one that is not looked at."""
        self._batch, self._last, self._picked, self._queried = batch, None, None, False
        if batch is not None:
            self._places = batch.places
            self._tally.begin_batch()

    def __enter__(self) -> "FlowWatcher":
        self._hook = self._module.register_forward_hook(self._leave)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hook.remove()

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if self._batch is not None:
            if function is ATTENTION:
                self._see_cache("key", arguments[1])
                self._see_cache("value", arguments[2])
            elif function in PRODUCTS and arguments[0].ndim == arguments[1].ndim == 4:
                # Attention step by step: queries with keys, then shares with values.
                what, states = ("value", arguments[1]) if self._queried else ("key", arguments[1].mT)
                self._queried = not self._queried
                self._see_cache(what, states)
            elif function is torch.Tensor.__getitem__ and _picks(arguments[1], len(self._places)):
                self._picked = arguments[1]
        return super().__torch_function__(function, types, arguments, named)

    def see(self, states: torch.Tensor, matrix: int, own: list[Target]) -> None:
        if self._batch is None:
            return
        for target in own:
            number = self._numbers[target.name]
            seen = self._last[0] if self._last is not None and self._last[1] is states else None
            place = self._tally.shared.setdefault(number, number if seen is None else seen)
            if seen != place:
                self._last = place, states
                self._add(place, target.name, states, matrix)

    def _leave(self, module: nn.Module, arguments: Any, result: Any) -> None:
        if self._batch is not None:
            states = result[0] if isinstance(result, tuple) else result
            self._add(self._tally.output, "the output of a block", states)

    def _add(self, place: int, name: str, states: torch.Tensor, matrix: int = 0) -> None:
        assert self._batch is not None, "who calls has looked"
        rows = np.ascontiguousarray(states.detach().reshape(-1, states.shape[-1]).numpy())
        try:
            self._tally.at(place, rows.shape[1]).add(rows, self._places_of(len(rows)), matrix)
        except FloatingPointError:
            raise CalibrationError(
                f"{self._batch.where}: what reaches {name} is not finite (NaN or infinity); the weights "
                "before it are damaged, or too large for float32: check the model."
            ) from None

    def _places_of(self, rows: int) -> np.ndarray:
        """int64 [rows, 2]: where the tokens of rows are in the text."""
        if rows == len(self._places):
            return self._places
        if self._picked is not None and len(self._picked) == rows:
            return self._places[self._picked.numpy()]
        return np.full((rows, 2), NOWHERE)

    def _see_cache(self, what: str, states: torch.Tensor) -> None:
        """`states` [windows, heads, length, head size]."""
        shared = states.shape[1] // self._heads if states.shape[1] % self._heads == 0 else 1
        self._tally.add_cache(what, states.detach()[:, ::shared].numpy())


def kept_heads(config: Any) -> int:
    """Heads of keys and values that a model of transformers' `config` keeps; Falcon has its own name."""
    names = ("num_key_value_heads", "num_kv_heads", "num_attention_heads")
    return next(heads for name in names if (heads := getattr(config, name, None)))


def _picks(index: Any, tokens: int) -> bool:
    """Whether the index picks tokens of a batch of so many, one by one."""
    return (
        isinstance(index, torch.Tensor) and index.ndim == 1 and not index.is_floating_point()
        and index.dtype != torch.bool and 0 < len(index) <= tokens
    )  # fmt: skip
