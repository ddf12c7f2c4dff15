"""The text of single tokens."""

from pathlib import Path

import pytest

from engine.checkpoint import open_checkpoint
from engine.tokenizer import load_tokenizer
from tests.tiny import write_llama

TEXT = "The harbour was quiet,\n27 boats."


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_the_texts_of_tokens_make_the_text(tmp_path: Path, kind: str):
    with open_checkpoint(write_llama(tmp_path / "model", tokenizer=kind)) as checkpoint:
        tokenizer = load_tokenizer(checkpoint)
    ids = tokenizer.encode(TEXT)
    assert len(ids) > 5
    assert "".join(map(tokenizer.text_of, ids)).removeprefix(" ") == TEXT
    assert "\ufffd" in [tokenizer.text_of(token) for token in tokenizer.encode("龍")]
