"""What a model card says of its model: the YAML that README.md of a Hugging Face folder begins with."""

import re
from pathlib import Path
from typing import Any

from gguf import Keys, Metadata

from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import fits

MOST_BYTES = 4 << 20
HUB = "https://huggingface.co/"
REPOSITORY = re.compile(r"(?:[\w.-]+/)?[\w.-]+")

TEXTS = {
    "license": Keys.General.LICENSE,
    "license_name": Keys.General.LICENSE_NAME,
    "license_link": Keys.General.LICENSE_LINK,
    "model_creator": Keys.General.AUTHOR,
}
"""Field of the card -> key of the file, as llama.cpp's converter maps them."""


def card_metadata(folder: Path) -> tuple[dict[str, GgufValue], list[str]]:
    """License, author, tags, languages and origins as the card states them, and sentences for the reader."""
    file = folder / "README.md"
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return {}, []
        card = Metadata.load_model_card(folder)
    except Exception:  # the library lets through whatever reading and YAML raise
        return {}, [f"{file} begins with what is no model card; license and tags are not taken over."]
    found = {key: _text(card.get(field)) for field, key in TEXTS.items()}
    tags = _texts(card.get("tags")) + _texts(card.get("pipeline_tag"))
    lists = {Keys.General.TAGS: tags, Keys.General.LANGUAGES: _texts(card.get("language"))}
    metadata = {key: GgufValue(GGUFValueType.STRING, text) for key, text in found.items() if text}
    for key, texts in lists.items():
        if texts:
            unique = list(dict.fromkeys(texts))
            metadata[key] = GgufValue(GGUFValueType.ARRAY, unique, GGUFValueType.STRING)
    for kind, field in (("base_model", "base_model"), ("dataset", "datasets")):
        metadata |= _origins(kind, _texts(card.get(field)))
    return metadata, []


def _origins(kind: str, names: list[str]) -> dict[str, GgufValue]:
    """What the model was made from: keys behind "general.KIND.NUMBER." for the hub's "ORGANIZATION/NAME"s."""
    found = [name for name in names if REPOSITORY.fullmatch(name)]
    metadata = {f"general.{kind}.count": GgufValue(GGUFValueType.UINT32, len(found))} if found else {}
    where = f"{HUB}datasets/" if kind == "dataset" else HUB
    for number, name in enumerate(found):
        organization, _, alone = name.rpartition("/")
        texts = {"name": alone, "organization": organization, "repo_url": where + name}
        for key, text in texts.items():
            if text:
                metadata[f"general.{kind}.{number}.{key}"] = GgufValue(GGUFValueType.STRING, text)
    return metadata


def _text(value: Any) -> str | None:
    """A field as one line of text: a list of one is as good."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value if isinstance(value, str) and value and fits(value) else None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_text, values) if text]
