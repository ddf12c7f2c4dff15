"""Qwen2 and 2.5: Llama's blocks with biases on queries, keys and values."""

from engine.architectures.description import Architecture, bias_of
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    KEYS,
    PROJECTIONS,
    any_refusal,
    head_size_refusal,
    in_halves,
    refusal,
    sizes,
)
from engine.architectures.families.mistral import window_note

QKV_BIASES = in_halves(*(bias_of(weight) for weight in PROJECTIONS[:3]))

QWEN2 = Architecture(
    name="qwen2",
    gguf="qwen2",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *in_halves(*ATTENTION), *QKV_BIASES, *FEED_FORWARD),
    sizes=sizes,
    refusal=any_refusal(refusal, head_size_refusal),
    notes=window_note,
)
