"""OLMo 2: norms behind attention and feed-forward, none before; all queries normed together, all keys too."""

from engine.architectures.description import Architecture
from engine.architectures.families.llama import (
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    KEYS,
    LAYER,
    PROJECTIONS,
    any_refusal,
    bias_refusal,
    head_size_refusal,
    in_halves,
    refusal,
    sizes,
)

NORMS = (
    LAYER("attn_q_norm.weight", "self_attn.q_norm.weight", "queries"),
    LAYER("attn_k_norm.weight", "self_attn.k_norm.weight", "keys"),
    LAYER("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
    LAYER("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
)

OLMO2 = Architecture(
    name="olmo2",
    gguf="olmo2",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *in_halves(*PROJECTIONS), *NORMS, *FEED_FORWARD),
    sizes=sizes,
    refusal=any_refusal(refusal, bias_refusal, head_size_refusal),
    own_output=True,
    # OLMo 3 shares the name and has a sliding window.
    chosen=lambda metadata: "olmo2.attention.sliding_window" not in metadata,
)
