"""StableLM: Llama's block with LayerNorm and partly rotated heads.

StableLM 2 (12B) has a norm for each head of q and k, and attention and feed-forward beside each other
behind one norm.
"""

from typing import Any

from engine.api.gguf import GGUFValueType
from engine.architectures.description import (
    Architecture,
    Config,
    Key,
    Metadata,
    Rope,
    Weight,
    bias_of,
    in_blocks,
    with_bias,
)
from engine.architectures.families.llama import (
    EMBEDDING,
    FEED_FORWARD,
    HEAD_SIZE_KEYS,
    KEYS,
    OUTPUT,
    RMS_KEY,
    refusal,
    sizes,
)

LAYER = in_blocks("model.layers.{block}.")


def has_bias(config: Config) -> bool:
    return bool(config.use_qkv_bias)


def has_head_norms(config: Config) -> bool:
    return bool(config.qk_layernorm)


def is_sequential(config: Config) -> bool:
    return not config.use_parallel_residual


PROJECTIONS = (
    LAYER("attn_q.weight", "self_attn.q_proj.weight", "queries", "hidden"),
    LAYER("attn_k.weight", "self_attn.k_proj.weight", "keys", "hidden"),
    LAYER("attn_v.weight", "self_attn.v_proj.weight", "keys", "hidden"),
)


def sizes_by_head(config: Config) -> dict[str, int]:
    return sizes(config) | {"heads": config.num_attention_heads, "key_heads": config.num_key_value_heads}


def from_gguf(metadata: Metadata, names: set[str]) -> dict[str, Any]:
    return {
        "use_qkv_bias": "blk.0.attn_q.bias" in names,
        "qk_layernorm": "blk.0.attn_q_norm.weight" in names,
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in names,
    }


STABLELM = Architecture(
    name="stablelm",
    gguf="stablelm",
    keys=(
        *(key for key in KEYS if key not in (*HEAD_SIZE_KEYS, RMS_KEY)),
        Key("use_parallel_residual", "use_parallel_residual", GGUFValueType.BOOL),
        Key("layer_norm_eps", "attention.layer_norm_epsilon", GGUFValueType.FLOAT32),
    ),
    weights=(
        EMBEDDING,
        *with_bias(Weight("output_norm.weight", "model.norm.weight", ("hidden",))),
        OUTPUT,
        *with_bias(
            LAYER("attn_norm.weight", "input_layernorm.weight", "hidden"),
            LAYER("ffn_norm.weight", "post_attention_layernorm.weight", "hidden", when=is_sequential),
        ),
        *PROJECTIONS,
        *(bias_of(weight, has_bias) for weight in PROJECTIONS),
        LAYER("attn_output.weight", "self_attn.o_proj.weight", "hidden", "queries"),
        *(
            LAYER(
                f"attn_{kind}_norm.weight",
                f"self_attn.{kind}_layernorm.norms.{{part}}.weight",
                heads,
                "head",
                when=has_head_norms,
            )
            for kind, heads in (("q", "heads"), ("k", "key_heads"))
        ),
        *FEED_FORWARD,
    ),
    sizes=sizes_by_head,
    refusal=refusal,
    rope=Rope(partial=True),
    own_output=True,
    from_gguf=from_gguf,
)
