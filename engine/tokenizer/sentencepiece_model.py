"""A SentencePiece `tokenizer.model` read as what it is: a protocol buffer message.

The sentencepiece library runs such a file, but does not tell the algorithm (BPE or unigram), the
user-defined pieces or the normalization. The fields needed here are few and never change:

  ModelProto       1 pieces (repeated), 2 trainer_spec, 3 normalizer_spec
  SentencePiece    1 piece (string), 2 score (float), 3 type (enum, 1 = normal)
  TrainerSpec      3 model_type (enum, 1 unigram, 2 bpe, 3 word, 4 char), 24 treat_whitespace_as_suffix
                   (bool), 40 unk_id, 41 bos_id, 42 eos_id, 43 pad_id (int32)
  NormalizerSpec   1 name (string), 2 precompiled_charsmap (bytes), 3 add_dummy_prefix,
                   4 remove_extra_whitespaces, 5 escape_whitespaces (bool)

(sentencepiece_model.proto of github.com/google/sentencepiece)
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gguf import TokenType

from engine.api.errors import CheckpointError, TokenizerError
from engine.checkpoint.files import JSON_LIMIT, SourceFile

UNIGRAM, BPE = 1, 2
ALGORITHMS = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class SentencePieceFileError(TokenizerError):
    """A `tokenizer.model` that is no SentencePiece model, or none that llama.cpp can run."""


@dataclass
class SentencePieceModel:
    """Pieces in the order of their ids. Types have SentencePiece's numbers, which GGUF's are too."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    algorithm: int = UNIGRAM
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    whitespace_is_suffix: bool = False
    charsmap: bytes = b""
    special_ids: dict[str, int] = field(default_factory=dict)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads a BPE or unigram model; raises SentencePieceFileError for anything else."""
    try:
        model = _model(_content(path))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise SentencePieceFileError(
            f"{path} is not a SentencePiece model, or is damaged; download the file again "
            "(a file of a few lines that begins with 'version https://git-lfs' is only a pointer to it)."
        ) from error
    if model.algorithm not in (UNIGRAM, BPE):
        kind = ALGORITHMS.get(model.algorithm, model.algorithm)
        raise SentencePieceFileError(
            f"{path} is a SentencePiece model of the kind {kind}; "
            "llama.cpp runs the kinds BPE and unigram only."
        )
    if model.whitespace_is_suffix or not model.escape_whitespaces:
        raise SentencePieceFileError(
            f"{path} is a SentencePiece model that marks spaces behind words, or not at all, which "
            "llama.cpp cannot do."
        )
    return model


def _content(path: Path) -> bytes:
    try:
        file = SourceFile(path)
        if file.size > JSON_LIMIT:
            raise ValueError("larger than any model")
        content = file.read(0, file.size, "the model")
        file.close()
    except CheckpointError as error:
        raise SentencePieceFileError(str(error)) from error
    return content


def _model(data: bytes) -> SentencePieceModel:
    # The defaults of the message's definition hold where a field is absent.
    model = SentencePieceModel(special_ids={"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_message(value)))
            model.pieces.append(_text(piece.get(1)))
            model.scores.append(_number(piece.get(2, 0.0)))
            model.types.append(int(TokenType(_number(piece.get(3, TokenType.NORMAL)))))
        elif number == 2:
            trainer = dict(_fields(_message(value)))
            model.algorithm = int(_number(trainer.get(3, UNIGRAM)))
            model.whitespace_is_suffix = bool(_number(trainer.get(24, False)))
            for key, name in ((40, "unk"), (41, "bos"), (42, "eos"), (43, "pad")):
                if key in trainer:
                    model.special_ids[name] = _signed(int(_number(trainer[key])))
        elif number == 3:
            normalizer = dict(_fields(_message(value)))
            model.charsmap = _message(normalizer.get(2, b""))
            model.add_dummy_prefix = bool(_number(normalizer.get(3, True)))
            model.remove_extra_whitespaces = bool(_number(normalizer.get(4, True)))
            model.escape_whitespaces = bool(_number(normalizer.get(5, True)))
    if not model.pieces:
        raise ValueError("no pieces")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Number and value of each field of a message. Raises ValueError or IndexError for what is no message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is longer than its message")
            yield number, data[at : at + length]
            at += length
        elif wire == FIXED32:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == FIXED64:
            yield number, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            raise ValueError(f"no such wire type: {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _message(value: bytes | int | float) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message belongs")
    return value


def _number(value: bytes | int | float) -> int | float:
    if isinstance(value, bytes):
        raise ValueError("a message where a number belongs")
    return value


def _text(value: bytes | int | float | None) -> str:
    if not isinstance(value, bytes) or not value:
        raise ValueError("a piece without a text")
    return value.decode()


def _signed(value: int) -> int:
    """A negative int32 is stored as a 64-bit two's complement."""
    return value - (1 << 64) if value >> 63 else value
