"""transformers' config of a checkpoint: from a folder's config.json, or from GGUF metadata."""

from typing import TYPE_CHECKING, Any

from engine.api.errors import CheckpointError, EvaluationError
from engine.api.model import Role
from engine.architectures.description import Architecture, Config
from engine.architectures.rope import FREQUENCIES, rope_parameters

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint


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
    from transformers import CONFIG_MAPPING, AutoConfig

    file = checkpoint.folder / "config.json"
    stated = checkpoint.config or {}
    kind = stated.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        raise UnusableConfigError(
            f"{file}: transformers does not know the architecture {kind!r}; the model can be inspected, "
            "but neither measured nor exported."
        )
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False).get_text_config()
    except Exception as error:  # transformers raises many kinds, some of them its own; each names the field
        raise UnusableConfigError(f"{file} cannot be used: {_first_sentence(error)}") from error
    has_output = any(tensor.role is Role.OUTPUT for tensor in checkpoint.tensors.values())
    if stated.get("tie_word_embeddings") is True and not has_output:
        config.tie_word_embeddings = True  # some multimodal checkpoints say it in the outer config alone
    return _with_head_size(config)


def _first_sentence(error: Exception) -> str:
    """What a library says, on one line, without its advice about versions."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") + "."


def config_of_gguf(architecture: Architecture, checkpoint: "Checkpoint") -> Config:
    """The config whose transformers model computes what llama.cpp computes from this file.

    Raises MissingMetadataError, UnusableMetadataError, UnreadableRopeError.
    """
    from transformers import AutoConfig

    prefix = architecture.gguf
    values = _hyper_parameters(architecture, checkpoint)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if name not in values:
            suffix = next(key.gguf for key in architecture.keys if key.config == name)
            raise MissingMetadataError(f"{checkpoint.path} has no {prefix}.{suffix} in its metadata.")
    names = set(checkpoint.tensors)
    values |= architecture.from_gguf(names)
    values["tie_word_embeddings"] = "output.weight" not in names
    if "token_embd.weight" in names:
        values["vocab_size"] = checkpoint.tensors["token_embd.weight"].shape[0]
    context = values.setdefault("max_position_embeddings", 2048)
    divisors = checkpoint.read(FREQUENCIES) if FREQUENCIES in names else None
    head = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    values["rope_parameters"] = rope_parameters(checkpoint.metadata, prefix, divisors, head // 2, context)
    try:
        return _with_head_size(AutoConfig.for_model(architecture.name, **values))
    except Exception as error:  # as above
        reason = _first_sentence(error)
        raise UnusableMetadataError(f"{checkpoint.path} cannot be evaluated: {reason}") from error


def _hyper_parameters(architecture: Architecture, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Config attributes that the metadata gives. A list by block is taken if all its items agree."""
    values: dict[str, Any] = {}
    for key in architecture.keys:
        full = f"{architecture.gguf}.{key.gguf}"
        found = checkpoint.metadata.get(full)
        if found is None:
            continue
        candidates = set(found.value) if isinstance(found.value, list) else {found.value}
        candidates |= {values[key.config]} if key.config in values else set()
        if len(candidates) != 1:
            raise UnusableMetadataError(
                f"{checkpoint.path} cannot be evaluated: {full} is {found.value}, which differs between "
                f"blocks or from a size that transformers' {architecture.name} holds equal to it."
            )
        values[key.config] = candidates.pop()
    return values


def _with_head_size(config: Config) -> Config:
    """Some configs leave `head_dim` None where it follows from the others."""
    if getattr(config, "head_dim", 0) is None:
        config.head_dim = config.hidden_size // config.num_attention_heads
    return config
