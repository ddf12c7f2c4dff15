"""The header of a GGUF file, by the `gguf` library's own code, before any weight is read."""

from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    GGUFValueType,
    GGUFWriter,
    Keys,
)
from gguf.gguf_writer import WriterState

from engine.api.formats import FORMATS
from engine.export.gguf.plan import Export


def header(export: Export, formats: dict[str, str], file_type: int) -> tuple[bytes, dict[str, int], int]:
    """The header with its padding, the absolute offset of each tensor, and the size of the whole file.

    `formats` gives each tensor's type by name ("Q4_K"); `file_type` is llama.cpp's number for the mixture.
    Sizes are in bytes; every tensor, the last one too, is padded to the file's alignment.
    """
    writer = GGUFWriter(None, export.architecture)
    for key, value in export.metadata.items():
        if key == Keys.General.ALIGNMENT:
            writer.add_custom_alignment(value.value)
        elif key != Keys.General.ARCHITECTURE:  # the writer has added it
            writer.add_key_value(key, _raw(value.value), value.type, value.item_type)
    writer.add_key_value(Keys.General.FILE_TYPE, file_type, GGUFValueType.UINT32)
    writer.add_key_value(Keys.General.QUANTIZATION_VERSION, GGML_QUANT_VERSION, GGUFValueType.UINT32)
    sizes = {
        tensor.name: prod(tensor.shape[:-1]) * FORMATS[formats[tensor.name]].row_bytes(tensor.shape[-1])
        for tensor in export.tensors
    }
    for tensor in export.tensors:
        # The shape is that of the values; the writer would take it as bytes only for uint8.
        kind = GGMLQuantizationType[formats[tensor.name]]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), sizes[tensor.name], kind)
    start = _serialized(writer)
    offsets, end = {}, len(start)
    for name, size in sizes.items():
        offsets[name] = end
        end += GGUFWriter.ggml_pad(size, writer.data_alignment)
    return start, offsets, end


def _raw(value: Any) -> Any:
    """Texts as the bytes they were read from: in a GGUF source not all are UTF-8, and they must stay."""
    if isinstance(value, list):
        return [_raw(item) for item in value]
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _serialized(writer: GGUFWriter) -> bytes:
    """What the writer puts before the data, padding included."""
    buffer = BytesIO()
    writer.fout, writer.state = [buffer], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_padding(buffer, buffer.tell())
    return buffer.getvalue()
