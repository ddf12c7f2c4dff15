"""Gemma 2: norms before and behind each half of a block, soft caps, a sliding window in every other block.

transformers multiplies by one plus the stored norm; GGUF holds the sum. llama.cpp knows the scale of the
attention by the number of blocks alone.
"""

from collections.abc import Callable
from typing import Any

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
)
from engine.architectures.families.llama import EMBEDDING, FEED_FORWARD, KEYS, sizes

BLOCKS_OF_27B = 46
LAYER = in_blocks("model.layers.{block}.")


def norm(canonical: str, module: str, size: str = "hidden") -> Weight:
    return LAYER(canonical, module, size, plus=1.0)


WEIGHTS = (
    EMBEDDING,
    Weight("output_norm.weight", "model.norm.weight", ("hidden",), plus=1.0),
    norm("attn_norm.weight", "input_layernorm.weight"),
    LAYER("attn_q.weight", "self_attn.q_proj.weight", "queries", "hidden"),
    LAYER("attn_k.weight", "self_attn.k_proj.weight", "keys", "hidden"),
    LAYER("attn_v.weight", "self_attn.v_proj.weight", "keys", "hidden"),
    LAYER("attn_output.weight", "self_attn.o_proj.weight", "hidden", "queries"),
    norm("post_attention_norm.weight", "post_attention_layernorm.weight"),
    norm("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    *FEED_FORWARD,
    norm("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
)


def period(config: Config) -> int | None:
    """The smallest n with which every n-th block, and no other, sees the whole text (0: none does).

    None where the blocks follow no such rule.
    """
    whole = [kind == "full_attention" for kind in config.layer_types]
    if not any(whole):
        return 0
    number = whole.index(True) + 1
    return number if whole == [(i + 1) % number == 0 for i in range(len(whole))] else None


def window(config: Config) -> int:
    """A window that is never reached where there is none: llama.cpp assumes one if nothing is said."""
    return config.sliding_window or config.max_position_embeddings


def reader(
    gguf: str, usual_period: int, blocks_of_27b: int
) -> Callable[[Metadata, set[str]], dict[str, Any]]:
    """`Architecture.from_gguf` of Gemma 2 or 3: the kinds of attention by block, and its scale."""

    def from_gguf(metadata: Metadata, names: set[str]) -> dict[str, Any]:
        def number(key: str, default: int) -> int:
            found = metadata.get(f"{gguf}.{key}")
            return found.value if found is not None and type(found.value) is int else default

        blocks, number_of_heads = number("block_count", 0), number("attention.head_count", 0)
        distance = number("attention.sliding_window_pattern", usual_period)
        kinds = ("sliding_attention", "full_attention")
        scale = number("attention.key_length", 256)
        if blocks == blocks_of_27b and number_of_heads:
            scale = number("embedding_length", 0) // number_of_heads
        return {
            "layer_types": [kinds[distance > 0 and (i + 1) % distance == 0] for i in range(blocks)],
            "query_pre_attn_scalar": scale,
        }

    return from_gguf


WINDOW_KEYS = (
    Key("sliding_window", "attention.sliding_window", value=window),
    Key(None, "attention.sliding_window_pattern", value=period, least=0),
)


def shared_refusal(config: Config, blocks_of_27b: int) -> str | None:
    """What the graphs of Gemma 2 and 3 do not compute."""
    head = config.head_dim
    if config.num_hidden_layers == blocks_of_27b:
        head = config.hidden_size // config.num_attention_heads
    if config.query_pre_attn_scalar != head:
        return (
            f"query_pre_attn_scalar is {config.query_pre_attn_scalar}, and llama.cpp scales the attention of "
            f"a model of this shape by {head}"
        )
    if period(config) in (None, 1):
        return (
            "layer_types does not alternate regularly between sliding and full attention, and llama.cpp "
            "computes this architecture with every n-th block (n > 1) of full attention only"
        )
    if config.attention_bias:
        return "attention_bias is true, and llama.cpp computes this architecture without biases"
    if config.use_bidirectional_attention:
        return "use_bidirectional_attention is true, and llama.cpp computes this architecture causally"
    return other_activation(config, "hidden_activation", GELU)


def refusal(config: Config) -> str | None:
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if not getattr(config, name):
            return f"{name} is not set, and llama.cpp always caps the logits of this architecture"
    if not config.tie_word_embeddings:
        return "tie_word_embeddings is false, and llama.cpp knows this architecture only with it true"
    return shared_refusal(config, BLOCKS_OF_27B)


GEMMA2 = Architecture(
    name="gemma2",
    gguf="gemma2",
    keys=(
        *KEYS,
        *WINDOW_KEYS,
        Key("attn_logit_softcapping", "attn_logit_softcapping", GGUFValueType.FLOAT32),
        Key("final_logit_softcapping", "final_logit_softcapping", GGUFValueType.FLOAT32),
    ),
    weights=WEIGHTS,
    sizes=sizes,
    refusal=refusal,
    from_gguf=reader("gemma2", 2, BLOCKS_OF_27B),
)
