"""What a model is made of, for tables and JSON: the shared words about an opened checkpoint."""

from enum import StrEnum

from pydantic import BaseModel


class Role(StrEnum):
    """What a tensor does in the transformer. `expert` is any matrix of a routed expert."""

    EMBEDDING = "embedding"
    POSITION = "position"
    OUTPUT = "output"
    NORM = "norm"
    Q = "q"
    K = "k"
    V = "v"
    QKV = "qkv"
    O = "o"  # noqa: E741 - the field's name for the attention output
    GATE = "gate"
    UP = "up"
    GATE_UP = "gate_up"
    DOWN = "down"
    ROUTER = "router"
    EXPERT = "expert"
    BIAS = "bias"
    ROPE = "rope"
    SCALE = "scale"
    OTHER = "other"


class TensorSummary(BaseModel):
    """One stored tensor. `shape` is in NumPy's order: [out, in] for a matrix, GGUF sources included.

    `dtype` is the storage type as the field writes it: "BF16", "F32", "F8_E4M3", "Q4_K", "I32".
    `block` counts transformer blocks from 0; None for tensors outside of them. `bytes` is the stored size.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    block: int | None
    bytes: int


class ModelSummary(BaseModel):
    """An opened model, read from its headers alone.

    `parameters` counts the stored weights of the text part once (a tied output counts as nothing);
    `bytes` is the stored size of those tensors. `others` counts tensors outside the text part, by part.
    `notes` are sentences for the reader: what is tied, quantized already, left out. `state` is another one
    whenever the files are others, by size or time.
    """

    path: str
    kind: str
    architecture: str | None
    parameters: int
    bytes: int
    blocks: int
    tied_embeddings: bool
    quantization: str | None
    others: dict[str, int]
    notes: list[str]
    state: str = ""
    tensors: list[TensorSummary]
