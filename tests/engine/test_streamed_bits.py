"""The same batch through the same blocks gives the same bits: in any order, at any place in memory."""

import numpy as np
import pytest
import torch

from engine.architectures import transformers_view
from engine.checkpoint import open_checkpoint
from engine.streaming import StreamedModel, stream
from tests.engine.test_streaming import (
    MODELS,
    Held,
    nothing,
    save_model,
    streamed,
    streamed_logits,
    windows,
)
from tests.tiny import write_llama


def test_the_same_windows_give_the_same_bits(tmp_path):
    folder = write_llama(tmp_path / "model", tokenizer=None)
    tokens = windows(45, 100)
    first = streamed_logits(folder, tokens)
    assert torch.equal(streamed_logits(folder, tokens), first)


@pytest.mark.parametrize("kind", ["qwen2", "bloom"])
def test_batches_go_on_one_by_one_from_wherever_they_stand(tmp_path, kind):
    """As after a kill: one is through, one was never begun, one is behind a block, the last is another shape.

    Bloom's blocks return tuples, which a model that runs no block has to know, too.
    """
    folder = save_model(tmp_path / "model", kind, **MODELS[kind])
    tokens = windows(34 * 3 + 5, 60)
    with open_checkpoint(folder) as checkpoint:
        whole, records = Held(), {}
        model = StreamedModel(transformers_view(checkpoint), "model")
        stream(
            model, tokens, whole, range(4), lambda block, count: records.update({block: dict(whole.states)})
        )
        with model.head():
            logits = model.logits(whole.get(3)[4])
        held = Held()
        held.states = {0: whole.states[0], 2: records[0][2], 3: records[2][3]}
        again = StreamedModel(transformers_view(checkpoint), "model")
        stream(again, tokens, held, range(4), nothing)
        assert held.done == [(0, 1), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]
        assert all(torch.equal(held.get(batch), whole.get(batch)) for batch in range(4))
        fresh = StreamedModel(transformers_view(checkpoint), "model")
        held.done.clear()
        stream(fresh, tokens, held, [1, 3], nothing)
        assert held.done == []
        with fresh.head():
            assert torch.equal(fresh.logits(held.get(3)[4]), logits)


def test_where_an_array_of_weights_begins_does_not_change_the_bits(tmp_path):
    folder = write_llama(tmp_path / "model", tokenizer=None)
    tokens = windows(3, 100)
    results = []
    with open_checkpoint(folder) as checkpoint:
        for offset in (0, 4, 16, 52):
            model = StreamedModel(Shifted(transformers_view(checkpoint), offset), "model")
            results.append(streamed(model, tokens))
            with model.block(0) as block:
                assert {parameter.data_ptr() % 64 for parameter in block.parameters()} == {0}
    assert all(torch.equal(result, results[0]) for result in results)


class Shifted:
    """A source whose arrays begin `offset` bytes behind the beginning of a cache line."""

    def __init__(self, source, offset: int) -> None:
        self.config, self.names = source.config, source.names
        self.source, self.offset = source, offset

    def read(self, name: str) -> np.ndarray:
        array = self.source.read(name)
        room = np.empty(array.size + 64, np.float32)
        start = (-room.ctypes.data % 64 + self.offset) // 4
        shifted = room[start : start + array.size].reshape(array.shape)
        shifted[...] = array
        return shifted
