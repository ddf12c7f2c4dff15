"""Phi-3 and Phi-4: Llama's block with q, k, v in one matrix and gate, up in another; GGUF keeps them so."""

from engine.architectures.description import (
    Architecture,
    Config,
    Key,
    Rope,
    in_blocks,
)
from engine.architectures.families.llama import EMBEDDING, HEAD, HEAD_SIZE_KEYS, KEYS, refusal, sizes
from engine.architectures.families.mistral import window_note

LAYER = in_blocks("model.layers.{block}.")


def sizes_fused(config: Config) -> dict[str, int]:
    plain = sizes(config)
    return plain | {"gate_up": 2 * plain["ff"], "qkv": plain["queries"] + 2 * plain["keys"]}


PHI3 = Architecture(
    name="phi3",
    gguf="phi3",
    keys=(
        *(key for key in KEYS if key not in HEAD_SIZE_KEYS),
        Key("original_max_position_embeddings", "rope.scaling.original_context_length"),
        # llama.cpp ignores it; to its older versions 0 says that there is none (Phi-4).
        Key(None, "attention.sliding_window", value=lambda c: c.sliding_window or 0, least=0),
    ),
    weights=(
        EMBEDDING,
        *HEAD,
        LAYER("attn_norm.weight", "input_layernorm.weight", "hidden"),
        LAYER("attn_qkv.weight", "self_attn.qkv_proj.weight", "qkv", "hidden"),
        LAYER("attn_output.weight", "self_attn.o_proj.weight", "hidden", "queries"),
        LAYER("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
        LAYER("ffn_up.weight", "mlp.gate_up_proj.weight", "gate_up", "hidden"),
        LAYER("ffn_down.weight", "mlp.down_proj.weight", "hidden", "ff"),
    ),
    sizes=sizes_fused,
    refusal=refusal,
    notes=window_note,
    rope=Rope(partial=True, factors=True),
)
