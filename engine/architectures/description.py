"""What the project must know of an architecture to move it between transformers and GGUF, as a table.

An architecture is a list of hyper-parameters (config attribute, GGUF key) and a list of weights
(GGUF name, name of transformers' parameter, shape in named sizes, transform). Both directions,
Hugging Face folder to GGUF and GGUF to transformers' modules, read the same table. To add one, write a
module in `families`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import named

Config = Any
"""A `transformers.PretrainedConfig`; not imported, so that this module loads without torch."""
Metadata = dict[str, GgufValue]
Order = Callable[[Config, int], np.ndarray]
"""(config, rows) -> int64 [rows]: row i of the GGUF tensor is row order[i] of transformers' tensor."""
Refusal = Callable[[Config], str | None]
"""Why llama.cpp cannot compute a model of this config, to stand behind "cannot be exported: ", or None."""

SILU = ("silu", "swish")
GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""llama.cpp has one GELU, the tanh approximation (a table in float16), for all of these."""


@dataclass(frozen=True)
class Key:
    """A hyper-parameter: the config's attribute and the GGUF key behind "<architecture>.".

    `value` computes what is written where it is not the attribute itself; None leaves the key out. Without
    an attribute (`config` None) the key is not read back. `least` is the smallest whole number allowed.
    """

    config: str | None
    gguf: str
    type: GGUFValueType = GGUFValueType.UINT32
    value: Callable[[Config], Any] | None = None
    least: int = 1

    def of(self, config: Config) -> Any:
        """What `config` says, or None for no key."""
        if self.value is not None:
            return self.value(config)
        return getattr(config, self.config or "")

    @property
    def needed(self) -> str:
        """In words, what a value must be."""
        if self.type == GGUFValueType.UINT32:
            return f"a whole number from {self.least} to 2^32 - 1"
        return {
            GGUFValueType.BOOL: "true or false",
            GGUFValueType.STRING: "a text",
            GGUFValueType.FLOAT32: "a positive number",
        }[self.type]

    def allows(self, value: Any) -> bool:
        """Whether `value` is of the type, and of a size that a model can have."""
        if self.type == GGUFValueType.UINT32:
            return type(value) is int and self.least <= value < 1 << 32
        if self.type == GGUFValueType.FLOAT32:
            return type(value) in (int, float) and 0 < value < float("inf")
        return type(value) is (bool if self.type == GGUFValueType.BOOL else str)


@dataclass(frozen=True)
class Weight:
    """One weight per model, or per block where the names hold "{block}".

    `shape` names sizes of `Architecture.sizes`, NumPy order. Weights that share a `module` are parts of one
    parameter of transformers, stacked in table order along its last axis but one; a `module` with "{part}"
    is one parameter for each of the weight's first axis.

    The transform from transformers' tensor to GGUF's: transpose (`transposed`), choose rows (`order`), add
    `plus` to every value. `when` says which models have the weight.
    """

    canonical: str
    module: str
    shape: tuple[str, ...]
    order: Order | None = None
    transposed: bool = False
    plus: float = 0.0
    when: Callable[[Config], bool] = lambda config: True


def in_blocks(prefix: str) -> Callable[..., Weight]:
    """A maker of weights of a block, by (GGUF name behind "blk.N.", parameter behind `prefix`, *shape)."""

    def weight(canonical: str, module: str, *shape: str, **rest: Any) -> Weight:
        return Weight("blk.{block}." + canonical, prefix + module, shape, **rest)

    return weight


def bias_of(weight: Weight, when: Callable[[Config], bool] | None = None) -> Weight:
    """The bias of a matrix or norm: names by the usual rule, a vector in the order of the matrix's rows."""
    return replace(
        weight,
        canonical=weight.canonical.removesuffix("weight") + "bias",
        module=weight.module.removesuffix("weight") + "bias",
        shape=weight.shape[:1],
        transposed=False,
        plus=0.0,
        when=when or weight.when,
    )


def with_bias(*weights: Weight) -> tuple[Weight, ...]:
    """Each weight and, behind it, its bias."""
    return tuple(part for weight in weights for part in (weight, bias_of(weight)))


@dataclass(frozen=True)
class Place:
    """A weight of one block of one model: names filled in, shape in numbers, order computed on demand.

    `part` (first, of): where transformers' parameter holds more than this weight, which rows of its last
    axis but one this weight is: those from `first` on, of so many.
    """

    canonical: str
    module: str
    shape: tuple[int, ...]
    block: int | None
    weight: Weight
    part: tuple[int, int] | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """As transformers has it."""
        return self.shape[::-1] if self.weight.transposed else self.shape

    @property
    def modules(self) -> tuple[str, ...]:
        """The parameter, or one for each of the first axis."""
        if "{part}" not in self.module:
            return (self.module,)
        return tuple(self.module.format(part=part) for part in range(self.shape[0]))

    def order(self, config: Config) -> np.ndarray | None:
        """int64 [rows] (for a vector: [elements]) as `Order` says, or None where rows keep their order."""
        if self.weight.order is None:
            return None
        return self.weight.order(config, self.shape[-2] if len(self.shape) > 1 else self.shape[0])

    def undone(self, config: Config, weights: np.ndarray) -> np.ndarray:
        """transformers' tensor(s), float32 `stored_shape`, from GGUF's `weights`, float32 `shape`."""
        order = self.order(config)
        if order is not None:
            reordered = np.empty_like(weights)
            reordered[order] = weights
            weights = reordered
        if self.weight.plus:
            weights = weights - np.float32(self.weight.plus)
        return np.ascontiguousarray(weights.T) if self.weight.transposed else weights


@dataclass(frozen=True)
class Rope:
    """What llama.cpp's graph of an architecture can rotate; all can scale by "linear" and by plain "yarn".

    `partial`: a part of each head. `divisors`: each frequency divided by an element of `rope_freqs.weight`.
    `factors`: longrope's lists for short and long contexts. `local`: the layers with a sliding window have a
    base of their own and no scaling; transformers nests its parameters by the kind of attention.
    """

    partial: bool = False
    divisors: bool = False
    factors: bool = False
    local: bool = False


@dataclass(frozen=True)
class Architecture:
    """`name` is transformers' model_type, `gguf` the architecture's name in GGUF.

    `also` are model types of which it is the text model. `sizes` gives the numbers that shapes name.
    `refusal` says why llama.cpp's graph cannot compute this config (None: it can); `notes` tells the reader
    what it computes differently. `rope` is None where positions are learned. `own_output`: llama.cpp wants
    `output.weight` even where it is the embedding again. `from_gguf` turns what GGUF shows by its metadata
    and tensors' names (biases, …) into config attributes; `chosen` tells apart architectures that share a
    GGUF name: it holds for one of them at most.
    """

    name: str
    gguf: str
    keys: tuple[Key, ...]
    weights: tuple[Weight, ...]
    sizes: Callable[[Config], dict[str, int]]
    refusal: Refusal
    notes: Callable[[Config], list[str]] = field(default=lambda config: [])
    rope: Rope | None = Rope()
    also: tuple[str, ...] = ()
    own_output: bool = False
    from_gguf: Callable[[Metadata, set[str]], dict[str, Any]] = field(default=lambda metadata, names: {})
    chosen: Callable[[Metadata], bool] = field(default=lambda metadata: True)

    def places(self, config: Config) -> Iterator[Place]:
        """Every weight that a model of this config has, "output.weight" included; whole-model ones first."""
        yield from self._places(config, None)
        for block in range(config.num_hidden_layers):
            yield from self._places(config, block)

    def stacked_in(self, module: str, block: int | None) -> list[str]:
        """GGUF's names of the weights that transformers' parameter `module` holds, where they are several."""
        found = [
            weight.canonical.format(block=block)
            for weight in self.weights
            if weight.module.format(block=block, part="{part}") == module
        ]
        return found if len(found) > 1 else []

    def _places(self, config: Config, block: int | None) -> Iterator[Place]:
        sizes = self.sizes(config)
        present = [
            weight
            for weight in self.weights
            if ("{block}" in weight.canonical) is (block is not None) and weight.when(config)
        ]
        for weight in present:
            beside = [other for other in present if other.module == weight.module]
            heights = [sizes[other.shape[-2]] for other in beside if len(beside) > 1]
            yield Place(
                weight.canonical.format(block=block),
                weight.module.format(block=block, part="{part}"),
                tuple(sizes[name] for name in weight.shape),
                block,
                weight,
                (sum(heights[: beside.index(weight)]), sum(heights)) if heights else None,
            )


def head_size(config: Config) -> int:
    """Values of one attention head; some configs leave it to follow from the others."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def other_activation(config: Config, attribute: str, known: tuple[str, ...]) -> str | None:
    """A refusal where the config's activation is not one of `known` names of llama.cpp's."""
    activation = getattr(config, attribute)
    if activation in known:
        return None
    return (
        f'{attribute} is "{named(activation)}", '
        f'and llama.cpp computes this architecture with "{known[0]}" only'
    )
