"""transformers' config of a checkpoint: from a folder's config.json, or from GGUF metadata."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engine.api.errors import CheckpointError, EvaluationError
from engine.api.model import Role
from engine.architectures.description import Architecture, Config, head_size
from engine.architectures.rope import ROPE_TENSORS, rope_parameters
from engine.checkpoint.errors import MissingTensorError

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "decoder_sparse_step",
    "max_position_embeddings",
)
"""What a model has of these, it has at least one of; transformers takes any whole number, and may divide."""

NEEDED = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length")
"""GGUF keys that an architecture cannot do without if it has them at all."""


class UnusableConfigError(CheckpointError):
    """A config.json that transformers refuses."""


class MissingMetadataError(EvaluationError):
    """A GGUF file without a hyper-parameter that the model cannot be built without."""


class UnusableMetadataError(EvaluationError):
    """A GGUF file whose hyper-parameters transformers' modules cannot express."""


def config_of_folder(checkpoint: "Checkpoint") -> Config:
    """The text model's `PretrainedConfig`, older spellings read as transformers reads them.

    Raises UnusableConfigError. Code that comes with a checkpoint is never run.
    """
    file = checkpoint.folder / "config.json"
    stated = checkpoint.config or {}
    kind = stated.get("model_type")
    if not isinstance(kind, str):
        raise UnusableConfigError(f"{file} names no architecture (model_type); download it again.")
    transformers = _quiet_transformers()
    if kind not in transformers.CONFIG_MAPPING:
        raise UnusableConfigError(
            f"{file}: transformers does not know the architecture {kind!r}; the model can be inspected, "
            "but neither measured nor exported."
        )
    spelling = transformers.CONFIG_MAPPING[kind].attribute_map
    for name in (spelling.get(name, name) for name in COUNTS):
        if isinstance(stated.get(name), int) and stated[name] < 1:
            raise UnusableConfigError(
                f"{file}: {name} is {stated[name]}, where a whole number from 1 on is needed."
            )
    for settings in (stated, stated.get("text_config")):
        name = spelling.get("num_hidden_layers", "num_hidden_layers")
        blocks = settings.get(name) if isinstance(settings, dict) else None
        if isinstance(blocks, int):
            check_blocks(checkpoint, blocks, "config.json states (num_hidden_layers)")
    try:
        config = _made_by(transformers, checkpoint.folder, stated).get_text_config()
        if not isinstance(config, transformers.PretrainedConfig):
            raise TypeError(f"the 'text_config' is {config!r}")
        config = _with_head_size(config)
    except Exception as error:  # transformers raises many kinds, some of them its own
        name = _culprit(error, stated)
        what = f"{name} = {_shown(stated[name])}" if name else "these settings"
        raise UnusableConfigError(
            f"{file}: transformers cannot make a {kind} model with {what}; correct the file, or download it "
            "again."
        ) from error
    if (counts := _more_experts_than_there_are(config)) is not None:
        raise UnusableConfigError(
            f"{file}: each token goes to {counts[0]} experts (num_experts_per_tok), where there are "
            f"{counts[1]}; correct the file, or download it again."
        )
    has_output = any(tensor.role is Role.OUTPUT for tensor in checkpoint.tensors.values())
    if stated.get("tie_word_embeddings") is True and not has_output:
        config.tie_word_embeddings = True  # some multimodal checkpoints say it in the outer config alone
    return config


def _made_by(transformers: ModuleType, folder: Path, stated: Mapping[str, Any]) -> Config:
    """transformers' config of a folder whose config.json says what is `stated`."""
    rope = stated.get("rope_scaling")
    if isinstance(rope, dict) and rope.get("type") == "su":  # the first name of longrope, in Phi-3
        renamed = dict(stated) | {"rope_scaling": rope | {"type": "longrope"}}
        return transformers.CONFIG_MAPPING[stated["model_type"]].from_dict(renamed)
    return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)


def check_blocks(checkpoint: "Checkpoint", blocks: int, stated: str) -> None:
    """Raises MissingTensorError for more blocks than tensors: transformers would list them all first."""
    if blocks > len(checkpoint.tensors):
        raise MissingTensorError(
            f"{checkpoint.path} has {len(checkpoint.tensors):,} tensors, too few for the {blocks:,} blocks "
            f"that its {stated}; take the complete checkpoint."
        )


def _quiet_transformers() -> ModuleType:
    """transformers, told to keep warnings and progress bars to itself: the reader gets our sentences."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _culprit(error: Exception, stated: Mapping[str, Any]) -> str | None:
    """The first setting of `stated` that transformers' complaint names, in quotes or in words."""
    text = str(error)
    if "rope_parameters" not in stated:
        text = text.replace("rope_parameters", "rope_scaling")  # the name that most files have
    quoted = re.findall(r"['`](\w+)['`]", text)
    in_words = (name for name in stated if "_" in name and name.replace("_", " ") in text)
    return next((name for name in (*quoted, *in_words) if name in stated), None)


def _shown(value: object) -> str:
    """A setting as its file has it, on one line."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"


def config_of_gguf(architecture: Architecture, checkpoint: "Checkpoint") -> Config:
    """The config whose transformers model computes what llama.cpp computes from this file.

    Raises MissingMetadataError, UnusableMetadataError, UnreadableRopeError.
    """
    keys = {key.config: f"{architecture.gguf}.{key.gguf}" for key in reversed(architecture.keys)}
    values = _hyper_parameters(architecture, checkpoint)
    for name, key in keys.items():
        if key.removeprefix(f"{architecture.gguf}.") in NEEDED and name is not None and name not in values:
            raise MissingMetadataError(f"{checkpoint.path} has no {key} in its metadata.")
    check_blocks(checkpoint, values["num_hidden_layers"], f"metadata state ({architecture.gguf}.block_count)")
    names = set(checkpoint.tensors)
    values |= architecture.from_gguf(checkpoint.metadata, names)
    values["tie_word_embeddings"] = "output.weight" not in names
    values["pad_token_id"] = None  # some have a default beyond a small vocabulary; nothing here pads
    if "token_embd.weight" in names:
        values["vocab_size"] = checkpoint.tensors["token_embd.weight"].shape[0]
    # What llama.cpp takes without these keys; transformers has other defaults.
    if "num_key_value_heads" in keys:
        values.setdefault("num_key_value_heads", values["num_attention_heads"])
    if "head_dim" in keys:
        values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    context = values.setdefault("max_position_embeddings", 2048)
    if architecture.rope is not None:
        head = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
        tensors = {name: checkpoint.read(name) for name in ROPE_TENSORS if name in names}
        values["rope_parameters"] = rope_parameters(
            checkpoint.metadata, architecture.rope, architecture.gguf, tensors, head, context
        )
    try:
        config = _with_head_size(_quiet_transformers().AutoConfig.for_model(architecture.name, **values))
    except Exception as error:  # as above
        culprit = _culprit(error, values)
        what = f"{keys.get(culprit, culprit)} = {_shown(values[culprit])}" if culprit else "these metadata"
        raise UnusableMetadataError(
            f"{checkpoint.path} cannot be evaluated: transformers cannot make a {architecture.name} model "
            f"with {what}."
        ) from error
    if (reason := architecture.refusal(config)) is not None:
        raise UnusableMetadataError(f"{checkpoint.path} cannot be evaluated: {reason}.")
    if (counts := _more_experts_than_there_are(config)) is not None:
        raise UnusableMetadataError(
            f"{checkpoint.path} cannot be evaluated: each token goes to {counts[0]} experts "
            f"({architecture.gguf}.expert_used_count), where there are {counts[1]}."
        )
    return config


def _more_experts_than_there_are(config: Config) -> tuple[int, int] | None:
    """How many experts a token goes to, and how many there are, if that cannot be: torch fails on it late."""
    chosen = getattr(config, "num_experts_per_tok", None)
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if isinstance(chosen, int) and isinstance(experts, int) and chosen > experts:
        return chosen, experts
    return None


def _hyper_parameters(architecture: Architecture, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Config attributes that the metadata gives. A list by block is taken if all its items agree."""
    values: dict[str, Any] = {}
    for key in architecture.keys:
        full = f"{architecture.gguf}.{key.gguf}"
        found = checkpoint.metadata.get(full)
        if found is None or key.config is None:
            continue
        candidates = set(found.value) if isinstance(found.value, list) else {found.value}
        candidates |= {values[key.config]} if key.config in values else set()
        if len(candidates) != 1:
            raise UnusableMetadataError(
                f"{checkpoint.path} cannot be evaluated: {full} is {found.value}, which differs between "
                f"blocks or from a size that transformers' {architecture.name} holds equal to it."
            )
        value = candidates.pop()
        if not key.allows(value):
            raise UnusableMetadataError(
                f"{checkpoint.path} cannot be evaluated: {full} is {value!r}, where {key.needed} is needed."
            )
        values[key.config] = value
    return values


def _with_head_size(config: Config) -> Config:
    """Some configs leave `head_dim` None where it follows from the others."""
    if getattr(config, "head_dim", 0) is None:
        config.head_dim = head_size(config)
    return config
