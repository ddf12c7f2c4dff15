"""Model cards: what goes into the file, and cards that are none."""

from pathlib import Path

import pytest

from engine.export.gguf.model_card import card_metadata

CARD = """---
license: other
license_name: llama3
license_link: https://example.org/LICENSE
language: [en, de]
tags:
- chat
- chat
pipeline_tag: text-generation
base_model: meta-llama/Llama-3.1-8B
datasets: [wikitext, "no name at all"]
---
# Model
"""


def test_what_a_card_says(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    metadata, notes = card_metadata(tmp_path)
    assert {key: value.value for key, value in metadata.items()} == {
        "general.license": "other",
        "general.license.name": "llama3",
        "general.license.link": "https://example.org/LICENSE",
        "general.tags": ["chat", "text-generation"],
        "general.languages": ["en", "de"],
        "general.base_model.count": 1,
        "general.base_model.0.name": "Llama-3.1-8B",
        "general.base_model.0.organization": "meta-llama",
        "general.base_model.0.repo_url": "https://huggingface.co/meta-llama/Llama-3.1-8B",
        "general.dataset.count": 1,
        "general.dataset.0.name": "wikitext",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/wikitext",
    }
    assert notes == []


@pytest.mark.parametrize(
    "text", ["", "# no header", "---\n- a list\n---", "---\nlicense: {a: 1}\ntags: 3\n---"]
)
def test_cards_without_anything_to_take(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card_metadata(tmp_path) == ({}, [])


@pytest.mark.parametrize("text", [b"---\nlicense: [\n---", b"---\nx: \xff\n---", b"---\n&a [*a, *a\n---"])
def test_damaged_cards_are_said(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "README.md").write_bytes(text)
    metadata, notes = card_metadata(tmp_path)
    assert metadata == {}
    assert "begins with what is no model card" in notes[0]


def test_values_that_no_line_holds(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text('---\nlicense: "a\\nb"\ntags: ["ok", "x\\u0007", 5]\n---')
    metadata, _ = card_metadata(tmp_path)
    assert {key: value.value for key, value in metadata.items()} == {"general.tags": ["ok"]}
