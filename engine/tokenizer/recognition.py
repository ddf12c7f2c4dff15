"""Which of llama.cpp's ways of splitting a `tokenizer.json` has: by its expressions, else by what it does.

Files spell one way differently: a case written out, a step in two. So where the expressions are unknown the
file's own pre-tokenizer splits a probe text, and the way that splits it alike is the one.
"""

import difflib
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from gguf import Keys
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer as Splitter
from tokenizers.pre_tokenizers import Punctuation, Sequence, Split

from engine.api.errors import RecipeError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import shown
from engine.tokenizer.pretokenizers import (
    BY_NAME,
    DEFAULT,
    DIGIT,
    DIGITS,
    GPT2,
    PRE_TOKENIZERS,
    PUNCTUATION_RUNS,
    PreTokenizer,
)

Pieces = tuple[tuple[tuple[int, int], ...], ...]

# Short texts: what an expression of the file can do to the time doubles with each letter at worst.
PROBES = (
    *(
        "It's",
        "I'M SURE",
        "we'll've",
        "a'sea",
        "a  1",
        " 1",
        "don'T x'RE",
        "aſ'ſ'd",
        "HelloWorld iOS",
        "ÉTÉ été ßẞ",
        "naïve cafe\u0301",
    ),
    *(
        "1",
        "42",
        "007 ",
        "1234",
        "3.14159",
        "1,234,567",
        "12345678",
        "a1b22c333",
        "½²Ⅳ٣٤",
        "x٣٤٥٦",
        "1234a",
        "9,a",
    ),
    *("a  b", "a   b", "  a", "a ", "   ", "\t\tx", "a\nb", "a\n\nb", "a \n b", "a\r\nb", " \n\n  x", "x\n"),
    *(
        "\u00a0x",
        "a\u3000b",
        "\u2003\u2003c",
        "......",
        "a.b",
        "!?!",
        "({[<>]})",
        "a/b\\c",
        "x_y-z",
        "$%^&*+=|~`",
    ),
    *(
        "'quoted'",
        "“x”",
        "«y»",
        "…",
        "。、！",
        "#tag @me",
        "a!\n\nb",
        "a/\n/b",
        " !x",
        " (x)",
        "=1",
        "+a",
        "'a",
        " 'b",
    ),
    *(
        "http://a.b/c?d",
        "你好世界",
        "你 好a",
        "ひらがなカナ",
        "한국어 글",
        "Привет, мир",
        "Ελλάδα",
        "नमस्ते हिन्दी",
        "ไทยคำ",
    ),
    *(
        "عربي ١٢٣",
        "שָׁלוֹם",
        "Tiếng Việt",
        "ქართული",
        "አማርኛ",
        "🙂🙂🏽",
        "👩\u200d👧 a",
        "❤\ufe0fx",
        "\u200b\ufeff",
        "ǅaª",
    ),
    *(
        "if x:\n\treturn",
        "    y = 2",
        "<s> </s>",
        "a ▁b",
        "x²y",
        "a\x00b",
        "IMGIMGAZ",
        "<sentinel:1>",
        "。a，b",
    ),
)
PATIENCE = 2.0  # seconds for all probes of one file


def recognise(step: object, ignore_merges: bool, source: str, notes: list[str]) -> PreTokenizer:
    """The entry of a `tokenizer.json`'s `pre_tokenizer`; `source` names the file in `notes`.

    Where several entries split alike, the one that treats whole words as `ignore_merges` says wins. An
    unknown way is llama.cpp's "default", with a note that names the nearest one.
    """
    if any(one.get("type") == "ByteLevel" and one.get("add_prefix_space") for one in flat_steps(step)):
        notes.append(
            f"{source} puts a space before every text (ByteLevel with add_prefix_space), which llama.cpp "
            "does not do: the first word of a text may get other tokens than in the original."
        )
    chain = tuple(split_chain(step))
    found = [entry for entry in PRE_TOKENIZERS if chain in entry.chains]
    if not found:
        pieces = _pieces(step)
        found = [entry for entry in PRE_TOKENIZERS if pieces and pieces in _behaviours(entry)]
        if not found:
            notes.append(_unknown(chain, pieces, source))
            return DEFAULT
    return next((entry for entry in found if entry.ignore_merges == ignore_merges), found[0])


def _unknown(chain: tuple[str, ...], pieces: Pieces | None, source: str) -> str:
    steps = shown(" then ".join(chain), 300) if chain else "not at all"
    nearest = "."
    if pieces:
        alike = {
            entry.names[0]: max(
                sum(a == b for a, b in zip(pieces, known, strict=True)) for known in _behaviours(entry)
            )
            for entry in PRE_TOKENIZERS
        }
        name = max(alike, key=alike.__getitem__)
        nearest = f" (the nearest is {name}, which splits {alike[name]} of {len(PROBES)} probes alike)."
    return (
        f"{source} splits text in a way that llama.cpp has no name for ({steps}), so the way 'default' is "
        "written: llama.cpp will give other tokens than the original for some texts. If you know a better "
        f"name, give it (--pre-tokenizer, or pre_tokenizer in the recipe's output options){nearest}"
    )


@cache
def _behaviours(entry: PreTokenizer) -> tuple[Pieces, ...]:
    """The pieces of the probes, as published and as llama.cpp cuts them."""
    found = (_cut(Sequence([_splitter(one) for one in chain])) for chain in (*entry.chains, entry.patterns))
    return tuple(pieces for pieces in found if pieces)


def _splitter(pattern: str) -> Any:  # the stubs of `tokenizers` do not know that these are pre-tokenizers
    if pattern == PUNCTUATION_RUNS:
        return Punctuation("contiguous")
    return Split(Regex(pattern), "isolated")


def _pieces(step: object) -> Pieces | None:
    """The pieces that a file's own pre-tokenizer makes of the probes; None where it cannot be run."""
    steps = [
        one | {"add_prefix_space": False, "trim_offsets": True} if one.get("type") == "ByteLevel" else one
        for one in flat_steps(step)
    ]
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    try:
        splitter = Tokenizer.from_str(json.dumps(content)).pre_tokenizer
    except Exception:  # the library raises nothing more specific
        return None
    return _cut(splitter)


def _cut(splitter: Splitter) -> Pieces | None:
    """Beginning and end of each piece of each probe, in characters; None where that takes too long."""
    pieces = []
    deadline = time.monotonic() + PATIENCE
    for text in PROBES:
        try:
            pieces.append(tuple(span for _, span in splitter.pre_tokenize_str(text)))
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # an expression that gave up; no `Exception`
                raise
            return None
        if time.monotonic() > deadline:
            return None
    return tuple(pieces)


def pre_tokenizer_wanted(name: str) -> PreTokenizer:
    """The entry of a name that the user gave. Raises RecipeError for an unknown one."""
    if name not in BY_NAME:
        close = difflib.get_close_matches(name, BY_NAME, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise RecipeError(
            f"llama.cpp knows no pre-tokenizer {shown(name)}{hint}; it knows {', '.join(sorted(BY_NAME))}."
        )
    return BY_NAME[name]


def with_pre_tokenizer(metadata: dict[str, GgufValue], name: str, source: str) -> dict[str, GgufValue]:
    """A GGUF file's metadata with another way of splitting. Raises RecipeError for an unknown name."""
    model = metadata.get(Keys.Tokenizer.MODEL)
    if model is None or model.value != "gpt2":
        raise RecipeError(
            f"A pre-tokenizer ({shown(name)}) is named for {source}, but its tokenizer is no byte-level BPE "
            "and has none; leave the option out."
        )
    pre_tokenizer_wanted(name)
    return metadata | {Keys.Tokenizer.PRE: GgufValue(GGUFValueType.STRING, name)}


def split_chain(step: Any) -> Iterator[str]:
    """The splits that a `tokenizer.json`'s `pre_tokenizer` makes before the bytes are mapped, in order.

    Each is a regular expression, `Digits` and `ByteLevel` included, or "Type:Option" for others.
    """
    waiting = [step]  # no recursion: a file may nest as deeply as it likes
    while waiting:
        match waiting.pop():
            case {"type": "Sequence", "pretokenizers": [*steps]}:
                waiting += reversed(steps)
            case inner:
                yield from _splits(inner)


def _splits(step: Any) -> Iterator[str]:
    """The splits of a step that is no sequence."""
    match step:
        case {"type": "ByteLevel"}:
            if step.get("use_regex", True):
                yield GPT2
        # Removing what does *not* match is isolating what does: these expressions leave no gaps.
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False} | {
            "type": "Split",
            "pattern": {"Regex": str(regex)},
            "behavior": "Removed",
            "invert": True,
        }:
            # Some files write line breaks as themselves, some as escapes.
            yield regex.replace("\r", r"\r").replace("\n", r"\n")
        case {"type": "Digits"}:
            yield DIGIT if step.get("individual_digits") else DIGITS
        case {"type": str(kind)}:
            yield f"{kind}:{_text(step.get('behavior', step.get('pattern', '')))}"
        case _:
            yield shown(step)


def flat_steps(step: object) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list of its steps, however deeply they are nested."""
    waiting, flat = [step], []
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            inner = step.get("normalizers", step.get("pretokenizers"))
            if isinstance(inner, list):
                waiting += reversed(inner)
            else:
                flat.append(step)
    return flat


def _text(option: object) -> str:
    return option if isinstance(option, str) else shown(option)
