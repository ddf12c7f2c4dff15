"""Llama: RMS norms before attention and feed-forward, rotary positions, SwiGLU, grouped key heads."""

from dataclasses import replace
from typing import Any

from engine.api.gguf import GGUFValueType
from engine.architectures.description import (
    SILU,
    Architecture,
    Config,
    Key,
    Metadata,
    Refusal,
    Rope,
    Weight,
    bias_of,
    head_size,
    in_blocks,
    other_activation,
)
from engine.architectures.rope import rope_order

SHAPE_KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("max_position_embeddings", "context_length"),
    Key("hidden_size", "embedding_length"),
    Key("num_hidden_layers", "block_count"),
    Key("num_attention_heads", "attention.head_count"),
)
HEAD_SIZE_KEYS = (
    Key("head_dim", "attention.key_length", value=head_size),
    Key("head_dim", "attention.value_length", value=head_size),
)
RMS_KEY = Key("rms_norm_eps", "attention.layer_norm_rms_epsilon", GGUFValueType.FLOAT32)
KEYS = (
    *SHAPE_KEYS,
    Key("intermediate_size", "feed_forward_length"),
    Key("num_key_value_heads", "attention.head_count_kv"),
    *HEAD_SIZE_KEYS,
    RMS_KEY,
)
ROPE = Rope(divisors=True, factors=True)

EMBEDDING = Weight("token_embd.weight", "model.embed_tokens.weight", ("vocab", "hidden"))
OUTPUT = Weight("output.weight", "lm_head.weight", ("vocab", "hidden"))
HEAD = (Weight("output_norm.weight", "model.norm.weight", ("hidden",)), OUTPUT)
LAYER = in_blocks("model.layers.{block}.")
ATTENTION_NORM = LAYER("attn_norm.weight", "input_layernorm.weight", "hidden")
PROJECTIONS = (
    LAYER("attn_q.weight", "self_attn.q_proj.weight", "queries", "hidden", order=rope_order),
    LAYER("attn_k.weight", "self_attn.k_proj.weight", "keys", "hidden", order=rope_order),
    LAYER("attn_v.weight", "self_attn.v_proj.weight", "keys", "hidden"),
    LAYER("attn_output.weight", "self_attn.o_proj.weight", "hidden", "queries"),
)
ATTENTION = (
    ATTENTION_NORM,
    *PROJECTIONS,
    LAYER("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
)
FEED_FORWARD = (
    LAYER("ffn_gate.weight", "mlp.gate_proj.weight", "ff", "hidden"),
    LAYER("ffn_up.weight", "mlp.up_proj.weight", "ff", "hidden"),
    LAYER("ffn_down.weight", "mlp.down_proj.weight", "hidden", "ff"),
)


def in_halves(*weights: Weight) -> tuple[Weight, ...]:
    """Llama's weights for a graph of llama.cpp that rotates halves of a head, as transformers does."""
    return tuple(replace(weight, order=None) for weight in weights)


def has_attention_bias(config: Config) -> bool:
    return bool(config.attention_bias)


def has_mlp_bias(config: Config) -> bool:
    return bool(config.mlp_bias)


BIASES = (
    *(bias_of(weight, has_attention_bias) for weight in PROJECTIONS),
    *(bias_of(weight, has_mlp_bias) for weight in FEED_FORWARD),
)


def sizes(config: Config) -> dict[str, int]:
    head = head_size(config)
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "ff": config.intermediate_size,
        "queries": config.num_attention_heads * head,
        "keys": config.num_key_value_heads * head,
        "head": head,
    }


def refusal(config: Config) -> str | None:
    """llama.cpp's graph for "llama" has SwiGLU."""
    return other_activation(config, "hidden_act", SILU)


def head_size_refusal(config: Config) -> str | None:
    """For graphs whose matrices of queries are square."""
    size, usual = head_size(config), config.hidden_size // config.num_attention_heads
    if size * config.num_attention_heads == config.hidden_size:
        return None
    return (
        f"head_dim is {size}, and llama.cpp computes this architecture with "
        f"hidden_size / num_attention_heads ({usual}) only"
    )


def bias_refusal(config: Config) -> str | None:
    """For graphs without biases in attention."""
    if not config.attention_bias:
        return None
    return "attention_bias is true, and llama.cpp computes this architecture without those biases"


def any_refusal(*checks: Refusal) -> Refusal:
    """The first reason that one of `checks` gives."""
    return lambda config: next((reason for check in checks if (reason := check(config))), None)


def biases_shown(metadata: Metadata, names: set[str]) -> dict[str, Any]:
    return {
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_gate.bias" in names,
    }


def has_experts(metadata: Metadata) -> bool:
    count = metadata.get("llama.expert_count")
    return count is not None and count.value > 0


LLAMA = Architecture(
    name="llama",
    gguf="llama",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *ATTENTION, *FEED_FORWARD, *BIASES),
    sizes=sizes,
    refusal=refusal,
    rope=ROPE,
    from_gguf=biases_shown,
    chosen=lambda metadata: not has_experts(metadata),
)
