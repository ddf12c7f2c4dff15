"""What the project must know of an architecture to move it between transformers and GGUF, as a table.

An architecture is a list of hyper-parameters (config attribute, GGUF key) and a list of weights
(GGUF name, name of transformers' parameter, shape in named sizes, order of rows). Both directions,
Hugging Face folder to GGUF and GGUF to transformers' modules, read the same table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gguf import GGUFValueType

from engine.api.gguf import GgufValue

Config = Any
"""A `transformers.PretrainedConfig`; not imported, so that this module loads without torch."""
Metadata = dict[str, GgufValue]
Order = Callable[[Config, int], np.ndarray]
"""(config, rows) -> int64 [rows]: row i of the GGUF tensor is row order[i] of transformers' tensor."""


@dataclass(frozen=True)
class Key:
    """A hyper-parameter: the config's attribute and the GGUF key behind "<architecture>."."""

    config: str
    gguf: str
    type: GGUFValueType = GGUFValueType.UINT32


@dataclass(frozen=True)
class Weight:
    """One weight per model, or per block where the names hold "{block}".

    `shape` names sizes of `Architecture.sizes`, NumPy order. Weights that share a `module` are parts
    of one parameter of transformers, stacked in table order along its last axis but one.
    """

    canonical: str
    module: str
    shape: tuple[str, ...]
    order: Order | None = None
    when: Callable[[Config], bool] = lambda config: True


@dataclass(frozen=True)
class Place:
    """A weight of one block of one model: names filled in, shape in numbers, order computed on demand."""

    canonical: str
    module: str
    shape: tuple[int, ...]
    block: int | None
    weight: Weight

    def order(self, config: Config) -> np.ndarray | None:
        """int64 [rows] (for a vector: [elements]) as `Order` says, or None where rows keep their order."""
        if self.weight.order is None:
            return None
        return self.weight.order(config, self.shape[-2] if len(self.shape) > 1 else self.shape[0])


@dataclass(frozen=True)
class Architecture:
    """`name` is transformers' model_type, `gguf` the architecture's name in GGUF.

    `sizes` gives the numbers that shapes name. `refusal` says why llama.cpp's graph cannot compute
    this config (None: it can); `notes` tells the reader what it computes differently.
    `from_gguf` turns what GGUF shows by its tensors alone (biases, …) into config attributes;
    `chosen` tells apart architectures that share a GGUF name.
    """

    name: str
    gguf: str
    keys: tuple[Key, ...]
    weights: tuple[Weight, ...]
    sizes: Callable[[Config], dict[str, int]]
    refusal: Callable[[Config], str | None]
    notes: Callable[[Config], list[str]] = field(default=lambda config: [])
    from_gguf: Callable[[set[str]], dict[str, Any]] = field(default=lambda names: {})
    chosen: Callable[[Metadata], bool] = field(default=lambda metadata: True)

    def places(self, config: Config) -> Iterator[Place]:
        """Every weight that a model of this config has, "output.weight" included; whole-model ones first."""
        yield from self._places(config, None)
        for block in range(config.num_hidden_layers):
            yield from self._places(config, block)

    def _places(self, config: Config, block: int | None) -> Iterator[Place]:
        sizes = self.sizes(config)
        for weight in self.weights:
            if ("{block}" in weight.canonical) is (block is not None) and weight.when(config):
                yield Place(
                    weight.canonical.format(block=block),
                    weight.module.format(block=block),
                    tuple(sizes[name] for name in weight.shape),
                    block,
                    weight,
                )
