"""A model of three tensors, open without an engine."""

from math import prod
from pathlib import Path

from app.state import State
from engine.api.model import ModelSummary, Role, TensorSummary
from engine.api.plan import ExportSummary, ExportTensor
from engine.api.presets import ModelFacts

DOWN, GATE, NORM = (f"model.layers.0.{name}.weight" for name in ("mlp.down_proj", "mlp.gate_proj", "norm"))
TENSORS = {DOWN: ((64, 256), Role.DOWN), GATE: ((64, 160), Role.GATE), NORM: ((256,), Role.NORM)}


def make_state() -> State:
    """A state that is ready; its plan follows."""
    state = State()
    tensors = [
        TensorSummary(name=name, shape=shape, dtype="BF16", role=role, block=0, bytes=2 * prod(shape))
        for name, (shape, role) in TENSORS.items()
    ]
    state.opening(Path("/models/tiny"))
    state.take_summary(
        ModelSummary(
            path="/models/tiny",
            kind="safetensors",
            architecture="llama",
            parameters=1,
            bytes=1,
            blocks=1,
            tied_embeddings=False,
            quantization=None,
            others={},
            notes=[],
            tensors=tensors,
        )
    )
    planned = [
        ExportTensor(name=f"blk.0.ffn_{role.value}.weight", shape=shape, role=role, block=0, sources=(name,))
        for name, (shape, role) in TENSORS.items()
    ]
    facts = ModelFacts(architecture="llama", blocks=1)
    state.take_export(ExportSummary(facts=facts, header_bytes=64, alignment=32, notes=[], tensors=planned))
    return state
