"""Gives stored tensors their meaning (names, roles, blocks, ties) and makes the `Checkpoint`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from gguf import MODEL_ARCH, LlamaFileType

from engine.api.gguf import GgufValue
from engine.api.model import Role
from engine.api.wording import shown, word
from engine.checkpoint.checkpoint import Checkpoint, Tensor
from engine.checkpoint.errors import NotAModelError
from engine.checkpoint.files import SourceFile
from engine.checkpoint.names import Identity, gguf_architecture, identify, other_part
from engine.checkpoint.quantized import Quantization, plain_name, recognise
from engine.checkpoint.stored import PLAIN_BITS, Stored

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
_BLOCK_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HIDDEN_SIZES = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")


def assemble_transformers(
    path: Path,
    kind: str,
    files: list[SourceFile],
    stored: list[Stored],
    config: dict | None,
    notes: list[str],
    json_bytes: int,
) -> Checkpoint:
    """The checkpoint of a Hugging Face folder or a lone file, with the config beside it.

    `notes` are added to; `json_bytes` is what was read beside `files`.
    """
    if config is None:
        notes.append(
            "There is no config.json: the architecture is unknown, and the model cannot be exported."
        )
    config = _text_part(config)
    architecture = word((config or {}).get("model_type"))
    quantization = recognise(config, stored)
    gguf_name = gguf_architecture(architecture) if architecture else None
    known = [_identified(tensor, gguf_name, quantization) for tensor in stored]
    tensors = list(_with_fused(known, _whole(config, _HIDDEN_SIZES)))
    stated = (config or {}).get("tie_word_embeddings") is True
    tied = stated or _shares_embedding(tensors)
    notes += _notes(tensors, stated)
    return Checkpoint(
        path,
        kind,
        files,
        tensors,
        architecture=architecture,
        config=config,
        metadata={},
        quantization=quantization,
        blocks=_blocks(tensors, _whole(config, _BLOCK_COUNTS), notes),
        tied=tied,
        notes=notes,
        bytes_read=sum(file.bytes_read for file in files) + json_bytes,
    )


def assemble_gguf(
    path: Path, files: list[SourceFile], stored: list[Stored], metadata: dict[str, GgufValue]
) -> Checkpoint:
    """The checkpoint of a GGUF file; all that is known of the model stands in `metadata`."""
    values = {key: value.value for key, value in metadata.items() if value.item_type is None}
    kind = values.get("general.type", "model")
    if kind != "model" and kind != "mmproj":
        raise NotAModelError(f"{path} is a GGUF file of type {shown(kind)}, not a model.")
    architecture = word(values.get("general.architecture"))
    notes = [] if architecture else ["The file names no architecture (general.architecture)."]
    hidden = _whole(values, [f"{architecture}.feed_forward_length"])
    known = [_identified(tensor, None, None, gguf=True) for tensor in stored]
    tensors = list(_with_fused(known, hidden))
    notes += _notes(tensors, stated_tied=False)
    label = _type_mix(values.get("general.file_type"), tensors)
    return Checkpoint(
        path,
        "gguf",
        files,
        tensors,
        architecture=architecture,
        config=None,
        metadata=metadata,
        quantization=Quantization(label) if label else None,
        blocks=_blocks(tensors, _whole(values, [f"{architecture}.block_count"]), notes),
        tied=_shares_embedding(tensors),
        notes=notes,
        bytes_read=sum(file.bytes_read for file in files),
    )


def _text_part(config: dict | None) -> dict | None:
    """The config of the text model: that of a multimodal one with its text part laid over it."""
    if config is None:
        return None
    if isinstance(config.get("thinker_config"), dict):
        config = config["thinker_config"]
    for key in _TEXT_CONFIGS:
        if isinstance(config.get(key), dict):
            outer = {name: value for name, value in config.items() if name != key}
            return outer | config[key]
    return config


def _whole(values: dict | None, keys: Iterable[str]) -> int | None:
    """The first of the keys that has a positive whole number."""
    found = ((values or {}).get(key) for key in keys)
    return next((value for value in found if type(value) is int and 0 < value < 1 << 63), None)


def _with_fused(tensors: list[Tensor], hidden: int | None) -> Iterator[Tensor]:
    """Gives gate and up in one matrix their role where the name says only up (Phi-3, ChatGLM).

    They are told by twice the feed-forward size, `hidden`, in a block without a gate.
    """
    gated = {tensor.block for tensor in tensors if tensor.role == Role.GATE}
    for tensor in tensors:
        alone = tensor.role == Role.UP and tensor.block not in gated and len(tensor.shape) == 2
        fused = alone and hidden is not None and tensor.shape[0] == 2 * hidden
        yield replace(tensor, role=Role.GATE_UP) if fused else tensor


def _identified(
    stored: Stored, architecture: MODEL_ARCH | None, quantization: Quantization | None, *, gguf: bool = False
) -> Tensor:
    """A stored tensor with its meaning."""
    name = plain_name(stored.name) if quantization else stored.name
    part = other_part(stored.name, gguf=gguf)
    if part is not None:
        found = Identity(None, Role.OTHER, None, None)
    else:
        found = identify(name, architecture, gguf=gguf)
    scale = quantization is not None and quantization.is_scale(stored.name)
    return Tensor(
        name=stored.name,
        canonical=None if scale else found.canonical,
        shape=stored.shape,
        dtype=stored.dtype,
        role=Role.SCALE if scale else found.role,
        block=found.block,
        expert=found.expert,
        head=found.head,
        bytes=stored.bytes,
        file=stored.path,
        offset=stored.offset,
        part=part,
    )


def _blocks(tensors: list[Tensor], stated: int | None, notes: list[str]) -> int:
    """The number of blocks that the config states, unless the names contradict it."""
    found = len({tensor.block for tensor in tensors if tensor.block is not None})
    if stated is None or stated == found:
        return found
    if stated < found:
        notes.append(f"{found} blocks are stored, of which the model uses {stated}.")
        return stated
    notes.append(f"The config states {stated:,} blocks; only {found} of them are stored.")
    return found


def _shares_embedding(tensors: list[Tensor]) -> bool:
    """Whether there is no output matrix beside the embedding, or it is the same bytes of the same file."""
    embeddings = {(tensor.file, tensor.offset) for tensor in tensors if tensor.role == Role.EMBEDDING}
    outputs = {(tensor.file, tensor.offset) for tensor in tensors if tensor.role == Role.OUTPUT}
    return bool(embeddings) and outputs <= embeddings


def _notes(tensors: list[Tensor], stated_tied: bool) -> list[str]:
    notes = []
    output = next((tensor.name for tensor in tensors if tensor.role == Role.OUTPUT), None)
    if stated_tied and output:
        notes.append(
            f"{output} is stored, though the config ties the output to the embedding; it is not used."
        )
    parts = Counter(tensor.part for tensor in tensors)
    text = parts.pop(None, 0)
    if parts:
        counts = ", ".join(
            f"{part} ({count} {'tensor' if count == 1 else 'tensors'})" for part, count in parts.items()
        )
        notes.append(f"Outside of the text model, and left out: {counts}.")
    if not text:
        notes.append("There is no text model in it.")
    return notes


def _type_mix(file_type: object, tensors: list[Tensor]) -> str | None:
    """ "Q4_K_M (24 Q4_K, 9 F32, 5 Q6_K)" for a GGUF file with quantized tensors, else None."""
    counts = Counter(tensor.dtype for tensor in tensors)
    if all(dtype in PLAIN_BITS for dtype in counts):
        return None
    mix = ", ".join(f"{count} {dtype}" for dtype, count in counts.most_common())
    try:
        name = LlamaFileType(file_type).name.removeprefix("MOSTLY_")
    except ValueError:
        name = "mixed types"
    return f"{name} ({mix})"
