"""SmolLM3: Llama's blocks, every fourth without rotary positions."""

from engine.architectures.description import Architecture, Config
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    KEYS,
    any_refusal,
    bias_refusal,
    refusal,
    sizes,
)
from engine.architectures.families.mistral import window_note

WITHOUT_ROPE = 4
"""llama.cpp rotates nothing in every block of this number; no key of GGUF says otherwise. A config that says
nothing means the same."""


def mlp_bias_refusal(config: Config) -> str | None:
    if not config.mlp_bias:
        return None
    return "mlp_bias is true, and llama.cpp computes this architecture without those biases"


def rope_refusal(config: Config) -> str | None:
    stated = config.no_rope_layers
    if len(stated) < config.num_hidden_layers:
        return f"no_rope_layers has {len(stated)} items for {config.num_hidden_layers} blocks"
    for block in range(config.num_hidden_layers):
        if bool(stated[block]) is not ((block + 1) % WITHOUT_ROPE != 0):
            return (
                f"no_rope_layers is {stated[block]} for block {block}, and llama.cpp computes this "
                f"architecture with 0 for every {WITHOUT_ROPE}th block and 1 for the others only"
            )
    return None


SMOLLM3 = Architecture(
    name="smollm3",
    gguf="smollm3",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *ATTENTION, *FEED_FORWARD),
    sizes=sizes,
    refusal=any_refusal(refusal, bias_refusal, mlp_bias_refusal, rope_refusal),
    notes=window_note,
)
