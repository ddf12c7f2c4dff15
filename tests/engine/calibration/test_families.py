"""Every architecture: something reaches each matrix of each block, whatever its code calls."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.architectures import ARCHITECTURES, architecture_of, transformers_view
from engine.calibration.collecting import SumsWatcher, Target, block_targets
from engine.calibration.flows import Batch, BlockTally, FlowWatcher, kept_heads
from engine.checkpoint import open_checkpoint
from engine.export.gguf import plan_export
from engine.streaming import StreamedModel
from tests.engine.export.families import FAMILIES, write_family
from tests.engine.export.random_models import write_random

MORE = {
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 96,
    },
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "head_dim": 16,
        "norm_topk_prob": True,
    },
    "granite": {"logits_scaling": 2.0},
}
TOKENS = np.arange(2 * 40).reshape(2, 40)


def flowed(
    model: StreamedModel, index: int, block: nn.Module, targets: list[Target], states: torch.Tensor
) -> BlockTally:
    """What flows through a block; its keys and values were seen, of as many heads as it keeps."""
    tally = BlockTally(targets, room=100, seed=0)
    with FlowWatcher(block, tally, kept_heads(model.config)) as watcher:
        watcher.begin(Batch(0, *TOKENS.shape, "here"))
        model.run(index, states)
    heads = {"falcon": 1, "gpt2": 4, "gpt_neox": 4}.get(model.config.model_type, 0)
    for ranges in (tally.cache["key"], tally.cache["value"]):
        assert ranges.shape[:2] == (2, heads or model.config.num_key_value_heads)
        assert (ranges[0] < ranges[1]).all()
    return tally


@pytest.mark.parametrize("name", [architecture.name for architecture in ARCHITECTURES])
def test_all_matrices_are_seen(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if name in FAMILIES:
        write_family(folder, name)
    else:
        write_random(folder, name, **MORE.get(name, {}))
    with open_checkpoint(folder) as checkpoint, torch.no_grad():
        export = plan_export(checkpoint)
        model = StreamedModel(transformers_view(checkpoint), str(folder))
        model.run_experts_one_by_one()
        targets = block_targets(architecture_of(checkpoint), model.config, model.blocks)
        with model.embedding():
            states = model.embed(TOKENS)
        for index in range(model.block_count):
            with model.block(index) as block:
                flows = flowed(model, index, block, targets[index], states)
                with SumsWatcher(targets[index], block) as watcher:
                    states = model.run(index, states)
            seen = watcher.restart()
            seen.check("here")
            entries = seen.entries()
            assert all(entry.sums.sum() > 0 for entry in entries.values())
            for number, target in enumerate(targets[index]):
                tally, entry = flows.tallies[flows.shared[number]], entries[target.name]
                assert tally.rows == entry.counts.sum()
                squares = (tally.channels.std**2 + tally.channels.mean**2) * tally.rows
                assert np.allclose(squares, entry.sums.sum(axis=0), rtol=1e-3, atol=1e-4), target.name
                assert tally.peaks[0, 1] in (0, 1), "the token's window is known"
            assert np.array_equal(flows.tallies[flows.output].high, states.numpy().max(axis=(0, 1)))
    matrices = {
        tensor.name for tensor in export.tensors if tensor.block is not None and len(tensor.shape) > 1
    }
    assert {target.name for of_block in targets for target in of_block} == matrices
