"""The headers of GGUF files, by the `gguf` library's own code, before any weight is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_VERSION,
    GGUF_DEFAULT_ALIGNMENT,
    GGMLQuantizationType,
    GGUFValueType,
    GGUFWriter,
    Keys,
)
from gguf.gguf_writer import WriterState

from engine.api.formats import FORMATS
from engine.export.gguf.plan import Export
from engine.export.gguf.tensor import OutputTensor

INFO_BYTES = 24
"""Of a tensor's entry in the header, beside its name and 8 for each dimension."""


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
    whole = _part(_metadata(export, file_type), export.tensors, formats)
    if most is None or whole.size <= most:
        return [whole]
    groups = _groups(export, formats, file_type, most)
    return [
        _part(_metadata(export, file_type, (number, len(groups))), tensors, formats)
        for number, tensors in enumerate(groups)
    ]


def _groups(export: Export, formats: dict[str, str], file_type: int, most: int) -> list[list[OutputTensor]]:
    """The tensors of each file: as many as fit, at least one."""
    groups: list[list[OutputTensor]] = []
    header = data = 0
    for tensor in export.tensors:
        entry = INFO_BYTES + len(tensor.name.encode()) + 8 * len(tensor.shape)
        more = _padded(_bytes(tensor, formats), export.alignment)
        if not groups or _padded(header + entry, export.alignment) + data + more > most:
            writer = _metadata(export, file_type, (len(groups), 1))
            header, data = len(_serialized(writer, padded=False)), 0
            groups.append([])
        groups[-1].append(tensor)
        header, data = header + entry, data + more
    return groups


def _metadata(export: Export, file_type: int, split: tuple[int, int] | None = None) -> "_Writer":
    """A writer that knows the metadata of one file. `split`: its number from 0, and that of all files."""
    writer = _Writer(None, export.architecture)
    if split is not None and split[0] > 0:
        writer.kv_data[0].clear()
        if export.alignment != GGUF_DEFAULT_ALIGNMENT:
            writer.add_key_value(Keys.General.ALIGNMENT, export.alignment, GGUFValueType.UINT32)
    else:
        for key, value in export.metadata.items():
            if key != Keys.General.ARCHITECTURE:  # the writer has added it
                writer.add_key_value(key, _raw(value.value), value.type, value.item_type)
        writer.add_key_value(Keys.General.FILE_TYPE, file_type, GGUFValueType.UINT32)
        writer.add_key_value(Keys.General.QUANTIZATION_VERSION, GGML_QUANT_VERSION, GGUFValueType.UINT32)
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
        kind = GGMLQuantizationType[formats[tensor.name]]
        size = _bytes(tensor, formats)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, kind)
    start = _serialized(writer)
    offsets, end = {}, len(start)
    for tensor in tensors:
        offsets[tensor.name] = end
        end += _padded(_bytes(tensor, formats), writer.data_alignment)
    return Part(start, offsets, end)


def _bytes(tensor: OutputTensor, formats: dict[str, str]) -> int:
    return prod(tensor.shape[:-1]) * FORMATS[formats[tensor.name]].row_bytes(tensor.shape[-1])


def _padded(size: int, alignment: int) -> int:
    return GGUFWriter.ggml_pad(size, alignment)


class _Writer(GGUFWriter):
    """The library's, which refuses lists without items; llama.cpp reads them, and a source's must stay."""

    def _pack_val(
        self, val: Any, vtype: GGUFValueType, add_vtype: bool, sub_type: GGUFValueType | None = None
    ) -> bytes:
        if vtype is GGUFValueType.ARRAY and len(val) == 0:
            kind = self._pack("I", vtype) if add_vtype else b""
            return kind + self._pack("I", sub_type) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def _raw(value: Any) -> Any:
    """Texts as the bytes they were read from: in a GGUF source not all are UTF-8, and they must stay."""
    if isinstance(value, list):
        return [_raw(item) for item in value]
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _serialized(writer: GGUFWriter, *, padded: bool = True) -> bytes:
    """What the writer puts before the data."""
    buffer = BytesIO()
    writer.fout, writer.state = [buffer], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if padded:
        writer.write_padding(buffer, buffer.tell())
    return buffer.getvalue()
