"""Text into windows of tokens: what measures and what calibrates sees a text through here.

The two published ways to cut a text, by name:

- "llama.cpp": as llama-perplexity does. One newline at the end of the file is dropped, BOS is put before the
  text where the tokenizer adds one, windows of 512 do not overlap, and in each the first token is *replaced*
  by BOS. Scored are the predictions made in the second half: positions 256..510 predict 257..511. The window
  is 512 even where the model was made for less, as long as its positions are rotary and it can run at all.
- "gptq": as the GPTQ papers do. Windows of 2048 or of the model's context if that is shorter, no BOS added,
  every position but the last predicts the next.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.api.errors import EvaluationError

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

BEGINNING = 1 << 14
"""Characters of a text, many a window's worth: enough to judge by before all of it is tokenized."""


class UnreadableTextError(EvaluationError):
    """A text file that is missing, unreadable or not UTF-8."""


class ShortTextError(EvaluationError):
    """A text with fewer tokens than one window."""


@dataclass(frozen=True)
class Protocol:
    """How a text is cut and which predictions count. `summary` is for reports."""

    name: str
    length: int
    bos: bool
    second_half: bool
    beyond_context: bool
    summary: str

    def window(self, context: int | None, rotary: bool) -> int:
        """Tokens of a window for a model made for `context` tokens (None: not said).

        Only `rotary` positions can be counted further than that.
        """
        if context is None or (self.beyond_context and rotary):
            return self.length
        return min(self.length, context)

    def scored(self, window: int) -> range:
        """Positions of a window whose prediction of the following token counts."""
        return range(window // 2 if self.second_half else 0, window - 1)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "llama.cpp",
            512,
            bos=True,
            second_half=True,
            beyond_context=True,
            summary="the second half of each window is scored, with BOS as llama-perplexity puts it",
        ),
        Protocol(
            "gptq",
            2048,
            bos=False,
            second_half=False,
            beyond_context=False,
            summary="all positions of each window are scored, and no BOS is added",
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name. Raises EvaluationError."""
    if name not in PROTOCOLS:
        raise EvaluationError(f'There is no protocol "{name}": take {" or ".join(PROTOCOLS)}.')
    return PROTOCOLS[name]


def read_text(path: Path) -> str:
    """The file's text as it is, newlines included. Raises UnreadableTextError and ShortTextError."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UnreadableTextError(f"Cannot read the text {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UnreadableTextError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start}): "
            "save it as UTF-8, or take another file."
        ) from error
    if not text:
        raise ShortTextError(f"{path} is empty: take a text that is longer than one window.")
    return text


def tokenize(tokenizer: "Tokenizer", text: str, protocol: Protocol) -> list[int]:
    """Token ids of the whole text, with BOS in front where the protocol and the tokenizer want one."""
    if protocol.bos:
        text = text.removesuffix("\n")
    ids = tokenizer.encode(text)
    bos = _bos(tokenizer, protocol)
    return ids if bos is None else [bos, *ids]


def cut(
    tokenizer: "Tokenizer",
    ids: list[int],
    protocol: Protocol,
    window: int,
    source: Path,
    limit: int | None = None,
) -> np.ndarray:
    """int64 [windows, window] of the `ids` that `tokenize` gave, at most `limit` windows.

    Tokens behind the last full window are left out. Raises ShortTextError, which names `source`, the text's
    file.
    """
    count = len(ids) // window
    if count == 0:
        raise ShortTextError(
            f"{source} has {len(ids):,} {'token' if len(ids) == 1 else 'tokens'}, fewer than one window of "
            f"{window:,}: take a longer text."
        )
    count = min(count, limit or count)
    windows = np.array(ids[: count * window], dtype=np.int64).reshape(count, window)
    bos = _bos(tokenizer, protocol)
    if bos is not None:
        windows[:, 0] = bos
    return windows


def _bos(tokenizer: "Tokenizer", protocol: Protocol) -> int | None:
    return tokenizer.bos if protocol.bos and tokenizer.add_bos else None
