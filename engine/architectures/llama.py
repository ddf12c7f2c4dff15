"""Llama: RMS norms before attention and feed-forward, rotary positions, SwiGLU, grouped key heads."""

from typing import Any

from gguf import GGUFValueType

from engine.api.wording import named
from engine.architectures.description import Architecture, Config, Key, Weight
from engine.architectures.rope import rope_order

KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("max_position_embeddings", "context_length"),
    Key("hidden_size", "embedding_length"),
    Key("num_hidden_layers", "block_count"),
    Key("intermediate_size", "feed_forward_length"),
    Key("num_attention_heads", "attention.head_count"),
    Key("num_key_value_heads", "attention.head_count_kv"),
    Key("head_dim", "attention.key_length"),
    Key("head_dim", "attention.value_length"),
    Key("head_dim", "rope.dimension_count"),
    Key("rms_norm_eps", "attention.layer_norm_rms_epsilon", GGUFValueType.FLOAT32),
)

EMBEDDING = Weight("token_embd.weight", "model.embed_tokens.weight", ("vocab", "hidden"))
HEAD = (
    Weight("output_norm.weight", "model.norm.weight", ("hidden",)),
    Weight("output.weight", "lm_head.weight", ("vocab", "hidden")),
)
ATTENTION = (
    Weight("blk.{block}.attn_norm.weight", "model.layers.{block}.input_layernorm.weight", ("hidden",)),
    Weight(
        "blk.{block}.attn_q.weight",
        "model.layers.{block}.self_attn.q_proj.weight",
        ("queries", "hidden"),
        order=rope_order,
    ),
    Weight(
        "blk.{block}.attn_k.weight",
        "model.layers.{block}.self_attn.k_proj.weight",
        ("keys", "hidden"),
        order=rope_order,
    ),
    Weight("blk.{block}.attn_v.weight", "model.layers.{block}.self_attn.v_proj.weight", ("keys", "hidden")),
    Weight(
        "blk.{block}.attn_output.weight",
        "model.layers.{block}.self_attn.o_proj.weight",
        ("hidden", "queries"),
    ),
    Weight(
        "blk.{block}.ffn_norm.weight", "model.layers.{block}.post_attention_layernorm.weight", ("hidden",)
    ),
)
FEED_FORWARD = (
    Weight("blk.{block}.ffn_gate.weight", "model.layers.{block}.mlp.gate_proj.weight", ("ff", "hidden")),
    Weight("blk.{block}.ffn_up.weight", "model.layers.{block}.mlp.up_proj.weight", ("ff", "hidden")),
    Weight("blk.{block}.ffn_down.weight", "model.layers.{block}.mlp.down_proj.weight", ("hidden", "ff")),
)


def has_attention_bias(config: Config) -> bool:
    return bool(config.attention_bias)


def has_mlp_bias(config: Config) -> bool:
    return bool(config.mlp_bias)


BIASES = (
    Weight(
        "blk.{block}.attn_q.bias",
        "model.layers.{block}.self_attn.q_proj.bias",
        ("queries",),
        order=rope_order,
        when=has_attention_bias,
    ),
    Weight(
        "blk.{block}.attn_k.bias",
        "model.layers.{block}.self_attn.k_proj.bias",
        ("keys",),
        order=rope_order,
        when=has_attention_bias,
    ),
    Weight(
        "blk.{block}.attn_v.bias",
        "model.layers.{block}.self_attn.v_proj.bias",
        ("keys",),
        when=has_attention_bias,
    ),
    Weight(
        "blk.{block}.attn_output.bias",
        "model.layers.{block}.self_attn.o_proj.bias",
        ("hidden",),
        when=has_attention_bias,
    ),
    Weight(
        "blk.{block}.ffn_gate.bias",
        "model.layers.{block}.mlp.gate_proj.bias",
        ("ff",),
        when=has_mlp_bias,
    ),
    Weight("blk.{block}.ffn_up.bias", "model.layers.{block}.mlp.up_proj.bias", ("ff",), when=has_mlp_bias),
    Weight(
        "blk.{block}.ffn_down.bias",
        "model.layers.{block}.mlp.down_proj.bias",
        ("hidden",),
        when=has_mlp_bias,
    ),
)


def sizes(config: Config) -> dict[str, int]:
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "ff": config.intermediate_size,
        "queries": config.num_attention_heads * config.head_dim,
        "keys": config.num_key_value_heads * config.head_dim,
    }


def refusal(config: Config) -> str | None:
    """llama.cpp's graph for "llama" has SwiGLU and rotates whole heads."""
    if config.hidden_act not in ("silu", "swish"):
        return (
            f'hidden_act is "{named(config.hidden_act)}", '
            'and llama.cpp computes this architecture with "silu" only'
        )
    return None


def biases_shown(names: set[str]) -> dict[str, Any]:
    return {
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_gate.bias" in names,
    }


LLAMA = Architecture(
    name="llama",
    gguf="llama",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *ATTENTION, *FEED_FORWARD, *BIASES),
    sizes=sizes,
    refusal=refusal,
    from_gguf=biases_shown,
)
