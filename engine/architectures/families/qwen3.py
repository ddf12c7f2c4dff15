"""Qwen3: Llama's blocks with an RMS norm of each head's queries and keys."""

from engine.architectures.description import Architecture
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    KEYS,
    LAYER,
    any_refusal,
    bias_refusal,
    in_halves,
    refusal,
    sizes,
)
from engine.architectures.families.mistral import window_note

HEAD_NORMS = (
    LAYER("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
    LAYER("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
)

QWEN3 = Architecture(
    name="qwen3",
    gguf="qwen3",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *in_halves(*ATTENTION), *HEAD_NORMS, *FEED_FORWARD),
    sizes=sizes,
    refusal=any_refusal(refusal, bias_refusal),
    notes=window_note,
)
