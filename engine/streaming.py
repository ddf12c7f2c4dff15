"""Runs a model one transformer block at a time over many windows of tokens, in bounded memory.

Method. transformers builds the whole model on torch's meta device, where parameters take no memory. Its own
forward pass then runs with the blocks replaced by recorders: that gives the hidden states that enter the
first block, and the exact arguments (masks, rotary embeddings) that each block gets. Block by block the
weights are read, all windows go through, and the weights are released. For the logits the same forward pass
runs once more on a few positions, with the blocks replaced by the finished hidden states, so that the final
norm, the head and whatever an architecture does to its logits are those of transformers too.

In memory at a time, all float32: one block or the embedding matrix or that of the head, and the activations
of one batch of windows. The hidden states of the others lie where the caller keeps them (`States`).

A batch is a fixed number of windows, no batch looks at another, and arrays begin at fixed places in a cache
line: the same batch through the same blocks gives the same bits, in whichever process and order.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.api.errors import EvaluationError
from engine.weights import ModuleWeights, WeightSource

BATCH_TOKENS = 2048
"""Windows go through a block in batches of about so many tokens: enough to fill the cores."""

CACHE_LINE = 64
"""Bytes. Where in one an array begins can decide the last bits of a product with it."""

OWN_PAGES = 32 << 20
"""Bytes from which the C library gives an array pages of its own: it then begins at one place in any case."""


class UnstreamableModelError(EvaluationError):
    """An architecture whose forward pass is not a plain chain of blocks."""


class _Recorded(Exception):  # noqa: N818 - ends a pass, is no error
    """Ends a forward pass once the last block has been called."""


class States(Protocol):
    """Keeps the hidden states of batches of windows, float32 [windows, length, width] each."""

    def step(self, batch: int) -> int:
        """How far the batch has come: 0 embedded, n behind n blocks, -1 nowhere yet."""
        ...

    def get(self, batch: int) -> torch.Tensor: ...

    def put(self, batch: int, step: int, states: torch.Tensor) -> None: ...


class StreamedModel:
    """A decoder model, a block at a time.

    In this order, a batch of windows at a time: `with model.embedding(): model.embed(tokens)`, for each block
    `with model.block(i): model.run(i, states)` (`stream` does both), at last
    `with model.head(): model.logits(states[window, positions])`.
    """

    def __init__(self, source: WeightSource, name: str) -> None:
        """`name` says in errors which model is meant. Raises UnstreamableModelError, MissingTensorError."""
        self.name = name
        self._model = _empty_model(source.config, name)
        path, self._blocks = _find_blocks(self._model, name)
        self._weights = ModuleWeights(self._model, _Aligned(source), name)
        embedding = self._keys_of(self._model.get_input_embeddings())
        head = self._keys_of(self._model.get_output_embeddings())
        self._embedding_keys = [key for key in self._weights.keys if key in embedding]
        self._head_keys = [key for key in self._weights.keys if key in head]
        self._block_keys: list[list[str]] = [
            [key for key in self._weights.keys if key.startswith(f"{path}.{i}.")]
            for i in range(len(self._blocks))
        ]
        apart = {*embedding, *head, *(key for keys in self._block_keys for key in keys)}
        # Final norms, learned positions: small, needed at both ends, so they stay.
        self._weights.load([key for key in self._weights.keys if key not in apart])
        self._calls: dict[tuple[int, int], list[tuple[tuple, dict]]] = {}
        self._blocks_return_tuples: bool | None = None

    @property
    def config(self) -> Any:
        """transformers' config of the model."""
        return self._model.config

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks as modules; their weights are there in `block` alone."""
        return list(self._blocks)

    def run_experts_one_by_one(self) -> None:
        """Multiply with the matrices of one expert at a time from now on, for who looks at each."""
        self._model.set_experts_implementation("eager")

    @property
    def block_count(self) -> int:
        return len(self._blocks)

    @property
    def vocabulary(self) -> int:
        """Columns of the logits."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @property
    def width(self) -> int:
        """Values of a hidden state."""
        return int(self._model.config.hidden_size)

    def batches(self, windows: int, length: int) -> Iterator[slice]:
        """The batches in which `windows` windows of `length` tokens go through."""
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, windows, size):
            yield slice(start, min(start + size, windows))

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Holds the embedding matrix while the context lasts."""
        with self._weights.loaded(self._embedding_keys):
            yield

    def embed(self, tokens: np.ndarray) -> torch.Tensor:
        """Hidden states before the first block, float32 [windows, length, width], of int64 [windows, length].

        The embedding must be loaded. Before other batches run, one of their shape must have been embedded in
        this process: that tells what the blocks are called with.
        """
        return self._record(torch.from_numpy(tokens))

    def knows(self, shape: tuple[int, ...]) -> bool:
        """Whether batches of that shape [windows, length] can run."""
        return shape in self._calls

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Block `index` with its weights in float32 while the context lasts; for hooks and changes, too."""
        with self._weights.loaded(self._block_keys[index]):
            yield self._blocks[index]

    def run(self, index: int, states: torch.Tensor) -> torch.Tensor:
        """Sends a batch's `states` [windows, length, width] through block `index`, which must be loaded."""
        arguments, named = self._calls[states.shape[0], states.shape[1]][index]
        result = self._blocks[index](states, *arguments, **named)
        self._blocks_return_tuples = isinstance(result, tuple)
        return result[0] if isinstance(result, tuple) else result

    @contextmanager
    def head(self) -> Iterator[nn.Module]:
        """The module of the output matrix, with it while the context lasts."""
        with self._weights.loaded(self._head_keys):
            yield self._model.get_output_embeddings()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits float32 [positions, vocabulary] for `hidden` [positions, width] behind the last block.

        The head must be loaded, and a batch have been embedded in this process. Positions are independent of
        each other.
        """

        def given(index: int, states: torch.Tensor, arguments: tuple, named: dict) -> torch.Tensor:
            return hidden[None] if index == 0 else states

        width = self._model.get_input_embeddings().weight.shape[1]
        nothing = torch.zeros(1, len(hidden), width)
        with self._blocks_replaced(given, bool(self._blocks_return_tuples)):
            return self._model(inputs_embeds=nothing, use_cache=False).logits[0]

    def _keys_of(self, module: nn.Module | None) -> set[str]:
        if module is None:
            raise UnstreamableModelError(
                f"{self.name} has no token embedding or no output head that transformers names."
            )
        path = next(name for name, candidate in self._model.named_modules() if candidate is module)
        return {key for key in self._weights.keys if key.startswith(f"{path}.")}

    def _record(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states before the first block of [batch, length]; keeps what blocks are called with."""
        known = self._blocks_return_tuples
        for as_tuple in (False, True) if known is None else (known,):
            calls: list[tuple[tuple, dict]] = []
            first = self._run_recorders(tokens, calls, as_tuple)
            if first is not None:
                self._blocks_return_tuples = as_tuple
                break
        else:
            raise UnstreamableModelError(
                f"{self.name}: the blocks of a {self._model.config.model_type} model hand each other more "
                "than one array of hidden states, so it cannot be run one block at a time."
            )
        before = self._calls.setdefault((tokens.shape[0], tokens.shape[1]), calls)
        if not all(_same(old, new) for old, new in zip(before, calls, strict=True)):
            raise UnstreamableModelError(
                f"{self.name}: the blocks of a {self._model.config.model_type} model read the tokens "
                "themselves besides the hidden states, so it cannot be run one block at a time."
            )
        return first

    def _run_recorders(
        self, tokens: torch.Tensor, calls: list[tuple[tuple, dict]], as_tuple: bool
    ) -> torch.Tensor | None:
        """What enters the first block, or None where the blocks are not called as a plain chain."""
        entered: list[torch.Tensor] = []

        def record(index: int, states: torch.Tensor, arguments: tuple, named: dict) -> torch.Tensor:
            chained = index == len(calls) and (index == 0 or states is entered[0])
            if not chained or not _plain((*arguments, *named.values())):
                raise _Recorded(f"block {index}")
            entered.append(states)
            calls.append((arguments, named))
            if len(calls) == len(self._blocks):
                raise _Recorded
            return states

        with self._blocks_replaced(record, as_tuple):
            try:
                self._model(input_ids=tokens, use_cache=False)
            except _Recorded:
                pass
            except (IndexError, TypeError):  # a tensor unpacked as if it were a tuple, or the other way round
                return None
        return entered[0] if len(calls) == len(self._blocks) else None

    @contextmanager
    def _blocks_replaced(
        self, forward: Callable[[int, torch.Tensor, tuple, dict], torch.Tensor], as_tuple: bool
    ) -> Iterator[None]:
        """Calls of block `index` become calls of `forward(index, hidden states, other arguments)`.

        The modules stay in their places: an architecture may ask them for attributes before it calls them.
        """

        def replacement(index: int) -> Callable:
            def call(*arguments: Any, **named: Any) -> Any:
                if arguments:
                    result = forward(index, arguments[0], arguments[1:], named)
                else:
                    states = named.pop("hidden_states")
                    result = forward(index, states, (), named)
                return (result,) if as_tuple else result

            return call

        try:
            for index, block in enumerate(self._blocks):
                block.forward = replacement(index)
            yield
        finally:
            for block in self._blocks:
                del block.forward


def stream(
    model: StreamedModel,
    windows: np.ndarray,
    states: States,
    wanted: Iterable[int],
    after: Callable[[int, int], None],
    watch: Callable[[int, nn.Module], AbstractContextManager] = lambda block, module: nullcontext(),
) -> None:
    """Brings the batches `wanted` of `windows` (int64 [windows, length]) behind the last block.

    Each goes on from where it stands in `states`. `after(block, windows)` is called whenever a batch of so
    many windows has gone through that block. `watch(block, module)` is entered while batches go through it.
    """
    batches = list(model.batches(*windows.shape))
    wanted = list(wanted)
    with model.embedding():
        for batch in wanted:
            tokens = windows[batches[batch]]
            if states.step(batch) < 0:
                states.put(batch, 0, model.embed(tokens))
            elif not model.knows(tokens.shape):
                model.embed(tokens)
    for block in range(model.block_count):
        waiting = [batch for batch in wanted if states.step(batch) == block]
        if not waiting:
            continue
        with model.block(block) as module, watch(block, module):
            for batch in waiting:
                states.put(batch, block + 1, model.run(block, states.get(batch)))
                after(block, batches[batch].stop - batches[batch].start)


class _Aligned:
    """A source of weights whose arrays begin at a cache line, unless they are large."""

    def __init__(self, source: WeightSource) -> None:
        self.config, self.names = source.config, source.names
        self._source = source

    def read(self, name: str) -> np.ndarray:
        array = self._source.read(name)
        if array.ctypes.data % CACHE_LINE == 0 or array.nbytes >= OWN_PAGES:
            return array
        aligned = torch.empty(array.shape).numpy()  # torch allocates so
        aligned[...] = array
        return aligned


def _empty_model(config: Any, name: str) -> Any:
    """The model without weights: parameters on the meta device, computed buffers real."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        raise UnstreamableModelError(
            f"{name}: {config.model_type} is not a text model that predicts the next token, "
            "as far as the installed transformers knows, so it has no perplexity to measure."
        )
    config = copy.deepcopy(config)
    # A stored preference for a GPU's attention kernel must not decide here.
    config._attn_implementation = None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # a value that a module cannot take comes up as any kind of error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UnstreamableModelError(
            f"{name}: transformers cannot build the model that its configuration describes ({reason})."
        ) from error
    model.eval()
    _compute_buffers(model, name)
    return model


def _compute_buffers(model: Any, name: str) -> None:
    """Computes buffers that no checkpoint stores (rotary frequencies, scales) by transformers' own rules."""
    for key, buffer in list(model.named_non_persistent_buffers()):
        fill = float("nan") if buffer.is_floating_point() else 0
        path, _, leaf = key.rpartition(".")
        model.get_submodule(path)._buffers[leaf] = torch.full_like(buffer, fill, device="cpu")
    model.initialize_weights()
    for key, buffer in model.named_non_persistent_buffers():
        frequencies = key.endswith("inv_freq")  # masks may hold infinities
        if buffer.is_floating_point() and (buffer.isnan().any() or (frequencies and buffer.isinf().any())):
            raise UnstreamableModelError(
                f"{name}: transformers computes no usable {key} from the configuration; check its settings "
                "(of rotary positions, for instance)."
            )


def _find_blocks(model: Any, name: str) -> tuple[str, nn.ModuleList]:
    """Path and list of the blocks: the outermost list of as many modules as the config has layers."""
    count = model.config.num_hidden_layers
    lists = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList))
    path, module = next((found for found in lists if len(found[1]) == count), ("", None))
    if module is None:
        raise UnstreamableModelError(
            f"{name}: found no list of {count} blocks in a {model.config.model_type} model."
        )
    if any(getattr(part, "is_causal", True) is False for part in module.modules()):
        raise UnstreamableModelError(
            f"{name}: a {model.config.model_type} model looks at following tokens too, "
            "so it has no perplexity to measure."
        )
    return path, module


def _plain(value: Any) -> bool:
    """Whether a block's argument is a value that the block cannot change for the next block to see."""
    if isinstance(value, tuple | list):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return False
    return value is None or isinstance(value, torch.Tensor | bool | int | float | str)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, torch.Tensor):
        return isinstance(new, torch.Tensor) and torch.equal(old, new)
    if isinstance(old, tuple | list):
        return len(old) == len(new) and all(_same(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return bool(old == new)
