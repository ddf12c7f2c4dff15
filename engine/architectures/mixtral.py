"""Mixtral: Mistral's attention, feed-forward by routed experts. GGUF stacks the experts of a block."""

from gguf import GGUFValueType

from engine.architectures.description import Architecture, Config, Key, Metadata, Weight
from engine.architectures.llama import ATTENTION, EMBEDDING, HEAD, KEYS, refusal, sizes
from engine.architectures.mistral import window_note

EXPERTS = "model.layers.{block}.mlp.experts."
FEED_FORWARD = (
    Weight("blk.{block}.ffn_gate_inp.weight", "model.layers.{block}.mlp.gate.weight", ("experts", "hidden")),
    Weight("blk.{block}.ffn_gate_exps.weight", EXPERTS + "gate_up_proj", ("experts", "ff", "hidden")),
    Weight("blk.{block}.ffn_up_exps.weight", EXPERTS + "gate_up_proj", ("experts", "ff", "hidden")),
    Weight("blk.{block}.ffn_down_exps.weight", EXPERTS + "down_proj", ("experts", "hidden", "ff")),
)


def sizes_with_experts(config: Config) -> dict[str, int]:
    return sizes(config) | {"experts": config.num_local_experts}


def has_experts(metadata: Metadata) -> bool:
    count = metadata.get("llama.expert_count")
    return count is not None and count.value > 0


MIXTRAL = Architecture(
    name="mixtral",
    gguf="llama",
    keys=(
        *KEYS,
        Key("num_local_experts", "expert_count", GGUFValueType.UINT32),
        Key("num_experts_per_tok", "expert_used_count", GGUFValueType.UINT32),
    ),
    weights=(EMBEDDING, *HEAD, *ATTENTION, *FEED_FORWARD),
    sizes=sizes_with_experts,
    refusal=refusal,
    notes=window_note,
    chosen=has_experts,
)
