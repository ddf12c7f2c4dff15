"""What a checkpoint becomes in GGUF: metadata, tensors, and every check that needs no weight."""

import re
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGML_QUANT_VERSION, GGUF_DEFAULT_ALIGNMENT, Keys, size_label

from engine.api.errors import ExportError
from engine.api.formats import FORMATS
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.model import Role
from engine.api.plan import kept_in_float
from engine.architectures import architecture_of
from engine.architectures.config import config_of_folder
from engine.architectures.description import Architecture, Config, Metadata, Place
from engine.architectures.rope import rope_metadata
from engine.checkpoint.errors import MissingTensorError, TensorShapeError, UnknownTensorError
from engine.checkpoint.names import is_buffer, text_name
from engine.checkpoint.quantized import FP8_TYPES
from engine.export.gguf.model_card import card_metadata
from engine.export.gguf.tensor import OutputTensor

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint, Tensor

COMPARED_ROWS = 256
FLOATS = ("F64", "F32", "F16", "BF16")
WRITTEN_ANEW = {
    Keys.General.FILE_TYPE: GgufValue(GGUFValueType.UINT32, 0),
    Keys.General.QUANTIZATION_VERSION: GgufValue(GGUFValueType.UINT32, GGML_QUANT_VERSION),
}
"""Keys that the writer adds; the first one's value follows from the formats."""


LEFT_ALONE = re.compile(
    r"altup|laurel|^sam\.|indexer\.[kq]_proj|per_layer_model_proj|^token_types\.|ssm_conv1d|shortconv\.conv\.|attn_rel_b\.|\.rel_pos|"
    r"ffn_gate_tid2eid\.|time_mix_(?:first|[wvag][0-2]|decay_w[12]|lerp_fused)\.|\.position_embd|\.patch_(?:embd|merger)"
)
"""Small matrices that runtimes want as they are: llama-quantize leaves these alone, and all whose names do
not end in "weight" (llama.cpp, src/llama-quant.cpp, tensor_allows_quantization)."""


_ALIKE: dict[tuple, bool] = {}
"""What the last comparison of an output with an embedding found, by their files' stamp and their names.

The window plans a model at each look at a run, and to read both again may take gigabytes each time.
"""


class UnsupportedModelError(ExportError):
    """A model of a known architecture with a setting that llama.cpp does not compute."""


class HyperParameterError(ExportError):
    """A number in the config that no model can have, or GGUF cannot hold."""


@dataclass
class Export:
    """A GGUF file before its formats are chosen. `notes` are sentences for the reader.

    `metadata` lacks the two keys that the formats decide (`header` adds them).
    """

    architecture: str
    metadata: Metadata
    tensors: list[OutputTensor]
    notes: list[str] = field(default_factory=list)

    @property
    def alignment(self) -> int:
        """Bytes of which each tensor's place is a multiple."""
        stated = self.metadata.get(Keys.General.ALIGNMENT)
        return GGUF_DEFAULT_ALIGNMENT if stated is None else stated.value


def plan_export(checkpoint: "Checkpoint", pre_tokenizer: str | None = None) -> Export:
    """Everything about the output but the formats. Raises Export-, Checkpoint- and TokenizerErrors.

    A GGUF source of any architecture keeps its metadata and tensors as they are. Anything else must be
    of an architecture described in `engine.architectures`, with its tokenizer beside it. `pre_tokenizer` is
    the user's name for how the tokenizer splits text; raises RecipeError where it is unknown or has no use.
    """
    if checkpoint.kind == "gguf":
        return _from_gguf(checkpoint, pre_tokenizer)
    return _from_folder(checkpoint, pre_tokenizer)


def export_tensors(checkpoint: "Checkpoint") -> list[OutputTensor]:
    """The tensors of the output alone: no tokenizer is read. Raises as `plan_export` does."""
    if checkpoint.kind == "gguf":
        return _gguf_tensors(checkpoint)
    architecture = architecture_of(checkpoint)
    return _tensors(checkpoint, architecture, config_of_folder(checkpoint), [])


def _from_gguf(checkpoint: "Checkpoint", pre_tokenizer: str | None) -> Export:
    if checkpoint.architecture is None:
        raise ExportError(f"{checkpoint.path} does not name its architecture ({Keys.General.ARCHITECTURE}).")
    if checkpoint.others:
        raise UnknownTensorError(
            f"{checkpoint.path}: {checkpoint.others[0].name} is no part of a text model, and the export "
            "would lose it; convert files of text models only."
        )
    metadata = {
        key: value
        for key, value in checkpoint.metadata.items()
        if key not in WRITTEN_ANEW and not key.startswith("split.")
    }
    if pre_tokenizer is not None:
        from engine.tokenizer.recognition import with_pre_tokenizer

        metadata = with_pre_tokenizer(metadata, pre_tokenizer, str(checkpoint.path))
    return Export(checkpoint.architecture, metadata, _gguf_tensors(checkpoint))


def _gguf_tensors(checkpoint: "Checkpoint") -> list[OutputTensor]:
    if not checkpoint.tensors:
        raise UnsupportedModelError(
            f"{checkpoint.path} holds no tensors, only metadata; there is nothing to quantize."
        )
    tensors = []
    for tensor in checkpoint.tensors.values():
        tensors.append(
            OutputTensor(
                tensor.name,
                tensor.shape or (1,),  # a value without axes is, to ggml, a row of one
                tensor.role,
                tensor.block,
                (tensor.name,),
                stored=tensor.dtype,
                copyable=True,
                fixed=_fixed(tensor),
            )
        )
    return tensors


def _fixed(tensor: "Tensor") -> str:
    """The format that a tensor of a GGUF file keeps whatever a recipe says, or ""."""
    if tensor.dtype not in FORMATS:
        return tensor.dtype
    small = kept_in_float(tensor) is not None
    several = prod(tensor.shape[:-1]) > 1  # rows: for llama-quantize a matrix of one is a vector
    if not small and several and tensor.name.endswith("weight") and not LEFT_ALONE.search(tensor.name):
        return ""
    return "" if small and tensor.dtype == "F32" else tensor.dtype


def _from_folder(checkpoint: "Checkpoint", pre_tokenizer: str | None) -> Export:
    from engine.tokenizer.gguf import tokenizer_metadata

    architecture = architecture_of(checkpoint)
    config = config_of_folder(checkpoint)
    reason = architecture.refusal(config)
    if reason is not None:
        raise UnsupportedModelError(f"{checkpoint.path} cannot be exported: {reason}.")
    rope: Metadata = {}
    divisors: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if architecture.rope is not None:
        rope, divisors, notes = rope_metadata(config, architecture.rope, architecture.gguf)
    notes += architecture.notes(config)
    sizes = _hyper_parameters(architecture, config)
    tensors = _tensors(checkpoint, architecture, config, notes)
    card, remarks = card_metadata(checkpoint.folder)
    notes += remarks
    metadata = _general(checkpoint, architecture, tensors) | card | sizes | rope
    assert checkpoint.config is not None, "an architecture is known from config.json only"
    metadata |= tokenizer_metadata(
        checkpoint.folder, config.vocab_size, checkpoint.config, pre_tokenizer=pre_tokenizer, notes=notes
    )
    for name, values in divisors.items():
        tensors.append(OutputTensor(name, values.shape, Role.ROPE, None, (), values=values))
    return Export(architecture.gguf, metadata, tensors, notes)


def _tensors(
    checkpoint: "Checkpoint", architecture: Architecture, config: Config, notes: list[str]
) -> list[OutputTensor]:
    """All stored weights at their places; each source is used once or named in `notes` or an error."""
    sources = _by_canonical(checkpoint, architecture, notes)
    if config.tie_word_embeddings and _head_is_embedding(checkpoint, sources):
        sources.pop("output.weight", None)
    tensors = []
    embedding = sources.get("token_embd.weight", [])
    for place in architecture.places(config):
        found = sources.pop(place.canonical, [])
        if not found and place.canonical == "output.weight" and config.tie_word_embeddings:
            if not architecture.own_output:
                continue  # llama.cpp takes the embedding
            found = embedding
        tensors.append(_output_tensor(checkpoint, config, place, found))
    for unplaced in sources.values():
        raise UnknownTensorError(
            f"{checkpoint.path}: {unplaced[0].name} has no place in a {architecture.name} model with this "
            "config.json, so the export would lose it; nothing was written."
        )
    return tensors


def _by_canonical(
    checkpoint: "Checkpoint", architecture: Architecture, notes: list[str]
) -> dict[str, list["Tensor"]]:
    """Stored tensors by GGUF name, routed experts and heads in their order; one may hold several of GGUF."""
    sources: dict[str, list[Tensor]] = {}
    computed = []
    for tensor in checkpoint.tensors.values():
        if is_buffer(tensor.name):
            computed.append(tensor.name)
        elif tensor.role is Role.SCALE:
            continue  # part of an FP8 weight: `Checkpoint.read` multiplies by it
        elif tensor.dtype not in FLOATS + FP8_TYPES:
            raise UnsupportedModelError(
                f"{checkpoint.path}: {tensor.name} is stored as {tensor.dtype} "
                f"({checkpoint.quantization or 'no weights'}) and cannot be read; take the original model."
            )
        elif names := architecture.stacked_in(text_name(tensor.name), tensor.block):
            for name in names:
                sources.setdefault(name, []).append(tensor)
        elif tensor.canonical is None:
            raise UnknownTensorError(
                f"{checkpoint.path}: {tensor.name} is unknown to the architecture {architecture.name}, and "
                "the export would lose it; nothing was written."
            )
        else:
            sources.setdefault(tensor.canonical, []).append(tensor)
    if computed:
        notes.append(
            f"{len(computed)} stored tables follow from config.json and are left out: {computed[0]}, …."
        )
    if checkpoint.others:
        notes.append(
            f"{len(checkpoint.others)} tensors outside of the text model are not exported "
            f"({checkpoint.others[0].name}, …)."
        )
    return {name: sorted(found, key=lambda tensor: _part(tensor) or 0) for name, found in sources.items()}


def _output_tensor(
    checkpoint: "Checkpoint", config: Config, place: Place, found: list["Tensor"]
) -> OutputTensor:
    if not found:
        raise MissingTensorError(
            f"{checkpoint.path} has no {place.module}, which its config.json asks for; "
            "take the complete checkpoint."
        )
    stacked = all(_part(tensor) is not None for tensor in found)
    if stacked and [_part(tensor) for tensor in found] != list(range(place.shape[0])):
        raise MissingTensorError(
            f"{checkpoint.path} has {len(found)} {'heads' if found[0].expert is None else 'experts'} for "
            f"{place.canonical} where config.json says {place.shape[0]}."
        )
    if not stacked and len(found) > 1:
        raise UnknownTensorError(
            f"{checkpoint.path} holds {place.canonical} twice: as {found[0].name} and as {found[1].name}."
        )
    expected = place.stored_shape[1:] if stacked else place.stored_shape
    part = place.part if text_name(found[0].name) == place.module else None
    if part is not None:
        expected = (*place.shape[:-2], part[1], place.shape[-1])
    for tensor in found:
        if tensor.shape != expected:
            raise TensorShapeError(
                f"{checkpoint.path}: {tensor.name} has the shape {list(tensor.shape)} where config.json "
                f"says {list(expected)}; config and weights do not belong together."
            )
    types = {tensor.dtype for tensor in found}
    return OutputTensor(
        place.canonical,
        place.shape,
        Role.OUTPUT if place.canonical == "output.weight" else found[0].role,
        place.block,
        tuple(tensor.name for tensor in found),
        order=place.order(config),
        part=part,
        transposed=place.weight.transposed,
        plus=place.weight.plus,
        stored=types.pop() if len(types) == 1 else "",
    )


def _part(tensor: "Tensor") -> int | None:
    """The number of a tensor that GGUF stacks with others: of its expert or head."""
    return tensor.head if tensor.expert is None else tensor.expert


def _head_is_embedding(checkpoint: "Checkpoint", sources: dict[str, list["Tensor"]]) -> bool:
    """Whether a stored output is the tied embedding again. transformers unties them, too, if they differ."""
    head, embedding = sources.get("output.weight"), sources.get("token_embd.weight")
    if not head or not embedding:
        return True
    if head[0].shape != embedding[0].shape:
        return False
    pair = (checkpoint.stamp, head[0].name, embedding[0].name)
    alike = _ALIKE.get(pair)
    if alike is None:
        alike = _are_alike(checkpoint, head[0], embedding[0])
        _ALIKE.clear()
        _ALIKE[pair] = alike
    return alike


def _are_alike(checkpoint: "Checkpoint", one: "Tensor", other: "Tensor") -> bool:
    for start in range(0, one.shape[0], COMPARED_ROWS):
        rows = slice(start, min(start + COMPARED_ROWS, one.shape[0]))
        if not np.array_equal(checkpoint.read(one.name, rows), checkpoint.read(other.name, rows)):
            return False
    return True


def _general(checkpoint: "Checkpoint", architecture: Architecture, tensors: list[OutputTensor]) -> Metadata:
    experts = [tensor for tensor in tensors if len(tensor.shape) == 3]
    count = experts[0].shape[0] if experts else 0
    total = sum(prod(tensor.shape) for tensor in tensors)
    in_experts = sum(prod(tensor.shape) for tensor in experts)
    label = size_label(total, total - in_experts, in_experts // max(count, 1), count)
    texts = {
        Keys.General.ARCHITECTURE: architecture.gguf,
        Keys.General.TYPE: "model",
        Keys.General.NAME: checkpoint.title,
        Keys.General.SIZE_LABEL: label,
    }
    return {key: GgufValue(GGUFValueType.STRING, text) for key, text in texts.items()}


def _hyper_parameters(architecture: Architecture, config: Config) -> Metadata:
    metadata = {}
    for key in architecture.keys:
        value = key.of(config)
        if value is None and key.value is not None:
            continue
        if not key.allows(value):
            raise HyperParameterError(
                f"config.json: {key.config or key.gguf} is {value}, where {key.needed} is needed."
            )
        metadata[f"{architecture.gguf}.{key.gguf}"] = GgufValue(key.type, value)
    stated = f"{architecture.gguf}.attention.key_length" in metadata
    if not stated and config.hidden_size % config.num_attention_heads:
        raise HyperParameterError(
            f"config.json: num_attention_heads is {config.num_attention_heads}, which does not divide the "
            f"{config.hidden_size} values of a hidden state; llama.cpp takes their quotient for a head."
        )
    return metadata
