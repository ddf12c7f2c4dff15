"""Qwen2-MoE: Qwen2's attention, feed-forward by routed experts and a shared one behind a gate of its own."""

from dataclasses import replace
from typing import Any

from engine.architectures.description import Architecture, Config, Key, Metadata
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    HEAD,
    KEYS,
    LAYER,
    any_refusal,
    head_size_refusal,
    in_halves,
    refusal,
)
from engine.architectures.families.mistral import window_note
from engine.architectures.families.mixtral import EXPERTS
from engine.architectures.families.qwen2 import QKV_BIASES
from engine.architectures.families.qwen3_moe import EXPERT_KEYS, dense_block_refusal
from engine.architectures.families.qwen3_moe import sizes as sizes_with_experts

SHARED_EXPERT = (
    LAYER("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", "one", "hidden"),
    LAYER("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", "shared ff", "hidden"),
    LAYER("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", "shared ff", "hidden"),
    LAYER("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", "hidden", "shared ff"),
)


def sizes(config: Config) -> dict[str, int]:
    return sizes_with_experts(config) | {"shared ff": config.shared_expert_intermediate_size, "one": 1}


def scaled_refusal(config: Config) -> str | None:
    """llama.cpp takes the chosen experts' probabilities as they are."""
    if not config.norm_topk_prob:
        return None
    return "norm_topk_prob is true, and llama.cpp computes this architecture with false only"


def shown(metadata: Metadata, names: set[str]) -> dict[str, Any]:
    return {"qkv_bias": "blk.0.attn_q.bias" in names, "norm_topk_prob": False}


QWEN2_MOE = Architecture(
    name="qwen2_moe",
    gguf="qwen2moe",
    keys=(
        *KEYS,
        *EXPERT_KEYS,
        Key("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ),
    weights=(
        EMBEDDING,
        *HEAD,
        *in_halves(*ATTENTION),
        *(replace(bias, when=lambda config: bool(config.qkv_bias)) for bias in QKV_BIASES),
        *EXPERTS,
        *SHARED_EXPERT,
    ),
    sizes=sizes,
    refusal=any_refusal(refusal, head_size_refusal, dense_block_refusal, scaled_refusal),
    notes=window_note,
    own_output=True,
    from_gguf=shown,
)
