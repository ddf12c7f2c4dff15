"""An opened model: what its headers say, and its weights on demand."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np

from engine.api.gguf import GgufValue
from engine.api.model import ModelSummary, Role, TensorSummary
from engine.checkpoint.decoding import decode
from engine.checkpoint.errors import PackedTensorError, UnknownTypeError
from engine.checkpoint.files import SourceFile
from engine.checkpoint.names import is_buffer
from engine.checkpoint.quantized import FP8_TYPES, Quantization, scale_name
from engine.checkpoint.stored import PLAIN_BITS

HALVES = {"F16": "<f2", "BF16": "<u2"}
"""Types of 16 bits, as NumPy holds them."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor.

    `canonical` is its GGUF name, None where there is none; one of many routed experts has the name of the
    stack ("blk.3.ffn_gate_exps.weight") and its number in `expert`; one of the norms of a block's
    heads its number in `head`. `shape` is in NumPy's order; `dtype` the storage type ("BF16", "Q4_K");
    `bytes` the stored size; `offset` counts from the start of `file`.
    `part` names what it belongs to outside of the text model ("vision_tower").
    """

    name: str
    canonical: str | None
    shape: tuple[int, ...]
    dtype: str
    role: Role
    block: int | None
    expert: int | None
    head: int | None
    bytes: int
    file: Path
    offset: int
    part: str | None = None


class Checkpoint:
    """A model on disk, opened by its headers (`open_checkpoint`). Use as a context manager, or `close` it.

    `path`: as opened. `kind`: "huggingface" (a folder), "safetensors", "pytorch" (lone files) or "gguf".
    `architecture`: transformers' model type ("llama"; of the text model, if there are others), GGUF's
    `general.architecture`, or None where nothing tells it.
    `config`: config.json, with a multimodal checkpoint's text config laid over it; None without one and
    for GGUF.
    `metadata`: all values of a GGUF file but those about its splitting; empty for other kinds.
    `tensors`: the text part, in stored order; `others`: everything else. `files`: those that hold tensors.
    `tied`: whether the output uses the embedding. `blocks`: number of transformer blocks.
    `quantization`: how another tool has quantized it ("GPTQ, 4 bits, groups of 128"), or None.
    `bytes_read`: what opening has read.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        files: list[SourceFile],
        tensors: list[Tensor],
        *,
        architecture: str | None,
        config: dict | None,
        metadata: dict[str, GgufValue],
        quantization: Quantization | None,
        blocks: int,
        tied: bool,
        notes: list[str],
        bytes_read: int,
    ) -> None:
        self.path = path
        self.kind = kind
        self.architecture = architecture
        self.config = config
        self.metadata = metadata
        self.blocks = blocks
        self.tied = tied
        self.notes = notes
        self.bytes_read = bytes_read
        self.files = [file.path for file in files]
        self.tensors = {tensor.name: tensor for tensor in tensors if tensor.part is None}
        self.others = [tensor for tensor in tensors if tensor.part is not None]
        self._opened = {file.path: file for file in files}
        self._quantization = quantization

    @property
    def quantization(self) -> str | None:
        return self._quantization.label if self._quantization else None

    @property
    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """What tells the files that hold tensors from any others, and from themselves before a change."""
        return tuple(file.stamp for file in self._opened.values())

    @property
    def state(self) -> str:
        """A digest of names, sizes and times of these files, that a copy of the disk has, too."""
        files = [(file.path.name, *file.size_and_time) for file in self._opened.values()]
        return hashlib.sha256(repr(files).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where files about the model (config, tokenizer) lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def title(self) -> str:
        """The model's name for readers: the metadata's, or that of its folder or file."""
        stated = self.metadata.get("general.name")
        if stated is not None and isinstance(stated.value, str) and stated.value:
            return stated.value
        folder = self.folder.resolve()
        name = self.path.stem if self.kind == "gguf" else folder.name
        cached = folder.parent.parent.name  # in a cache: models--ORGANIZATION--NAME/snapshots/HASH
        if self.kind != "gguf" and folder.parent.name == "snapshots" and cached.startswith("models--"):
            name = cached.split("--")[-1]
        return os.fsencode(name).decode("utf-8", "replace")  # a file's may be any bytes, a model's is text

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; reading afterwards is a mistake."""
        for file in self._opened.values():
            file.close()

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """float32, C-contiguous: the tensor `name` of the text part, or the given range along its first axis.

        GGUF's block types are dequantized, FP8 is multiplied by its scales. Read by `pread`; nothing is kept,
        and beside the result at most a few megabytes are held. Raises a `CheckpointError` if the
        weights are packed by another quantizer, of a type that cannot be decoded, or cannot be read.
        """
        return self._read(self.tensors[name], rows, halves=False)

    def read_halves(self, name: str, rows: slice | None = None) -> np.ndarray:
        """As `read`, but what is stored in 16 bits comes so: F16 as float16, BF16 as uint16 of its bits."""
        return self._read(self.tensors[name], rows, halves=True)

    def _read(self, tensor: Tensor, rows: slice | None, *, halves: bool) -> np.ndarray:
        start, before, shape = self._range(tensor, rows)
        if halves and tensor.dtype in HALVES:
            stored = np.empty(shape, HALVES[tensor.dtype])
            self._opened[tensor.file].read_array(tensor.offset + before, stored, tensor.name)
            return stored
        values = self._decoded(tensor, before, shape)
        if tensor.dtype in FP8_TYPES:
            self._multiply_by_scales(tensor, values, start)
        return values

    def read_matrix(self, name: str, start: int, stop: int, *, halves: bool = False) -> np.ndarray:
        """Rows start .. stop of a tensor seen as [prod(shape[:-1]), shape[-1]]; see `read`, `read_halves`."""
        tensor = self.tensors[name]
        inner, columns = prod(tensor.shape[1:-1]), tensor.shape[-1]
        if inner > 1 and tensor.dtype not in FP8_TYPES:  # scales are for whole matrices
            tensor = replace(tensor, shape=(tensor.shape[0] * inner, columns))
            inner = 1
        first = start // inner
        found = self._read(tensor, slice(first, -(-stop // inner)), halves=halves).reshape(-1, columns)
        return found[start - first * inner : stop - first * inner]

    def _range(self, tensor: Tensor, rows: slice | None) -> tuple[int, int, tuple[int, ...]]:
        """The first of the rows, its place in bytes behind the tensor's begin, and the shape of all rows."""
        if self._quantization and self._quantization.is_packed(tensor.name, tensor.dtype):
            raise PackedTensorError(
                f"{tensor.name} of {self.path} is packed ({self.quantization}) and cannot be quantized "
                "again; use the original model."
            )
        start, stop = 0, tensor.shape[0] if tensor.shape else 1
        if rows is not None:
            start, stop, step = rows.indices(stop)
            if step != 1 or not tensor.shape:
                raise ValueError(f"rows {rows} of {tensor.name}: only plain ranges of a tensor with axes")
            stop = max(start, stop)
        shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
        return start, tensor.bytes * start // max(tensor.shape[0], 1) if tensor.shape else 0, shape

    def _decoded(self, tensor: Tensor, start: int, shape: tuple[int, ...]) -> np.ndarray:
        """float32 of `shape`: the values stored from byte `start` of `tensor` on, whatever scales it has."""
        file = self._opened[tensor.file]
        return decode(file, tensor.offset + start, prod(shape), tensor.dtype, tensor.name).reshape(shape)

    def read_bytes(self, tensor: Tensor, start: int, out: np.ndarray) -> None:
        """Fills `out` (uint8, C-contiguous) with the stored bytes of `tensor` from byte `start` of it on."""
        self._opened[tensor.file].read_array(tensor.offset + start, out, tensor.name)

    def _multiply_by_scales(self, tensor: Tensor, values: np.ndarray, start: int) -> None:
        """Multiplies `values`, rows of `tensor` from `start` on, by its FP8 scales if it has any."""
        name = scale_name(tensor.name, self.tensors)
        if name is None:
            return
        scales = self._decoded(self.tensors[name], 0, self.tensors[name].shape)
        if scales.size == 1:
            values *= scales.reshape(())
            return
        if scales.ndim == 1:
            scales = scales.reshape(-1, *(1,) * (values.ndim - 1))
        blocks = [
            self._scale_block(tensor, scales.shape, axis) for axis in range(len(tensor.shape))
        ]  # values a scale covers, by axis
        for index in range(start // blocks[0], -(-(start + len(values)) // blocks[0])):
            factor = scales[index]
            for axis, block in enumerate(blocks[1:]):
                factor = factor.repeat(block, axis).take(range(values.shape[axis + 1]), axis)
            first = max(index * blocks[0] - start, 0)
            values[first : (index + 1) * blocks[0] - start] *= factor

    def _scale_block(self, tensor: Tensor, scales: tuple[int, ...], axis: int) -> int:
        """How many values along `axis` share a scale: all, one, what the config states, or else 128."""
        if len(scales) != len(tensor.shape):
            raise UnknownTypeError(
                f"{tensor.name} of {self.path} has scales of shape {scales}, which do not fit its own."
            )
        size, count = tensor.shape[axis], scales[axis]
        settings = (self.config or {}).get("quantization_config")
        stated = settings.get("weight_block_size") if isinstance(settings, dict) else None
        from_end = axis - len(tensor.shape)
        candidates = [size if count == 1 else 1 if count == size else 128]
        if isinstance(stated, list) and len(stated) == 2 and from_end >= -2 and 1 < count < size:
            candidates.insert(0, stated[from_end])
        for block in candidates:
            if isinstance(block, int) and block > 0 and -(-size // block) == count:
                return block
        raise UnknownTypeError(
            f"{tensor.name} of {self.path}, of shape {tensor.shape}, has scales of shape {scales}, "
            "which do not fit it."
        )

    def summary(self) -> ModelSummary:
        """What `inspect` shows and the window lists. Parameters: the weights of the text part, each once."""
        return ModelSummary(
            path=str(self.path),
            kind=self.kind,
            architecture=self.architecture,
            parameters=sum(self._parameters(tensor) for tensor in self.tensors.values()),
            bytes=sum(tensor.bytes for tensor in self.tensors.values()),
            blocks=self.blocks,
            tied_embeddings=self.tied,
            quantization=self.quantization,
            others=dict(Counter(tensor.part for tensor in self.others if tensor.part)),
            notes=self.notes,
            state=self.state,
            tensors=[
                TensorSummary(
                    name=tensor.name,
                    shape=tensor.shape,
                    dtype=tensor.dtype,
                    role=tensor.role,
                    block=tensor.block,
                    bytes=tensor.bytes,
                )
                for tensor in self.tensors.values()
            ],
        )

    def _parameters(self, tensor: Tensor) -> int:
        """Weights in a tensor: none in scales, in tables that follow from the config, in a tied output."""
        if tensor.role in (Role.SCALE, Role.ROPE) or is_buffer(tensor.name):
            return 0
        if tensor.role == Role.OUTPUT and self.tied:
            return 0
        packed = self._quantization
        if packed and packed.bits and packed.is_packed(tensor.name, tensor.dtype):
            return int(tensor.bytes * 8 / packed.bits)
        if tensor.dtype in PLAIN_BITS:
            return tensor.bytes * 8 // PLAIN_BITS[tensor.dtype]
        return prod(tensor.shape)
