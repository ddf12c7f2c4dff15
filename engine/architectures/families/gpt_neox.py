"""GPT-NeoX (Pythia): LayerNorm, GELU, half-rotated heads; q, k, v of a head lie together in one matrix."""

import numpy as np

from engine.api.gguf import GGUFValueType
from engine.architectures.description import (
    GELU,
    Architecture,
    Config,
    Key,
    Rope,
    Weight,
    in_blocks,
    other_activation,
    with_bias,
)
from engine.architectures.families.llama import SHAPE_KEYS

LAYER = in_blocks("gpt_neox.layers.{block}.")


def fused_order(config: Config, rows: int) -> np.ndarray:
    """int64 [rows]: all of q, all of k, all of v, from [head, q|k|v, dimension]."""
    return np.arange(rows).reshape(config.num_attention_heads, 3, -1).swapaxes(0, 1).ravel()


def sizes(config: Config) -> dict[str, int]:
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "qkv": 3 * config.hidden_size,
        "ff": config.intermediate_size,
    }


def refusal(config: Config) -> str | None:
    if not config.attention_bias:
        return "attention_bias is false, and llama.cpp computes this architecture with biases only"
    return other_activation(config, "hidden_act", GELU)


GPT_NEOX = Architecture(
    name="gpt_neox",
    gguf="gptneox",
    keys=(
        *SHAPE_KEYS,
        Key("intermediate_size", "feed_forward_length"),
        Key("use_parallel_residual", "use_parallel_residual", GGUFValueType.BOOL),
        Key("layer_norm_eps", "attention.layer_norm_epsilon", GGUFValueType.FLOAT32),
    ),
    weights=(
        Weight("token_embd.weight", "gpt_neox.embed_in.weight", ("vocab", "hidden")),
        *with_bias(Weight("output_norm.weight", "gpt_neox.final_layer_norm.weight", ("hidden",))),
        Weight("output.weight", "embed_out.weight", ("vocab", "hidden")),
        *with_bias(
            LAYER("attn_norm.weight", "input_layernorm.weight", "hidden"),
            LAYER("attn_qkv.weight", "attention.query_key_value.weight", "qkv", "hidden", order=fused_order),
            LAYER("attn_output.weight", "attention.dense.weight", "hidden", "hidden"),
            LAYER("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
            LAYER("ffn_up.weight", "mlp.dense_h_to_4h.weight", "ff", "hidden"),
            LAYER("ffn_down.weight", "mlp.dense_4h_to_h.weight", "hidden", "ff"),
        ),
    ),
    sizes=sizes,
    refusal=refusal,
    rope=Rope(partial=True),
    own_output=True,
)
