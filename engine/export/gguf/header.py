"""The headers of GGUF files, by the `gguf` library's own code, before any weight is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from gguf import GGUFWriter, Keys
from gguf.gguf_writer import WriterState

from engine.api.formats import LAYOUTS
from engine.api.gguf import GGUFValueType
from engine.api.outputs import START, USUAL_ALIGNMENT, padded, part_counts, tensor_space
from engine.checkpoint.gguf import NUMBERS
from engine.export.gguf.plan import WRITTEN_ANEW, Export
from engine.export.gguf.tensor import OutputTensor


@dataclass(frozen=True)
class Part:
    """One file of an output, the only one unless it is split; sizes and places in bytes.

    `header` ends with its padding; `offsets` gives each of its tensors' place in the file by name, in order;
    `size` is that of the file: every tensor, the last one too, is padded to the alignment.
    """

    header: bytes
    offsets: dict[str, int]
    size: int


def make_parts(
    export: Export, formats: dict[str, str], file_type: int, most: int | None = None
) -> list[Part]:
    """The files of an output, each of at most `most` bytes (None: one file) where its tensors allow it.

    `formats` gives each tensor's type by name ("Q4_K"); `file_type` is llama.cpp's number for the mixture.
    Metadata stand in the first file; the others say which part they are, as `gguf-split` writes them.
    """
    keys = len(_serialized(_metadata(export, file_type), pad=False)) - START
    spaces = [
        tensor_space(tensor.name, tensor.shape, _bytes(tensor, formats), export.alignment)
        for tensor in export.tensors
    ]
    counts = part_counts(keys, spaces, export.alignment, most)
    tensors = iter(export.tensors)
    parts = []
    for number, count in enumerate(counts):
        writer = _metadata(export, file_type, (number, len(counts)) if len(counts) > 1 else None)
        parts.append(_part(writer, islice(tensors, count), formats))
    return parts


def _metadata(export: Export, file_type: int, split: tuple[int, int] | None = None) -> "_Writer":
    """A writer that knows the metadata of one file. `split`: its number from 0, and that of all files."""
    writer = _Writer(None, export.architecture)
    if split is not None and split[0] > 0:
        writer.kv_data[0].clear()
        if export.alignment != USUAL_ALIGNMENT:
            writer.add_key_value(Keys.General.ALIGNMENT, export.alignment, GGUFValueType.UINT32)
    else:
        for key, value in export.metadata.items():
            if key != Keys.General.ARCHITECTURE:  # the writer has added it
                writer.add_key_value(key, _raw(value.value), value.type, value.item_type)
        for key, value in WRITTEN_ANEW.items():
            found = file_type if key == Keys.General.FILE_TYPE else value.value
            writer.add_key_value(key, found, value.type)
    if split is not None:
        writer.add_key_value(Keys.Split.LLM_KV_SPLIT_NO, split[0], GGUFValueType.UINT16)
        writer.add_key_value(Keys.Split.LLM_KV_SPLIT_COUNT, split[1], GGUFValueType.UINT16)
        count = len(export.tensors)
        writer.add_key_value(Keys.Split.LLM_KV_SPLIT_TENSORS_COUNT, count, GGUFValueType.INT32)
    writer.data_alignment = export.alignment
    return writer


def _part(writer: "_Writer", tensors: Iterable[OutputTensor], formats: dict[str, str]) -> Part:
    tensors = list(tensors)
    for tensor in tensors:
        # The shape is that of the values; the writer would take it as bytes only for uint8.
        kind: Any = NUMBERS[formats[tensor.name]]  # a plain number: the library's list is not complete
        size = _bytes(tensor, formats)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, kind)
    start = _serialized(writer)
    offsets, end = {}, len(start)
    for tensor in tensors:
        offsets[tensor.name] = end
        end += padded(_bytes(tensor, formats), writer.data_alignment)
    return Part(start, offsets, end)


def _bytes(tensor: OutputTensor, formats: dict[str, str]) -> int:
    return prod(tensor.shape[:-1]) * LAYOUTS[formats[tensor.name]].row_bytes(tensor.shape[-1])


class _Writer(GGUFWriter):
    """The library's, which refuses lists without items; llama.cpp reads them, and a source's must stay."""

    def _pack_val(
        self, val: Any, vtype: GGUFValueType, add_vtype: bool, sub_type: GGUFValueType | None = None
    ) -> bytes:
        if vtype == GGUFValueType.ARRAY and len(val) == 0:
            kind = self._pack("I", vtype) if add_vtype else b""
            return kind + self._pack("I", sub_type) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def _raw(value: Any) -> Any:
    """Texts as the bytes they were read from: in a GGUF source not all are UTF-8, and they must stay."""
    if isinstance(value, list):
        return [_raw(item) for item in value]
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _serialized(writer: GGUFWriter, *, pad: bool = True) -> bytes:
    """What the writer puts before the data."""
    buffer = BytesIO()
    writer.fout, writer.state = [buffer], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if pad:
        writer.write_padding(buffer, buffer.tell())
    return buffer.getvalue()
