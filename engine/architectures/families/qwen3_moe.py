"""Qwen3-MoE: Qwen3's attention, feed-forward by routed experts."""

from engine.architectures.description import Architecture, Config, Key
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    HEAD,
    KEYS,
    any_refusal,
    bias_refusal,
    in_halves,
    refusal,
)
from engine.architectures.families.llama import sizes as llama_sizes
from engine.architectures.families.mistral import window_note
from engine.architectures.families.mixtral import EXPERTS
from engine.architectures.families.qwen3 import HEAD_NORMS

EXPERT_KEYS = (
    Key("num_experts", "expert_count"),
    Key("num_experts_per_tok", "expert_used_count"),
    Key("moe_intermediate_size", "expert_feed_forward_length"),
)


def sizes(config: Config) -> dict[str, int]:
    return llama_sizes(config) | {"experts": config.num_experts, "expert ff": config.moe_intermediate_size}


def dense_block_refusal(config: Config) -> str | None:
    """llama.cpp's graphs for Qwen's mixtures have experts in all blocks."""
    for block in range(config.num_hidden_layers):
        if block in config.mlp_only_layers:
            cause = f"mlp_only_layers holds {block}"
        elif (block + 1) % config.decoder_sparse_step:
            cause = f"decoder_sparse_step is {config.decoder_sparse_step}"
        else:
            continue
        return (
            f"{cause}, so block {block} has no experts, and llama.cpp computes this architecture with "
            "experts in every block only"
        )
    return None


def unscaled_refusal(config: Config) -> str | None:
    """llama.cpp makes the chosen experts' probabilities sum to 1."""
    if config.norm_topk_prob:
        return None
    return "norm_topk_prob is false, and llama.cpp computes this architecture with true only"


QWEN3_MOE = Architecture(
    name="qwen3_moe",
    gguf="qwen3moe",
    keys=(*KEYS, *EXPERT_KEYS),
    weights=(EMBEDDING, *HEAD, *in_halves(*ATTENTION), *HEAD_NORMS, *EXPERTS),
    sizes=sizes,
    refusal=any_refusal(refusal, bias_refusal, dense_block_refusal, unscaled_refusal),
    notes=window_note,
    from_gguf=lambda metadata, names: {"norm_topk_prob": True},
)
