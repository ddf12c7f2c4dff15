"""A checkpoint as transformers sees it: its config, its names, its order of rows."""

from typing import TYPE_CHECKING

import numpy as np

from engine.architectures.config import check_blocks
from engine.architectures.description import Architecture, Config, Place
from engine.architectures.rope import ROPE_TENSORS
from engine.checkpoint.errors import MissingTensorError, TensorShapeError, UnknownTensorError

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint


class TransformersView:
    """`names` are transformers' (those of the folder's files, or of the modules for a GGUF file)."""

    config: Config
    names: set[str]

    def read(self, name: str) -> np.ndarray:
        """The whole tensor `name` in transformers' shape and order of rows, float32, C-contiguous."""
        raise NotImplementedError


class FolderView(TransformersView):
    """A Hugging Face checkpoint: names and weights as they are stored."""

    def __init__(self, checkpoint: "Checkpoint", config: Config) -> None:
        """Raises MissingTensorError and UnknownTensorError where the blocks are not those of the config."""
        _check_blocks(checkpoint, config)
        self.config = config
        self.names = set(checkpoint.tensors)
        self._checkpoint = checkpoint

    def read(self, name: str) -> np.ndarray:
        return self._checkpoint.read(name)


def _check_blocks(checkpoint: "Checkpoint", config: Config) -> None:
    """Before transformers builds a billion blocks, or leaves out some that are stored."""
    stated = getattr(config, "num_hidden_layers", None)
    if stated is None:
        return
    check_blocks(checkpoint, stated, "config.json states (num_hidden_layers)")
    stored = 1 + max(
        (tensor.block for tensor in checkpoint.tensors.values() if tensor.block is not None), default=-1
    )
    # Some predict further tokens by blocks behind the last one, which transformers leaves out.
    further = getattr(config, "num_nextn_predict_layers", None) or 0
    if stored > stated + further:
        raise UnknownTensorError(
            f"{checkpoint.path} stores {stored:,} blocks where its config.json states {stated:,} "
            "(num_hidden_layers); config and weights do not belong together."
        )


class GgufView(TransformersView):
    """A GGUF file: names mapped to transformers' modules, each weight's transform undone."""

    def __init__(self, checkpoint: "Checkpoint", architecture: Architecture, config: Config) -> None:
        """Raises MissingTensorError, TensorShapeError and UnknownTensorError; reads no weight."""
        self.config = config
        self._checkpoint = checkpoint
        # Of each name: the tensors stacked in it, or the one of which it is an item, with its number.
        self._parts: dict[str, list[tuple[Place, int | None]]] = {}
        known = set(ROPE_TENSORS)
        for place in architecture.places(config):
            if place.canonical == "output.weight" and config.tie_word_embeddings:
                continue
            tensor = checkpoint.tensors.get(place.canonical)
            if tensor is None:
                raise MissingTensorError(
                    f"{checkpoint.path} has no tensor {place.canonical}, which the architecture "
                    f"{architecture.name} needs."
                )
            if _without_ones(tensor.shape) != _without_ones(place.shape):
                raise TensorShapeError(
                    f"{checkpoint.path}: {place.canonical} has the shape {list(tensor.shape)} where the "
                    f"metadata say {list(place.shape)}."
                )
            for part, name in enumerate(place.modules):
                index = part if len(place.modules) > 1 else None
                self._parts.setdefault(name, []).append((place, index))
            known.add(place.canonical)
        unknown = sorted(set(checkpoint.tensors) - known)
        if unknown:
            raise UnknownTensorError(
                f"{checkpoint.path} has the tensor {unknown[0]}, which transformers' {architecture.name} "
                "has no place for; the file cannot be evaluated here."
            )
        self.names = set(self._parts)

    def read(self, name: str) -> np.ndarray:
        parts = [self._undone(place, part) for place, part in self._parts[name]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)

    def _undone(self, place: Place, part: int | None) -> np.ndarray:
        weights = place.undone(self.config, self._checkpoint.read(place.canonical).reshape(place.shape))
        return weights if part is None else weights[part]


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without leading axes of length 1, which ggml leaves out when it writes a file."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
