"""A GGUF file's metadata for readers: shown, edited, and counted to the byte without writing any.

Edits are part of a recipe's output (`GgufOptions.metadata`): a key and its new value, "" to leave it out.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from engine.api.errors import RecipeError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import shown

Edit = str | bool | int | float | list[str]

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")

FIXED = {
    "general.architecture": "it says how all others are read",
    "general.alignment": "the places of the tensors depend on it",
    "general.file_type": "it follows from the formats",
    "general.quantization_version": "it follows from the formats",
    "general.type": "the file holds a model",
}
"""Key -> why it cannot be edited."""

LISTS = ("general.tags", "general.languages")
"""Lists of texts that readers write by hand."""

COMMON = {
    "general.name": "Name",
    "general.author": "Author",
    "general.organization": "Organization",
    "general.version": "Version",
    "general.description": "Description",
    "general.license": "License",
    "general.license.link": "Link to the license",
    "general.url": "Home page",
    "general.tags": "Tags",
    "general.languages": "Languages",
    "tokenizer.chat_template": "Chat template",
}
"""What people look at or change most, with plain names; the order is that of forms."""

PRE_TOKENIZER = "tokenizer.ggml.pre"
"""How byte-level BPE splits text, by llama.cpp's name; "default" where it is left out."""
ALIASES = {key.rpartition(".")[2]: key for key in COMMON if key != "general.license.link"} | {
    "licence": "general.license",
    "organisation": "general.organization",
}
"""Plain names that stand for keys in edits."""

TEMPLATE = "tokenizer.chat_template"
"""Also the beginning of the keys of further templates, with a dot behind it."""

MOST_TEXT = 1 << 20
MOST_SHOWN = 64 << 10
"""Letters of a value: allowed in an edit, and shown whole."""

MOST_IN_ALL = 1 << 20
"""Letters of all values that are shown: a file may have any number of keys."""

SIZES = {
    GGUFValueType.UINT8: 1, GGUFValueType.INT8: 1, GGUFValueType.BOOL: 1,
    GGUFValueType.UINT16: 2, GGUFValueType.INT16: 2,
    GGUFValueType.UINT32: 4, GGUFValueType.INT32: 4, GGUFValueType.FLOAT32: 4,
    GGUFValueType.UINT64: 8, GGUFValueType.INT64: 8, GGUFValueType.FLOAT64: 8,
}  # fmt: skip
"""Bytes of a scalar."""

WHOLE = {
    kind: (-(1 << 8 * SIZES[kind] - 1), (1 << 8 * SIZES[kind] - 1) - 1)
    if kind.name.startswith("INT")
    else (0, (1 << 8 * SIZES[kind]) - 1)
    for kind in SIZES
    if "INT" in kind.name
}
"""Type -> least and greatest number."""


class MetadataEntry(BaseModel):
    """One key for readers. `text`: the value as one reads it; `type`: the name of GGUF's type.

    `value` is there where it can be edited; `fixed` says why it cannot be, or None. `bytes`: what key and
    value take in the file.
    """

    key: str
    type: str
    text: str
    value: Edit | None = None
    fixed: str | None = None
    bytes: int


def entries_of(metadata: Mapping[str, GgufValue]) -> list[MetadataEntry]:
    """All keys for readers, in the order of the file; values shortened where they are too many."""
    found, letters = [], 0
    for key, value in metadata.items():
        entry = entry_of(key, value)
        letters += len(entry.text)
        if letters > MOST_IN_ALL:
            entry.text, entry.value, entry.fixed = entry.text[:40], None, "the file has too many long values"
        found.append(entry)
    return found


def entry_of(key: str, value: GgufValue) -> MetadataEntry:
    content = _readable(value.value)
    fixed = why_fixed(key, value)
    return MetadataEntry(
        key=key,
        type=value.type.name,
        text=_text(content),
        value=content if fixed is None else None,
        fixed=fixed,
        bytes=value_bytes(key, value),
    )


def edited_entries(entries: Iterable[MetadataEntry], edits: Mapping[str, Edit]) -> list[MetadataEntry]:
    """`entries` as `edited` leaves them. Raises RecipeError as it does."""
    found = {entry.key: entry for entry in entries}
    for key, value in full_keys(edits, found).items():
        old = found.get(key)
        if old is None:
            new = edited({}, {key: value})
        elif old.fixed is not None:
            raise _refusal(key, old.fixed)
        else:
            new = edited({key: GgufValue(GGUFValueType[old.type], old.value)}, {key: value})
        if new:
            found[key] = entry_of(key, new[key])
        else:
            found.pop(key, None)
    return list(found.values())


def why_fixed(key: str, value: GgufValue | None) -> str | None:
    """Why the value of this key cannot be edited, or None. `value`: what it is now."""
    if key in FIXED or key.startswith("split."):
        return FIXED.get(key, "it follows from the size of the files")
    if value is None or value.type != GGUFValueType.ARRAY:
        long = value is not None and isinstance(value.value, str) and len(value.value) > MOST_SHOWN
        return "it is too long" if long else None
    return None if key in LISTS else "it is a list that the tokenizer or the tensors belong to"


def full_key(name: str, known: Collection[str] = ()) -> str:
    """The key that a plain name stands for ("author": "general.author"), else the name itself.

    `known`: the file's keys; one of them is meant where it is spelled just so.
    """
    return name if name in known else ALIASES.get(name.lower(), name)


def full_keys(edits: Mapping[str, Edit], known: Collection[str]) -> dict[str, Edit]:
    """The edits under full keys, `known` being the file's.

    Raises RecipeError where two of them are one, or one is of no use.
    """
    found: dict[str, Edit] = {}
    for name, value in edits.items():
        _check_key(name)
        key = full_key(name, known)
        if "." not in key and key not in known and value != "":
            raise _useless(key)
        if key in found:
            raise RecipeError(
                f"metadata: {key} is there twice, as itself and by a plain name; leave one out."
            )
        found[key] = value
    return found


def check_edits(edits: Mapping[str, Edit]) -> None:
    """Raise RecipeError for an edit that no file can take, whatever it holds."""
    for key, value in edits.items():
        _check_key(key)
        reason = why_fixed(key, None)
        if reason is not None:
            raise _refusal(key, reason)
        if isinstance(value, list):
            _list(full_key(key), value)
        elif isinstance(value, str):
            _string(key, value)
        elif isinstance(value, float):
            new_value(key, value, None)


def edited(metadata: Mapping[str, GgufValue], edits: Mapping[str, Edit]) -> dict[str, GgufValue]:
    """`metadata` with the edits; new keys come last. Raises RecipeError for what cannot be."""
    check_edits(edits)
    found = dict(metadata)
    for key, value in full_keys(edits, metadata).items():
        reason = why_fixed(key, found.get(key))
        if reason is not None:
            raise _refusal(key, reason)
        if value == "":
            found.pop(key, None)
        else:
            found[key] = new_value(key, value, found.get(key))
    return found


def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise RecipeError(f"metadata: {shown(key)} is no key; write letters, digits, '.', '_' and '-'.")


def _useless(name: str) -> RecipeError:
    """No program looks at a key without a dot."""
    close = [ALIASES[one] for one in difflib.get_close_matches(name.lower(), ALIASES, 3)]
    hint = f"nearest: {', '.join(dict.fromkeys(close))}" if close else "such as general.author"
    return RecipeError(f"metadata: {name} is no key that programs know; write it in full ({hint}).")


def _refusal(key: str, reason: str) -> RecipeError:
    return RecipeError(f"metadata: {key} cannot be edited: {reason}.")


def new_value(key: str, value: Edit, old: GgufValue | None) -> GgufValue:
    """`value` in the type that the key has, or in that of the value if it is new. Raises RecipeError.

    Text for a number or a truth value is read as one.
    """
    if isinstance(value, list) or key in LISTS:
        return _list(key, value)
    kind = _type_of(value) if old is None else old.type
    content: Any = _parsed(value, kind) if isinstance(value, str) else value
    if kind == GGUFValueType.STRING and isinstance(content, str):
        return GgufValue(kind, _string(key, content))
    if kind == GGUFValueType.BOOL and isinstance(content, bool):
        return GgufValue(kind, content)
    if isinstance(content, bool):
        content = None
    if kind in WHOLE and type(content) is int and WHOLE[kind][0] <= content <= WHOLE[kind][1]:
        return GgufValue(kind, content)
    floats = (GGUFValueType.FLOAT32, GGUFValueType.FLOAT64)
    if kind in floats and isinstance(content, int | float) and abs(content) <= 3.4e38:
        return GgufValue(kind, float(content))
    raise _unfit(key, kind, value)


def _unfit(key: str, kind: GGUFValueType, value: object) -> RecipeError:
    return RecipeError(f"metadata: {key} holds {_KINDS[kind]}, and {shown(value)} is none that fits.")


def is_template(key: str) -> bool:
    return key == TEMPLATE or key.startswith(f"{TEMPLATE}.")


def value_bytes(key: str, value: GgufValue) -> int:
    """Bytes of key and value in a file's header."""
    return 8 + len(key.encode()) + 4 + _content_bytes(value.value, value.type, value.item_type)


def _content_bytes(content: Any, kind: GGUFValueType, item: GGUFValueType | None) -> int:
    if kind == GGUFValueType.STRING:
        return 8 + len(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    if kind != GGUFValueType.ARRAY:
        return SIZES[kind]
    assert item is not None, "an array has a type of items"
    if item in SIZES:
        return 12 + SIZES[item] * len(content)
    return 12 + sum(_content_bytes(one, item, None) for one in content)


def _list(key: str, value: object) -> GgufValue:
    if key not in LISTS:
        raise RecipeError(f"metadata: {key} cannot be a list; {' and '.join(LISTS)} can.")
    texts = [text.strip() for text in value.split(",")] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise RecipeError(f"metadata: {key} is a list of texts, and {shown(value)} is none.")
    items = [_utf8(key, text) for text in texts]
    return GgufValue(GGUFValueType.ARRAY, items, GGUFValueType.STRING)


def _string(key: str, text: str) -> str:
    if len(text) > MOST_TEXT:
        raise _unfit(key, GGUFValueType.STRING, text)
    return _utf8(key, text)


def _utf8(key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"metadata: the value of {key} is no text (UTF-8).") from None
    return text


def _type_of(value: object) -> GGUFValueType:
    """The type of a new key: for whole numbers that which llama.cpp gives them."""
    if isinstance(value, bool):
        return GGUFValueType.BOOL
    if isinstance(value, int):
        return GGUFValueType.UINT32 if value >= 0 else GGUFValueType.INT32
    return GGUFValueType.FLOAT32 if isinstance(value, float) else GGUFValueType.STRING


def _parsed(text: str, kind: GGUFValueType) -> object:
    """The text as a value of `kind` where it is one, else None."""
    if kind == GGUFValueType.STRING:
        return text
    if kind == GGUFValueType.BOOL:
        return {"true": True, "false": False}.get(text.strip().lower())
    try:
        return None if len(text) > 40 else int(text) if kind in WHOLE else float(text)
    except ValueError:
        return None


_KINDS = dict.fromkeys(WHOLE, "a whole number") | {
    GGUFValueType.FLOAT32: "a number",
    GGUFValueType.FLOAT64: "a number",
    GGUFValueType.BOOL: "true or false",
    GGUFValueType.STRING: f"text of at most {MOST_TEXT:,} letters",
}


def _readable(content: Any) -> Any:
    """Texts that are not UTF-8 with the mark for that in place of what is not."""
    if isinstance(content, list):
        return [_readable(item) for item in content]
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else content


def _text(content: Any) -> str:
    if isinstance(content, bool):
        return str(content).lower()
    if isinstance(content, list):
        more = f", … ({len(content):,} in all)" if len(content) > 8 else ""
        return ", ".join(str(item)[:100] for item in content[:8]) + more
    return str(content)[:MOST_SHOWN]
