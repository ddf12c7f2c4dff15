"""Every architecture: something reaches each matrix of each block, whatever its code calls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.architectures import ARCHITECTURES, architecture_of, transformers_view
from engine.calibration.collecting import SumsWatcher, block_targets
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
            with model.block(index), SumsWatcher(targets[index], model.blocks[index]) as watcher:
                states = model.run(index, states)
            seen = watcher.restart()
            seen.check("here")
            assert all(entry.sums.sum() > 0 for entry in seen.entries().values())
    matrices = {
        tensor.name for tensor in export.tensors if tensor.block is not None and len(tensor.shape) > 1
    }
    assert {target.name for of_block in targets for target in of_block} == matrices
