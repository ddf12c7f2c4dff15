"""Granite: Llama's blocks with factors on the embedding, the attention, what is added up, and the logits."""

from dataclasses import replace
from typing import Any

from engine.api.gguf import GGUFValueType
from engine.architectures.description import Key, Metadata
from engine.architectures.families.llama import LLAMA, biases_shown

FACTORS = (
    Key("embedding_multiplier", "embedding_scale", GGUFValueType.FLOAT32),
    Key("attention_multiplier", "attention.scale", GGUFValueType.FLOAT32),
    Key("residual_multiplier", "residual_scale", GGUFValueType.FLOAT32),
    Key("logits_scaling", "logit_scale", GGUFValueType.FLOAT32),
)


def shown(metadata: Metadata, names: set[str]) -> dict[str, Any]:
    """Without the attention's factor llama.cpp takes the usual one, transformers 1."""
    if "granite.attention.scale" in metadata:
        return biases_shown(metadata, names)
    head = metadata.get("granite.attention.key_length")
    size = (
        head.value
        if head is not None
        else metadata["granite.embedding_length"].value // metadata["granite.attention.head_count"].value
    )
    return biases_shown(metadata, names) | {"attention_multiplier": size**-0.5}


GRANITE = replace(
    LLAMA,
    name="granite",
    gguf="granite",
    keys=(*LLAMA.keys, *FACTORS),
    from_gguf=shown,
    chosen=lambda metadata: True,
)
