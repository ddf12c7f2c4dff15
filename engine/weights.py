"""Puts a checkpoint's tensors into the modules of a transformers model, some at a time, and takes them out.

The model is built on torch's meta device: parameters have a shape and no memory. Names in published
checkpoints differ from those of the modules (a missing `transformer.` in front, one tensor per expert where
the module holds all in one); transformers knows each difference as a list of renamings and conversions,
which are used here as they are, so that what `from_pretrained` can load, can be loaded here by the block.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.checkpoint.errors import MissingTensorError, TensorShapeError


class WeightSource(Protocol):
    """Where weights come from: `engine.architectures.TransformersView`, for instance."""

    config: Any
    names: set[str]

    def read(self, name: str) -> np.ndarray: ...


@dataclass
class _Group:
    """Stored tensors that become one or more of the module's: one as it is, or many through `converter`."""

    key: str
    converter: Any = None
    sources: list[tuple[str, str]] = field(default_factory=list)  # (pattern of the converter, stored name)


class ModuleWeights:
    """The tensors of `model` (on the meta device), to be loaded from `source` and released again."""

    def __init__(self, model: Any, source: WeightSource, name: str) -> None:
        """`model` is transformers' PreTrainedModel; `name` says in errors which one is meant.

        Reads no weight. Raises MissingTensorError.
        """
        self._model = model
        self._source = source
        self._name = name
        self._empty = {**dict(model.named_parameters(remove_duplicate=False)), **_stored_buffers(model)}
        self._groups = self._match()
        self._check_complete()

    @property
    def keys(self) -> list[str]:
        """Names of all stored parameters and buffers of the model, tied ones included."""
        return list(self._empty)

    @contextmanager
    def loaded(self, keys: Iterable[str]) -> Iterator[None]:
        """Holds the tensors `keys` in float32 while the context lasts."""
        keys = list(keys)
        try:
            self.load(keys)
            yield
        finally:
            for key in keys:
                self._assign(key, self._empty[key])

    def load(self, keys: Iterable[str]) -> None:
        """Reads the tensors `keys` from the source into the model. Raises TensorShapeError."""
        wanted = {self._present(key): key for key in keys}
        groups = {id(group): group for group in (self._groups[key] for key in wanted if key in self._groups)}
        for group in groups.values():
            for present, tensor in self._read(group).items():
                if present in wanted:
                    self._put(wanted[present], tensor)

    def _match(self) -> dict[str, _Group]:
        """For each key of the model the group of stored tensors that makes it."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key

        transforms = get_model_conversion_mapping(self._model)
        converters = [t for t in transforms if isinstance(t, WeightConverter)]
        renamings = [t for t in transforms if not isinstance(t, WeightConverter)]
        of_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
        prefix = self._model.base_model_prefix
        groups: dict[str, _Group] = {}
        for name in sorted(self._source.names, key=dot_natural_key):
            name_here = name.replace("language_model.", "", 1)  # the text part of a multimodal checkpoint
            key, pattern = rename_source_key(name_here, renamings, converters, prefix, self._empty)
            if key not in self._empty:  # a name that is right already, or lacks but the model's prefix
                key, pattern = rename_source_key(name_here, [], [], prefix, self._empty)
            if key not in self._empty:
                continue
            if pattern is None:
                groups[key] = _Group(key, sources=[("", name)])
                continue
            converter = of_pattern[pattern]
            made = [key.replace(converter.target_patterns[0], target) for target in converter.target_patterns]
            group = groups.get(key) or _Group(key, converter)
            group.sources.append((pattern, name))
            groups |= dict.fromkeys(made, group)
        return groups

    def _present(self, key: str) -> str:
        """`key`, or the tied one that the checkpoint holds in its place."""
        if key in self._groups:
            return key
        tied = self._model.all_tied_weights_keys
        partners = [
            source if target == key else target for target, source in tied.items() if key in (target, source)
        ]
        return next((partner for partner in partners if partner in self._groups), key)

    def _check_complete(self) -> None:
        optional = self._model._keys_to_ignore_on_load_missing or ()
        missing = [
            key
            for key in self._empty
            if self._present(key) not in self._groups
            and not any(re.search(pattern, key) for pattern in optional)
        ]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise MissingTensorError(
                f"{self._name} lacks the tensor {missing[0]}{others}, which its architecture "
                f"({self._source.config.model_type}) needs: take the complete checkpoint."
            )

    def _read(self, group: _Group) -> dict[str, torch.Tensor]:
        if group.converter is None:
            return {group.key: self._tensor(group.sources[0][1])}
        converter = copy.deepcopy(group.converter)
        for pattern, name in group.sources:
            converter.add_tensor(group.key, name, pattern, lambda name=name: self._tensor(name))
        made = converter.convert(group.key, model=self._model, config=self._model.config)
        return {key: value[0] if isinstance(value, list) else value for key, value in made.items()}

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._source.read(name))

    def _put(self, key: str, tensor: torch.Tensor) -> None:
        empty = self._empty[key]
        if tensor.shape != empty.shape:
            raise TensorShapeError(
                f"{self._name}: {key} has the shape {list(tensor.shape)} where the configuration says "
                f"{list(empty.shape)}; config and weights do not belong together."
            )
        tensor = tensor.to(empty.dtype)
        if isinstance(empty, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        self._assign(key, tensor)

    def _assign(self, key: str, tensor: torch.Tensor) -> None:
        path, _, leaf = key.rpartition(".")
        module = self._model.get_submodule(path)
        if leaf in module._parameters:
            module._parameters[leaf] = tensor
        else:
            module._buffers[leaf] = tensor


def _stored_buffers(model: Any) -> dict[str, torch.Tensor]:
    transient = {name for name, _ in model.named_non_persistent_buffers()}
    return {name: buffer for name, buffer in model.named_buffers() if name not in transient}
