"""SentencePiece's BPE by scores, as llama.cpp runs it on a GGUF file of the kind "llama".

Of all neighbours whose joined text is a token, the pair whose token has the highest score is joined,
the leftmost of equals first, until none is left; characters that are no token become their bytes.

Written out rather than given to the sentencepiece library, because llama.cpp differs from it: control
and byte tokens take part in joining, and tokens marked unused stay whole.

A join happens only inside a token, so a place between two characters that are neighbours in no token
cuts the text into parts that cannot influence each other. Most of these parts are words, and come again.
"""

from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise


class SpmEncoder:
    """Encodes text that holds no user-defined token; spaces must be "▁" already."""

    def __init__(self, tokens: list[str], scores: list[float], unknown: int) -> None:
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._scores = scores
        self._neighbours = {pair for token in tokens for pair in pairwise(token)}
        self._bytes = [self._ids.get(f"<0x{value:02X}>") for value in range(256)]
        self._unknown = unknown
        self._part = lru_cache(maxsize=1 << 16)(self._encode_part)

    def encode(self, text: str) -> list[int]:
        cuts = [i for i, pair in enumerate(pairwise(text), start=1) if pair not in self._neighbours]
        ids: list[int] = []
        for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
            ids.extend(self._part(text[start:stop]))
        return ids

    def _encode_part(self, text: str) -> tuple[int, ...]:
        symbols = list(text)  # a symbol that was joined to its left neighbour is ""
        before = list(range(-1, len(symbols) - 1))
        after = [*range(1, len(symbols)), -1]

        def candidate(left: int, right: int) -> tuple[float, int, int, int] | None:
            """A heap entry: best score first, then leftmost; the length shows what is out of date."""
            joined = symbols[left] + symbols[right]
            token = self._ids.get(joined)
            return None if token is None else (-self._scores[token], left, right, len(joined))

        heap = [entry for i in range(1, len(symbols)) if (entry := candidate(i - 1, i))]
        heapify(heap)
        while heap:
            _, left, right, length = heappop(heap)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            for pair in ((before[left], left), (left, after[left])):
                if min(pair) >= 0 and (entry := candidate(*pair)):
                    heappush(heap, entry)

        return tuple(token for symbol in symbols if symbol for token in self._symbol(symbol))

    def _symbol(self, symbol: str) -> list[int]:
        token = self._ids.get(symbol)
        if token is not None:
            return [token]
        values = [value for byte in symbol.encode() if (value := self._bytes[byte]) is not None]
        # A vocabulary without byte tokens: llama.cpp stops here, sentencepiece says unknown.
        return values or [self._unknown]
