"""Recipes made to do harm: refused in order, and no pattern takes forever."""

import json
import os
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.errors import RecipeError
from engine.api.model import Role
from engine.api.plan import ExportTensor, Planner
from engine.api.recipe import FILE_LIMIT, Choice, Recipe, Rule, load_recipe
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check

test_damage = no_damage("recipe", 500)
test_bytes = no_bytes("recipe")

SLOW = (r"(a|aa)+$", r"(.*)*(.*)*(.*)*x$", r"(a|a|b?)*c", r"^(\w+\w+)+$", r"(a*)*(a*)*b", r"((a|aa)*)*\.$")


def said(**changes: object) -> str:
    content = {"default": {"format": "Q4_K"}} | changes
    return " ".join(check(READERS["recipe"], json.dumps(content).encode()))


def rule(**changes: object) -> dict:
    return {"match": "down", "format": "Q4_K"} | changes


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_takes_forever_is_broken_off(pattern):
    """Once for all names, not once for each."""
    names = ["a" * 40 + f"!{number}" for number in range(2_000)]
    tensors = [ExportTensor(name=n, shape=(4, 4), role=Role.Q, block=0, sources=("b" * 60,)) for n in names]
    recipe = Recipe(rules=[Rule(match=pattern, format="Q8_0")], default=Choice(format="Q4_0"))
    start = time.thread_time()
    try:
        Planner(tensors).plan(recipe)
    except RecipeError as error:
        told = str(error)
        assert told == f"The regular expression {pattern!r} in a rule takes too long; make it simpler."
    assert time.thread_time() - start < 3


def test_such_a_pattern_is_named():
    slow = Rule(match=SLOW[0], format="Q8_0")
    for _ in range(2):
        with pytest.raises(RecipeError, match="takes too long; make it simpler"):
            slow.matches(("a" * 60 + "!",), Role.Q, 0)
    assert slow.matches(("aaa",), Role.Q, 0)


def test_the_largest_models_are_searched_in_no_time():
    """46,000 names and patterns as people write them."""
    names = [
        (
            f"blk.{block}.ffn_down.{expert}.weight",
            f"model.layers.{block}.mlp.experts.{expert}.down_proj.weight",
        )
        for block in range(60)
        for expert in range(768)
    ]
    for pattern in (r"down_proj\.", r"^model\.layers\.(1|2|3)\..*down", r"layers\.[0-9]+\.mlp.*(up|gate)"):
        chosen = Rule(match=pattern, format="Q8_0")
        start = time.thread_time()
        found = sum(chosen.matches(both, Role.DOWN, 0) for both in names)
        assert time.thread_time() - start < 2
        assert found in (0, 3 * 768, len(names))


LETTERS = ["a", "b", ".", r"\.", r"\d", r"\w", "[ab]", "[^a]", "(a|b)", "(?:ab)", "(?i:B)", "^", "$"]
COUNTS = ["", "", "*", "+", "?", "{1,2}", "{2}", "*?"]
PATTERNS = st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from(COUNTS)), max_size=5)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(PATTERNS, st.lists(st.text("abB.1\n", max_size=8), min_size=1, max_size=3))
def test_patterns_mean_what_they_mean_to_python(parts, names):
    """Whichever library searches."""
    pattern = "".join(letter + ("" if letter in "^$" else count) for letter, count in parts)
    if pattern and pattern not in {role.value for role in Role}:
        expected = any(re.search(pattern, name) for name in names)
        assert Rule(match=pattern, format="Q8_0").matches(tuple(names), Role.OTHER, None) == expected


@pytest.mark.parametrize("text", ["\ud800", "a\udc80b"])
def test_half_characters_are_refused(text):
    """The recipe could not be written again."""
    for changes in (
        {"imatrix": text},
        {"calibration": {"files": [text]}},
        {"rules": [rule(match=text)]},
        {"rules": [rule(**{text: 1})]},
        {text: 1},
    ):
        assert "holds half a character" in said(**changes)
    assert said(imatrix="\U0001d11e") == ""


@pytest.mark.parametrize(
    "key", ["match", "blocks", "format", "method", "params", "pinned", "a\nb", "k" * 5000]
)
def test_sentences_stay_short(key):
    """`check` fails where they are not one short line."""
    for value in ("x" * 5000, [[["x" * 5000] * 20] * 20], 10**4000, "a\nb", {"a\n": 1}):
        said(rules=[rule(**{key: value})])
        said(**{key: value})
        said(output={"options": {key: value}})


@pytest.mark.parametrize("pattern", ["[b-\n]", "(?P=a\nb)", "[\x1b-\0]", "\\\u202e", "(?\n"])
def test_what_is_wrong_with_a_pattern_is_one_line(pattern):
    """Python's own sentence quotes the pattern as it is."""
    said(rules=[rule(match=pattern)])


def test_memory_for_many_small_mistakes():
    assert said(rules=[{}] * 10_000)
    assert said(calibration={"files": [1] * 10_000})
    assert said(**{f"{number:x}": 1 for number in range(5_000)})


def test_many_blocks_are_searched_in_no_time():
    blocks = ",".join(str(number) for number in range(0, 14_000, 2))
    assert said(rules=[rule(blocks=blocks)] * 20) == ""
    chosen = Rule(match="q", blocks=blocks, format="Q8_0")
    start = time.thread_time()
    assert sum(chosen.matches(("q",), Role.Q, number) for number in range(20_000)) == 7_000
    assert time.thread_time() - start < 2
    assert "is not a list of blocks" in said(rules=[rule(blocks="7," * 60_000 + "7")])


def test_overlapping_blocks():
    chosen = Rule(match="q", blocks="9,0-3,2-5,7-,8", format="Q8_0")
    assert [b for b in range(12) if chosen.matches(("x",), Role.Q, b)] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(RecipeError, match="not a plain file"):
            load_recipe(tmp_path / path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    with pytest.raises(RecipeError, match="no recipe is so large"):
        load_recipe(tmp_path / "large")
