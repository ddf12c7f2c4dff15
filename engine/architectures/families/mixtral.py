"""Mixtral: Mistral's attention, feed-forward by routed experts. GGUF stacks the experts of a block."""

from engine.architectures.description import Architecture, Config, Key
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    HEAD,
    KEYS,
    LAYER,
    ROPE,
    has_experts,
    refusal,
    sizes,
)
from engine.architectures.families.mistral import window_note

EXPERTS = (
    LAYER("ffn_gate_inp.weight", "mlp.gate.weight", "experts", "hidden"),
    LAYER("ffn_gate_exps.weight", "mlp.experts.gate_up_proj", "experts", "expert ff", "hidden"),
    LAYER("ffn_up_exps.weight", "mlp.experts.gate_up_proj", "experts", "expert ff", "hidden"),
    LAYER("ffn_down_exps.weight", "mlp.experts.down_proj", "experts", "hidden", "expert ff"),
)


def sizes_with_experts(config: Config) -> dict[str, int]:
    return sizes(config) | {"experts": config.num_local_experts, "expert ff": config.intermediate_size}


MIXTRAL = Architecture(
    name="mixtral",
    gguf="llama",
    keys=(
        *KEYS,
        Key("num_local_experts", "expert_count"),
        Key("num_experts_per_tok", "expert_used_count"),
    ),
    weights=(EMBEDDING, *HEAD, *ATTENTION, *EXPERTS),
    sizes=sizes_with_experts,
    refusal=refusal,
    notes=window_note,
    rope=ROPE,
    chosen=has_experts,
)
