"""Tiny random models of every family, in the spelling of their published config.json."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import write_folder

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "intermediate_size": 160}
GEMMA = GROUPED | {
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 512,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 10000.0,
}
FACTORS = {
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1, 3.8],
    "long_factor": [1.0, 1.4, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
}

FAMILIES = {
    "gemma2": GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": GEMMA
    | {"rope_theta": 1e6, "rope_local_base_freq": 5000.0, "sliding_window_pattern": 3, "sliding_window": 16},
    "phi3": GROUPED
    | {"rms_norm_eps": 1e-5, "rope_theta": 20000.0, "rope_scaling": None, "sliding_window": None},
    "gpt2": {
        "vocab_size": 512,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "n_ctx": 256,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": SIZES
    | {
        "intermediate_size": 160,
        "rotary_pct": 0.25,
        "rotary_emb_base": 20000,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    },
    "stablelm": GROUPED
    | {
        "partial_rotary_factor": 0.5,
        "rope_theta": 20000.0,
        "layer_norm_eps": 1e-5,
        "hidden_act": "silu",
        "use_qkv_bias": True,
        "tie_word_embeddings": False,
    },
    "falcon": SIZES
    | {
        "multi_query": True,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "alibi": False,
        "bias": False,
        "layer_norm_epsilon": 1e-5,
        "num_kv_heads": 4,
    },
}
"""Config by model type."""


def write_family(folder: Path, model_type: str, *, prefix: str = "", **changes: object) -> Path:
    """A model of `FAMILIES[model_type]` with `changes`: random weights under transformers' names.

    Matrices and biases have standard deviation 0.15, norms are perturbed by 0.2. `prefix` is taken off the
    names, where published checkpoints lack it.
    """
    config = {"model_type": model_type} | FAMILIES[model_type] | changes
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made(config))
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            start = 0.0 if model_type.startswith("gemma") else 1.0
            tensors[name.removeprefix(prefix)] = start + 0.2 * noise
        else:
            tensors[name.removeprefix(prefix)] = 0.15 * noise
    return write_folder(folder, config, tensors)


def made(config: dict) -> object:
    """transformers' config; it takes nested dictionaries as its own, and changes them."""
    copied = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    return AutoConfig.for_model(**copied)
