"""The tokenizer that a GGUF file's metadata describe, giving the ids that llama.cpp gives."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from gguf import Keys, TokenType
from tokenizers import decoders

from engine.api.errors import TokenizerError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import shown
from engine.tokenizer.bpe import BpeEncoder
from engine.tokenizer.pretokenizers import pre_tokenizer_named
from engine.tokenizer.spm import SpmEncoder
from engine.tokenizer.unigram import CharacterMap, UnigramEncoder

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class UnknownTokenizerKindError(TokenizerError):
    """The metadata name a kind of tokenizer that Bitwright does not run."""


class TokenizerMetadataError(TokenizerError):
    """The tokenizer's metadata lack a key or hold a value of a wrong type."""


# llama.cpp takes these texts for control tokens whatever their type says: tokens that end a text, …
_ENDS = """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>
    <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>
    [e~[ <｜end▁of▁sentence｜>
"""
ENDS_BY_NAME = frozenset(_ENDS.split())
# … and tokens that fill in the middle.
_MIDDLE = """
    <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE>
    <|code_prefix|> <|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF>
    <|code_suffix|> <|suffix|> <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID>
    <|code_middle|> <|middle|> <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|>
    <fim-repo> <REPO> <reponame> <|file_sep|>
"""
CONTROL_BY_NAME = ENDS_BY_NAME | frozenset(_MIDDLE.split())
# And these for user-defined ones.
USER_DEFINED_BY_NAME = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))


class Encoder(Protocol):
    def encode(self, text: str) -> list[int]: ...


class Tokenizer:
    """Text to ids as llama.cpp's tokenize(text, add_special=False, parse_special=False).

    `size` counts the tokens, unused ones included. `add_bos` says whether llama.cpp puts `bos` before
    a text; encoding itself never does. Text that looks like a control token is plain text;
    user-defined tokens are found before everything else.
    """

    def __init__(self, metadata: Mapping[str, GgufValue], source: str, notes: Sequence[str] = ()) -> None:
        """`metadata` as a GGUF file has them; `source` names it in errors. Raises TokenizerError.

        `notes` are sentences about how it came to be, for the reader of what is made with it.
        """
        self.notes = list(notes)
        read = _Reader(metadata, source)
        tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(read.texts(Keys.Tokenizer.LIST))]
        self.size, self._tokens = len(tokens), tokens
        types = read.numbers(Keys.Tokenizer.TOKEN_TYPE, self.size, default=TokenType.NORMAL)
        self._user_defined = _user_defined(tokens, types)
        self._encoder: Encoder
        kind = read.text(Keys.Tokenizer.MODEL)
        self._byte_level = kind == "gpt2"
        if self._byte_level:
            pre = pre_tokenizer_named(read.text(Keys.Tokenizer.PRE, default="default"), source)
            defaults = {"bos": 11, "eos": 11, "add_bos": pre.add_bos}
            self._space, self._space_first = " ", False
            self._encoder = BpeEncoder(tokens, read.texts(Keys.Tokenizer.MERGES), pre, source)
        elif kind == "llama":
            defaults = {"bos": 1, "eos": 2, "add_bos": True}
            self._space, self._space_first = "▁", read.flag(Keys.Tokenizer.ADD_PREFIX, default=True)
            unknown = read.token_id(Keys.Tokenizer.UNK_ID, self.size, default=0)
            scores = read.numbers(Keys.Tokenizer.SCORES, self.size, default=0.0)
            self._encoder = SpmEncoder(tokens, scores, unknown or 0)
        elif kind == "t5":
            defaults = {"bos": self.size, "eos": 1, "add_bos": False}
            self._space, self._space_first = " ", False
            self._encoder = _unigram(read, tokens, types, source)
        else:
            raise UnknownTokenizerKindError(
                f"{source} has a tokenizer of the kind {shown(kind)} (tokenizer.ggml.model); Bitwright runs "
                "the kinds 'gpt2' (byte-level BPE), 'llama' (SentencePiece BPE) and 't5' (its unigram)."
            )
        self.bos = read.token_id(Keys.Tokenizer.BOS_ID, self.size, defaults["bos"])
        self.eos = read.token_id(Keys.Tokenizer.EOS_ID, self.size, defaults["eos"])
        self.add_bos = read.flag(Keys.Tokenizer.ADD_BOS, default=bool(defaults["add_bos"]))
        if self.add_bos and self.bos is None:
            raise TokenizerMetadataError(
                f"{source} says that a text begins with BOS (tokenizer.ggml.add_bos_token), "
                "but names no BOS token (tokenizer.ggml.bos_token_id)."
            )

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without BOS or EOS. Lone surrogates count as U+FFFD."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = []
        after_token = True
        for part in self._parts(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                prefix = " " if self._space_first and after_token else ""
                ids.extend(self._encoder.encode((prefix + part).replace(" ", self._space)))
            after_token = isinstance(part, int)
        return ids

    def text_of(self, token_id: int) -> str:
        """The text that a token stands for; "\ufffd" where its bytes are a part of a character."""
        token = self._tokens[token_id]
        if self._byte_level:
            return str(decoders.ByteLevel().decode([token]))
        if found := BYTE_TOKEN.fullmatch(token):
            return bytes([int(found[1], 16)]).decode(errors="replace")
        return token.replace("▁", " ")

    def _parts(self, text: str) -> list[str | int]:
        """Text cut at user-defined tokens: each token in turn is looked for in what is still text."""
        parts: list[str | int] = [text] if text else []
        for token, token_id in self._user_defined:
            if token in text:
                parts = [piece for part in parts for piece in _cut(part, token, token_id)]
        return parts


def _unigram(read: "_Reader", tokens: list[str], types: list[Any], source: str) -> UnigramEncoder:
    table = bytes(byte & 0xFF for byte in read.items(Keys.Tokenizer.PRECOMPILED_CHARSMAP, int, default=[]))
    unknown = read.token_id(Keys.Tokenizer.UNK_ID, len(tokens), default=2)
    return UnigramEncoder(
        tokens,
        read.numbers(Keys.Tokenizer.SCORES, len(tokens), default=0.0),
        types,
        unknown or 0,
        space_prefix=read.flag(Keys.Tokenizer.ADD_PREFIX, default=False),
        merges_spaces=read.flag(Keys.Tokenizer.REMOVE_EXTRA_WS, default=False),
        characters=CharacterMap(table, source) if table else None,
    )


def _cut(part: str | int, token: str, token_id: int) -> Iterator[str | int]:
    if isinstance(part, int):
        yield part
        return
    for i, piece in enumerate(part.split(token)):
        if i:
            yield token_id
        if piece:
            yield piece


def _user_defined(tokens: list[str], types: list[Any]) -> list[tuple[str, int]]:
    """The tokens that are found in raw text before everything else, with their ids, longest first."""
    found = [
        (text, i)
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if text in USER_DEFINED_BY_NAME or (kind == TokenType.USER_DEFINED and text not in CONTROL_BY_NAME)
    ]
    return sorted(found, key=lambda item: -len(item[0].encode(errors="surrogateescape")))


class _Reader:
    """Typed access to the metadata of one source, with errors that name the key."""

    def __init__(self, metadata: Mapping[str, GgufValue], source: str) -> None:
        self._metadata, self._source = metadata, source

    def _value(self, key: str, python_type: type | tuple[type, ...], default: Any = None) -> Any:
        if key not in self._metadata:
            if default is not None:
                return default
            raise TokenizerMetadataError(
                f"{self._source} has no {key} in its metadata: without a whole tokenizer no text can be read."
            )
        value = self._metadata[key].value
        if not isinstance(value, python_type):
            raise TokenizerMetadataError(
                f"{self._source} has {key} of a wrong type ({type(value).__name__})."
            )
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._value(key, str, default))

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._value(key, bool, default))

    def texts(self, key: str) -> list[str]:
        return self.items(key, str)

    def numbers(self, key: str, size: int, default: float) -> list[Any]:
        """`size` numbers, one a token; `default` for each where the key is missing."""
        if key not in self._metadata:
            return [default] * size
        values = self.items(key, (int, float))
        if len(values) < size:
            raise TokenizerMetadataError(
                f"{self._source} has {size} tokens, but {len(values)} values in {key}."
            )
        return values[:size]

    def items(
        self, key: str, item_type: type | tuple[type, ...], default: list[Any] | None = None
    ) -> list[Any]:
        values = self._value(key, list, default)
        if not all(isinstance(value, item_type) for value in values):
            raise TokenizerMetadataError(f"{self._source} has items of a wrong type in {key}.")
        return list(values)

    def token_id(self, key: str, size: int, default: int) -> int | None:
        """As llama.cpp reads it: a number beyond the tokens is not there, nor is a default beyond them."""
        value = self._value(key, int, default)
        value = value if 0 <= value < size else default
        return value if value < size else None


def value_of(kind: GGUFValueType, value: Any) -> GgufValue:
    """A scalar, or a list whose items are of `kind`."""
    if isinstance(value, list):
        return GgufValue(GGUFValueType.ARRAY, value, kind)
    return GgufValue(kind, value)
