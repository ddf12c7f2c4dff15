"""SentencePiece's unigram, as llama.cpp runs it on a GGUF file of the kind "t5".

The text is normalized first: a table (`tokenizer.ggml.precompiled_charsmap`, SentencePiece's own) replaces
characters, spaces become "▁", and runs of them one where `remove_extra_whitespaces` says so. Then the tokens
with the highest sum of scores are taken (Viterbi's algorithm); characters that no token covers are unknown,
a run of them one unknown token. llama.cpp does not fall back to bytes here.

The table is a trie: the length in bytes of its nodes (uint32), the nodes (uint32 each), then the
replacements, each ended by a zero byte. A node has its label in bits 0-7, "has a value" in bit 8, and the
offset of its children in bits 10-30, times 256 if bit 9 is set; a value is bits 0-30 of the node at the
offset alone.
"""

import re
import struct
from functools import lru_cache
from itertools import groupby, pairwise
from math import inf

from gguf import TokenType

from engine.api.errors import TokenizerError

UNKNOWN_PENALTY = 10.0
MATCHED_TYPES = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
LABEL, HAS_VALUE, FAR, VALUE = 0x800000FF, 1 << 8, 1 << 9, (1 << 31) - 1


class CharacterMapError(TokenizerError):
    """A table of replacements that is damaged."""


class CharacterMap:
    """Replaces the longest prefix that the table knows, again and again."""

    def __init__(self, table: bytes, source: str) -> None:
        """`source` names the file in errors. Raises CharacterMapError for what is no such table."""
        self._source = source
        size = struct.unpack_from("<I", table)[0] if len(table) > 4 else 0
        if not 4 <= size < len(table) - 4 or size % 4:
            raise self._damaged()
        self._nodes = struct.unpack_from(f"<{size // 4}I", table, 4)
        self._replacements = table[4 + size :]
        first = [byte for byte in range(1, 256) if self._child(self._offset(0), byte) is not None]
        self._first = (
            re.compile(b"[" + b"".join(b"\\x%02x" % byte for byte in first) + b"]") if first else None
        )

    def replace(self, text: str) -> str:
        data = text.encode()
        if self._first is None:
            return text
        parts = []
        done = 0
        while found := self._first.search(data, done):
            start = found.start()
            length, replacement = self._longest(data, start)
            if not length:  # the character as it is
                length = 1
                while start + length < len(data) and data[start + length] & 0xC0 == 0x80:
                    length += 1
                replacement = data[start : start + length]
            parts += [data[done:start], replacement]
            done = start + length
        return b"".join([*parts, data[done:]]).decode("utf-8", "replace")

    def _longest(self, data: bytes, start: int) -> tuple[int, bytes]:
        """The length of the longest prefix in the table and its replacement; 0 and nothing if none is."""
        at = self._offset(0)
        length = value = 0
        for place in range(start, len(data)):
            node = self._child(at, data[place])
            if node is None:
                break
            at = node ^ self._offset(node)
            if self._nodes[node] & HAS_VALUE:
                length, value = place - start + 1, self._node(at) & VALUE
        if not length:
            return 0, b""
        end = self._replacements.find(b"\0", value)
        if end < 0:
            raise self._damaged()
        return length, self._replacements[value:end]

    def _child(self, at: int, byte: int) -> int | None:
        """The node that `byte` leads to from the children at `at`."""
        return at ^ byte if byte and self._node(at ^ byte) & LABEL == byte else None

    def _offset(self, node: int) -> int:
        value = self._node(node)
        return (value >> 10) << (8 if value & FAR else 0)

    def _node(self, index: int) -> int:
        if index >= len(self._nodes):
            raise self._damaged()
        return self._nodes[index]

    def _damaged(self) -> CharacterMapError:
        return CharacterMapError(
            f"The table that normalizes text in the tokenizer of {self._source} (precompiled_charsmap) is "
            "damaged; download the file again."
        )


class UnigramEncoder:
    """Encodes text that holds no user-defined token, as it is: spaces are spaces."""

    def __init__(
        self,
        tokens: list[str],
        scores: list[float],
        types: list[int],
        unknown: int,
        *,
        space_prefix: bool,
        merges_spaces: bool,
        characters: CharacterMap | None,
    ) -> None:
        self._unknown, self._characters = unknown, characters
        self._space_prefix, self._merges_spaces = space_prefix, merges_spaces
        self._trie: dict[str, dict] = {}  # as deep as the longest token
        rows = list(zip(tokens, scores, types, strict=True))
        for i, (text, score, kind) in enumerate(rows):
            if kind in MATCHED_TYPES:
                node = self._trie
                for char in text:
                    node = node.setdefault(char, {})
                node[""] = (i, 0.0 if kind == TokenType.USER_DEFINED else score)  # type: ignore[assignment]
        self._unknown_score = min((s for _, s, kind in rows if kind == TokenType.NORMAL), default=0.0)
        self._unknown_score -= UNKNOWN_PENALTY
        self._neighbours = {pair for token in tokens for pair in pairwise(token)}
        self._part = lru_cache(maxsize=1 << 16)(self._encode_part)

    def encode(self, text: str) -> list[int]:
        text = self._normalized(text)
        if not text:
            return []
        # No token reaches over such a cut, so the parts do not influence each other; most come again.
        cuts = [i for i, pair in enumerate(pairwise(text), start=1) if pair not in self._neighbours]
        ids = [
            token
            for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)
            for token in self._part(text[start:stop])
        ]
        return [token for token, run in groupby(ids) for _ in ((0,) if token == self._unknown else run)]

    def _normalized(self, text: str) -> str:
        if self._characters:
            text = self._characters.replace(text)
        if self._merges_spaces:
            return "".join("▁" + word for word in text.split(" ") if word)
        if self._space_prefix and (start := len(text) - len(text.lstrip(" "))) < len(text):
            text = f"{text[:start]} {text[start:]}"
        return text.replace(" ", "▁")

    def _encode_part(self, text: str) -> tuple[int, ...]:
        best = [(0.0, self._unknown, 0)] + [(-inf, self._unknown, 0)] * len(text)  # sum, token, its beginning
        for start in range(len(text)):
            total = best[start][0]
            node, known = self._trie, False
            for place in range(start, len(text)):
                if (node := node.get(text[place])) is None:  # type: ignore[assignment]
                    break
                if "" in node:
                    token, score = node[""]
                    known = known or place == start
                    if total + score > best[place + 1][0]:
                        best[place + 1] = (total + score, token, start)
            if not known and total + self._unknown_score > best[start + 1][0]:
                best[start + 1] = (total + self._unknown_score, self._unknown, start)
        ids = []
        at = len(text)
        while at:
            _, token, at = best[at]
            ids.append(token)
        return tuple(reversed(ids))
