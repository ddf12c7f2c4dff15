"""Architectures that can be moved between transformers and GGUF, one short file each."""

from typing import TYPE_CHECKING

from engine.api.errors import ExportError
from engine.architectures.config import config_of_folder, config_of_gguf
from engine.architectures.description import Architecture
from engine.architectures.llama import LLAMA
from engine.architectures.mistral import MISTRAL
from engine.architectures.mixtral import MIXTRAL
from engine.architectures.view import FolderView, GgufView, TransformersView

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "TransformersView",
    "UnknownArchitectureError",
    "architecture_of",
    "transformers_view",
]

# Where several share a GGUF name, the first one whose `chosen` says so reads a file back.
ARCHITECTURES = (MIXTRAL, MISTRAL, LLAMA)


class UnknownArchitectureError(ExportError):
    """An architecture without a description here."""


def architecture_of(checkpoint: "Checkpoint") -> Architecture:
    """The description of a checkpoint's architecture. Raises UnknownArchitectureError."""
    name = checkpoint.architecture
    for architecture in ARCHITECTURES:
        if checkpoint.kind == "gguf":
            if architecture.gguf == name and architecture.chosen(checkpoint.metadata):
                return architecture
        elif architecture.name == name:
            return architecture
    known = ", ".join(sorted(architecture.name for architecture in ARCHITECTURES))
    if name is None:
        reason = (
            "there is no config.json beside the weights"
            if checkpoint.config is None
            else "config.json names none as its model_type"
        )
        raise UnknownArchitectureError(
            f"{checkpoint.path}: the architecture is unknown, because {reason}; known are {known}."
        )
    raise UnknownArchitectureError(
        f'{checkpoint.path}: the architecture "{name}" cannot be converted; known are {known}.'
    )


def transformers_view(checkpoint: "Checkpoint") -> TransformersView:
    """The checkpoint as transformers sees it; reads no weight but the few of a GGUF's rope frequencies.

    A Hugging Face folder of any architecture that transformers knows; a GGUF file of one described here.
    Raises UnknownArchitectureError, UnusableConfigError, and the errors of `view` and `config`.
    """
    if checkpoint.kind == "gguf":
        architecture = architecture_of(checkpoint)
        return GgufView(checkpoint, architecture, config_of_gguf(architecture, checkpoint))
    if checkpoint.config is None:
        architecture_of(checkpoint)  # raises, saying why
    return FolderView(checkpoint, config_of_folder(checkpoint))
