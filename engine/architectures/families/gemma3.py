"""Gemma 3 (text): Gemma 2 with norms of the heads in place of soft caps, and two rotary bases."""

from engine.architectures.description import Architecture, Config, Rope
from engine.architectures.families.gemma2 import WEIGHTS, WINDOW_KEYS, norm, reader, shared_refusal
from engine.architectures.families.llama import KEYS, OUTPUT, sizes

BLOCKS_OF_27B = 62


def refusal(config: Config) -> str | None:
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name):
            return f"{name} is set, and llama.cpp does not cap the logits of this architecture"
    return shared_refusal(config, BLOCKS_OF_27B)


GEMMA3 = Architecture(
    name="gemma3_text",
    also=("gemma3",),
    gguf="gemma3",
    keys=(*KEYS, *WINDOW_KEYS),
    weights=(
        *WEIGHTS,
        OUTPUT,
        norm("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
        norm("attn_k_norm.weight", "self_attn.k_norm.weight", "head"),
    ),
    sizes=sizes,
    refusal=refusal,
    rope=Rope(local=True),
    from_gguf=reader("gemma3", 6, BLOCKS_OF_27B),
)
