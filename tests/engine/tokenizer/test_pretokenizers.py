"""Which way of splitting a tokenizer.json has, by llama.cpp's names."""

import re
from itertools import combinations

import pytest

from engine.api.errors import RecipeError
from engine.tokenizer.pretokenizers import (
    ANY_CASE_SUFFIX,
    BY_NAME,
    GPT2,
    PRE_TOKENIZERS,
    SUFFIX,
    UnknownPreTokenizerError,
    pre_tokenizer_named,
)
from engine.tokenizer.recognition import PROBES, _behaviours, pre_tokenizer_wanted, recognise, split_chain

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTES_AND_GPT2 = BYTES | {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    # With line breaks as themselves, as that file has them.
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"


def split(regex: str, **changes: object) -> dict:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | changes


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


# As published with GPT-2, SmolLM2, Llama 3, DBRX, Qwen 2, Mistral Nemo, GPT-4o, DeepSeek, Falcon, Bloom.
PUBLISHED = [
    ("gpt-2", BYTES_AND_GPT2, False),
    ("gpt-2", sequence(BYTES_AND_GPT2), False),
    ("smollm", sequence(DIGITS, BYTES_AND_GPT2), False),
    ("llama-bpe", sequence(split(LLAMA3), BYTES), True),
    ("dbrx", sequence(split(LLAMA3), BYTES), False),
    ("qwen2", sequence(split(LLAMA3.replace("{1,3}", "")), BYTES), False),
    ("tekken", sequence(split(TEKKEN), BYTES), True),
    ("gpt-4o", sequence(split(O200K, behavior="Removed", invert=True), BYTES), False),
    (
        "deepseek-v3",
        sequence(split(r"\p{N}{1,3}"), split(HAN_KANA), split(DEEPSEEK_V3), BYTES),
        False,
    ),
    (
        "deepseek-coder",
        sequence(
            split("[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split("[一-龥ࠀ-一가-퟿]+"),
            DIGITS,
            BYTES,
        ),
        False,
    ),
    (
        "falcon",
        sequence(
            {"type": "Punctuation", "behavior": "Contiguous"},
            BYTES_AND_GPT2,
            {"type": "Digits", "individual_digits": False},
            split("[0-9][0-9][0-9]"),
        ),
        False,
    ),
    ("bloom", sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), BYTES), False),
]


@pytest.mark.parametrize(("name", "step", "ignore_merges"), PUBLISHED)
def test_published_tokenizers_are_recognised(name: str, step: dict, ignore_merges: bool) -> None:
    notes: list[str] = []
    assert recognise(step, ignore_merges, "tokenizer.json", notes).names[0] == name
    assert not notes


SPELT_OUT = "(?:'s|'S|'t|'T|'re|'rE|'Re|'RE|'ve|'vE|'Ve|'VE|'m|'M|'ll|'lL|'Ll|'LL|'d|'D)"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        # The cases spelt out, a class written otherwise, a step twice, one expression as two.
        ("llama-bpe", sequence(split(LLAMA3.replace(ANY_CASE_SUFFIX, SUFFIX)), BYTES)),
        ("llama-bpe", sequence(split(LLAMA3.replace(ANY_CASE_SUFFIX, SPELT_OUT)), BYTES)),
        ("llama-bpe", sequence(split(LLAMA3, behavior="MergedWithNext"), BYTES)),  # it leaves no gaps
        ("qwen2", sequence(split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1}")), BYTES)),
        ("tekken", sequence(split(TEKKEN.replace(r"\p{N}|", r"[\p{N}]|")), BYTES)),
        ("smollm", sequence(DIGITS, DIGITS, BYTES_AND_GPT2)),
        ("gpt-2", sequence(split(GPT2), BYTES, BYTES)),
    ],
)
def test_other_spellings_are_recognised_by_what_they_do(name: str, step: dict) -> None:
    notes: list[str] = []
    found = recognise(step, BY_NAME[name].ignore_merges, "tokenizer.json", notes)
    assert (found.names[0], notes) == (name, [])


def test_the_probes_tell_all_ways_apart() -> None:
    """But for those that split alike by definition, which differ in other things, or not at all."""
    same = [{"llama-bpe", "dbrx"}, {"granite-embed-multi-97m", "gpt-4o"}, {"qwen2", "bailingmoe"}]
    for one, other in combinations(PRE_TOKENIZERS, 2):
        alike = set(_behaviours(one)) & set(_behaviours(other))
        assert not alike or {one.names[0], other.names[0]} in same


def test_every_published_way_runs_on_the_probes() -> None:
    assert all(len(_behaviours(entry)) == len(entry.chains) + 1 for entry in PRE_TOKENIZERS)


@pytest.mark.parametrize(
    "step",
    [
        sequence(split(LLAMA3.replace("{1,3}", "{1,4}")), BYTES),
        sequence({"type": "Whitespace"}, BYTES),
        sequence(split("("), BYTES),
        sequence(split("(a|a|a|a|a)*b|(b|b|b|b|b)*c"), BYTES),
        BYTES,
        {"type": 3},
        [],
        None,
    ],
)
def test_anything_else_is_the_default_and_said(step: object) -> None:
    notes: list[str] = []
    assert recognise(step, False, "folder/tokenizer.json", notes) is BY_NAME["default"]
    assert len(notes) == 1
    assert re.search(r"folder/tokenizer\.json.*no name for.*'default'.*--pre-tokenizer", notes[0])


def test_the_nearest_way_is_named() -> None:
    notes: list[str] = []
    recognise(sequence(split(LLAMA3.replace("{1,3}", "{1,4}")), BYTES), False, "tokenizer.json", notes)
    near = re.search(r"the nearest is ([\w-]+), which splits (\d+) of (\d+)", notes[0])
    assert near
    assert near[1] == "llama-bpe"
    assert len(PROBES) // 2 < int(near[2]) < int(near[3]) == len(PROBES)


def test_a_space_before_every_text_is_said() -> None:
    notes: list[str] = []
    step = BYTES_AND_GPT2 | {"add_prefix_space": True}
    assert recognise(step, False, "tokenizer.json", notes).names[0] == "gpt-2"
    assert "add_prefix_space" in notes[0]


def test_a_wanted_name_must_be_one_of_llama_cpp() -> None:
    assert pre_tokenizer_wanted("qwen2") is BY_NAME["qwen2"]
    with pytest.raises(RecipeError, match=r"knows no pre-tokenizer 'qwen-2'.*mean qwen2\?\).*falcon.*tekken"):
        pre_tokenizer_wanted("qwen-2")


def test_no_name_and_no_chain_stands_twice() -> None:
    names = [name for entry in PRE_TOKENIZERS for name in entry.names]
    assert len(names) == len(set(names))
    chains = [(chain, entry.ignore_merges) for entry in PRE_TOKENIZERS for chain in entry.chains]
    assert len(chains) == len(set(chains))


def test_names_lead_to_their_entry() -> None:
    assert pre_tokenizer_named("starcoder") is pre_tokenizer_named("smollm")
    assert pre_tokenizer_named("llama-bpe").ignore_merges
    with pytest.raises(UnknownPreTokenizerError, match="'no-such-way'"):
        pre_tokenizer_named("no-such-way")


def test_the_chain_lists_splits_in_order() -> None:
    nested = sequence(sequence(DIGITS), split("a+"), BYTES_AND_GPT2)
    assert list(split_chain(nested))[:2] == [r"\p{N}", "a+"]
    assert len(list(split_chain(nested))) == 3
