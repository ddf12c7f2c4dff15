"""Mistral: Llama's blocks without biases, with a sliding window of attention. GGUF calls it "llama"."""

from engine.architectures.description import Architecture, Config
from engine.architectures.families.llama import (
    ATTENTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    KEYS,
    ROPE,
    refusal,
    sizes,
)


def window_note(config: Config) -> list[str]:
    """For graphs of llama.cpp that always attend to the whole context."""
    window = config.sliding_window
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    if not window or window >= config.max_position_embeddings or "sliding_attention" not in kinds:
        return []
    return [
        f"The model attends to the last {window} tokens only; llama.cpp attends to all of them, "
        f"so results differ from the original for texts longer than {window} tokens."
    ]


MISTRAL = Architecture(
    name="mistral",
    gguf="llama",
    keys=KEYS,
    weights=(EMBEDDING, *HEAD, *ATTENTION, *FEED_FORWARD),
    sizes=sizes,
    refusal=refusal,
    notes=window_note,
    rope=ROPE,
    # A GGUF keeps no trace of the sliding window: read back, such a file is a Llama.
    chosen=lambda metadata: False,
)
