"""Architectures that can be moved between transformers and GGUF: a table each, in `families`."""

import pkgutil
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from engine.api.errors import ExportError
from engine.architectures import families
from engine.architectures.config import config_of_folder, config_of_gguf
from engine.architectures.description import Architecture
from engine.architectures.view import FolderView, GgufView, TransformersView

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "TransformersView",
    "UnknownArchitectureError",
    "architecture_of",
    "known_architecture",
    "transformers_view",
]


def _described() -> tuple[Architecture, ...]:
    """Every architecture that a module of `families` defines, by name."""
    found = {}
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, Architecture):
                found[value.name] = value
    return tuple(found[name] for name in sorted(found))


ARCHITECTURES = _described()


class UnknownArchitectureError(ExportError):
    """An architecture without a description here."""


def known_architecture(checkpoint: "Checkpoint") -> Architecture | None:
    """The description of a checkpoint's architecture; None where there is none."""
    name = checkpoint.architecture
    for architecture in ARCHITECTURES:
        if checkpoint.kind == "gguf":
            if architecture.gguf == name and architecture.chosen(checkpoint.metadata):
                return architecture
        elif name in (architecture.name, *architecture.also):
            return architecture
    return None


def architecture_of(checkpoint: "Checkpoint") -> Architecture:
    """As `known_architecture`. Raises UnknownArchitectureError where there is none."""
    found = known_architecture(checkpoint)
    if found is None:
        raise UnknownArchitectureError(f"{checkpoint.path}: {_unknown(checkpoint)}")
    return found


def _unknown(checkpoint: "Checkpoint") -> str:
    """Why there is no description, which is the nearest, and what can be done."""
    name = checkpoint.architecture
    known = sorted({a.gguf if checkpoint.kind == "gguf" else a.name for a in ARCHITECTURES})
    if name is None:
        reason = (
            "there is no config.json beside the weights"
            if checkpoint.config is None
            else "config.json names none as its model_type"
        )
        return f"the architecture is unknown, because {reason}; known are {', '.join(known)}."
    (near,) = get_close_matches(name, known, n=1, cutoff=0)
    nearest = f"the nearest is {near} of {', '.join(known)}"
    if name in known:
        nearest = "another kind of model under that name is known"
    if checkpoint.kind == "gguf":
        return (
            f'the architecture "{name}" cannot be evaluated here ({nearest}); '
            "the file can be quantized all the same."
        )
    return (
        f'the architecture "{name}" cannot be converted ({nearest}); make a GGUF file in F16 with '
        "llama.cpp's convert_hf_to_gguf.py and open that: Bitwright quantizes it whatever its architecture."
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
