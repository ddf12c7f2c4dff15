"""Tiny random models of any architecture that transformers can make, as it saves them."""

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import write_bpe

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def write_random(folder: Path, kind: str, *, stacked: bool = False, **changes: object) -> Path:
    """A folder as transformers writes a model of `kind` (model_type).

    `stacked`: the experts of a block in one tensor, as its modules have them. Weights and biases have
    standard deviation 0.15, norms 1 +- 0.2; all are values that F16 holds.
    """
    config = AutoConfig.for_model(kind, **(SIZES | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            values = 1 + 0.2 * noise if "norm" in name else 0.15 * noise
            parameter.copy_(values.half().float())
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder, save_original_format=not stacked)
    write_bpe(folder, config.vocab_size)
    return folder


def spell_as_published(folder: Path) -> None:
    """Rewrites a config of transformers 5 as older checkpoints have it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    config["torch_dtype"] = config.pop("dtype")
    for name in ("layer_types", "no_rope_layers"):
        config.pop(name, None)
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    file.write_text(json.dumps(config))
