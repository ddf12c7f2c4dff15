"""What reaches each matrix of a model while it runs: squares of its input columns, summed.

Method. While a block runs, every matrix product that torch's functions are asked for is looked at before it
is done: the storage of its weight tells which of the block's parameters it is, and where in a stack, which
expert. So it is seen what really is multiplied, whatever code of an architecture asks for it, and routing
needs not be understood. (A hook on a module would not do: the experts of transformers 5 are one module.)
Experts are run one by one for that. A parameter that no product was seen of is an error, never a zero.

Squares are summed in float64 over the tokens of a batch, then batch by batch in their order: the sums do not
depend on where a job was broken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from engine.api.errors import CalibrationError
from engine.architectures import Architecture
from engine.calibration.importance import Entry

OPERANDS = {
    nn.functional.linear: (0, 1),
    torch.addmm: (1, 2),  # GPT-2's layers: weights the other way round
    torch.Tensor.matmul: (0, 1),  # `@`, as in Falcon
    torch.matmul: (0, 1),
}
"""Functions that multiply states with a weight, and the places of the two among their arguments."""


@dataclass(frozen=True)
class Target:
    """A matrix, or a stack of them, that is to be watched: `name` in GGUF, `parameter` in its module.

    Several that are one parameter in transformers (gate and up) see the same.
    """

    name: str
    parameter: str
    matrices: int
    columns: int


class Sums:
    """Sums and counts of some targets, in one float64 array that can be added to another and stored."""

    def __init__(self, targets: Sequence[Target], values: np.ndarray | None = None) -> None:
        self._targets = list(targets)
        self.values = np.zeros(self.length(targets)) if values is None else values
        self._views: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        at = 0
        for target in targets:
            middle = at + target.matrices * target.columns
            sums = self.values[at:middle].reshape(target.matrices, target.columns)
            at = middle + target.matrices
            self._views[target.name] = sums, self.values[middle:at]

    @staticmethod
    def length(targets: Sequence[Target]) -> int:
        return sum(target.matrices * (target.columns + 1) for target in targets)

    def add(self, name: str, matrix: int, squares: np.ndarray, tokens: int) -> None:
        sums, counts = self._views[name]
        sums[matrix] += squares
        counts[matrix] += tokens

    def entries(self) -> dict[str, Entry]:
        return {
            name: Entry(sums.astype(np.float32), np.rint(counts).astype(np.int64))
            for name, (sums, counts) in self._views.items()
        }

    def check(self, where: str) -> None:
        """Raise `CalibrationError` for a target that nothing was seen of, or no finite number."""
        for name, (sums, counts) in self._views.items():
            if not counts.any():
                raise CalibrationError(
                    f"{where}: it cannot be seen what reaches {name} in this architecture, so no importance "
                    "can be gathered; take a matrix made by llama-imatrix."
                )
            if not np.isfinite(sums).all():
                raise CalibrationError(
                    f"{where}: what reaches {name} is not finite (NaN or infinity); the weights before it "
                    "are damaged, or too large for float32: check the model."
                )


class Watcher(TorchFunctionMode):
    """While it is entered, `see` is given what reaches the targets' matrices, which `module` holds."""

    def __init__(self, targets: Sequence[Target], module: nn.Module) -> None:
        super().__init__()
        self._targets: dict[int, tuple[torch.Tensor, list[Target]]] = {}
        for target in targets:
            weight = module.get_parameter(target.parameter)
            self._targets.setdefault(_storage(weight), (weight, []))[1].append(target)

    def see(self, states: torch.Tensor, matrix: int, own: list[Target]) -> None:
        """`states` [..., columns] are about to be multiplied with that matrix of the targets `own`."""
        raise NotImplementedError

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if function in OPERANDS:
            states, weight = (arguments[place] for place in OPERANDS[function])
            if (found := self._targets.get(_storage(weight))) is not None:
                whole, own = found
                matrix = weight.storage_offset() // whole.stride(0) if own[0].matrices > 1 else 0
                self.see(states, matrix, own)
        return function(*arguments, **(named or {}))


class SumsWatcher(Watcher):
    """Sums what reaches the targets' matrices."""

    def __init__(self, targets: Sequence[Target], module: nn.Module) -> None:
        super().__init__(targets, module)
        self._all = targets
        self._sums = Sums(targets)
        self._last: tuple[torch.Tensor, np.ndarray] | None = None

    def restart(self) -> Sums:
        """What was seen until now; it begins again from nothing."""
        seen, self._sums, self._last = self._sums, Sums(self._all), None
        return seen

    def see(self, states: torch.Tensor, matrix: int, own: list[Target]) -> None:
        squares = self._squares(states)
        for target in own:
            self._sums.add(target.name, matrix, squares, states.numel() // states.shape[-1])

    def _squares(self, states: torch.Tensor) -> np.ndarray:
        """Sums of squares by column, float64; query, key and value are asked for the same states."""
        if self._last is None or self._last[0] is not states:
            rows = states.detach().reshape(-1, states.shape[-1]).numpy()
            self._last = states, np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        return self._last[1]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def block_targets(architecture: Architecture, config: Any, blocks: Sequence[nn.Module]) -> list[list[Target]]:
    """For each block the matrices that its states are multiplied with, in the order of the architecture."""
    found: list[list[Target]] = [[] for _ in blocks]
    for place in architecture.places(config):
        if place.block is None:
            continue
        parameter = place.weight.module.partition("{block}.")[2].replace("{part}", "0")
        if blocks[place.block].get_parameter(parameter).ndim > 1:  # else a norm, a bias
            matrices = prod(place.shape[:-2]) if len(place.shape) > 2 else 1
            found[place.block].append(Target(place.canonical, parameter, matrices, place.shape[-1]))
    return found
