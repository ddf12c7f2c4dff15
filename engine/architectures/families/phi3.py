"""Phi-3 and Phi-4: Llama's block with q, k, v in one matrix and gate, up in another; GGUF keeps them so."""

from engine.architectures.description import (
    SILU,
    Architecture,
    Config,
    Key,
    Rope,
    head_size,
    in_blocks,
    other_activation,
)
from engine.architectures.families.llama import EMBEDDING, HEAD, KEYS
from engine.architectures.families.mistral import window_note

LAYER = in_blocks("model.layers.{block}.")


def sizes(config: Config) -> dict[str, int]:
    head = head_size(config)
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "ff": config.intermediate_size,
        "gate_up": 2 * config.intermediate_size,
        "queries": config.num_attention_heads * head,
        "qkv": (config.num_attention_heads + 2 * config.num_key_value_heads) * head,
    }


def refusal(config: Config) -> str | None:
    return other_activation(config, "hidden_act", SILU)


PHI3 = Architecture(
    name="phi3",
    gguf="phi3",
    keys=(
        *(key for key in KEYS if key.config != "head_dim"),
        # llama.cpp asks for it and ignores it; 0 told its older versions that there is none (Phi-4).
        Key("sliding_window", "attention.sliding_window", value=lambda c: c.sliding_window or 0, least=0),
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
    sizes=sizes,
    refusal=refusal,
    notes=window_note,
    rope=Rope(partial=True, factors=True),
)
