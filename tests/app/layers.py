"""Models in memory for tests of the layers view."""

from pathlib import Path

from app.state import State
from engine.api.model import ModelSummary, Role, TensorSummary
from engine.api.plan import ExportSummary, ExportTensor
from engine.api.presets import ModelFacts

PARTS = {
    "input_layernorm": ("attn_norm", Role.NORM, (256,)),
    "self_attn.q_proj": ("attn_q", Role.Q, (256, 256)),
    "self_attn.k_proj": ("attn_k", Role.K, (64, 256)),
    "self_attn.v_proj": ("attn_v", Role.V, (64, 256)),
    "mlp.gate_proj": ("ffn_gate", Role.GATE, (512, 256)),
    "mlp.up_proj": ("ffn_up", Role.UP, (512, 256)),
    "mlp.down_proj": ("ffn_down", Role.DOWN, (256, 172)),
}
OUTSIDE = {
    "model.embed_tokens.weight": ("token_embd.weight", Role.EMBEDDING, (1000, 256)),
    "model.norm.weight": ("output_norm.weight", Role.NORM, (256,)),
    "lm_head.weight": ("output.weight", Role.OUTPUT, (1000, 256)),
}
UNUSED = "vision.tower.weight"
"""A source tensor that has no place in the output."""


def summaries(blocks: int) -> tuple[ModelSummary, ExportSummary]:
    """A model of 7 tensors a block, 3 outside, and one that is not written."""
    named = dict(OUTSIDE)
    blocks_of = dict.fromkeys(named, None) | {}
    for block in range(blocks):
        for part, (canonical, role, shape) in PARTS.items():
            name = f"model.layers.{block}.{part}.weight"
            named[name] = (f"blk.{block}.{canonical}.weight", role, shape)
            blocks_of[name] = block
    sources = [
        TensorSummary(
            name=name, shape=shape, dtype="BF16", role=role, block=blocks_of[name], bytes=2 * _count(shape)
        )
        for name, (_, role, shape) in named.items()
    ]
    unused = TensorSummary(name=UNUSED, shape=(4, 4), dtype="F32", role=Role.OTHER, block=None, bytes=64)
    outputs = [
        ExportTensor(name=canonical, shape=shape, role=role, block=blocks_of[name], sources=(name,))
        for name, (canonical, role, shape) in named.items()
    ]
    summary = ModelSummary(
        path="m",
        kind="safetensors",
        architecture="LlamaForCausalLM",
        parameters=1,
        bytes=sum(tensor.bytes for tensor in sources),
        blocks=blocks,
        tied_embeddings=False,
        quantization=None,
        others={},
        notes=[],
        tensors=[*sources, unused],
    )
    facts = ModelFacts("llama", blocks)
    return summary, ExportSummary(facts=facts, header_bytes=1000, alignment=32, notes=[], tensors=outputs)


HOSTILE = "model.layers.0.<b>x</b>&amp;&\n\u202ey"
"""A tensor's name with markup, control characters, and what turns the direction of writing."""


def hostile_model(state: State) -> None:
    """One block, its query with a hostile name."""
    summary, export = summaries(1)
    sources = [tensor.model_copy(update=_hostile(tensor.name)) for tensor in summary.tensors]
    outputs = [
        tensor.model_copy(update={"sources": tuple(_hostile(name)["name"] for name in tensor.sources)})
        for tensor in export.tensors
    ]
    state.opening(Path("model"))
    state.take_summary(summary.model_copy(update={"tensors": sources}))
    state.take_export(export.model_copy(update={"tensors": outputs}))


def _hostile(name: str) -> dict[str, str]:
    return {"name": HOSTILE if name.endswith("q_proj.weight") else name}


def open_model(state: State, blocks: int) -> None:
    """Everything but the first plan, which comes by `plan_changed`."""
    summary, export = summaries(blocks)
    state.opening(Path("model"))
    state.take_summary(summary)
    state.take_export(export)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
