"""GPT-2: LayerNorm, learned positions, GELU; transformers stores its matrices transposed (Conv1D)."""

from engine.api.gguf import GGUFValueType
from engine.architectures.description import (
    GELU,
    Architecture,
    Config,
    Key,
    Weight,
    in_blocks,
    other_activation,
    with_bias,
)
from engine.architectures.families.llama import OUTPUT, SHAPE_KEYS

LAYER = in_blocks("transformer.h.{block}.")


def inner(config: Config) -> int:
    return config.n_inner or 4 * config.hidden_size


def sizes(config: Config) -> dict[str, int]:
    return {
        "vocab": config.vocab_size,
        "positions": config.max_position_embeddings,
        "hidden": config.hidden_size,
        "qkv": 3 * config.hidden_size,
        "ff": inner(config),
    }


def refusal(config: Config) -> str | None:
    usual = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for name, value in usual.items():
        if getattr(config, name) is not value:
            return f"{name} is not {str(value).lower()}, and llama.cpp computes this architecture only so"
    return other_activation(config, "activation_function", GELU)


GPT2 = Architecture(
    name="gpt2",
    gguf="gpt2",
    keys=(
        *SHAPE_KEYS,
        Key("n_inner", "feed_forward_length", value=inner),
        Key("layer_norm_epsilon", "attention.layer_norm_epsilon", GGUFValueType.FLOAT32),
    ),
    weights=(
        Weight("token_embd.weight", "transformer.wte.weight", ("vocab", "hidden")),
        Weight("position_embd.weight", "transformer.wpe.weight", ("positions", "hidden")),
        *with_bias(Weight("output_norm.weight", "transformer.ln_f.weight", ("hidden",))),
        OUTPUT,
        *with_bias(
            LAYER("attn_norm.weight", "ln_1.weight", "hidden"),
            LAYER("attn_qkv.weight", "attn.c_attn.weight", "qkv", "hidden", transposed=True),
            LAYER("attn_output.weight", "attn.c_proj.weight", "hidden", "hidden", transposed=True),
            LAYER("ffn_norm.weight", "ln_2.weight", "hidden"),
            LAYER("ffn_up.weight", "mlp.c_fc.weight", "ff", "hidden", transposed=True),
            LAYER("ffn_down.weight", "mlp.c_proj.weight", "hidden", "ff", transposed=True),
        ),
    ),
    sizes=sizes,
    refusal=refusal,
    rope=None,
)
