"""Reads a written file back and compares it with what was meant.

By our own reader, which shares no code with the writer's: the `gguf` library's takes 600 MB and ten
seconds for the tokens of a Llama 3. The tests compare both readers.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path

from engine.api.errors import CheckpointError, OutputError
from engine.api.progress import Listener, Progress, silent
from engine.checkpoint.files import SourceFile
from engine.checkpoint.gguf import read_header
from engine.checkpoint.stored import Stored
from engine.export.gguf.header import Part
from engine.export.gguf.tensor import OutputTensor

CHUNK = 1 << 20
"""Bytes read at a time."""


class VerificationError(OutputError):
    """A written file that does not hold what was written to it."""


def verify(
    path: Path,
    part: Part,
    tensors: Iterable[OutputTensor],
    formats: dict[str, str],
    checksum: dict[str, int],
    listener: Listener = silent,
) -> None:
    """Check names, types, shapes, offsets, metadata, size, and each tensor's crc32 (`zlib.crc32`).

    `tensors`, `formats` and `checksum` (both by tensor name) may hold those of other parts, too. Memory stays
    within a header and 8 MiB. Raises VerificationError.
    """
    try:
        file = SourceFile(Path(path))
        _, stored = read_header(file)
        _check_header(file, part, tensors, formats, stored)
        for tensor in stored:
            if _crc32(file, tensor) != checksum[tensor.name]:
                raise _differs(file, f"the bytes of {tensor.name}")
            listener(Progress("verify", tensor.offset + tensor.bytes, file.size, "bytes", tensor.name))
        file.close()
    except CheckpointError as error:
        raise VerificationError(
            f"{path} was written but does not read back: {str(error).rstrip('.')}; check the disk and "
            "run again."
        ) from error


def _check_header(
    file: SourceFile,
    part: Part,
    tensors: Iterable[OutputTensor],
    formats: dict[str, str],
    stored: list[Stored],
) -> None:
    if file.size != part.size:
        raise _differs(file, f"the size ({file.size:,} bytes instead of {part.size:,})")
    if file.read(0, len(part.header)) != part.header:
        raise _differs(file, "the header")
    found = [(tensor.name, tensor.dtype, tensor.shape, tensor.offset) for tensor in stored]
    meant = [
        (tensor.name, formats[tensor.name], tensor.shape, part.offsets[tensor.name])
        for tensor in tensors
        if tensor.name in part.offsets
    ]
    if found != meant:
        raise _differs(file, "the list of tensors")


def _crc32(file: SourceFile, tensor: Stored) -> int:
    crc = 0
    for start in range(0, tensor.bytes, CHUNK):
        count = min(CHUNK, tensor.bytes - start)
        crc = zlib.crc32(file.read(tensor.offset + start, count, tensor.name), crc)
    return crc


def _differs(file: SourceFile, what: str) -> VerificationError:
    return VerificationError(
        f"{file.path} was written but {what} read back otherwise; check the disk and run again."
    )
