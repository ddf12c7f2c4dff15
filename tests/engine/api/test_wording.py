"""Sentences for one door that the other must not say."""

import pytest

from engine.api.wording import for_window


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("replace what is there (--overwrite).", "replace what is there."),
        ("What is finished is kept: bitwright resume 1f-2", "What is finished is kept."),
        ("Start it again: bitwright resume 1f-2 --restart", "Start it again."),
        ("resume it (`bitwright resume 1f`), or give up all (--overwrite).", "resume it, or give up all."),
        ("give it (--pre-tokenizer, or pre_tokenizer in the recipe) (as it is).", "give it (as it is)."),
        ("/a (1) --x/out: is a folder", "/a (1) --x/out: is a folder"),
    ],
)
def test_the_window_hears_nothing_of_options_and_commands(said: str, left: str):
    assert for_window(said) == left
