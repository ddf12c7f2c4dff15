"""Falcon: attention and feed-forward beside each other; few key heads, with their queries in one matrix.

7B has one norm a block and one key head; 40B a norm for each half and groups of queries; Falcon 2 (11B)
groups and one norm.
"""

from typing import Any

import numpy as np

from engine.api.gguf import GGUFValueType
from engine.architectures.description import (
    GELU,
    Architecture,
    Config,
    Key,
    Metadata,
    Weight,
    in_blocks,
    other_activation,
    with_bias,
)
from engine.architectures.families.llama import OUTPUT, SHAPE_KEYS

LAYER = in_blocks("transformer.h.{block}.")


def key_heads(config: Config) -> int:
    """As transformers counts them: `num_kv_heads` says nothing where there is only one."""
    if config.multi_query and not config.new_decoder_architecture:
        return 1
    return int(config.num_kv_heads)


def has_two_norms(config: Config) -> bool:
    return bool(config.new_decoder_architecture) and config.num_ln_in_parallel_attn in (None, 2)


def has_one_norm(config: Config) -> bool:
    return not has_two_norms(config)


def fused_order(config: Config, rows: int) -> np.ndarray:
    """int64 [rows]: all of q, all of k, all of v, from groups of some heads of q and one each of k and v."""
    keys = key_heads(config)
    groups = np.arange(rows).reshape(keys, config.num_attention_heads // keys + 2, -1)
    return np.concatenate([groups[:, :-2].ravel(), groups[:, -2].ravel(), groups[:, -1].ravel()])


def sizes(config: Config) -> dict[str, int]:
    head = config.hidden_size // config.num_attention_heads
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "qkv": (config.num_attention_heads + 2 * key_heads(config)) * head,
        "ff": config.ffn_hidden_size,
    }


def refusal(config: Config) -> str | None:
    if config.alibi:
        return "alibi is true, and llama.cpp computes this architecture with rotary positions only"
    if config.bias:
        return "bias is true, and llama.cpp computes this architecture without biases"
    if not config.parallel_attn:
        return (
            "parallel_attn is false, and llama.cpp computes attention and feed-forward of this architecture "
            "beside each other only"
        )
    if config.num_attention_heads % max(key_heads(config), 1):
        return (
            f"num_kv_heads is {config.num_kv_heads}, which does not divide the {config.num_attention_heads} "
            "heads of the queries"
        )
    return other_activation(config, "activation", GELU)


def from_gguf(metadata: Metadata, names: set[str]) -> dict[str, Any]:
    found = metadata.get("falcon.attention.head_count_kv")
    norms = 2 if "blk.0.attn_norm_2.weight" in names else 1
    several = found is not None and found.value != 1
    return {
        "new_decoder_architecture": several or norms == 2,
        "num_ln_in_parallel_attn": norms,
        "multi_query": True,
    }


FALCON = Architecture(
    name="falcon",
    gguf="falcon",
    keys=(
        *SHAPE_KEYS,
        Key(None, "tensor_data_layout", GGUFValueType.STRING, lambda config: "jploski"),
        Key("ffn_hidden_size", "feed_forward_length"),
        Key("num_kv_heads", "attention.head_count_kv", value=key_heads),
        Key("layer_norm_epsilon", "attention.layer_norm_epsilon", GGUFValueType.FLOAT32),
    ),
    weights=(
        Weight("token_embd.weight", "transformer.word_embeddings.weight", ("vocab", "hidden")),
        *with_bias(Weight("output_norm.weight", "transformer.ln_f.weight", ("hidden",))),
        OUTPUT,
        *with_bias(
            LAYER("attn_norm.weight", "input_layernorm.weight", "hidden", when=has_one_norm),
            LAYER("attn_norm.weight", "ln_mlp.weight", "hidden", when=has_two_norms),
            LAYER("attn_norm_2.weight", "ln_attn.weight", "hidden", when=has_two_norms),
        ),
        LAYER("attn_qkv.weight", "self_attention.query_key_value.weight", "qkv", "hidden", order=fused_order),
        LAYER("attn_output.weight", "self_attention.dense.weight", "hidden", "hidden"),
        LAYER("ffn_up.weight", "mlp.dense_h_to_4h.weight", "ff", "hidden"),
        LAYER("ffn_down.weight", "mlp.dense_4h_to_h.weight", "hidden", "ff"),
    ),
    sizes=sizes,
    refusal=refusal,
    from_gguf=from_gguf,
)
