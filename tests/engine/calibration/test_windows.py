"""Text into windows: the two protocols position by position, and texts that cannot be cut."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.calibration.windows import (
    PROTOCOLS,
    ShortTextError,
    UnreadableTextError,
    cut,
    read_text,
    tokenize,
)

SOURCE = Path("a-text")
LLAMA_CPP, GPTQ = PROTOCOLS["llama.cpp"], PROTOCOLS["gptq"]


@dataclass
class Counting:
    """Stands in for a tokenizer: the characters' code points, BOS 9999."""

    add_bos: bool = True
    bos: int | None = 9999

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


TEXT = "".join(chr(200 + i) for i in range(25))


def test_llama_cpp_puts_bos_before_the_text_and_in_the_place_of_each_first_token():
    ids = tokenize(Counting(), TEXT + "\n", LLAMA_CPP)
    assert ids == [9999, *range(200, 225)]
    windows = cut(Counting(), ids, LLAMA_CPP, 8, SOURCE)
    assert windows.dtype == np.int64
    assert windows.tolist() == [
        [9999, *range(200, 207)],
        [9999, *range(208, 215)],
        [9999, *range(216, 223)],
    ]


def test_llama_cpp_without_a_bos_adds_none():
    tokenizer = Counting(add_bos=False)
    windows = cut(tokenizer, tokenize(tokenizer, TEXT, LLAMA_CPP), LLAMA_CPP, 8, SOURCE)
    assert windows.tolist() == [[*range(start, start + 8)] for start in (200, 208, 216)]


def test_gptq_never_adds_bos_and_keeps_the_text_as_it_is():
    ids = tokenize(Counting(), TEXT + "\n", GPTQ)
    assert ids == [*range(200, 225), 10]
    assert cut(Counting(), ids, GPTQ, 13, SOURCE).tolist() == [[*range(200, 213)], [*range(213, 225), 10]]


def test_windows_and_scored_positions_are_those_of_the_tools():
    assert LLAMA_CPP.window(4096, rotary=True) == 512
    assert LLAMA_CPP.scored(512) == range(256, 511)
    assert GPTQ.window(4096, rotary=True) == 2048
    assert GPTQ.window(1024, rotary=True) == 1024
    assert GPTQ.scored(2048) == range(2047)
    # llama-perplexity takes 512 whatever the model was made for; learned positions simply end.
    assert LLAMA_CPP.window(256, rotary=True) == 512
    assert LLAMA_CPP.window(256, rotary=False) == 256
    assert LLAMA_CPP.window(None, rotary=False) == 512


def test_a_limit_takes_the_first_windows():
    ids = tokenize(Counting(), TEXT, GPTQ)
    assert cut(Counting(), ids, GPTQ, 5, SOURCE, limit=2).tolist() == [[*range(200, 205)], [*range(205, 210)]]
    assert len(cut(Counting(), ids, GPTQ, 5, SOURCE, limit=99)) == 5


def test_a_short_text_is_refused_with_its_counts():
    with pytest.raises(ShortTextError, match="a-text has 1,025 tokens, fewer than one window of 2,048"):
        cut(Counting(), [1] * 1025, GPTQ, 2048, SOURCE)
    with pytest.raises(ShortTextError, match="a-text has 1 token, fewer"):
        cut(Counting(), [1], GPTQ, 2048, SOURCE)


def test_text_is_read_as_it_is(tmp_path):
    (tmp_path / "text").write_bytes("a\r\nb\n\u00e9".encode())
    assert read_text(tmp_path / "text") == "a\r\nb\n\u00e9"


def test_unreadable_texts_say_why(tmp_path):
    with pytest.raises(UnreadableTextError, match="no-such-text: No such file"):
        read_text(tmp_path / "no-such-text")
    (tmp_path / "nothing").touch()
    with pytest.raises(ShortTextError, match="nothing is empty"):
        read_text(tmp_path / "nothing")
    with pytest.raises(UnreadableTextError, match="Is a directory"):
        read_text(tmp_path)
    (tmp_path / "latin").write_bytes("na\u00efve".encode("latin-1"))
    with pytest.raises(UnreadableTextError, match=r"latin is not UTF-8 text \(byte 0xef at offset 2\)"):
        read_text(tmp_path / "latin")
